// Package report is what the workload says at /json: the renter's side of the bargain.
package report

// Rental is what the renter got. A limit of 0 is no limit.
type Rental struct {
	Hostname      string   `json:"hostname"`
	UID           int      `json:"uid"`
	Arguments     []string `json:"arguments"`
	GPUsVisible   string   `json:"gpus_visible"` // NVIDIA_VISIBLE_DEVICES as the program sees it
	GPUs          []string `json:"gpus"`         // lines of nvidia-smi -L, none where it is not there
	CPUs          float64  `json:"cpus"`
	MemoryBytes   int64    `json:"memory_bytes"`
	PidsLimit     int64    `json:"pids_limit"`
	ShmBytes      int64    `json:"shm_bytes"`
	DiskBytes     int64    `json:"disk_bytes"` // size of the root file system
	Capabilities  []string `json:"capabilities"`
	NoNewPrivs    bool     `json:"no_new_privs"`
	Seccomp       string   `json:"seccomp"`     // "0" off, "2" a filter
	Environment   []string `json:"environment"` // names only: values may be secrets
	CgroupVersion int      `json:"cgroup_version"`
}
