package docker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/netip"
	"strings"
	"sync"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"

	"github.com/distributedcompute/host-agent/core/rental"
)

// networks are the bridges of rentals, one each. Making one takes the engine some 70 ms of firewall work,
// so while Run runs one is kept in stock. A network has no rental in its labels for that reason: the
// container that names it says whose it is.
type networks struct {
	refill chan struct{} // capacity 1: the stock may be empty
	pool   netip.Prefix  // where their addresses are from; zero: chosen each time

	mu      sync.Mutex
	spare   string          // guarded by mu; "" when there is none
	pending map[string]bool // guarded by mu; taken, but no container names them yet
	next    uint32          // guarded by mu; the number of the subnet to try first
	making  []netip.Prefix  // guarded by mu; subnets of networks that the engine is making
}

// ask lets Run look at the stock.
func (n *networks) ask() {
	select {
	case n.refill <- struct{}{}:
	default:
	}
}

// hold marks a network as about to be used, so that it is not swept.
func (n *networks) hold(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pend(name)
}

// pend is hold for who has the lock.
func (n *networks) pend(name string) {
	if n.pending == nil {
		n.pending = make(map[string]bool)
	}
	n.pending[name] = true
}

// release takes the mark of hold away.
func (n *networks) release(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pending, name)
}

// takeSpare empties the stock and holds what was in it.
func (n *networks) takeSpare() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	name := n.spare
	if n.spare = ""; name != "" {
		n.pend(name)
	}
	return name
}

// keep puts a network in store that was made or taken, unless there is another by now.
func (n *networks) keep(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pending, name)
	if n.spare == "" {
		n.spare = name
	}
}

// kept are the networks that must not be swept, though no container names them.
func (n *networks) kept() map[string]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	kept := maps.Clone(n.pending)
	if kept == nil {
		kept = make(map[string]bool)
	}
	if n.spare != "" {
		kept[n.spare] = true
	}
	return kept
}

// takeNetwork gives a network that nobody uses. It is held until release.
func (e *Engine) takeNetwork(ctx context.Context) (string, error) {
	if name := e.networks.takeSpare(); name != "" {
		if found, err := e.ourNetwork(ctx, name); err != nil {
			e.networks.keep(name) // for all that is known it is there
			return "", err
		} else if found {
			return name, nil
		}
		e.networks.release(name) // someone has removed it
	}
	name := newNetworkName()
	e.networks.hold(name)
	err := e.createNetwork(ctx, name)
	if hasCode(err, rental.CodeInsufficient) {
		// What agents that were killed had asked for may have been made after the last sweep.
		if err := e.sweepNetworks(ctx); err != nil {
			e.log.Warn("sweeping networks", "error", err)
		}
		err = e.createNetwork(ctx, name)
	}
	if err != nil {
		e.networks.release(name)
		return "", err
	}
	return name, nil
}

func newNetworkName() string {
	return "dc-net-" + strings.ToLower(rand.Text()[:12])
}

// bridgeName is the name of the network's interface on the host, 15 bytes, as many as the kernel takes.
func bridgeName(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "gr-" + hex.EncodeToString(sum[:])[:12]
}

// createNetwork makes a network in a range of its own. What agents that were killed have left, and what others have made in
// this moment, shows in that the engine refuses a range; then the next one is tried.
func (e *Engine) createNetwork(ctx context.Context, name string) error {
	var refused []netip.Prefix
	for {
		subnet, err := e.takeSubnet(ctx, refused)
		if err != nil {
			return err
		}
		err = e.createNetworkIn(ctx, name, subnet)
		e.networks.giveSubnet(subnet)
		if err == nil {
			return nil
		}
		if !subnet.IsValid() || !overlaps(err) || len(refused) == subnetTries {
			return networkFailure(ctx, err)
		}
		e.log.Debug("the engine refuses a range for a network", "range", subnet, "error", err)
		refused = append(refused, subnet)
	}
}

func (e *Engine) createNetworkIn(ctx context.Context, name string, subnet netip.Prefix) error {
	call, cancel := bounded(ctx)
	defer cancel()
	_, err := e.api().NetworkCreate(call, name, networkOptions(name, subnet, e.seal))
	return err
}

// ourNetwork reports whether a network of that name exists and was made by this agent.
func (e *Engine) ourNetwork(ctx context.Context, name string) (bool, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	found, err := e.api().NetworkInspect(call, name, network.InspectOptions{})
	switch {
	case cerrdefs.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, failed(ctx, "looking for a network", err)
	}
	return e.seal.holds(found.Labels[labelOwner], kindNetwork, found.Name), nil
}

// removeNetwork removes a network of this agent; others and none are left alone.
func (e *Engine) removeNetwork(ctx context.Context, name string) error {
	if found, err := e.ourNetwork(ctx, name); err != nil || !found {
		return err
	}
	call, cancel := bounded(ctx)
	defer cancel()
	if err := e.api().NetworkRemove(call, name); err != nil && !cerrdefs.IsNotFound(err) {
		return failed(ctx, "removing a network", err)
	}
	return nil
}

// freeNetwork removes a network of a rental that has ended, also from containers that someone else has joined to it.
func (e *Engine) freeNetwork(ctx context.Context, name string) error {
	err := e.removeNetwork(ctx, name)
	if !cerrdefs.IsPermissionDenied(err) { // it has no endpoints
		return err
	}
	call, cancel := bounded(ctx)
	defer cancel()
	found, err := e.api().NetworkInspect(call, name, network.InspectOptions{})
	if err != nil {
		return failed(ctx, "looking for who is on a network", err)
	}
	for _, endpoint := range found.Containers {
		e.log.Warn("taking a container off the network of a rental that has ended", "network", name, "container", endpoint.Name)
		if err := e.api().NetworkDisconnect(call, name, endpoint.Name, true); err != nil {
			e.log.Warn("taking a container off a network", "network", name, "container", endpoint.Name, "error", err)
		}
	}
	return e.removeNetwork(ctx, name)
}

// stock puts a network in store if there is none.
func (e *Engine) stock(ctx context.Context) error {
	e.networks.mu.Lock()
	have := e.networks.spare != ""
	e.networks.mu.Unlock()
	if have {
		return nil
	}
	name := newNetworkName()
	e.networks.hold(name)
	// Not cancelled: the engine would go on, and the network would be there after the last sweep.
	if err := e.createNetwork(context.WithoutCancel(ctx), name); err != nil {
		e.networks.release(name)
		return err
	}
	e.networks.keep(name)
	return nil
}

// sweepNetworks removes networks of this agent that no container names: an agent that was killed may have
// left them. One that cannot be removed stays for the next sweep and is no error: no rental has to wait for it.
// The order of the three looks matters: a network that is taken meanwhile is seen by one of them.
func (e *Engine) sweepNetworks(ctx context.Context) error {
	call, cancel := bounded(ctx)
	defer cancel()
	managed := filters.NewArgs(filters.Arg("label", labelManaged))
	found, err := e.api().NetworkList(call, network.ListOptions{Filters: managed})
	if err != nil {
		return failed(ctx, "listing networks", err)
	}
	named := e.networks.kept()
	containers, err := e.api().ContainerList(call, container.ListOptions{All: true, Filters: managed})
	if err != nil {
		return failed(ctx, "listing containers", err)
	}
	for _, c := range containers {
		named[c.HostConfig.NetworkMode] = true
	}
	for _, n := range found {
		if named[n.Name] {
			continue
		}
		if err := e.removeNetwork(ctx, n.Name); err != nil {
			e.log.Warn("network left for the next sweep", "network", n.Name, "error", err)
		}
	}
	return nil
}
