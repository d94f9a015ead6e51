package shield

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// place is a network namespace that belongs to one thread.
type place struct {
	thread int
	work   chan func()
}

// newPlace makes one that ends with the test.
func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		p.thread = unix.Gettid()
		ready <- err
		for f := range p.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("making a network namespace (needs root): %v", err)
	}
	t.Cleanup(func() { close(p.work) })
	return p
}

// do runs f there and returns when it is done.
func (p *place) do(f func()) {
	done := make(chan struct{})
	p.work <- func() { defer close(done); f() }
	<-done
}

func (p *place) ip(t *testing.T, lines ...string) {
	t.Helper()
	p.do(func() {
		for _, line := range lines {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v %s", line, err, out)
			}
		}
	})
}

// serves hands connections to a port of any address to answer, until the test ends.
func (p *place) serves(t *testing.T, port int, answer func(net.Conn)) {
	t.Helper()
	p.do(func() {
		listener, err := net.Listen("tcp4", ":"+strconv.Itoa(port))
		if err != nil {
			t.Error(err)
			return
		}
		var serving sync.WaitGroup
		t.Cleanup(func() { listener.Close(); serving.Wait() })
		serving.Go(func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				serving.Go(func() {
					stop := context.AfterFunc(t.Context(), func() { conn.Close() })
					defer stop()
					defer conn.Close()
					answer(conn)
				})
			}
		})
	})
}

func (p *place) dial(address string, within time.Duration) (conn net.Conn, err error) {
	p.do(func() { conn, err = net.DialTimeout("tcp4", address, within) })
	return conn, err
}

const (
	long  = 30 * time.Second       // for what must be reached
	short = 500 * time.Millisecond // for what must not be; the shield's own counters tell that it was tried
)

func (p *place) reaches(address string, within time.Duration) bool {
	conn, err := p.dial(address, within)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// hold keeps a connection until the other side ends it.
func hold(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// lab is a host with a rental on a bridge, and a LAN on which a neighbour is the way to the internet.
type lab struct{ host, rental, lan *place }

func newLab(t *testing.T) lab {
	t.Helper()
	l := lab{newPlace(t), newPlace(t), newPlace(t)}
	l.host.do(func() {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			t.Errorf("forwarding: %v", err)
		}
	})
	l.host.ip(t,
		"link set lo up", "link add gr-lab type bridge", "addr add 172.30.0.1/24 dev gr-lab", "link set gr-lab up",
		"link add veth0 type veth peer name eth0", "link set veth0 master gr-lab", "link set veth0 up",
		fmt.Sprintf("link set eth0 netns %d", l.rental.thread),
		"link add lan0 type veth peer name eth0", "addr add 192.168.77.1/24 dev lan0", "link set lan0 up",
		fmt.Sprintf("link set eth0 netns %d", l.lan.thread),
	)
	l.rental.ip(t, "link set lo up", "addr add 172.30.0.2/24 dev eth0", "link set eth0 up", "route add default via 172.30.0.1")
	l.lan.ip(t, "link set lo up", "addr add 192.168.77.10/24 dev eth0", "link set eth0 up", "addr add 203.0.113.10/32 dev lo",
		"route add default via 192.168.77.1")
	l.host.ip(t, "route add default via 192.168.77.10")
	l.lan.serves(t, 80, hold)
	l.lan.serves(t, 25, hold)
	l.lan.serves(t, 21, hold)
	l.host.serves(t, 80, hold)
	l.rental.serves(t, 80, hold)
	return l
}

func (l lab) raise(t *testing.T, policy Policy) {
	t.Helper()
	l.host.do(func() {
		if _, err := Raise(t.Context(), Direct{}, policy); err != nil {
			t.Error(err)
		}
	})
}

func TestRentalReachesTheInternetAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	closed := map[string]string{
		"the LAN": "192.168.77.10:80", "the bridge's address": "172.30.0.1:80", "the host's LAN address": "192.168.77.1:80",
		"a mail server": "203.0.113.10:25", "a protocol that opens ports": "203.0.113.10:21",
	}
	const internet = "203.0.113.10:80"
	for name, address := range closed {
		if !l.rental.reaches(address, long) {
			t.Fatalf("without the shield, %s cannot be reached: the test proves nothing", name)
		}
	}
	if !l.lan.reaches("172.30.0.2:80", long) {
		t.Fatal("without the shield, a neighbour cannot reach the rental: the test proves nothing")
	}
	l.raise(t, Policy{MaxConnections: 100, PerSecond: 100})
	for name, address := range closed {
		if l.rental.reaches(address, short) {
			t.Errorf("the rental reaches %s", name)
		}
	}
	if l.lan.reaches("172.30.0.2:80", short) {
		t.Error("a neighbour reaches the rental")
	}
	if !l.rental.reaches(internet, long) {
		t.Error("the rental does not reach the internet")
	}
	if !l.host.reaches("172.30.0.2:80", long) {
		t.Error("the host does not reach the rental: the tunnel would not")
	}
	l.host.do(func() {
		there, err := Observe(t.Context(), Direct{})
		if blocked := there.Blocked[netip.MustParseAddr("172.30.0.2")]; err != nil || blocked < uint64(len(closed)) {
			t.Errorf("%d packets are counted, %v; %d targets were tried", blocked, err, len(closed))
		}
	})
	l.raise(t, Policy{MaxConnections: 100, PerSecond: 100, Deny: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}})
	if l.rental.reaches(internet, short) {
		t.Error("the rental reaches what the owner denies")
	}
}

// While somebody had taken the shield down, a rental may have connected to what it must not reach: that ends as well.
func TestConnectionsOlderThanTheShieldAreCut(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	echo := func(conn net.Conn) { _, _ = io.Copy(conn, conn) }
	l.lan.serves(t, 81, echo)
	l.host.serves(t, 81, echo)
	l.rental.serves(t, 81, echo)
	l.host.do(func() { // which has the kernel track connections, as a container engine's rules do
		conn, err := nftables.New()
		if err != nil {
			t.Error(err)
			return
		}
		table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "engine"})
		for name, hook := range map[string]*nftables.ChainHook{"forward": nftables.ChainHookForward, "input": nftables.ChainHookInput, "output": nftables.ChainHookOutput} {
			c := conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter})
			conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: append(state(expr.CtStateBitESTABLISHED), accept()...)})
		}
		if err := conn.Flush(); err != nil {
			t.Error(err)
		}
	})
	type talk struct {
		from    *place
		address string
		goesOn  bool
		conn    net.Conn
	}
	talks := map[string]*talk{
		"the LAN": {l.rental, "192.168.77.10:81", false, nil}, "the bridge's address": {l.rental, "172.30.0.1:81", false, nil},
		"the host's LAN address": {l.rental, "192.168.77.1:81", false, nil},
		"the internet":           {l.rental, "203.0.113.10:81", true, nil}, "the rental, from the host": {l.host, "172.30.0.2:81", true, nil},
	}
	speaks := func(conn net.Conn, within time.Duration) error {
		if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, make([]byte, 1))
		return err
	}
	for name, talk := range talks {
		var err error
		if talk.conn, err = talk.from.dial(talk.address, long); err == nil {
			defer talk.conn.Close()
			err = speaks(talk.conn, long)
		}
		if err != nil {
			t.Fatalf("without the shield, %s cannot be reached: %v", name, err)
		}
	}
	l.raise(t, Policy{MaxConnections: 100, PerSecond: 100})
	for name, talk := range talks {
		within := short
		if talk.goesOn {
			within = long
		}
		if err := speaks(talk.conn, within); (err == nil) != talk.goesOn {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRentalHasSoManyConnections(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const most = 16
	l.raise(t, Policy{MaxConnections: most, PerSecond: 1000})
	open := 0
	for range most + 8 {
		if conn, err := l.rental.dial("203.0.113.10:80", short); err == nil {
			defer conn.Close()
			open++
		}
	}
	if open != most {
		t.Errorf("%d connections are open, %d are allowed", open, most)
	}
}

func TestRentalHasItsBandwidth(t *testing.T) {
	const pace = 4 << 20 // bytes a second
	for name, way := range map[string]struct {
		policy   Policy
		from, to func(lab) *place
		address  string
	}{
		"sent":                       {Policy{Upload: pace}, func(l lab) *place { return l.rental }, func(l lab) *place { return l.lan }, "203.0.113.10:90"},
		"received":                   {Policy{Download: pace}, func(l lab) *place { return l.rental }, nil, "203.0.113.10:91"},
		"received through the relay": {Policy{Download: pace}, func(l lab) *place { return l.host }, func(l lab) *place { return l.rental }, "172.30.0.2:90"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var count atomic.Int64
			l := newLab(t)
			way.policy.MaxConnections, way.policy.PerSecond = 100, 100
			l.raise(t, way.policy)
			if way.to != nil {
				way.to(l).serves(t, 90, func(conn net.Conn) { swallow(conn, &count) })
			} else {
				l.lan.serves(t, 91, func(conn net.Conn) { _, _ = io.Copy(conn, endless{}) })
			}
			conn, err := way.from(l).dial(way.address, long)
			if err != nil {
				t.Fatal(err)
			}
			var moving sync.WaitGroup
			moving.Go(func() {
				if way.to == nil {
					swallow(conn, &count)
					return
				}
				_, _ = io.Copy(conn, endless{})
			})
			time.Sleep(1500 * time.Millisecond) // the burst
			before, began := count.Load(), time.Now()
			time.Sleep(2 * time.Second)
			rate := float64(count.Load()-before) / time.Since(began).Seconds()
			conn.Close()
			moving.Wait()
			t.Logf("%.2f MiB/s where %.2f are allowed", rate/(1<<20), float64(pace)/(1<<20))
			if rate > 1.5*pace || rate < pace/5 { // make isolation asks for more
				t.Errorf("%.0f bytes a second came through, %d are allowed", rate, pace)
			}
		})
	}
}

// swallow counts what comes until the connection ends.
func swallow(conn net.Conn, count *atomic.Int64) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buffer)
		count.Add(int64(n))
		if err != nil {
			return
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
