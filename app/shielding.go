package main

import (
	"net/netip"
	"os"
	"path/filepath"

	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/shield"
)

// shieldProgram is what changes the packet filter where the agent may not. It is a program for Linux on every system: it
// runs in a container.
const shieldProgram = "distributed-agent-shield"

// shielding is how the owner wants rentals kept off the LAN.
func shielding(settings config.Isolation) *docker.Shielding {
	const bytesPerMbps = 1e6 / 8
	return &docker.Shielding{
		Policy: shield.Policy{
			Deny:           denied(settings.Deny),
			MaxConnections: uint32(settings.MaxConnections),
			PerSecond:      uint32(settings.ConnectionsPerSecond),
			Upload:         uint64(settings.UploadMbps) * bytesPerMbps,
			Download:       uint64(settings.DownloadMbps) * bytesPerMbps,
		},
		AllowUnshielded: settings.AllowUnshielded,
		Program:         besideThis(settings.Program),
	}
}

// denied reads what the configuration has checked. IPv6 is left out: rentals have none.
func denied(texts []string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				continue
			}
			prefix = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		}
		if prefix.Addr().Is4() {
			prefixes = append(prefixes, prefix.Masked())
		}
	}
	return prefixes
}

// besideThis is the program that was named, or the one beside this.
func besideThis(named string) string {
	if named != "" {
		return named
	}
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	return filepath.Join(filepath.Dir(self), shieldProgram)
}
