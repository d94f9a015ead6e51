package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"

	"github.com/distributedcompute/host-agent/core/rental"
)

// createWithin bounds the making of a container, which is slow on slow storage. The engine goes on with
// one that was given up, so there is nothing to win by being hasty.
const createWithin = 5 * time.Minute

// Create implements rental.Engine.
func (e *Engine) Create(ctx context.Context, spec rental.Spec, image rental.Image) (string, error) {
	known, err := e.knownFacts(ctx)
	if err != nil {
		return "", err
	}
	known.Quota = e.quota.holds(ctx)
	brought, err := e.broughtBy(ctx, image)
	if err != nil {
		return "", err
	}
	if known.CDI, err = e.byCDI(ctx, spec, image, brought, known); err != nil {
		return "", err
	}
	net, err := e.takeNetwork(ctx)
	if err != nil {
		return "", err
	}
	defer e.networks.release(net)
	known.Direct = e.near(ctx, net)
	plan, err := newPlan(spec, image, brought, net, known, e.seal)
	if err != nil {
		return "", e.withoutNetwork(ctx, net, err)
	}
	call, cancel := context.WithTimeout(ctx, createWithin)
	defer cancel()
	made, err := e.api().ContainerCreate(call, plan.Config, plan.HostConfig, plan.Networking, nil, plan.Name)
	switch {
	case err == nil:
		e.warn(spec.ID, made.Warnings)
		e.shelf.settled(image.ID)
		return made.ID, nil
	case cerrdefs.IsConflict(err):
		there, err := e.existing(ctx, spec.ID, plan.Config.Labels[labelSpec])
		return there, e.withoutNetwork(ctx, net, err)
	case cerrdefs.IsNotFound(err):
		err = imageGoneFailure()
	default:
		err = createFailure(ctx, err)
	}
	return "", e.withoutNetwork(ctx, net, err)
}

// broughtBy is what the pulled image brings along.
func (e *Engine) broughtBy(ctx context.Context, image rental.Image) (luggage, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	found, err := e.api().ImageInspect(call, image.ID)
	switch {
	case cerrdefs.IsNotFound(err):
		return luggage{}, imageGoneFailure()
	case err != nil:
		return luggage{}, failed(ctx, "looking at the image", err)
	}
	return luggageOf(found), nil
}

func imageGoneFailure() *rental.Failure {
	return rental.Failf(rental.CodeImageNotFound, "The image of the rental is no longer on this host.")
}

// withoutNetwork removes a network that came to no use and returns err.
func (e *Engine) withoutNetwork(ctx context.Context, net string, err error) error {
	if removal := e.removeNetwork(context.WithoutCancel(ctx), net); removal != nil {
		e.log.Warn("network left for the next sweep", "network", net, "error", removal)
	}
	return err
}

// warn passes on what the engine could not do as asked, such as a limit the kernel does not know.
func (e *Engine) warn(id rental.ID, warnings []string) {
	for _, warning := range warnings {
		e.log.Warn("engine warns of a container", "rental", id, "warning", warning)
	}
}

// existing is the container that has the rental's name, if it is the one that would have been made.
func (e *Engine) existing(ctx context.Context, id rental.ID, shape string) (string, error) {
	there, found, err := e.inspect(ctx, containerName(id))
	if err != nil {
		return "", err
	}
	if !found { // an earlier call is not through yet, or a removal; either will be
		return "", rental.Failf(rental.CodeDockerUnavailable, "Docker is still making or removing a container of rental %s.", id)
	}
	if owner, ours := e.owner(there); !ours || owner != id {
		return "", rental.Failf(rental.CodeConflict, "The name %s belongs to a container that is not this agent's.", containerName(id))
	}
	if there.Config.Labels[labelSpec] != shape {
		return "", rental.Failf(rental.CodeConflict, "Rental %s exists already and was rented differently.", id)
	}
	return there.ID, nil
}

// owner is the rental that a container was made for by this host's agent.
func (e *Engine) owner(there container.InspectResponse) (rental.ID, bool) {
	return e.seal.rentalOf(there.Config.Labels, string(there.HostConfig.NetworkMode), there.Name)
}

// inspect looks at a container by name or id.
func (e *Engine) inspect(ctx context.Context, nameOrID string) (container.InspectResponse, bool, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	there, err := e.api().ContainerInspect(call, nameOrID)
	switch {
	case cerrdefs.IsNotFound(err):
		return container.InspectResponse{}, false, nil
	case err != nil:
		return container.InspectResponse{}, false, failed(ctx, "looking at the container", err)
	case there.State == nil || there.Config == nil || there.HostConfig == nil || there.NetworkSettings == nil:
		return container.InspectResponse{}, false, fmt.Errorf("looking at container %s: the answer is incomplete", nameOrID)
	}
	return there, true, nil
}

// Start implements rental.Engine.
func (e *Engine) Start(ctx context.Context, containerID string) (rental.Container, error) {
	defer e.networks.ask() // only now, so as not to be in the way of this start
	defer e.disks.ask()
	e.stopping.remove(containerID)
	if err := e.start(ctx, containerID); err != nil {
		return rental.Container{}, err
	}
	there, found, err := e.inspect(ctx, containerID)
	if err != nil {
		return rental.Container{}, err
	}
	if !found {
		return rental.Container{}, goneFailure()
	}
	started, err := time.Parse(time.RFC3339Nano, there.State.StartedAt)
	if err != nil {
		return rental.Container{}, fmt.Errorf("reading when the container started: %w", err)
	}
	if id, ours := e.owner(there); ours {
		e.guard.knows(there, id)
	}
	e.processes.note(there.ID, there.State.Pid)
	up := rental.Container{ID: there.ID, StartedAt: started}
	if !there.State.Running {
		return up, nil // it was quick; how it ended is for Wait to say
	}
	if err := e.verify(ctx, there); err != nil {
		return rental.Container{}, err
	}
	up.Routes, err = routesOf(there)
	return up, err
}

// start starts a container, with a new network if someone has removed the one it had. One that runs is left
// alone, also one that somebody has paused, which engines refuse to start.
func (e *Engine) start(ctx context.Context, containerID string) error {
	if err := e.shielded(ctx); err != nil {
		return err
	}
	call, cancel := bounded(ctx)
	defer cancel()
	err := e.api().ContainerStart(call, containerID, container.StartOptions{})
	if err == nil {
		return nil
	}
	there, found, lookErr := e.inspect(ctx, containerID)
	switch {
	case lookErr != nil:
	case !found:
		return goneFailure()
	case there.State.Running:
		return nil
	case cerrdefs.IsNotFound(err) && e.renewNetwork(ctx, containerID, string(there.HostConfig.NetworkMode)):
		err = e.api().ContainerStart(call, containerID, container.StartOptions{})
	}
	if err == nil {
		return nil
	}
	e.log.Warn("container did not start", "container", containerID, "error", err)
	failure := startFailure(ctx, err)
	if hasCode(failure, rental.CodeGPUUnavailable) {
		e.gpus.forget()
	}
	return failure
}

// renewNetwork makes a container's missing network again and reports whether it did.
func (e *Engine) renewNetwork(ctx context.Context, containerID, name string) bool {
	if found, err := e.ourNetwork(ctx, name); err != nil || found {
		return false
	}
	if err := e.createNetwork(ctx, name); err != nil {
		return false
	}
	call, cancel := bounded(ctx)
	defer cancel()
	// A container that has run before remembers its network by an id that no longer exists.
	if err := e.api().NetworkDisconnect(call, name, containerID, true); err != nil {
		e.log.Debug("container was not joined to its new network yet", "container", containerID, "error", err)
	}
	if err := e.api().NetworkConnect(call, name, containerID, nil); err != nil {
		e.log.Warn("joining a container to its new network", "container", containerID, "error", err)
		return false
	}
	return true
}

// routesOf reads where the rented ports are reached, in their order: at the container's own address, or where the engine has
// published them.
func routesOf(there container.InspectResponse) ([]rental.Route, error) {
	var rented []rental.Port
	if err := json.Unmarshal([]byte(there.Config.Labels[labelPorts]), &rented); err != nil {
		return nil, fmt.Errorf("reading the container's ports: %w", err)
	}
	routes := make([]rental.Route, 0, len(rented))
	own, _ := addressOf(there)
	for _, port := range rented {
		if len(there.HostConfig.PortBindings) == 0 {
			if !own.IsValid() {
				return nil, errors.New("the container has no address on its network")
			}
			routes = append(routes, rental.Route{Port: port, Target: netip.AddrPortFrom(own, port.Container)})
			continue
		}
		target, ok := publishedAt(there.NetworkSettings.Ports[natPort(port)])
		if !ok {
			return nil, fmt.Errorf("port %s of the container is not published on %s", port, loopback)
		}
		routes = append(routes, rental.Route{Port: port, Target: target})
	}
	return routes, nil
}

// publishedAt is the binding on loopback.
func publishedAt(bindings []nat.PortBinding) (netip.AddrPort, bool) {
	for _, binding := range bindings {
		port, err := strconv.ParseUint(binding.HostPort, 10, 16)
		if binding.HostIP == loopback && err == nil && port > 0 {
			return netip.AddrPortFrom(netip.MustParseAddr(loopback), uint16(port)), true
		}
	}
	return netip.AddrPort{}, false
}
