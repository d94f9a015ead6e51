package rental

import (
	"context"
	"time"

	"github.com/distributedcompute/host-agent/core/secret"
)

// Engine runs containers. Every method may be called from several rentals at once; the calls of
// one rental come one after the other. Errors are *Failure where the cause is known.
type Engine interface {
	// Pull makes an image available. It resolves the reference with the renter's own
	// authorisation even when the image is cached. progress is called often and must return
	// quickly; it may be called from another goroutine, never after Pull has returned.
	Pull(ctx context.Context, image string, auth *RegistryAuth, progress func(Progress)) (Image, error)

	// Create makes the container of spec, with its network, from the very image that was pulled,
	// without starting it. Called again for the same ID it returns the container that is there.
	Create(ctx context.Context, spec Spec, image Image) (containerID string, err error)

	// Start starts a created or stopped container and returns where its ports are reached.
	// A container that runs already is left alone and returned. One that has ended as soon as it was
	// started has no ports; Wait says how it ended.
	Start(ctx context.Context, containerID string) (Container, error)

	// Wait returns when the container has ended, or when the engine goes away and takes its containers with it.
	// While one that keeps them is away it waits for it to come back and looks again. A container that is
	// gone is a *Failure with CodeNotFound; the Exit's At is then when it was last known to run, where that is not
	// just now.
	Wait(ctx context.Context, containerID string) (Exit, error)

	// Stop asks the container to end and kills it after grace. Stopping what does not run, or is
	// gone, succeeds.
	Stop(ctx context.Context, containerID string, grace time.Duration) error

	// Remove takes away everything made for a rental: container, anonymous volumes, network. containerID is
	// the one that the ledger knows, "" if it knows none: another one is left alone, whatever it claims to be.
	// Removing what is not there succeeds.
	Remove(ctx context.Context, id ID, containerID string) error

	// Holdings lists what this host's agent has made on the engine, by its own labels.
	Holdings(ctx context.Context) ([]Holding, error)
}

// Image is what a reference resolved to.
type Image struct {
	ID     string // the engine's id of the image's configuration, "sha256:…"
	Digest string // the manifest's digest, "sha256:…"; "" for an image that came from no registry
}

// CachedImage is an image that was pulled for a rental and is still on this host.
type CachedImage struct {
	Reference string    `json:"reference"` // as it was ordered last
	Digest    string    `json:"digest"`
	SizeBytes int64     `json:"size_bytes"` // on disk; layers shared with other images count in each
	LastUsed  time.Time `json:"last_used"`
	InUse     bool      `json:"in_use"`  // by a rental that is here, or on its way
	Kept      bool      `json:"kept"`    // the owner does not want it removed for want of space
	Private   bool      `json:"private"` // pulled with credentials; goes with its rental
}

// ImageCache is what is kept of images.
type ImageCache struct {
	Images   []CachedImage `json:"images"`    // used last first
	CapBytes int64         `json:"cap_bytes"` // of those that no rental uses; 0: not known yet
}

// PrunedImages tells which images were removed.
type PrunedImages struct {
	Images     []CachedImage `json:"images"`
	FreedBytes int64         `json:"freed_bytes"` // of the disk, as the engine counts it
}

// Container is a container that has been started.
type Container struct {
	ID        string
	StartedAt time.Time
	Routes    []Route // one per port of the spec, in its order; none if it has ended already
}

// Exit tells how a container ended.
type Exit struct {
	Code      int
	OOMKilled bool
	StartedAt time.Time // of the run that has ended; zero where it is not known
	At        time.Time
	// EngineStopped is set when the engine's own shutdown ended the container, not the renter's
	// program: the rental is to be started again. Only a Wait that saw the engine away can tell.
	EngineStopped bool
	// Noticed is set when At may be no more than when the engine noticed the end, after an absence of its own or
	// of the whole machine.
	Noticed bool
	// Failure is set when the host ended the container for a reason of its own, such as a disk that is full:
	// that is then how the rental ends.
	Failure *Failure
}

// Holding is something on the engine that carries this agent's label.
type Holding struct {
	ID          ID
	ContainerID string // "" when only the network is there
	Running     bool
	Ran         bool // it has been started at least once, so it must not be taken for a fresh one
	CreatedAt   time.Time
}

// Relay makes ports of rentals reachable from outside.
type Relay interface {
	// Publish opens the routes of a rental and returns once each public TCP address has been
	// dialled with success. It replaces what was published for the same ID before. It retries
	// until ctx ends, and then returns the last obstacle as a *Failure. trouble is told each
	// obstacle in one sentence, and "" when it is gone, also after Publish has returned, until Withdraw.
	Publish(ctx context.Context, id ID, routes []Route, trouble func(string)) ([]Address, error)

	// Withdraw closes the routes of a rental. Withdrawing what is not published succeeds.
	Withdraw(ctx context.Context, id ID) error
}

// Devices lends this host's GPUs to rentals and takes them back. Every method may be called from several
// rentals at once.
type Devices interface {
	// Lend notes how a rental's GPUs are before its container is made. One that something else uses, that has
	// been lent already, is withheld or does not answer, is a *Failure with CodeGPUUnavailable. Lending the same
	// to the same rental again succeeds.
	Lend(ctx context.Context, id ID, gpus []GPU) error

	// Watch looks after a rental's GPUs while its container runs, until ctx ends. Before that it returns only
	// when the rental has to end: a GPU is gone, or the container uses one that was not rented.
	Watch(ctx context.Context, id ID, gpus []GPU, containerID string) error

	// Return takes the GPUs back once the container is gone, within a bound. One that is not as it was is
	// withheld from others; that is no error of the rental, so that only the end of ctx is one.
	Return(ctx context.Context, id ID, gpus []GPU) error
}

// GPUTrouble is something about a GPU that its host's owner should know.
type GPUTrouble struct {
	GPU      GPU       `json:"gpu"`
	Withheld bool      `json:"withheld"` // it is not offered until the trouble is over
	Message  string    `json:"message"`  // one sentence
	Fix      string    `json:"fix"`
	Since    time.Time `json:"since"`
}

// EngineInfo is what the engine says of itself, for the host's picture and the backend's.
type EngineInfo struct {
	Available     bool       `json:"available"`
	Problem       string     `json:"problem,omitempty"` // one sentence while it is not available
	Fix           string     `json:"fix,omitempty"`     // what to do about it
	Version       string     `json:"version,omitempty"`
	APIVersion    string     `json:"api_version,omitempty"`
	Runtimes      []string   `json:"runtimes,omitempty"`
	StorageDriver string     `json:"storage_driver,omitempty"`
	DataRoot      string     `json:"data_root,omitempty"`
	Rootless      bool       `json:"rootless"`
	CDI           bool       `json:"cdi"`
	GPUReady      bool       `json:"gpu_ready"`      // the engine can hand out NVIDIA GPUs
	CPUs          int        `json:"cpus,omitempty"` // where containers run, which may be a virtual machine
	MemoryBytes   int64      `json:"memory_bytes,omitempty"`
	Shield        ShieldInfo `json:"shield,omitzero"`
	// DiskLow is set while the disk with the engine's data has less free space than the host's reserve.
	DiskLow          bool      `json:"disk_low,omitempty"`
	DiskReserveBytes int64     `json:"disk_reserve_bytes,omitempty"` // 0 while it is not known
	Since            time.Time `json:"since,omitzero"`               // of this availability
}

// Terms are what a relay needs to be used.
type Terms struct {
	Address    string        // host:port of its control port
	Token      secret.String // shared secret of the relay
	ServerName string        // name its certificate must carry; "": the host of Address
	CAPEM      []byte        // authorities that may sign it; nil: the system's
	PublicHost string        // host renters dial; "": the host of Address
}

// RelayInfo is the state of the connection to the relay.
type RelayInfo struct {
	Address   string    `json:"address,omitempty"` // "" while no terms are known
	Connected bool      `json:"connected"`
	Problem   string    `json:"problem,omitempty"`
	Since     time.Time `json:"since,omitzero"` // of this connection
	Routes    int       `json:"routes"`
}
