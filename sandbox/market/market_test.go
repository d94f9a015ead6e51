package market_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/core/signin"
	"github.com/distributedcompute/host-agent/sandbox/identity"
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
	if c.Backend.URL != m.Backend.URL() || !c.Images.AllowLoopbackRegistry || c.SpeedTest.Server != m.SpeedTest.URL() {
		t.Errorf("configuration = %+v", c)
	}
	if c.SignIn.Issuer != m.Identity.Issuer() || c.SignIn.ClientID != m.Identity.ClientID() || c.Dashboard != m.Backend.Dashboard() {
		t.Errorf("sign-in %+v, dashboard %q", c.SignIn, c.Dashboard)
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

// An agent that has no key gets one with what its files say, and is its owner's.
func TestSigningIn(t *testing.T) {
	password := secret.New("a password that was chosen")
	m := open(t, market.Options{SignedOut: true, Device: true, Password: password})
	c := load(t, m)
	if c.APIKeyFile != "" || !m.Key.Empty() {
		t.Error("a signed-out agent has a key")
	}
	if _, err := os.Stat(filepath.Join(m.Dir, "host.key")); !os.IsNotExist(err) {
		t.Errorf("its file: %v", err)
	}
	authority, err := os.ReadFile(c.Backend.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	client, err := signin.New(signin.Options{Issuer: c.SignIn.Issuer, ClientID: c.SignIn.ClientID, API: c.API(), CAPEM: authority})
	if err != nil {
		t.Fatal(err)
	}
	owner := m.Owner
	owner.Password = password
	var visiting sync.WaitGroup
	defer visiting.Wait()
	got, err := client.Browser(t.Context(), signin.Host{InstallID: "install", OS: "linux", Arch: "amd64", AgentVersion: "1.0.0"}, func(p signin.Prompt) {
		visiting.Go(func() {
			if _, err := m.Identity.Visit(t.Context(), p.URL, owner, true); err != nil {
				t.Error(err)
			}
		})
	})
	if err != nil || got.Owner != identity.DefaultEmail || got.NodeID == "" {
		t.Fatalf("signing in gave %+v, %v", got, err)
	}
	again, err := client.Enrol(t.Context(), signin.Host{InstallID: "install", OS: "linux", Arch: "amd64", AgentVersion: "1.0.0"}, m.Backend.IssueEnrolmentToken(1, 0))
	if err != nil || again.NodeID != got.NodeID {
		t.Errorf("an enrolment token is for another owner: %+v, %v", again, err)
	}

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	browser := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	page, err := browser.Get(c.Dashboard)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Body.Close()
	text, err := io.ReadAll(page.Body)
	if err != nil || !strings.Contains(string(text), got.NodeID) || !strings.Contains(string(text), identity.DefaultEmail) {
		t.Errorf("the dashboard is %s, %v", text, err)
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
