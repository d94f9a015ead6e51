package shield

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Standing is what stands in the kernel, and where: a host that moves to another network needs its shield put up again.
type Standing struct {
	Picture
	// Networks are those that the machine stands in and that are not of [Private].
	Networks []netip.Prefix `json:"networks,omitempty"`
}

// Same reports whether nothing that matters lies between two looks.
func (s Standing) Same(other Standing) bool {
	return s.Mark != "" && s.Mark == other.Mark && slices.Equal(s.Networks, other.Networks)
}

// Raise puts the shield up on this machine, with the networks it stands in among what is denied.
func Raise(ctx context.Context, hands Hands, policy Policy) (Standing, error) {
	networks, err := outside()
	if err != nil {
		return Standing{}, err
	}
	policy.Deny = slices.Concat(policy.Deny, networks)
	up, err := hands.Apply(ctx, policy)
	return Standing{up, networks}, err
}

// Observe returns what stands on this machine.
func Observe(ctx context.Context, hands Hands) (Standing, error) {
	networks, err := outside()
	if err != nil {
		return Standing{}, err
	}
	there, err := hands.Look(ctx)
	return Standing{there, networks}, err
}

// Glimpse is what tells without a look whether the shield may have changed, or the host may stand in another network.
type Glimpse struct {
	Generation uint32
	Networks   []netip.Prefix
}

// Glance is far cheaper than [Observe].
func Glance(ctx context.Context, hands Watcher) (Glimpse, error) {
	generation, err := hands.Generation(ctx)
	if err != nil {
		return Glimpse{}, err
	}
	networks, err := outside()
	return Glimpse{generation, networks}, err
}

// Lower takes the shield down, unless a rental's bridge is there: another agent's, or one that could not be removed.
func Lower(ctx context.Context, hands Hands) error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("listing the host's interfaces: %w", err)
	}
	if slices.ContainsFunc(interfaces, func(i net.Interface) bool { return strings.HasPrefix(i.Name, BridgePrefix) }) {
		return nil
	}
	return hands.Remove(ctx)
}

// outside are the host's networks that lie in no private range: those of bridges, which come and go, lie in one.
func outside() ([]netip.Prefix, error) {
	networks, err := HostNetworks()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(networks, func(network netip.Prefix) bool {
		return slices.ContainsFunc(Private(), func(private netip.Prefix) bool {
			return private.Bits() <= network.Bits() && private.Contains(network.Addr())
		})
	}), nil
}
