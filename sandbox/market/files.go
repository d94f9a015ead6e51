package market

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/distributedcompute/host-agent/sandbox/ca"
)

// The files of an agent, in the marketplace's directory.
const (
	configFile = "agent.yaml"
	keyFile    = "host.key"
	caFile     = "ca.pem"
	tokenFile  = "relay.token"
	stateDir   = "state"
)

// Config is the path of the agent's configuration.
func (m *Market) Config() string { return filepath.Join(m.Dir, configFile) }

// writeFiles puts down what an agent is started with. The paths in agent.yaml are relative to it.
func (m *Market) writeFiles(o Options, authority *ca.CA) error {
	files := []struct{ name, content string }{
		{caFile, string(authority.PEM())},
		{configFile, m.agentYAML(o)},
	}
	if !m.Key.Empty() {
		files = append(files, struct{ name, content string }{keyFile, m.Key.Reveal() + "\n"})
	}
	if o.SeedOnly {
		files = append(files, struct{ name, content string }{tokenFile, m.Relay.Token().Reveal() + "\n"})
	}
	for _, file := range files {
		path := filepath.Join(m.Dir, file.name)
		// A file that is there already would keep its mode.
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("replacing %s: %w", file.name, err)
		}
		if err := os.WriteFile(path, []byte(file.content), 0o600); err != nil {
			return fmt.Errorf("writing %s: %w", file.name, err)
		}
	}
	return nil
}

// agentYAML is the configuration of an agent that joins this marketplace.
func (m *Market) agentYAML(o Options) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# An agent on the sandbox marketplace. Everything in it is on this machine.")
	line("backend:")
	line("  url: %s", m.Backend.URL())
	line("  ca_file: %s", caFile)
	line("sign_in:")
	line("  issuer: %s", m.Identity.Issuer())
	line("  client_id: %s", m.Identity.ClientID())
	line("dashboard: %s", m.Backend.Dashboard())
	if !m.Key.Empty() {
		line("api_key_file: %s", keyFile)
	}
	line("state_dir: %s", stateDir)
	line("unsafe_allow_old_engine: true # it is the distribution's Docker, whatever its age")
	line("offer:")
	line("  disk: 20g # as far as it is there")
	line("limits:")
	line("  disk_reserve: 256m # the agent would keep 20 GiB free, and a small machine would offer none")
	line("images:")
	line("  allow_loopback_registry: true")
	line("speedtest:")
	line("  server: %s", m.SpeedTest.URL())
	if o.DockerHost != "" {
		line("docker:")
		line("  host: %s", strconv.Quote(o.DockerHost))
	}
	if o.SeedOnly {
		line("relay:")
		line("  address: %s", strconv.Quote(m.Relay.Addr()))
		line("  token_file: %s", tokenFile)
		line("  server_name: %s", m.Relay.ServerName())
		line("  ca_file: %s", caFile)
	}
	return b.String()
}

// WithoutSettings drops the variables by which the owner of this machine sets up an agent: the
// marketplace's is set up by its file alone, and keeps away from the state of the owner's.
func WithoutSettings(environ []string) []string {
	var kept []string
	for _, variable := range environ {
		if !strings.HasPrefix(variable, "DISTRIBUTED_AGENT_") && !strings.HasPrefix(variable, "HOST_API_KEY=") {
			kept = append(kept, variable)
		}
	}
	return kept
}
