package control_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/control"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// fakeHost writes down what it was asked, and answers with what it was given.
type fakeHost struct {
	err      error
	pictures chan agent.Status
	mu       sync.Mutex
	asked    []any
}

func (h *fakeHost) note(call ...any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, call...)
	return h.err
}

func (h *fakeHost) Status() agent.Status { return agent.Status{PID: 7, NodeID: "n-1"} }

func (h *fakeHost) Watch(ctx context.Context) iter.Seq[agent.Status] {
	return func(yield func(agent.Status) bool) {
		for {
			select {
			case s, ok := <-h.pictures:
				if !ok || !yield(s) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

func (h *fakeHost) Pause(_ context.Context, until time.Time) error {
	return h.note("pause", until.UTC())
}
func (h *fakeHost) Resume(context.Context) error               { return h.note("resume") }
func (h *fakeHost) Drain(_ context.Context, t time.Time) error { return h.note("drain", t.UTC()) }

func (h *fakeHost) EndRental(_ context.Context, id rental.ID) error {
	return h.note("end", id)
}

func (h *fakeHost) Logs(_ context.Context, id rental.ID, tail int, since time.Time) (string, bool, error) {
	return "line\n", true, h.note("logs", id, tail, since.UTC())
}

func (h *fakeHost) Images(context.Context) (rental.ImageCache, error) {
	return rental.ImageCache{CapBytes: 7}, h.note("images")
}

func (h *fakeHost) PruneImages(context.Context) (rental.PrunedImages, error) {
	return rental.PrunedImages{FreedBytes: 9}, h.note("images/prune")
}

func (h *fakeHost) SpeedTest(context.Context) (hardware.Network, error) {
	return hardware.Network{Server: "s"}, h.note("speedtest")
}

var (
	signingIn = account.SigningIn{Method: account.Device, URL: "https://id.example.com/device", UserCode: "ABCD-EFGH", ExpiresAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	signedOut = account.SignedOut{Why: "The marketplace does not answer.", Source: "environment (HOST_API_KEY)"}
)

func (h *fakeHost) SignIn(_ context.Context, how account.Method) (account.SigningIn, error) {
	return signingIn, h.note("sign-in", how)
}

func (h *fakeHost) CancelSignIn(context.Context) error { return h.note("cancel") }

func (h *fakeHost) SignOut(context.Context) (account.SignedOut, error) {
	return signedOut, h.note("sign-out")
}

func (h *fakeHost) RotateKey(context.Context) error { return h.note("rotate") }

func (h *fakeHost) Retry() { h.note("retry") }

func (h *fakeHost) Quit(how agent.How) { h.note("quit", how) }

var self = control.Identity{PID: os.Getpid(), Version: "1.2.3", StartedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}

// open serves a directory until the test ends; host may be nil, for an agent that is still starting.
func open(t *testing.T, host control.Host) (dir string, server *control.Server) {
	t.Helper()
	dir = t.TempDir()
	listener, err := control.Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	server = control.NewServer(self, slog.New(slog.DiscardHandler))
	if host != nil {
		server.Furnish(host)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { served <- server.Serve(ctx, listener) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := <-served; err != nil {
			t.Errorf("serving: %v", err)
		}
		if _, err := control.NewClient(dir, "").Identity(context.Background()); !errors.Is(err, control.ErrNotRunning) {
			t.Errorf("after the end: got %v, want ErrNotRunning", err)
		}
	})
	return dir, server
}

func TestVerbsReachTheHost(t *testing.T) {
	host := &fakeHost{}
	dir, _ := open(t, host)
	client, ctx := control.NewClient(dir, "test"), t.Context()
	until := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

	status, err := client.Status(ctx)
	if err != nil || status.PID != 7 || status.NodeID != "n-1" {
		t.Errorf("status: got %+v, %v", status, err)
	}
	logs, err := client.Logs(ctx, "r-1", 10, until)
	if err != nil || logs != (control.Logs{Text: "line\n", Truncated: true}) {
		t.Errorf("logs: got %+v, %v", logs, err)
	}
	network, err := client.SpeedTest(ctx)
	if err != nil || network.Server != "s" {
		t.Errorf("speed test: got %+v, %v", network, err)
	}
	if cache, err := client.Images(ctx); err != nil || cache.CapBytes != 7 {
		t.Errorf("images: got %+v, %v", cache, err)
	}
	if pruned, err := client.PruneImages(ctx); err != nil || pruned.FreedBytes != 9 {
		t.Errorf("images prune: got %+v, %v", pruned, err)
	}
	for _, how := range []account.Method{"", account.Device} {
		if got, err := client.SignIn(ctx, how); err != nil || got != signingIn {
			t.Errorf("sign-in: got %+v, %v", got, err)
		}
	}
	if got, err := client.SignOut(ctx); err != nil || got != signedOut {
		t.Errorf("sign-out: got %+v, %v", got, err)
	}
	if err := errors.Join(
		client.CancelSignIn(ctx), client.RotateKey(ctx),
		client.Pause(ctx, until), client.Pause(ctx, time.Time{}), client.Resume(ctx), client.Drain(ctx, until),
		client.EndRental(ctx, "r-1"), client.Retry(ctx), client.Quit(ctx, agent.AfterRentals),
	); err != nil {
		t.Error(err)
	}
	want := []any{
		"logs", rental.ID("r-1"), 10, until, "speedtest", "images", "images/prune",
		"sign-in", account.Method(""), "sign-in", account.Device, "sign-out", "cancel", "rotate", "pause", until, "pause",
		time.Time{},
		"resume",
		"drain", until, "end", rental.ID("r-1"), "retry", "quit", agent.AfterRentals,
	}
	if diff := cmp.Diff(want, host.asked); diff != "" {
		t.Errorf("the host was asked (-want +got):\n%s", diff)
	}
}

func TestRefusalsKeepTheirCode(t *testing.T) {
	dir, _ := open(t, &fakeHost{err: rental.Failf(rental.CodeNotFound, "there is no rental r-1")})
	client := control.NewClient(dir, "test")
	for name, err := range map[string]error{
		"end":    client.EndRental(t.Context(), "r-1"),
		"resume": client.Resume(t.Context()),
		"rotate": client.RotateKey(t.Context()),
	} {
		refusal, ok := errors.AsType[*control.Refusal](err)
		if !ok || refusal.Code != "not_found" || refusal.Message != "there is no rental r-1" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := client.Logs(t.Context(), "../x", 0, time.Time{})
	if refusal, ok := errors.AsType[*control.Refusal](err); !ok || refusal.Code != "invalid_request" {
		t.Errorf("a bad id: got %v", err)
	}
	if _, err := client.SignIn(t.Context(), "mail"); err == nil || !strings.Contains(err.Error(), "takes browser, device or nothing") {
		t.Errorf("a bad way to sign in: got %v", err)
	}
	if err := client.Quit(t.Context(), "now"); err == nil || !strings.Contains(err.Error(), "takes leave, after or ending") {
		t.Errorf("a bad way to quit: got %v", err)
	}
}

func TestWatchFollowsUntilTheAgentHasGone(t *testing.T) {
	host := &fakeHost{pictures: make(chan agent.Status)}
	dir, _ := open(t, host)
	next, stop := iter.Pull2(control.NewClient(dir, "test").Watch(t.Context()))
	defer stop()
	for pid := 1; pid <= 3; pid++ {
		go func() { host.pictures <- agent.Status{PID: pid} }()
		if got, err, ok := next(); !ok || err != nil || got.PID != pid {
			t.Fatalf("picture %d: got %+v, %v, %v", pid, got, err, ok)
		}
	}
	close(host.pictures)
	if got, err, ok := next(); ok {
		t.Errorf("after the end: got %+v, %v", got, err)
	}
}

func TestServerEndsWatchersWhenItEnds(t *testing.T) {
	host := &fakeHost{pictures: make(chan agent.Status, 1)}
	host.pictures <- agent.Status{PID: 1}
	dir := t.TempDir()
	listener, err := control.Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	server := control.NewServer(self, slog.New(slog.DiscardHandler))
	server.Furnish(host)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(ctx, listener) })
	pictures := 0
	for range control.NewClient(dir, "test").Watch(t.Context()) {
		pictures++
		cancel()
	}
	wg.Wait()
	if pictures != 1 {
		t.Errorf("got %d pictures", pictures)
	}
}

func TestEarlyCallersWaitForTheAgent(t *testing.T) {
	dir, server := open(t, nil)
	client := control.NewClient(dir, "test")
	if got, err := client.Identity(t.Context()); err != nil || got != self {
		t.Errorf("who listens: got %+v, %v", got, err)
	}
	answered := make(chan error)
	go func() {
		_, err := client.Status(t.Context())
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Errorf("answered before the agent was there: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	server.Furnish(&fakeHost{})
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestSecondListenNamesTheFirst(t *testing.T) {
	dir, _ := open(t, nil)
	_, err := control.Listen(t.Context(), dir)
	other, ok := errors.AsType[*control.AlreadyRunning](err)
	if !ok || other.Identity != self {
		t.Errorf("got %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	client := control.NewClient(t.TempDir(), "test")
	if _, err := client.Status(t.Context()); !errors.Is(err, control.ErrNotRunning) {
		t.Errorf("status: got %v", err)
	}
	for _, err := range client.Watch(t.Context()) {
		if !errors.Is(err, control.ErrNotRunning) {
			t.Errorf("watch: got %v", err)
		}
	}
}

func TestRequestsFromElsewhereAreRefused(t *testing.T) {
	host := &fakeHost{}
	dir, _ := open(t, host)
	tests := []struct {
		name, method, path, hostName, body string
		header                             map[string]string
		want                               int
	}{
		{name: "good", method: "GET", path: "/v1/status", want: 200},
		{name: "a page's script", method: "POST", path: "/v1/quit", header: map[string]string{"Origin": "http://evil.example.com"}, want: 403},
		{name: "a sandboxed page", method: "POST", path: "/v1/quit", header: map[string]string{"Origin": "null"}, want: 403},
		{name: "an empty origin", method: "GET", path: "/v1/status", header: map[string]string{"Origin": ""}, want: 403},
		{name: "a link", method: "GET", path: "/v1/status", header: map[string]string{"Referer": "http://evil.example.com/"}, want: 403},
		{name: "a navigation", method: "GET", path: "/v1/status", header: map[string]string{"Sec-Fetch-Site": "none"}, want: 403},
		{name: "rebound name", method: "GET", path: "/v1/status", hostName: "evil.example.com", want: 403},
		{name: "loopback", method: "GET", path: "/v1/status", hostName: "127.0.0.1:80", want: 403},
		{name: "unknown path", method: "GET", path: "/v1/nope", want: 404},
		{name: "wrong method", method: "GET", path: "/v1/quit", want: 405},
		{name: "unknown field", method: "POST", path: "/v1/pause", body: `{"for":"1h"}`, want: 400},
		{name: "no JSON", method: "POST", path: "/v1/pause", body: `until=now`, want: 400},
		{name: "too large", method: "POST", path: "/v1/pause", body: `{"until":"` + strings.Repeat("x", 1<<16) + `"}`, want: 400},
		{name: "bad tail", method: "GET", path: "/v1/rentals/r/logs?tail=9999", want: 400},
		{name: "bad since", method: "GET", path: "/v1/rentals/r/logs?since=today", want: 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), tt.method, "http://distributed-agent"+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			request.Host = tt.hostName
			for name, value := range tt.header {
				request.Header.Set(name, value)
			}
			raw := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return control.Dial(ctx, dir)
			}}}
			response, err := raw.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			if response.StatusCode != tt.want || response.Header.Get("Distributed-Agent-Version") != "1.2.3" {
				t.Errorf("got %s %v: %s", response.Status, response.Header, body)
			}
		})
	}
	if len(host.asked) > 0 {
		t.Errorf("something got through: %v", host.asked)
	}
}
