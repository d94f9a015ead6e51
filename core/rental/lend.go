package rental

import "context"

// lend has the rental's GPUs lent to it, where somebody looks after them.
func (l *life) lend(ctx context.Context) error {
	if l.opts.Devices == nil || len(l.accepted.Spec.GPUs) == 0 {
		return nil
	}
	err := l.serve(ctx, func(ctx context.Context) error { return l.opts.Devices.Lend(ctx, l.id, l.accepted.Spec.GPUs) })
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	// One that was interrupted may have been noted: giving back what was not lent does no harm.
	l.lent = err == nil || ctx.Err() != nil
	return err
}

// watchGPUs returns an error when the rental cannot go on because of them.
func (l *life) watchGPUs(ctx context.Context, container string) error {
	if l.opts.Devices == nil || len(l.accepted.Spec.GPUs) == 0 {
		return nil
	}
	err := l.opts.Devices.Watch(ctx, l.id, l.accepted.Spec.GPUs, container)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// giveBack returns GPUs that were lent, also those that an earlier agent may have lent. How it turns out is
// the host's concern: only the end of ctx is an error.
func (l *life) giveBack(ctx context.Context) error {
	if l.opts.Devices == nil || len(l.accepted.Spec.GPUs) == 0 || !l.lent && !l.restored {
		return nil
	}
	err := l.serve(ctx, func(ctx context.Context) error { return l.opts.Devices.Return(ctx, l.id, l.accepted.Spec.GPUs) })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		l.log.Error("taking a rental's GPUs back", "error", err)
	}
	return nil
}
