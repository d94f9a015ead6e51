package docker

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

// mute is an engine that takes connections and never says a word.
type mute struct {
	conns sync.WaitGroup
}

func (m *mute) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	m.conns.Go(func() {
		_, _ = io.Copy(io.Discard, far) // until the caller hangs up
		_ = far.Close()
	})
	return near, nil
}

// Every call of an engine that hangs ends within its bound, and leaves nothing behind: a bubble with a goroutine that
// does not end would fail.
func TestNoCallWaitsForAnEngineThatHangs(t *testing.T) {
	for name, test := range map[string]struct {
		within time.Duration
		call   func(context.Context, *Engine) error
	}{
		"Pull": {callWithin, func(ctx context.Context, e *Engine) error {
			_, err := e.Pull(ctx, "docker.io/library/debian:12", nil, func(rental.Progress) {})
			return err
		}},
		"Create": {callWithin, func(ctx context.Context, e *Engine) error {
			_, err := e.Create(ctx, least(), testImage)
			return err
		}},
		"Create, known": {callWithin, func(ctx context.Context, e *Engine) error {
			e.facts.Store(&facts{})
			_, err := e.Create(ctx, least(), testImage)
			return err
		}},
		"Start": {2 * callWithin, func(ctx context.Context, e *Engine) error { _, err := e.Start(ctx, "c"); return err }},
		"Stop":  {callWithin + time.Minute, func(ctx context.Context, e *Engine) error { return e.Stop(ctx, "c", time.Minute) }},
		"Remove": {2 * callWithin, func(ctx context.Context, e *Engine) error {
			return e.Remove(ctx, "r-1", "c")
		}},
		"Holdings": {callWithin, func(ctx context.Context, e *Engine) error { _, err := e.Holdings(ctx); return err }},
		"Logs": {callWithin, func(ctx context.Context, e *Engine) error {
			_, _, err := e.Logs(ctx, "c", 10, time.Time{})
			return err
		}},
		"trial of the storage": {quotaTrial + tidyUpWithin, func(ctx context.Context, e *Engine) error {
			e.quota.expect(storageID{driver: "btrfs"})
			e.tryQuota(ctx)
			if e.quota.holds(ctx) {
				t.Error("a storage that nobody answers for holds containers to a size")
			}
			return goneFailure()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, hangUp := hanging(t)
				defer hangUp()
				began := time.Now()
				err := test.call(t.Context(), e)
				took := time.Since(began)
				if err == nil || took > test.within {
					t.Errorf("ended with %v after %v, want an error within %v", err, took, test.within)
				}
				t.Logf("after %v: %v", took, err)
			})
		})
	}
}

// Wait and Run wait for the engine as long as it takes, and end with their context.
func TestWhoWaitsForAnEngineThatHangsIsNotCaught(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, hangUp := hanging(t)
		defer hangUp()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		var waiting sync.WaitGroup
		var end, ran time.Duration
		began := time.Now()
		waiting.Go(func() {
			if _, err := e.Wait(ctx, "c"); err == nil {
				t.Error("a container was found on an engine that says nothing")
			}
			end = time.Since(began)
		})
		waiting.Go(func() {
			if err := e.Run(ctx, func() {}); err != nil {
				t.Errorf("Run: %v", err)
			}
			ran = time.Since(began)
		})
		time.Sleep(5 * time.Minute)
		if info := e.Info(); info.Available || info.Problem == "" {
			t.Errorf("info %+v, want a problem", info)
		}
		waiting.Wait()
		if end > 10*time.Minute || ran > 10*time.Minute+2*tidyUpWithin {
			t.Errorf("ended after %v and %v, want soon after 10m", end, ran)
		}
	})
}

func hanging(t *testing.T) (e *Engine, hangUp func()) {
	t.Helper()
	e, err := New(Options{Host: "unix:///nowhere/docker.sock", OwnerKey: make([]byte, 16), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var m mute
	e.dial = m.dial
	if err := e.connect(); err != nil {
		t.Fatal(err)
	}
	return e, func() {
		_ = e.api().Close()
		m.conns.Wait()
	}
}
