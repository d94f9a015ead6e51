// Package market is a whole sandbox marketplace on this machine: certificate authority, identity
// provider, backend, tunnel relay, image registry with the workload image, and speed-test server, with
// the files an agent needs to join it. The demo, the command line and end-to-end tests all stand on it.
package market

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/sandbox/backend"
	"github.com/distributedcompute/host-agent/sandbox/ca"
	"github.com/distributedcompute/host-agent/sandbox/identity"
	"github.com/distributedcompute/host-agent/sandbox/registry"
	"github.com/distributedcompute/host-agent/sandbox/relay"
	"github.com/distributedcompute/host-agent/sandbox/speedtest"
	"github.com/distributedcompute/host-agent/sandbox/workload"
)

// Options say what kind of marketplace to open.
type Options struct {
	Dir string // takes the agent's files and the relay's; made if it is not there
	// DockerHost goes into agent.yaml; "": the agent finds its engine itself.
	DockerHost string
	// HeartbeatIntervalS is the pace nodes are asked for; 0: 5 s.
	HeartbeatIntervalS int
	// SeedOnly makes a backend that knows the first messages alone; the agent is then told the
	// relay's terms by its configuration.
	SeedOnly bool
	// SignedOut leaves the host key out of agent.yaml: its agent has to sign in or enrol.
	SignedOut bool
	// Password is that of the owner's account; empty: it is drawn.
	Password secret.String
	// Device lets agents sign in by a code too.
	Device   bool
	Workload []byte       // program of the workload image; nil: it is compiled
	Frps     string       // program of the relay; "": see relay.Program
	Log      *slog.Logger // nil: nothing is logged
	RelayLog io.Writer    // output of the relay's program; nil: nowhere
}

// Market is a marketplace that is open. Its parts may be used directly.
type Market struct {
	Dir       string
	Identity  *identity.Provider
	Owner     identity.User // whose the hosts are, and who can sign in
	Backend   *backend.Backend
	Relay     *relay.Relay
	Registry  *registry.Registry
	SpeedTest *speedtest.Server
	Image     string        // reference of the workload image
	ImageSize int64         // of its layers as they are pulled, in bytes
	Key       secret.String // of the host that agent.yaml is for; empty where it has to sign in
}

// Open starts every part and writes the agent's files. ctx bounds the start alone.
func Open(ctx context.Context, o Options) (_ *Market, err error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the marketplace's directory: %w", err)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("finding the marketplace's directory: %w", err)
	}
	m := &Market{Dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	authority, err := ca.New()
	if err != nil {
		return nil, err
	}

	// The image takes longest where Go has to compile it; nothing else waits for it.
	var stocking sync.WaitGroup
	var stockErr error
	stocking.Go(func() { stockErr = m.stock(ctx, o.Workload) })
	err = m.openDoors(ctx, o, authority)
	stocking.Wait()
	if err := errors.Join(err, stockErr); err != nil {
		return nil, err
	}
	if !o.SignedOut {
		m.Key = m.Backend.IssueKey()
	}
	return m, m.writeFiles(o, authority)
}

// stock opens the registry and puts the workload image into it.
func (m *Market) stock(ctx context.Context, program []byte) (err error) {
	if m.Registry, err = registry.Start(ctx); err != nil {
		return err
	}
	if program == nil {
		if program, err = workload.Build(ctx); err != nil {
			return err
		}
	}
	img, err := workload.Pack(program)
	if err != nil {
		return err
	}
	if m.ImageSize, err = sizeOf(img); err != nil {
		return err
	}
	m.Image, err = m.Registry.Push(ctx, workload.Name, img)
	return err
}

func sizeOf(img v1.Image) (size int64, err error) {
	manifest, err := img.Manifest()
	if err != nil {
		return 0, fmt.Errorf("measuring the workload image: %w", err)
	}
	for _, layer := range manifest.Layers {
		size += layer.Size
	}
	return size, nil
}

// openDoors starts what agents connect to.
func (m *Market) openDoors(ctx context.Context, o Options, authority *ca.CA) (err error) {
	m.Relay, err = relay.Start(ctx, relay.Options{
		Dir:        filepath.Join(m.Dir, "relay"),
		CA:         authority,
		AllowPorts: []relay.Ports{{First: backend.FirstPublicPort, Last: backend.LastPublicPort}},
		Program:    o.Frps,
		Log:        o.RelayLog,
	})
	if err != nil {
		return err
	}
	if m.SpeedTest, err = speedtest.Start(ctx); err != nil {
		return err
	}
	m.Identity, err = identity.Start(ctx, identity.Options{
		CA:     authority,
		Users:  []identity.User{{Email: identity.DefaultEmail, Name: "Sandbox Owner", Password: o.Password}},
		Device: o.Device,
		Log:    o.Log,
	})
	if err != nil {
		return err
	}
	m.Owner = m.Identity.Users()[0]
	m.Backend, err = backend.Start(ctx, backend.Options{
		CA:                 authority,
		Identity:           m.Identity,
		Owner:              backend.Owner{ID: m.Owner.ID, Email: m.Owner.Email},
		Relay:              m.terms(),
		PricePerHour:       "0.10",
		HeartbeatIntervalS: o.HeartbeatIntervalS,
		SeedOnly:           o.SeedOnly,
		Log:                o.Log,
	})
	return err
}

// terms are what nodes are told about the relay.
func (m *Market) terms() *protocol.Relay {
	return &protocol.Relay{
		Address:    m.Relay.Addr(),
		Token:      m.Relay.Token(),
		TLS:        true,
		ServerName: m.Relay.ServerName(),
		CAPEM:      string(m.Relay.CAPEM()),
	}
}

// Close ends every part. The files stay.
func (m *Market) Close() error {
	var failures []error
	if m.Backend != nil {
		failures = append(failures, m.Backend.Close())
	}
	if m.Identity != nil {
		failures = append(failures, m.Identity.Close())
	}
	if m.Relay != nil {
		m.Relay.Stop()
	}
	if m.Registry != nil {
		failures = append(failures, m.Registry.Close())
	}
	if m.SpeedTest != nil {
		failures = append(failures, m.SpeedTest.Close())
	}
	return errors.Join(failures...)
}
