package relay_test

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/sandbox/ca"
	"github.com/distributedcompute/host-agent/sandbox/relay"
)

func start(t *testing.T, o relay.Options) *relay.Relay {
	t.Helper()
	o.Dir = filepath.Join(t.TempDir(), "relay")
	r, err := relay.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r
}

func authority(t *testing.T) *ca.CA {
	t.Helper()
	authority, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func TestRelayShowsCertificateOfItsAuthority(t *testing.T) {
	authority := authority(t)
	r := start(t, relay.Options{CA: authority})
	for _, name := range []string{r.ServerName(), "127.0.0.1", "localhost"} {
		conn, err := tls.Dial("tcp", r.Addr(), &tls.Config{RootCAs: authority.Pool(), ServerName: name})
		if err != nil {
			t.Fatalf("dialling as %s: %v", name, err)
		}
		conn.Close()
	}
	_, err := tls.Dial("tcp", r.Addr(), &tls.Config{RootCAs: authority.Pool(), ServerName: "elsewhere.example"})
	if err == nil {
		t.Error("the certificate is good for a name it does not carry")
	}
}

func TestRelayRefusesPlainConnections(t *testing.T) {
	r := start(t, relay.Options{CA: authority(t)})
	conn, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("no TLS record at all")); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
		t.Errorf("read %d bytes, %v; want the connection closed", n, err)
	}
}

func TestRestartKeepsAddress(t *testing.T) {
	r := start(t, relay.Options{CA: authority(t), Token: "chosen"})
	before := r.Addr()
	r.Kill()
	if conn, err := net.Dial("tcp", before); err == nil {
		conn.Close()
		t.Fatal("a killed relay accepts connections")
	}
	if err := r.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", before)
	if err != nil {
		t.Fatalf("dialling the restarted relay: %v", err)
	}
	conn.Close()
	if got := r.Token().Reveal(); got != "chosen" {
		t.Errorf("token = %q, want the chosen one", got)
	}
}

func TestConfigurationIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "relay")
	r, err := relay.Start(t.Context(), relay.Options{Dir: dir, CA: authority(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	for _, name := range []string{"frps.toml", "relay.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o, want 600", name, mode)
		}
	}
}

func TestStartTellsWhyNot(t *testing.T) {
	// Another program on the port: it accepts, but is not the relay.
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	deaf := filepath.Join(t.TempDir(), "deaf")
	if err := os.WriteFile(deaf, []byte("#!/bin/sh\nexec sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, program, want string }{
		{"no such program", "/nonexistent/frps", "finding frps"},
		{"a program that ends", "false", "exit status 1"},
		{"a program that never answers", deaf, "waiting until it answers"},
		{"a port that is taken", "", "address already in use"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			o := relay.Options{Dir: t.TempDir(), CA: authority(t), Program: test.program}
			o.Port = uint16(busy.Addr().(*net.TCPAddr).Port)
			r, err := relay.Start(ctx, o)
			if err == nil {
				r.Stop()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want it to say %q", err, test.want)
			}
		})
	}
}
