// Package wiretap records what is asked of a Docker Engine. It listens on a socket of its own, passes everything on
// to the engine's, and keeps the method and path of each request: who talks through it can be shown to have changed
// nothing, or to have asked only for what it may.
package wiretap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Request is one request that came through.
type Request struct {
	At     time.Time
	Method string
	Path   string // with its query, without the API's version: "/containers/create?name=x"
}

// String gives "POST /containers/create?name=x".
func (r Request) String() string { return r.Method + " " + r.Path }

// Mutating reports whether the request may change something on the engine. Waiting for a container is a POST
// that changes nothing.
func (r Request) Mutating() bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return false
	}
	path, _, _ := strings.Cut(r.Path, "?")
	return !(strings.HasPrefix(path, "/containers/") && strings.HasSuffix(path, "/wait"))
}

// Tap records until Close. Its methods may be called at any time, from anywhere.
type Tap struct {
	socket  string
	server  *http.Server
	serving sync.WaitGroup

	mu       sync.Mutex
	requests []Request // guarded by mu
}

// Start listens on a socket, which must not be there yet, and passes on to the engine at host, "unix:///…".
func Start(host, socket string) (*Tap, error) {
	engine, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return nil, fmt.Errorf("tapping %s: takes a Unix socket", host)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, fmt.Errorf("making the tap's folder: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("opening the tap: %w", err)
	}
	t := &Tap{socket: socket}
	t.server = &http.Server{Handler: t.passOn(engine), ReadHeaderTimeout: time.Minute, ErrorLog: quiet()}
	t.serving.Go(func() { _ = t.server.Serve(listener) })
	return t, nil
}

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// passOn is a proxy that records. It lets through at once what the engine says piece by piece, and also connections
// that stop being HTTP, as those do on which a container's output comes.
func (t *Tap) passOn(engine string) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "docker"
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", engine)
			},
			DisableCompression: true,
		},
		FlushInterval: -1,
		ErrorLog:      quiet(),
		// An engine that is away looks through the tap as it does without: the connection breaks.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.record(r)
		proxy.ServeHTTP(w, r)
	})
}

func (t *Tap) record(r *http.Request) {
	path := r.URL.RequestURI()
	if rest, ok := strings.CutPrefix(path, "/v1."); ok {
		_, rest, _ = strings.Cut(rest, "/")
		path = "/" + rest
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests = append(t.requests, Request{time.Now(), r.Method, path})
}

// Host is where the engine is reached through the tap.
func (t *Tap) Host() string { return "unix://" + t.socket }

// Mark is the number of requests so far: the place from which Since gives what comes from now on.
func (t *Tap) Mark() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.requests)
}

// Since gives the requests from a mark on.
func (t *Tap) Since(mark int) []Request {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.requests[mark:])
}

// Mutating gives those from a mark on that may have changed something.
func (t *Tap) Mutating(mark int) []Request {
	return slices.DeleteFunc(t.Since(mark), func(r Request) bool { return !r.Mutating() })
}

// Close breaks every connection and removes the socket.
func (t *Tap) Close() error {
	err := t.server.Close()
	t.serving.Wait()
	return errors.Join(err, remove(t.socket))
}

func remove(socket string) error {
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("removing the tap's socket: %w", err)
	}
	return nil
}
