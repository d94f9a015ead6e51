package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

// How long each step of leaving may take.
const (
	lanesBound   = 5 * time.Second
	rentalsBound = 15 * time.Second
	linkBound    = 10 * time.Second
	partBound    = 15 * time.Second // an engine clears away what it keeps in stock
	// endingBound comes on top of the grace: the engine kills what has not ended by itself.
	endingBound = 30 * time.Second
)

var errLeaving = errors.New("the agent is leaving")

// crew are the parts at work.
type crew struct{ rentals, engine, relay, link, meter, gpus, account, audit *part }

// part is one of them: a Run method, how to end it, and what it returned.
type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error // once done is closed
}

// startCrew sets all parts to work. Their contexts outlast ctx: they are ended in order.
func (l *loop) startCrew(ctx context.Context) crew {
	ctx = context.WithoutCancel(ctx)
	p := l.parts
	c := crew{
		audit: l.begin(ctx, "the audit record", p.Audit.Run),
		rentals: l.begin(ctx, "the rentals", func(ctx context.Context) error {
			return p.Rentals.Run(ctx, func(s rental.Status) { l.mail.post(rentalTold{s}) })
		}),
		engine: l.begin(ctx, "the container engine's watch", func(ctx context.Context) error {
			return p.Engine.Run(ctx, func() { l.mail.post(engineTold{}) })
		}),
		relay: l.begin(ctx, "the relay", func(ctx context.Context) error {
			return p.Relay.Run(ctx, func() { l.mail.post(partTold{}) })
		}),
		link: l.begin(ctx, "the link to the backend", func(ctx context.Context) error {
			return p.Link.Run(ctx, l.register, l.heartbeat, func() { l.mail.post(partTold{}) })
		}),
		meter: l.begin(ctx, "the meter", p.Meter.Run),
		gpus: l.begin(ctx, "the GPUs", func(ctx context.Context) error {
			return p.GPUs.Run(ctx, func() { l.mail.post(gpusTold{}) })
		}),
		account: l.begin(ctx, "the account", func(ctx context.Context) error {
			return p.Account.Run(ctx, func() { l.mail.post(accountTold{}) })
		}),
	}
	l.started()
	if terms := l.relayTerms(); terms != nil {
		p.Relay.Use(*terms)
	}
	l.look()
	return c
}

func (l *loop) begin(ctx context.Context, name string, run func(context.Context) error) *part {
	ctx, cancel := context.WithCancel(ctx)
	p := &part{name: name, cancel: cancel, done: make(chan struct{})}
	l.lanes.running.Go(func() {
		p.err = run(ctx)
		close(p.done)
		l.mail.post(partEnded{p})
	})
	return p
}

// end asks a part to end and waits for it, a while.
func (p *part) end(bound time.Duration) error {
	p.cancel()
	select {
	case <-p.done:
	case <-time.After(bound):
		return fmt.Errorf("ending %s: still at work after %v", p.name, bound)
	}
	if p.err != nil && !errors.Is(p.err, context.Canceled) {
		return fmt.Errorf("ending %s: %w", p.name, p.err)
	}
	return nil
}

// mayLeave tells that nothing holds the agent any more.
func (l *loop) mayLeave() bool {
	switch l.leaving {
	case "":
		return false
	case LeaveRentals:
		return true
	}
	return l.live() == 0 || !l.leaveBy.IsZero() && !time.Now().Before(l.leaveBy)
}

// leave ends everything in order: what is in hand, the rentals' book (the containers live on), the
// link once it has sent what is queued, then the rest. Each step has its bound.
func (l *loop) leave(c crew) error {
	defer l.close()
	errs := []error{l.failure, l.leftBehind(), l.finish(lanesBound), c.rentals.end(rentalsBound)}
	l.deliver() // the rentals' last words
	l.settle()
	errs = append(errs, l.endLink(c.link))
	for _, p := range []*part{c.account, c.gpus, c.meter, c.relay, c.engine} {
		errs = append(errs, p.end(partBound))
	}
	l.quitted(errors.Join(errs...))
	errs = append(errs, c.audit.end(partBound)) // last: it has all of this to write
	if err := errors.Join(errs...); err != nil {
		return err // something may hang still, and cannot be waited for
	}
	l.lanes.running.Wait()
	return nil
}

// leftBehind reports rentals that were to end and have not.
func (l *loop) leftBehind() error {
	if n := l.live(); l.leaving == EndingRentals && n > 0 {
		return fmt.Errorf("ending the rentals: %d still there after %v; the next agent goes on ending them", n, l.options.StopGrace+endingBound)
	}
	return nil
}

// finish waits for what the lanes have in hand, so that every command taken on is answered.
func (l *loop) finish(bound time.Duration) error {
	l.lanes.cancel(errLeaving)
	late := time.After(bound)
	for l.lanes.count > 0 {
		select {
		case <-l.mail.tick:
			l.deliver()
			l.settle()
		case <-late:
			return fmt.Errorf("finishing what was in hand: %d jobs still at work after %v", l.lanes.count, bound)
		}
	}
	return nil
}

// endLink gives the link time to send what is queued. Commands that still come in are dropped
// unanswered: the next agent gets them again.
func (l *loop) endLink(link *part) error {
	if !l.introduced {
		l.introduced = true
		close(l.ready)
	}
	dropped := make(chan struct{})
	l.lanes.running.Go(func() {
		for {
			select {
			case _, open := <-l.parts.Link.Commands():
				if !open {
					return
				}
			case <-dropped:
				return
			}
		}
	})
	defer close(dropped)
	return link.end(linkBound)
}

// close shows the last picture.
func (l *loop) close() {
	l.timer.Stop()
	s := *l.board.latest.Load()
	s.Accepting, s.Why = false, errLeaving.Error()
	l.board.publish(&s)
}
