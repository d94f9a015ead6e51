package rental_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/rental"
)

func wantCode(t *testing.T, err error, code rental.Code) {
	t.Helper()
	failure, ok := err.(*rental.Failure)
	if !ok || failure.Code != code {
		t.Errorf("got %v, want a failure with code %s", err, code)
	}
}

func TestRepeatedOrders(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		s := spec("r-1")
		s.Command = []string{"sleep", "infinity"}
		s.ExpiresAt = time.Now().Add(30 * 24 * time.Hour).In(time.FixedZone("elsewhere", 3600))
		h.accept(s)
		running := h.expect("r-1", rental.Running, "")
		other := s
		other.Env = map[string]string{"TOKEN": "another"}
		check := func(want rental.Status) {
			t.Helper()
			for range 100 {
				if diff := cmp.Diff(want, h.accept(s)); diff != "" {
					t.Fatal(diff)
				}
			}
			_, err := h.book.Accept(other)
			wantCode(t, err, rental.CodeConflict)
			synctest.Wait()
			if h.engine.Pulls() != 1 {
				t.Errorf("%d pulls", h.engine.Pulls())
			}
		}
		check(running)
		h.leave()
		h.boot()
		check(h.expect("r-1", rental.Running, ""))
		h.end("r-1", nil, 0)
		final := h.expect("r-1", rental.Stopped, "")
		check(final)
		if err := h.book.Settle("r-1", final.Sequence); err != nil {
			t.Fatal(err)
		}
		check(final)
		h.leave()
		time.Sleep(6 * 24 * time.Hour)
		h.boot()
		check(final)
		time.Sleep(2 * 24 * time.Hour)
		if _, ok := h.book.Lookup("r-1"); ok {
			t.Error("the record is kept for ever")
		}
		if _, err := os.Stat(h.file("r-1")); !os.IsNotExist(err) {
			t.Errorf("the file is kept: %v", err)
		}
	})
}

func TestSettle(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		wantCode(t, h.book.Settle("r-1", 1), rental.CodeNotFound)
		wantCode(t, h.book.End("r-1", nil, 0), rental.CodeNotFound)
		h.accept(spec("r-1"))
		h.accept(spec("r-2"))
		running := h.expect("r-1", rental.Running, "")
		wantCode(t, h.book.Settle("r-1", running.Sequence), rental.CodeConflict)
		h.end("r-1", nil, 0)
		final := h.expect("r-1", rental.Stopped, "")
		wantCode(t, h.book.Settle("r-1", final.Sequence-1), rental.CodeConflict)
		if got := len(h.book.Statuses()); got != 2 {
			t.Errorf("%d statuses before it is settled", got)
		}

		h.leave() // a final status survives until it is settled, with the same sequence
		h.boot()
		if diff := cmp.Diff(final, h.expect("r-1", rental.Stopped, "")); diff != "" {
			t.Error(diff)
		}
		for range 2 {
			if err := h.book.Settle("r-1", final.Sequence); err != nil {
				t.Fatal(err)
			}
		}
		h.leave()
		h.boot()
		if got := h.book.Statuses(); len(got) != 1 || got[0].ID != "r-2" {
			t.Errorf("statuses after it was settled: %v", got)
		}
		h.end("r-1", nil, 0)
	})
}

func TestUnsettledEndIsGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		h.expect("r-1", rental.Running, "")
		h.end("r-1", nil, 0)
		time.Sleep(7*24*time.Hour - time.Minute)
		if len(h.book.Statuses()) != 1 {
			t.Error("given up early")
		}
		time.Sleep(15 * time.Minute)
		if len(h.book.Statuses()) != 0 {
			t.Error("never given up")
		}
	})
}

func TestOldestFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		ids := []rental.ID{"z", "a", "m"}
		check := func() {
			t.Helper()
			synctest.Wait()
			for i, s := range h.book.Statuses() {
				if s.ID != ids[i] {
					t.Errorf("place %d holds %s, want %s", i, s.ID, ids[i])
				}
			}
		}
		for _, id := range ids {
			h.accept(spec(id))
			time.Sleep(time.Second)
		}
		check()
		h.leave()
		h.boot()
		check()
	})
}

func TestOrdersNeedARunningBook(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		h.expect("r-1", rental.Running, "")
		refused := func() {
			t.Helper()
			if _, err := h.book.Accept(spec("r-2")); err == nil {
				t.Error("accepted")
			}
			if err := h.book.End("r-1", nil, 0); err == nil {
				t.Error("ended")
			}
		}
		h.leave()
		refused()
		h.open()
		refused()
		h.run()
		h.accept(spec("r-2"))
		h.expect("r-2", rental.Running, "")
		h.expect("r-1", rental.Running, "")
		if err := h.book.Run(t.Context(), h.note); err == nil {
			t.Error("run twice")
		}
		if _, err := h.book.Accept(rental.Spec{ID: "../x"}); err == nil {
			t.Error("accepted an id that is none")
		}
	})
}

func TestWait(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		if err := h.book.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		h.accept(spec("r-1"))
		h.accept(spec("r-2"))
		h.expect("r-2", rental.Running, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		h.end("r-1", nil, 0)
		if err := h.book.Wait(ctx); err == nil {
			t.Error("did not wait for r-2")
		}
		done := make(chan error, 1)
		go func() { done <- h.book.Wait(t.Context()) }()
		h.accept(spec("r-3"))
		h.end("r-2", nil, 0)
		h.expect("r-3", rental.Running, "")
		select {
		case <-done:
			t.Error("did not wait for r-3")
		default:
		}
		h.end("r-3", nil, 0)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRunIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.leave()
		h.open()
		ctx, cancel := context.WithCancel(t.Context())
		stuck := make(chan struct{})
		done := make(chan error, 1)
		go func() { done <- h.book.Run(ctx, func(rental.Status) { <-stuck }) }()
		synctest.Wait()
		h.accept(spec("r-1"))
		cancel()
		if err := <-done; err == nil || !strings.Contains(err.Error(), "10s") {
			t.Errorf("left with %v", err)
		}
		close(stuck)
	})
}

func TestSweep(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		h.expect("r-1", rental.Running, "")
		h.engine.Plant("stranger", time.Now())
		holds := func(want ...rental.ID) {
			t.Helper()
			synctest.Wait()
			held, _ := h.engine.Holdings(t.Context())
			var got []rental.ID
			for _, x := range held {
				got = append(got, x.ID)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
		time.Sleep(24 * time.Hour)
		holds("r-1", "stranger") // the backend has not been heard
		h.book.Heard()
		h.engine.Fail("Holdings", rental.Failf(rental.CodeDockerUnavailable, "away"))
		time.Sleep(time.Hour)
		h.engine.Fail("Holdings", nil)
		h.engine.Plant("young", time.Now())
		time.Sleep(9 * time.Minute)
		h.engine.Plant("younger", time.Now())
		time.Sleep(2 * time.Minute)
		holds("r-1", "younger")
		time.Sleep(20 * time.Minute)
		holds("r-1")
		h.expect("r-1", rental.Running, "")
	})
}

func TestUnfinishedWriteIsRemoved(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.leave()
		left := filepath.Join(h.dir, rental.FileName("r-1")+".new")
		if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.boot()
		if _, err := os.Stat(left); !os.IsNotExist(err) {
			t.Errorf("still there: %v", err)
		}
	})
}
