package hardware

import (
	"bytes"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
)

// dllNVML is nvml.dll, called without cgo. Not every result is kept by every version: a function
// that is not there gives nvmlFunctionNotFound.
type dllNVML struct{ dll *windows.LazyDLL }

// openNVML starts the library at path, or the one the driver puts into the system's directory; no
// other place is searched, so that no other file of that name is ever run.
func openNVML(path string) (gpuDriver, error) {
	dll := windows.NewLazySystemDLL("nvml.dll")
	if path != "" {
		if !filepath.IsAbs(path) {
			return nil, nvmlLibraryNotFound
		}
		dll = windows.NewLazyDLL(path)
	}
	if dll.Load() != nil {
		return nil, nvmlLibraryNotFound
	}
	for _, function := range nvmlRequired() {
		if dll.NewProc(function).Find() != nil {
			return nil, nvmlFunctionNotFound
		}
	}
	l := &dllNVML{dll}
	if code := l.call("nvmlInit_v2"); code != nvmlSuccess {
		return nil, code
	}
	return newNVMLDriver(l), nil
}

// call passes pointers as uintptr(unsafe.Pointer(&x)), which the directive keeps alive meanwhile.
//
//go:uintptrescapes
func (l *dllNVML) call(function nvmlFunction, arguments ...uintptr) nvmlCode {
	proc := l.dll.NewProc(string(function))
	if proc.Find() != nil {
		return nvmlFunctionNotFound
	}
	code, _, _ := proc.Call(arguments...)
	return nvmlCode(code)
}

func (l *dllNVML) shutdown() { l.call("nvmlShutdown") }

func (l *dllNVML) driverVersion() (string, nvmlCode) {
	var buffer [96]byte
	code := l.call(nvmlDriverVersion, uintptr(unsafe.Pointer(&buffer)), uintptr(len(buffer)))
	return text(buffer[:]), code
}

func (l *dllNVML) cudaVersion() (int, nvmlCode) {
	var version int32
	code := l.call(nvmlCUDAVersion, uintptr(unsafe.Pointer(&version)))
	return int(version), code
}

func (l *dllNVML) count() (int, nvmlCode) {
	var n uint32
	code := l.call("nvmlDeviceGetCount_v2", uintptr(unsafe.Pointer(&n)))
	return int(n), code
}

func (l *dllNVML) byIndex(i int) (nvmlDevice, nvmlCode) {
	d := dllDevice{library: l}
	code := l.call("nvmlDeviceGetHandleByIndex_v2", uintptr(i), uintptr(unsafe.Pointer(&d.handle)))
	return d, code
}

func (l *dllNVML) byUUID(uuid string) (nvmlDevice, nvmlCode) {
	name, err := windows.BytePtrFromString(uuid)
	if err != nil {
		return nil, nvmlInvalidArgument
	}
	d := dllDevice{library: l}
	code := l.call("nvmlDeviceGetHandleByUUID", uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&d.handle)))
	return d, code
}

type dllDevice struct {
	library *dllNVML
	handle  uintptr // the library's own pointer
}

func (d dllDevice) text(f nvmlFunction) (string, nvmlCode) {
	var buffer [96]byte
	code := d.library.call(f, d.handle, uintptr(unsafe.Pointer(&buffer)), uintptr(len(buffer)))
	return text(buffer[:]), code
}

func (d dllDevice) number(f nvmlFunction) (n uint32, code nvmlCode) {
	if f == nvmlTemperature {
		const onGPU = 0
		code = d.library.call(f, d.handle, onGPU, uintptr(unsafe.Pointer(&n)))
	} else {
		code = d.library.call(f, d.handle, uintptr(unsafe.Pointer(&n)))
	}
	return n, code
}

func (d dllDevice) memory() (m nvmlMemory, code nvmlCode) {
	code = d.library.call(nvmlMemoryInfo, d.handle, uintptr(unsafe.Pointer(&m)))
	return m, code
}

func (d dllDevice) utilization() (uint32, nvmlCode) {
	var u struct{ gpu, memory uint32 }
	code := d.library.call(nvmlUtilization, d.handle, uintptr(unsafe.Pointer(&u)))
	return u.gpu, code
}

func (d dllDevice) pciBusID() (string, nvmlCode) {
	var info struct { // nvmlPciInfo_t
		legacy                                   [16]byte
		domain, bus, device, deviceID, subsystem uint32
		id                                       [32]byte
	}
	code := d.library.call(nvmlPCIInfo, d.handle, uintptr(unsafe.Pointer(&info)))
	return text(info.id[:]), code
}

func (d dllDevice) computeCapability() (int, int, nvmlCode) {
	var major, minor int32
	code := d.library.call(nvmlComputeCapability, d.handle,
		uintptr(unsafe.Pointer(&major)), uintptr(unsafe.Pointer(&minor)))
	return int(major), int(minor), code
}

func (d dllDevice) divided() (bool, nvmlCode) {
	var current, pending uint32
	code := d.library.call(nvmlMIGMode, d.handle, uintptr(unsafe.Pointer(&current)), uintptr(unsafe.Pointer(&pending)))
	return current == 1, code
}

func (d dllDevice) slots() (int, nvmlCode) {
	var n uint32
	code := d.library.call(nvmlMIGSlots, d.handle, uintptr(unsafe.Pointer(&n)))
	return int(n), code
}

func (d dllDevice) instance(slot int) (nvmlDevice, nvmlCode) {
	part := dllDevice{library: d.library}
	code := d.library.call(nvmlMIGInstance, d.handle, uintptr(slot), uintptr(unsafe.Pointer(&part.handle)))
	return part, code
}

func (d dllDevice) whole() (nvmlDevice, nvmlCode) {
	whole := dllDevice{library: d.library}
	code := d.library.call(nvmlMIGWhole, d.handle, uintptr(unsafe.Pointer(&whole.handle)))
	return whole, code
}

func (d dllDevice) processes(f nvmlFunction) ([]Process, nvmlCode) {
	const mostProcesses = 4096
	type info struct { // nvmlProcessInfo_t
		pid               uint32
		memory            uint64
		instance, compute uint32
	}
	for n := uint32(64); n <= mostProcesses; n *= 2 {
		infos, count := make([]info, n), n
		code := d.library.call(f, d.handle, uintptr(unsafe.Pointer(&count)), uintptr(unsafe.Pointer(&infos[0])))
		if code == nvmlTooSmall {
			continue
		}
		processes := []Process{}
		for _, info := range infos[:min(count, n)] {
			processes = append(processes, processOf(info.pid, info.memory))
		}
		return processes, code
	}
	return nil, nvmlTooSmall
}

func (d dllDevice) clock(kind uint32) (mhz uint32, code nvmlCode) {
	code = d.library.call(nvmlClock, d.handle, uintptr(kind), uintptr(unsafe.Pointer(&mhz)))
	return mhz, code
}

func (d dllDevice) eccMode() (bool, nvmlCode) {
	var current, pending uint32
	code := d.library.call(nvmlECCMode, d.handle, uintptr(unsafe.Pointer(&current)), uintptr(unsafe.Pointer(&pending)))
	return current == 1, code
}

func (d dllDevice) eccErrors() (n uint64, code nvmlCode) {
	const uncorrected, sinceLoaded = 1, 0
	code = d.library.call(nvmlECCErrors, d.handle, uncorrected, sinceLoaded, uintptr(unsafe.Pointer(&n)))
	return n, code
}

func (d dllDevice) set(f nvmlFunction, values ...uint32) nvmlCode {
	arguments := []uintptr{d.handle}
	for _, value := range values {
		arguments = append(arguments, uintptr(value))
	}
	return d.library.call(f, arguments...)
}

// text is a C string's.
func text(buffer []byte) string {
	before, _, _ := bytes.Cut(buffer, []byte{0})
	return string(before)
}
