// Package shield keeps rentals off the host, its LAN and each other: one table of packet filter rules in the kernel
// of the machine that containers run on.
//
// The table is static. Its rules go by the beginning of the names of rentals' bridges, so rentals come and go
// without any change of it. It stands beside whatever rules the container engine and the host have, and needs
// none of them.
package shield

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// BridgePrefix begins the name of every rental's bridge, and of no other interface.
const BridgePrefix = "gr-"

// Table is the name of the table, of the family inet.
const Table = "distributedcompute_shield"

// Policy says what rentals may do beside what none may.
type Policy struct {
	Deny           []netip.Prefix `json:"deny,omitempty"` // IPv4, beside [Private]; IPv6 is closed altogether
	MaxConnections uint32         `json:"max_connections"`
	PerSecond      uint32         `json:"per_second"`         // new connections
	Upload         uint64         `json:"upload,omitempty"`   // bytes a second; 0: no limit
	Download       uint64         `json:"download,omitempty"` // bytes a second; 0: no limit
}

// check holds a policy to what the kernel can keep.
func (p Policy) check() error {
	if p.MaxConnections == 0 || p.PerSecond == 0 {
		return errors.New("a limit of no connections at all is none")
	}
	if len(p.Deny) > maxDeny {
		return fmt.Errorf("%d denied ranges are more than the %d there is room for", len(p.Deny), maxDeny)
	}
	return nil
}

const maxDeny = 1024

// Private are the IPv4 ranges that are not of the internet: RFC 6890 and multicast.
func Private() []netip.Prefix {
	ranges := []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "224.0.0.0/4", "240.0.0.0/4",
	}
	prefixes := make([]netip.Prefix, len(ranges))
	for i, text := range ranges {
		prefixes[i] = netip.MustParsePrefix(text)
	}
	return prefixes
}

// HostNetworks are the IPv4 networks that this machine stands in, and its own addresses: a LAN may well have
// addresses of the internet.
func HostNetworks() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing the host's addresses: %w", err)
	}
	var networks []netip.Prefix
	for _, addr := range addrs {
		prefix, err := netip.ParsePrefix(addr.String())
		if err != nil || !prefix.Addr().Is4() || prefix.Addr().IsLoopback() {
			continue
		}
		if prefix.Bits() < 8 { // no LAN, but a mistake that would cut off half of the internet
			prefix = netip.PrefixFrom(prefix.Addr(), 32)
		}
		networks = append(networks, prefix.Masked())
	}
	slices.SortFunc(networks, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(networks), nil
}

// Picture is what stands in the kernel.
type Picture struct {
	// Mark tells apart whatever differs in chains, rules and fixed sets; "" when the table is missing.
	Mark string `json:"mark"`
	// Blocked counts the packets that were turned away since the table was put up, by the rental's address.
	Blocked map[netip.Addr]uint64 `json:"blocked,omitempty"`
}

// Hands reach the kernel's packet filter. A table that was changed by anyone has another mark than the one
// that Apply returned.
type Hands interface {
	// Apply puts the table up in one step, in place of any that is there, and returns what stands then.
	Apply(ctx context.Context, policy Policy) (Picture, error)
	// Look returns what stands now.
	Look(ctx context.Context) (Picture, error)
	// Remove takes the table away. Removing what is not there succeeds.
	Remove(ctx context.Context) error
}

// Watcher are hands that tell cheaply that nothing was changed.
type Watcher interface {
	// Generation is the number of the last change that anybody made to the packet filter, whatever table it was of. What
	// is to be held against a later one is asked for before a look, so that a change during the look is not missed.
	Generation(ctx context.Context) (uint32, error)
	// Blocked is that of [Picture]; without the table it fails.
	Blocked(ctx context.Context) (map[netip.Addr]uint64, error)
}

// span is a range of IPv4 addresses, both ends included.
type span struct{ first, last uint32 }

// spans merges prefixes into ranges that neither meet nor overlap, ascending, as the kernel wants them. Other
// addresses than IPv4's are left out.
func spans(prefixes []netip.Prefix) []span {
	var list []span
	for _, p := range prefixes {
		if !p.Addr().Is4() {
			continue
		}
		b := p.Masked().Addr().As4()
		first := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		list = append(list, span{first, first | uint32(uint64(1)<<(32-p.Bits())-1)})
	}
	slices.SortFunc(list, func(a, b span) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last)) })
	var merged []span
	for _, s := range list {
		if n := len(merged); n > 0 && uint64(s.first) <= uint64(merged[n-1].last)+1 {
			merged[n-1].last = max(merged[n-1].last, s.last)
			continue
		}
		merged = append(merged, s)
	}
	return merged
}
