package market

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// Rent is what a renter asks for. The zero value of a field has a usable meaning.
type Rent struct {
	ID        string            `json:"id,omitempty"`    // "": a fresh one
	Node      string            `json:"node,omitempty"`  // "": the first that is there
	Image     string            `json:"image,omitempty"` // "": the workload image
	Command   []string          `json:"command,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	GPUs      []int             `json:"gpus,omitempty"`
	CPUs      float64           `json:"cpus,omitempty"`      // 0: 0.5
	RAMBytes  int64             `json:"ram_bytes,omitempty"` // 0: 256 MiB
	ShmBytes  int64             `json:"shm_bytes,omitempty"`
	DiskBytes int64             `json:"disk_bytes,omitempty"` // 0: 256 MiB
	Ports     []string          `json:"ports,omitempty"`      // "8080", "53/udp"
	For       time.Duration     `json:"for,omitempty"`        // 0: until it is stopped
}

// Defaults of a rental: little enough for any machine.
const (
	DefaultCPUs     = 0.5
	DefaultRAMBytes = 256 << 20
	diskBytes       = 256 << 20
)

// Rent orders a rental and returns the order as it was sent. A refusal of the node is a *protocol.Error.
func (m *Market) Rent(ctx context.Context, r Rent) (protocol.StartInstance, error) {
	node, err := m.Node(ctx, r.Node)
	if err != nil {
		return protocol.StartInstance{}, err
	}
	order, err := m.order(r)
	if err != nil {
		return protocol.StartInstance{}, err
	}
	answer, err := m.Backend.StartInstance(ctx, node, order)
	if err == nil && answer.Error != nil {
		err = answer.Error
	}
	return order, err
}

// Node is the id of a node that can be talked to: the one that is named, else the first that is there.
func (m *Market) Node(ctx context.Context, named string) (string, error) {
	if named != "" {
		return named, nil
	}
	node, err := m.Backend.WaitNode(ctx)
	return node.ID, err
}

func (m *Market) order(r Rent) (protocol.StartInstance, error) {
	order := protocol.StartInstance{
		RentalID:   r.ID,
		Image:      r.Image,
		Command:    r.Command,
		EnvVars:    r.Env,
		GPUIndices: r.GPUs,
		RAMLimit:   protocol.Size(r.RAMBytes),
		CPUCores:   r.CPUs,
		DiskLimit:  protocol.Size(cmp.Or(r.DiskBytes, diskBytes)),
		ShmSize:    protocol.Size(r.ShmBytes),
	}
	if order.RentalID == "" {
		order.RentalID = "r-" + strings.ToLower(rand.Text()[:8])
	}
	if order.Image == "" {
		order.Image = m.Image
	}
	if order.CPUCores == 0 {
		order.CPUCores = DefaultCPUs
	}
	if order.RAMLimit == 0 {
		order.RAMLimit = DefaultRAMBytes
	}
	if r.For > 0 {
		order.ExpiresAt = time.Now().UTC().Add(r.For)
	}
	var ports []protocol.PortKey
	for _, text := range r.Ports {
		var port protocol.PortKey
		if err := port.UnmarshalText([]byte(text)); err != nil {
			return order, fmt.Errorf("port %q: %w", text, err)
		}
		ports = append(ports, port)
	}
	var err error
	order.PortMapping, err = m.Backend.PublicPorts(ports...)
	return order, err
}
