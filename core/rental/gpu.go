package rental

import (
	"fmt"
	"regexp"
)

// Vendor says by which way a GPU gets into a container.
type Vendor string

// The vendors whose GPUs can be rented.
const (
	NVIDIA Vendor = "" // by a request for its UUID
	AMD    Vendor = "amd"
)

// GPU is one unit that a rental gets: a whole GPU, or an instance of one that its owner has divided.
// Engines are asked by UUID; the index is what people say.
type GPU struct {
	Index  int    `json:"index"`
	UUID   string `json:"uuid"`
	Vendor Vendor `json:"vendor,omitempty"`
	Parent string `json:"parent,omitempty"` // of an instance: the UUID of the GPU it is part of
	Render string `json:"render,omitempty"` // of an AMD GPU: the name of its device below /dev/dri, "renderD128"
}

// ComputeNode is the one device by which all AMD GPUs are used. It opens those only whose own device a
// container has as well.
const ComputeNode = "/dev/kfd"

var renderPattern = regexp.MustCompile(`^renderD[1-9][0-9]{2,5}$`)

// DeviceNodes are the devices of the host that a container needs to use this GPU and no other: none for one
// that engines are asked for by UUID. A Render that is no such name is an error.
func (g GPU) DeviceNodes() ([]string, error) {
	switch {
	case g.Vendor == NVIDIA:
		return nil, nil
	case g.Vendor != AMD:
		return nil, fmt.Errorf("GPU %d: there is no way to hand out a GPU of %.40q", g.Index, string(g.Vendor))
	case !renderPattern.MatchString(g.Render):
		return nil, fmt.Errorf("GPU %d: %.40q names no render node", g.Index, g.Render)
	}
	return []string{ComputeNode, "/dev/dri/" + g.Render}, nil
}

// Overlaps reports whether the two are, or share, one piece of hardware: the same GPU, the same instance, or
// a GPU and an instance of it. Two instances of one GPU are apart.
func (g GPU) Overlaps(other GPU) bool {
	return g.UUID == other.UUID || g.Parent == other.UUID || other.Parent == g.UUID
}
