package rental

import (
	"net/netip"
	"slices"
	"strings"
)

// reservedBeginnings are those of environment names that steer programs which run on the host, outside of the
// container, while it starts: NVIDIA's hook, the loader of its programs, and what stands for devices in a swarm.
var reservedBeginnings = []string{"NVIDIA_", "LD_", "DOCKER_RESOURCE_", "CUDA_COMPAT"}

// ReservedVariable reports whether an environment variable is the host's to set, in whatever case its name is written.
// A renter may not set one, and what an image has of them is taken away, but for a few that hand out nothing.
func ReservedVariable(name string) bool {
	upper := strings.ToUpper(name)
	return slices.ContainsFunc(reservedBeginnings, func(beginning string) bool { return strings.HasPrefix(upper, beginning) })
}

// closedRanges are the addresses that are routed, and still nobody's on the internet: private, shared, for
// documentation, for tests, or a way to write another address.
var closedRanges = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carrier-grade NAT
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"), // 6to4 relays
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("2001::/23"), // Teredo and other protocols' own
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), // 6to4
	netip.MustParsePrefix("3fff::/20"),
}

var (
	translated  = netip.MustParsePrefix("64:ff9b::/96") // IPv4 as networks without it write it
	internetIP6 = netip.MustParsePrefix("2000::/3")
)

// IsPublic reports whether an address is one of the internet: not of this machine, its local network, a provider's
// inside or anybody's tests.
func IsPublic(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if translated.Contains(addr) {
		bytes := addr.As16()
		addr = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	if addr.Is6() && !internetIP6.Contains(addr) || !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	return !slices.ContainsFunc(closedRanges, func(r netip.Prefix) bool { return r.Contains(addr) })
}
