package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"

	"github.com/distributedcompute/host-agent/core/rental"
)

// dockerHub is where images are that name no registry.
const dockerHub = "docker.io"

// Pull implements rental.Engine. Whatever is on this host already, the registry first says which image the
// reference stands for and that this renter may have it: the cache holds other renters' private images, and the
// host's own. Only then is the cache looked into. What is pulled, and what will run, is the very digest that the
// registry named.
func (e *Engine) Pull(ctx context.Context, ref string, auth *rental.RegistryAuth, progress func(rental.Progress)) (rental.Image, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return rental.Image{}, rental.Failf(rental.CodeInvalid, "Image %.200q is not an image reference.", ref)
	}
	order := order{asked: reference.TagNameOnly(named), auth: auth}
	if refusal := e.registries.policy.Refusal(order.asked.String()); refusal != nil {
		return rental.Image{}, refusal
	}
	if order.credentials, err = encodeAuth(order.asked, auth); err != nil {
		return rental.Image{}, err
	}
	if order.exact, err = e.resolve(ctx, order); err != nil {
		return rental.Image{}, err
	}
	sources, err := e.sources(order)
	if err != nil {
		return rental.Image{}, err
	}
	held := e.shelf.hold(sources)
	found, err := e.obtained(ctx, order, sources, progress)
	if err != nil {
		e.shelf.release(held)
		return rental.Image{}, err
	}
	e.shelf.took(held, found.ID, order)
	e.shelf.ask() // it may be more now than is kept
	return found, nil
}

// order is what is pulled for one renter.
type order struct {
	asked       reference.Named     // in full
	exact       reference.Canonical // what that stands for
	auth        *rental.RegistryAuth
	credentials string // auth as the engine takes it
}

// source is a place that an image can be pulled from.
type source struct {
	exact       reference.Canonical
	auth        *rental.RegistryAuth
	credentials string
	mirror      bool
}

// obtained is the image on this host, pulled where it was not there.
func (e *Engine) obtained(ctx context.Context, order order, sources []source, progress func(rental.Progress)) (rental.Image, error) {
	for _, from := range sources {
		if found, cached, err := e.cached(ctx, from.exact); cached || err != nil {
			return found, err
		}
	}
	var err error
	for i, from := range sources {
		work := func(ctx context.Context, t *tally) error { return e.fetch(ctx, order, from, t) }
		err = e.download(ctx, downloadKey{from.exact.String(), from.credentials}, work, progress)
		if err == nil {
			found, cached, err := e.cached(ctx, from.exact)
			if err == nil && !cached {
				err = rental.Failf(rental.CodePullFailed, "Image %s was removed as soon as it had been pulled.", order.asked)
			}
			return found, err
		}
		if ctx.Err() != nil || isUnavailable(err) || hasCode(err, rental.CodeImageTooLarge) {
			return rental.Image{}, err
		}
		if i+1 < len(sources) {
			e.log.Info("the mirror has failed; pulling from the registry itself", "image", order.asked.String(), "error", err)
		}
	}
	return rental.Image{}, err
}

// resolve asks the registry which image an order stands for. Where it cannot say, the owner's mirror may, for those
// who order without credentials.
func (e *Engine) resolve(ctx context.Context, order order) (reference.Canonical, error) {
	direct := inquiry{registries: &e.registries, named: order.asked, asked: order.asked, auth: order.auth, tries: registryTries}
	mirrored := e.mirrored(order.asked)
	if mirrored == nil || order.auth != nil {
		return direct.resolve(ctx)
	}
	hasty := direct
	hasty.tries = 1
	exact, err := hasty.resolve(ctx)
	if !hasCode(err, rental.CodePullFailed) {
		return exact, err
	}
	mirror := inquiry{registries: &e.registries, named: mirrored, asked: order.asked, trusted: true, tries: 1}
	if there, err := mirror.resolve(ctx); err == nil {
		return exactly(order.asked, there.Digest().String())
	}
	return direct.resolve(ctx)
}

// mirrored is what an image of Docker Hub is called at the owner's mirror; nil where there is none.
func (e *Engine) mirrored(named reference.Named) reference.Named {
	if e.registries.mirror == "" || reference.Domain(named) != dockerHub {
		return nil
	}
	there, err := reference.ParseNormalizedNamed(e.registries.mirror + strings.TrimPrefix(localName(named), dockerHub))
	if err != nil {
		e.log.Warn("an image has no name at the mirror", "image", named.String(), "error", err)
		return nil
	}
	return there
}

// sources are the places an order's image can be had from, in the order in which they are tried. A mirror never sees
// a renter's credentials, and what it has under a digest is that image, or the engine does not take it.
func (e *Engine) sources(order order) ([]source, error) {
	direct := source{exact: order.exact, auth: order.auth, credentials: order.credentials}
	mirrored := e.mirrored(order.exact)
	if mirrored == nil || order.auth != nil {
		return []source{direct}, nil
	}
	exact, err := exactly(mirrored, order.exact.Digest().String())
	if err != nil {
		return nil, err
	}
	return []source{{exact: exact, mirror: true}, direct}, nil
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

// errStalled ends a download that gets nowhere.
var errStalled = errors.New("no bytes arrived")

// pullTries is how often a download is begun. The engine goes on with each layer by itself for some minutes, and
// keeps the layers that it has whole.
const pullTries = 3

// fetch has the engine download an image, and feeds the tally.
func (e *Engine) fetch(ctx context.Context, order order, from source, tally *tally) error {
	q := inquiry{registries: &e.registries, named: from.exact, asked: order.asked, auth: from.auth, trusted: from.mirror, tries: registryTries}
	if from.mirror {
		q.tries = 1
	}
	if err := e.fits(ctx, q); err != nil {
		return err
	}
	if err := e.shelf.expect(order, from, time.Now()); err != nil {
		e.log.Warn("noting an image that is being pulled", "error", err) // it will count as the owner's, and stay
	}
	wait := e.registries.tryWait
	for try := 1; ; try++ {
		err := e.stream(ctx, from, tally)
		if err == nil || !again(ctx, err) {
			return e.pullFailure(ctx, order.asked, err)
		}
		// The engine's words are not for programs to read, so the registry is asked whether it still gives the
		// image out. That also waits for as long as it limits this host.
		if _, refusal := q.resolve(ctx); refusal != nil {
			return refusal
		}
		if try == pullTries || from.mirror {
			return e.pullFailure(ctx, order.asked, err)
		}
		e.log.Info("pulling again", "image", order.asked.String(), "error", err)
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait *= 2
	}
}

// again reports whether an engine that could not pull may do so at the next try.
func again(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !engineGone(err) && !fullDisk(err)
}

// errInStream is what the engine says in the middle of a download.
type errInStream struct{ text string }

func (e *errInStream) Error() string { return e.text }

// stream has the engine download an image once, and gives up when nothing moves.
func (e *Engine) stream(ctx context.Context, from source, tally *tally) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(e.stall, func() { cancel(errStalled) })
	defer watchdog.Stop()
	events, err := e.api().ImagePull(ctx, from.exact.String(), image.PullOptions{RegistryAuth: from.credentials})
	if err != nil {
		return orCause(ctx, err)
	}
	defer events.Close()
	for decoder := json.NewDecoder(events); ; {
		var event pullEvent
		if err := decoder.Decode(&event); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return orCause(ctx, err)
		}
		if event.ErrorDetail.Message != "" {
			return &errInStream{event.ErrorDetail.Message}
		}
		if tally.add(event) {
			watchdog.Reset(e.stall)
		}
	}
}

// fullDisk reports whether an engine found no room. Only its text says so.
func fullDisk(err error) bool {
	return strings.Contains(strings.ToLower(err.Error()), "no space left on device")
}

// pullFailure says why the engine could not pull what the registry gives out; nil for no error.
func (e *Engine) pullFailure(ctx context.Context, named reference.Named, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errStalled):
		return rental.Failf(rental.CodePullFailed, "No bytes of image %s arrived for %s.", named, e.stall)
	case engineGone(err):
		return rental.Failf(rental.CodeDockerUnavailable, "Docker went away while pulling image %s.", named)
	case fullDisk(err):
		return rental.Failf(rental.CodeImageTooLarge, "Image %s does not fit on this host's disk.", named)
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
