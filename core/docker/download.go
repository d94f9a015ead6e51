package docker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

// progressEvery is the least time between two reports of a download.
const progressEvery = 500 * time.Millisecond

// downloads are those under way, one for all rentals that want the same image with the same credentials.
type downloads struct {
	mu     sync.Mutex
	active map[downloadKey]*download // guarded by mu
}

type downloadKey struct{ image, credentials string }

// download is one that several rentals may wait for. The last to leave ends it.
type download struct {
	cancel  context.CancelFunc
	readers map[chan<- struct{}]bool // guarded by downloads.mu
	tally   tally
	running sync.WaitGroup
	done    chan struct{}
	err     error // set before done is closed
}

var errNobodyWaits = errors.New("nobody waits for the image any more")

// download gets an image, or joins those who are getting it, and reports how far it is.
func (e *Engine) download(ctx context.Context, key downloadKey, work func(context.Context, *tally) error, report func(rental.Progress)) error {
	tick := make(chan struct{}, 1)
	d := e.join(key, tick, work)
	defer e.leave(key, tick, d)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick:
			report(d.tally.progress())
		case <-d.done:
			if d.err == nil {
				report(d.tally.progress())
			}
			return d.err
		}
	}
}

// join adds a reader to the download under key, which it starts if there is none.
func (e *Engine) join(key downloadKey, tick chan<- struct{}, work func(context.Context, *tally) error) *download {
	e.downloads.mu.Lock()
	defer e.downloads.mu.Unlock()
	if d, ok := e.downloads.active[key]; ok {
		d.readers[tick] = true
		return d
	}
	// It must outlive the rental that happens to be first, so it has a context of its own.
	ctx, cancel := context.WithCancelCause(context.Background())
	d := &download{
		cancel:  func() { cancel(errNobodyWaits) },
		readers: map[chan<- struct{}]bool{tick: true},
		done:    make(chan struct{}),
	}
	d.tally.changed = func() { e.tickReaders(d) }
	if e.downloads.active == nil {
		e.downloads.active = make(map[downloadKey]*download)
	}
	e.downloads.active[key] = d
	d.running.Go(func() {
		defer close(d.done)
		d.err = work(ctx, &d.tally)
		e.forget(key, d)
	})
	return d
}

// leave takes a reader away, and ends the download when it was the last.
func (e *Engine) leave(key downloadKey, tick chan<- struct{}, d *download) {
	e.downloads.mu.Lock()
	delete(d.readers, tick)
	last := len(d.readers) == 0
	if last && e.downloads.active[key] == d {
		delete(e.downloads.active, key) // who comes now starts anew
	}
	e.downloads.mu.Unlock()
	if last {
		d.cancel()
		d.running.Wait()
	}
}

// forget makes sure that nobody joins a download that has ended.
func (e *Engine) forget(key downloadKey, d *download) {
	e.downloads.mu.Lock()
	defer e.downloads.mu.Unlock()
	if e.downloads.active[key] == d {
		delete(e.downloads.active, key)
	}
}

// tickReaders tells every reader to look.
func (e *Engine) tickReaders(d *download) {
	e.downloads.mu.Lock()
	defer e.downloads.mu.Unlock()
	for tick := range d.readers {
		select {
		case tick <- struct{}{}:
		default:
		}
	}
}

// pullEvent is one line of what the engine says while it pulls.
type pullEvent struct {
	ID             string `json:"id"`
	Status         string `json:"status"`
	ProgressDetail struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	ErrorDetail struct {
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// tally sums up the layers of a download.
type tally struct {
	changed func() // called at most every progressEvery

	mu     sync.Mutex
	layers map[string]layer // guarded by mu
	told   time.Time        // guarded by mu
}

type layer struct {
	status         string
	last           int64 // what the engine said last; less than before when it had to begin again
	current, total int64 // of the download; current never falls
}

// add takes in an event and reports whether the download got on.
func (t *tally) add(event pullEvent) bool {
	moved, due := t.note(event)
	if due {
		t.changed()
	}
	return moved
}

func (t *tally) note(event pullEvent) (moved, due bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.layers == nil {
		t.layers = make(map[string]layer)
	}
	before := t.layers[event.ID]
	after := before
	after.status, after.last = event.Status, event.ProgressDetail.Current
	switch {
	case event.Status == "Downloading":
		after.current = max(before.current, event.ProgressDetail.Current)
		after.total = max(before.total, event.ProgressDetail.Total)
	case event.Status == "Download complete":
		after.current = before.total
	case strings.HasPrefix(event.Status, "Retrying"):
		return false, false // a countdown, not progress
	}
	t.layers[event.ID] = after
	if after.current != before.current && time.Since(t.told) >= progressEvery {
		t.told = time.Now()
		due = true
	}
	return after != before, due
}

// progress is how far all layers together are. The total grows while layers come to light.
func (t *tally) progress() rental.Progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := rental.Progress{Phase: "pulling"}
	for _, l := range t.layers {
		sum.Current += l.current
		sum.Total += l.total
	}
	return sum
}
