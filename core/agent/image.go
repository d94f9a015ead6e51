package agent

import (
	_ "crypto/sha256" // digests are only understood with their hash linked in
	"net/netip"
	"regexp"
	"strings"

	"github.com/distribution/reference"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

const maxImageChars = 512

// bareID is an image's own id, whole or "sha256:…": what is in the engine's store is none of a
// renter's business, everything comes from a registry with the renter's own authorisation.
var bareID = regexp.MustCompile(`^(sha256:)?[0-9a-f]{64}$|^sha256:[0-9a-f]+$`)

// localSuffixes are names that mean something on a home or office network, not on the internet.
var localSuffixes = []string{".localhost", ".local", ".localdomain", ".lan", ".home", ".internal", ".intranet", ".corp", ".home.arpa"}

// readImage checks an image reference and gives its full form, "docker.io/library/debian:12".
func readImage(image string, limits Limits) (string, *protocol.Error) {
	if len(image) > maxImageChars || bareID.MatchString(image) {
		return "", invalid("image takes a reference such as docker.io/library/debian:12, at most %d characters, no image id", maxImageChars)
	}
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", invalid("image %.80q: takes a reference such as docker.io/library/debian:12 or one with @sha256: and a digest", image)
	}
	switch registry := reference.Domain(named); {
	case isLoopback(registry):
		if !limits.AllowLoopbackRegistry {
			return "", invalid("image: registry %.80q is this machine itself; it takes a public registry", registry)
		}
	case isLocal(registry):
		return "", invalid("image: registry %.80q is on a private network; it takes a public registry", registry)
	}
	return reference.TagNameOnly(named).String(), nil
}

func isLoopback(registry string) bool {
	host := hostOf(registry)
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// isLocal tells a registry that is, by its very name, not on the public internet.
func isLocal(registry string) bool {
	host := hostOf(registry)
	if addr, err := netip.ParseAddr(host); err == nil {
		return !isPublic(addr.Unmap())
	}
	labels := strings.Split(host, ".")
	// No top-level domain starts with a digit, but resolvers read such names as addresses: "127.1".
	if last := labels[len(labels)-1]; len(labels) == 1 || last == "" || last[0] >= '0' && last[0] <= '9' {
		return true
	}
	for _, suffix := range localSuffixes {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}

func isPublic(addr netip.Addr) bool {
	carrierGrade := netip.MustParsePrefix("100.64.0.0/10")
	return addr.IsGlobalUnicast() && !addr.IsPrivate() && !carrierGrade.Contains(addr)
}

// hostOf is a registry without its port, lower case, without the brackets of IPv6 and a final dot.
func hostOf(registry string) string {
	host := strings.ToLower(registry)
	if inner, _, ok := strings.Cut(strings.TrimPrefix(host, "["), "]"); ok {
		return inner
	}
	host, _, _ = strings.Cut(host, ":")
	return strings.TrimSuffix(host, ".")
}
