package market_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

func open(t *testing.T, o market.Options) *market.Market {
	t.Helper()
	o.Dir = filepath.Join(t.TempDir(), "market")
	m, err := market.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func load(t *testing.T, m *market.Market) *config.Config {
	t.Helper()
	c, err := config.Load(config.Sources{File: m.Config()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAgentFiles(t *testing.T) {
	m := open(t, market.Options{DockerHost: "unix:///run/else/docker.sock"})
	c := load(t, m)
	if c.Backend.URL != m.Backend.URL() || !c.AllowLoopbackRegistry || c.SpeedTest.Server != m.SpeedTest.URL() {
		t.Errorf("configuration = %+v", c)
	}
	if c.DockerHost != "unix:///run/else/docker.sock" || c.Relay.Address != "" {
		t.Errorf("docker %q, relay %q: the relay's terms come from the backend", c.DockerHost, c.Relay.Address)
	}
	if c.StateDir != filepath.Join(m.Dir, "state") {
		t.Errorf("state directory %q", c.StateDir)
	}
	for path, want := range map[string]string{c.APIKeyFile: m.Key.Reveal(), c.Backend.CAFile: "BEGIN CERTIFICATE"} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(content), want) {
			t.Errorf("%s does not hold what it should", path)
		}
	}
	files, err := filepath.Glob(filepath.Join(m.Dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, m.Dir) {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v", file, info.Mode())
		}
	}
}

func TestSeedOnlyAgentGetsTheRelayFromItsConfiguration(t *testing.T) {
	m := open(t, market.Options{SeedOnly: true})
	c := load(t, m)
	if c.Relay.Address != m.Relay.Addr() || c.Relay.ServerName != m.Relay.ServerName() {
		t.Errorf("relay = %+v", c.Relay)
	}
	token, err := os.ReadFile(c.Relay.TokenFile)
	if err != nil || strings.TrimSpace(string(token)) != m.Relay.Token().Reveal() {
		t.Errorf("token file: %v", err)
	}
}

func TestImageIsInStock(t *testing.T) {
	m := open(t, market.Options{})
	ref, err := name.ParseReference(m.Image)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Head(ref, remote.WithContext(t.Context())); err != nil {
		t.Error(err)
	}
}

func TestRentRefusesBadPorts(t *testing.T) {
	m := open(t, market.Options{})
	for _, port := range []string{"", "0", "70000", "22/sctp", "ssh"} {
		if _, err := m.Rent(t.Context(), market.Rent{Node: "n", Ports: []string{port}}); err == nil || !strings.Contains(err.Error(), "port") {
			t.Errorf("port %q gave %v", port, err)
		}
	}
	// A good order gets as far as the node, which is not there.
	order, err := m.Rent(t.Context(), market.Rent{Node: "n", Ports: []string{"8080", "9090/udp"}})
	if err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("ordering from nobody gave %v", err)
	}
	if m.ImageSize < 3<<20 { // it holds three layers of 1 MiB that do not compress
		t.Errorf("the image is said to be pulled as %d bytes", m.ImageSize)
	}
	if order.Image != m.Image || order.CPUCores != market.DefaultCPUs || order.RAMLimit != market.DefaultRAMBytes {
		t.Errorf("order = %+v", order)
	}
	if len(order.PortMapping) != 2 || order.PortMapping[protocol.PortKey{Port: 9090, Protocol: "udp"}] == 0 {
		t.Errorf("ports = %v", order.PortMapping)
	}
}

func TestWithoutSettings(t *testing.T) {
	got := market.WithoutSettings([]string{"PATH=/bin", "HOST_API_KEY=secret", "DISTRIBUTED_AGENT_STATE_DIR=/", "HOME=/root"})
	if strings.Join(got, " ") != "PATH=/bin HOME=/root" {
		t.Errorf("kept %q", got)
	}
}
