package agent

import (
	"errors"
	"syscall"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// A state directory that cannot be written means that no promise can be kept over a restart: rentals
// run on, new ones are refused, and writing is tried again until it succeeds.

// stateRetry is how long after a write that failed the next one is tried.
const stateRetry = 10 * time.Second

// stateFull says what is wrong without a path of the host: the backend is told it too.
func stateFull(reason string) string {
	return "The agent's state directory is full or cannot be written: " + reason + "; free space on it."
}

// blocked notes that a write to the state directory failed.
func (l *loop) blocked(err error) {
	l.log.Error("writing to the state directory; it is tried again", "error", err)
	l.unwritable, l.stale = diskReason(err), true
	l.rewriteAt = time.Now().Add(stateRetry)
}

// rewrite tries again, when it is time, whether the state directory can be written.
func (l *loop) rewrite(now time.Time) {
	if l.unwritable == "" || l.leaving != "" || now.Before(l.rewriteAt) {
		return
	}
	l.rewriteAt = now.Add(stateRetry)
	l.changes++ // a write that changes nothing would not be made
	l.keep(func(error) {})
}

// recorded turns a failure to write the rentals' book into a refusal. What is none stays as it is.
func (l *loop) recorded(err error) error {
	if _, onDisk := errors.AsType[syscall.Errno](err); !onDisk {
		return err
	}
	l.blocked(err)
	return refuse(protocol.InsufficientResources, "%s", stateFull(diskReason(err)))
}

// forgettable is the answer to a wish that is in force and could not be written down.
func forgettable(err error) error {
	return rental.Failf(rental.CodeInternal, "This is in force now, but a restart of the agent would undo it. %s", stateFull(diskReason(err)))
}

// diskReason leaves out the path in a file system's error.
func diskReason(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return "the log has the details"
}
