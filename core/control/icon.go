package control

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/gofrs/flock"
)

// ErrShown says that another process shows the icon of the agent of a state directory.
var ErrShown = errors.New("the icon is in the tray already")

// ClaimIcon makes this process the one that shows the icon of the agent of dir, wherever that agent runs, until
// release is called. A second icon of one agent would only confuse; the error is ErrShown.
func ClaimIcon(dir string) (release func() error, err error) {
	lock := flock.New(filepath.Join(dir, "tray.lock"), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking the icon: %w", err)
	}
	if !locked {
		return nil, ErrShown
	}
	return lock.Unlock, nil
}
