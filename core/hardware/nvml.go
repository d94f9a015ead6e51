//go:build windows || (linux && cgo)

package hardware

import (
	"fmt"
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
)

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
		s.add(gpu)
	}
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
			code := readings[i].fill(device)
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

func told(text string, code nvmlCode) *string {
	if code != nvmlSuccess {
		return nil
	}
	return known(text)
}
