package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unicode"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/audit"
	"github.com/distributedcompute/host-agent/core/backend"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/lending"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/core/signin"
	"github.com/distributedcompute/host-agent/core/tunnel"
)

// joined is what an agent is made of.
type joined struct {
	agent.Parts
	options agent.Options
	memory  io.Closer
	desk    io.Closer
}

// join makes the parts from the configuration. It starts nothing. A host key that is missing or of no use is
// an error, unless keyless says that there is somebody to see what is wrong, and to sign in.
func join(ctx context.Context, cfg *config.Config, this protocol.Agent, keyless bool, log *slog.Logger) (*joined, error) {
	j := &joined{}
	account, err := openAccount(cfg, this, log)
	if err != nil {
		return nil, err
	}
	key, err := account.Key(ctx)
	if err := needKey(key, err, canSignIn(cfg)); err != nil {
		if !keyless {
			return nil, err
		}
		log.Info("starting without a host key", "because", err)
	}
	owner, err := keyring.OwnerKey(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	if j.options, err = agentOptions(cfg, this, log); err != nil {
		return nil, err
	}
	link, err := newLink(cfg, this, account.Key, account.KeyJudged, log)
	if err != nil {
		return nil, err
	}
	engine, err := docker.New(docker.Options{
		Host: cfg.DockerHost, OwnerKey: owner, Images: imageOptions(cfg), Shielding: shielding(cfg.Isolation), AddressPool: cfg.AddressPool,
		Log: log,
	})
	if err != nil {
		return nil, err
	}
	desk, err := lending.Open(lending.Options{Dir: cfg.StateDir, Machine: lending.This(hardware.Options{Log: log}), Log: log})
	if err != nil {
		return nil, err
	}
	relay := tunnel.New(tunnel.Options{Prefix: routePrefix(owner), Dir: cfg.StateDir, Log: log})
	book, err := rental.Open(rental.Options{Dir: filepath.Join(cfg.StateDir, "rentals"), Engine: engine, Relay: relay, Devices: desk, Log: log})
	if err != nil {
		return nil, err
	}
	desk.Reclaim(func(id rental.ID) bool {
		s, known := book.Lookup(id)
		return known && !s.State.Final()
	})
	j.Account, j.Link, j.Engine, j.Relay, j.Rentals, j.GPUs, j.desk = account, link, engine, relay, book, desk, desk

	j.Meter = hardware.NewMeter(hardware.Options{Log: log})
	j.Survey = func(ctx context.Context, diskPath string) hardware.Survey {
		return hardware.Take(ctx, hardware.Options{DiskPath: diskPath, Log: log})
	}
	if j.Preflight, err = judgeVersions(engine); err != nil {
		return nil, err
	}
	j.Audit = audit.Open(audit.Options{Dir: cfg.StateDir, Log: log})
	if j.SpeedTest, err = speedTest(cfg.SpeedTest); err != nil {
		return nil, err
	}
	memory, err := agent.OpenMemory(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	j.Memory, j.memory = memory, memory
	return j, nil
}

// needKey says what to do where the host key was looked for in vain. One that can be read later is no reason
// not to start.
func needKey(key secret.String, err error, canSignIn bool) error {
	if err == nil && key.Empty() {
		err = keyring.ErrNone
	}
	switch {
	case errors.Is(err, keyring.ErrUnavailable):
		return nil
	case errors.Is(err, keyring.ErrNone) && canSignIn:
		return fmt.Errorf("%w; sign in with: distributed-agent setup", err)
	case errors.Is(err, keyring.ErrNone):
		return fmt.Errorf("%w; store one with: distributed-agent setup --api-key-stdin < key.txt", err)
	}
	return err
}

// openAccount joins whose host this is. It looks for no key.
func openAccount(cfg *config.Config, this protocol.Agent, log *slog.Logger) (*account.Account, error) {
	o := account.Options{
		Keys:      keys(cfg),
		CanSignIn: canSignIn(cfg),
		StateDir:  cfg.StateDir,
		Host:      thisHost(this),
		Log:       log,
	}
	if cfg.API() != "" {
		var authorities []byte
		if cfg.Backend.CAFile != "" {
			var err error
			if authorities, err = os.ReadFile(cfg.Backend.CAFile); err != nil {
				return nil, fmt.Errorf("reading the backend's CA file: %w", err)
			}
		}
		client, err := signin.New(signin.Options{
			Issuer:                cfg.SignIn.Issuer,
			ClientID:              cfg.SignIn.ClientID,
			Scopes:                strings.Fields(cfg.SignIn.Scopes),
			API:                   cfg.API(),
			CAPEM:                 authorities,
			AllowInsecureLoopback: cfg.Backend.AllowPlaintextLoopback,
			Version:               this.Version,
			Log:                   log,
		})
		if err != nil {
			return nil, err
		}
		o.SignIn = client
	}
	return account.Open(o)
}

// canSignIn tells that the configuration says who vouches for people.
func canSignIn(cfg *config.Config) bool { return cfg.SignIn.Issuer != "" && cfg.SignIn.ClientID != "" }

// keys is where the host key is looked for and kept.
func keys(cfg *config.Config) *keyring.Store {
	return keyring.New(keyring.Options{
		File:           cfg.APIKeyFile,
		CredentialsDir: os.Getenv("CREDENTIALS_DIRECTORY"),
		Given:          cfg.APIKey,
		GivenFile:      cfg.APIKeyEnvFile,
		StateDir:       cfg.StateDir,
		Origin:         cfg.API(),
		PassphraseFile: cfg.Keyring.PassphraseFile,
		Interactive:    isTerminal(os.Stdin),
	})
}

// thisHost is what the marketplace is told when the host signs in; the rest comes with the registration.
func thisHost(this protocol.Agent) signin.Host {
	name, err := os.Hostname()
	if err != nil {
		name = "" // the page then says no name
	}
	return signin.Host{
		Hostname: name, OS: this.OS, Arch: this.Arch, AgentVersion: this.Version,
		Hardware: plural(runtime.NumCPU(), "CPU thread"),
	}
}

func newLink(cfg *config.Config, this protocol.Agent, find func(context.Context) (secret.String, error), judged func(string), log *slog.Logger) (*backend.Link, error) {
	return backend.New(backend.Options{
		URL: cfg.Backend.URL,
		Key: func(ctx context.Context) (secret.String, error) {
			key, err := find(ctx)
			switch {
			case errors.Is(err, keyring.ErrUnavailable):
				return key, &backend.KeyUnreadable{Problem: sentence(err)}
			case errors.Is(err, keyring.ErrNone):
				return secret.String{}, nil
			}
			return key, err
		},
		Judged:                 judged,
		CAFile:                 cfg.Backend.CAFile,
		Version:                this.Version,
		AllowPlaintextLoopback: cfg.Backend.AllowPlaintextLoopback,
		Heartbeat:              cfg.Heartbeat,
		Log:                    log,
	})
}

// sentence writes an error as a person reads it among others.
func sentence(err error) string {
	text := []rune(err.Error())
	if len(text) > 0 {
		text[0] = unicode.ToUpper(text[0])
	}
	return strings.TrimSuffix(string(text), ".") + "."
}

// routePrefix tells this host's routes from those of others on the same relay, and stays the same
// over restarts without telling anything about the key.
func routePrefix(owner []byte) string {
	sum := sha256.Sum256(append([]byte("relay routes\x00"), owner...))
	return hex.EncodeToString(sum[:6])
}

func agentOptions(cfg *config.Config, this protocol.Agent, log *slog.Logger) (agent.Options, error) {
	terms, err := relayTerms(cfg.Relay)
	if err != nil {
		return agent.Options{}, err
	}
	gpus := cfg.Offer.GPUs.Indices
	if !cfg.Offer.GPUs.All && gpus == nil {
		gpus = []int{} // none, where nil would be all
	}
	return agent.Options{
		Agent:  this,
		NodeID: cfg.NodeID,
		Offer: agent.OfferLimits{
			GPUs:               gpus,
			CPUs:               cfg.Offer.CPUCores,
			RAMMB:              cfg.Offer.RAMBytes >> 20,
			DiskGB:             cfg.Offer.DiskBytes >> 30,
			DiskReserveBytes:   cfg.Limits.DiskReserveBytes,
			MinPricePerGPUHour: cfg.Offer.MinPricePerGPUHour,
			Currency:           cfg.Offer.Currency,
		},
		Limits: agent.Limits{
			Rentals:    cfg.Limits.Rentals,
			Pids:       cfg.Limits.Pids,
			Ports:      cfg.Limits.MaxPorts,
			ShmBytes:   cfg.Limits.MaxShmBytes,
			Registries: registries(cfg),
		},
		Relay:     terms,
		StopGrace: cfg.Limits.StopGrace,
		Log:       log,

		AllowOldEngine: cfg.UnsafeAllowOldEngine,
	}, nil
}

// registries are those that the owner lets images come from.
func registries(cfg *config.Config) rental.Registries {
	return rental.Registries{Allow: cfg.Images.AllowRegistries, Deny: cfg.Images.DenyRegistries, Loopback: cfg.Images.AllowLoopbackRegistry}
}

func imageOptions(cfg *config.Config) docker.ImageOptions {
	return docker.ImageOptions{
		Registries: registries(cfg),
		Mirror:     cfg.Images.Mirror,
		CacheBytes: cfg.Images.CacheBytes,
		Offered:    cfg.Offer.DiskBytes,
		Reserve:    cfg.Limits.DiskReserveBytes,
		Keep:       cfg.Images.Keep,
		StateDir:   cfg.StateDir,
	}
}

// relayTerms reads the files that the owner's own relay needs; nil where none is configured.
func relayTerms(r config.Relay) (*rental.Terms, error) {
	if r.Address == "" {
		return nil, nil
	}
	terms := &rental.Terms{Address: r.Address, ServerName: r.ServerName, PublicHost: r.PublicHost}
	if r.TokenFile != "" {
		token, err := os.ReadFile(r.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("reading relay.token_file: %w", err)
		}
		terms.Token = secret.New(strings.TrimSpace(string(token)))
	}
	if r.CAFile != "" {
		var err error
		if terms.CAPEM, err = os.ReadFile(r.CAFile); err != nil {
			return nil, fmt.Errorf("reading relay.ca_file: %w", err)
		}
	}
	return terms, nil
}

// speedTest is nil where no server is configured.
func speedTest(settings config.SpeedTest) (func(context.Context) (hardware.Network, error), error) {
	if settings.Server == "" {
		return nil, nil
	}
	test, err := hardware.NewSpeedTest(hardware.SpeedTestOptions{Server: settings.Server, MaxBytes: settings.MaxBytes, Duration: settings.MaxTime})
	if err != nil {
		return nil, fmt.Errorf("speedtest.server: %w", err)
	}
	return test.Measure, nil
}
