package backend_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/sandbox/backend"
	"github.com/distributedcompute/host-agent/sandbox/ca"
)

// market is a backend with the authority that signed its certificate.
type market struct {
	*backend.Backend
	authority *ca.CA
}

func start(t *testing.T, options backend.Options) market {
	t.Helper()
	authority, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	options.CA = authority
	b, err := backend.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return market{b, authority}
}

// client is the least a host agent can be: a connection and the frames on it.
type client struct {
	*websocket.Conn
	t *testing.T
}

func (m market) dial(ctx context.Context, key secret.String) (*websocket.Conn, *http.Response, error) {
	dialer := websocket.Dialer{
		TLSClientConfig:  &tls.Config{RootCAs: m.authority.Pool()},
		Subprotocols:     []string{protocol.Subprotocol},
		HandshakeTimeout: 10 * time.Second,
	}
	return dialer.DialContext(ctx, m.URL(), http.Header{"Authorization": {"Bearer " + key.Reveal()}})
}

func (m market) connect(t *testing.T, key secret.String) client {
	t.Helper()
	conn, _, err := m.dial(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return client{conn, t}
}

// register says who it is and returns the answer's frame.
func (c client) register(id string) frame {
	c.t.Helper()
	c.say(id, protocol.Register{
		Protocol: protocol.Version,
		Agent:    protocol.Agent{Version: "1.0.0", OS: "linux", Arch: "amd64"},
		Status:   protocol.Online,
		Offer:    protocol.Offer{MinPricePerGPUHour: "0", Currency: "USD"},
	})
	return c.hear()
}

func (c client) say(id string, m protocol.Message) {
	c.t.Helper()
	encoded, err := protocol.Encode(id, m)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.WriteMessage(websocket.TextMessage, encoded); err != nil {
		c.t.Fatal(err)
	}
}

type frame struct {
	Event string         `json:"event"`
	ID    string         `json:"id"`
	Data  map[string]any `json:"data"`
}

func (c client) hear() frame {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, text, err := c.ReadMessage()
	if err != nil {
		c.t.Fatal(err)
	}
	var f frame
	if err := json.Unmarshal(text, &f); err != nil {
		c.t.Fatal(err)
	}
	return f
}

func status(rental string, sequence int64, state string) protocol.InstanceStatus {
	return protocol.InstanceStatus{RentalID: rental, Sequence: sequence, State: state, At: time.Now().UTC()}
}

func order(rental string) protocol.StartInstance {
	return protocol.StartInstance{RentalID: rental, Image: "127.0.0.1:5000/thing:1", RAMLimit: 64 << 20, CPUCores: 0.5}
}

// within bounds a wait, so that a failure is told and does not hang.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, fmt.Errorf("nothing came in 10 s"))
	t.Cleanup(cancel)
	return ctx
}
