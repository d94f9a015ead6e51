package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	dialTimeout = 10 * time.Second
	// streamWindow bounds what one connection may have under way to its container, and so what it
	// takes of memory while the container does not read. frp's own value is 6 MiB.
	streamWindow = 1 << 20
)

var errAuthorities = errors.New("the authorities in the relay's terms are not PEM certificates")

// dial connects to the relay and verifies its certificate before anything else is sent.
func dial(ctx context.Context, terms rental.Terms) (*yamux.Session, error) {
	config, err := trust(terms)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", terms.Address)
	if err != nil {
		return nil, err
	}
	mux := yamux.DefaultConfig()
	mux.MaxStreamWindowSize = streamWindow
	mux.EnableKeepAlive = false // the session's own ping does that
	mux.LogOutput = io.Discard
	session, err := yamux.Client(conn, mux)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return session, nil
}

// trust is the TLS configuration that the terms ask for.
func trust(terms rental.Terms) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName(terms)}
	if terms.CAPEM != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(terms.CAPEM) {
			return nil, errAuthorities
		}
	}
	return config, nil // without RootCAs, crypto/tls verifies against the system's authorities
}

func serverName(terms rental.Terms) string {
	if terms.ServerName != "" {
		return terms.ServerName
	}
	return host(terms)
}

// publicHost is where renters reach the ports.
func publicHost(terms rental.Terms) string {
	if terms.PublicHost != "" {
		return terms.PublicHost
	}
	return host(terms)
}

func host(terms rental.Terms) string {
	host, _, err := net.SplitHostPort(terms.Address)
	if err != nil {
		return terms.Address
	}
	return host
}
