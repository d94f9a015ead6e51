// Package relay runs the stock frps program as a child process: the sandbox's tunnel relay is the
// very server that hosts meet in the field. It speaks TLS only, with a certificate of the
// sandbox's authority, and its process never outlives the program that started it.
package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/sandbox/ca"
)

// serverName is the name on the relay's certificate.
const serverName = "relay.sandbox.internal"

// Options say how to run a relay.
type Options struct {
	Dir        string  // keeps its configuration, certificate and key; made if it is not there
	CA         *ca.CA  // signs its certificate
	Token      string  // shared secret of its clients; "": a random one
	BindAddr   string  // IP address of the control port and of all public ports; "": 127.0.0.1
	Port       uint16  // control port; 0: a free one
	AllowPorts []Ports // the public ports clients may take; none: every port
	Program    string  // the frps program; "": see [Program]
	Log        io.Writer
}

// Ports is a range of ports, both ends included.
type Ports struct{ First, Last uint16 }

// Relay is a relay that has been started.
type Relay struct {
	program string
	config  string // path of its configuration file
	addr    netip.AddrPort
	token   secret.String
	ca      *ca.CA
	log     io.Writer

	mu    sync.Mutex // guards child
	child *child     // nil while it does not run
}

// startTries bounds the search for a free port: another program may take it in between.
const startTries = 5

// Start runs a relay and returns once it accepts connections. ctx bounds the start alone.
func Start(ctx context.Context, o Options) (*Relay, error) {
	if o.CA == nil {
		return nil, errors.New("starting relay: Options.CA is missing")
	}
	if o.Token == "" {
		o.Token = rand.Text()
	}
	if o.BindAddr == "" {
		o.BindAddr = "127.0.0.1"
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	bind, err := netip.ParseAddr(o.BindAddr)
	if err != nil {
		return nil, fmt.Errorf("parsing bind address: %w", err)
	}
	program, err := Program(ctx, o.Program)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making relay directory: %w", err)
	}
	r := &Relay{
		program: program,
		config:  filepath.Join(o.Dir, "frps.toml"),
		token:   secret.New(o.Token),
		ca:      o.CA,
		log:     o.Log,
	}
	for try := 1; ; try++ {
		if err := r.configure(o, bind); err != nil {
			return nil, err
		}
		err := r.run(ctx)
		if err == nil {
			return r, nil
		}
		if o.Port != 0 || try == startTries || ctx.Err() != nil {
			return nil, err
		}
	}
}

// Addr is the control port, "127.0.0.1:7000". Restarts keep it.
func (r *Relay) Addr() string { return r.addr.String() }

// Token is the shared secret of the relay's clients.
func (r *Relay) Token() secret.String { return r.token }

// ServerName is the name its certificate carries, next to the addresses it is reached by.
func (r *Relay) ServerName() string { return serverName }

// CAPEM is the authority that signed its certificate.
func (r *Relay) CAPEM() []byte { return r.ca.PEM() }

// Restart ends the relay if it runs, and starts it again on the same port with the same token.
func (r *Relay) Restart(ctx context.Context) error {
	r.Kill()
	return r.run(ctx)
}

// Kill ends the relay at once, as a crash would; Restart brings it back.
func (r *Relay) Kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.child != nil {
		r.child.kill()
		r.child = nil
	}
}

// Stop ends the relay for good. There is nothing in it that a crash could lose.
func (r *Relay) Stop() { r.Kill() }

// run starts the child and waits until it answers.
func (r *Relay) run(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	child, err := spawn(r.program, []string{"-c", r.config}, r.log)
	if err != nil {
		return fmt.Errorf("starting relay: %w", err)
	}
	trust := &tls.Config{RootCAs: r.ca.Pool(), ServerName: serverName, MinVersion: tls.VersionTLS12}
	if err := child.awaitTLS(ctx, r.addr.String(), trust); err != nil {
		child.kill()
		return fmt.Errorf("starting relay on %s: %w", r.addr, err)
	}
	r.child = child
	return nil
}

// configure writes certificate, key and configuration for a control port.
func (r *Relay) configure(o Options, bind netip.Addr) error {
	port := o.Port
	if port == 0 {
		free, err := freePort(bind)
		if err != nil {
			return err
		}
		port = free
	}
	dial := bind
	if bind.IsUnspecified() {
		dial = netip.MustParseAddr("127.0.0.1")
	}
	r.addr = netip.AddrPortFrom(dial, port)

	cert, err := o.CA.Issue(time.Now().AddDate(1, 0, 0), serverName, "localhost", dial.String())
	if err != nil {
		return err
	}
	certFile, keyFile, err := ca.WriteFiles(cert, o.Dir, "relay")
	if err != nil {
		return err
	}
	text := configuration(o, port, certFile, keyFile)
	if err := os.WriteFile(r.config, text, 0o600); err != nil {
		return fmt.Errorf("writing relay configuration: %w", err)
	}
	return nil
}

// configuration is the TOML that frps reads. TLS is forced: a client that speaks plainly is cut off.
func configuration(o Options, port uint16, certFile, keyFile string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "bindAddr = %s\n", strconv.Quote(o.BindAddr))
	fmt.Fprintf(&b, "bindPort = %d\n", port)
	fmt.Fprintf(&b, "auth.token = %s\n", strconv.Quote(o.Token))
	fmt.Fprintf(&b, "transport.tls.force = true\n")
	fmt.Fprintf(&b, "transport.tls.certFile = %s\n", strconv.Quote(certFile))
	fmt.Fprintf(&b, "transport.tls.keyFile = %s\n", strconv.Quote(keyFile))
	fmt.Fprintf(&b, "log.to = \"console\"\nlog.level = \"info\"\nlog.disablePrintColor = true\n")
	if len(o.AllowPorts) > 0 {
		b.WriteString("allowPorts = [")
		for _, p := range o.AllowPorts {
			fmt.Fprintf(&b, "{ start = %d, end = %d }, ", p.First, p.Last)
		}
		b.WriteString("]\n")
	}
	return b.Bytes()
}

func freePort(bind netip.Addr) (uint16, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(bind, 0)))
	if err != nil {
		return 0, fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}
