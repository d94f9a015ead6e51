package agent

import (
	_ "crypto/sha256" // digests are only understood with their hash linked in
	"regexp"

	"github.com/distribution/reference"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

const maxImageChars = 512

// bareID is an image's own id, whole or "sha256:…": what is in the engine's store is none of a
// renter's business, everything comes from a registry with the renter's own authorisation.
var bareID = regexp.MustCompile(`^(sha256:)?[0-9a-f]{64}$|^sha256:[0-9a-f]+$`)

// readImage checks an image reference and gives its full form, "docker.io/library/debian:12".
func readImage(image string, limits Limits) (string, *protocol.Error) {
	if len(image) > maxImageChars || bareID.MatchString(image) {
		return "", invalid("image takes a reference such as docker.io/library/debian:12, at most %d characters, no image id", maxImageChars)
	}
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", invalid("image %.80q: takes a reference such as docker.io/library/debian:12 or one with @sha256: and a digest", image)
	}
	full := reference.TagNameOnly(named).String()
	if refusal := limits.Registries.Refusal(full); refusal != nil {
		return "", refuse(protocol.ErrorCode(refusal.Code), "image: %s", refusal.Message)
	}
	return full, nil
}
