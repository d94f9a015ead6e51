package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
)

// Errands are containers of the agent's own, which live for a moment and belong to no rental: to try the storage, to try the
// GPUs, to reach the packet filter. A label has the keyed hash of their kind and name, so that one which was left
// by an agent that was killed is found again.

// sweepErrands removes what is left of a kind, within ctx.
func (e *Engine) sweepErrands(ctx context.Context, label, kind string) error {
	found, err := e.api().ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", label))})
	if err != nil {
		return failed(ctx, fmt.Sprintf("listing containers of the %s", kind), err)
	}
	for _, c := range found {
		ours := slices.ContainsFunc(c.Names, func(name string) bool {
			return e.seal.holds(c.Labels[label], kind, strings.TrimPrefix(name, "/"))
		})
		if !ours {
			continue
		}
		if err := e.discard(ctx, c.ID, kind); err != nil {
			return err
		}
	}
	return nil
}

// discard removes the container of an errand, within ctx.
func (e *Engine) discard(ctx context.Context, containerID, kind string) error {
	err := e.api().ContainerRemove(ctx, containerID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if err == nil || cerrdefs.IsNotFound(err) || cerrdefs.IsConflict(err) {
		return nil
	}
	return failed(ctx, fmt.Sprintf("removing a container of the %s", kind), err)
}
