//go:build cgo

package hardware

import (
	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// goNVML is the library through go-nvml. A call to a function the library lacks would end the
// process, so each optional one is looked up once, at the start.
type goNVML struct {
	nvml.Interface
	has map[nvmlFunction]bool
}

// openNVML starts the library at path, or where the driver puts it: on the loader's path, in WSL's
// directory, in NixOS's.
func openNVML(path string) (gpuDriver, error) {
	paths := []string{path}
	if path == "" {
		paths = []string{"libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1", "/run/opengl-driver/lib/libnvidia-ml.so.1"}
	}
	var err error = nvmlLibraryNotFound
	for _, path := range paths {
		if err = checkNVML(path); err == nil {
			return startNVML(path)
		}
		if err != nvmlLibraryNotFound {
			break
		}
	}
	return nil, err
}

// checkNVML sees to it that path is such a library before anything of it is called.
func checkNVML(path string) error {
	library := dl.New(path, dl.RTLD_LAZY|dl.RTLD_LOCAL)
	if library.Open() != nil {
		return nvmlLibraryNotFound
	}
	defer library.Close()
	for _, function := range nvmlRequired() {
		if library.Lookup(function) != nil {
			return nvmlFunctionNotFound
		}
	}
	return nil
}

func startNVML(path string) (gpuDriver, error) {
	library := &goNVML{Interface: nvml.New(nvml.WithLibraryPath(path)), has: map[nvmlFunction]bool{}}
	if ret := library.Init(); ret != nvml.SUCCESS {
		return nil, nvmlCode(ret)
	}
	for _, f := range []nvmlFunction{
		nvmlName, nvmlUUID, nvmlTemperature, nvmlPower, nvmlPowerLimit, nvmlFan, nvmlPCIeGeneration, nvmlPCIeWidth,
		nvmlComputeMode, nvmlPersistence, nvmlMIGMode, nvmlMIGSlots, nvmlMIGInstance, nvmlMIGWhole,
		nvmlComputeProcesses, nvmlGraphicsProcesses, nvmlClock, nvmlECCMode, nvmlECCErrors,
		nvmlSetPowerLimit, nvmlSetComputeMode, nvmlSetPersistence, nvmlSetClocks,
		nvmlDriverVersion, nvmlCUDAVersion, nvmlMemoryInfo, nvmlUtilization, nvmlPCIInfo, nvmlComputeCapability,
	} {
		library.has[f] = library.Extensions().LookupSymbol(string(f)) == nil
	}
	return newNVMLDriver(library), nil
}

func (l *goNVML) shutdown() { l.Shutdown() }

func (l *goNVML) driverVersion() (string, nvmlCode) {
	if !l.has[nvmlDriverVersion] {
		return "", nvmlFunctionNotFound
	}
	version, ret := l.SystemGetDriverVersion()
	return version, nvmlCode(ret)
}

func (l *goNVML) cudaVersion() (int, nvmlCode) {
	if !l.has[nvmlCUDAVersion] {
		return 0, nvmlFunctionNotFound
	}
	version, ret := l.SystemGetCudaDriverVersion()
	return version, nvmlCode(ret)
}

func (l *goNVML) count() (int, nvmlCode) {
	n, ret := l.DeviceGetCount()
	return n, nvmlCode(ret)
}

func (l *goNVML) byIndex(i int) (nvmlDevice, nvmlCode) {
	device, ret := l.DeviceGetHandleByIndex(i)
	return goDevice{device, l.has}, nvmlCode(ret)
}

func (l *goNVML) byUUID(uuid string) (nvmlDevice, nvmlCode) {
	device, ret := l.DeviceGetHandleByUUID(uuid)
	return goDevice{device, l.has}, nvmlCode(ret)
}

type goDevice struct {
	nvml.Device
	has map[nvmlFunction]bool
}

func (d goDevice) text(f nvmlFunction) (string, nvmlCode) {
	var text string
	var ret nvml.Return
	if f == nvmlName {
		text, ret = d.GetName()
	} else {
		text, ret = d.GetUUID()
	}
	return text, nvmlCode(ret)
}

func (d goDevice) number(f nvmlFunction) (uint32, nvmlCode) {
	if !d.has[f] {
		return 0, nvmlFunctionNotFound
	}
	var n uint32
	var small int
	ret := nvml.ERROR_FUNCTION_NOT_FOUND
	switch f {
	case nvmlTemperature:
		n, ret = d.GetTemperature(nvml.TEMPERATURE_GPU)
	case nvmlPower:
		n, ret = d.GetPowerUsage()
	case nvmlPowerLimit:
		n, ret = d.GetPowerManagementLimit()
	case nvmlFan:
		n, ret = d.GetFanSpeed()
	case nvmlPCIeGeneration:
		small, ret = d.GetMaxPcieLinkGeneration()
		n = uint32(small)
	case nvmlPCIeWidth:
		small, ret = d.GetMaxPcieLinkWidth()
		n = uint32(small)
	case nvmlComputeMode:
		var mode nvml.ComputeMode
		mode, ret = d.GetComputeMode()
		n = uint32(mode)
	case nvmlPersistence:
		var mode nvml.EnableState
		mode, ret = d.GetPersistenceMode()
		n = uint32(mode)
	}
	return n, nvmlCode(ret)
}

func (d goDevice) memory() (nvmlMemory, nvmlCode) {
	if !d.has[nvmlMemoryInfo] {
		return nvmlMemory{}, nvmlFunctionNotFound
	}
	m, ret := d.GetMemoryInfo()
	return nvmlMemory{total: m.Total, free: m.Free, used: m.Used}, nvmlCode(ret)
}

func (d goDevice) utilization() (uint32, nvmlCode) {
	if !d.has[nvmlUtilization] {
		return 0, nvmlFunctionNotFound
	}
	u, ret := d.GetUtilizationRates()
	return u.Gpu, nvmlCode(ret)
}

func (d goDevice) pciBusID() (string, nvmlCode) {
	if !d.has[nvmlPCIInfo] {
		return "", nvmlFunctionNotFound
	}
	info, ret := d.GetPciInfo()
	id := make([]byte, 0, len(info.BusId))
	for _, c := range info.BusId {
		if c == 0 {
			break
		}
		id = append(id, byte(c))
	}
	return string(id), nvmlCode(ret)
}

func (d goDevice) computeCapability() (major, minor int, code nvmlCode) {
	if !d.has[nvmlComputeCapability] {
		return 0, 0, nvmlFunctionNotFound
	}
	major, minor, ret := d.GetCudaComputeCapability()
	return major, minor, nvmlCode(ret)
}

func (d goDevice) divided() (bool, nvmlCode) {
	if !d.has[nvmlMIGMode] {
		return false, nvmlFunctionNotFound
	}
	current, _, ret := d.GetMigMode()
	return current == nvml.DEVICE_MIG_ENABLE, nvmlCode(ret)
}

func (d goDevice) slots() (int, nvmlCode) {
	if !d.has[nvmlMIGSlots] {
		return 0, nvmlFunctionNotFound
	}
	n, ret := d.GetMaxMigDeviceCount()
	return n, nvmlCode(ret)
}

func (d goDevice) instance(slot int) (nvmlDevice, nvmlCode) {
	if !d.has[nvmlMIGInstance] {
		return nil, nvmlFunctionNotFound
	}
	device, ret := d.GetMigDeviceHandleByIndex(slot)
	return goDevice{device, d.has}, nvmlCode(ret)
}

func (d goDevice) whole() (nvmlDevice, nvmlCode) {
	if !d.has[nvmlMIGWhole] {
		return nil, nvmlFunctionNotFound
	}
	device, ret := d.GetDeviceHandleFromMigDeviceHandle()
	return goDevice{device, d.has}, nvmlCode(ret)
}

func (d goDevice) processes(f nvmlFunction) ([]Process, nvmlCode) {
	if !d.has[f] {
		return nil, nvmlFunctionNotFound
	}
	list := d.GetComputeRunningProcesses
	if f == nvmlGraphicsProcesses {
		list = d.GetGraphicsRunningProcesses
	}
	infos, ret := list()
	processes := make([]Process, len(infos))
	for i, info := range infos {
		processes[i] = processOf(info.Pid, info.UsedGpuMemory)
	}
	return processes, nvmlCode(ret)
}

func (d goDevice) clock(kind uint32) (uint32, nvmlCode) {
	if !d.has[nvmlClock] {
		return 0, nvmlFunctionNotFound
	}
	mhz, ret := d.GetApplicationsClock(nvml.ClockType(kind))
	return mhz, nvmlCode(ret)
}

func (d goDevice) eccMode() (bool, nvmlCode) {
	if !d.has[nvmlECCMode] {
		return false, nvmlFunctionNotFound
	}
	current, _, ret := d.GetEccMode()
	return current == nvml.FEATURE_ENABLED, nvmlCode(ret)
}

func (d goDevice) eccErrors() (uint64, nvmlCode) {
	if !d.has[nvmlECCErrors] {
		return 0, nvmlFunctionNotFound
	}
	n, ret := d.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
	return n, nvmlCode(ret)
}

func (d goDevice) set(f nvmlFunction, values ...uint32) nvmlCode {
	if !d.has[f] {
		return nvmlFunctionNotFound
	}
	ret := nvml.ERROR_FUNCTION_NOT_FOUND
	switch f {
	case nvmlSetPowerLimit:
		ret = d.SetPowerManagementLimit(values[0])
	case nvmlSetComputeMode:
		ret = d.SetComputeMode(nvml.ComputeMode(values[0]))
	case nvmlSetPersistence:
		ret = d.SetPersistenceMode(nvml.EnableState(values[0]))
	case nvmlSetClocks:
		ret = d.SetApplicationsClocks(values[0], values[1])
	}
	return nvmlCode(ret)
}
