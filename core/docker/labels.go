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
	labelOwner   = "distributedcompute.owner"   // keyed hash of a container's other labels and network, or of a network's name
	labelSpec    = "distributedcompute.spec"    // hash of what was rented
	labelPorts   = "distributedcompute.ports"   // the rented ports as JSON
	labelGPUs    = "distributedcompute.gpus"    // the rented GPUs as JSON
	labelDisk    = "distributedcompute.disk"    // bytes that the rental may write
	labelRecipe  = "distributedcompute.recipe"  // hash of what is the same for all rentals
)

// containerName is fixed by the rental, so that creating twice cannot give two.
func containerName(id rental.ID) string { return "dc-" + string(id) }

// seal makes and checks the owner's label.
type seal struct{ key []byte }

func newSeal(key []byte) seal { return seal{key: slices.Clone(key)} }

// of is the owner's label for a thing of a kind, which is told from others by its parts.
func (s seal) of(kind string, parts ...string) string {
	mac := hmac.New(sha256.New, s.key)
	for _, part := range append([]string{kind}, parts...) {
		fmt.Fprintf(mac, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// ofContainer is the owner's label of a container with these other labels of ours, on this network.
func (s seal) ofContainer(labels map[string]string, net string) string {
	return s.of(kindContainer, labels[labelRental], labels[labelSpec], labels[labelPorts], labels[labelGPUs], labels[labelDisk],
		labels[labelRecipe], net)
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

// rentalOf is the rental that a container was made for by this host's agent, by its labels, its network and its name. Labels
// are a hint and no more: who can read them can copy all of them. Names are there once, and what copies
// that, too, once the rental's own container is gone, has another id than the ledger knows.
func (s seal) rentalOf(labels map[string]string, net string, names ...string) (rental.ID, bool) {
	id, err := rental.ParseID(labels[labelRental])
	if err != nil || !hmac.Equal([]byte(labels[labelOwner]), []byte(s.ofContainer(labels, net))) {
		return "", false
	}
	return id, slices.Contains(names, "/"+containerName(id))
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
