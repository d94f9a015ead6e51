package hardware

import (
	"context"
	"sync"
	"time"
)

// driverTurn is held by the one who talks to the GPUs' driver. It is a variable of the package
// because the driver's library is one for the whole process, keeps its state in variables of its
// own, and cannot be interrupted: a call that hangs, hangs.
var driverTurn = turn{held: make(chan struct{}, 1)}

type turn struct {
	held chan struct{} // full while somebody asks

	mu    sync.Mutex
	hangs bool // the one who asks has been given up
}

// ask puts a question to the GPUs' driver and waits for its answer, but not longer than within or
// ctx. A question not answered in time goes on alone; until it ends, others wait for their turn. Who
// may not wait, looks at hanging first.
func ask[T any](ctx context.Context, within time.Duration, question func() T) (answer T, answered bool) {
	t := &driverTurn
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case t.held <- struct{}{}:
	case <-late.C:
		return answer, false
	case <-ctx.Done():
		return answer, false
	}
	done := make(chan T, 1)
	go func() {
		done <- question()
		t.giveBack()
	}()
	select {
	case answer = <-done:
		return answer, true
	case <-late.C:
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case answer = <-done: // just in time; giveBack waits for the lock
		return answer, true
	default:
		t.hangs = true
		return answer, false
	}
}

func (t *turn) hanging() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hangs
}

func (t *turn) giveBack() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hangs = false
	<-t.held
}
