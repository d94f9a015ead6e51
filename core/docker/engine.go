package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/client"

	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	// callWithin bounds ordinary calls; one that waits for a program to end, a download or an event has
	// its own bound or none.
	callWithin = 30 * time.Second
	// removeWithin bounds the removal of a container, whose files may be many.
	removeWithin = 5 * time.Minute
	// stalledAfter is how long a download may go without a byte; the engine itself waits for ever.
	stalledAfter = 2 * time.Minute
)

// Options are what an Engine needs.
type Options struct {
	// Host is the engine's address, "unix:///…" or "npipe:////…"; "" is where this system's engine listens.
	Host string
	// OwnerKey marks what this host's agent has made. It must stay the same over restarts: 16 bytes or more.
	OwnerKey []byte
	Images   ImageOptions
	Log      *slog.Logger
	// Shielding keeps rentals off the host's LAN; nil does not.
	Shielding *Shielding
	// AddressPool is the IPv4 range that rentals' networks are taken from, "10.213.0.0/16"; "": one that meets no network
	// of the host.
	AddressPool string
	// DiskEvery is how often what rentals have written is counted; 0: every 10 s.
	DiskEvery time.Duration
}

// Engine is a Docker Engine on this machine. It implements rental.Engine. Its methods work without
// Run, which watches the engine's health and keeps a network in stock.
type Engine struct {
	host      string // "" is looked up at each connection, as engines come and go
	log       *slog.Logger
	seal      seal
	networks  networks
	downloads downloads
	quota     quota
	guard     *guard
	verdicts  verdicts
	stopping  idSet // containers that were asked to end by Stop
	gpus      gpuDriver
	disks     disks
	stall     time.Duration // stalledAfter
	// near reports whether containers on a network of that name are reached at their own addresses; bridgeIsHere
	near func(ctx context.Context, network string) bool

	registries registries
	shelf      *shelf
	space      func(dir string) (space, error) // spaceOf

	diskReserve int64         // ImageOptions.Reserve
	diskEvery   time.Duration // Options.DiskEvery

	dial      func(ctx context.Context, network, address string) (net.Conn, error) // nil: as the client does
	processes processes

	client atomic.Pointer[client.Client]
	facts  atomic.Pointer[facts]

	mu   sync.Mutex
	info rental.EngineInfo // guarded by mu
}

// New prepares an Engine. It does not connect.
func New(options Options) (*Engine, error) {
	if len(options.OwnerKey) < 16 {
		return nil, errors.New("the owner key is shorter than 16 bytes")
	}
	if err := checkHost(options.Host); err != nil {
		return nil, err
	}
	e := &Engine{
		host:  options.Host,
		log:   options.Log,
		seal:  newSeal(options.OwnerKey),
		stall: stalledAfter,
		guard: newGuard(options.Shielding),

		diskReserve: options.Images.Reserve,
		diskEvery:   options.DiskEvery,
	}
	e.disks.started = make(chan struct{}, 1)
	var err error
	if e.networks.pool, err = parsePool(options.AddressPool); err != nil {
		return nil, err
	}
	e.networks.next = rand.Uint32() // an agent that is started again begins elsewhere
	e.networks.refill = make(chan struct{}, 1)
	e.gpus.trial = make(chan struct{}, 1)
	if e.guard != nil {
		e.info.Shield.State = rental.ShieldAwaited
	}
	e.space, e.near = spaceOf, e.bridgeIsHere
	e.registries = newRegistries(options.Images.Registries, options.Images.Mirror, options.Log)
	e.registries.within = func() time.Duration { return min(callWithin, e.stall) }
	if e.shelf, err = newShelf(options.Images); err != nil {
		return nil, err
	}
	if err := e.connect(); err != nil {
		return nil, err
	}
	return e, nil
}

// connect makes a new client. A client settles on an API version once, so an engine that comes back,
// maybe upgraded, gets a new one.
func (e *Engine) connect() error {
	made, err := e.newClient()
	if err != nil {
		return err
	}
	if old := e.client.Swap(made); old != nil {
		_ = old.Close() // closes idle connections only
	}
	return nil
}

func (e *Engine) newClient() (*client.Client, error) {
	host := e.host
	if host == "" {
		host = defaultHost()
	}
	options := []client.Opt{client.WithHost(host), client.WithAPIVersionNegotiation()}
	if e.dial != nil {
		options = append(options, client.WithDialContext(e.dial))
	}
	made, err := client.NewClientWithOpts(options...)
	if err != nil {
		return nil, fmt.Errorf("preparing the Docker client for %s: %w", host, err)
	}
	return made, nil
}

// api is the client to call the engine with.
func (e *Engine) api() *client.Client { return e.client.Load() }

// bounded gives a call a deadline.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callWithin)
}
