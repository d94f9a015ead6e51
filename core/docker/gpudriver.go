package docker

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"

	"github.com/docker/docker/api/types/container"

	"github.com/distributedcompute/host-agent/core/rental"
)

// gpuDriver is by which of its drivers an engine hands out NVIDIA's GPUs: by NVIDIA's hook or by the host's description of
// its devices (CDI). Which of the two works depends on the engine's settings and on the toolkit's; neither says
// so but by its errors, and those come when a container is started that asks for one. So where there are two ways, the
// first GPU that is rented is asked for by a container that is not the rental's.
type gpuDriver struct {
	trial chan struct{} // capacity 1: held by who tries

	mu    sync.Mutex
	known bool // guarded by mu
	cdi   bool // guarded by mu
}

// forget has the next rental find out anew: the engine has other settings, or has refused a GPU.
func (d *gpuDriver) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known = false
}

func (d *gpuDriver) remember(cdi bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known, d.cdi = true, cdi
}

func (d *gpuDriver) recall() (cdi, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cdi, d.known
}

// byCDI reports whether a rental's GPUs are to be asked for by their description.
func (e *Engine) byCDI(ctx context.Context, spec rental.Spec, image rental.Image, brought luggage, known facts) (bool, error) {
	if len(uuids(spec.GPUs)) == 0 || !known.OffersCDI {
		return false, nil
	}
	select {
	case e.gpus.trial <- struct{}{}:
		defer func() { <-e.gpus.trial }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	if cdi, known := e.gpus.recall(); known {
		return cdi, nil
	}
	var first error
	for _, cdi := range []bool{false, true} {
		known.CDI = cdi
		err := e.tryGPUs(ctx, spec, image, brought, known)
		if err == nil {
			e.log.Info("way to the GPUs found", "by_description", cdi)
			e.gpus.remember(cdi)
			return cdi, nil
		}
		if !hasCode(err, rental.CodeGPUUnavailable) {
			return false, err
		}
		if first == nil {
			first = err
		}
	}
	return false, first
}

// tryGPUs asks for a rental's GPUs by a container that has nothing to run: the engine hands them out before it looks for the
// program, and then fails for the lack of that.
func (e *Engine) tryGPUs(ctx context.Context, spec rental.Spec, image rental.Image, brought luggage, known facts) error {
	call, cancel := context.WithTimeout(ctx, createWithin)
	defer cancel()
	if err := e.sweepErrands(call, labelProbe, kindGPUTrial); err != nil {
		return err
	}
	full, err := newPlan(spec, image, brought, "none", known, e.seal)
	if err != nil {
		return err
	}
	name := probePrefix + strings.ToLower(rand.Text()[:12])
	trial := trialOf(full, name, e.seal.of(kindGPUTrial, name))
	made, err := e.api().ContainerCreate(call, trial.Config, trial.HostConfig, nil, nil, trial.Name)
	if err != nil {
		return createFailure(ctx, err)
	}
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWithin)
		defer cancel()
		if err := e.discard(after, made.ID, kindGPUTrial); err != nil {
			e.log.Warn("removing the container that GPUs were tried with", "container", made.ID, "error", err)
		}
	}()
	err = e.api().ContainerStart(call, made.ID, container.StartOptions{})
	switch {
	case err == nil: // the image holds a program of a name that nobody can guess
		return rental.Failf(rental.CodeContainerFailed, "Docker started a program that the image does not hold.")
	case !refusesGPUs(err.Error()) && missesProgram(err.Error()):
		return nil
	}
	e.log.Info("engine refuses GPUs", "by_description", known.CDI, "error", err)
	return startFailure(ctx, err)
}

const kindGPUTrial = "trial of GPUs"

// trialOf makes a container of a plan that gets the same GPUs in the same confinement, without a network, and runs nothing.
func trialOf(full plan, name, mark string) plan {
	config, host := *full.Config, *full.HostConfig
	config.Entrypoint, config.Cmd = []string{"/" + rand.Text()}, nil
	config.Labels = map[string]string{labelProbe: mark}
	config.ExposedPorts = nil
	host.NetworkMode, host.PortBindings, host.DNS, host.DNSSearch = "none", nil, nil, nil
	host.Init = new(false) // which would be a program that can be run
	return plan{Name: name, Config: &config, HostConfig: &host}
}
