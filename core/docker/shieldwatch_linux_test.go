package docker_test

import (
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/rental"
)

// standsAgain returns how long it takes until the shield stands.
func standsAgain(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	for !stands(t) {
		if time.Since(began) > 30*time.Second {
			t.Fatal("the shield stays down")
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}

// settles waits until the shield was seen to stand: what happens to it while it is put up is another matter.
func settles(t *testing.T, e *docker.Engine) {
	t.Helper()
	for late := time.Now().Add(30 * time.Second); !e.ShieldIsSettled(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("the shield is not seen to stand")
		}
	}
}

func TestShieldThatIsDeletedIsSoonUpAgainAndHandsThatHangEndRentals(t *testing.T) {
	e := shieldedEngine(t, shielding())
	changed := watch(t, e)
	until(t, e, changed, func(i rental.EngineInfo) bool { return i.Shield.State == rental.ShieldOn })
	c := rent(t, e, spec("closely-watched"))
	for range 2 {
		settles(t, e)
		takeDown(t)
		took := standsAgain(t)
		t.Logf("up again %s after it was deleted", took.Round(time.Millisecond))
		if took > 10*time.Second {
			t.Errorf("it took %s to put up the shield that was deleted", took)
		}
	}

	settles(t, e)
	ended := endOf(t, e, c.ID)
	release := e.HangHands(time.Second)
	defer release()
	began := time.Now()
	select {
	case exit := <-ended:
		if exit.Failure == nil || exit.Failure.Code != rental.CodeIsolation || exit.EngineStopped {
			t.Errorf("the rental ended with %+v", exit)
		}
		t.Logf("ended %s after the packet filter began to hang", time.Since(began).Round(time.Millisecond))
	case <-time.After(time.Minute):
		t.Fatal("a rental runs on though nobody can tell whether the shield stands")
	}
	if info := e.Info().Shield; info.State != rental.ShieldMissing || !info.Refuses() {
		t.Errorf("told of the shield: %+v", info)
	}
}

// endOf hands on how a container ends.
func endOf(t *testing.T, e *docker.Engine, containerID string) <-chan rental.Exit {
	t.Helper()
	ended := make(chan rental.Exit, 1)
	ctx := t.Context()
	go func() {
		exit, err := e.Wait(ctx, containerID)
		if err != nil && ctx.Err() == nil {
			t.Errorf("Wait: %v", err)
		}
		ended <- exit
	}()
	return ended
}

func TestStartNeedsNoLookWhileNothingWasChanged(t *testing.T) {
	e := shieldedEngine(t, shielding())
	looks := e.CountLooks()
	c := rent(t, e, spec("looked-at"))
	if looks.Load() == 0 {
		t.Fatal("the first start did not look")
	}
	start := func() int64 {
		t.Helper()
		before := looks.Load()
		if _, err := e.Start(t.Context(), c.ID); err != nil { // as when it is adopted
			t.Fatalf("Start: %v", err)
		}
		return looks.Load() - before
	}
	// The engine may still be changing rules of its own, for the network that is kept in stock.
	for late := time.Now().Add(30 * time.Second); start() > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("every start looks in full")
		}
	}
	takeDown(t)
	if n := start(); n == 0 || !stands(t) {
		t.Errorf("after the shield was deleted, a start made %d looks; the shield stands: %t", n, stands(t))
	}
}
