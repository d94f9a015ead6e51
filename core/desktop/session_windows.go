package desktop

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// Available returns nil where this process belongs to a desktop session: an icon can be shown and
// pages can be opened. Else it says in one sentence what is missing.
func Available() error {
	var session uint32
	// Services and SSH live in session 0, which has no screen.
	if err := windows.ProcessIdToSessionId(uint32(os.Getpid()), &session); err == nil && session == 0 {
		return errors.New("there is no desktop session: this process runs as a service or over SSH")
	}
	return nil
}

// CanOpen returns nil where OpenURL and OpenFile have a screen to open something on, else what
// they would say.
func CanOpen() error { return Available() }

func asRoot() bool { return false } // an administrator's desktop is the user's own

func busReachable() error { return nil }
