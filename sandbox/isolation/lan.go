//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Addresses of the network that the host stands in.
const (
	hostOnLAN   = "192.168.77.1"
	neighbour   = "192.168.77.10" // which has the addresses of other private networks too
	hostOnLAN6  = "fd00:77::1"
	neighbour6  = "fd00:77::10"
	nagged      = "10.66.66.66" // the neighbour's too: what a rental tries to reach from its first moment on, and nobody else
	internet    = "203.0.113.10"
	hostOutside = "198.51.100.1"
	echoPort    = 7777
	neighbourNS = "neighbour"
	internetNS  = "internet"
)

// elsewhere are addresses that a home's or an office's network may have beyond its own, all of them the neighbour's here.
var elsewhere = []string{"10.99.0.10", "172.30.99.10", "192.168.200.10", "169.254.169.254", "100.64.9.10", "198.18.0.10"}

// lan is a network around the host, in network namespaces of its own: a neighbour, with all that is private, and the
// internet. Everywhere something answers, by TCP and by UDP.
type lan struct {
	namespaces []string
	closers    []func() error
	serving    sync.WaitGroup
	came       sync.Map // address that was connected to → *atomic.Int64, how often
}

// openLAN joins this host to the network.
func openLAN(ctx context.Context) (_ *lan, err error) {
	l := &lan{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	for _, name := range []string{neighbourNS, internetNS} {
		if err := system(ctx, "ip", "netns", "add", name); err != nil {
			return nil, err
		}
		l.namespaces = append(l.namespaces, name)
		if err := system(ctx, "ip", "-n", name, "link", "set", "lo", "up"); err != nil {
			return nil, err
		}
	}
	lines := []string{
		"link add lan0 type veth peer name eth0 netns neighbour",
		"addr add 192.168.77.1/24 dev lan0",
		"-6 addr add fd00:77::1/64 dev lan0 nodad",
		"link set lan0 up",
		"-n neighbour addr add 192.168.77.10/24 dev eth0",
		"-n neighbour -6 addr add fd00:77::10/64 dev eth0 nodad",
		"-n neighbour link set eth0 up",
		"-n neighbour route add default via 192.168.77.1",
		// The neighbour's own loopback gives way to the host's, which it tries to reach.
		"-n neighbour addr del 127.0.0.1/8 dev lo",
		"-n neighbour route add 127.0.0.1/32 via 192.168.77.1 dev eth0 src 192.168.77.10",
		"link add wan0 type veth peer name eth0 netns internet",
		"addr add 198.51.100.1/24 dev wan0",
		"link set wan0 up",
		"-n internet addr add 198.51.100.2/24 dev eth0",
		"-n internet addr add 203.0.113.10/32 dev lo",
		"-n internet link set eth0 up",
		"-n internet route add default via 198.51.100.1",
		"route add default via 198.51.100.2",
	}
	for _, address := range append([]string{nagged}, elsewhere...) {
		lines = append(lines, "-n neighbour addr add "+address+"/32 dev eth0", "route add "+address+"/32 via 192.168.77.10")
	}
	for _, line := range lines {
		if err := system(ctx, "ip", strings.Fields(line)...); err != nil {
			return nil, err
		}
	}
	if err := inNamespace(neighbourNS, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0)
	}); err != nil {
		return nil, fmt.Errorf("letting the neighbour try the host's loopback: %w", err)
	}
	for _, namespace := range []string{neighbourNS, internetNS, ""} {
		if err := l.serveIn(namespace); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// close takes the network away.
func (l *lan) close() error {
	var failures []error
	for _, closer := range l.closers {
		failures = append(failures, closer())
	}
	l.serving.Wait()
	ctx := context.Background()
	for _, name := range l.namespaces {
		failures = append(failures, system(ctx, "ip", "netns", "del", name))
	}
	// The cables' other ends go with the namespaces, sooner or later.
	return errors.Join(failures...)
}

// serveIn answers on all addresses of a namespace, "" for the host's, by TCP and UDP, as the servers of a home do.
func (l *lan) serveIn(namespace string) error {
	at := fmt.Sprintf(":%d", echoPort)
	var listeners []net.Listener
	var packets *net.UDPConn
	err := inNamespace(namespace, func() (err error) {
		for _, transport := range []string{"tcp4", "tcp6"} {
			listener, err := net.Listen(transport, at)
			if err != nil {
				return err
			}
			listeners = append(listeners, listener)
		}
		packets, err = net.ListenUDP("udp4", &net.UDPAddr{Port: echoPort})
		return err
	})
	for _, listener := range listeners {
		l.closers = append(l.closers, listener.Close)
		l.serving.Go(func() { l.greet(listener) })
	}
	if packets != nil {
		l.closers = append(l.closers, packets.Close)
		l.serving.Go(func() { echo(packets) })
		err = errors.Join(err, tellAddress(packets))
	}
	if err != nil {
		return fmt.Errorf("serving on the network: %w", err)
	}
	return nil
}

// greet takes connections, counts them, and holds each until its peer hangs up.
func (l *lan) greet(listener net.Listener) {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(conn.LocalAddr().String())
		count, _ := l.came.LoadOrStore(host, new(atomic.Int64))
		count.(*atomic.Int64).Add(1)
		open.Go(func() {
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 1))
		})
	}
}

// connections is how many came to an address so far.
func (l *lan) connections(address string) int64 {
	count, ok := l.came.Load(address)
	if !ok {
		return 0
	}
	return count.(*atomic.Int64).Load()
}

// tellAddress has the kernel say which of the machine's addresses a datagram came to.
func tellAddress(packets *net.UDPConn) error {
	raw, err := packets.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) })
	return errors.Join(err, set)
}

// echo sends datagrams back, from the address that each came to: from another one, it would be no answer.
func echo(packets *net.UDPConn) {
	buffer, about := make([]byte, 1500), make([]byte, 128)
	for {
		n, m, _, from, err := packets.ReadMsgUDP(buffer, about)
		if err != nil {
			return
		}
		var answer []byte
		messages, _ := unix.ParseSocketControlMessage(about[:m])
		for _, message := range messages {
			if message.Header.Type == unix.IP_PKTINFO && len(message.Data) >= unix.SizeofInet4Pktinfo {
				answer = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte(message.Data[8:12])})
			}
		}
		_, _, _ = packets.WriteMsgUDP(buffer[:n], answer, from)
	}
}

// inNamespace does something on a thread in a network namespace, "" for this one. Sockets opened there stay there. The
// thread comes back: if it ended, so would the programs that it has started, by their parent-death signal.
func inNamespace(name string, do func() error) error {
	if name == "" {
		return do()
	}
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("opening the host's namespace: %w", err)
	}
	defer unix.Close(home)
	err = func() error {
		fd, err := unix.Open(filepath.Join("/run/netns", name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening namespace %s: %w", name, err)
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering namespace %s: %w", name, err)
		}
		return do()
	}()
	if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("coming back from namespace %s: %w", name, back)) // the thread stays locked, and ends
	}
	runtime.UnlockOSThread()
	return err
}

// linkLocal is the address that an interface has given itself.
func linkLocal(namespace, device string) (netip.Addr, error) {
	var found netip.Addr
	err := inNamespace(namespace, func() error {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		addrs, err := link.Addrs()
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			prefix, err := netip.ParsePrefix(addr.String())
			if err == nil && prefix.Addr().Is6() && prefix.Addr().IsLinkLocalUnicast() {
				found = prefix.Addr()
			}
		}
		return nil
	})
	return found, err
}

// system runs a system program.
func system(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
