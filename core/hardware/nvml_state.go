//go:build windows || (linux && cgo)

package hardware

import (
	"errors"
	"math"
)

func (d *nvmlDriver) inspect(uuids []string) []GPUState {
	states := make([]GPUState, len(uuids))
	for i, uuid := range uuids {
		device, code := d.library.byUUID(uuid)
		if code == nvmlSuccess {
			// A library may know a name whose GPU is gone.
			_, code = device.text(nvmlUUID)
		}
		states[i] = GPUState{UUID: uuid, Lost: code.lost()}
		if code == nvmlSuccess {
			states[i].fill(device)
		}
	}
	return states
}

// fill reads what there is to read. Settings and errors of an instance are those of the GPU around it, which
// its tenant cannot touch.
func (s *GPUState) fill(device nvmlDevice) {
	if memory, code := device.memory(); code == nvmlSuccess {
		s.MemoryUsed, s.Memory = new(int64(memory.used)), new(int64(memory.total))
	} else if code.lost() {
		s.Lost = true
		return
	}
	s.Compute = listed(device.processes(nvmlComputeProcesses))
	s.Graphics = listed(device.processes(nvmlGraphicsProcesses))
	if isInstance(s.UUID) {
		if whole, code := device.whole(); code == nvmlSuccess {
			s.Bus, _ = whole.pciBusID()
		}
		return
	}
	s.Bus, _ = device.pciBusID()
	if on, code := device.divided(); code == nvmlSuccess {
		s.Divided = on
	}
	s.Settings = settingsOf(device)
	if n, code := device.eccErrors(); code == nvmlSuccess {
		s.ECCErrors = &n
	}
}

func settingsOf(device nvmlDevice) Settings {
	s := Settings{
		PowerLimit:    got(device.number(nvmlPowerLimit)),
		ComputeMode:   got(device.number(nvmlComputeMode)),
		Persistence:   got(device.number(nvmlPersistence)),
		GraphicsClock: got(device.clock(nvmlGraphicsClock)),
		MemoryClock:   got(device.clock(nvmlMemoryClock)),
	}
	s.ECC = got(device.eccMode())
	return s
}

func got[T any](value T, code nvmlCode) *T {
	if code != nvmlSuccess {
		return nil
	}
	return &value
}

// listed is never nil for a list that is known to be empty.
func listed(processes []Process, code nvmlCode) []Process {
	if code != nvmlSuccess {
		return nil
	}
	return append([]Process{}, processes...)
}

func (d *nvmlDriver) tenants() []Tenancy {
	n, _ := d.library.count()
	var all []Tenancy
	for i := range n {
		device, code := d.library.byIndex(i)
		if code != nvmlSuccess {
			continue
		}
		if on, code := device.divided(); code != nvmlSuccess || !on {
			all = appendTenants(all, device)
			continue
		}
		slots, _ := device.slots()
		for slot := range slots {
			if part, code := device.instance(slot); code == nvmlSuccess {
				all = appendTenants(all, part)
			}
		}
	}
	return all
}

func appendTenants(all []Tenancy, device nvmlDevice) []Tenancy {
	uuid, code := device.text(nvmlUUID)
	if code != nvmlSuccess {
		return all
	}
	computing, _ := device.processes(nvmlComputeProcesses)
	drawing, _ := device.processes(nvmlGraphicsProcesses)
	return append(all, Tenancy{uuid, computing, drawing})
}

func (d *nvmlDriver) restore(uuid string, wanted Settings) error {
	device, code := d.library.byUUID(uuid)
	if code != nvmlSuccess {
		return code
	}
	now := settingsOf(device)
	var errs []error
	set := func(differs bool, f nvmlFunction, values ...*uint32) {
		if !differs {
			return
		}
		numbers := make([]uint32, len(values))
		for i, value := range values {
			numbers[i] = *value
		}
		if code := device.set(f, numbers...); code != nvmlSuccess {
			errs = append(errs, code)
		}
	}
	set(differs(now.PowerLimit, wanted.PowerLimit), nvmlSetPowerLimit, wanted.PowerLimit)
	set(differs(now.ComputeMode, wanted.ComputeMode), nvmlSetComputeMode, wanted.ComputeMode)
	set(differs(now.Persistence, wanted.Persistence), nvmlSetPersistence, wanted.Persistence)
	clocks := differs(now.GraphicsClock, wanted.GraphicsClock) || differs(now.MemoryClock, wanted.MemoryClock)
	if clocks && wanted.GraphicsClock != nil && wanted.MemoryClock != nil {
		set(true, nvmlSetClocks, wanted.MemoryClock, wanted.GraphicsClock)
	}
	return errors.Join(errs...)
}

func processOf(pid uint32, memory uint64) Process {
	p := Process{PID: int(pid)}
	if memory != nvmlUnknownMemory && memory <= math.MaxInt64 {
		p.Memory = new(int64(memory))
	}
	return p
}
