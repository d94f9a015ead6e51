package docker_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/rental"
)

// subnetOf is the range of the network that a container is on.
func subnetOf(t testing.TB, containerID string) netip.Prefix {
	t.Helper()
	name := cli(t, "inspect", "-f", "{{.HostConfig.NetworkMode}}", containerID)
	subnet, err := netip.ParsePrefix(cli(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name))
	if err != nil {
		t.Fatalf("network %s: %v", name, err)
	}
	return subnet
}

// Two agents' worth of rentals are created at once, from one small pool: each is refused ranges that the other has taken.
func TestNetworksMadeAtOnce(t *testing.T) {
	const each = 6
	var mu sync.Mutex
	var made []string
	var making sync.WaitGroup
	for agent := range 2 {
		e := engineWith(t, docker.Options{Host: daemon.Host(), OwnerKey: []byte(ownerKey), AddressPool: "10.98.0.0/25"}) // room for 16
		pulled := pull(t, e, image)
		for i := range each {
			s := spec(rental.ID(fmt.Sprintf("at-once-%d-%d", agent, i)))
			t.Cleanup(func() { remove(t, e, s.ID) })
			making.Go(func() {
				id, err := e.Create(t.Context(), s, pulled)
				if err != nil {
					t.Errorf("creating %s: %v", s.ID, err)
				}
				mu.Lock()
				defer mu.Unlock()
				made = append(made, id)
			})
		}
	}
	making.Wait()
	if t.Failed() {
		return
	}
	pool := netip.MustParsePrefix("10.98.0.0/25")
	var subnets []netip.Prefix
	for _, id := range made {
		subnet := subnetOf(t, id)
		if subnet.Bits() != 29 || !pool.Overlaps(subnet) || slices.ContainsFunc(subnets, subnet.Overlaps) {
			t.Errorf("range %s, beside %s", subnet, subnets)
		}
		subnets = append(subnets, subnet)
	}
}

// Left to itself the agent keeps off ranges of the host and of its owner's networks.
func TestRangesOfOthersAreLeftAlone(t *testing.T) {
	e := newEngine(t)
	first := subnetOf(t, create(t, e, spec("first")))
	cli(t, "network", "create", "--subnet", "10.87.0.0/24", "the-owners")
	t.Cleanup(func() { cli(t, "network", "rm", "the-owners") })
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	second := subnetOf(t, create(t, e, spec("second")))
	for _, addr := range addrs {
		if at, err := netip.ParsePrefix(addr.String()); err == nil && at.Masked().Overlaps(second) {
			t.Errorf("range %s is on the host's %s", second, at)
		}
	}
	if !netip.MustParsePrefix("10.213.0.0/16").Contains(first.Addr()) || !netip.MustParsePrefix("10.213.0.0/16").Contains(second.Addr()) {
		t.Errorf("ranges %s and %s, want them in the first pool, which our own networks do not spoil", first, second)
	}
	cli(t, "network", "create", "--subnet", "10.213.255.0/24", "another-of-his")
	t.Cleanup(func() { cli(t, "network", "rm", "another-of-his") })
	if third := subnetOf(t, create(t, e, spec("third"))); !netip.MustParsePrefix("10.149.0.0/16").Contains(third.Addr()) {
		t.Errorf("range %s, want one of the first pool that nobody else uses", third)
	}
}

// An engine on this machine leaves the ports to the container's own address.
func TestPortsAreReachedAtTheContainersAddress(t *testing.T) {
	e := newEngine(t)
	s := spec("own-address")
	c := rent(t, e, s)
	own, err := netip.ParseAddr(cli(t, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", c.ID))
	if err != nil {
		t.Fatal(err)
	}
	want := []rental.Route{{Port: s.Ports[0], Target: netip.AddrPortFrom(own, 8080)}, {Port: s.Ports[1], Target: netip.AddrPortFrom(own, 9090)}}
	if diff := cmp.Diff(want, c.Routes, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	if published := cli(t, "port", c.ID); published != "" {
		t.Errorf("the engine publishes %q", published)
	}
	report(t, c)
	if answer := datagram(t, c.Routes[1].Target, "hello"); answer != "hello" {
		t.Errorf("the datagram came back as %q", answer)
	}
	// A container that ends and is started again, on a network that is made anew, may have another address.
	cli(t, "kill", c.ID)
	if !eventually(t, func() bool { return cli(t, "inspect", "-f", "{{.State.Status}}", c.ID) == "exited" }) {
		t.Fatal("the container runs on")
	}
	cli(t, "network", "rm", cli(t, "inspect", "-f", "{{.HostConfig.NetworkMode}}", c.ID))
	again, err := e.Start(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if again.Routes[0].Target == c.Routes[0].Target {
		t.Errorf("routes %+v, want those of a new network", again.Routes)
	}
	report(t, again)
}

// datagram sends a text until it comes back, as a program that was started in this moment may not listen yet.
func datagram(t testing.TB, to netip.AddrPort, text string) string {
	t.Helper()
	for late := time.Now().Add(30 * time.Second); time.Now().Before(late); time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("udp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte(text))
		answer := make([]byte, 64)
		n, err := conn.Read(answer)
		conn.Close()
		if err == nil {
			return string(answer[:n])
		}
	}
	t.Fatalf("no answer from %s", to)
	return ""
}

// BenchmarkNetworks has more networks made at once than an engine has ranges for by itself.
func BenchmarkNetworks(b *testing.B) {
	const many = 40
	e := newEngine(b)
	pulled := pull(b, e, image)
	for b.Loop() {
		var making sync.WaitGroup
		for i := range many {
			making.Go(func() {
				if _, err := e.Create(b.Context(), spec(rental.ID(fmt.Sprintf("many-%d", i))), pulled); err != nil {
					b.Errorf("network %d: %v", i, err)
				}
			})
		}
		making.Wait()
		if got := len(strings.Fields(cli(b, "network", "ls", "-q", "--filter", "label=distributedcompute.managed"))); got < many {
			b.Errorf("%d networks, want %d", got, many)
		}
		b.StopTimer()
		for i := range many {
			remove(b, e, rental.ID(fmt.Sprintf("many-%d", i)))
		}
		b.StartTimer()
	}
}
