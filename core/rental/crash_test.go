package rental_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/rental/rentaltest"
)

// fate kills an agent at one of its acts: from then on nothing it does has any effect, and no call
// of its returns before its context ends.
type fate struct {
	mu    sync.Mutex
	at    int // the moment to die at; those before are lived through
	count int
	where string
}

var errDead = errors.New("this agent has been killed")

// pass counts a moment and reports whether the agent is dead in it.
func (f *fate) pass(act, moment string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.where != "" {
		return errDead
	}
	if f.count++; f.count == f.at {
		f.where = act + " " + moment
		return errDead
	}
	return nil
}

// struck is where the agent was killed; "" while it lives.
func (f *fate) struck() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.where
}

// call makes one call to the world outside.
func (f *fate) call(ctx context.Context, act string, do func() error) error {
	if f.pass(act, "before") != nil {
		<-ctx.Done()
		return ctx.Err()
	}
	err := do()
	if f.pass(act, "after") != nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

// mortalEngine is the engine as an agent sees it that may be killed.
type mortalEngine struct {
	rental.Engine
	fate *fate
}

func (m mortalEngine) Pull(ctx context.Context, image string, auth *rental.RegistryAuth, progress func(rental.Progress)) (i rental.Image, err error) {
	err = m.fate.call(ctx, "Pull", func() (err error) { i, err = m.Engine.Pull(ctx, image, auth, progress); return err })
	return i, err
}

func (m mortalEngine) Create(ctx context.Context, spec rental.Spec, image rental.Image) (id string, err error) {
	err = m.fate.call(ctx, "Create", func() (err error) { id, err = m.Engine.Create(ctx, spec, image); return err })
	return id, err
}

func (m mortalEngine) Start(ctx context.Context, containerID string) (c rental.Container, err error) {
	err = m.fate.call(ctx, "Start", func() (err error) { c, err = m.Engine.Start(ctx, containerID); return err })
	return c, err
}

func (m mortalEngine) Wait(ctx context.Context, containerID string) (e rental.Exit, err error) {
	err = m.fate.call(ctx, "Wait", func() (err error) { e, err = m.Engine.Wait(ctx, containerID); return err })
	return e, err
}

func (m mortalEngine) Stop(ctx context.Context, containerID string, grace time.Duration) error {
	return m.fate.call(ctx, "Stop", func() error { return m.Engine.Stop(ctx, containerID, grace) })
}

func (m mortalEngine) Remove(ctx context.Context, id rental.ID, containerID string) error {
	return m.fate.call(ctx, "Remove", func() error { return m.Engine.Remove(ctx, id, containerID) })
}

func (m mortalEngine) Holdings(ctx context.Context) (all []rental.Holding, err error) {
	err = m.fate.call(ctx, "Holdings", func() (err error) { all, err = m.Engine.Holdings(ctx); return err })
	return all, err
}

type mortalRelay struct {
	rental.Relay
	fate *fate
}

func (m mortalRelay) Publish(ctx context.Context, id rental.ID, routes []rental.Route, trouble func(string)) (a []rental.Address, err error) {
	err = m.fate.call(ctx, "Publish", func() (err error) { a, err = m.Relay.Publish(ctx, id, routes, trouble); return err })
	return a, err
}

func (m mortalRelay) Withdraw(ctx context.Context, id rental.ID) error {
	return m.fate.call(ctx, "Withdraw", func() error { return m.Relay.Withdraw(ctx, id) })
}

// errand is what a backend that never tires wants done, whatever agent is there: two rentals, of
// which it stops one and the other ends by itself.
type errand struct {
	accepted map[rental.ID]bool // the backend has been told so
	stopped  bool               // the backend has been told that its stop was accepted
	exited   bool
}

var errands = []rental.ID{"stopped", "exiting", "staying"}

// do goes through the errand until it is done or the agent is dead.
func (e *errand) do(h *host, alive func() bool) {
	for _, id := range errands {
		if !alive() {
			break
		}
		if _, err := h.book.Accept(spec(id)); err == nil && alive() {
			e.accepted[id] = true
		}
	}
	time.Sleep(5 * time.Second)
	if alive() && !e.stopped && h.book.End("stopped", nil, time.Second) == nil && alive() {
		e.stopped = true
	}
	synctest.Wait()
	if !e.exited && h.engine.Starts("exiting") > 0 { // whether there is an agent or not
		h.engine.Exit("exiting", rental.Exit{Code: 0, At: time.Now()})
		e.exited = true
	}
	synctest.Wait()
}

// TestKilledAtEveryAct kills the agent at every act it does on disk, engine and relay, and when it
// tells a status. The next agent must bring the errand to the same end: none lost, none twice,
// nothing left over. In a second round the next agent is killed too while it takes over.
func TestKilledAtEveryAct(t *testing.T) {
	for _, deaths := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d deaths", deaths), func(t *testing.T) {
			atEveryMoment(t, func(t *testing.T, at int) bool { return killedAt(t, at, deaths) })
		})
	}
}

// atEveryMoment tries one moment after the other, until the agent lives through them all.
func atEveryMoment(t *testing.T, try func(t *testing.T, at int) (struck bool)) {
	t.Helper()
	at := 1
	for try(t, at) {
		at++
	}
	if at < 100 {
		t.Errorf("only %d moments to die at", at)
	}
	t.Logf("struck at each of %d moments", at-1)
}

func newErrandHost(t *testing.T) (*host, *errand) {
	h := &host{t: t, dir: t.TempDir(), engine: rentaltest.NewEngine(image)}
	h.engine.Report(rental.Progress{Phase: "pulling", Current: 1, Total: 2}, rental.Progress{Phase: "pulling", Current: 2, Total: 2})
	return h, &errand{accepted: map[rental.ID]bool{}}
}

// killedAt reports whether an agent lived long enough to be killed.
func killedAt(t *testing.T, at, deaths int) (struck bool) {
	synctest.Test(t, func(t *testing.T) {
		h, backend := newErrandHost(t)
		var where []string
		for range deaths {
			f := &fate{at: at}
			if h.mortal(f) {
				backend.do(h, func() bool { return f.struck() == "" })
				h.cancel()
				<-h.done
			}
			if f.struck() != "" {
				where = append(where, f.struck())
			}
		}
		struck = len(where) > 0
		defer func() {
			if t.Failed() {
				t.Logf("killed at moment %d: %v", at, where)
			}
		}()

		// The last agent finds what the backend knows to be accepted before it is told again.
		h.relay = rentaltest.NewRelay()
		h.open()
		for id := range backend.accepted {
			if _, ok := h.book.Lookup(id); !ok {
				t.Errorf("rental %s is lost", id)
			}
		}
		h.run()
		time.Sleep(time.Minute)
		if backend.stopped {
			h.expect("stopped", rental.Stopped, "")
		}
		backend.do(h, func() bool { return true })
		time.Sleep(time.Minute)
		h.expect("stopped", rental.Stopped, "")
		h.expect("exiting", rental.Stopped, "")
		h.expect("staying", rental.Running, "")
		if starts := h.engine.Starts("staying"); starts != 1 {
			t.Errorf("staying was started %d times", starts)
		}
		if routes := h.relay.Routes("staying"); len(routes) != 1 {
			t.Errorf("routes of staying: %v", routes)
		}
		held, _ := h.engine.Holdings(t.Context())
		if len(held) != 1 {
			t.Errorf("left over: %v", held)
		}
		for _, id := range errands {
			h.checkHistory(id)
		}
		files, err := os.ReadDir(h.dir)
		if err != nil || len(files) != 3 {
			t.Errorf("the ledger holds %v, %v", files, err)
		}
		h.leave()
	})
	return struck
}

// TestPowerCutAtEveryAct cuts the power at every act: what was not synced is gone, and all
// containers have ended. No promise may be lost, and nothing may be left over.
func TestPowerCutAtEveryAct(t *testing.T) {
	atEveryMoment(t, powerCutAt)
}

func powerCutAt(t *testing.T, at int) (struck bool) {
	synctest.Test(t, func(t *testing.T) {
		h, backend := newErrandHost(t)
		f := &fate{at: at}
		if !h.mortal(f) {
			t.Fatal("an empty ledger does not open")
		}
		backend.do(h, func() bool { return f.struck() == "" })
		h.cancel()
		<-h.done
		struck = f.struck() != ""
		defer func() {
			if t.Failed() {
				t.Logf("power cut at moment %d: %s", at, f.struck())
			}
		}()
		if err := h.cutPower(); err != nil {
			t.Fatal(err)
		}
		for _, id := range errands {
			if h.engine.Starts(id) > 0 {
				h.engine.Exit(id, rental.Exit{Code: 137, At: time.Now()})
			}
		}

		h.relay = rentaltest.NewRelay()
		h.open()
		h.run()
		time.Sleep(time.Minute)
		for _, s := range h.book.Statuses() {
			delete(backend.accepted, s.ID)
			if starts := h.engine.Starts(s.ID); starts > 1 {
				t.Errorf("%s was started %d times", s.ID, starts)
			}
			if s.Failure != nil && s.Failure.Code == rental.CodeInterrupted && s.ExitCode == nil {
				t.Errorf("%s: the exit that was known is lost", s.ID)
			}
			if s.ID == "stopped" && backend.stopped {
				h.expect(s.ID, rental.Stopped, "")
			}
			h.end(s.ID, nil, 0)
		}
		if len(backend.accepted) > 0 {
			t.Errorf("lost: %v", backend.accepted)
		}
		if err := h.book.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if held, _ := h.engine.Holdings(t.Context()); len(held) > 0 {
			t.Errorf("left over: %v", held)
		}
		for _, id := range errands {
			h.states(id)
		}
		h.leave()
	})
	return struck
}

// mortal boots an agent that will be killed, and reports whether it came as far as running.
func (h *host) mortal(f *fate) bool {
	h.relay = rentaltest.NewRelay()
	book, cutPower, err := rental.OpenFaulty(rental.Options{
		Dir: h.dir, Log: silent,
		Engine: mortalEngine{h.engine, f}, Relay: mortalRelay{h.relay, f},
	}, f.pass)
	if errors.Is(err, errDead) {
		return false
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.book, h.cutPower = book, cutPower
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	h.cancel, h.done = cancel, done
	go func() {
		done <- book.Run(ctx, func(s rental.Status) {
			if f.pass("notify", "before") == nil {
				h.note(s)
			}
		})
	}()
	synctest.Wait()
	return true
}

// checkHistory checks that what was told of a rental, by all agents, is one life: sequences grow,
// states go forward, and there is one end.
func (h *host) checkHistory(id rental.ID) {
	h.t.Helper()
	h.states(id)
	order := append(slices.Clone(wholeLife), rental.Failed)
	last, ends := 0, 0
	for _, s := range h.told {
		if s.ID != id {
			continue
		}
		if s.State.Final() {
			ends++
		}
		place := slices.Index(order, s.State)
		if place < last {
			h.t.Errorf("rental %s went from %s back to %s", id, order[last], s.State)
		}
		last = place
	}
	if ends > 1 {
		h.t.Errorf("rental %s ended %d times", id, ends)
	}
}
