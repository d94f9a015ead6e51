package docker

import (
	"path"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/image"

	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	maxVolumes  = 32 // each is a directory on the host that has to be counted and removed
	maxPathSize = 4096
)

// luggage is what an image brings along that the policy has a word on. An image is made by whoever the renter trusts,
// so it is as hostile as the renter may be.
type luggage struct {
	OS, Architecture string // "" where the image does not say
	WorkingDir       string
	Volumes          []string
	Variables        []string // names, without values
	Labels           []string // names
}

// luggageOf reads what the engine says of an image.
func luggageOf(found image.InspectResponse) luggage {
	brought := luggage{OS: found.Os, Architecture: found.Architecture}
	if found.Config == nil {
		return brought
	}
	brought.WorkingDir = found.Config.WorkingDir
	for place := range found.Config.Volumes {
		brought.Volumes = append(brought.Volumes, place)
	}
	for _, entry := range found.Config.Env {
		name, _, _ := strings.Cut(entry, "=")
		brought.Variables = append(brought.Variables, name)
	}
	for name := range found.Config.Labels {
		brought.Labels = append(brought.Labels, name)
	}
	slices.Sort(brought.Volumes)
	slices.Sort(brought.Labels)
	return brought
}

// checkImage refuses images whose configuration reaches for the host or does not run on it. Runtimes enter the
// working directory and make mount points while they still hold handles of the host, which /proc and /dev lead
// to: CVE-2024-21626, CVE-2025-31133, CVE-2025-52565. What an image asks of its builders (ONBUILD) is for them alone,
// and its health check is replaced by none.
func checkImage(brought luggage, architecture string) *rental.Failure {
	switch {
	case brought.OS != "" && brought.OS != "linux":
		return forbidden("The image is for %.40q; rentals run on linux.", brought.OS)
	case brought.Architecture != "" && architecture != "" && brought.Architecture != architecture:
		return forbidden("The image is for %.40q machines; this one is %s.", brought.Architecture, architecture)
	case isOdd(brought.WorkingDir) || intoKernel(brought.WorkingDir):
		return forbidden("The image's working directory is below /proc, /sys or /dev, or not a path at all.")
	case len(brought.Volumes) > maxVolumes:
		return forbidden("The image declares %d volumes; at most %d are allowed.", len(brought.Volumes), maxVolumes)
	}
	for _, place := range brought.Volumes {
		if isOdd(place) || intoKernel(place) || path.Clean("/"+place) == "/" || strings.Contains(place, ":") {
			return forbidden("The image declares a volume where none may be: at the root, below /proc, /sys or /dev, or at no path at all.")
		}
	}
	return nil
}

func forbidden(format string, args ...any) *rental.Failure {
	return rental.Failf(rental.CodeImageForbidden, format, args...)
}

// isOdd reports whether a path of an image is none that a kernel would take as it stands.
func isOdd(place string) bool {
	return len(place) > maxPathSize || strings.ContainsFunc(place, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// intoKernel reports whether a path ends in or leads through a file system of the kernel's, taken from the root. Where
// it leads through, what follows is not decided by the path: links lie there.
func intoKernel(place string) bool {
	var trail []string
	for step := range strings.SplitSeq(place, "/") {
		switch step {
		case "", ".":
		case "..":
			trail = trail[:max(0, len(trail)-1)]
		default:
			trail = append(trail, step)
		}
		if len(trail) > 0 && slices.Contains([]string{"proc", "sys", "dev"}, trail[0]) {
			return true
		}
	}
	return false
}

// architectureOf is the engine's processor in the words of images.
func architectureOf(machine string) string {
	switch machine {
	case "x86_64", "amd64":
		return "amd64"
	case "aarch64", "arm64":
		return "arm64"
	case "i386", "i686":
		return "386"
	}
	if strings.HasPrefix(machine, "armv") {
		return "arm"
	}
	return machine
}
