package rental

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options are what a book is made from. A duration of zero means its default.
type Options struct {
	Dir    string // of the ledger; made with mode 0700
	Engine Engine
	Relay  Relay
	// Devices lends GPUs; nil: they are given to rentals as they are.
	Devices Devices
	Log     *slog.Logger

	PullBound    time.Duration // for pulling an image; 2 h
	EngineBound  time.Duration // for the engine to come back, or to be ready again, while a rental is being started; 2 min
	PublishBound time.Duration // for the public ports of a new rental to answer; 60 s
	LeaveBound   time.Duration // for the lives to let go when Run is to return; 10 s
	SweepAfter   time.Duration // how long a container nobody knows is left alone; 10 min
	Keep         time.Duration // a final status that nobody settles, and a settled record; 7 days
}

func (o *Options) setDefaults() {
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&o.PullBound, 2 * time.Hour},
		{&o.EngineBound, 2 * time.Minute},
		{&o.PublishBound, time.Minute},
		{&o.LeaveBound, 10 * time.Second},
		{&o.SweepAfter, 10 * time.Minute},
		{&o.Keep, 7 * 24 * time.Hour},
	} {
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
}

// Book holds the rentals of this host: those alive, those that have ended and are not settled yet,
// and for some days the settled ones, so that a repeated order is recognised.
type Book struct {
	opts  Options
	disk  disk
	lives sync.WaitGroup
	heard atomic.Bool

	accepting sync.Mutex // held over the disk writes of Accept, which readers need not wait for

	mu     sync.Mutex
	known  map[ID]*life
	ctx    context.Context // of Run; nil before it
	notify func(Status)
	closed bool // Run is on its way out: no life starts any more
}

var errNotRunning = errors.New("the book of rentals is closed: the agent is starting or leaving")

// Open reads the ledger. It starts nothing: that is for Run.
func Open(opts Options) (*Book, error) {
	dir, err := openDirectory(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	return open(opts, dir)
}

func open(opts Options, d disk) (*Book, error) {
	opts.setDefaults()
	pages, err := openLedger(d, opts.Log)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	b := &Book{opts: opts, disk: d, known: make(map[ID]*life, len(pages))}
	taken := newCensus()
	for _, p := range pages {
		l := newLife(&b.opts, p)
		l.restored, l.census = true, taken
		b.known[l.id] = l
	}
	return b, nil
}

// Run takes up every rental that has not ended, and keeps all of them going until ctx ends. Then
// it lets go: containers live on, and the next book takes them up again. notify is told every
// status, those of one rental in order, those of several rentals from several goroutines; while it
// blocks, its rental stands still. Run may be called once.
func (b *Book) Run(ctx context.Context, notify func(Status)) error {
	if err := b.begin(ctx, notify); err != nil {
		return err
	}
	b.tidy()
	tick := time.NewTicker(b.opts.SweepAfter)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.tidy()
			if b.heard.Load() {
				b.sweep(ctx)
			}
		case <-ctx.Done():
			return b.leave()
		}
	}
}

func (b *Book) begin(ctx context.Context, notify func(Status)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx != nil {
		return errors.New("running the book of rentals: it has been run before")
	}
	b.ctx, b.notify = ctx, notify
	for _, l := range b.known {
		if !l.final() {
			b.start(l)
		}
	}
	return nil
}

// start sets a life going; b.mu is held. One that comes too late is left to the next book.
func (b *Book) start(l *life) {
	if b.closed {
		return
	}
	ctx := b.ctx
	l.notify = b.notify
	b.lives.Go(func() { l.run(ctx) })
}

// running returns an error before and after Run.
func (b *Book) running() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx == nil || b.ctx.Err() != nil {
		return errNotRunning
	}
	return nil
}

// leave waits until every life has let go.
func (b *Book) leave() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		b.lives.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-time.After(b.opts.LeaveBound):
		return fmt.Errorf("leaving the rentals: some still wait for the container engine or the relay after %v", b.opts.LeaveBound)
	}
}

// Heard tells that the backend has been heard: from now on containers that no rental accounts for
// are swept away, once they are older than SweepAfter.
func (b *Book) Heard() { b.heard.Store(true) }

// Statuses returns the rentals that are not settled yet, oldest first.
func (b *Book) Statuses() []Status {
	lives := slices.DeleteFunc(b.all(), (*life).settled)
	slices.SortFunc(lives, func(a, b *life) int { return a.accepted.order(b.accepted) })
	statuses := make([]Status, len(lives))
	for i, l := range lives {
		statuses[i] = l.status()
	}
	return statuses
}

// Ended returns the rentals that are settled and have ended since, oldest end first.
func (b *Book) Ended(since time.Time) []Status {
	var ended []Status
	for _, l := range b.all() {
		if s := l.status(); l.settled() && !s.EndedAt.Before(since) {
			ended = append(ended, s)
		}
	}
	slices.SortFunc(ended, func(a, b Status) int { return a.EndedAt.Compare(b.EndedAt) })
	return ended
}

// Known counts the rentals there is a record of, settled ones too.
func (b *Book) Known() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.known)
}

// Lookup returns the latest status of a rental, also of one that is settled but still remembered.
func (b *Book) Lookup(id ID) (Status, bool) {
	l, ok := b.find(id)
	if !ok {
		return Status{}, false
	}
	return l.status(), true
}

// Wait returns when no rental is alive, or with the error of ctx.
func (b *Book) Wait(ctx context.Context) error {
	for {
		alive := slices.DeleteFunc(b.all(), (*life).final)
		if len(alive) == 0 {
			return nil
		}
		select {
		case <-alive[0].over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *Book) find(id ID) (*life, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, ok := b.known[id]
	return l, ok
}

func (b *Book) all() []*life {
	b.mu.Lock()
	defer b.mu.Unlock()
	lives := make([]*life, 0, len(b.known))
	for _, l := range b.known {
		lives = append(lives, l)
	}
	return lives
}
