package rental

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"github.com/distributedcompute/host-agent/core/secret"
)

// ID names a rental. It becomes a container name, a label and a file name, so only [ParseID] makes one.
type ID string

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// ParseID checks that s is 1 to 63 letters, digits, '_', '.' or '-', starting with a letter or digit.
func ParseID(s string) (ID, error) {
	if !idPattern.MatchString(s) {
		return "", fmt.Errorf("rental id %.80q: takes 1 to 63 letters, digits, '_', '.' or '-', starting with a letter or digit", s)
	}
	return ID(s), nil
}

// Protocol is the transport of a port.
type Protocol string

// The transports a rental can publish.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Port maps a port of the container to a port on the relay's public address.
type Port struct {
	Container uint16   `json:"container"` // 1–65535
	Protocol  Protocol `json:"protocol"`
	Public    uint16   `json:"public"` // 1–65535
}

// String gives the form "22/tcp".
func (p Port) String() string { return strconv.Itoa(int(p.Container)) + "/" + string(p.Protocol) }

// RegistryAuth signs on to the registry of a private image. It lives in memory only: it is never
// written to the ledger, so a pull interrupted by an agent restart needs a new order.
type RegistryAuth struct {
	Username string
	Password secret.String
}

// Spec is what was rented, checked against the host's limits by whoever made it. The zero value of
// an optional field means "not asked for".
type Spec struct {
	ID           ID                `json:"id"`
	Image        string            `json:"image"`             // normalised reference, tag or digest
	Command      []string          `json:"command,omitempty"` // nil: the image's own
	Env          map[string]string `json:"env,omitempty"`
	GPUs         []GPU             `json:"gpus,omitempty"` // none: no GPU at all
	MemoryBytes  int64             `json:"memory_bytes"`
	CPUs         float64           `json:"cpus"`
	PidsLimit    int64             `json:"pids_limit"`
	DiskBytes    int64             `json:"disk_bytes,omitempty"`
	ShmBytes     int64             `json:"shm_bytes,omitempty"`
	Ports        []Port            `json:"ports,omitempty"` // sorted by container port, then protocol
	ExpiresAt    time.Time         `json:"expires_at,omitzero"`
	PricePerHour string            `json:"price_per_hour,omitempty"` // decimal, shown to the host
	Registry     *RegistryAuth     `json:"-"`
}

// Route leads one public port to the address where the container's port is reached on this machine.
type Route struct {
	Port   Port
	Target netip.AddrPort
}

// Address is where a port of a rental answers from outside, "relay.example.com:10022".
type Address struct {
	Port   Port   `json:"port"`
	Public string `json:"public"`
}
