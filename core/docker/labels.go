package docker

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/distributedcompute/host-agent/core/rental"
)

// Labels of what the agent makes. An image can carry labels of these names, too; those that the agent
// sets win, and the owner's cannot be forged.
const (
	labelPrefix  = "distributedcompute."
	labelManaged = "distributedcompute.managed" // "1"
	labelRental  = "distributedcompute.rental"  // the rental's id
	labelOwner   = "distributedcompute.owner"   // keyed hash of the rental's id or the network's name
	labelSpec    = "distributedcompute.spec"    // hash of what was rented
	labelPorts   = "distributedcompute.ports"   // the rented ports as JSON
)

// containerName is fixed by the rental, so that creating twice cannot give two.
func containerName(id rental.ID) string { return "dc-" + string(id) }

// seal makes and checks the owner's label.
type seal struct{ key []byte }

func newSeal(key []byte) seal { return seal{key: slices.Clone(key)} }

// of is the owner's label for a thing of a kind.
func (s seal) of(kind, name string) string {
	mac := hmac.New(sha256.New, s.key)
	fmt.Fprintf(mac, "%s\x00%s", kind, name)
	return hex.EncodeToString(mac.Sum(nil))
}

// holds reports whether label is the owner's for that thing.
func (s seal) holds(label, kind, name string) bool {
	return hmac.Equal([]byte(label), []byte(s.of(kind, name)))
}

// The kinds of things that are sealed.
const (
	kindContainer = "container"
	kindNetwork   = "network"
)

// rentalOf is the rental that a container was made for by this host's agent.
func (s seal) rentalOf(labels map[string]string) (rental.ID, bool) {
	id, err := rental.ParseID(labels[labelRental])
	if err != nil || !s.holds(labels[labelOwner], kindContainer, string(id)) {
		return "", false
	}
	return id, true
}

// made reports whether these are the labels of the container made for a rental.
func (s seal) made(labels map[string]string, id rental.ID) bool {
	owner, ok := s.rentalOf(labels)
	return ok && owner == id
}

// fingerprint is the hash of what shapes a container. Terms that may change while it runs do not count.
func fingerprint(spec rental.Spec, image rental.Image) (string, error) {
	shape, err := json.Marshal(struct {
		Image   string
		Command []string
		Env     map[string]string
		GPUs    []rental.GPU
		Memory  int64
		CPUs    float64
		Pids    int64
		Disk    int64
		Shm     int64
		Ports   []rental.Port
	}{
		image.ID, spec.Command, spec.Env, spec.GPUs, spec.MemoryBytes, spec.CPUs, spec.PidsLimit, spec.DiskBytes, spec.ShmBytes, spec.Ports,
	})
	if err != nil {
		return "", fmt.Errorf("encoding what was rented: %w", err)
	}
	sum := sha256.Sum256(shape)
	return hex.EncodeToString(sum[:]), nil
}
