package tray

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/distributedcompute/host-agent/assets"
	"github.com/distributedcompute/host-agent/core/agent"
)

const (
	// callBound is how long a call of host or desktop may take; the agent's own bounds are shorter, a minute
	// for what the marketplace answers.
	callBound = 90 * time.Second
	// watchAgain is how long after the agent has gone it is looked for again.
	watchAgain = 2 * time.Second
	// lookAgain is how long what the desktop said of the start at login is good for.
	lookAgain = 2 * time.Second
	// panelBound is how long a panel may take to come up after log-in before its absence is told.
	panelBound = 10 * time.Second
)

// surface is the screen: an icon with a menu. Its calls come from one goroutine.
type surface interface {
	icon(assets.State)
	tooltip(string)
	clear()                       // of all entries
	add(below item, e entry) item // below nil: at the top. A separator has no item
	clicks() <-chan item
	lost() <-chan struct{} // closed when the desktop has gone; nil where that ends the process
	unseen() string        // why nobody shows the icon and what to do about it; "" while somebody does
}

// item is an entry on the screen.
type item interface {
	title(string)
	enable(bool)
	tick(bool)
}

// tray is the screen's loop. Its fields belong to the goroutine of run.
type tray struct {
	host    Host
	desk    Desk
	log     *slog.Logger
	view    view
	screen  surface
	shown   menuShown
	icon    assets.State
	tooltip string

	before  *agent.Status // the picture that news are told from; nil: the next one is the first
	worries worries
	worryAt time.Time // when to ask worries again; zero: when there is another picture
	busy    map[deed]bool
	closed  bool

	looked   time.Time // when the desktop was last asked for the start at login
	switches int       // how often a switch of it has begun or ended here: an answer from before one is void

	calls sync.WaitGroup
	done  chan func()   // what calls leave to the loop
	again chan struct{} // capacity 1: look for the agent now
}

func newTray(host Host, desk Desk, o Options) *tray {
	return &tray{
		host: host, desk: desk, log: o.Log,
		view:    view{options: o},
		worries: worries{}, busy: map[deed]bool{},
		done: make(chan func()), again: make(chan struct{}, 1),
	}
}

// picture is what following the agent gives.
type picture struct {
	status agent.Status
	err    error // why there is none; nil where the agent said goodbye
	gone   bool
}

// run draws and obeys until ctx ends, the icon is closed, or the desktop has gone.
func (t *tray) run(ctx context.Context, s surface) error {
	ctx, cancel := context.WithCancel(ctx)
	defer t.calls.Wait()
	defer cancel()
	t.screen, t.view.notify = s, t.desk.Notifications()
	pictures := make(chan picture, 1)
	t.calls.Go(func() { t.follow(ctx, pictures) })
	t.look(ctx)
	panel := time.After(panelBound)
	for !t.closed {
		t.draw()
		select {
		case <-ctx.Done():
			return nil
		case <-s.lost():
			return fmt.Errorf("the desktop session has ended: %w", ErrNoScreen)
		case p := <-pictures:
			t.take(ctx, p)
		case clicked := <-s.clicks():
			t.click(ctx, clicked)
		case after := <-t.done:
			after()
		case <-until(t.worryAt):
			t.worry(ctx)
		case <-panel:
			if why := s.unseen(); why != "" {
				t.log.Warn("showing the tray icon; it appears when there is room for it", "problem", why)
				t.tell(ctx, Note{Key: "panel", Title: "The icon of DistributedCompute cannot be shown", Body: why})
			}
		}
	}
	return nil
}

// until fires at a time; never, where that is zero.
func until(at time.Time) <-chan time.Time {
	if at.IsZero() {
		return nil
	}
	return time.After(time.Until(at))
}

// follow hands on the agent's newest picture, and looks for an agent while there is none.
func (t *tray) follow(ctx context.Context, pictures chan picture) {
	put := func(p picture) {
		select {
		case <-pictures: // nobody has looked at the one before
		default:
		}
		pictures <- p
	}
	for ctx.Err() == nil {
		var failed error
		for status, err := range t.host.Watch(ctx) {
			if failed = err; err == nil {
				put(picture{status: status})
			}
		}
		if ctx.Err() != nil {
			return
		}
		put(picture{gone: true, err: failed})
		select {
		case <-ctx.Done():
		case <-t.again:
		case <-time.After(watchAgain):
		}
	}
}

// hurry looks for the agent at once.
func (t *tray) hurry() {
	select {
	case t.again <- struct{}{}:
	default:
	}
}

// take makes a picture the one that is shown.
func (t *tray) take(ctx context.Context, p picture) {
	t.view.now = time.Now()
	if p.gone {
		if t.view.link != gone {
			t.log.Info("the agent is not running; looking for it", "error", p.err)
		}
		t.closed = t.view.quitting != "" // whoever quit the agent from here wants no icon of it
		t.view.link, t.before, t.worryAt = gone, nil, time.Time{}
		clear(t.worries)
		return
	}
	t.view.link, t.view.status = heard, p.status
	if t.before != nil && t.before.Leaving && !p.status.Leaving {
		t.view.quitting = "" // it was called off
	}
	t.look(ctx)
	t.tell(ctx, t.wanted(news(t.before, p.status))...)
	if t.before != nil && t.before.Account.SignedIn && !p.status.Account.SignedIn {
		t.worries.spare(notSignedIn, t.view.now) // whoever has signed out knows
	}
	t.before = &p.status
	t.worry(ctx)
}

// look asks for the start at login, which can be switched elsewhere too, unless it was asked for just now.
func (t *tray) look(ctx context.Context) {
	if t.busy[deed{}] || time.Since(t.looked) < lookAgain {
		return
	}
	t.looked = time.Now()
	switches := t.switches
	t.call(ctx, deed{}, func(ctx context.Context) (func(), error) {
		note := t.lookAtAutostart(ctx)
		return func() {
			if switches == t.switches {
				note()
			}
		}, nil
	})
}

// worry tells the problems that have lasted.
func (t *tray) worry(ctx context.Context) {
	notes, again := t.worries.step(concerns(t.view.status), time.Now())
	t.worryAt = again
	t.tell(ctx, t.wanted(notes)...)
}

// wanted leaves out the notes that nobody has asked for by a click, where the person wants none: what was
// said on the command line meanwhile counts.
func (t *tray) wanted(notes []Note) []Note {
	if len(notes) > 0 {
		t.view.notify = t.desk.Notifications()
	}
	if !t.view.notify {
		return nil
	}
	return notes
}

func (t *tray) tell(ctx context.Context, notes ...Note) {
	if len(notes) == 0 {
		return
	}
	t.calls.Go(func() {
		for _, note := range notes {
			note.Title, note.Body = clean(note.Title), cleanLines(note.Body)
			bounded, cancel := context.WithTimeout(ctx, callBound)
			if err := t.desk.Notify(bounded, note); err != nil {
				t.log.Warn("showing a notification", "title", note.Title, "error", err)
			}
			cancel()
		}
	})
}

// click does what an entry says, unless it is being done or cannot be: some panels send clicks on
// entries that are off.
func (t *tray) click(ctx context.Context, clicked item) {
	e, ok := t.shown.entries[clicked]
	if !ok || e.off || e.deed == (deed{}) || t.busy[e.deed] {
		return
	}
	if e.deed.verb == closeIcon {
		t.closed = true
		return
	}
	t.call(ctx, e.deed, func(ctx context.Context) (func(), error) { return t.perform(ctx, e.deed) })
}

// call does something that may take a while, and tells where it came to nothing.
func (t *tray) call(ctx context.Context, d deed, act func(context.Context) (func(), error)) {
	t.working(d, true)
	t.calls.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, callBound)
		defer cancel()
		after, err := act(bounded)
		select {
		case <-ctx.Done():
		case t.done <- func() {
			t.working(d, false)
			if after != nil {
				after()
			}
			if err != nil {
				t.log.Warn("doing what was clicked", "entry", d.verb, "error", err)
				t.tell(ctx, Note{Key: "click " + string(d.verb), Title: d.verb.failed(), Body: sentence(err.Error()), Urgent: true})
			}
		}:
		}
	})
}

func (t *tray) working(d deed, now bool) {
	t.busy[d] = now
	switch d.verb {
	case startAgent:
		t.view.starting = now
	case signIn:
		t.view.signingIn = now
	case autostartTo:
		t.switches++
	}
}

// draw puts on the screen what has changed: each change is told to every panel, and closes the menu
// that somebody has open.
func (t *tray) draw() {
	state, _ := standing(t.view)
	if state != t.icon {
		t.icon = state
		t.screen.icon(state)
	}
	if words := tooltip(t.view); words != t.tooltip {
		t.tooltip = words
		t.screen.tooltip(words)
	}
	t.shown.show(t.screen, menu(t.view))
}
