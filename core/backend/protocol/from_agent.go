package protocol

import "encoding/json"

// maxInteger is the largest whole number that every JSON reader keeps exact.
const maxInteger = 1<<53 - 1

// agentMessage finds who reads an event of the agent; nil for one that is not known.
func agentMessage(event string) reader {
	switch event {
	case "register":
		return readRegister
	case "heartbeat":
		return readHeartbeat
	case "instance_status":
		return func(o *object) Message { status := readInstanceStatus(o); return &status }
	case "command_result":
		return readCommandResult
	case "node_status":
		return readNodeStatus
	}
	return nil
}

func readRegister(o *object) Message {
	return &Register{
		Protocol:  need(o, "protocol", whole(1, 1<<20)),
		NodeID:    getPtr(o, "node_id", nodeID()),
		Agent:     need(o, "agent", nested(readAgent)),
		Status:    need(o, "status", nodeState()),
		Accepting: get(o, "accepting", boolean()),
		Features:  get(o, "features", list(64, label(64))),
		Hardware:  need(o, "hardware", nested(readHardware)),
		Network:   getPtr(o, "network", nested(readNetwork)),
		Offer:     get(o, "offer", nested(readOffer)),
		Instances: get(o, "instances", list(1000, nested(readInstanceStatus))),
	}
}

func nodeState() shape[NodeState] { return oneOf(Online, Paused, Draining) }

func readAgent(o *object) Agent {
	return Agent{
		Version:   need(o, "version", label(64)),
		OS:        get(o, "os", label(64)),
		Arch:      get(o, "arch", label(64)),
		Commit:    get(o, "commit", label(64)),
		StartedAt: get(o, "started_at", instant()),
	}
}

func readHardware(o *object) Hardware {
	return Hardware{
		GPUs:          get(o, "gpus", list(64, nested(readGPU))),
		DriverVersion: getPtr(o, "driver_version", label(64)),
		CUDAVersion:   getPtr(o, "cuda_version", label(64)),
		System:        get(o, "system", nested(readSystem)),
		Docker:        getPtr(o, "docker", nested(readDocker)),
		Warnings:      get(o, "warnings", list(64, nested(readWarning))),
	}
}

func readGPU(o *object) GPU {
	return GPU{
		Index:             need(o, "index", whole(0, 63)),
		UUID:              get(o, "uuid", label(128)),
		Vendor:            get(o, "vendor", label(64)),
		Model:             get(o, "model", label(256)),
		VRAMTotalMB:       getPtr(o, "vram_total_mb", magnitude()),
		VRAMAvailableMB:   getPtr(o, "vram_available_mb", magnitude()),
		PCIBusID:          getPtr(o, "pci_bus_id", label(64)),
		PowerLimitW:       getPtr(o, "power_limit_w", number(0, 1e6)),
		ComputeCapability: getPtr(o, "compute_capability", label(16)),
		PCIeGeneration:    getPtr(o, "pcie_generation", whole(0, 64)),
		PCIeWidth:         getPtr(o, "pcie_width", whole(0, 64)),
	}
}

func magnitude() shape[int64] { return whole[int64](0, maxInteger) }

func readSystem(o *object) System {
	return System{
		CPUModel:        getPtr(o, "cpu_model", label(256)),
		CPUCores:        getPtr(o, "cpu_cores", whole(0, 1<<16)),
		CPUThreads:      getPtr(o, "cpu_threads", whole(0, 1<<16)),
		RAMTotalMB:      getPtr(o, "ram_total_mb", magnitude()),
		RAMAvailableMB:  getPtr(o, "ram_available_mb", magnitude()),
		DiskTotalGB:     getPtr(o, "disk_total_gb", magnitude()),
		DiskAvailableGB: getPtr(o, "disk_available_gb", magnitude()),
		OS:              get(o, "os", label(64)),
		OSVersion:       getPtr(o, "os_version", label(128)),
		Kernel:          getPtr(o, "kernel", label(256)),
		Virtualized:     getPtr(o, "virtualized", boolean()),
	}
}

func readDocker(o *object) Docker {
	return Docker{
		Version:       get(o, "version", label(64)),
		APIVersion:    get(o, "api_version", label(64)),
		Runtimes:      get(o, "runtimes", list(64, label(128))),
		StorageDriver: get(o, "storage_driver", label(64)),
		Rootless:      get(o, "rootless", boolean()),
		CDI:           get(o, "cdi", boolean()),
	}
}

func readWarning(o *object) Warning {
	return Warning{
		Code:    need(o, "code", label(64)),
		Message: get(o, "message", prose(4000)),
		Fix:     get(o, "fix", prose(4000)),
	}
}

func readNetwork(o *object) Network {
	return Network{
		DownloadMbps: getPtr(o, "download_mbps", number(0, 1e9)),
		UploadMbps:   getPtr(o, "upload_mbps", number(0, 1e9)),
		LatencyMS:    getPtr(o, "latency_ms", number(0, 1e9)),
		JitterMS:     getPtr(o, "jitter_ms", number(0, 1e9)),
		Server:       get(o, "server", label(512)),
		MeasuredAt:   get(o, "measured_at", instant()),
	}
}

func readHeartbeat(o *object) Message {
	return &Heartbeat{
		NodeID:    getPtr(o, "node_id", nodeID()),
		Status:    need(o, "status", nodeState()),
		Accepting: get(o, "accepting", boolean()),
		Instances: get(o, "instances", whole(0, 1<<20)),
		Metrics:   need(o, "metrics", nested(readMetrics)),
	}
}

func readMetrics(o *object) Metrics {
	reading, percent := number(-1e6, 1e6), number(0, 1e4)
	return Metrics{
		CPUTemp:         getPtr(o, "cpu_temp", reading),
		GPUTemp:         get(o, "gpu_temp", list(64, nullable(reading))),
		GPUUtilization:  get(o, "gpu_utilization", list(64, nullable(percent))),
		RAMUsageMB:      getPtr(o, "ram_usage_mb", magnitude()),
		DiskUsageGB:     getPtr(o, "disk_usage_gb", magnitude()),
		CPUUtilization:  getPtr(o, "cpu_utilization", percent),
		GPUMemoryUsedMB: get(o, "gpu_memory_used_mb", list(64, nullable(magnitude()))),
		GPUPowerW:       get(o, "gpu_power_w", list(64, nullable(reading))),
		GPUFanPercent:   get(o, "gpu_fan_percent", list(64, nullable(percent))),
		NetRxBytes:      getPtr(o, "net_rx_bytes", counter()),
		NetTxBytes:      getPtr(o, "net_tx_bytes", counter()),
	}
}

func readInstanceStatus(o *object) InstanceStatus {
	return InstanceStatus{
		RentalID: need(o, "rental_id", rentalID()),
		Sequence: need(o, "sequence", magnitude()),
		State: need(o, "state", oneOf("accepted", "pulling", "creating", "starting", "tunnelling",
			"running", "stopping", "stopped", "failed")),
		ContainerID: get(o, "container_id", label(128)),
		ImageDigest: get(o, "image_digest", label(256)),
		Ports:       get(o, "ports", list(maxPorts, nested(readPublicPort))),
		Progress:    getPtr(o, "progress", nested(readProgress)),
		ExitCode:    getPtr(o, "exit_code", whole(-1<<31, 1<<31-1)),
		Error:       getPtr(o, "error", nested(readError)),
		At:          get(o, "at", instant()),
	}
}

func readPublicPort(o *object) PublicPort {
	return PublicPort{
		ContainerPort: need(o, "container_port", whole(1, 65535)),
		Protocol:      need(o, "protocol", oneOf("tcp", "udp")),
		PublicAddress: need(o, "public_address", hostPort()),
	}
}

func readProgress(o *object) Progress {
	return Progress{
		Phase:        get(o, "phase", label(64)),
		CurrentBytes: get(o, "current_bytes", magnitude()),
		TotalBytes:   get(o, "total_bytes", magnitude()),
	}
}

func readError(o *object) Error {
	return Error{
		Code:    ErrorCode(need(o, "code", label(64))),
		Message: get(o, "message", prose(8000)),
	}
}

func readCommandResult(o *object) Message {
	m := &CommandResult{
		OK:    need(o, "ok", boolean()),
		Error: getPtr(o, "error", nested(readError)),
	}
	if raw, ok := o.take("result"); ok {
		m.Result = json.RawMessage(raw)
	}
	return m
}

func readNodeStatus(o *object) Message {
	return &NodeStatus{
		Status: need(o, "status", nodeState()),
		Reason: get(o, "reason", label(64)),
		Until:  getPtr(o, "until", instant()),
		Offer:  get(o, "offer", nested(readOffer)),
	}
}
