package docker

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/rental"
)

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func TestNextFreeSubnet(t *testing.T) {
	for name, test := range map[string]struct {
		pool  string
		from  uint32
		taken []netip.Prefix
		want  string // "" for none
	}{
		"the first":             {"10.213.0.0/24", 0, nil, "10.213.0.0/29"},
		"counted on":            {"10.213.0.0/24", 3, nil, "10.213.0.24/29"},
		"counted beyond":        {"10.213.0.0/24", 32, nil, "10.213.0.0/29"},
		"after what is taken":   {"10.213.0.0/24", 0, prefixes("10.213.0.0/29", "10.213.0.8/29"), "10.213.0.16/29"},
		"around":                {"10.213.0.0/24", 31, prefixes("10.213.0.248/29", "10.213.0.0/29"), "10.213.0.8/29"},
		"behind something wide": {"10.213.0.0/16", 5, prefixes("10.213.0.0/17"), "10.213.128.0/29"},
		"behind a host":         {"10.213.0.0/24", 0, prefixes("10.213.0.3/32"), "10.213.0.8/29"},
		"the last":              {"10.213.0.0/28", 1, prefixes("10.213.0.8/29"), "10.213.0.0/29"},
		"none":                  {"10.213.0.0/28", 0, prefixes("10.213.0.0/29", "10.213.0.8/29"), ""},
		"none in another's":     {"10.0.0.0/8", 77, prefixes("0.0.0.0/1"), ""},
		"the pool's end":        {"10.213.0.0/16", 8190, prefixes("10.213.255.0/24"), "10.213.0.0/29"},
		"the last of all":       {"255.255.255.248/29", 9, nil, "255.255.255.248/29"},
	} {
		t.Run(name, func(t *testing.T) {
			got, number, ok := nextFree(netip.MustParsePrefix(test.pool), test.from, test.taken)
			if ok != (test.want != "") || ok && got.String() != test.want {
				t.Fatalf("got %v, %t; want %q", got, ok, test.want)
			}
			if base := netip.MustParsePrefix(test.pool).Addr(); ok && number32(got.Addr())-number32(base) != 8*number {
				t.Errorf("subnet %v has the number %d", got, number)
			}
		})
	}
}

// What is found is what a walk over the whole pool finds.
func TestNextFreeSubnetIsTheNext(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pool := netip.MustParsePrefix("10.213.4.0/22")
	count := uint32(1) << (29 - pool.Bits())
	for range 2000 {
		var taken []netip.Prefix
		for range random.IntN(12) {
			at := addr32(number32(pool.Addr()) - 256 + random.Uint32N(1536))
			taken = append(taken, netip.PrefixFrom(at, 22+random.IntN(11)).Masked())
		}
		from := random.Uint32N(300)
		want := netip.Prefix{}
		for i := range count {
			candidate := netip.PrefixFrom(addr32(number32(pool.Addr())+8*((from+i)%count)), 29)
			if !slices.ContainsFunc(taken, candidate.Overlaps) {
				want = candidate
				break
			}
		}
		if got, _, _ := nextFree(pool, from, taken); got != want {
			t.Fatalf("from %d with %v taken: got %v, want %v", from, taken, got, want)
		}
	}
}

func TestSubnetsAreNotGivenTwice(t *testing.T) {
	var n networks
	pool := netip.MustParsePrefix("10.213.0.0/27")
	given := make(map[netip.Prefix]bool)
	for range 4 {
		subnet, err := n.takeSubnet(pool, nil)
		if err != nil || given[subnet] {
			t.Fatalf("took %v, %v after %v", subnet, err, given)
		}
		given[subnet] = true
	}
	if subnet, err := n.takeSubnet(pool, nil); !hasCode(err, rental.CodeInsufficient) {
		t.Errorf("took %v, %v from an empty pool", subnet, err)
	}
	back := netip.MustParsePrefix("10.213.0.16/29")
	n.giveSubnet(back)
	if subnet, err := n.takeSubnet(pool, nil); err != nil || subnet != back {
		t.Errorf("took %v, %v; want %v, which was given back", subnet, err, back)
	}
}

func TestChoiceOfThePool(t *testing.T) {
	pools := []string{"10.213.0.0/16", "10.87.0.0/16", "172.29.0.0/16"}
	for name, test := range map[string]struct {
		around surroundings
		want   string // "" for none
	}{
		"nothing in the way":  {surroundings{}, "10.213.0.0/16"},
		"a LAN":               {surroundings{others: prefixes("192.168.1.0/24", "10.213.7.0/24")}, "10.87.0.0/16"},
		"a host":              {surroundings{others: prefixes("10.213.0.1/32")}, "10.87.0.0/16"},
		"a company's network": {surroundings{others: prefixes("10.0.0.0/8")}, "172.29.0.0/16"},
		"our own":             {surroundings{ours: prefixes("10.213.0.0/29")}, "10.213.0.0/16"},
		"all private ranges":  {surroundings{others: prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")}, ""},
	} {
		got, ok := test.around.choosePool(pools)
		if ok != (test.want != "") || ok && got.String() != test.want {
			t.Errorf("%s: got %v, %t; want %q", name, got, ok, test.want)
		}
	}
	for i, text := range ownPools {
		pool := netip.MustParsePrefix(text)
		if pool != pool.Masked() || !pool.Addr().IsPrivate() || slices.ContainsFunc(prefixes(ownPools[:i]...), pool.Overlaps) {
			t.Errorf("%s is no private range beside the others", text)
		}
	}
}

func TestPoolsAreRead(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "10.213.0.0/16": true, "192.168.9.0/24": true, "10.0.0.8/29": true,
		"10.0.0.0/30": false, "10.213.0.1/16": false, "fd00::/64": false, "10.213.0.0": false, "everywhere": false,
	} {
		if _, err := parsePool(text); (err == nil) != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestRoutesAreRead(t *testing.T) {
	// As the kernel writes addresses: numbers of this machine's.
	number := func(text string) string {
		bytes := netip.MustParseAddr(text).As4()
		return fmt.Sprintf("%08X", binary.NativeEndian.Uint32(bytes[:]))
	}
	var table strings.Builder
	table.WriteString("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n")
	for _, line := range [][3]string{
		{"eth0", "0.0.0.0", "0.0.0.0"},
		{"tun0", "0.0.0.0", "128.0.0.0"}, // a VPN that takes all of the internet
		{"tun0", "128.0.0.0", "128.0.0.0"},
		{"tun0", "10.0.0.0", "255.0.0.0"},
		{"gr-0123456789ab", "10.213.0.8", "255.255.255.248"},
		{"eth0", "192.168.1.0", "255.255.255.0"},
		{"eth0", "192.168.1.1", "255.255.255.255"},
	} {
		fmt.Fprintf(&table, "%s\t%s\t00000000\t0001\t0\t0\t0\t%s\t0\t0\t0\n", line[0], number(line[1]), number(line[2]))
	}
	table.WriteString("short line\n")
	routes, bridges, err := readRoutes(strings.NewReader(table.String()))
	if err != nil {
		t.Fatal(err)
	}
	same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(prefixes("10.0.0.0/8", "192.168.1.0/24", "192.168.1.1/32"), routes, same); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(prefixes("10.213.0.8/29"), bridges, same); diff != "" {
		t.Errorf("bridges (-want +got):\n%s", diff)
	}
}
