package hardware

import "time"

// Survey is what this machine has, as seen at one moment. A nil value could not be measured.
type Survey struct {
	GPUs          []GPU     `json:"gpus"`
	DriverVersion *string   `json:"driver_version"`
	CUDAVersion   *string   `json:"cuda_version"` // the newest the driver supports, "12.8"
	System        System    `json:"system"`
	Gaps          []Gap     `json:"gaps"`
	At            time.Time `json:"at"`
}

// GPU is one unit that can be used by itself: a graphics card, or an instance of one that its owner has
// divided. Its place in the list is its place in every array of a Sample. Index is that by which an owner
// names it: of a whole NVIDIA GPU the driver's, see [instanceIndex] for the others. Those of GPUs the driver
// has lost are left out, and keep their numbers.
type GPU struct {
	Index             int      `json:"index"`
	UUID              string   `json:"uuid"`
	Vendor            string   `json:"vendor"` // "nvidia", "amd"
	Model             string   `json:"model"`
	VRAMTotalMB       *int64   `json:"vram_total_mb"`
	VRAMAvailableMB   *int64   `json:"vram_available_mb"`
	PCIBusID          *string  `json:"pci_bus_id"`
	PowerLimitW       *float64 `json:"power_limit_w"`
	ComputeCapability *string  `json:"compute_capability"`
	PCIeGeneration    *int     `json:"pcie_generation"`
	PCIeWidth         *int     `json:"pcie_width"`
	Parent            string   `json:"parent,omitempty"` // of an instance: the UUID of the GPU it is part of
	Render            string   `json:"render,omitempty"` // of an AMD GPU: its device below /dev/dri
}

// System is the machine around the GPUs. Disk is that of the path the survey was asked about.
type System struct {
	CPUModel        *string `json:"cpu_model"`
	CPUCores        *int    `json:"cpu_cores"`
	CPUThreads      *int    `json:"cpu_threads"`
	RAMTotalMB      *int64  `json:"ram_total_mb"`
	RAMAvailableMB  *int64  `json:"ram_available_mb"`
	DiskTotalGB     *int64  `json:"disk_total_gb"`
	DiskAvailableGB *int64  `json:"disk_available_gb"`
	DiskPath        string  `json:"disk_path"`
	OS              string  `json:"os"`
	OSVersion       *string `json:"os_version"`
	Kernel          *string `json:"kernel"`
	Virtualized     *bool   `json:"virtualized"`
}

// Gap is something that could not be measured or is missing, and what a person can do about it.
type Gap struct {
	Code    string `json:"code"` // "no_gpu", "nvml_missing", "no_cpu_sensor", …
	Message string `json:"message"`
	Fix     string `json:"fix"`
}

// Sample is one reading of everything that moves. Arrays follow the survey's GPUs. Nil was not
// measurable. A Sample is never changed after it has been handed out.
type Sample struct {
	CPUTempC        *float64   `json:"cpu_temp_c"`
	CPUUtilization  *float64   `json:"cpu_utilization"` // percent of all threads
	RAMUsageMB      *int64     `json:"ram_usage_mb"`
	DiskUsageGB     *int64     `json:"disk_usage_gb"`
	NetRxBytes      *uint64    `json:"net_rx_bytes"` // physical interfaces, since boot
	NetTxBytes      *uint64    `json:"net_tx_bytes"`
	GPUTempC        []*float64 `json:"gpu_temp_c"`
	GPUUtilization  []*float64 `json:"gpu_utilization"`
	GPUMemoryUsedMB []*int64   `json:"gpu_memory_used_mb"`
	GPUPowerW       []*float64 `json:"gpu_power_w"`
	GPUFanPercent   []*float64 `json:"gpu_fan_percent"`
	At              time.Time  `json:"at"`
}

// Network is the result of a speed test.
type Network struct {
	DownloadMbps *float64  `json:"download_mbps"` // 10^6 bit/s
	UploadMbps   *float64  `json:"upload_mbps"`
	LatencyMS    *float64  `json:"latency_ms"`
	JitterMS     *float64  `json:"jitter_ms"`
	Server       string    `json:"server"`
	MeasuredAt   time.Time `json:"measured_at"`
}
