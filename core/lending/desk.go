package lending

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

// Options are what a desk is made from.
type Options struct {
	Dir     string // the agent's state directory; made with mode 0700
	Machine Machine
	Log     *slog.Logger // nil: silent
}

// Times of the desk.
const (
	watchEvery  = 20 * time.Second // how often a lent GPU is looked at
	watchSooner = time.Second      // when what was seen would end a rental, and has to be seen again
	goneFor     = 10 * time.Second // how long a GPU has to be gone for its rental to end
	waitBound   = 20 * time.Second // for processes and memory to go once the container has
	returnBound = 30 * time.Second // for taking GPUs back altogether
	returnEvery = 500 * time.Millisecond
	lookEvery   = 30 * time.Second // how often a withheld GPU is looked at
)

// Desk lends the GPUs of this host. Its methods may be called at any time and from anywhere.
type Desk struct {
	machine Machine
	log     *slog.Logger
	boot    string
	file    file
	wake    chan struct{} // capacity 1: there is something for Run

	saving sync.Mutex // held before mu

	mu       sync.Mutex
	loans    map[rental.ID]*loan
	troubles []trouble
	changed  func() // of Run; nil outside
}

// loan is what one rental has.
type loan struct {
	GPUs  []rental.GPU    `json:"gpus"`
	Notes map[string]note `json:"notes"` // by UUID
	Boot  string          `json:"boot"`  // in which of the system's lives the notes were made
}

// trouble is a GPUTrouble with what ends it.
type trouble struct {
	rental.GPUTrouble
	Cause        cause     `json:"cause"`
	Rental       rental.ID `json:"rental,omitempty"` // after or during which it came
	Note         *note     `json:"note,omitempty"`   // how the GPU has to be again
	Boot         string    `json:"boot"`
	UntilRestart bool      `json:"until_restart,omitempty"`
}

// Open reads what the last agent has left. It starts nothing: that is for Run.
func Open(o Options) (*Desk, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening the state directory: %w", err)
	}
	d := &Desk{
		machine: o.Machine, log: o.Log, boot: o.Machine.BootID(), file: file{root},
		wake: make(chan struct{}, 1), loans: map[rental.ID]*loan{},
	}
	kept, err := d.file.load()
	switch {
	case errors.Is(err, errDamaged):
		d.log.Error("reading which GPUs are lent or withheld; the file has been set aside", "kept_as", fileDamaged, "error", err)
		d.troubles = append(d.troubles, trouble{Cause: "notes", Boot: d.boot, UntilRestart: true, GPUTrouble: rental.GPUTrouble{
			GPU:     rental.GPU{Index: -1},
			Message: "The agent's notes of GPUs that are lent or withheld were damaged, and have been set aside.",
			Fix:     "Nothing; GPUs that come back are checked for what is wrong in itself, and not against how they were.",
			Since:   time.Now().UTC().Round(0),
		}})
		return d, nil
	case err != nil:
		return nil, errors.Join(fmt.Errorf("reading which GPUs are lent or withheld: %w", err), root.Close())
	}
	if kept.Loans != nil {
		d.loans = kept.Loans
	}
	// A restart loads the driver anew: it ends processes, frees memory and puts the settings back.
	d.troubles = slices.DeleteFunc(kept.Troubles, func(t trouble) bool { return d.boot != "" && t.Boot != d.boot })
	return d, nil
}

// Close lets go of the state directory.
func (d *Desk) Close() error { return d.file.root.Close() }

// Troubles are what the host's owner should know of GPUs, oldest first.
func (d *Desk) Troubles() []rental.GPUTrouble {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]rental.GPUTrouble, len(d.troubles))
	for i, t := range d.troubles {
		list[i] = t.GPUTrouble
	}
	return list
}

// Lend implements [rental.Devices].
func (d *Desk) Lend(ctx context.Context, id rental.ID, gpus []rental.GPU) error {
	again, err := d.reserve(id, gpus)
	if err != nil || again {
		return err
	}
	notes, found, err := d.take(ctx, gpus)
	d.settle(id, notes, found, err)
	if err != nil || found == nil {
		return err
	}
	return rental.Failf(rental.CodeGPUUnavailable, "%s", found.message)
}

// settle notes what has come of a loan that was reserved.
func (d *Desk) settle(id rental.ID, notes map[string]note, found *foundAt, err error) {
	d.mu.Lock()
	switch {
	case err != nil:
		delete(d.loans, id)
	case found == nil:
		d.loans[id].Notes = notes
	case found.passed():
		delete(d.loans, id)
		d.tell()
	default:
		delete(d.loans, id)
		d.note(trouble{Cause: found.cause, Boot: d.boot, GPUTrouble: rental.GPUTrouble{
			GPU: found.gpu, Withheld: true, Message: found.message, Fix: found.fix, Since: time.Now().UTC().Round(0),
		}})
	}
	d.mu.Unlock()
	d.save()
}

// reserve keeps a rental's GPUs from others while they are looked at. again tells that it has them already.
func (d *Desk) reserve(id rental.ID, gpus []rental.GPU) (again bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.loans[id]; known {
		return true, nil
	}
	for _, gpu := range gpus {
		for other, l := range d.loans {
			if slices.ContainsFunc(l.GPUs, gpu.Overlaps) {
				d.log.Error("a GPU would have been lent twice", "gpu", gpu.UUID, "rental", id, "lent_to", other)
				return false, rental.Failf(rental.CodeGPUUnavailable, "%s is lent to another rental.", nameOf(gpu))
			}
		}
		for _, t := range d.troubles {
			if t.Withheld && t.GPU.Overlaps(gpu) {
				return false, rental.Failf(rental.CodeGPUUnavailable, "%s", t.Message)
			}
		}
	}
	d.loans[id] = &loan{GPUs: slices.Clone(gpus), Boot: d.boot}
	return false, nil
}

// foundAt is what was found wrong with which GPU.
type foundAt struct {
	finding
	gpu rental.GPU
}

// take notes how the GPUs are, or what keeps one from being lent.
func (d *Desk) take(ctx context.Context, gpus []rental.GPU) (map[string]note, *foundAt, error) {
	// The log first: an error that comes while the GPUs are looked at is one of the rental's time.
	_, record, logErr := d.machine.Xids(-1)
	states, err := d.machine.Inspect(ctx, asked(gpus))
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	if err != nil {
		d.log.Warn("looking at GPUs that are to be lent", "error", err)
		return nil, nil, rental.Failf(rental.CodeGPUUnavailable, "The GPUs' driver on this host does not answer.")
	}
	notes := map[string]note{}
	for i, gpu := range gpus {
		if found := d.judge(gpu, nil, states[i]); found != nil {
			return nil, &foundAt{*found, gpu}, nil
		}
		n := note{State: states[i], Unexplained: unexplained(states[i])}
		if logErr == nil {
			n.LogRecord = &record
		}
		notes[gpu.UUID] = n
	}
	return notes, nil, nil
}

// Return implements [rental.Devices].
func (d *Desk) Return(ctx context.Context, id rental.ID, gpus []rental.GPU) error {
	d.mu.Lock()
	l := d.loans[id]
	d.mu.Unlock()
	if l == nil || (l.Boot != d.boot && d.boot != "") {
		l = &loan{GPUs: gpus} // how they were is not known, or does not count any more
	}
	bounded, cancel := context.WithTimeout(ctx, returnBound)
	defer cancel()
	found := d.check(bounded, l)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d.takeBack(id, l, found)
	d.save()
	return nil
}

// takeBack ends a loan, and withholds the GPUs of it with which something is wrong.
func (d *Desk) takeBack(id rental.ID, l *loan, found []foundAt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.loans, id)
	d.troubles = slices.DeleteFunc(d.troubles, func(t trouble) bool { return !t.Withheld && t.Rental == id })
	for _, f := range found {
		d.log.Error("a GPU is withheld after a rental", "gpu", f.gpu.UUID, "rental", id, "because", f.message)
		t := trouble{Cause: f.cause, Rental: id, Boot: d.boot, UntilRestart: f.untilRestart, GPUTrouble: rental.GPUTrouble{
			GPU: f.gpu, Withheld: true, Message: f.message, Fix: f.fix, Since: time.Now().UTC().Round(0),
		}}
		if n, ok := l.Notes[f.gpu.UUID]; ok {
			t.Note = &n
		}
		d.note(t)
	}
	d.tell()
}

// Reclaim takes back what is lent to rentals that nobody knows: their records are lost, so that no one else will
// do so. Such GPUs are withheld until a look has found them as they were. It is for the time before Run.
func (d *Desk) Reclaim(known func(rental.ID) bool) {
	d.mu.Lock()
	before := len(d.troubles) + len(d.loans)
	d.troubles = slices.DeleteFunc(d.troubles, func(t trouble) bool { return !t.Withheld && t.Rental != "" && !known(t.Rental) })
	for id, l := range d.loans {
		if known(id) {
			continue
		}
		delete(d.loans, id)
		d.log.Warn("taking back GPUs of a rental that there is no record of", "rental", id)
		if d.boot != "" && l.Boot != d.boot {
			continue // the machine has been restarted since
		}
		for _, gpu := range l.GPUs {
			d.note(trouble{Cause: busy, Rental: id, Note: l.before(gpu), Boot: d.boot, GPUTrouble: rental.GPUTrouble{
				GPU: gpu, Withheld: true, Since: time.Now().UTC().Round(0),
				Message: nameOf(gpu) + " was lent to a rental that there is no record of any more.",
				Fix:     "Nothing: it is looked at, and offered again by itself once it is as it was.",
			}})
		}
	}
	changed := len(d.troubles)+len(d.loans) != before
	d.mu.Unlock()
	if changed {
		d.save()
	}
}

// check waits until the GPUs are as they were, a while, and returns what is wrong then.
func (d *Desk) check(ctx context.Context, l *loan) (wrong []foundAt) {
	until := time.Now().Add(waitBound)
	restored := false
	for {
		states, err := d.machine.Inspect(ctx, asked(l.GPUs))
		wrong = wrong[:0]
		waiting, changed := false, false
		for i, gpu := range l.GPUs {
			var found *finding
			if err != nil {
				found = &finding{silent, "The driver of " + nameOf(gpu) + " does not answer, so that nothing is known of it since its last rental.", "Restart the machine.", false}
			} else {
				found = d.judge(gpu, l.before(gpu), states[i])
			}
			if found == nil || found.passed() {
				continue
			}
			wrong = append(wrong, foundAt{*found, gpu})
			waiting = waiting || found.passes()
			changed = changed || found.cause == settings
		}
		if changed && !restored {
			restored = true
			d.restore(ctx, l, wrong)
			continue
		}
		if !waiting || !time.Now().Before(until) {
			return wrong
		}
		select {
		case <-time.After(returnEvery):
		case <-ctx.Done():
			return wrong
		}
	}
}

// before is how a GPU was when it was lent, nil where that is not known.
func (l *loan) before(gpu rental.GPU) *note {
	if n, ok := l.Notes[gpu.UUID]; ok {
		return &n
	}
	return nil
}

func (d *Desk) restore(ctx context.Context, l *loan, wrong []foundAt) {
	for _, f := range wrong {
		before := l.before(f.gpu)
		if f.cause != settings || before == nil {
			continue
		}
		d.log.Info("setting a GPU back to how it was before its rental", "gpu", f.gpu.UUID)
		if err := d.machine.Restore(ctx, asked([]rental.GPU{f.gpu})[0], before.State.Settings); err != nil {
			d.log.Warn("setting a GPU back to how it was before its rental", "gpu", f.gpu.UUID, "error", err)
		}
	}
}

// note adds a trouble, in place of an earlier one of that GPU and kind; d.mu is held.
func (d *Desk) note(t trouble) {
	at := slices.IndexFunc(d.troubles, func(known trouble) bool { return known.GPU.UUID == t.GPU.UUID && known.Withheld == t.Withheld })
	if at >= 0 {
		t.Since = d.troubles[at].Since
		d.troubles[at] = t
	} else {
		d.troubles = append(d.troubles, t)
	}
	d.tell()
}

// tell lets others know of a change; d.mu is held.
func (d *Desk) tell() {
	if d.changed != nil {
		d.changed()
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// save keeps loans and troubles as they are by now; d.mu is not held, for others need not wait for the disk. What
// cannot be written is known until the agent ends, and after that a GPU that comes back is checked for what is wrong
// in itself.
func (d *Desk) save() {
	d.saving.Lock()
	defer d.saving.Unlock()
	d.mu.Lock()
	text, err := kept{Version: fileVersion, Loans: d.loans, Troubles: d.troubles}.encode()
	d.mu.Unlock()
	if err == nil {
		err = d.file.save(text)
	}
	if err != nil {
		d.log.Error("writing down which GPUs are lent or withheld", "error", err)
	}
}
