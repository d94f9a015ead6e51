//go:build windows || (linux && cgo)

package hardware

import (
	"fmt"
	"math"
	"strconv"
)

// nvmlLibrary is the part of NVIDIA's management library used here. How it is reached differs by
// operating system. An optional function the library lacks gives nvmlFunctionNotFound.
type nvmlLibrary interface {
	driverVersion() (string, nvmlCode)
	cudaVersion() (int, nvmlCode) // 12080 is 12.8
	count() (int, nvmlCode)
	byIndex(i int) (nvmlDevice, nvmlCode)
	byUUID(uuid string) (nvmlDevice, nvmlCode)
	shutdown()
}

// nvmlDevice is one GPU of the library.
type nvmlDevice interface {
	text(nvmlFunction) (string, nvmlCode)
	number(nvmlFunction) (uint32, nvmlCode)
	memory() (nvmlMemory, nvmlCode)
	utilization() (percent uint32, code nvmlCode)
	pciBusID() (string, nvmlCode)
	computeCapability() (major, minor int, code nvmlCode)
	divided() (bool, nvmlCode)                     // MIG mode is on
	slots() (int, nvmlCode)                        // for instances, taken or not
	instance(slot int) (nvmlDevice, nvmlCode)      // nvmlNotFound: the slot is free
	whole() (nvmlDevice, nvmlCode)                 // of an instance: the GPU it is part of
	processes(nvmlFunction) ([]Process, nvmlCode)  // nvmlComputeProcesses or nvmlGraphicsProcesses
	clock(kind uint32) (mhz uint32, code nvmlCode) // set for applications; nvmlGraphicsClock or nvmlMemoryClock
	eccMode() (on bool, code nvmlCode)             // the current one
	eccErrors() (uint64, nvmlCode)                 // uncorrected ones since the driver was loaded
	set(f nvmlFunction, values ...uint32) nvmlCode // nvmlSet…
}

// nvmlMemory is in bytes, laid out as nvmlMemory_t.
type nvmlMemory struct{ total, free, used uint64 }

// nvmlFunction names a function of the library.
type nvmlFunction string

// Functions that may be missing from a library.
const (
	nvmlDriverVersion     nvmlFunction = "nvmlSystemGetDriverVersion"
	nvmlCUDAVersion       nvmlFunction = "nvmlSystemGetCudaDriverVersion"
	nvmlMemoryInfo        nvmlFunction = "nvmlDeviceGetMemoryInfo"
	nvmlUtilization       nvmlFunction = "nvmlDeviceGetUtilizationRates"
	nvmlPCIInfo           nvmlFunction = "nvmlDeviceGetPciInfo_v3"
	nvmlComputeCapability nvmlFunction = "nvmlDeviceGetCudaComputeCapability"
	nvmlMIGMode           nvmlFunction = "nvmlDeviceGetMigMode"
	nvmlMIGSlots          nvmlFunction = "nvmlDeviceGetMaxMigDeviceCount"
	nvmlMIGInstance       nvmlFunction = "nvmlDeviceGetMigDeviceHandleByIndex"
	nvmlMIGWhole          nvmlFunction = "nvmlDeviceGetDeviceHandleFromMigDeviceHandle"
	nvmlComputeProcesses  nvmlFunction = "nvmlDeviceGetComputeRunningProcesses_v3"
	nvmlGraphicsProcesses nvmlFunction = "nvmlDeviceGetGraphicsRunningProcesses_v3"
	nvmlClock             nvmlFunction = "nvmlDeviceGetApplicationsClock"
	nvmlECCMode           nvmlFunction = "nvmlDeviceGetEccMode"
	nvmlECCErrors         nvmlFunction = "nvmlDeviceGetTotalEccErrors"
	nvmlSetPowerLimit     nvmlFunction = "nvmlDeviceSetPowerManagementLimit" // mW
	nvmlSetComputeMode    nvmlFunction = "nvmlDeviceSetComputeMode"
	nvmlSetPersistence    nvmlFunction = "nvmlDeviceSetPersistenceMode"
	nvmlSetClocks         nvmlFunction = "nvmlDeviceSetApplicationsClocks" // memory's, then graphics', MHz
)

// The clocks of nvmlDevice.clock, as nvmlClockType_t counts them.
const (
	nvmlGraphicsClock uint32 = 0
	nvmlMemoryClock   uint32 = 2
)

// nvmlUnknownMemory is how much memory a process has where the driver cannot tell.
const nvmlUnknownMemory = math.MaxUint64

// Functions that give one text or one number of a GPU.
const (
	nvmlName           nvmlFunction = "nvmlDeviceGetName"
	nvmlUUID           nvmlFunction = "nvmlDeviceGetUUID"
	nvmlTemperature    nvmlFunction = "nvmlDeviceGetTemperature"           // °C
	nvmlPower          nvmlFunction = "nvmlDeviceGetPowerUsage"            // mW
	nvmlPowerLimit     nvmlFunction = "nvmlDeviceGetPowerManagementLimit"  // mW
	nvmlFan            nvmlFunction = "nvmlDeviceGetFanSpeed"              // percent
	nvmlPCIeGeneration nvmlFunction = "nvmlDeviceGetMaxPcieLinkGeneration" // of card and slot; the current one sinks when idle
	nvmlPCIeWidth      nvmlFunction = "nvmlDeviceGetMaxPcieLinkWidth"
	nvmlComputeMode    nvmlFunction = "nvmlDeviceGetComputeMode"
	nvmlPersistence    nvmlFunction = "nvmlDeviceGetPersistenceMode" // 1: on
)

// nvmlRequired are the functions without which a library is none.
func nvmlRequired() []string {
	return []string{
		"nvmlInit_v2", "nvmlShutdown", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2",
		"nvmlDeviceGetHandleByUUID", string(nvmlUUID), string(nvmlName),
	}
}

// lost reports whether the handle that gave this code leads nowhere any more.
func (c nvmlCode) lost() bool {
	switch c {
	case nvmlUninitialized, nvmlInvalidArgument, nvmlNotFound, nvmlGPULost, nvmlResetRequired:
		return true
	default:
		return false
	}
}

// nvmlDriver is the gpuDriver on the library. Handles are kept by UUID, as indices change when a
// GPU is lost.
type nvmlDriver struct {
	library nvmlLibrary
	devices map[string]nvmlDevice
}

func newNVMLDriver(library nvmlLibrary) *nvmlDriver {
	return &nvmlDriver{library: library, devices: map[string]nvmlDevice{}}
}

func (d *nvmlDriver) close() { d.library.shutdown() }

func (d *nvmlDriver) survey() gpuSurvey {
	var s gpuSurvey
	n, code := d.library.count()
	if code != nvmlSuccess {
		s.gaps = append(s.gaps, nvmlGap(code))
		return s
	}
	for i := range n {
		device, code := d.library.byIndex(i)
		if code != nvmlSuccess {
			s.gaps = append(s.gaps, gpuLostGap(strconv.Itoa(i)))
			continue
		}
		gpu, ok := describe(device)
		if !ok {
			s.gaps = append(s.gaps, gpuLostGap(strconv.Itoa(i)))
			continue
		}
		gpu.Index = i
		if on, code := device.divided(); code == nvmlSuccess && on {
			s.addInstances(device, gpu, n)
			continue
		}
		s.add(gpu)
	}
	s.counted = n
	if n == 0 {
		s.gaps = append(s.gaps, noGPUGap())
		return s
	}
	s.driverVersion = told(d.library.driverVersion())
	if version, code := d.library.cudaVersion(); code == nvmlSuccess {
		s.cudaVersion = new(fmt.Sprintf("%d.%d", version/1000, version%1000/10))
	}
	s.checkVersions()
	return s
}

// addInstances puts a divided GPU's instances in its place: whole, nobody can use it. n is how many GPUs the
// driver counts.
func (s *gpuSurvey) addInstances(device nvmlDevice, whole GPU, n int) {
	before := len(s.gpus)
	slots, _ := device.slots()
	for slot := range slots {
		part, code := device.instance(slot)
		if code != nvmlSuccess {
			continue
		}
		gpu, ok := describe(part)
		if !ok {
			continue
		}
		gpu.Parent, gpu.PowerLimitW = whole.UUID, nil
		gpu.PCIBusID, gpu.PCIeGeneration, gpu.PCIeWidth = whole.PCIBusID, whole.PCIeGeneration, whole.PCIeWidth
		if gpu.ComputeCapability == nil {
			gpu.ComputeCapability = whole.ComputeCapability
		}
		s.addInstance(gpu, whole, slot, n)
	}
	if len(s.gpus) == before {
		s.gaps = append(s.gaps, gpuEmptyGap(whole))
	}
}

// describe is not ok for a GPU that cannot be told at all.
func describe(device nvmlDevice) (gpu GPU, ok bool) {
	uuid, code := device.text(nvmlUUID)
	if code != nvmlSuccess {
		return GPU{}, false
	}
	model, code := device.text(nvmlName)
	if code != nvmlSuccess {
		return GPU{}, false
	}
	gpu.UUID, gpu.Model = uuid, model
	if memory, code := device.memory(); code == nvmlSuccess {
		gpu.VRAMTotalMB, gpu.VRAMAvailableMB = new(int64(memory.total/mib)), new(int64(memory.free/mib))
	}
	gpu.PCIBusID = told(device.pciBusID())
	if milliwatts, code := device.number(nvmlPowerLimit); code == nvmlSuccess {
		gpu.PowerLimitW = new(float64(milliwatts) / 1000)
	}
	if major, minor, code := device.computeCapability(); code == nvmlSuccess {
		gpu.ComputeCapability = new(fmt.Sprintf("%d.%d", major, minor))
	}
	if generation, code := device.number(nvmlPCIeGeneration); code == nvmlSuccess {
		gpu.PCIeGeneration = new(int(generation))
	}
	if width, code := device.number(nvmlPCIeWidth); code == nvmlSuccess {
		gpu.PCIeWidth = new(int(width))
	}
	return gpu, true
}

func (d *nvmlDriver) read(uuids []string) (readings []gpuReading, answered bool) {
	readings = make([]gpuReading, len(uuids))
	for i, uuid := range uuids {
		if device, ok := d.device(uuid); ok {
			fill := readings[i].fill
			if isInstance(uuid) {
				fill = readings[i].fillInstance
			}
			code := fill(device)
			if code.lost() {
				delete(d.devices, uuid)
				readings[i] = gpuReading{}
				continue
			}
			answered = true
		}
	}
	return readings, answered
}

func (d *nvmlDriver) device(uuid string) (nvmlDevice, bool) {
	if device, ok := d.devices[uuid]; ok {
		return device, true
	}
	device, code := d.library.byUUID(uuid)
	if code != nvmlSuccess {
		return nil, false
	}
	d.devices[uuid] = device
	return device, true
}

// fill stops at the first code that says the GPU is gone, and returns it.
func (r *gpuReading) fill(device nvmlDevice) nvmlCode {
	memory, code := device.memory()
	r.memoryUsedMB = value[int64]{int64(memory.used / mib), code == nvmlSuccess}
	if code.lost() {
		return code
	}
	percent, code := device.utilization()
	r.utilization = value[float64]{float64(percent), code == nvmlSuccess}
	if code.lost() {
		return code
	}
	for _, want := range []struct {
		function nvmlFunction
		value    *value[float64]
		per      float64
	}{
		{nvmlTemperature, &r.tempC, 1},
		{nvmlPower, &r.powerW, 1000},
		{nvmlFan, &r.fanPercent, 1},
	} {
		n, code := device.number(want.function)
		*want.value = value[float64]{float64(n) / want.per, code == nvmlSuccess}
		if code.lost() {
			return code
		}
	}
	return nvmlSuccess
}

// fillInstance takes the memory of an instance, and of the GPU around it what holds for all parts of it: the
// heat. Load and power are no instance's own.
func (r *gpuReading) fillInstance(device nvmlDevice) nvmlCode {
	memory, code := device.memory()
	r.memoryUsedMB = value[int64]{int64(memory.used / mib), code == nvmlSuccess}
	if code.lost() {
		return code
	}
	if whole, code := device.whole(); code == nvmlSuccess {
		celsius, code := whole.number(nvmlTemperature)
		r.tempC = value[float64]{float64(celsius), code == nvmlSuccess}
	}
	return nvmlSuccess
}

func told(text string, code nvmlCode) *string {
	if code != nvmlSuccess {
		return nil
	}
	return known(text)
}
