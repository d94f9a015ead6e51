package docker

import (
	"context"
	"math"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/distributedcompute/host-agent/core/rental"
)

// idSet is a set of container ids.
type idSet struct {
	mu  sync.Mutex
	ids map[string]bool // guarded by mu
}

func (s *idSet) add(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids = make(map[string]bool)
	}
	s.ids[id] = true
}

func (s *idSet) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ids, id)
}

func (s *idSet) has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids[id]
}

// Stop implements rental.Engine. grace is rounded up to seconds.
func (e *Engine) Stop(ctx context.Context, containerID string, grace time.Duration) error {
	e.stopping.add(containerID) // from now on an exit is not the engine's doing
	seconds := int(math.Ceil(max(0, grace).Seconds()))
	call, cancel := context.WithTimeout(ctx, grace+callWithin)
	defer cancel()
	err := e.api().ContainerStop(call, containerID, container.StopOptions{Timeout: &seconds})
	if err == nil || cerrdefs.IsNotFound(err) {
		return nil
	}
	return failed(ctx, "stopping the container", err)
}

// Remove implements rental.Engine.
func (e *Engine) Remove(ctx context.Context, id rental.ID, containerID string) error {
	there, found, err := e.inspect(ctx, containerName(id))
	if err != nil {
		return err
	}
	if !found {
		e.forgetRental(id, containerID)
		return e.sweepNetworks(ctx) // its network may be there without it
	}
	owner, ours := e.owner(there)
	if !ours || owner != id || (containerID != "" && there.ID != containerID) {
		e.forgetRental(id, containerID)
		e.log.Warn("container is not this agent's and stays", "rental", id, "container", there.ID)
		return e.sweepNetworks(ctx)
	}
	if err := e.removeContainer(ctx, there.ID); err != nil {
		return err
	}
	e.forgetRental(id, there.ID)
	return e.freeNetwork(ctx, string(there.HostConfig.NetworkMode))
}

// forgetRental lets go of what is remembered of a rental whose container is gone, whoever has removed it.
func (e *Engine) forgetRental(id rental.ID, containerID string) {
	e.stopping.remove(containerID)
	e.processes.forget(containerID)
	e.verdicts.forget(containerID)
	e.guard.forgets(id)
	e.shelf.ask() // its image may be private, and then goes, too
}

// removeContainer removes a container with its anonymous volumes and returns when it is gone.
func (e *Engine) removeContainer(ctx context.Context, containerID string) error {
	e.stopping.add(containerID)
	call, cancel := context.WithTimeout(ctx, removeWithin)
	defer cancel()
	err := e.api().ContainerRemove(call, containerID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	switch {
	case err == nil || cerrdefs.IsNotFound(err):
		return nil
	case cerrdefs.IsConflict(err):
		return e.gone(ctx, containerID) // someone else is removing it
	default:
		return failed(ctx, "removing the container", err)
	}
}

// gone waits until a container that is being removed no longer exists.
func (e *Engine) gone(ctx context.Context, containerID string) error {
	call, cancel := context.WithTimeout(ctx, removeWithin)
	defer cancel()
	results, errs := e.api().ContainerWait(call, containerID, container.WaitConditionRemoved)
	select {
	case <-results:
		return nil
	case err := <-errs:
		if cerrdefs.IsNotFound(err) {
			return nil
		}
		return failed(ctx, "waiting for the container's removal", err)
	}
}

// Holdings implements rental.Engine. Containers with labels that this agent did not write are not listed.
func (e *Engine) Holdings(ctx context.Context) ([]rental.Holding, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	found, err := e.api().ContainerList(call, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", labelManaged)),
	})
	if err != nil {
		return nil, failed(ctx, "listing containers", err)
	}
	holdings := make([]rental.Holding, 0, len(found))
	for _, c := range found {
		id, ours := e.seal.rentalOf(c.Labels, c.HostConfig.NetworkMode, c.Names...)
		if !ours {
			continue
		}
		holdings = append(holdings, rental.Holding{
			ID: id, ContainerID: c.ID, Running: alive(c.State),
			Ran: c.State != container.StateCreated, CreatedAt: time.Unix(c.Created, 0),
		})
	}
	return holdings, nil
}

// alive reports whether a container's programs are there.
func alive(state container.ContainerState) bool {
	return state == container.StateRunning || state == container.StatePaused
}
