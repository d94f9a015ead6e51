package docker

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/network"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/shield"
)

const (
	// subnetBits make a rental's network: 8 addresses, of which its gateway has the first and the rental another.
	// Engines left to themselves give out 65,536 or 4,096 for each network, and have room for some thirty.
	subnetBits = 29
	subnetSize = 1 << (32 - subnetBits)
	// subnetTries bounds how many ranges in a row an engine may refuse for one network.
	subnetTries = 32
	// leastRouted is the shortest prefix of a route that counts: VPNs lead all of the internet through themselves
	// by routes as wide as half of it, which says nothing of what stands in their way.
	leastRouted = 8
	routeTable  = "/proc/net/route" // Linux's
)

// ownPools are ranges that rentals' networks may be in, the likeliest to be unused first. LANs and VPNs like the
// beginning of 10.0.0.0/8, and engines begin with 172.17.0.0/16.
var ownPools = []string{
	"10.213.0.0/16", "10.87.0.0/16", "10.149.0.0/16", "10.231.0.0/16", "10.55.0.0/16", "172.29.0.0/16", "172.30.0.0/16", "192.168.224.0/20",
}

// parsePool reads Options.AddressPool. The zero value stands for "".
func parsePool(text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	pool, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("reading the address pool: %w", err)
	}
	if !pool.Addr().Is4() || pool != pool.Masked() || pool.Bits() > subnetBits {
		return netip.Prefix{}, fmt.Errorf("the address pool %s is no IPv4 range with room for a network", pool)
	}
	return pool, nil
}

// surroundings are the ranges that are in use where rentals' networks are to be.
type surroundings struct {
	ours   []netip.Prefix // networks of this agent
	others []netip.Prefix // those of the host and of the engine's other users
}

// choosePool returns the first range that nobody else uses a part of; ok is false where there is none.
func (s surroundings) choosePool(pools []string) (pool netip.Prefix, ok bool) {
	for _, text := range pools {
		pool := netip.MustParsePrefix(text)
		if !slices.ContainsFunc(s.others, pool.Overlaps) {
			return pool, true
		}
	}
	return netip.Prefix{}, false
}

// nextFree is the first subnet of pool, counted from one on and around, that meets none of taken, and its number.
func nextFree(pool netip.Prefix, from uint32, taken []netip.Prefix) (subnet netip.Prefix, number uint32, ok bool) {
	base := uint64(number32(pool.Masked().Addr()))
	count := uint64(1) << (subnetBits - pool.Bits())
	start := uint64(from) % count
	for i := uint64(0); i < count; {
		k := (start + i) % count
		candidate := netip.PrefixFrom(addr32(uint32(base+k*subnetSize)), subnetBits)
		at := slices.IndexFunc(taken, candidate.Overlaps)
		if at < 0 {
			return candidate, uint32(k), true
		}
		// On behind what is in the way, which may be large, or else to the pool's end.
		last := uint64(number32(taken[at].Masked().Addr())) | (1<<(32-taken[at].Bits()) - 1)
		i += min((last-base)/subnetSize+1, count) - k
	}
	return netip.Prefix{}, 0, false
}

// number32 is an IPv4 address as a number.
func number32(addr netip.Addr) uint32 {
	bytes := addr.As4()
	return binary.BigEndian.Uint32(bytes[:])
}

func addr32(number uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, number)))
}

// takeSubnet finds a range for a network, which is held until giveSubnet. It is the zero value where nothing is known
// to be free, for the engine to choose. refused are those that it does not take.
func (e *Engine) takeSubnet(ctx context.Context, refused []netip.Prefix) (netip.Prefix, error) {
	around, err := e.surroundings(ctx)
	if err != nil {
		return netip.Prefix{}, err
	}
	pool := e.networks.pool
	if !pool.IsValid() {
		found, ok := around.choosePool(ownPools)
		if !ok {
			e.log.Debug("the host and its neighbours use all ranges that are known; the engine chooses one for a network")
			return netip.Prefix{}, nil
		}
		pool = found
	}
	taken := slices.Concat(around.others, around.ours, refused)
	return e.networks.takeSubnet(pool, taken)
}

// takeSubnet holds the next subnet that is neither taken nor held.
func (n *networks) takeSubnet(pool netip.Prefix, taken []netip.Prefix) (netip.Prefix, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	subnet, number, ok := nextFree(pool, n.next, slices.Concat(taken, n.making))
	if !ok {
		return netip.Prefix{}, rental.Failf(rental.CodeInsufficient, "No address range for another rental's network is left on this host.")
	}
	// Not from the beginning each time: what still knows a rental that has ended must not meet the next one there.
	n.next = number + 1
	n.making = append(n.making, subnet)
	return subnet, nil
}

// giveSubnet ends the hold of takeSubnet: the engine lists the network by now, or there is none.
func (n *networks) giveSubnet(subnet netip.Prefix) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.making = slices.DeleteFunc(n.making, func(held netip.Prefix) bool { return held == subnet })
}

// surroundings asks the engine for its networks and this machine for its own.
func (e *Engine) surroundings(ctx context.Context) (surroundings, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	found, err := e.api().NetworkList(call, network.ListOptions{})
	if err != nil {
		return surroundings{}, failed(ctx, "listing networks", err)
	}
	var around surroundings
	for _, n := range found {
		ours := e.seal.holds(n.Labels[labelOwner], kindNetwork, n.Name)
		for _, config := range n.IPAM.Config {
			subnet, err := netip.ParsePrefix(config.Subnet)
			switch {
			case err != nil || !subnet.Addr().Is4():
			case ours:
				around.ours = append(around.ours, subnet.Masked())
			default:
				around.others = append(around.others, subnet.Masked())
			}
		}
	}
	standsIn, err := shield.HostNetworks()
	if err != nil {
		return surroundings{}, err
	}
	routes, bridges, err := hostRoutes()
	if err != nil {
		return surroundings{}, err
	}
	around.ours = append(around.ours, bridges...)
	for _, prefix := range append(standsIn, routes...) {
		if !slices.Contains(around.ours, prefix) {
			around.others = append(around.others, prefix)
		}
	}
	return around, nil
}

// hostRoutes are the IPv4 ranges that this machine has routes to, and those of rentals' bridges. Elsewhere than on
// Linux there are none: there the engine's networks are in a virtual machine, and only what this one stands in matters.
func hostRoutes() (routes, bridges []netip.Prefix, err error) {
	file, err := os.Open(routeTable)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the host's routes: %w", err)
	}
	defer file.Close()
	routes, bridges, err = readRoutes(file)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the host's routes: %w", err)
	}
	return routes, bridges, nil
}

// readRoutes reads a table of routes as Linux writes it: interface, destination, …, mask as the eighth field. Lines that
// say nothing are passed over.
func readRoutes(table io.Reader) (routes, bridges []netip.Prefix, err error) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 {
			continue
		}
		to, okTo := hexAddr(fields[1])
		mask, okMask := hexAddr(fields[7])
		if !okTo || !okMask {
			continue // the heading
		}
		bytes := mask.As4()
		bits, _ := net.IPMask(bytes[:]).Size()
		prefix := netip.PrefixFrom(to, bits).Masked()
		switch {
		case bits < leastRouted:
		case strings.HasPrefix(fields[0], shield.BridgePrefix):
			bridges = append(bridges, prefix)
		default:
			routes = append(routes, prefix)
		}
	}
	return routes, bridges, lines.Err()
}

// hexAddr reads an address that was written as a number of the machine's.
func hexAddr(text string) (netip.Addr, bool) {
	bytes, err := hex.DecodeString(text)
	if err != nil || len(bytes) != 4 {
		return netip.Addr{}, false
	}
	var addr [4]byte
	binary.NativeEndian.PutUint32(addr[:], binary.BigEndian.Uint32(bytes))
	return netip.AddrFrom4(addr), true
}

// bridgeIsHere reports whether a network's bridge is among this machine's interfaces, with the network's gateway for its
// address. Containers on it then answer at their own addresses: the engine is neither in a virtual machine nor
// in another network namespace.
func (e *Engine) bridgeIsHere(ctx context.Context, name string) bool {
	link, err := net.InterfaceByName(bridgeName(name))
	if err != nil {
		return false
	}
	has, err := link.Addrs()
	if err != nil {
		return false
	}
	call, cancel := bounded(ctx)
	defer cancel()
	found, err := e.api().NetworkInspect(call, name, network.InspectOptions{})
	if err != nil {
		e.log.Debug("looking for a network's gateway", "network", name, "error", err)
		return false
	}
	for _, config := range found.IPAM.Config {
		for _, addr := range has {
			if at, ok := addr.(*net.IPNet); ok && config.Gateway != "" && at.IP.String() == config.Gateway {
				return true
			}
		}
	}
	return false
}
