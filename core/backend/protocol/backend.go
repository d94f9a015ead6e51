package protocol

import (
	"time"

	"github.com/distributedcompute/host-agent/core/secret"
)

// Registered answers a register.
type Registered struct {
	NodeID             string    `json:"node_id"`
	HeartbeatIntervalS int       `json:"heartbeat_interval_s"` // 1–60
	Relay              *Relay    `json:"relay"`
	ServerTime         time.Time `json:"server_time,omitzero"`
	Earnings           *Earnings `json:"earnings"`
}

// Relay says how to reach the tunnel relay.
type Relay struct {
	Address    string        `json:"address"` // host:port
	Token      secret.String `json:"token"`   // printed and marshalled redacted; only Encode carries it
	TLS        bool          `json:"tls"`
	ServerName string        `json:"server_name"`
	CAPEM      string        `json:"ca_pem"`
}

// StartInstance orders a rental. Only the fields below exist; any other is refused by name.
type StartInstance struct {
	RentalID     string            `json:"rental_id"`
	Image        string            `json:"image"`
	Command      []string          `json:"command,omitempty"`
	EnvVars      map[string]string `json:"env_vars,omitempty"`
	GPUIndices   []int             `json:"gpu_indices"`
	RAMLimit     Size              `json:"ram_limit"`
	CPUCores     float64           `json:"cpu_cores"`
	DiskLimit    Size              `json:"disk_limit,omitempty"`
	ShmSize      Size              `json:"shm_size,omitempty"`
	PortMapping  PortMapping       `json:"port_mapping,omitempty"`
	RegistryAuth *RegistryAuth     `json:"registry_auth,omitempty"`
	ExpiresAt    time.Time         `json:"expires_at,omitzero"`
	PricePerHour string            `json:"price_per_hour,omitempty"`
}

// RegistryAuth signs on to a private registry.
type RegistryAuth struct {
	Username string        `json:"username"`
	Password secret.String `json:"password"` // as Relay.Token
}

// StopInstance ends a rental, named by rental_id or by the container_id the agent reported.
type StopInstance struct {
	RentalID    string `json:"rental_id,omitempty"`
	ContainerID string `json:"container_id,omitempty"`
	Graceful    *bool  `json:"graceful,omitempty"` // default true
	GraceS      *int   `json:"grace_s,omitempty"`  // default 30, 0–600
}

// DrainNode asks to take no new rental.
type DrainNode struct {
	Reason        string    `json:"reason,omitempty"`
	StopInstances bool      `json:"stop_instances,omitempty"`
	Deadline      time.Time `json:"deadline,omitzero"`
}

// ResumeNode undoes DrainNode.
type ResumeNode struct{}

// GetLogs asks for the newest output of a rental.
type GetLogs struct {
	RentalID string    `json:"rental_id"`
	Tail     int       `json:"tail,omitempty"` // 1–5000, default 200
	Since    time.Time `json:"since,omitzero"`
}

// Logs is the result of GetLogs.
type Logs struct {
	Text      string `json:"text"`
	Truncated bool   `json:"truncated"`
}

// RunSpeedtest asks for a speed test; its result is a Network.
type RunSpeedtest struct{}

// Earnings is what the host has earned: decimal strings, never floats.
type Earnings struct {
	Currency     string      `json:"currency"`
	RatePerHour  string      `json:"rate_per_hour"`
	Today        string      `json:"today"`
	Month        string      `json:"month"`
	Total        string      `json:"total"`
	Unpaid       string      `json:"unpaid"`
	NextPayoutAt *time.Time  `json:"next_payout_at"`
	History      []DayAmount `json:"history"`
}

// DayAmount is one day's earnings.
type DayAmount struct {
	Day    string `json:"day"` // 2026-11-20
	Amount string `json:"amount"`
}

// Notice is a message for the host.
type Notice struct {
	Title    string `json:"title"`
	Body     string `json:"body"`
	URL      string `json:"url"`
	Severity string `json:"severity"`
}

// SetOfferRequest proposes another offer.
type SetOfferRequest struct {
	Offer Offer `json:"offer"`
}

// StatusReceived says that a final instance_status has been recorded.
type StatusReceived struct {
	RentalID string `json:"rental_id"`
	Sequence int64  `json:"sequence"`
}

// The names of the backend's messages.
func (Registered) Event() string      { return "registered" }
func (StartInstance) Event() string   { return "start_instance" }
func (StopInstance) Event() string    { return "stop_instance" }
func (DrainNode) Event() string       { return "drain_node" }
func (ResumeNode) Event() string      { return "resume_node" }
func (GetLogs) Event() string         { return "get_logs" }
func (RunSpeedtest) Event() string    { return "run_speedtest" }
func (Earnings) Event() string        { return "earnings" }
func (Notice) Event() string          { return "notice" }
func (SetOfferRequest) Event() string { return "set_offer_request" }
func (StatusReceived) Event() string  { return "status_received" }
