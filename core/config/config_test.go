package config_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/distributedcompute/host-agent/core/config"
)

// home is an environment in which nothing of this machine counts.
func home(t *testing.T) (dir string, environ []string) {
	t.Helper()
	dir = t.TempDir()
	return dir, []string{
		"HOME=" + dir, "USERPROFILE=" + dir,
		"DISTRIBUTED_AGENT_STATE_DIR=" + filepath.Join(dir, "state"),
	}
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, src config.Sources) *config.Config {
	t.Helper()
	c, err := config.Load(src)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestExampleIsTheDefaults(t *testing.T) {
	dir := t.TempDir()
	content, err := os.ReadFile("../../agent.yaml.example")
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, dir, "agent.yaml", string(content))
	got := load(t, config.Sources{File: path, Environ: []string{"HOME=" + dir, "USERPROFILE=" + dir}})

	want := config.Default()
	want.StateDir = got.StateDir // decided from the system
	want.File = path
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(config.Config{}), cmp.Comparer(sameSecret)); diff != "" {
		t.Errorf("the example differs from the defaults (-default +example):\n%s", diff)
	}
	for _, s := range got.Explain() {
		if s.Key != "HOST_API_KEY" && !strings.HasPrefix(s.Source, "agent.yaml:") {
			t.Errorf("%s is not in the example", s.Key)
		}
	}
}

func sameSecret(a, b interface{ Reveal() string }) bool { return a.Reveal() == b.Reveal() }

func TestLaterSourceWins(t *testing.T) {
	dir, environ := home(t)
	file := write(t, dir, "agent.yaml", `
backend:
  url: wss://file.example.com
offer:
  gpus: [1, 0]
  ram: 28g
  currency: EUR
limits: {pids: 100}
`)
	write(t, dir, ".env", "DISTRIBUTED_AGENT_OFFER_CURRENCY=GBP\nDISTRIBUTED_AGENT_LIMITS_PIDS=200\nOTHER=1\nHOST_API_KEY=k-1\n")
	environ = append(environ, "DISTRIBUTED_AGENT_LIMITS_PIDS=300", "DISTRIBUTED_AGENT_HEARTBEAT=10s")
	c := load(t, config.Sources{File: file, Environ: environ, Flags: []config.Flag{{Key: "heartbeat", Name: "--heartbeat", Value: "20s"}}})

	if diff := cmp.Diff([]int{0, 1}, c.Offer.GPUs.Indices); diff != "" || c.Offer.GPUs.All {
		t.Errorf("GPUs %+v", c.Offer.GPUs)
	}
	if c.Offer.RAMBytes != 28<<30 {
		t.Errorf("RAM is %d", c.Offer.RAMBytes)
	}
	if c.APIKey.Reveal() != "k-1" || c.APIKeyEnvFile != filepath.Join(dir, ".env") {
		t.Errorf("key of .env: got %q from %q", c.APIKey.Reveal(), c.APIKeyEnvFile)
	}
	dotEnv := filepath.Join(dir, ".env")
	want := map[string][2]string{
		"backend.url":    {"wss://file.example.com", "agent.yaml:3"},
		"offer.gpus":     {"0,1", "agent.yaml:5"},
		"offer.ram":      {"28g", "agent.yaml:6"},
		"offer.currency": {"GBP", dotEnv + ": DISTRIBUTED_AGENT_OFFER_CURRENCY"},
		"limits.pids":    {"300", "DISTRIBUTED_AGENT_LIMITS_PIDS"},
		"heartbeat":      {"20s", "flag --heartbeat"},
		"log.level":      {"info", "default"},
		"HOST_API_KEY":   {"[redacted]", dotEnv},
	}
	for _, s := range c.Explain() {
		if w, ok := want[s.Key]; ok && w != [2]string{s.Value, s.Source} {
			t.Errorf("%s: got %q from %q, want %q from %q", s.Key, s.Value, s.Source, w[0], w[1])
		}
		delete(want, s.Key)
	}
	if len(want) > 0 {
		t.Errorf("not explained: %v", want)
	}
}

func TestMistakesNamePlaceAndRemedy(t *testing.T) {
	tests := []struct{ name, yaml, want string }{
		{"type", "offer:\n  cpu_cores: many\n", `agent.yaml:2: offer.cpu_cores: takes a number from 0 (automatic) to 1024, got "many"`},
		{"range", "offer:\n  cpu_cores: 2000\n", `agent.yaml:2: offer.cpu_cores: takes a number from 0 (automatic) to 1024, got "2000"`},
		{"not a number", "offer: {cpu_cores: .nan}\n", `agent.yaml:1: offer.cpu_cores: takes a number from 0 (automatic) to 1024, got ".nan"`},
		{"unknown key", "\noffer:\n  gpu: all\n", `agent.yaml:3: offer.gpu: no such key; offer takes gpus, cpu_cores, ram, disk, min_price_per_gpu_hour, currency`},
		{"unknown section", "ofer:\n  gpus: all\n", `agent.yaml:1: ofer: no such key; the file takes backend, sign_in, dashboard, node_id, api_key_file, keyring, state_dir, docker, unsafe_allow_old_engine, relay, offer, limits, isolation, images, speedtest, heartbeat, desktop, log`},
		{"key in the file", "api_key: s3cret\n", `agent.yaml:1: api_key: no such key; `},
		{"nothing given", "offer:\n  gpus:\n", `agent.yaml:2: offer.gpus: takes all, none, or a list of GPU numbers such as [0, 1], got nothing`},
		{"list where none fits", "node_id: [a]\n", `agent.yaml:1: node_id: takes up to 128 letters, digits, '-', '_', '.' or ':', got a list`},
		{"section where a value fits", "heartbeat:\n  every: 5s\n", `agent.yaml:1: heartbeat: takes a time from 1s to 60s such as 5s, got a section`},
		{"value where a section fits", "offer: all\n", `agent.yaml:1: offer: takes the keys gpus, `},
		{"list for the file", "- a\n", `agent.yaml:1: the file: takes the keys backend, `},
		{"GPU twice", "offer: {gpus: [0, 0]}\n", `agent.yaml:1: offer.gpus: takes all, none, or a list`},
		{"alias", "heartbeat: *a\n", `agent.yaml:1: heartbeat: takes a time from 1s to 60s such as 5s, got an anchor or alias`},
		{"dotted key", "offer: {gpus: none}\noffer.gpus: all\n", `agent.yaml:2: offer.gpus: no such key; the file takes backend, `},
		{"duplicate", "node_id: a\nnode_id: b\n", `agent.yaml:2: not valid YAML: `},
		{"syntax", "offer:\n  gpus: [0, 1\n", `agent.yaml:2: not valid YAML: `},
		{"tab", "offer:\n\tgpus: all\n", `agent.yaml:2: not valid YAML: a tab stands at the start of the line; indent with spaces`},
		{"second document", "node_id: a\n---\nnode_id: b\n", `agent.yaml:3: one document only`},
		{"plain text", "backend: {url: 'ws://example.com'}\n", `agent.yaml:1: backend.url: takes wss://; ws:// would send keys in plain text`},
		{"plain text to elsewhere", "backend:\n  allow_plaintext_loopback: true\n  url: ws://10.0.0.1\n", `agent.yaml:3: backend.url: ws:// is allowed to a loopback address only`},
		{"sign-in in plain text", "sign_in: {issuer: 'http://127.0.0.1:9'}\n", `agent.yaml:1: sign_in.issuer: takes https://; http:// would send keys in plain text`},
		{"sign-in in plain text to elsewhere", "backend: {allow_plaintext_loopback: true}\nsign_in: {issuer: 'http://id.example.com'}\n", `agent.yaml:2: sign_in.issuer: http:// is allowed to a loopback address only, such as http://127.0.0.1:8080, got`},
		{"API in plain text", "backend: {api_url: 'http://api.example.com'}\n", `agent.yaml:1: backend.api_url: takes https://; http://`},
		{"API with a query", "backend: {api_url: 'https://api.example.com/?a=b'}\n", `agent.yaml:1: backend.api_url: takes an https:// address without user name, query or fragment, got`},
		{"client with a space", "sign_in: {client_id: 'a b'}\n", `agent.yaml:1: sign_in.client_id: takes up to 256 printable characters without spaces, got`},
		{"dashboard in plain text", "dashboard: 'http://127.0.0.1'\n", `agent.yaml:1: dashboard: takes an https:// address`},
		{"other scheme", "backend: {url: 'https://example.com'}\n", `agent.yaml:1: backend.url: takes a wss:// address`},
		{"credentials in the address", "backend: {url: 'wss://u:p@example.com'}\n", `agent.yaml:1: backend.url: takes a wss:// address without user name or fragment, got "wss://[redacted]@example.com"`},
		{"a password in no address", "backend: {url: 'wss://u:s3cret/@exa mple:x'}\n", `agent.yaml:1: backend.url: takes a wss:// address`},
		{"Docker over TCP", "docker: {host: 'tcp://10.0.0.1:2375'}\n", `agent.yaml:1: docker.host: takes unix:///path`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, environ := home(t)
			_, err := config.Load(config.Sources{File: write(t, dir, "agent.yaml", tt.yaml), Environ: environ})
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Error("the error shows the key")
			}
		})
	}
}

func TestAllMistakesAreToldAtOnce(t *testing.T) {
	dir, environ := home(t)
	file := write(t, dir, "agent.yaml", "nope: 1\nheartbeat: soon\n")
	_, err := config.Load(config.Sources{
		File:    file,
		Environ: append(environ, "DISTRIBUTED_AGENT_LOG_LEVEL=loud", "DISTRIBUTED_AGENT_LOG_LEVLE=info"),
		Flags:   []config.Flag{{Key: "offer.gpus", Name: "--gpus", Value: "first"}},
	})
	for _, want := range []string{
		"agent.yaml:1: nope: no such key",
		"agent.yaml:2: heartbeat: takes",
		"DISTRIBUTED_AGENT_LOG_LEVEL: takes debug, info, warn or error",
		"DISTRIBUTED_AGENT_LOG_LEVLE: no such setting",
		"--gpus: takes all, none",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

func TestDotEnvMistakeShowsNoLine(t *testing.T) {
	dir, environ := home(t)
	file := write(t, dir, "agent.yaml", "")
	for _, tt := range []struct {
		content string
		line    int
	}{
		{"HOST_API_KEY s3cret\n", 1},
		{"A=1\n# comment\n\nHOST_API_KEY s3cret\nB=2\n", 4},
		{"A=\"two\nlines\"\nHOST_API_KEY s3cret\n", 3},
	} {
		path := write(t, dir, ".env", tt.content)
		_, err := config.Load(config.Sources{File: file, Environ: environ})
		if want := fmt.Sprintf("%s:%d: takes lines of the form NAME=value", path, tt.line); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestByteOrderMarkIsNoContent(t *testing.T) {
	dir, environ := home(t)
	file := write(t, dir, "agent.yaml", "\uFEFFheartbeat: 7s\r\n")
	write(t, dir, ".env", "\uFEFFDISTRIBUTED_AGENT_NODE_ID=n-1\r\n")
	if c := load(t, config.Sources{File: file, Environ: environ}); c.Heartbeat != 7*time.Second || c.NodeID != "n-1" {
		t.Errorf("got a heartbeat of %v and node %q", c.Heartbeat, c.NodeID)
	}
}

func TestPathsStartWhereTheyWereWritten(t *testing.T) {
	dir, environ := home(t)
	file := write(t, dir, "agent.yaml", "backend:\n  ca_file: ca.pem\n")
	c := load(t, config.Sources{File: file, Environ: environ})
	if want := filepath.Join(dir, "ca.pem"); c.Backend.CAFile != want {
		t.Errorf("got %s, want %s", c.Backend.CAFile, want)
	}
	t.Chdir(t.TempDir())
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	c = load(t, config.Sources{File: file, Environ: environ, Flags: []config.Flag{{Key: "backend.ca_file", Name: "--ca-file", Value: "other.pem"}}})
	if want := filepath.Join(wd, "other.pem"); c.Backend.CAFile != want {
		t.Errorf("got %s, want %s", c.Backend.CAFile, want)
	}
}

func TestFileNamedButAbsent(t *testing.T) {
	dir, environ := home(t)
	if _, err := config.Load(config.Sources{File: filepath.Join(dir, "none.yaml"), Environ: environ}); err == nil {
		t.Error("a file that was asked for and is not there is an error")
	}
	if _, err := config.Load(config.Sources{Environ: append(environ, "DISTRIBUTED_AGENT_CONFIG="+filepath.Join(dir, "none.yaml"))}); err == nil {
		t.Error("a file named by the environment and not there is an error")
	}
}

func TestStateDirSurvivesMistakesElsewhere(t *testing.T) {
	dir, _ := home(t)
	file := write(t, dir, "agent.yaml", "nope: 1\nheartbeat: soon\nstate_dir: s\n")
	got, err := config.StateDir(config.Sources{File: file})
	if want := filepath.Join(dir, "s"); err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

// Whoever asks the wrong directory is told that no agent runs.
func TestStateDirIsNotGuessed(t *testing.T) {
	dir := t.TempDir()
	for _, content := range []string{"state_dir: s\noffer:\n  gpus: [0, 1\n", "state_dir: [s]\n"} {
		src := config.Sources{File: write(t, dir, "agent.yaml", content)}
		if got, err := config.StateDir(src); err == nil || !strings.HasPrefix(err.Error(), "agent.yaml:") {
			t.Errorf("%q: got %q, %v; want what is wrong with the file", content, got, err)
		}
		src.Flags = []config.Flag{{Key: "state_dir", Name: "--state-dir", Value: dir}}
		if got, err := config.StateDir(src); err != nil || got != dir {
			t.Errorf("%q with a flag: got %q, %v; want %q", content, got, err, dir)
		}
	}
}

func TestValuesReadBackAsShown(t *testing.T) {
	dir, environ := home(t)
	file := write(t, dir, "agent.yaml", `
backend: {url: "wss://a.example.com/x", ca_file: /ca.pem, api_url: "https://api.example.com/x"}
sign_in: {issuer: "https://id.example.com", client_id: c-1}
dashboard: https://a.example.com/hosts
node_id: 7f
api_key_file: /k
keyring: {passphrase_file: /p}
docker: {host: "unix:///run/docker.sock"}
relay: {address: "[::1]:7000", token_file: /t, server_name: r, ca_file: /r.pem, public_host: p}
offer: {gpus: none, cpu_cores: 3.5, ram: 1536m, disk: 400g, min_price_per_gpu_hour: 0.35, currency: CHF}
limits: {pids: 64, max_ports: 2, max_shm: 8g, stop_grace: 1m30s}
images: {allow_loopback_registry: true}
speedtest: {server: speedtest.net, max_data: 20m, max_time: 5s}
heartbeat: 1s
desktop: {notifications: false}
log: {level: debug, format: json, file: /l}
`)
	first := load(t, config.Sources{File: file, Environ: environ})
	for _, s := range first.Explain() {
		if s.Key != "HOST_API_KEY" {
			environ = append(environ, s.Env+"="+s.Value)
		}
	}
	second := load(t, config.Sources{File: write(t, t.TempDir(), "agent.yaml", ""), Environ: environ})
	second.File = first.File
	if diff := cmp.Diff(first, second, cmpopts.IgnoreUnexported(config.Config{}), cmp.Comparer(sameSecret)); diff != "" {
		t.Errorf("what was shown reads back differently:\n%s", diff)
	}
	if first.Log.Level != slog.LevelDebug || first.Limits.StopGrace != 90*time.Second || first.Offer.RAMBytes != 1536<<20 {
		t.Errorf("got %+v", first)
	}
}

func TestAPI(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want string }{
		{"none", "", ""},
		{"the backend's own", "backend: {url: 'wss://a.example.com:8443/v1/agent?x=y'}", "https://a.example.com:8443"},
		{"by name", "backend: {url: 'wss://a.example.com', api_url: 'https://api.example.com/x/'}", "https://api.example.com/x"},
		{"in plain text", "backend: {url: 'ws://[::1]:8080/agent', allow_plaintext_loopback: true}", "http://[::1]:8080"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, environ := home(t)
			c := load(t, config.Sources{File: write(t, dir, "agent.yaml", tt.yaml), Environ: environ})
			if got := c.API(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzFile(f *testing.F) {
	example, err := os.ReadFile("../../agent.yaml.example")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Add("offer: {gpus: [0, 1], ram: 28g}\n")
	f.Add("a: &x b\nc: *x\n<<: *x\n? k\n: v\n---\n!!t x\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content string) {
		path := filepath.Join(dir, fmt.Sprintf("%d.yaml", os.Getpid()))
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(config.Sources{File: path, Environ: []string{"HOME=" + dir}})
		if (c == nil) == (err == nil) {
			t.Errorf("got %v and %v", c, err)
		}
	})
}

func TestWriteFirst(t *testing.T) {
	dir, environ := home(t)
	path := filepath.Join(dir, "new", "agent.yaml")
	src := config.Sources{File: path, Environ: environ, Flags: []config.Flag{
		{Key: "state_dir", Name: "--state-dir", Value: filepath.Join(dir, "elsewhere")},
		{Key: "offer.gpus", Name: "--gpus", Value: "1,0"},
		{Key: "backend.url", Name: "--backend", Value: "wss://a.example.com/agent"},
		{Key: "offer.ram", Name: "--ram", Value: "8g"},
	}}
	if got, err := src.WriteFirst(); err != nil || got != path {
		t.Fatalf("got %q, %v", got, err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "backend:\n  url: \"wss://a.example.com/agent\"\nstate_dir: " + fmt.Sprintf("%q", filepath.Join(dir, "elsewhere")) + "\noffer:\n  gpus: \"0,1\"\n  ram: \"8g\"\n"
	if _, got, _ := strings.Cut(string(content), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	c := load(t, config.Sources{File: path})
	if c.Backend.URL != "wss://a.example.com/agent" || c.Offer.RAMBytes != 8<<30 || len(c.Offer.GPUs.Indices) != 2 {
		t.Errorf("read back as %+v", c)
	}
	src.Flags[2].Value = "wss://b.example.com"
	if got, err := src.WriteFirst(); err != nil || got != "" {
		t.Errorf("a second time: got %q, %v", got, err)
	}
	src.File, src.Flags[2].Value = filepath.Join(dir, "bad.yaml"), "ws://b.example.com"
	if _, err := src.WriteFirst(); err == nil || !strings.HasPrefix(err.Error(), "flag --backend: backend.url: takes wss://; ws://") {
		t.Errorf("plain text: got %v", err)
	}
	if _, err := os.Stat(src.File); err == nil {
		t.Error("what is not taken was written down")
	}
}
