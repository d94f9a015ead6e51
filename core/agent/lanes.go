package agent

import (
	"context"
	"sync"
)

// maxInFlight is how many jobs may wait or run before the loop stops reading commands. The backend
// then finds its own connection full, which bounds whatever it sends.
const maxInFlight = 64

// job is slow work away from the loop. What it returns runs on the loop afterwards; nil is nothing.
type job func(ctx context.Context) (then func())

// turn decides on the loop, once everything before it in its lane is done, what there is to do;
// nil is nothing more.
type turn func() job

// lanes keep slow work away from the loop: turns of one key come in order, jobs of different keys
// run side by side. Only the loop uses them.
type lanes struct {
	ctx     context.Context // of the jobs; over when the agent leaves
	cancel  context.CancelCauseFunc
	post    func(event)
	running sync.WaitGroup    // jobs, and the parts of the agent
	waiting map[string][]turn // a key that is present is busy
	count   int               // turns that wait and jobs that run
}

// do queues a turn in the lane of key.
func (l *lanes) do(key string, t turn) {
	l.count++
	queue, busy := l.waiting[key]
	l.waiting[key] = append(queue, t)
	if !busy {
		l.advance(key)
	}
}

// full tells that no more commands should be taken on.
func (l *lanes) full() bool { return l.count >= maxInFlight }

// advance takes turns of a lane until one has a job, which keeps the lane busy.
func (l *lanes) advance(key string) {
	for len(l.waiting[key]) > 0 {
		next := l.waiting[key][0]
		l.waiting[key] = l.waiting[key][1:]
		if work := next(); work != nil {
			l.running.Go(func() { l.post(jobDone{key, work(l.ctx)}) })
			return
		}
		l.count--
	}
	delete(l.waiting, key)
}

// jobDone brings the outcome of a job back onto the loop.
type jobDone struct {
	key  string
	then func()
}

func (e jobDone) apply(l *loop) {
	l.lanes.count--
	if e.then != nil {
		e.then()
	}
	l.lanes.advance(e.key)
}
