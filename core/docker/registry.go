package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	maxRegistryAnswer = 4 << 20 // bytes of a manifest, which is what registries take at most
	maxHeaderBytes    = 64 << 10
	dialWithin        = 10 * time.Second

	registryTries  = 4 // of what may pass: no connection, an answer of 5xx
	firstTryAgain  = time.Second
	limitedPause   = 15 * time.Second // after an answer of 429 that names no time, doubled from time to time
	longestLimited = 2 * time.Minute
)

// registries asks image registries what they have, and for whom.
type registries struct {
	policy  rental.Registries
	mirror  string            // of Docker Hub; "": none
	public  http.RoundTripper // to what orders name
	owners  http.RoundTripper // to the mirror, which its owner may have at home
	log     *slog.Logger
	tryWait time.Duration        // firstTryAgain
	within  func() time.Duration // the bound of one question
}

func newRegistries(policy rental.Registries, mirror string, log *slog.Logger) registries {
	return registries{
		policy: policy, mirror: mirror, log: log, tryWait: firstTryAgain,
		public: newRegistryTransport(policy.Loopback, rental.IsPublic),
		owners: newRegistryTransport(rental.IsLoopbackHost(mirror), func(netip.Addr) bool { return true }),
	}
}

var (
	errNotPublic = errors.New("the address is not one of the internet")
	errNoTLS     = errors.New("the way leads over a connection without TLS")
	errTooMuch   = errors.New("the answer is too large")
)

// registryTransport carries questions to registries, and wherever those send them on to, within limits: over TLS, to
// addresses that are allowed, answers of a bounded size.
type registryTransport struct {
	next     *http.Transport
	loopback bool // registries of this machine may be asked, without TLS too
}

func newRegistryTransport(loopback bool, allowed func(netip.Addr) bool) *registryTransport {
	// No proxy: whether an address is public could not be told then.
	return &registryTransport{loopback: loopback, next: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			local := loopback && rental.IsLoopbackHost(address)
			dialer := net.Dialer{Timeout: dialWithin, Control: func(_, resolved string, _ syscall.RawConn) error {
				// What the name stands for is looked at when it has been resolved for this very connection.
				to, err := netip.ParseAddrPort(resolved)
				if err != nil || !(local && to.Addr().Unmap().IsLoopback() || allowed(to.Addr())) {
					return errNotPublic
				}
				return nil
			}}
			return dialer.DialContext(ctx, network, address)
		},
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    dialWithin,
		ResponseHeaderTimeout:  callWithin,
		IdleConnTimeout:        time.Minute,
		MaxIdleConnsPerHost:    2,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}}
}

// RoundTrip implements http.RoundTripper.
func (t *registryTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Scheme != "https" && !(t.loopback && rental.IsLoopbackHost(request.URL.Host)) {
		return nil, errNoTLS
	}
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = &boundedBody{response.Body, maxRegistryAnswer}
	return response, nil
}

// boundedBody fails where an answer is longer than it may be.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooMuch
	}
	return n, err
}

// hearing notes what a registry says of when to come again.
type hearing struct {
	http.RoundTripper
	again atomic.Int64 // nanoseconds; 0: nothing was said
}

// RoundTrip implements http.RoundTripper.
func (h *hearing) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := h.RoundTripper.RoundTrip(request)
	if err == nil && response.StatusCode >= 400 {
		h.again.Store(int64(retryAfter(response.Header.Get("Retry-After"), time.Now())))
	}
	return response, err
}

// retryAfter reads the header of that name: seconds or a date. 0: it says nothing.
func retryAfter(text string, now time.Time) time.Duration {
	const most = 24 * time.Hour
	if seconds, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, most)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), most)
	}
	return 0
}

// inquiry is a question to one registry about one image, with one renter's authorisation.
type inquiry struct {
	registries *registries
	named      reference.Named // where it is asked for
	asked      reference.Named // what the order says, for people
	auth       *rental.RegistryAuth
	trusted    bool // the registry is the owner's mirror
	tries      int  // of what may pass; 1: another place knows the answer, too
}

// resolve asks which image a reference stands for now. The registry answers this renter, whatever is on this host: no
// other answer says that the renter may have the image.
func (q inquiry) resolve(ctx context.Context) (reference.Canonical, error) {
	var found v1.Hash
	err := q.ask(ctx, func(ctx context.Context, puller *remote.Puller, ref name.Reference) error {
		head, err := puller.Head(ctx, ref)
		if err == nil {
			found = head.Digest
			return nil
		}
		if plain, ok := errors.AsType[*transport.Error](err); ctx.Err() != nil || ok && final(plain.StatusCode) {
			return err
		}
		whole, err := puller.Get(ctx, ref) // some registries answer HEAD wrongly or without a digest
		if err == nil {
			found = whole.Digest
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return exactly(q.named, found.String())
}

// exactly is the image with a digest in the repository of named.
func exactly(named reference.Named, digest string) (reference.Canonical, error) {
	exact, err := reference.ParseNormalizedNamed(named.Name() + "@" + digest)
	if err != nil {
		return nil, fmt.Errorf("naming %s by its digest: %w", named, err)
	}
	canonical, ok := exact.(reference.Canonical)
	if !ok {
		return nil, fmt.Errorf("naming %s by its digest: %q is none", named, digest)
	}
	return canonical, nil
}

// final tells the answers that asking in another way does not change.
func final(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusTooManyRequests || status >= 500
}

// weigh asks for the parts of an image for a platform.
func (q inquiry) weigh(ctx context.Context, platform v1.Platform) (manifest *v1.Manifest, err error) {
	err = q.askImage(ctx, platform, func(image v1.Image) error {
		manifest, err = image.Manifest()
		return err
	})
	return manifest, err
}

// configuration asks for that of an image for a platform.
func (q inquiry) configuration(ctx context.Context, platform v1.Platform) (config *v1.ConfigFile, err error) {
	err = q.askImage(ctx, platform, func(image v1.Image) error {
		config, err = image.ConfigFile()
		return err
	})
	return config, err
}

// askImage lets read have an image, which is good for as long as read takes.
func (q inquiry) askImage(ctx context.Context, platform v1.Platform, read func(v1.Image) error) error {
	return q.ask(ctx, func(ctx context.Context, puller *remote.Puller, ref name.Reference) error {
		whole, err := puller.Get(ctx, ref)
		if err != nil {
			return err
		}
		image, err := whole.Image()
		if err != nil {
			return q.platformFailure(err, platform)
		}
		return read(image)
	}, remote.WithPlatform(platform))
}

// platformFailure tells an image for other machines from an answer that did not come.
func (q inquiry) platformFailure(err error, platform v1.Platform) error {
	if strings.Contains(err.Error(), "no child with platform") { // the library has no type for it
		return rental.Failf(rental.CodeImageNotFound, "The registry has image %s, but not for %s/%s.", q.asked, platform.OS, platform.Architecture)
	}
	return err
}

// ask puts a question until it is answered. What may pass is tried again; a registry that limits this host is
// asked again when it says so, as long as ctx lasts.
func (q inquiry) ask(ctx context.Context, question func(context.Context, *remote.Puller, name.Reference) error, more ...remote.Option) error {
	limited := limitedPause
	wait := q.registries.tryWait
	for try := 1; ; {
		var heard hearing
		err := q.once(ctx, &heard, question, more)
		if err == nil || ctx.Err() != nil {
			return orCause(ctx, err)
		}
		failure, passing := q.failure(err)
		pausing := wait
		switch {
		case passing == never, q.tries == 1, passing == soon && try >= q.tries:
			return failure
		case passing == whenAllowed:
			if pausing = time.Duration(heard.again.Load()); pausing == 0 {
				pausing, limited = limited, min(2*limited, longestLimited)
			}
			if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < pausing {
				return failure
			}
		default:
			try++
			wait *= 2
		}
		if err := pause(ctx, pausing); err != nil {
			return orCause(ctx, err)
		}
	}
}

func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// once puts a question a single time.
func (q inquiry) once(ctx context.Context, heard *hearing, question func(context.Context, *remote.Puller, name.Reference) error, more []remote.Option) error {
	ref, err := name.ParseReference(localName(q.named))
	if err != nil {
		return rental.Failf(rental.CodeInvalid, "Image %s is not a reference that a registry understands.", q.asked)
	}
	heard.RoundTripper = q.registries.public
	if q.trusted {
		heard.RoundTripper = q.registries.owners
	}
	credentials := authn.Anonymous
	if q.auth != nil {
		credentials = &authn.Basic{Username: q.auth.Username, Password: q.auth.Password.Reveal()}
	}
	puller, err := remote.NewPuller(append(more,
		remote.WithTransport(heard), remote.WithAuth(credentials), remote.WithUserAgent("distributed-agent"),
		// Tries are counted here, where it is known what the registry said.
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}), remote.WithRetryStatusCodes(),
		remote.WithRetryPredicate(func(error) bool { return false }))...)
	if err != nil {
		return fmt.Errorf("preparing to ask a registry: %w", err)
	}
	call, cancel := context.WithTimeout(ctx, q.registries.within())
	defer cancel()
	return question(call, puller, ref)
}

// passing says when a question is worth asking again.
type passing int

const (
	never passing = iota
	soon
	whenAllowed
)

// failure says why a registry has not answered a question, by its own words alone.
func (q inquiry) failure(err error) (*rental.Failure, passing) {
	said, answered := errors.AsType[*transport.Error](err)
	known, ok := errors.AsType[*rental.Failure](err)
	switch {
	case ok:
		return known, never
	case errors.Is(err, errNotPublic):
		return rental.Failf(rental.CodeImageForbidden, "The registry of image %s is, or leads to, an address on a private network; images come from public registries.", q.asked), never
	case errors.Is(err, errNoTLS):
		return rental.Failf(rental.CodePullFailed, "The registry of image %s leads to a place without TLS.", q.asked), never
	case errors.Is(err, errTooMuch):
		return rental.Failf(rental.CodePullFailed, "The registry describes image %s in more than %d MiB.", q.asked, maxRegistryAnswer>>20), never
	case !answered && errors.Is(err, context.DeadlineExceeded):
		return rental.Failf(rental.CodePullFailed, "The registry of image %s does not answer.", q.asked), soon
	case !answered:
		q.registries.log.Info("no answer of a registry", "image", q.asked.String(), "error", err)
		return rental.Failf(rental.CodePullFailed, "The registry of image %s cannot be reached, or is not understood.", q.asked), soon
	}
	switch status := said.StatusCode; {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return rental.Failf(rental.CodeImageUnauthorized,
			"The registry refuses image %s: it is private or does not exist, check its name and credentials.", q.asked), never
	case status == http.StatusNotFound:
		return rental.Failf(rental.CodeImageNotFound, "The registry has no image %s.", q.asked), never
	case status == http.StatusTooManyRequests:
		return rental.Failf(rental.CodePullFailed, "The registry of image %s limits this host's pulls; try again later.", q.asked), whenAllowed
	case status >= 500, status == http.StatusRequestTimeout:
		return rental.Failf(rental.CodePullFailed, "The registry of image %s is in trouble: it answers with status %d.", q.asked, status), soon
	default:
		return rental.Failf(rental.CodePullFailed, "The registry of image %s answers with status %d.", q.asked, status), never
	}
}
