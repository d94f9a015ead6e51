package hardware

import (
	"fmt"
	"strings"
)

func cpuGap() Gap {
	return Gap{
		Code:    "cpu_unknown",
		Message: "The system does not tell the processor's model and its number of cores.",
		Fix:     "Nothing is broken; start the agent on the machine itself rather than in a container or jail that hides the processor.",
	}
}

func ramGap() Gap {
	return Gap{
		Code:    "ram_unknown",
		Message: "The size of the memory could not be read.",
		Fix:     "Start the agent where it may read the system's memory figures (on Linux: /proc must be mounted).",
	}
}

func diskGap(path string) Gap {
	return Gap{
		Code:    "disk_unknown",
		Message: fmt.Sprintf("The free space of the disk that holds %s could not be read.", path),
		Fix:     "Check that the disk is mounted and that the agent's user may enter this directory.",
	}
}

// vmDiskGap is for a path that is not on this machine but in the container engine's virtual machine.
func vmDiskGap(path string) Gap {
	return Gap{
		Code:    "disk_unknown",
		Message: fmt.Sprintf("The container engine keeps its data in a virtual machine, at %s, where the free space cannot be read.", path),
		Fix:     "Set offer.disk to how much of the virtual machine's disk may be rented.",
	}
}

func osGap() Gap {
	return Gap{
		Code:    "os_unknown",
		Message: "The system does not tell its version, its kernel's version or whether it is a virtual machine.",
		Fix:     "Nothing to do for rentals; on Linux, install the package that provides /etc/os-release.",
	}
}

func sensorGap() Gap {
	return Gap{
		Code:    "no_cpu_sensor",
		Message: "The processor's temperature cannot be read on this machine.",
		Fix:     "On Linux load the sensor driver (sudo modprobe coretemp for Intel, k10temp for AMD); virtual machines and Windows have none to read.",
	}
}

func noGPUGap() Gap {
	return Gap{
		Code:    "no_gpu",
		Message: "No NVIDIA GPU with a working driver was found.",
		Fix:     "If this machine has one, install NVIDIA's driver from https://www.nvidia.com/drivers and restart; without one it can offer CPU rentals only.",
	}
}

func nvmlMissingGap() Gap {
	return Gap{
		Code:    "nvml_missing",
		Message: "An NVIDIA GPU is in this machine, but NVIDIA's driver is not installed.",
		Fix:     "Install the driver (Ubuntu: sudo ubuntu-drivers install; Debian: sudo apt install nvidia-driver), then restart the machine.",
	}
}

// nvmlPathGap is for a library named in Options.
func nvmlPathGap(path string) Gap {
	return Gap{
		Code:    "nvml_missing",
		Message: fmt.Sprintf("%s is not NVIDIA's management library, is not there, or cannot be loaded.", path),
		Fix:     "Name the library that NVIDIA's driver installed, or none to have it found.",
	}
}

// nvmlGap explains why the library does not start.
func nvmlGap(code nvmlCode) Gap {
	switch code {
	case nvmlDriverNotLoaded:
		return Gap{
			Code:    "driver_not_loaded",
			Message: "NVIDIA's driver is installed but not loaded.",
			Fix:     "Restart the machine, or on Linux run sudo modprobe nvidia; if that fails, Secure Boot may refuse the module: enrol its key or turn Secure Boot off.",
		}
	case nvmlVersionMismatch:
		return Gap{
			Code:    "driver_mismatch",
			Message: "NVIDIA's driver has been updated, but the old one is still running.",
			Fix:     "Restart the machine.",
		}
	case nvmlNoPermission:
		return Gap{
			Code:    "gpu_no_permission",
			Message: "The agent's user may not use the GPUs.",
			Fix:     "Give the user access to /dev/nvidia* (often: sudo usermod -aG video USER), then sign in again.",
		}
	case nvmlFunctionNotFound:
		return Gap{
			Code:    "driver_too_old",
			Message: "NVIDIA's driver is too old for this agent.",
			Fix:     "Install a current driver from https://www.nvidia.com/drivers and restart.",
		}
	default:
		return Gap{
			Code:    "driver_failed",
			Message: fmt.Sprintf("NVIDIA's driver does not start (%v).", code),
			Fix:     "Run nvidia-smi to see whether it works there; restart the machine, then reinstall the driver.",
		}
	}
}

func driverHangsGap() Gap {
	return Gap{
		Code:    "driver_hangs",
		Message: "NVIDIA's driver does not answer.",
		Fix:     "Look for Xid errors with sudo dmesg | grep -i xid, then restart the machine.",
	}
}

func smiGap() Gap {
	return Gap{
		Code:    "driver_failed",
		Message: "NVIDIA's driver does not start: nvidia-smi ends with an error or says nothing.",
		Fix:     "Run nvidia-smi to see what it says; restart the machine, then reinstall the driver.",
	}
}

// gpuLostGap is about a GPU the driver counts but cannot reach; which names it.
func gpuLostGap(which string) Gap {
	return Gap{
		Code:    "gpu_lost",
		Message: fmt.Sprintf("GPU %s does not answer: it has fallen off the bus.", which),
		Fix:     "Restart the machine; if it happens again, check the card's power cables and slot, and sudo dmesg | grep -i xid.",
	}
}

// gpuPartGap is about a GPU that works but does not tell everything.
func gpuPartGap(gpu GPU, missing []string) Gap {
	return Gap{
		Code:    "gpu_incomplete",
		Message: fmt.Sprintf("GPU %d (%s) does not tell its %s.", gpu.Index, gpu.Model, strings.Join(missing, ", ")),
		Fix:     "Nothing is broken; a newer NVIDIA driver may tell more.",
	}
}

// gpuEmptyGap is about a GPU in MIG mode that has no instances.
func gpuEmptyGap(gpu GPU) Gap {
	return Gap{
		Code:    "gpu_empty",
		Message: fmt.Sprintf("GPU %d (%s) is to be divided (MIG mode), and has no instances to rent out.", gpu.Index, gpu.Model),
		Fix:     "Create instances with sudo nvidia-smi mig -cgi … -C, or turn the mode off: sudo nvidia-smi -mig 0.",
	}
}

// gpuUnnumberedGap is about a GPU, or an instance of one, for which no number is left.
func gpuUnnumberedGap(gpu GPU) Gap {
	return Gap{
		Code:    "gpu_unnumbered",
		Message: fmt.Sprintf("%s %s is not used: a machine's GPUs and their instances have numbers from 0 to %d, and none is left for it.", gpu.Model, gpu.UUID, mostIndex),
		Fix:     "Divide fewer of this machine's GPUs.",
	}
}

func versionsGap() Gap {
	return Gap{
		Code:    "driver_version_unknown",
		Message: "NVIDIA's driver does not tell its own or the CUDA version.",
		Fix:     "Install a current driver from https://www.nvidia.com/drivers and restart.",
	}
}
