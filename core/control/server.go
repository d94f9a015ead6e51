package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// The bounds of a request, in the order in which they run out.
const (
	readTimeout    = 10 * time.Second // for the request to arrive
	furnishedIn    = 10 * time.Second // for the agent to be there
	verbTimeout    = 30 * time.Second // for what the agent answers at once
	logsTimeout    = time.Minute
	accountTimeout = time.Minute      // for what the marketplace answers, and a keyring that asks its owner
	testTimeout    = 3 * time.Minute  // a speed test and its setup
	pruneTimeout   = 10 * time.Minute // images of many files are slow to go
	writeTimeout   = 10 * time.Second // for the answer to leave
	leaveOpenFor   = 2 * time.Second  // for running requests when the server ends
	maxHeaderSize  = 8 << 10
)

// Server answers those who come through the door.
type Server struct {
	self      Identity
	log       *slog.Logger
	furnished chan struct{} // closed once host is set
	once      sync.Once
	host      Host
}

// NewServer makes a server that says it is self.
func NewServer(self Identity, log *slog.Logger) *Server {
	return &Server{self: self, log: log, furnished: make(chan struct{})}
}

// Furnish brings in the agent; requests have been waiting for it. Only the first call counts.
func (s *Server) Furnish(host Host) {
	s.once.Do(func() {
		s.host = host
		close(s.furnished)
	})
}

// Serve answers requests until ctx ends, lets those under way finish within a bound, and closes l.
func (s *Server) Serve(ctx context.Context, l *Listener) error {
	server := &http.Server{
		Handler:           s.handler(),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadTimeout:       readTimeout,
		ReadHeaderTimeout: readTimeout,
		IdleTimeout:       readTimeout,
		MaxHeaderBytes:    maxHeaderSize,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { served <- server.Serve(l) })
	defer wg.Wait()
	select {
	case err := <-served:
		return errors.Join(err, l.Close())
	case <-ctx.Done():
	}
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveOpenFor)
	defer cancel()
	if server.Shutdown(leaving) != nil {
		server.Close()
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/agent", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.self) })
	mux.HandleFunc("GET /v1/status", s.verb(verbTimeout, status))
	mux.HandleFunc("GET /v1/watch", s.watch)
	mux.HandleFunc("POST /v1/pause", s.verb(verbTimeout, pause))
	mux.HandleFunc("POST /v1/resume", s.verb(verbTimeout, resume))
	mux.HandleFunc("POST /v1/drain", s.verb(verbTimeout, drain))
	mux.HandleFunc("POST /v1/sign-in", s.verb(accountTimeout, signIn))
	mux.HandleFunc("POST /v1/sign-in/cancel", s.verb(verbTimeout, cancelSignIn))
	mux.HandleFunc("POST /v1/sign-out", s.verb(accountTimeout, signOut))
	mux.HandleFunc("POST /v1/rotate-key", s.verb(accountTimeout, rotateKey))
	mux.HandleFunc("POST /v1/retry", s.verb(verbTimeout, retry))
	mux.HandleFunc("POST /v1/quit", s.verb(verbTimeout, quit))
	mux.HandleFunc("POST /v1/rentals/{id}/end", s.verb(verbTimeout, endRental))
	mux.HandleFunc("GET /v1/rentals/{id}/logs", s.verb(logsTimeout, logs))
	mux.HandleFunc("GET /v1/images", s.verb(verbTimeout, images))
	mux.HandleFunc("POST /v1/images/prune", s.verb(pruneTimeout, pruneImages))
	mux.HandleFunc("POST /v1/speedtest", s.verb(testTimeout, speedTest))
	return s.guard(mux)
}

// guard turns away what a web page could have sent, and says which version answers.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(versionHeader, s.self.Version)
		for _, header := range []string{"Origin", "Referer", "Sec-Fetch-Site"} {
			if len(r.Header.Values(header)) > 0 {
				refuse(w, http.StatusForbidden, "forbidden", "requests of web pages are not taken")
				return
			}
		}
		if r.Host != hostName {
			refuse(w, http.StatusForbidden, "forbidden", "requests are taken for the host "+hostName+" only")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxRequestBytes)
		next.ServeHTTP(w, r)
	})
}

// await returns the agent once it is there.
func (s *Server) await(ctx context.Context) (Host, error) {
	select {
	case <-s.furnished:
		return s.host, nil
	case <-ctx.Done():
	case <-time.After(furnishedIn):
	}
	return nil, &Refusal{Code: "starting", Message: "the agent is still starting; try again in a moment"}
}

// verb serves one call of the host: its result, or why not.
func (s *Server) verb(timeout time.Duration, call func(context.Context, Host, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		host, err := s.await(r.Context())
		if err != nil {
			refuseError(w, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		result, err := call(ctx, host, r)
		if err != nil {
			s.log.Debug("refused over the control socket", "path", r.URL.Path, "error", err)
			refuseError(w, err)
			return
		}
		answer(w, http.StatusOK, result)
	}
}

// watch sends the full picture at once and after each change, one JSON object a line.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	host, err := s.await(r.Context())
	if err != nil {
		refuseError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	control := http.NewResponseController(w)
	lines := json.NewEncoder(w)
	for status := range host.Watch(r.Context()) {
		if control.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil || lines.Encode(status) != nil || control.Flush() != nil {
			return
		}
	}
}
