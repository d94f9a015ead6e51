package agent

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/preflight"
	"github.com/distributedcompute/host-agent/core/rental"
)

// patience is how long a register waits for the first look at the machine. What comes to light
// later is told in another register.
const patience = 50 * time.Millisecond

// loop owns all state of the host. Its methods run on one goroutine, that of [Agent.Run]; slow work
// goes to the lanes, and what comes of it comes back through the mailbox.
type loop struct {
	*Agent
	log   *slog.Logger
	lanes *lanes
	timer *time.Timer // of the earliest deadline
	began time.Time

	account    account.Info // as it was told last
	memory     Remembered
	changes    int       // made to memory
	saved      int       // of these changes, how many are on disk
	unwritable string    // why the state directory cannot be written; "" while it can
	rewriteAt  time.Time // when that is tried again

	resurveyAt time.Time     // when GPUs that did not answer are looked for again
	resurveyIn time.Duration // the pause before that
	resurvey   bool          // it is time, though the engine is the same

	versions   *preflight.Report // nil until the first judgement
	judged     versioned         // what it was made with
	versionsAt time.Time         // when it is made again

	audited map[rental.ID]rental.State // what the audit record has of the rentals that live

	survey   *hardware.Survey
	surveyed engineLife // the engine the last survey was made with
	engineUp chan struct{}
	engine   rental.EngineInfo // as it was when last available
	offer    protocol.Offer
	narrowed bool                    // by what the backend has asked for
	troubles []rental.GPUTrouble     // with GPUs, as told last
	rentals  []rental.Status         // not settled yet, oldest first
	ended    []rental.Status         // settled, of the last day, oldest first
	pending  []rental.Status         // admitted, not on disk yet
	endAgain map[rental.ID]time.Time // when a rental that is overdue is told again to end
	notices  []Notice
	asker    string                  // who changed anything last, user or backend
	reading  int                     // logs being read for the backend
	stopTest context.CancelCauseFunc // nil: no speed test is running

	leaving How       // "": it stays
	leaveBy time.Time // when ending rentals are waited for no longer; zero: never
	failure error     // why the agent has to leave
	deaf    bool      // no more commands will come

	stale      bool     // the published picture is not the present any more
	answers    []func() // to give once the picture shows what they speak of
	introduced bool     // register has been let through
	said       introduction
	posted     protocol.NodeStatus
}

// introduction is what of a register may change while the connection lasts.
type introduction struct {
	hardware  *hardware.Survey
	versions  *preflight.Report
	engine    bool
	gpusReady bool
	version   string
	withheld  string // GPUs, and why
	shield    rental.ShieldState
}

func newLoop(a *Agent) *loop {
	ctx, cancel := context.WithCancelCause(context.Background())
	l := &loop{
		Agent:    a,
		account:  a.parts.Account.Info(),
		log:      a.options.Log,
		lanes:    &lanes{ctx: ctx, cancel: cancel, post: a.mail.post, waiting: map[string][]turn{}},
		timer:    time.NewTimer(patience),
		began:    time.Now(),
		engineUp: make(chan struct{}),
		endAgain: map[rental.ID]time.Time{},
		audited:  map[rental.ID]rental.State{},
		asker:    byUser,
		stale:    true,
	}
	l.recall()
	l.troubles = a.parts.GPUs.Troubles()
	l.reoffer()
	l.rentals = a.parts.Rentals.Statuses()
	l.ended = a.parts.Rentals.Ended(l.began.Add(-endedShown))
	l.posted = nodeStatus(l.memory.wish(), l.asker, l.offer)
	l.tellEnds()
	return l
}

// run goes on until it is time to leave. The end of ctx leaves at once.
func (l *loop) run(ctx context.Context) {
	for l.settle(); !l.mayLeave(); l.settle() {
		select {
		case <-ctx.Done():
			l.quit(LeaveRentals)
		case <-l.mail.tick:
			l.deliver()
		case message, open := <-l.commands():
			if l.deaf = !open; open {
				l.handle(message)
			}
		case <-l.timer.C:
		}
	}
}

// commands are not read while too much is in hand.
func (l *loop) commands() <-chan protocol.Incoming {
	if l.deaf || l.lanes.full() {
		return nil
	}
	return l.parts.Link.Commands()
}

func (l *loop) deliver() {
	for _, e := range l.mail.take() {
		e.apply(l)
	}
}

// settle draws the consequences of what has just happened, and shows them.
func (l *loop) settle() {
	now := time.Now()
	l.keepWishes(now)
	l.rewrite(now)
	l.lookForGPUs(now)
	l.lookAtVersionsAgain(now)
	if l.stale {
		l.stale = false
		l.board.publish(l.picture(now))
	}
	l.introduce(now)
	l.postNode()
	for _, answer := range l.answers {
		answer()
	}
	l.answers = nil
	l.timer.Reset(l.nextDeadline(now).Sub(now))
}

// picture is the host as it is now.
func (l *loop) picture(now time.Time) *Status {
	s := &Status{
		Agent:       l.options.Agent,
		PID:         os.Getpid(),
		NodeID:      l.memory.NodeID,
		KeySource:   l.account.KeySource,
		Account:     l.account,
		Node:        l.memory.wish(),
		Leaving:     l.leaving != "",
		Backend:     l.parts.Link.Health(),
		Engine:      l.parts.Engine.Info(),
		Relay:       l.parts.Relay.Info(),
		Hardware:    l.survey,
		Network:     l.memory.Network,
		GPUTroubles: l.troubles,
		Offer:       l.offer,
		Rentals:     append([]rental.Status{}, told(l.rentals)...),
		Ended:       recent(l.ended, now),
		Earnings:    l.memory.Earned,
		Notices:     append([]Notice{}, l.notices...),
		Unwritable:  l.unwritable,
		At:          now.UTC(),
	}
	s.Versioning = l.versioning()
	if l.narrowed {
		s.Proposal = l.memory.Proposal
	}
	s.Why = notAccepting(s)
	s.Accepting, s.Unheard = s.Why == "", unheard(s.Backend)
	s.Problems = problems(s)
	if l.memory.Lapse != "" {
		s.Problems = append(s.Problems, memoryProblem(l.memory.Lapse))
	}
	return s
}

// introduce lets the first register through when there is something to say, or patience has ended,
// and asks for another one when the machine turns out to be different from what was said.
func (l *loop) introduce(now time.Time) {
	s := l.board.latest.Load()
	current := introduction{s.Hardware, s.Versions, s.Engine.Available, s.Engine.GPUReady, s.Engine.Version, withheldWords(s.GPUTroubles), s.Engine.Shield.State}
	switch {
	case !l.introduced && (s.Hardware != nil && l.engineSeen() && (l.parts.Preflight == nil || s.Versions != nil) && !awaited(s.Engine) || now.Sub(l.began) >= patience):
		l.introduced = true
		close(l.ready)
	case l.introduced && current != l.said:
		l.parts.Link.Reregister()
	default:
		return
	}
	l.said = current
	if wish := l.memory.wish(); wish.online() {
		l.posted = nodeStatus(wish, l.asker, l.offer) // register says it too, but not why and until when
	}
}

// awaited reports whether the shield of an engine that is there has not been looked for yet.
func awaited(e rental.EngineInfo) bool { return e.Available && e.Shield.State == rental.ShieldAwaited }

// postNode tells the backend of a new wish or offer.
func (l *loop) postNode() {
	current := nodeStatus(l.memory.wish(), l.asker, l.offer)
	if sameNodeStatus(current, l.posted) || !l.introduced {
		return
	}
	l.posted = current
	l.parts.Link.PostNode(current)
}

// nextDeadline is when the loop has to look again though nothing has happened.
func (l *loop) nextDeadline(now time.Time) time.Time {
	const never = 365 * 24 * time.Hour
	deadlines := []time.Time{l.memory.Owner.Until, l.memory.Owner.EndAt, l.memory.Backend.EndAt, l.leaveBy, l.rewriteAt, l.resurveyAt, l.versionsAt}
	if !l.introduced {
		deadlines = append(deadlines, l.began.Add(patience))
	}
	for _, again := range l.endAgain {
		deadlines = append(deadlines, again)
	}
	next := now.Add(never)
	for _, deadline := range deadlines {
		if deadline.After(now) && deadline.Before(next) {
			next = deadline
		}
	}
	return next
}

// live counts the rentals that have not ended.
func (l *loop) live() int {
	n := len(l.pending)
	for i := range l.rentals {
		if !l.rentals[i].State.Final() {
			n++
		}
	}
	return n
}

func (l *loop) reoffer() {
	own := offerOf(l.survey, l.engine, l.options.Offer)
	own.GPUIndices = unwithheld(own.GPUIndices, l.survey, l.troubles)
	l.offer = propose(own, l.memory.Proposal)
	l.narrowed = !sameOffer(own, l.offer)
	l.stale = true
}

func (l *loop) engineSeen() bool {
	select {
	case <-l.engineUp:
		return true
	default:
		return false
	}
}
