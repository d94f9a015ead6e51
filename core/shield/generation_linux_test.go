package shield

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

func generation(t *testing.T) uint32 {
	t.Helper()
	now, err := Direct{}.Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func TestGenerationTellsOfEveryChangeAndOfNothingElse(t *testing.T) {
	alone(t)
	bare := generation(t)
	apply(t, policy)
	up := generation(t)
	if up == bare {
		t.Errorf("the generation is %d before and after the shield was put up", up)
	}
	look(t)
	if _, err := (Direct{}).Blocked(t.Context()); err != nil {
		t.Error(err)
	}
	if now := generation(t); now != up {
		t.Errorf("the generation went from %d to %d by being looked at", up, now)
	}

	inet := &nftables.Table{Family: nftables.TableFamilyINet, Name: Table}
	last := up
	for _, change := range []struct {
		name string
		make func(*nftables.Conn)
	}{
		{"a table of somebody else's", func(conn *nftables.Conn) {
			conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "firewall"})
		}},
		{"a chain emptied", func(conn *nftables.Conn) { conn.FlushChain(&nftables.Chain{Name: "input", Table: inet}) }},
		{"the table deleted", func(conn *nftables.Conn) { conn.DelTable(inet) }},
		{"everything flushed", func(conn *nftables.Conn) { conn.FlushRuleset() }},
	} {
		conn, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		change.make(conn)
		if err := conn.Flush(); err != nil {
			t.Fatalf("%s: %v", change.name, err)
		}
		now := generation(t)
		if now == last {
			t.Errorf("%s: the generation is still %d", change.name, now)
		}
		last = now
	}
}

func TestBlockedIsThatOfALook(t *testing.T) {
	alone(t)
	if got, err := (Direct{}).Blocked(t.Context()); err == nil {
		t.Errorf("without the shield %v was blocked", got)
	}
	apply(t, policy)
	knocks(t, netip.MustParseAddr("10.9.0.2"), 7)
	want := map[netip.Addr]uint64{netip.MustParseAddr("10.9.0.2"): 7}
	compare := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	var got map[netip.Addr]uint64
	for late := time.Now().Add(long); !cmp.Equal(want, got, compare); time.Sleep(10 * time.Millisecond) {
		var err error
		if got, err = (Direct{}).Blocked(t.Context()); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(late) {
			t.Fatal(cmp.Diff(want, got, compare))
		}
	}
	if diff := cmp.Diff(look(t).Blocked, got, compare); diff != "" {
		t.Error(diff)
	}
}

// knocks has packets come from a rental of an address to the host, which turns them away.
func knocks(t testing.TB, from netip.Addr, packets int) {
	t.Helper()
	end, err := net.InterfaceByName("rental")
	if err != nil { // the first to knock
		ip(t, "link add gr-knocks type veth peer name rental", "addr add 10.9.255.254/16 dev gr-knocks", "link set gr-knocks up", "link set rental up")
		if end, err = net.InterfaceByName("rental"); err != nil {
			t.Fatal(err)
		}
	}
	bridge, err := net.InterfaceByName("gr-knocks")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	to := &unix.SockaddrLinklayer{Ifindex: end.Index, Protocol: binary.NativeEndian.Uint16([]byte{0x08, 0x00}), Halen: 6}
	copy(to.Addr[:], bridge.HardwareAddr)
	packet := []byte{
		0x45, 0, 0, 28, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, 0, 0, 0, 0, 10, 9, 255, 254, // IPv4
		0x10, 0, 0x20, 0, 0, 8, 0, 0, // UDP without a checksum
	}
	source := from.As4()
	copy(packet[12:], source[:])
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum+sum>>16))
	for range packets {
		if err := unix.Sendto(socket, packet, 0, to); err != nil {
			t.Fatal(err)
		}
	}
}

func ip(t testing.TB, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v %s", line, err, out)
		}
	}
}
