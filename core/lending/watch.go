package lending

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Watch implements [rental.Devices]. What would end the rental has to be seen twice: a list of processes is
// old by the time it is read, and a number may have become another process's. A GPU that is gone has to stay so for
// a while: after a machine's sleep, or while its driver is being loaded, one may not be there yet.
func (d *Desk) Watch(ctx context.Context, id rental.ID, gpus []rental.GPU, container string) error {
	var last sight
	var since time.Time // last has been seen without a break
	for {
		now := d.look(ctx, id, gpus, container)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if now != last {
			since = time.Now()
		} else if now.bad() && (now.gone == "" || time.Since(since) >= goneFor) {
			d.log.Error("a rental has to end because of its GPUs", "rental", id, "because", now.failure().Message)
			return now.failure()
		}
		pause := watchEvery
		if now.bad() {
			pause = watchSooner
		}
		last = now
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sight is what is wrong with a rental, seen at one moment; zero: nothing.
type sight struct {
	gone    string // a GPU of the rental's that is lost, by its name
	foreign string // the UUID of a GPU that is not the rental's
	pid     int    // and the process of the rental on it
}

func (s sight) bad() bool { return s != sight{} }

func (s sight) failure() *rental.Failure {
	if s.gone != "" {
		return rental.Failf(rental.CodeGPUUnavailable, "%s does not answer any more, so the rental had to be ended.", s.gone)
	}
	return rental.Failf(rental.CodeIsolation, "A program of the rental used a GPU that was not rented, so the rental had to be ended.")
}

// look compares where the container's processes are with where they may be. A driver that does not answer
// proves nothing.
func (d *Desk) look(ctx context.Context, id rental.ID, gpus []rental.GPU, container string) sight {
	states, err := d.machine.Inspect(ctx, asked(gpus))
	if err != nil {
		d.log.Debug("looking at lent GPUs", "rental", id, "error", err)
		return sight{}
	}
	for i, state := range states {
		if state.Lost {
			return sight{gone: nameOf(gpus[i])}
		}
	}
	tenants, err := d.machine.Tenants(ctx, asked(gpus))
	if err != nil {
		d.log.Debug("looking at lent GPUs", "rental", id, "error", err)
		return sight{}
	}
	var guests []trouble
	for _, t := range tenants {
		at := slices.IndexFunc(gpus, func(gpu rental.GPU) bool { return gpu.UUID == t.UUID })
		if at < 0 {
			if pid := d.anyIn(container, slices.Concat(t.Compute, t.Graphics)); pid != 0 {
				return sight{foreign: t.UUID, pid: pid}
			}
			continue
		}
		if pid := d.anyNotIn(container, computing(t.Compute, t.Graphics)); pid != 0 {
			guests = append(guests, trouble{Cause: busy, Rental: id, Boot: d.boot, GPUTrouble: rental.GPUTrouble{
				GPU:     gpus[at],
				Message: fmt.Sprintf("%s is rented out, and process %d, which is not the rental's, computes on it too.", nameOf(gpus[at]), pid),
				Fix:     "End that process: the renter pays for the whole GPU.",
				Since:   time.Now().UTC().Round(0),
			}})
		}
	}
	d.guests(id, guests)
	return sight{}
}

// anyIn is a process that is certainly the container's; 0: none is.
func (d *Desk) anyIn(container string, processes []hardware.Process) int {
	for _, p := range processes {
		if yes, known := d.machine.RunsIn(p.PID, container); known && yes {
			return p.PID
		}
	}
	return 0
}

// anyNotIn is a process that is certainly not the container's; 0: none is.
func (d *Desk) anyNotIn(container string, processes []hardware.Process) int {
	for _, p := range processes {
		if yes, known := d.machine.RunsIn(p.PID, container); known && !yes {
			return p.PID
		}
	}
	return 0
}

// guests replaces what was known of others on a rental's GPUs.
func (d *Desk) guests(id rental.ID, now []trouble) {
	d.mu.Lock()
	defer d.mu.Unlock()
	mine := func(t trouble) bool { return t.Rental == id && !t.Withheld }
	before := slices.DeleteFunc(slices.Clone(d.troubles), func(t trouble) bool { return !mine(t) })
	if slices.EqualFunc(before, now, func(a, b trouble) bool { return a.Message == b.Message }) {
		return
	}
	d.troubles = slices.DeleteFunc(d.troubles, mine)
	for _, t := range now {
		d.log.Warn("something else uses a lent GPU", "rental", id, "gpu", t.GPU.UUID, "what", t.Message)
		d.troubles = append(d.troubles, t)
	}
	d.tell()
}

// Run looks at the withheld GPUs now and then, as long as there are any, and lets those be offered again that
// are as they should be. changed is called, and must return quickly, after each change of Troubles. It returns
// nil when ctx ends.
func (d *Desk) Run(ctx context.Context, changed func()) error {
	d.hear(changed)
	defer d.hear(nil)
	for {
		var again <-chan time.Time
		if len(d.withheld()) > 0 {
			again = time.After(lookEvery)
		}
		select {
		case <-again:
			d.review(ctx)
		case <-d.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *Desk) hear(changed func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = changed
	if changed != nil && len(d.troubles) > 0 {
		changed()
	}
}

// withheld are the troubles that a later look may find over.
func (d *Desk) withheld() []trouble {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.troubles), func(t trouble) bool { return !t.Withheld || t.UntilRestart })
}

// review looks at each of them once more.
func (d *Desk) review(ctx context.Context) {
	for _, t := range d.withheld() {
		states, err := d.machine.Inspect(ctx, asked([]rental.GPU{t.GPU}))
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			continue
		}
		found := d.judge(t.GPU, t.Note, states[0])
		if found != nil && found.cause == settings && t.Cause != settings {
			// What was worse has hidden it so far, so that nobody has tried yet.
			found = d.setBack(ctx, t)
		}
		d.revise(t, found)
	}
}

// setBack restores a withheld GPU's settings, and says what is wrong with it then.
func (d *Desk) setBack(ctx context.Context, t trouble) *finding {
	gpus := []rental.GPU{t.GPU}
	l := &loan{GPUs: gpus, Notes: map[string]note{t.GPU.UUID: *t.Note}}
	d.restore(ctx, l, []foundAt{{finding{cause: settings}, t.GPU}})
	states, err := d.machine.Inspect(ctx, asked(gpus))
	if err != nil {
		return &finding{silent, t.Message, t.Fix, false} // as before
	}
	return d.judge(t.GPU, t.Note, states[0])
}

// revise notes what is wrong with a withheld GPU by now; nil: nothing any more.
func (d *Desk) revise(t trouble, found *finding) {
	if d.replace(t, found) {
		d.save()
	}
}

// replace reports whether that is anything new.
func (d *Desk) replace(t trouble, found *finding) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := slices.IndexFunc(d.troubles, func(known trouble) bool { return known.Withheld && known.GPU.UUID == t.GPU.UUID })
	switch {
	case at < 0:
		return false
	case found == nil, found.passed():
		d.log.Info("a GPU that was withheld can be rented again", "gpu", t.GPU.UUID)
		d.troubles = slices.Delete(d.troubles, at, at+1)
	case found.message == t.Message:
		return false
	default:
		t.Cause, t.Message, t.Fix, t.UntilRestart = found.cause, found.message, found.fix, found.untilRestart
		d.troubles[at] = t
	}
	d.tell()
	return true
}
