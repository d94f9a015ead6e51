package agent

import (
	"fmt"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

// rentalTold brings a status of a rental, in order.
type rentalTold struct{ status rental.Status }

func (e rentalTold) apply(l *loop) {
	l.became(e.status)
	l.merge(e.status)
	l.parts.Link.PostInstance(instance(e.status))
}

// partTold says that relay or link have something new to show.
type partTold struct{}

func (partTold) apply(l *loop) { l.stale = true }

// engineTold says the same of the container engine, on which the survey depends.
type engineTold struct{}

func (engineTold) apply(l *loop) {
	l.stale = true
	if !l.engineSeen() {
		close(l.engineUp)
	}
	if info := l.parts.Engine.Info(); info.Available {
		l.engine = info
		l.reoffer()
	}
	l.lookAgain()
}

// gpusTold says that a GPU is withheld, or offered again, or is not the one it was.
type gpusTold struct{}

func (gpusTold) apply(l *loop) {
	l.troubles = l.parts.GPUs.Troubles()
	l.reoffer()
	l.resurvey = true
	l.look()
}

// partEnded says that a part has returned from its Run, which none does while the agent stays.
type partEnded struct{ part *part }

func (e partEnded) apply(l *loop) {
	if l.leaving != "" {
		return
	}
	l.failure = fmt.Errorf("running %s: ended by itself", e.part.name)
	if e.part.err != nil {
		l.failure = fmt.Errorf("running %s: %w", e.part.name, e.part.err)
	}
	l.log.Error("a part of the agent has ended by itself; leaving", "error", l.failure)
	l.quit(LeaveRentals)
}

// wish is something the host's owner asks for, on a goroutine of its own that waits for the answer.
type wish struct {
	grant func(l *loop, answer func(error))
	done  chan error // capacity 1
}

func (e wish) apply(l *loop) {
	e.grant(l, func(err error) {
		l.answers = append(l.answers, func() { e.done <- err })
	})
}

// quitting asks the loop to leave.
type quitting struct{ how How }

func (e quitting) apply(l *loop) {
	l.ownersAct("quit, "+string(e.how), "", time.Time{})
	l.quit(e.how)
}
