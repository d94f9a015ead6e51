package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// askFor bounds how long Listen asks an agent that holds the lock who it is: one that is just
// starting answers soon, one that is leaving lets go.
const askFor = 2 * time.Second

// Listener is the door of the one agent of a state directory.
type Listener struct {
	net.Listener
	lock *flock.Flock
}

// Listen takes the lock in dir, which is the user's alone, and listens. The error is
// *AlreadyRunning where another agent has the lock.
func Listen(ctx context.Context, dir string) (*Listener, error) {
	lock := flock.New(filepath.Join(dir, "agent.lock"), flock.SetPermissions(0o600))
	if err := acquire(ctx, lock, dir); err != nil {
		return nil, err
	}
	inner, err := listen(dir)
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return &Listener{inner, lock}, nil
}

func acquire(ctx context.Context, lock *flock.Flock, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	client := NewClient(dir, "")
	for {
		locked, err := lock.TryLock()
		if err != nil {
			if outer, ok := errors.AsType[*os.PathError](err); ok {
				err = outer.Err
			}
			return fmt.Errorf("locking the state directory %s: %w; name one that can be written with --state-dir", dir, err)
		}
		if locked {
			return nil
		}
		other, err := client.Identity(ctx)
		if err == nil {
			return &AlreadyRunning{other}
		}
		select {
		case <-ctx.Done():
			return &AlreadyRunning{}
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Close stops listening and lets the next agent in.
func (l *Listener) Close() error {
	return errors.Join(l.Listener.Close(), l.lock.Unlock())
}
