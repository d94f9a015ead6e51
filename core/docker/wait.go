package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	// answerWithin is how long an engine may take to a ping before it counts as away. One that shuts
	// down may still accept connections (a socket held open by the system), but does not answer.
	answerWithin = 2 * time.Second
	// The pauses between two looks for an engine that is away.
	firstPause   = 50 * time.Millisecond
	longestPause = 2 * time.Second
	// leavesWithin is how long an engine that shuts down may be there after it has ended a container:
	// it waits for the others, stopSeconds and a bit.
	leavesWithin = 20 * time.Second
	leavingPause = 200 * time.Millisecond
	// eventLag is how much later than the exit that it caused an engine may note a signal.
	eventLag = 500 * time.Millisecond
)

// Wait implements rental.Engine.
func (e *Engine) Wait(ctx context.Context, containerID string) (rental.Exit, error) {
	outage := false
	for {
		err := e.waitOnce(ctx, containerID)
		if engineGone(err) && ctx.Err() == nil {
			outage = true
			err = e.awaitReturn(ctx)
		}
		if err != nil {
			return rental.Exit{}, waitFailure(ctx, err)
		}
		ended, err := e.endOf(ctx, containerID)
		if err == nil && !outage && e.killedByRequest(ctx, containerID, ended) {
			ended, err = e.linger(ctx, containerID, ended)
		}
		switch {
		case isUnavailable(err):
			outage = true // the next round waits for its return
		case err != nil:
			return rental.Exit{}, err
		case !ended.running:
			return ended.exit(outage, e.keepsContainers()), nil
		default:
			outage = false // it has come through: what ends it from now on is another matter
		}
	}
}

func waitFailure(ctx context.Context, err error) error {
	if cerrdefs.IsNotFound(err) && ctx.Err() == nil {
		return goneFailure()
	}
	return failed(ctx, "waiting for the container", err)
}

// waitOnce waits as long as the engine stays. It returns nil when the container has ended.
func (e *Engine) waitOnce(ctx context.Context, containerID string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results, errs := e.api().ContainerWait(ctx, containerID, container.WaitConditionNotRunning)
	select { // ctx ends the one or the other
	case <-results:
		return nil
	case err := <-errs:
		return err
	}
}

// answers reports whether the engine answers.
func (e *Engine) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := e.api().Ping(ctx)
	return err == nil
}

// awaitReturn returns when the engine answers again.
func (e *Engine) awaitReturn(ctx context.Context) error {
	for pause := firstPause; !e.answers(ctx); pause = min(2*pause, longestPause) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// end is what an engine tells of a container that may have ended.
type end struct {
	running       bool
	asked         bool // by Stop
	code          int
	oomKilled     bool
	started, last time.Time
}

func (e *Engine) endOf(ctx context.Context, containerID string) (end, error) {
	there, found, err := e.inspect(ctx, containerID)
	switch {
	case err != nil:
		return end{}, err
	case !found:
		return end{}, goneFailure()
	case there.State.Running:
		return end{running: true}, nil
	}
	started, err := time.Parse(time.RFC3339Nano, there.State.StartedAt)
	if err != nil {
		return end{}, fmt.Errorf("reading when the container started: %w", err)
	}
	finished, err := time.Parse(time.RFC3339Nano, there.State.FinishedAt)
	if err != nil {
		return end{}, fmt.Errorf("reading when the container ended: %w", err)
	}
	return end{
		asked: e.stopping.has(containerID), code: there.State.ExitCode, oomKilled: there.State.OOMKilled,
		started: started, last: finished,
	}, nil
}

// exit tells whose doing the end was. An engine that does not keep containers while it is away ends them all,
// with whatever code they then exit. One that keeps them reports their own exits afterwards, but "killed" and
// "unknown" too when the machine went down with it.
func (d end) exit(outage, kept bool) rental.Exit {
	const killed, terminated, unknown = 137, 143, 255
	byEngine := !kept || d.code == killed || d.code == terminated || d.code == unknown
	return rental.Exit{
		Code: d.code, OOMKilled: d.oomKilled, At: d.last,
		EngineStopped: outage && byEngine && !d.asked && !d.oomKilled,
	}
}

// killedByRequest reports whether the engine was asked to end the container, and not by this agent: by a
// person, or by itself on its way out. It is asked for what it remembers of its recent events. When it does
// not answer any more, that is answer enough.
func (e *Engine) killedByRequest(ctx context.Context, containerID string, ended end) bool {
	if ended.running || ended.asked || ended.oomKilled {
		return false
	}
	call, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	said, over := e.api().Events(call, events.ListOptions{
		Since: ended.started.Format(time.RFC3339Nano),
		Until: ended.last.Add(eventLag).Format(time.RFC3339Nano),
		Filters: filters.NewArgs(
			filters.Arg("container", containerID), filters.Arg("event", string(events.ActionKill)),
		),
	})
	select {
	case <-said:
		return true
	case err := <-over:
		return !errors.Is(err, io.EOF) || !e.answers(ctx)
	}
}

// linger looks whether the engine follows the container that it has ended. An engine that is there all the
// while has not ended it on its way out.
func (e *Engine) linger(ctx context.Context, containerID string, ended end) (end, error) {
	late := time.After(leavesWithin)
	for {
		select {
		case <-time.After(leavingPause):
		case <-late:
			return ended, nil
		case <-ctx.Done():
			return end{}, context.Cause(ctx)
		}
		now, err := e.endOf(ctx, containerID)
		if err != nil || now.running {
			return now, err
		}
	}
}

// keepsContainers reports whether the engine, when it was last asked, left containers running while it is away.
func (e *Engine) keepsContainers() bool {
	known := e.facts.Load()
	return known != nil && known.LiveRestore
}
