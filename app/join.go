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
	"strings"

	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/backend"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/core/tunnel"
)

// joined is what an agent is made of.
type joined struct {
	agent.Parts
	options agent.Options
	memory  io.Closer
}

// join makes the parts from the configuration. It starts nothing.
func join(cfg *config.Config, this protocol.Agent, log *slog.Logger) (*joined, error) {
	j := &joined{}
	findKey := keyFinder(cfg, os.Getenv("CREDENTIALS_DIRECTORY"))
	// Containers and other children have no use for the key.
	if err := os.Unsetenv("HOST_API_KEY"); err != nil {
		return nil, fmt.Errorf("taking the host key out of the environment: %w", err)
	}
	_, source, err := findKey()
	if err != nil {
		return nil, err
	}
	owner, err := keyring.OwnerKey(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	if j.options, err = agentOptions(cfg, this, log); err != nil {
		return nil, err
	}
	j.options.KeySource = string(source)

	link, err := newLink(cfg, this, findKey, log)
	if err != nil {
		return nil, err
	}
	engine, err := docker.New(docker.Options{Host: cfg.DockerHost, OwnerKey: owner, Log: log})
	if err != nil {
		return nil, err
	}
	relay := tunnel.New(tunnel.Options{Prefix: routePrefix(owner), Dir: cfg.StateDir, Log: log})
	book, err := rental.Open(rental.Options{Dir: filepath.Join(cfg.StateDir, "rentals"), Engine: engine, Relay: relay, Log: log})
	if err != nil {
		return nil, err
	}
	j.Link, j.Engine, j.Relay, j.Rentals = link, engine, relay, book

	j.Meter = hardware.NewMeter(hardware.Options{Log: log})
	j.Survey = func(ctx context.Context, diskPath string) hardware.Survey {
		return hardware.Take(ctx, hardware.Options{DiskPath: diskPath, Log: log})
	}
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

// finder looks for the host key anew at each call, so that a new one needs no restart.
type finder func() (secret.String, keyring.Source, error)

func keyFinder(cfg *config.Config, credentialsDir string) finder {
	options := keyring.Options{
		File:           cfg.APIKeyFile,
		CredentialsDir: credentialsDir,
		Given:          cfg.APIKey,
		GivenFile:      cfg.APIKeyEnvFile,
		StateDir:       cfg.StateDir,
	}
	return func() (secret.String, keyring.Source, error) {
		key, source, err := keyring.Find(options)
		if errors.Is(err, keyring.ErrNone) {
			err = fmt.Errorf("%w; store one with: distributed-agent setup --api-key-stdin < key.txt", err)
		}
		return key, source, err
	}
}

func newLink(cfg *config.Config, this protocol.Agent, findKey finder, log *slog.Logger) (*backend.Link, error) {
	return backend.New(backend.Options{
		URL:                    cfg.Backend.URL,
		Key:                    func(context.Context) (secret.String, error) { key, _, err := findKey(); return key, err },
		CAFile:                 cfg.Backend.CAFile,
		Version:                this.Version,
		AllowPlaintextLoopback: cfg.Backend.AllowPlaintextLoopback,
		Heartbeat:              cfg.Heartbeat,
		Log:                    log,
	})
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
			MinPricePerGPUHour: cfg.Offer.MinPricePerGPUHour,
			Currency:           cfg.Offer.Currency,
		},
		Limits: agent.Limits{
			Rentals:               cfg.Limits.Rentals,
			Pids:                  cfg.Limits.Pids,
			Ports:                 cfg.Limits.MaxPorts,
			ShmBytes:              cfg.Limits.MaxShmBytes,
			AllowLoopbackRegistry: cfg.AllowLoopbackRegistry,
		},
		Relay:     terms,
		StopGrace: cfg.Limits.StopGrace,
		Log:       log,
	}, nil
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
