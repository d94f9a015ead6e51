package config

import (
	"slices"
	"strings"
	"time"
)

const (
	envPrefix   = "DISTRIBUTED_AGENT_"
	apiKeyName  = "HOST_API_KEY"
	configName  = envPrefix + "CONFIG" // names the file itself, so it is no key in it
	stateDirKey = "state_dir"
)

// key is one setting. Its name in agent.yaml is the path through the sections; the environment's
// is derived from it.
type key struct {
	name  string // "offer.cpu_cores"
	takes string // completes the sentence "takes …"
	path  bool   // a file or directory; relative to where it was written down
	list  bool   // a YAML list is taken too
	bind  func(*Config) binding
}

// binding reads and writes one field of a Config as text.
type binding struct {
	set  func(text string) bool // false: not taken
	show func() string
}

func (k key) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

// keys is every setting, in the order of the example file.
var keys = []key{
	{name: "backend.url", takes: "a wss:// address without user name or fragment", bind: func(c *Config) binding { return address(&c.Backend.URL, "wss", "ws") }},
	{name: "backend.api_url", takes: "an https:// address without user name, query or fragment", bind: func(c *Config) binding { return webAddress(&c.Backend.APIURL, "https", "http") }},
	{name: "backend.ca_file", takes: "a path", path: true, bind: func(c *Config) binding { return text(&c.Backend.CAFile, anything) }},
	{name: "backend.allow_plaintext_loopback", takes: "true or false", bind: func(c *Config) binding { return boolean(&c.Backend.AllowPlaintextLoopback) }},
	{name: "sign_in.issuer", takes: "an https:// address without user name, query or fragment", bind: func(c *Config) binding { return webAddress(&c.SignIn.Issuer, "https", "http") }},
	{name: "sign_in.scopes", takes: "words of printable characters, with spaces between", bind: func(c *Config) binding { return text(&c.SignIn.Scopes, isScopes) }},
	{name: "sign_in.client_id", takes: "up to 256 printable characters without spaces", bind: func(c *Config) binding { return text(&c.SignIn.ClientID, isClientID) }},
	{name: "dashboard", takes: "an https:// address without user name or fragment", bind: func(c *Config) binding { return address(&c.Dashboard, "https") }},
	{name: "node_id", takes: "up to 128 letters, digits, '-', '_', '.' or ':'", bind: func(c *Config) binding { return text(&c.NodeID, isNodeID) }},
	{name: "api_key_file", takes: "a path", path: true, bind: func(c *Config) binding { return text(&c.APIKeyFile, anything) }},
	{name: "keyring.passphrase_file", takes: "a path", path: true, bind: func(c *Config) binding { return text(&c.Keyring.PassphraseFile, anything) }},
	{name: stateDirKey, takes: "a path", path: true, bind: func(c *Config) binding { return text(&c.StateDir, anything) }},
	{name: "docker.host", takes: "unix:///path/to/docker.sock or npipe:////./pipe/name", bind: func(c *Config) binding { return text(&c.DockerHost, isDockerHost) }},
	{name: "docker.address_pool", takes: `a private IPv4 range from /8 to /24 such as "10.213.0.0/16", or "" (automatic)`, bind: func(c *Config) binding { return text(&c.AddressPool, isAddressPool) }},
	{name: "unsafe_allow_old_engine", takes: "true or false", bind: func(c *Config) binding { return boolean(&c.UnsafeAllowOldEngine) }},
	{name: "relay.address", takes: "host:port", bind: func(c *Config) binding { return text(&c.Relay.Address, isHostPort) }},
	{name: "relay.token_file", takes: "a path", path: true, bind: func(c *Config) binding { return text(&c.Relay.TokenFile, anything) }},
	{name: "relay.server_name", takes: "a host name", bind: func(c *Config) binding { return text(&c.Relay.ServerName, isHost) }},
	{name: "relay.ca_file", takes: "a path", path: true, bind: func(c *Config) binding { return text(&c.Relay.CAFile, anything) }},
	{name: "relay.public_host", takes: "a host name", bind: func(c *Config) binding { return text(&c.Relay.PublicHost, isHost) }},
	{name: "offer.gpus", takes: "all, none, or a list of GPU numbers such as [0, 1]", list: true, bind: func(c *Config) binding { return gpus(&c.Offer.GPUs) }},
	{name: "offer.cpu_cores", takes: "a number from 0 (automatic) to 1024", bind: func(c *Config) binding { return number(&c.Offer.CPUCores, 0, 1024) }},
	{name: "offer.ram", takes: `a size such as "28g", or "" (automatic)`, bind: func(c *Config) binding { return size(&c.Offer.RAMBytes) }},
	{name: "offer.disk", takes: `a size such as "400g", or "" (automatic)`, bind: func(c *Config) binding { return size(&c.Offer.DiskBytes) }},
	{name: "offer.min_price_per_gpu_hour", takes: `a decimal number such as "0.35"`, bind: func(c *Config) binding { return text(&c.Offer.MinPricePerGPUHour, isDecimal) }},
	{name: "offer.currency", takes: "three capital letters such as USD", bind: func(c *Config) binding { return text(&c.Offer.Currency, isCurrency) }},
	{name: "limits.rentals", takes: "a whole number from 1 to 256", bind: func(c *Config) binding { return whole(&c.Limits.Rentals, 1, 256) }},
	{name: "limits.pids", takes: "a whole number from 16 to 1000000", bind: func(c *Config) binding { return whole(&c.Limits.Pids, 16, 1_000_000) }},
	{name: "limits.max_ports", takes: "a whole number from 1 to 64", bind: func(c *Config) binding { return whole(&c.Limits.MaxPorts, 1, 64) }},
	{name: "limits.max_shm", takes: `a size such as "8g", or "" (the rental's memory)`, bind: func(c *Config) binding { return size(&c.Limits.MaxShmBytes) }},
	{name: "limits.stop_grace", takes: "a time from 1s to 10m such as 30s", bind: func(c *Config) binding { return duration(&c.Limits.StopGrace, time.Second, 10*time.Minute) }},
	{name: "limits.disk_reserve", takes: `a size such as "20g", or "" (automatic)`, bind: func(c *Config) binding { return size(&c.Limits.DiskReserveBytes) }},
	{name: "isolation.allow_unshielded", takes: "true or false", bind: func(c *Config) binding { return boolean(&c.Isolation.AllowUnshielded) }},
	{name: "isolation.deny", takes: `IP addresses and ranges such as ["203.0.113.7", "2001:db8::/32"], or none`, list: true, bind: func(c *Config) binding { return words(&c.Isolation.Deny, isPrefix) }},
	{name: "isolation.program", takes: "a path", path: true, bind: func(c *Config) binding { return text(&c.Isolation.Program, anything) }},
	{name: "isolation.max_connections", takes: "a whole number from 16 to 1000000", bind: func(c *Config) binding { return whole(&c.Isolation.MaxConnections, 16, 1_000_000) }},
	{name: "isolation.connections_per_second", takes: "a whole number from 1 to 100000", bind: func(c *Config) binding { return whole(&c.Isolation.ConnectionsPerSecond, 1, 100_000) }},
	{name: "isolation.upload_mbps", takes: "a whole number from 0 (no limit) to 400000", bind: func(c *Config) binding { return whole(&c.Isolation.UploadMbps, 0, 400_000) }},
	{name: "isolation.download_mbps", takes: "a whole number from 0 (no limit) to 400000", bind: func(c *Config) binding { return whole(&c.Isolation.DownloadMbps, 0, 400_000) }},
	{name: "images.mirror", takes: `host or host:port, or "" (none)`, bind: func(c *Config) binding { return text(&c.Images.Mirror, isMirror) }},
	{name: "images.allow_registries", takes: "registries such as [docker.io, ghcr.io/owner], or none", list: true, bind: func(c *Config) binding { return words(&c.Images.AllowRegistries, isRegistry) }},
	{name: "images.deny_registries", takes: "registries such as [docker.io, ghcr.io/owner], or none", list: true, bind: func(c *Config) binding { return words(&c.Images.DenyRegistries, isRegistry) }},
	{name: "images.cache", takes: `a size such as "100g", or "" (automatic)`, bind: func(c *Config) binding { return size(&c.Images.CacheBytes) }},
	{name: "images.keep", takes: "images such as [pytorch/pytorch], or none", list: true, bind: func(c *Config) binding { return words(&c.Images.Keep, isImage) }},
	{name: "images.allow_loopback_registry", takes: "true or false", bind: func(c *Config) binding { return boolean(&c.Images.AllowLoopbackRegistry) }},
	{name: "speedtest.server", takes: `a http:// or https:// address, speedtest.net, or "" (no speed test)`, bind: func(c *Config) binding { return speedTestServer(&c.SpeedTest.Server) }},
	{name: "speedtest.max_data", takes: `a size from 16m to 10g such as "250m"`, bind: func(c *Config) binding { return sizeWithin(&c.SpeedTest.MaxBytes, 16<<20, 10<<30) }},
	{name: "speedtest.max_time", takes: "a time from 1s to 30s such as 15s", bind: func(c *Config) binding { return duration(&c.SpeedTest.MaxTime, time.Second, 30*time.Second) }},
	{name: "heartbeat", takes: "a time from 1s to 60s such as 5s", bind: func(c *Config) binding { return duration(&c.Heartbeat, time.Second, time.Minute) }},
	{name: "desktop.notifications", takes: "true or false", bind: func(c *Config) binding { return boolean(&c.Desktop.Notifications) }},
	{name: "log.level", takes: "debug, info, warn or error", bind: func(c *Config) binding { return level(&c.Log.Level) }},
	{name: "log.format", takes: "text or json", bind: func(c *Config) binding { return oneOf(&c.Log.Format, "text", "json") }},
	{name: "log.file", takes: "a path", path: true, bind: func(c *Config) binding { return text(&c.Log.File, anything) }},
}

func findKey(name string) (key, bool) {
	i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
	if i < 0 {
		return key{}, false
	}
	return keys[i], true
}

// within lists what stands directly in a section; "" is the file itself.
func within(section string) []string {
	var names []string
	for _, k := range keys {
		rest, ok := strings.CutPrefix(k.name, section)
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
