package rentaltest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

// Bench is an engine under test and what there is to rent on it.
type Bench struct {
	Engine  rental.Engine
	Spec    rental.Spec // of a container that runs until it is stopped, with one port at least
	Missing string      // reference of an image that does not exist

	// Restart takes the engine down with its containers and brings it back, once a call of Wait is under way;
	// nil: that cannot be done here.
	Restart func()
}

// TestEngine checks that an engine keeps to the contract of rental.Engine.
func TestEngine(t *testing.T, b Bench) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Cleanup(func() { _ = b.Engine.Remove(context.Background(), b.Spec.ID, "") })

	_, err := b.Engine.Pull(ctx, b.Missing, nil, func(rental.Progress) {})
	wantCode(t, "pulling an image that does not exist", err, rental.CodeImageNotFound)
	image, err := b.Engine.Pull(ctx, b.Spec.Image, b.Spec.Registry, func(rental.Progress) {})
	must(t, "Pull", err)

	id, err := b.Engine.Create(ctx, b.Spec, image)
	must(t, "Create", err)
	again, err := b.Engine.Create(ctx, b.Spec, image)
	must(t, "Create again", err)
	if again != id {
		t.Errorf("creating again made %s beside %s", again, id)
	}
	b.holds(ctx, t, "after Create", rental.Holding{ID: b.Spec.ID, ContainerID: id})

	c := b.started(ctx, t, id)
	same := b.started(ctx, t, id)
	if !same.StartedAt.Equal(c.StartedAt) || !slices.Equal(same.Routes, c.Routes) {
		t.Errorf("starting what runs changed %+v to %+v", c, same)
	}
	b.holds(ctx, t, "after Start", rental.Holding{ID: b.Spec.ID, ContainerID: id, Running: true, Ran: true})

	brief, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	defer stop()
	if exit, err := b.Engine.Wait(brief, id); err == nil {
		t.Errorf("Wait returned %+v of a container that runs", exit)
	}
	b.stopped(ctx, t, id)
	b.holds(ctx, t, "after Stop", rental.Holding{ID: b.Spec.ID, ContainerID: id, Ran: true})
	b.endedUnseen(ctx, t, id)

	if c := b.started(ctx, t, id); c.ID != id {
		t.Errorf("starting what had stopped made %s", c.ID)
	}
	if b.Restart != nil {
		b.restarted(ctx, t, id)
	}
	for range 2 {
		must(t, "Remove", b.Engine.Remove(ctx, b.Spec.ID, id))
	}
	b.holds(ctx, t, "after Remove")
	must(t, "stopping what is gone", b.Engine.Stop(ctx, id, 0))
	_, err = b.Engine.Wait(ctx, id)
	wantCode(t, "waiting for what is gone", err, rental.CodeNotFound)
	_, err = b.Engine.Start(ctx, id)
	wantCode(t, "starting what is gone", err, rental.CodeNotFound)
}

func (b Bench) started(ctx context.Context, t *testing.T, id string) rental.Container {
	t.Helper()
	c, err := b.Engine.Start(ctx, id)
	must(t, "Start", err)
	if c.ID != id || c.StartedAt.IsZero() || len(c.Routes) != len(b.Spec.Ports) {
		t.Fatalf("Start returned %+v", c)
	}
	for i, r := range c.Routes {
		if r.Port != b.Spec.Ports[i] || !r.Target.IsValid() || r.Target.Port() == 0 {
			t.Errorf("route %d is %+v, for port %v", i, r, b.Spec.Ports[i])
		}
	}
	return c
}

// stopped stops the container while it is waited for.
func (b Bench) stopped(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	waited := make(chan error, 1)
	go func() {
		exit, err := b.Engine.Wait(ctx, id)
		if err == nil && (exit.At.IsZero() || exit.EngineStopped) {
			err = errors.New("the exit has no time, or is taken for the engine's doing")
		}
		waited <- err
	}()
	for range 2 {
		must(t, "Stop", b.Engine.Stop(ctx, id, time.Second))
	}
	must(t, "Wait", <-waited)
}

// restarted restarts the engine while the container is waited for.
func (b Bench) restarted(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	type end struct {
		exit rental.Exit
		err  error
	}
	waited := make(chan end, 1)
	go func() {
		exit, err := b.Engine.Wait(ctx, id)
		waited <- end{exit, err}
	}()
	b.Restart()
	if e := <-waited; e.err != nil || !e.exit.EngineStopped {
		t.Errorf("Wait over a restart of the engine returned %+v, %v", e.exit, e.err)
	}
	b.endedUnseen(ctx, t, id)
}

// endedUnseen waits for a container that has ended already.
func (b Bench) endedUnseen(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	exit, err := b.Engine.Wait(ctx, id)
	must(t, "Wait for what has ended", err)
	if exit.At.IsZero() || exit.EngineStopped {
		t.Errorf("Wait for what has ended returned %+v, whose time must be known and whose cause cannot be", exit)
	}
}

// holds checks what is listed of the rental; CreatedAt only for being there.
func (b Bench) holds(ctx context.Context, t *testing.T, when string, want ...rental.Holding) {
	t.Helper()
	all, err := b.Engine.Holdings(ctx)
	must(t, "Holdings", err)
	got := slices.DeleteFunc(all, func(h rental.Holding) bool { return h.ID != b.Spec.ID })
	for i := range got {
		if got[i].CreatedAt.IsZero() {
			t.Errorf("%s: a holding has no time: %+v", when, got[i])
		}
		got[i].CreatedAt = time.Time{}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: holdings are %+v, want %+v", when, got, want)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func wantCode(t *testing.T, what string, err error, code rental.Code) {
	t.Helper()
	failure, ok := errors.AsType[*rental.Failure](err)
	if !ok || failure.Code != code {
		t.Errorf("%s: got %v, want a failure with code %s", what, err, code)
	}
}
