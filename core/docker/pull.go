package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"

	"github.com/distributedcompute/host-agent/core/rental"
)

// approvals are images that registries have handed out to someone without credentials.
type approvals struct {
	mu     sync.Mutex
	images map[string]string // guarded by mu; reference to image id
}

func (a *approvals) add(ref, id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.images == nil {
		a.images = make(map[string]string)
	}
	a.images[ref] = id
}

func (a *approvals) has(ref, id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.images[ref] == id
}

// Pull implements rental.Engine. An image that is here already is used as it is, but only after the
// registry has said that this renter may have it, and that it is still the one of that name: the cache holds
// other renters' private images, and the host's own. For a public image that is asked once; after that it
// costs nothing, and a tag keeps its meaning for as long as the agent runs.
func (e *Engine) Pull(ctx context.Context, ref string, auth *rental.RegistryAuth, progress func(rental.Progress)) (rental.Image, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return rental.Image{}, rental.Failf(rental.CodeInvalid, "Image %.200q is not an image reference.", ref)
	}
	named = reference.TagNameOnly(named)
	credentials, err := encodeAuth(named, auth)
	if err != nil {
		return rental.Image{}, err
	}
	found, cached, err := e.cached(ctx, named)
	if err == nil && cached && (auth != nil || !e.approved.has(named.String(), found.ID)) {
		found, cached, err = e.current(ctx, named, credentials)
	}
	if err == nil && !cached {
		found, err = e.downloaded(ctx, named, credentials, progress)
	}
	if err != nil {
		return rental.Image{}, err
	}
	if auth == nil {
		e.approved.add(named.String(), found.ID)
	}
	return found, nil
}

// encodeAuth is the form credentials have in the engine's API; "" for none.
func encodeAuth(named reference.Named, auth *rental.RegistryAuth) (string, error) {
	if auth == nil {
		return "", nil
	}
	encoded, err := registry.EncodeAuthConfig(registry.AuthConfig{
		Username: auth.Username, Password: auth.Password.Reveal(), ServerAddress: reference.Domain(named),
	})
	if err != nil {
		return "", fmt.Errorf("encoding the registry's credentials: %w", err)
	}
	return encoded, nil
}

// cached looks for an image among those on this host. Those that came from no registry are not for
// renters: they are the host's own work.
func (e *Engine) cached(ctx context.Context, named reference.Named) (rental.Image, bool, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	found, err := e.api().ImageInspect(call, localName(named))
	switch {
	case cerrdefs.IsNotFound(err):
		return rental.Image{}, false, nil
	case err != nil:
		return rental.Image{}, false, failed(ctx, "looking for the image", err)
	}
	digest := digestIn(found.RepoDigests, named)
	if digest == "" {
		return rental.Image{}, false, nil
	}
	if failure := checkImage(luggageOf(found), ""); failure != nil { // also before there is a container to be
		return rental.Image{}, false, failure
	}
	return rental.Image{ID: found.ID, Digest: digest}, true, nil
}

// localName is what the engine finds an image by: of a tag and a digest the digest counts.
func localName(named reference.Named) string {
	if digested, ok := named.(reference.Canonical); ok {
		return reference.TrimNamed(named).Name() + "@" + digested.Digest().String()
	}
	return named.String()
}

// digestIn is the digest that an image has in the repository of named.
func digestIn(digests []string, named reference.Named) string {
	for _, known := range digests {
		parsed, err := reference.ParseNormalizedNamed(known)
		if err != nil || parsed.Name() != named.Name() {
			continue
		}
		if digested, ok := parsed.(reference.Canonical); ok {
			return digested.Digest().String()
		}
	}
	return ""
}

// current asks the registry which image it would hand out, and looks for that among those on this host.
func (e *Engine) current(ctx context.Context, named reference.Named, credentials string) (rental.Image, bool, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	said, err := e.api().DistributionInspect(call, named.String(), credentials)
	if err != nil {
		return rental.Image{}, false, e.pullFailure(ctx, named, err)
	}
	exact, err := reference.WithDigest(named, said.Descriptor.Digest)
	if err != nil {
		return rental.Image{}, false, fmt.Errorf("reading the registry's digest of %s: %w", named, err)
	}
	return e.cached(ctx, exact)
}

// downloaded gets an image that is not on this host.
func (e *Engine) downloaded(ctx context.Context, named reference.Named, credentials string, progress func(rental.Progress)) (rental.Image, error) {
	if err := e.download(ctx, named, credentials, progress); err != nil {
		return rental.Image{}, err
	}
	found, cached, err := e.cached(ctx, named)
	if err == nil && !cached {
		err = rental.Failf(rental.CodePullFailed, "Image %s was removed as soon as it had been pulled.", named)
	}
	return found, err
}

// errStalled ends a download that gets nowhere.
var errStalled = errors.New("no bytes arrived")

// fetch downloads an image and feeds the tally.
func (e *Engine) fetch(ctx context.Context, named reference.Named, credentials string, tally *tally) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(e.stall, func() { cancel(errStalled) })
	defer watchdog.Stop()
	stream, err := e.api().ImagePull(ctx, named.String(), image.PullOptions{RegistryAuth: credentials})
	if err != nil {
		return e.pullFailure(ctx, named, err)
	}
	defer stream.Close()
	for decoder := json.NewDecoder(stream); ; {
		var event pullEvent
		if err := decoder.Decode(&event); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return e.pullFailure(ctx, named, err)
		}
		if event.ErrorDetail.Message != "" {
			return e.pullFailure(ctx, named, errors.New(event.ErrorDetail.Message))
		}
		if tally.add(event) {
			watchdog.Reset(e.stall)
		}
	}
}

// pullFailure says why an image is not to be had. Registries and engines tell the reasons apart by text only
// where the download has begun.
func (e *Engine) pullFailure(ctx context.Context, named reference.Named, err error) error {
	text := strings.ToLower(err.Error())
	says := func(words ...string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(text, word) })
	}
	switch {
	case errors.Is(context.Cause(ctx), errStalled):
		return rental.Failf(rental.CodePullFailed, "No bytes of image %s arrived for %s.", named, e.stall)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case engineGone(err):
		return rental.Failf(rental.CodeDockerUnavailable, "Docker went away while pulling image %s.", named)
	case cerrdefs.IsUnauthorized(err), cerrdefs.IsPermissionDenied(err), says("denied", "unauthorized", "authentication required", "did not include a token"):
		return rental.Failf(rental.CodeImageUnauthorized,
			"The registry refuses image %s: it is private or does not exist, check its name and credentials.", named)
	case cerrdefs.IsNotFound(err), says("manifest unknown", "manifest_unknown", "name unknown", "name_unknown"):
		return rental.Failf(rental.CodeImageNotFound, "The registry has no image %s.", named)
	case says("no space left on device"):
		return rental.Failf(rental.CodeImageTooLarge, "Image %s does not fit on this host's disk.", named)
	case says("toomanyrequests", "too many requests", "http 429"):
		return rental.Failf(rental.CodePullFailed, "The registry of image %s limits this host's pulls; try again later.", named)
	case errors.Is(err, context.DeadlineExceeded):
		return rental.Failf(rental.CodePullFailed, "The registry of image %s does not answer.", named)
	default:
		e.log.Warn("pull failed", "image", named.String(), "error", err)
		return rental.Failf(rental.CodePullFailed, "Image %s could not be pulled: %s.", named, reason(err))
	}
}

// reason is the part of an engine's message that says why, free of addresses and long tails.
func reason(err error) string {
	text := err.Error()
	if at := strings.LastIndex(text, ": "); at >= 0 {
		text = text[at+2:]
	}
	return fmt.Sprintf("%.120s", strings.TrimSpace(text))
}
