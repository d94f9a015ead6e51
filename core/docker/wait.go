package docker

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	// answerWithin is how long an engine may take to a ping before it counts as away. One that shuts
	// down may still accept connections (a socket held open by the system), but does not answer.
	answerWithin = 2 * time.Second
	// The pauses between two looks for an engine that is away.
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
	// leavesWithin is how long an engine that has ended a container and takes no connections is watched before
	// it is asked again: it may be leaving, or very busy.
	leavesWithin = 20 * time.Second
	// eventLag is how much later than the exit that it caused an engine may note a signal.
	eventLag = 500 * time.Millisecond
)

// Wait implements rental.Engine.
func (e *Engine) Wait(ctx context.Context, containerID string) (rental.Exit, error) {
	var last signs
	outage := false
	for {
		ended, err := e.accompany(ctx, containerID, &last, outage)
		switch {
		case ctx.Err() != nil:
			return rental.Exit{}, context.Cause(ctx)
		case engineGone(err) && !e.keepsContainers() && !e.stopping.has(containerID):
			// It takes its containers with it, and may give their ports to others when it is back.
			if now, err := e.endOf(ctx, containerID); err != nil || !now.running {
				return rental.Exit{EngineStopped: true}, nil
			}
			// Only the connection was lost, as with a proxy before the engine.
			if err := pause(ctx, firstPause); err != nil {
				return rental.Exit{}, err
			}
			outage = false
		case engineGone(err) || isUnavailable(err):
			var seen time.Time
			if ended, seen, err = e.awaitReturn(ctx, containerID); err != nil {
				return rental.Exit{At: seen}, err
			}
			if ended.last.After(seen) {
				ended.last = seen // the engine may say when it noticed
			}
			outage = !ended.running // what has come through is ended by another matter from now on
		case err != nil:
			return rental.Exit{}, waitFailure(ctx, err)
		case ended.running:
			outage = false
		default:
			if last.forced.After(ended.started) {
				ended.oomKilled = false // the engine remembers that of any process, however long ago
			}
			exit := ended.exit(outage, e.keepsContainers())
			exit.Failure = e.verdicts.of(containerID)
			return exit, nil
		}
	}
}

func waitFailure(ctx context.Context, err error) error {
	if cerrdefs.IsNotFound(err) || hasCode(err, rental.CodeNotFound) {
		return goneFailure()
	}
	return failed(ctx, "waiting for the container", err)
}

// errLeft is the reason of an engine that closed its stream of events.
var errLeft = fmt.Errorf("the engine has gone away: %w", io.EOF)

// accompany waits for the container's end with the engine's events beside it. The stream of events, which no other
// engine can continue, breaks when this engine goes: an engine that ended the container on its way out
// is told by that, however soon the next one is there. Such an end is an error for which engineGone holds.
func (e *Engine) accompany(ctx context.Context, containerID string, last *signs, outage bool) (end, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	api, err := e.settled(ctx)
	if err != nil {
		return end{}, err
	}
	said, left := api.Events(ctx, events.ListOptions{
		Since: "0", // what it remembers of a container that has ended already
		Filters: filters.NewArgs(
			filters.Arg("container", containerID),
			filters.Arg("event", string(events.ActionKill)), filters.Arg("event", string(events.ActionStart)),
			filters.Arg("event", string(events.ActionDestroy)),
		),
	})
	results, errs := api.ContainerWait(ctx, containerID, container.WaitConditionNotRunning)
	waiting := true
	defer func() {
		if cancel(); waiting { // the client's goroutine ends when one of its channels has been read
			select {
			case <-results:
			case <-errs:
			}
		}
	}()
	for waiting {
		select { // ctx ends left, if nothing before
		case <-results:
			waiting = false
		case err := <-errs:
			waiting = false
			return end{}, err
		case event := <-said:
			last.note(event)
		case err := <-left:
			return end{}, cmp.Or(err, errLeft)
		}
	}
	ended, err := e.endOf(ctx, containerID)
	if err != nil || ended.running || ended.asked || outage {
		return ended, err
	}
	return e.linger(ctx, ended, last, said, left)
}

// settled is a client that has agreed on a version with the engine: Events does not see to that itself.
func (e *Engine) settled(ctx context.Context) (*client.Client, error) {
	api := e.api()
	call, cancel := bounded(ctx)
	defer cancel()
	if _, err := api.ServerVersion(call); err != nil {
		return nil, failed(ctx, "asking for its version", err)
	}
	return api, nil
}

// signs are when the engine last sent the container a signal, when that was the one that kills, when it last started
// it, and whether it has removed it.
type signs struct {
	killed, forced, started time.Time
	destroyed               bool
}

func (s *signs) note(event events.Message) {
	switch at := time.Unix(0, event.TimeNano); event.Action {
	case events.ActionKill:
		s.killed = at
		if event.Actor.Attributes["signal"] == strconv.Itoa(int(syscall.SIGKILL)) {
			s.forced = at
		}
	case events.ActionStart:
		s.started = at
	case events.ActionDestroy:
		s.destroyed = true
	}
}

// linger stays to see whether the engine, if it was asked to end the container and not by this agent, goes away
// after it: then it has ended the container on its way out. An engine on its way out closes its door before it
// ends the first container, so one that takes connections has been asked by a person.
func (e *Engine) linger(ctx context.Context, ended end, last *signs, said <-chan events.Message, left <-chan error) (end, error) {
	stay := time.NewTimer(eventLag)
	defer stay.Stop()
	asked := false
	for {
		if !asked && last.killed.After(ended.started) {
			asked = true
			if e.takesConnections(ctx) {
				return ended, nil
			}
			stay.Reset(leavesWithin)
		}
		select {
		case event := <-said:
			last.note(event)
			switch {
			case last.destroyed:
				return end{}, goneFailure()
			case last.started.After(ended.last):
				return end{running: true}, nil
			}
		case err := <-left:
			return end{}, cmp.Or(err, errLeft)
		case <-stay.C:
			if asked && !e.takesConnections(ctx) {
				return end{}, errLeft
			}
			return ended, nil
		}
	}
}

// answers reports whether the engine answers.
func (e *Engine) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := e.api().Ping(ctx)
	return err == nil
}

// takesConnections reports whether the engine answers on a new connection. One that shuts down may serve those it
// has, but closes its door before it ends the first container.
func (e *Engine) takesConnections(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	fresh, err := e.newClient()
	if err != nil {
		return false
	}
	defer fresh.Close()
	_, err = fresh.Ping(ctx)
	return err == nil
}

// awaitReturn returns when the engine tells of the container again. One that has just come back may answer
// with errors at first.
// It tells as well when the container was last known to run meanwhile: its process can be seen without the engine.
func (e *Engine) awaitReturn(ctx context.Context, containerID string) (found end, seen time.Time, err error) {
	seen = time.Now()
	for wait := firstPause; ; wait = min(2*wait, longestPause) {
		if e.processes.runs(containerID) {
			seen = time.Now()
		}
		if e.answers(ctx) {
			found, err := e.endOf(ctx, containerID)
			if err == nil || hasCode(err, rental.CodeNotFound) {
				return found, seen, err
			}
			e.log.Warn("looking for a container after the engine's return", "container", containerID, "error", err)
		}
		if err := pause(ctx, wait); err != nil {
			return end{}, seen, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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
		asked: e.stopping.has(containerID), code: there.State.ExitCode, oomKilled: there.State.OOMKilled && there.State.ExitCode == killed,
		started: started, last: finished,
	}, nil
}

// Codes with which a container ends that was killed, that was asked to end, and of which nothing is known.
const killed, terminated, unknown = 137, 143, 255

// exit tells whose doing the end was. An engine that does not keep containers while it is away ends them all,
// with whatever code they then exit. One that keeps them reports their own exits afterwards, but "killed" and
// "unknown" too when the machine went down with it.
func (d end) exit(outage, kept bool) rental.Exit {
	byEngine := !kept || d.code == killed || d.code == terminated || d.code == unknown
	return rental.Exit{
		Code: d.code, OOMKilled: d.oomKilled, StartedAt: d.started, At: d.last,
		EngineStopped: outage && byEngine && !d.asked && !d.oomKilled,
		Noticed:       d.code == unknown || startedBeforeBoot(d.started, d.last),
	}
}

// keepsContainers reports whether the engine, when it was last asked, left containers running while it is away.
func (e *Engine) keepsContainers() bool {
	known := e.facts.Load()
	return known != nil && known.LiveRestore
}
