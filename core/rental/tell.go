package rental

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// progressEvery is the shortest time between two statuses that differ in progress only.
const progressEvery = 500 * time.Millisecond

// picture is the status that a record, with what is not recorded, amounts to.
func (l *life) picture(r record) Status {
	spec := l.accepted.Spec
	spec.Env, spec.Registry, spec.Command = nil, nil, nil
	s := Status{
		ID: l.id, Sequence: r.Sequence, State: r.State,
		ContainerID: r.ContainerID, ImageDigest: r.ImageDigest, Addresses: r.Addresses,
		ExitCode: r.ExitCode, Failure: r.Failure,
		At: r.At, StartedAt: r.StartedAt, EndedAt: r.EndedAt, Spec: spec,
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.State == Pulling {
		s.Progress = l.progress
	}
	if !r.State.Final() {
		s.Trouble = l.trouble
		if s.Trouble == "" {
			s.Trouble, s.Unreachable = l.relayTrouble, l.relayTrouble != ""
		}
	}
	return s
}

// announce tells what was recorded when the rental was accepted.
func (l *life) announce() { l.notify(l.status()) }

func (l *life) tell(r record) {
	s := l.picture(r)
	l.latest.Store(&s)
	l.notify(s)
	if s.State.Final() {
		close(l.over)
	}
}

// record writes a change of the rental down, as its next status.
func (l *life) record(how durability, change func(*record)) (record, error) {
	return l.page.write(how, func(r *record) {
		change(r)
		r.Sequence++
		r.At = time.Now().UTC().Round(0)
	})
}

// advance records a change and tells it. It tries until ctx ends: what comes next has to find it
// on disk.
func (l *life) advance(ctx context.Context, how durability, change func(*record)) error {
	pause := newPause()
	for {
		rec, err := l.record(how, change)
		if err == nil {
			l.trouble = ""
			l.tell(rec)
			return nil
		}
		trouble := "This rental's record cannot be written to disk (" + reason(err) + "); make room on the disk or mend it."
		if trouble != l.trouble {
			l.log.Error("recording a rental's state; it is tried again and again", "error", err)
			l.setTrouble(trouble)
		}
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// reason leaves out the path in a file system's error.
func reason(err error) string {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err.Error()
	}
	return "the log has the details"
}

// setTrouble tells a trouble of disk or engine when it is a new one, and its end with "".
func (l *life) setTrouble(trouble string) {
	l.trouble = trouble
	l.refresh()
}

// refresh tells progress and trouble if they have changed. That hardly ever costs a write, and is
// left out when that one fails.
func (l *life) refresh() {
	_, rec := l.page.read()
	now, last := l.picture(rec), l.status()
	if now.Trouble == last.Trouble && now.Progress == last.Progress {
		return
	}
	if rec, err := l.record(remembered, func(*record) {}); err == nil {
		l.tell(rec)
	}
}

// onProgress is for the engine to call, from wherever it likes.
func (l *life) onProgress(p Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress = &p
	if time.Since(l.progressAt) >= progressEvery {
		l.progressAt = time.Now()
		tick(l.news)
	}
}

// onTrouble is for the relay to call, from wherever it likes.
func (l *life) onTrouble(trouble string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if trouble != l.relayTrouble {
		l.relayTrouble = trouble
		tick(l.news)
	}
}
