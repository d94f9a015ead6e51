package protocol

import "time"

// Version is the protocol version this package speaks.
const Version = 1

// Subprotocol is the WebSocket subprotocol the agent offers.
const Subprotocol = "distributedcompute.v1"

// CloseReplaced is the close code of a connection in whose place another one of the same node has
// come: two agents use one host key.
const CloseReplaced = 4001

// CloseSignedOut is the close code of a connection whose host key has been revoked meanwhile.
const CloseSignedOut = 4401

// The codes of the error body with which a backend refuses a host instead of opening a connection.
const (
	Unauthorized    = "unauthorized"
	KeyRevoked      = "key_revoked"
	KeyExpired      = "key_expired"
	ClockSkew       = "clock_skew"
	HostSuspended   = "host_suspended"   // with HTTP 403: the key is good
	UpgradeRequired = "upgrade_required" // with HTTP 426
)

// Message is the data of one frame, in either direction. Event is its name on the wire.
type Message interface{ Event() string }

// NodeState is the status of a node as the backend sees it.
type NodeState string

// The states of a node.
const (
	Online   NodeState = "online"
	Paused   NodeState = "paused"
	Draining NodeState = "draining"
)

// Register is the first message on every connection.
type Register struct {
	Protocol  int              `json:"protocol"`
	NodeID    *string          `json:"node_id"` // null before the first registration
	Agent     Agent            `json:"agent"`
	Status    NodeState        `json:"status"`
	Accepting bool             `json:"accepting"`
	Features  []string         `json:"features"`
	Hardware  Hardware         `json:"hardware"`
	Network   *Network         `json:"network"` // null: not measured
	Offer     Offer            `json:"offer"`
	Instances []InstanceStatus `json:"instances"` // everything that exists or is not yet known to have ended
}

// Agent says which program is talking.
type Agent struct {
	Version   string    `json:"version"`
	OS        string    `json:"os"`
	Arch      string    `json:"arch"`
	Commit    string    `json:"commit"`
	StartedAt time.Time `json:"started_at"`
}

// Hardware is the full survey of the machine. A nil value was not measurable.
type Hardware struct {
	GPUs          []GPU     `json:"gpus"`
	DriverVersion *string   `json:"driver_version"`
	CUDAVersion   *string   `json:"cuda_version"`
	System        System    `json:"system"`
	Docker        *Docker   `json:"docker"` // null while the engine is unavailable
	Warnings      []Warning `json:"warnings"`
}

// GPU is one graphics card.
type GPU struct {
	Index             int      `json:"index"`
	UUID              string   `json:"uuid"`
	Vendor            string   `json:"vendor"`
	Model             string   `json:"model"`
	VRAMTotalMB       *int64   `json:"vram_total_mb"`
	VRAMAvailableMB   *int64   `json:"vram_available_mb"`
	PCIBusID          *string  `json:"pci_bus_id"`
	PowerLimitW       *float64 `json:"power_limit_w"`
	ComputeCapability *string  `json:"compute_capability"`
	PCIeGeneration    *int     `json:"pcie_generation"`
	PCIeWidth         *int     `json:"pcie_width"`
}

// System is the machine around the GPUs.
type System struct {
	CPUModel        *string `json:"cpu_model"`
	CPUCores        *int    `json:"cpu_cores"`
	CPUThreads      *int    `json:"cpu_threads"`
	RAMTotalMB      *int64  `json:"ram_total_mb"`
	RAMAvailableMB  *int64  `json:"ram_available_mb"`
	DiskTotalGB     *int64  `json:"disk_total_gb"`
	DiskAvailableGB *int64  `json:"disk_available_gb"`
	OS              string  `json:"os"`
	OSVersion       *string `json:"os_version"`
	Kernel          *string `json:"kernel"`
	Virtualized     *bool   `json:"virtualized"`
}

// Docker is the container engine.
type Docker struct {
	Version       string   `json:"version"`
	APIVersion    string   `json:"api_version"`
	Runtimes      []string `json:"runtimes"`
	StorageDriver string   `json:"storage_driver"`
	Rootless      bool     `json:"rootless"`
	CDI           bool     `json:"cdi"`
}

// Warning is something about the machine that a person can mend.
type Warning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
}

// Network is the result of a speed test.
type Network struct {
	DownloadMbps *float64  `json:"download_mbps"`
	UploadMbps   *float64  `json:"upload_mbps"`
	LatencyMS    *float64  `json:"latency_ms"`
	JitterMS     *float64  `json:"jitter_ms"`
	Server       string    `json:"server"`
	MeasuredAt   time.Time `json:"measured_at"`
}

// Offer is what the host rents out.
type Offer struct {
	GPUIndices         []int   `json:"gpu_indices"`
	CPUCores           float64 `json:"cpu_cores"`
	RAMMB              int64   `json:"ram_mb"`
	DiskGB             int64   `json:"disk_gb"`
	MinPricePerGPUHour string  `json:"min_price_per_gpu_hour"` // decimal
	Currency           string  `json:"currency"`
}

// Heartbeat is sent at a steady pace, whatever else happens.
type Heartbeat struct {
	NodeID    *string   `json:"node_id"`
	Status    NodeState `json:"status"`
	Accepting bool      `json:"accepting"`
	Instances int       `json:"instances"`
	Metrics   Metrics   `json:"metrics"`
}

// Metrics are the readings of one moment. Arrays follow the GPUs' order; nil was not measurable.
type Metrics struct {
	CPUTemp         *float64   `json:"cpu_temp"`
	GPUTemp         []*float64 `json:"gpu_temp"`
	GPUUtilization  []*float64 `json:"gpu_utilization"`
	RAMUsageMB      *int64     `json:"ram_usage_mb"`
	DiskUsageGB     *int64     `json:"disk_usage_gb"`
	CPUUtilization  *float64   `json:"cpu_utilization"`
	GPUMemoryUsedMB []*int64   `json:"gpu_memory_used_mb"`
	GPUPowerW       []*float64 `json:"gpu_power_w"`
	GPUFanPercent   []*float64 `json:"gpu_fan_percent"`
	NetRxBytes      *uint64    `json:"net_rx_bytes"` // since boot
	NetTxBytes      *uint64    `json:"net_tx_bytes"`
}

// InstanceStatus tells one change in the life of a rental.
type InstanceStatus struct {
	RentalID    string       `json:"rental_id"`
	Sequence    int64        `json:"sequence"`
	State       string       `json:"state"`
	ContainerID string       `json:"container_id"`
	ImageDigest string       `json:"image_digest"`
	Ports       []PublicPort `json:"ports"`
	Progress    *Progress    `json:"progress"`
	ExitCode    *int         `json:"exit_code"`
	Error       *Error       `json:"error"`
	At          time.Time    `json:"at"`
}

// Final reports whether the rental has ended with this status.
func (s InstanceStatus) Final() bool { return s.State == "stopped" || s.State == "failed" }

// PublicPort is where a port of a rental answers.
type PublicPort struct {
	ContainerPort int    `json:"container_port"`
	Protocol      string `json:"protocol"`
	PublicAddress string `json:"public_address"`
}

// Progress tells how far a pull is.
type Progress struct {
	Phase        string `json:"phase"`
	CurrentBytes int64  `json:"current_bytes"`
	TotalBytes   int64  `json:"total_bytes"`
}

// Error is a code for machines and a sentence for a person.
type Error struct {
	Code    ErrorCode `json:"code"`
	Message string    `json:"message"`
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// ErrorCode is a stable word for what went wrong.
type ErrorCode string

// The error codes.
const (
	InvalidRequest        ErrorCode = "invalid_request"
	UnknownEvent          ErrorCode = "unknown_event"
	ForbiddenOption       ErrorCode = "forbidden_option"
	NotAccepting          ErrorCode = "not_accepting"
	Conflict              ErrorCode = "conflict"
	NotFound              ErrorCode = "not_found"
	InsufficientResources ErrorCode = "insufficient_resources"
	GPUUnavailable        ErrorCode = "gpu_unavailable"
	ImageNotFound         ErrorCode = "image_not_found"
	ImageUnauthorized     ErrorCode = "image_unauthorized"
	ImageTooLarge         ErrorCode = "image_too_large"
	ImageForbidden        ErrorCode = "image_forbidden"
	DiskLimitExceeded     ErrorCode = "disk_limit_exceeded"
	IsolationFailed       ErrorCode = "isolation_failed"
	ImagePullFailed       ErrorCode = "image_pull_failed"
	ContainerFailed       ErrorCode = "container_failed"
	DockerUnavailable     ErrorCode = "docker_unavailable"
	TunnelFailed          ErrorCode = "tunnel_failed"
	PortUnavailable       ErrorCode = "port_unavailable"
	Timeout               ErrorCode = "timeout"
	Expired               ErrorCode = "expired"
	Interrupted           ErrorCode = "interrupted"
	StoppedByHost         ErrorCode = "stopped_by_host"
	Internal              ErrorCode = "internal"
)

// CommandResult answers every message that carried an id, exactly once.
type CommandResult struct {
	OK     bool   `json:"ok"`
	Error  *Error `json:"error"`
	Result any    `json:"result"`
}

// NodeStatus tells that the host paused, resumed, drains, or changed its offer.
type NodeStatus struct {
	Status NodeState  `json:"status"`
	Reason string     `json:"reason"` // user schedule game temperature disk update backend
	Until  *time.Time `json:"until"`
	Offer  Offer      `json:"offer"`
}

// The names of the agent's messages.
func (Register) Event() string       { return "register" }
func (Heartbeat) Event() string      { return "heartbeat" }
func (InstanceStatus) Event() string { return "instance_status" }
func (CommandResult) Event() string  { return "command_result" }
func (NodeStatus) Event() string     { return "node_status" }
