package rental

import "context"

// pull gets the image; the next state is Creating.
func (l *life) pull(ctx context.Context) error {
	if err := l.advance(ctx, noted, func(r *record) { r.State = Pulling }); err != nil {
		return err
	}
	spec := l.accepted.Spec
	errSlow := Failf(CodeTimeout, "Pulling %s took longer than %v.", spec.Image, l.opts.PullBound)
	bounded, cancel := context.WithTimeoutCause(ctx, l.opts.PullBound, errSlow)
	defer cancel()
	var image Image
	err := l.insist(bounded, whileAway(l.opts.EngineBound), func(ctx context.Context) (err error) {
		image, err = l.opts.Engine.Pull(ctx, spec.Image, spec.Registry, l.onProgress)
		return err
	})
	if err != nil {
		return err
	}
	return l.advance(ctx, noted, func(r *record) {
		r.State, r.ImageID, r.ImageDigest = Creating, image.ID, image.Digest
	})
}

// create makes the container; the next state is Starting, with the container's id on disk.
func (l *life) create(ctx context.Context) error {
	if err := l.lend(ctx); err != nil {
		return err
	}
	_, rec := l.page.read()
	image := Image{ID: rec.ImageID, Digest: rec.ImageDigest}
	var container string
	err := l.insist(ctx, whileAway(l.opts.EngineBound), func(ctx context.Context) (err error) {
		container, err = l.opts.Engine.Create(ctx, l.accepted.Spec, image)
		return err
	})
	if err != nil {
		return err
	}
	return l.advance(ctx, synced, func(r *record) { r.State, r.ContainerID = Starting, container })
}

// start starts the container; the next state is Tunnelling.
func (l *life) start(ctx context.Context) (Container, error) {
	c, err := l.launch(ctx)
	if err != nil {
		return Container{}, err
	}
	return c, l.started(ctx, c)
}

// launch has the container running, by starting it where it is not, and knows its ports then.
func (l *life) launch(ctx context.Context) (Container, error) {
	_, rec := l.page.read()
	again := whileAway(l.opts.EngineBound)
	if rec.Lasting {
		again = untilBack(l.opts.EngineBound)
	}
	var c Container
	err := l.insist(ctx, again, func(ctx context.Context) (err error) {
		c, err = l.opts.Engine.Start(ctx, rec.ContainerID)
		return err
	})
	return c, lost(err)
}

func (l *life) started(ctx context.Context, c Container) error {
	return l.advance(ctx, noted, func(r *record) {
		r.State = Tunnelling
		if r.StartedAt.IsZero() {
			r.StartedAt = c.StartedAt
		}
	})
}

// lost says what it means for a rental when the engine does not find its container.
func lost(err error) error {
	if codeOf(err) == CodeNotFound {
		return Failf(CodeInterrupted, "The rental's container is gone: something other than this agent has removed it.")
	}
	return err
}
