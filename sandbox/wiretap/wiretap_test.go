package wiretap_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/sandbox/wiretap"
)

// open starts a server in an engine's place and a tap before it, and gives a client of the tap.
func open(t *testing.T, engine http.Handler) (*wiretap.Tap, *http.Client) {
	t.Helper()
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, "engine.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: engine}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	tap, err := wiretap.Start("unix://"+listener.Addr().String(), filepath.Join(dir, "tap.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tap.Close(); err != nil {
			t.Error(err)
		}
	})
	return tap, &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, tap) },
	}}
}

func dial(ctx context.Context, tap *wiretap.Tap) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(tap.Host(), "unix://"))
}

func TestRequestsAreKeptAndPassedOn(t *testing.T) {
	tap, client := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), body)
	}))
	ask := func(method, path, body, want string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://docker"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		got, err := io.ReadAll(response.Body)
		if err != nil || string(got) != want {
			t.Errorf("%s %s answers %q, %v; want %q", method, path, got, err, want)
		}
	}
	ask("GET", "/v1.41/containers/json?all=1", "", "GET /v1.41/containers/json?all=1 ")
	mark := tap.Mark()
	ask("POST", "/v1.41/containers/create?name=a", "{}", "POST /v1.41/containers/create?name=a {}")
	ask("POST", "/v1.41/containers/a/wait?condition=next-exit", "", "POST /v1.41/containers/a/wait?condition=next-exit ")
	ask("GET", "/_ping", "", "GET /_ping ")
	ask("DELETE", "/v1.41/networks/b", "", "DELETE /v1.41/networks/b ")
	var since, mutating []string
	for _, r := range tap.Since(mark) {
		since = append(since, r.String())
	}
	for _, r := range tap.Mutating(mark) {
		mutating = append(mutating, r.String())
	}
	if diff := cmp.Diff([]string{
		"POST /containers/create?name=a", "POST /containers/a/wait?condition=next-exit", "GET /_ping", "DELETE /networks/b",
	}, since); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"POST /containers/create?name=a", "DELETE /networks/b"}, mutating); diff != "" {
		t.Errorf("mutating (-want +got):\n%s", diff)
	}
}

func TestStreamsComePieceByPiece(t *testing.T) {
	next := make(chan string)
	_, client := open(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for line := range next {
			fmt.Fprintln(w, line)
			w.(http.Flusher).Flush()
		}
	}))
	next2 := func(s string) {
		select {
		case next <- s:
		case <-time.After(30 * time.Second):
			t.Error("the stream does not begin")
		}
	}
	go next2("one")
	response, err := client.Get("http://docker/events")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for _, want := range []string{"one", "two", "three"} {
		if want != "one" {
			next2(want)
		}
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("read %q, %v; want %q", lines.Text(), lines.Err(), want)
		}
	}
	close(next)
}

func TestUpgradedConnectionsGoThrough(t *testing.T) {
	tap, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		line, _ := buffered.ReadString('\n')
		fmt.Fprint(conn, "echo "+line)
	}))
	conn, err := dial(t.Context(), tap)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /v1.41/containers/a/attach HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrading: %v, %v", response, err)
	}
	fmt.Fprintln(conn, "hello")
	if line, err := reader.ReadString('\n'); line != "echo hello\n" {
		t.Errorf("read %q, %v", line, err)
	}
}

func TestEngineThatIsAwayBreaksTheConnection(t *testing.T) {
	tap, err := wiretap.Start("unix:///nowhere.sock", filepath.Join(t.TempDir(), "tap.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, tap) },
	}}
	if response, err := client.Get("http://docker/_ping"); err == nil {
		response.Body.Close()
		t.Errorf("an engine that is away answers %s", response.Status)
	}
}
