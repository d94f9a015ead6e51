// Package config is what the operator wants: agent.yaml, then .env, then the environment, then
// flags, where the later wins.
//
// One table ([keys]) names every setting, what it takes and where its value goes; the file, the
// environment, [Config.Explain] and the example file all follow it. What does not fit the table is
// an error that says where it stands and what is taken there.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/secret"
)

// Config is the settings of one agent, complete and checked.
type Config struct {
	Backend    Backend
	SignIn     SignIn
	Dashboard  string // https address of the marketplace's pages for hosts; "": none is offered
	NodeID     string // "": the backend gives one at the first registration
	APIKeyFile string // "": other places are searched for the key
	Keyring    Keyring
	StateDir   string // absolute
	DockerHost string // "": the engine's usual socket on this system
	// AddressPool is the range that rentals' networks are taken from, "10.213.0.0/16"; "": chosen so that it meets
	// no network of the host.
	AddressPool string
	// UnsafeAllowOldEngine lists the host though its versions have known escapes.
	UnsafeAllowOldEngine bool
	Relay                Relay
	Offer                Offer
	Limits               Limits
	Isolation            Isolation
	Images               Images
	SpeedTest            SpeedTest
	Heartbeat            time.Duration // until the backend asks for another pace
	Desktop              Desktop
	Log                  Log

	// File is the agent.yaml that was read; "" where there was none.
	File string
	// APIKey is HOST_API_KEY of the environment or of .env; empty where neither has it.
	APIKey secret.String
	// APIKeyEnvFile is the .env file APIKey was read from; "" when it came from the environment.
	APIKeyEnvFile string

	origins map[string]string // key → where its value came from; a key without an entry has its default
}

// Backend says where the marketplace is.
type Backend struct {
	URL                    string // wss://…; "" while not configured
	APIURL                 string // https://…, where hosts are enrolled and keys exchanged; "": see [Config.API]
	CAFile                 string // authorities that may sign its certificate; "": the system's
	AllowPlaintextLoopback bool   // accept ws:// and http:// to a loopback address
}

// SignIn says who vouches for the person this host belongs to. Issuer and ClientID are "" where the marketplace has no
// sign-in for hosts; a key then comes another way.
type SignIn struct {
	Issuer   string // https://…, the OpenID Connect provider
	Scopes   string // what is asked for, words with spaces between
	ClientID string // this program's name there; no secret
}

// Keyring says how the host key is kept where there is no keyring of the system.
type Keyring struct {
	PassphraseFile string // what the key's file is encrypted with; "": a key of the state directory's own
}

// Desktop says how much the tray asks for attention.
type Desktop struct {
	Notifications bool
}

// Relay holds static terms of a relay, used instead of those the backend hands out.
type Relay struct {
	Address    string // host:port; "": the backend's terms are used
	TokenFile  string
	ServerName string
	CAFile     string
	PublicHost string
}

// Offer is what may be rented.
type Offer struct {
	GPUs               GPUs
	CPUCores           float64 // 0: decided from the machine
	RAMBytes           int64   // 0: decided from the machine
	DiskBytes          int64   // 0: decided from the machine
	MinPricePerGPUHour string  // decimal
	Currency           string  // three capital letters
}

// GPUs is the choice of GPUs on offer.
type GPUs struct {
	All     bool
	Indices []int // ascending; counts only where All is false
}

// Limits hold whatever was ordered.
type Limits struct {
	Rentals     int // at once
	Pids        int64
	MaxPorts    int
	MaxShmBytes int64         // 0: as much as the rental's memory
	StopGrace   time.Duration // between asking a container to end and killing it
	// DiskReserveBytes are never given away: rentals end before the host has less. 0: decided from the disk.
	DiskReserveBytes int64
}

// Isolation says what rentals may reach, and how fast.
type Isolation struct {
	AllowUnshielded      bool     // take rentals where the host's LAN cannot be kept from them
	Deny                 []string // addresses and ranges that rentals may not reach, beside those of every LAN
	Program              string   // distributed-agent-shield; "": beside this program
	MaxConnections       int      // of one rental at once
	ConnectionsPerSecond int      // new ones of one rental
	UploadMbps           int      // of one rental, 10^6 bit/s; 0: no limit
	DownloadMbps         int      // of one rental, 10^6 bit/s; 0: no limit
}

// Images says where images may come from and how many are kept.
type Images struct {
	Mirror                string   // registry that has copies of Docker Hub's images; "": none
	AllowRegistries       []string // none: all that are not denied
	DenyRegistries        []string
	CacheBytes            int64    // of images that no rental uses; 0: decided from the disk
	Keep                  []string // images that are not removed for want of space
	AllowLoopbackRegistry bool     // take images from a registry on this very machine
}

// SpeedTest says how the network may be measured.
type SpeedTest struct {
	Server   string        // URL of its upload call, "speedtest.net" for the public network, "" for no speed test
	MaxBytes int64         // both directions together
	MaxTime  time.Duration // of one direction
}

// Log says what is logged.
type Log struct {
	Level  slog.Level
	Format string // "text" or "json"
	File   string // where it goes besides standard error; "": nowhere
}

// Default is the configuration of an operator who says nothing.
func Default() *Config {
	return &Config{
		SignIn: SignIn{Scopes: "openid profile email host:enroll"},
		Offer: Offer{
			GPUs:               GPUs{All: true},
			MinPricePerGPUHour: "0",
			Currency:           "USD",
		},
		Limits:    Limits{Rentals: 24, Pids: 4096, MaxPorts: 32, StopGrace: 30 * time.Second},
		Isolation: Isolation{MaxConnections: 2000, ConnectionsPerSecond: 200},
		SpeedTest: SpeedTest{MaxBytes: 250 << 20, MaxTime: 15 * time.Second},
		Heartbeat: 5 * time.Second,
		Desktop:   Desktop{Notifications: true},
		Log:       Log{Level: slog.LevelInfo, Format: "text"},
	}
}

// Load reads every source and returns the configuration, or all that is wrong with it.
func Load(src Sources) (*Config, error) {
	given, err := src.gather()
	if err != nil {
		return nil, err
	}
	c, problems := given.config()
	c.File = given.file
	c.APIKey, c.APIKeyEnvFile = given.apiKey, given.apiKeyFile
	if !c.APIKey.Empty() {
		c.origins[apiKeyName] = cmp.Or(c.APIKeyEnvFile, "environment")
	}
	if c.StateDir == "" {
		dir, err := src.defaultStateDir()
		problems = append(problems, err)
		c.StateDir = dir
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return c, nil
}

// config applies the settings to the defaults and says what is wrong with them.
func (g given) config() (*Config, []error) {
	c := Default()
	c.origins = map[string]string{}
	problems := g.problems
	for _, s := range g.settings {
		problems = append(problems, c.apply(s))
	}
	return c, append(problems,
		c.checkPlaintext("backend.url", c.Backend.URL, "wss", "ws"),
		c.checkPlaintext("backend.api_url", c.Backend.APIURL, "https", "http"),
		c.checkPlaintext("sign_in.issuer", c.SignIn.Issuer, "https", "http"),
	)
}

// API is the address of the marketplace's HTTP API, without a path of its own: backend.api_url, or else
// that of the backend itself; "" while neither is configured.
func (c *Config) API() string {
	if c.Backend.APIURL != "" {
		return strings.TrimRight(c.Backend.APIURL, "/")
	}
	u, err := url.Parse(c.Backend.URL)
	if err != nil || u.Host == "" {
		return ""
	}
	scheme := "https"
	if u.Scheme == "ws" {
		scheme = "http"
	}
	return (&url.URL{Scheme: scheme, Host: u.Host}).String()
}

// StateDir finds the directory of the agent's state alone, so that a mistake elsewhere in the
// configuration does not keep anyone from asking or stopping a running agent.
func StateDir(src Sources) (string, error) {
	given, err := src.gather()
	if err != nil {
		return "", err
	}
	given.settings = slices.DeleteFunc(given.settings, func(s setting) bool { return s.key.name != stateDirKey })
	if len(given.settings) == 0 && given.noStateDir != nil {
		return "", given.noStateDir
	}
	given.problems = nil
	c, problems := given.config()
	if err := errors.Join(problems...); err != nil {
		return "", err
	}
	if c.StateDir != "" {
		return c.StateDir, nil
	}
	return src.defaultStateDir()
}

func (c *Config) apply(s setting) error {
	text := s.text
	if s.key.path && text != "" {
		text = s.resolve(text)
	}
	if !s.key.bind(c).set(text) {
		return fmt.Errorf("%s: takes %s, got %q", s.place, s.key.takes, withoutCredentials(s.text))
	}
	c.origins[s.key.name] = s.origin
	return nil
}

var credentials = regexp.MustCompile(`//.*@`)

// withoutCredentials takes a user name and a password out of what may have been meant as an address.
func withoutCredentials(text string) string {
	return credentials.ReplaceAllLiteralString(text, "//[redacted]@")
}

// checkPlaintext refuses plain text: it would show keys, sign-ins and the renters' orders to everyone on
// the way.
func (c *Config) checkPlaintext(key, value, safe, plain string) error {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != plain {
		return nil // safe, or nothing yet: the key's own check has seen to it
	}
	if !c.Backend.AllowPlaintextLoopback {
		return fmt.Errorf("%s: %s: takes %s://; %s:// would send keys in plain text", c.origins[key], key, safe, plain)
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil || !addr.IsLoopback() {
		return fmt.Errorf("%s: %s: %s:// is allowed to a loopback address only, such as %s://127.0.0.1:8080, got %q", c.origins[key], key, plain, plain, value)
	}
	return nil
}
