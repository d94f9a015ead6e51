package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	// settledWithin is how long a program that has just been started may still be the runtime, which drops its rights last.
	// It is no more than a moment, but on a machine that is busy beyond measure.
	settledWithin = 30 * time.Second
	settledPause  = 5 * time.Millisecond
)

// verify looks from outside whether a container that has been started is what was planned: at what the engine says of it,
// and at what the kernel does. Nothing is run inside. What is not as it must be is killed, before anybody is led to it.
func (e *Engine) verify(ctx context.Context, there container.InspectResponse) error {
	if _, ours := e.owner(there); !ours {
		return rental.Failf(rental.CodeNotFound, "The container is not this agent's.") // and so none of its business
	}
	known, err := e.knownFacts(ctx)
	if err != nil {
		return err
	}
	gpus, err := mismatch(there, known)
	switch {
	case err != nil:
	case !ofThisVersion(there):
		e.log.Info("container was made by another version of this agent and stays as it is", "container", there.ID)
	default:
		err = e.traits(ctx, there, gpus)
	}
	if err == nil || ctx.Err() != nil { // who looks no more has found nothing
		return err
	}
	e.log.Error("container is not what was planned and is killed", "container", there.ID, "error", err)
	e.stopping.add(there.ID)
	call, cancel := bounded(context.WithoutCancel(ctx))
	defer cancel()
	if err := e.api().ContainerKill(call, there.ID, "SIGKILL"); err != nil {
		e.log.Warn("killing a container", "container", there.ID, "error", err)
	}
	if found, ok := errors.AsType[*deviation](err); ok && found.devices {
		return rental.Failf(rental.CodeGPUUnavailable, "The container did not get exactly the GPUs that were rented; it was ended at once.")
	}
	return rental.Failf(rental.CodeIsolation, "The container was not shut in as it must be; it was ended at once.")
}

// deviation is something about a container that is not as planned. Its text is for the host's log.
type deviation struct {
	text    string
	devices bool // it concerns GPUs
}

func (d *deviation) Error() string { return d.text }

func deviationf(format string, args ...any) error {
	return &deviation{text: fmt.Sprintf(format, args...)}
}

// mismatch compares what the engine says of a container with what newPlan makes, and returns the rented GPUs. What
// differs from rental to rental it takes from labels that are sealed, and limits from the engine: there must be some. A
// container that another version of the agent has made, which runs while the agent is updated, is not held to how this one
// makes them.
func mismatch(there container.InspectResponse, known facts) ([]rental.GPU, error) {
	host := there.HostConfig
	net := string(host.NetworkMode)
	var gpus []rental.GPU
	var rented []rental.Port
	if err := json.Unmarshal([]byte(there.Config.Labels[labelGPUs]), &gpus); err != nil {
		return nil, deviationf("its GPUs cannot be read: %v", err)
	}
	if err := json.Unmarshal([]byte(there.Config.Labels[labelPorts]), &rented); err != nil {
		return nil, deviationf("its ports cannot be read: %v", err)
	}
	if host.Memory < leastMemory || host.NanoCPUs <= 0 || host.PidsLimit == nil || *host.PidsLimit < 1 || host.ShmSize > host.Memory {
		return nil, deviationf("it is not limited: memory %d, CPUs %d, shm %d", host.Memory, host.NanoCPUs, host.ShmSize)
	}
	want, err := shape{
		Network: net, MemoryBytes: host.Memory, ShmBytes: host.ShmSize, NanoCPUs: host.NanoCPUs, Pids: *host.PidsLimit,
		Storage: host.StorageOpt, Ports: rented, GPUs: gpus,
		AppArmor: slices.Contains(host.SecurityOpt, appArmorOption),
		Direct:   len(host.PortBindings) == 0, // or else each port, on loopback
		CDI:      len(host.DeviceRequests) > 0 && host.DeviceRequests[0].Driver == driverCDI,
	}.hostConfig()
	if err != nil {
		return nil, deviationf("its GPUs cannot be handed out: %v", err)
	}
	if known.NoSwapLimit && host.MemorySwap == -1 {
		want.MemorySwap = -1 // the engine has said so when it made the container
	}
	if ofThisVersion(there) {
		if err := compare(want, host); err != nil {
			return nil, err
		}
	}
	return gpus, beside(there, gpus, net)
}

// ofThisVersion reports whether a container was made as this version of the agent makes them.
func ofThisVersion(there container.InspectResponse) bool {
	return there.Config.Labels[labelRecipe] == recipe()
}

// compare names the first field of the host's side of a container that is not as wanted.
func compare(want, got *container.HostConfig) error {
	planned, err := fieldsOf(want)
	if err != nil {
		return err
	}
	said, err := fieldsOf(got)
	if err != nil {
		return err
	}
	// These the engine fills in: which of the kernel's files are hidden, which cannot be written.
	masked, readonly := got.MaskedPaths, got.ReadonlyPaths
	if !slices.Contains(masked, "/proc/kcore") || !slices.Contains(masked, "/sys/firmware") || !slices.Contains(readonly, "/proc/sys") {
		return deviationf("files of the kernel lie open: %v, %v", masked, readonly)
	}
	delete(said, "MaskedPaths")
	delete(said, "ReadonlyPaths")
	names := slices.Collect(maps.Keys(planned))
	for name := range said {
		if _, ok := planned[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if planned[name] != said[name] {
			return &deviation{
				text:    fmt.Sprintf("%s is %.200s, planned was %.200s", name, said[name], planned[name]),
				devices: strings.HasPrefix(name, "Device"),
			}
		}
	}
	return nil
}

// fieldsOf is a configuration field by field, as the engine's API has it, without those that say nothing: engines differ in
// how they write that.
func fieldsOf(config *container.HostConfig) (map[string]string, error) {
	like := *config
	like.CapAdd = nil
	for _, name := range config.CapAdd { // engines spell them out
		like.CapAdd = append(like.CapAdd, strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
	}
	slices.Sort(like.CapAdd)
	// Engines add settings for logs that their owner has made for all containers. What bounds logs we have said ourselves.
	like.LogConfig.Config = map[string]string{}
	for _, name := range []string{"max-size", "max-file"} {
		like.LogConfig.Config[name] = config.LogConfig.Config[name]
	}
	encoded, err := json.Marshal(&like)
	if err != nil {
		return nil, fmt.Errorf("encoding a container's configuration: %w", err)
	}
	var decoded map[string]any
	if err := json.Unmarshal(encoded, &decoded); err != nil {
		return nil, fmt.Errorf("reading a container's configuration: %w", err)
	}
	fields := make(map[string]string)
	for name, value := range decoded {
		if value = telling(value); value == nil {
			continue
		}
		text, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("encoding a container's %s: %w", name, err)
		}
		fields[name] = string(text)
	}
	return fields, nil
}

// telling is a decoded value without what says nothing: zeros and what holds only those.
func telling(value any) any {
	switch value := value.(type) {
	case bool:
		if !value {
			return nil
		}
	case float64:
		if value == 0 {
			return nil
		}
	case string:
		if value == "" {
			return nil
		}
	case []any:
		for _, element := range value {
			if telling(element) != nil {
				return value
			}
		}
		return nil
	case map[string]any:
		kept := make(map[string]any)
		for name, element := range value {
			if element = telling(element); element != nil {
				kept[name] = element
			}
		}
		if len(kept) == 0 {
			return nil
		}
		return kept
	}
	return value
}

// beside checks what the engine says elsewhere than in the host's side of the configuration.
func beside(there container.InspectResponse, gpus []rental.GPU, net string) error {
	for _, m := range there.Mounts {
		if m.Type != mount.TypeVolume || intoKernel(m.Destination) {
			return deviationf("%s is mounted at %s", m.Type, m.Destination)
		}
	}
	if there.Config.Tty || there.Config.OpenStdin || there.Config.AttachStdin {
		return deviationf("it has a terminal or an input")
	}
	if check := there.Config.Healthcheck; check == nil || !slices.Equal(check.Test, []string{"NONE"}) {
		return deviationf("the engine runs a health check in it")
	}
	for name := range there.NetworkSettings.Networks {
		if name != net {
			return deviationf("it is on network %s, too", name)
		}
	}
	if slices.Contains(there.HostConfig.SecurityOpt, appArmorOption) && there.AppArmorProfile != "docker-default" {
		return deviationf("its AppArmor profile is %q", there.AppArmorProfile)
	}
	visible := ""
	for _, entry := range there.Config.Env {
		if value, ok := strings.CutPrefix(entry, visibleVariable+"="); ok {
			visible = value
		}
	}
	if visible != visibleDevices(gpus) {
		return &deviation{text: fmt.Sprintf("the GPUs it is to see are %.200q", visible), devices: true}
	}
	return nil
}

// traits looks at what the kernel says of a container's first process. It is passed over where that cannot be seen from
// here: an engine in a virtual machine or of another user, or a program that has ended already; Wait tells
// how. Right after the start the process may still be the runtime's, so what is not right is looked at again.
func (e *Engine) traits(ctx context.Context, there container.InspectResponse, gpus []rental.GPU) error {
	late := time.Now().Add(settledWithin)
	for {
		err := kernelTraits(there.State.Pid, there.ID, gpus)
		if err == nil || time.Now().After(late) {
			return err
		}
		if pause(ctx, settledPause) != nil {
			return context.Cause(ctx)
		}
	}
}
