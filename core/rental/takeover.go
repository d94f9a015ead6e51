package rental

import "context"

// takeOver finds out what has become of a rental that an earlier agent began, and brings its
// record up to date, so that live goes on from there. It waits for the engine without end.
func (l *life) takeOver(ctx context.Context) (Container, error) {
	held, err := l.locate(ctx)
	if err != nil {
		return Container{}, err
	}
	_, rec := l.page.read()
	switch rec.State {
	case Accepted, Pulling:
		if l.accepted.Private {
			return Container{}, Failf(CodeImageUnauthorized, "The agent was restarted before it had pulled the private image %s, whose password it does not keep; order it again under a new rental id.", l.accepted.Spec.Image)
		}
		return Container{}, nil
	case Creating:
		return Container{}, nil
	}
	switch {
	case held == nil || held.ContainerID == "":
		l.missed = rec.lastSeen()
		return Container{}, Failf(CodeInterrupted, "The rental's container was gone when the agent came back: the host was reset, or something else has removed it.")
	case held.Running:
		return l.adopt(ctx)
	case rec.State == Starting && !held.Ran:
		return Container{}, nil
	}
	exit, err := l.awaitExit(ctx, held.ContainerID)
	if err != nil {
		return Container{}, lost(err)
	}
	if rec.State == Starting && !rec.StartedAt.IsZero() && !exit.StartedAt.After(rec.At) {
		return Container{}, nil // this end is known, and was the engine's doing
	}
	l.unseen = true
	seen := rec.lastSeen()
	if seen.IsZero() {
		seen = exit.StartedAt
	}
	if exit.Noticed && exit.At.After(seen) {
		exit.At = seen // nobody is billed for what cannot be shown
	}
	return Container{}, l.afterExit(ctx, exit)
}

// adopt takes up a container that runs; starting it changes nothing and tells its ports.
func (l *life) adopt(ctx context.Context) (Container, error) {
	c, err := l.launch(ctx)
	if err != nil {
		return Container{}, err
	}
	l.log.Info("a running container has been adopted", "container", c.ID)
	if _, rec := l.page.read(); rec.State == Starting {
		return c, l.started(ctx, c)
	}
	return c, nil
}

// locate looks for what the engine holds of this rental; nil is nothing.
func (l *life) locate(ctx context.Context) (*Holding, error) {
	var holdings []Holding
	err := l.insist(ctx, always, func(ctx context.Context) (err error) {
		holdings, err = l.census.of(ctx, l.opts.Engine)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, h := range holdings {
		if h.ID == l.id && l.owns(h) {
			return &h, nil
		}
	}
	return nil, nil
}

// owns reports whether what the engine holds may be this rental's: once its record names a container, no other
// is, whatever that carries.
func (l *life) owns(h Holding) bool {
	_, rec := l.page.read()
	return rec.ContainerID == "" || h.ContainerID == "" || h.ContainerID == rec.ContainerID
}
