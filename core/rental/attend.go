package rental

import (
	"context"
	"sync"
	"time"
)

// attend opens the ports of a running container and stays with it until it ends. It returns nil
// when the container is to be started again, since the engine's shutdown ended it.
func (l *life) attend(ctx context.Context, c Container) error {
	exit, err := l.accompany(ctx, c)
	if err != nil {
		if codeOf(err) == CodeNotFound {
			if l.missed = exit.At; exit.At.IsZero() {
				l.missed = time.Now()
			}
		}
		return lost(err)
	}
	return l.afterExit(ctx, exit)
}

// afterExit tells an end of the rental from an interruption by the engine.
func (l *life) afterExit(ctx context.Context, exit Exit) error {
	if !exit.EngineStopped {
		l.exit = &exit
		return errExited
	}
	l.log.Info("the container engine has stopped the container; it is started again")
	// Its next start may publish other ports, and these may become someone else's.
	if err := l.withdraw(ctx); err != nil {
		l.log.Warn("withdrawing routes", "error", err)
	}
	return l.advance(ctx, noted, func(r *record) { r.State, r.Addresses, r.Lasting = Starting, nil, true })
}

// accompany publishes and waits at once: a program that ends early is not waited for in vain.
// Both calls have returned when it returns.
func (l *life) accompany(ctx context.Context, c Container) (Exit, error) {
	inner, cancel := context.WithCancel(ctx)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()

	type end struct {
		exit Exit
		err  error
	}
	ended := make(chan end, 1)
	calls.Go(func() {
		exit, err := l.awaitExit(inner, c.ID)
		ended <- end{exit, err}
	})
	type opening struct {
		addresses []Address
		err       error
	}
	opened := make(chan opening, 1)
	bound := l.publishBound()
	calls.Go(func() {
		addresses, err := l.publish(inner, c.Routes, bound)
		opened <- opening{addresses, err}
	})

	spoilt := make(chan error, 1)
	calls.Go(func() { spoilt <- l.watchGPUs(inner, c.ID) })

	watch := time.NewTicker(seenEvery)
	defer watch.Stop()
	for {
		select {
		case <-watch.C:
			l.see()
		case e := <-ended:
			return e.exit, e.err
		case err := <-spoilt:
			if err != nil {
				return Exit{}, err
			}
		case o := <-opened:
			if o.err != nil {
				return Exit{}, o.err
			}
			if err := l.advance(ctx, noted, func(r *record) { r.State, r.Addresses, r.Lasting = Running, o.addresses, true }); err != nil {
				return Exit{}, err
			}
		case <-l.news:
			l.refresh()
		case <-ctx.Done():
			return Exit{}, context.Cause(ctx)
		}
	}
}

// seenEvery is how often it is put on record that a container runs. Where the machine goes down with the agent,
// nothing later can be shown.
const seenEvery = 30 * time.Second

// see records that the container runs. A disk that refuses it will be told of by something else.
func (l *life) see() {
	if _, err := l.page.write(noted, func(r *record) { r.Seen = l.sight(r) }); err != nil {
		l.log.Debug("recording that a container runs", "error", err)
	}
}

// sight is when the container was last known to run, as of now.
func (l *life) sight(r *record) time.Time {
	if (r.State == Tunnelling || r.State == Running) && l.exit == nil && l.missed.IsZero() {
		return time.Now().UTC().Round(0)
	}
	return r.Seen
}

// publishBound is 0, none, for a rental that has been up: its renter waits as patiently as we do.
func (l *life) publishBound() time.Duration {
	if _, rec := l.page.read(); rec.Lasting {
		return 0
	}
	return l.opts.PublishBound
}

func (l *life) publish(ctx context.Context, routes []Route, bound time.Duration) ([]Address, error) {
	switch {
	case len(routes) < len(l.accepted.Spec.Ports):
		<-ctx.Done() // it has ended already, so its end is all there is to wait for
		return nil, context.Cause(ctx)
	case len(routes) == 0:
		return nil, nil
	case bound == 0:
		return l.publishPatiently(ctx, routes)
	}
	bounded, cancel := context.WithTimeoutCause(ctx, bound, Failf(CodeTunnelFailed, "The rental's public ports did not answer within %v.", bound))
	defer cancel()
	addresses, err := l.opts.Relay.Publish(bounded, l.id, routes, l.onTrouble)
	switch {
	case err == nil || codeOf(err) != "":
		return addresses, err
	case bounded.Err() != nil:
		return nil, context.Cause(bounded)
	}
	return nil, err
}

// publishPatiently never fails while ctx lasts.
func (l *life) publishPatiently(ctx context.Context, routes []Route) ([]Address, error) {
	pause := newPause()
	for {
		addresses, err := l.opts.Relay.Publish(ctx, l.id, routes, l.onTrouble)
		if err == nil || ctx.Err() != nil {
			return addresses, err
		}
		l.log.Warn("publishing ports again", "error", err)
		if err := pause.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// awaitExit waits for the container's end, also over errors of the waiting itself.
func (l *life) awaitExit(ctx context.Context, container string) (Exit, error) {
	pause := newPause()
	for {
		exit, err := l.opts.Engine.Wait(ctx, container)
		if err == nil || ctx.Err() != nil || codeOf(err) == CodeNotFound {
			return exit, err
		}
		l.log.Warn("waiting for the container's end again", "error", err)
		if err := pause.wait(ctx); err != nil {
			return Exit{}, err
		}
	}
}
