package admin_test

import (
	"context"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/admin"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

// serve opens a marketplace without hosts and serves it on a socket.
func serve(t *testing.T) (client *admin.Client, socket string, m *market.Market) {
	t.Helper()
	m, err := market.Open(t.Context(), market.Options{Dir: filepath.Join(t.TempDir(), "m")})
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(m.Dir, "socket")
	if err := os.WriteFile(socket, nil, 0o600); err != nil { // left over from one that crashed
		t.Fatal(err)
	}
	listener, err := admin.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- admin.Serve(ctx, m, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return admin.NewClient(socket, "build/sandbox up"), socket, m
}

func last(statuses iter.Seq2[protocol.InstanceStatus, error]) (err error) {
	for _, err = range statuses {
	}
	return err
}

func TestWithoutAHost(t *testing.T) {
	client, _, _ := serve(t)
	ctx := t.Context()
	if nodes, err := client.Nodes(ctx); err != nil || len(nodes) != 0 {
		t.Errorf("nodes = %v, %v", nodes, err)
	}
	if earnings, err := client.Earnings(ctx); err != nil || len(earnings) != 0 {
		t.Errorf("earnings = %v, %v", earnings, err)
	}
	if rentals, err := client.Rentals(ctx); err != nil || len(rentals) != 0 {
		t.Errorf("rentals = %v, %v", rentals, err)
	}
	_, noRental := client.Rental(ctx, "r-1")
	_, noLogs := client.Logs(ctx, "r-1", 10)
	_, noSpeed := client.SpeedTest(ctx)
	_, noUses := client.EnrolmentToken(ctx, 0, time.Hour)
	_, noTime := client.EnrolmentToken(ctx, 1, -time.Hour)
	for _, tt := range []struct {
		name string
		err  error
		want string // "": success
	}{
		{"rent", last(client.Rent(ctx, market.Rent{})), "no host is connected"},
		{"rent from a node that is not there", last(client.Rent(ctx, market.Rent{Node: "n-1"})), `"n-1" is not known`},
		{"rent with a wrong port", last(client.Rent(ctx, market.Rent{Node: "n-1", Ports: []string{"web"}})), `port "web"`},
		{"stop", last(client.Stop(ctx, "r/1")), `rental "r/1" is not known`},
		{"rental", noRental, `rental "r-1" is not known`},
		{"logs", noLogs, `rental "r-1" is not known`},
		{"drain", client.Drain(ctx, true), "no host is connected"},
		{"resume", client.Resume(ctx), "no host is connected"},
		{"notice", client.Notice(ctx, protocol.Notice{Title: "Hello"}), "no host is connected"},
		{"speed test", noSpeed, "no host is connected"},
		{"cut", client.Cut(ctx, 0), ""},
		{"cut with a code", client.Cut(ctx, 1012), ""},
		{"cut with a wrong code", client.Cut(ctx, 7), "takes a WebSocket close code"},
		{"expire", client.Expire(ctx), ""},
		{"restore", client.Restore(ctx), ""},
		{"token for nobody", noUses, "takes a number from 1"},
		{"token for no time", noTime, "takes a time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == "" && tt.err != nil || tt.want != "" && (tt.err == nil || !strings.Contains(tt.err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", tt.err, tt.want)
			}
		})
	}
}

func TestEnrolmentToken(t *testing.T) {
	client, _, _ := serve(t)
	token, err := client.EnrolmentToken(t.Context(), 2, time.Hour)
	if err != nil || !strings.HasPrefix(token.Reveal(), "dce_") {
		t.Errorf("got a token of %d characters, %v", len(token.Reveal()), err)
	}
}

func TestSocketIsTheOwnersAlone(t *testing.T) {
	_, socket, _ := serve(t)
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v", info.Mode())
	}
	if _, err := admin.Listen(socket); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("a second sandbox on the same socket gave %v", err)
	}
}

func TestClientWithoutASandbox(t *testing.T) {
	_, err := admin.NewClient(filepath.Join(t.TempDir(), "socket"), "build/sandbox up").Nodes(t.Context())
	if err == nil || !strings.Contains(err.Error(), "`build/sandbox up`") {
		t.Errorf("got %v, want the next step", err)
	}
}
