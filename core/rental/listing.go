package rental

import (
	"net/netip"
	"slices"
	"strings"
)

// Registries says which registries a host takes images from: public ones, as far as its owner lets them.
type Registries struct {
	// Allow and Deny hold registries, "docker.io", or parts of them, "ghcr.io/owner". Without a port an entry
	// stands for every port of its host. No entry in Allow: from all. Deny counts for more than Allow.
	Allow, Deny []string
	// Loopback lets images come from a registry on this very machine, as they do in a sandbox.
	Loopback bool
}

// localSuffixes are names that mean something on a home or office network, not on the internet.
var localSuffixes = []string{".localhost", ".local", ".localdomain", ".lan", ".home", ".internal", ".intranet", ".corp", ".home.arpa"}

// dockerHub are the names of Docker Hub, which images give as docker.io.
var dockerHub = []string{"docker.io", "index.docker.io", "registry-1.docker.io", "registry.docker.io", "registry.hub.docker.com", "hub.docker.com"}

// Refusal says why this host does not take an image, whose name is in its full form, "docker.io/library/debian:12";
// nil when it does. It goes by the name alone: what the registry's name resolves to is for whoever connects.
func (r Registries) Refusal(image string) *Failure {
	registry, _, _ := strings.Cut(image, "/")
	switch {
	case IsLoopbackHost(registry) && !r.Loopback:
		return Failf(CodeInvalid, "Registry %.80q is this machine itself; image takes a public registry.", registry)
	case !IsLoopbackHost(registry) && isLocalHost(registry):
		return Failf(CodeInvalid, "Registry %.80q is on a private network; image takes a public registry.", registry)
	}
	covers := func(entry string) bool { return covers(entry, image) }
	if slices.ContainsFunc(r.Deny, covers) || len(r.Allow) > 0 && !slices.ContainsFunc(r.Allow, covers) {
		return Failf(CodeImageForbidden, "The owner of this host takes no images from %.200s.", repositoryOf(image))
	}
	return nil
}

// covers reports whether an image is from what an entry names, segment by segment.
func covers(entry, image string) bool {
	entryHost, entryPath, _ := strings.Cut(strings.TrimSuffix(entry, "/"), "/")
	host, path, _ := strings.Cut(repositoryOf(image), "/")
	if _, port := splitHost(entryHost); port == "" {
		host, _ = splitHost(host)
	}
	return plainHost(entryHost) == plainHost(host) &&
		(entryPath == "" || path == entryPath || strings.HasPrefix(path, entryPath+"/"))
}

// repositoryOf is an image's name without its tag and digest.
func repositoryOf(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if colon := strings.LastIndexByte(image, ':'); colon > strings.LastIndexByte(image, '/') {
		image = image[:colon]
	}
	return image
}

// plainHost gives the names of one registry one form.
func plainHost(registry string) string {
	host, port := splitHost(registry)
	if slices.Contains(dockerHub, host) {
		host = dockerHub[0]
	}
	if port == "" || port == "443" { // which is where a registry is, unless it says otherwise
		return host
	}
	return host + ":" + port
}

// IsLoopbackHost tells a registry, "host" or "host:port", that is by its very name on this machine.
func IsLoopbackHost(registry string) bool {
	host, _ := splitHost(registry)
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// isLocalHost tells a registry that is, by its very name, not on the public internet.
func isLocalHost(registry string) bool {
	host, _ := splitHost(registry)
	if addr, err := netip.ParseAddr(host); err == nil {
		return !IsPublic(addr)
	}
	labels := strings.Split(host, ".")
	// No top-level domain starts with a digit, but resolvers read such names as addresses: "127.1".
	if last := labels[len(labels)-1]; len(labels) == 1 || last == "" || last[0] >= '0' && last[0] <= '9' {
		return true
	}
	return slices.ContainsFunc(localSuffixes, func(suffix string) bool { return strings.HasSuffix(host, suffix) })
}

// splitHost gives a registry's host, lower case, without the brackets of IPv6 and a final dot, and its port; "" for
// none.
func splitHost(registry string) (host, port string) {
	host = strings.ToLower(registry)
	if inner, rest, ok := strings.Cut(strings.TrimPrefix(host, "["), "]"); ok {
		return inner, strings.TrimPrefix(rest, ":")
	}
	host, port, _ = strings.Cut(host, ":")
	return strings.TrimSuffix(host, "."), port
}
