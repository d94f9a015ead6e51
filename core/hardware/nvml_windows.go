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

// text is a C string's.
func text(buffer []byte) string {
	before, _, _ := bytes.Cut(buffer, []byte{0})
	return string(before)
}
