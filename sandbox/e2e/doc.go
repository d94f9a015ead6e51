// Package e2e rents this machine from end to end: the built program, a real Docker Engine, the
// stock frp relay, a real registry, and a backend that speaks the contract. It holds tests alone.
//
// What a machine without graphics cards cannot have is replaced at the outermost seam: the NVIDIA
// runtime hook by sandbox/engine's stand-in, the NVML library by the shim that core/hardware tests with.
package e2e
