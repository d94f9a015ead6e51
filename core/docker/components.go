package docker

import (
	"context"
	"strings"

	"github.com/distributedcompute/host-agent/core/rental"
)

// Components are the versions of the engine's parts.
type Components struct {
	Versions map[string]string // "docker", "containerd", "runc"; without those the engine does not tell
	Kernel   string            // release of the kernel that containers run on
	System   string            // the operating system there, in words
}

// Components asks the engine which parts it is made of.
func (e *Engine) Components(ctx context.Context) (Components, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	said, err := e.api().ServerVersion(call)
	if err != nil {
		return Components{}, failed(ctx, "asking for the engine's components", err)
	}
	c := Components{Versions: map[string]string{"docker": said.Version}, Kernel: said.KernelVersion, System: said.Platform.Name}
	for _, part := range said.Components {
		switch name := strings.ToLower(part.Name); name {
		case "containerd", "runc":
			c.Versions[name] = part.Version
		}
	}
	return c, nil
}

// Look asks the engine once what it is, where nobody runs Run.
func (e *Engine) Look(ctx context.Context) rental.EngineInfo {
	if err := e.look(ctx, func() {}); err != nil {
		e.lost(ctx, err, func() {})
	}
	return e.Info()
}
