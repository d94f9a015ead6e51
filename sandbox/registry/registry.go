// Package registry is the sandbox's image registry: the in-process registry of go-containerregistry
// on a loopback port, with what real registries add: private repositories behind a token service,
// a slow line, faults, and a record of what was asked for. Docker Engine pulls from 127.0.0.0/8 without TLS.
package registry

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	upstream "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/time/rate"
)

// Registry serves images from memory until Close. Its methods may be called at any time.
type Registry struct {
	server  *http.Server
	address string
	served  sync.WaitGroup
	gate    *gate

	mu       sync.Mutex
	line     *rate.Limiter // nil: as fast as it goes
	requests []string
	faults   map[string]*Fault // by repository
}

// Start listens on a free port of 127.0.0.1.
func Start(ctx context.Context) (*Registry, error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the registry: %w", err)
	}
	r := &Registry{address: listener.Addr().String()}
	r.gate = newGate("http://" + r.address + tokenPath)
	blobs := upstream.NewInMemoryBlobHandler()
	images := upstream.New(upstream.Logger(log.New(io.Discard, "", 0)), upstream.WithBlobHandler(blobs))
	r.server = &http.Server{Handler: r.recorded(r.gate.guard(r.broken(r.slowed(resumed(blobs, images)))))}
	r.served.Go(func() { _ = r.server.Serve(listener) })
	return r, nil
}

// Close ends all transfers and forgets every image.
func (r *Registry) Close() error {
	err := r.server.Close()
	r.served.Wait()
	return err
}

// Addr is the registry's host:port, the first part of every reference to its images.
func (r *Registry) Addr() string { return r.address }

// Push stores img as name, "repository:tag", and returns the reference to pull it by.
func (r *Registry) Push(ctx context.Context, image string, img v1.Image) (ref string, err error) {
	tag, err := name.NewTag(r.address+"/"+image, name.Insecure)
	if err != nil {
		return "", fmt.Errorf("naming image: %w", err)
	}
	options := []remote.Option{remote.WithContext(ctx)}
	if login, ok := r.gate.login(tag.RepositoryStr()); ok {
		options = append(options, remote.WithAuth(&authn.Basic{Username: login.username, Password: login.password}))
	}
	if err := remote.Write(tag, img, options...); err != nil {
		return "", fmt.Errorf("pushing %s: %w", tag, err)
	}
	return tag.String(), nil
}

// Protect makes a repository private: it answers 401 to everyone who has not signed on with these.
func (r *Registry) Protect(repository, username, password string) {
	r.gate.protect(repository, login{username, password})
}

// LimitRate slows all downloads of layers together to bytesPerSecond, from their next write on; 0 lifts the limit.
func (r *Registry) LimitRate(bytesPerSecond int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line = nil
	if bytesPerSecond > 0 {
		r.line = rate.NewLimiter(rate.Limit(bytesPerSecond), slice)
	}
}

// Requests lists what has been asked for so far, in order, each as "GET /v2/name/manifests/tag".
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Count is the number of requests so far that contain text.
func (r *Registry) Count(text string) int {
	n := 0
	for _, request := range r.Requests() {
		if strings.Contains(request, text) {
			n++
		}
	}
	return n
}

func (r *Registry) recorded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, req.Method+" "+req.URL.Path)
		r.mu.Unlock()
		next.ServeHTTP(w, req)
	})
}
