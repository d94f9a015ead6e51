package lending

import (
	"context"

	"github.com/distributedcompute/host-agent/core/hardware"
)

// Machine is what a desk asks of the machine. Package hardware says what each means.
type Machine interface {
	Inspect(ctx context.Context, gpus []hardware.GPU) ([]hardware.GPUState, error)
	Tenants(ctx context.Context, gpus []hardware.GPU) ([]hardware.Tenancy, error)
	Restore(ctx context.Context, gpu hardware.GPU, wanted hardware.Settings) error
	RunsIn(pid int, container string) (yes, known bool)
	Alive(pid int) bool
	Xids(after int64) (found []hardware.Xid, last int64, err error)
	BootID() string
}

// This is the machine the agent runs on.
func This(o hardware.Options) Machine { return machine{o} }

type machine struct{ options hardware.Options }

func (m machine) Inspect(ctx context.Context, gpus []hardware.GPU) ([]hardware.GPUState, error) {
	return hardware.Inspect(ctx, m.options, gpus)
}

func (m machine) Tenants(ctx context.Context, gpus []hardware.GPU) ([]hardware.Tenancy, error) {
	return hardware.Tenants(ctx, m.options, gpus)
}

func (m machine) Restore(ctx context.Context, gpu hardware.GPU, wanted hardware.Settings) error {
	return hardware.Restore(ctx, m.options, gpu, wanted)
}

func (m machine) RunsIn(pid int, container string) (yes, known bool) {
	return hardware.RunsIn(m.options, pid, container)
}

func (m machine) Alive(pid int) bool { return hardware.Alive(m.options, pid) }

func (m machine) Xids(after int64) ([]hardware.Xid, int64, error) {
	return hardware.Xids(m.options, after)
}

func (m machine) BootID() string { return hardware.BootID(m.options) }
