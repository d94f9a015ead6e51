package desktop

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"time"
)

// Available returns nil where this process belongs to a desktop session: an icon can be shown and
// pages can be opened. Else it says in one sentence what is missing.
func Available() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// Over SSH and from a daemon it is another: "Background", "System".
	kind, err := exec.CommandContext(ctx, "/bin/launchctl", "managername").Output()
	if err == nil && strings.TrimSpace(string(kind)) != "Aqua" {
		return errors.New("there is no desktop session: this process was not started on this Mac's screen")
	}
	return nil
}

// CanOpen returns nil where OpenURL and OpenFile have a screen to open something on, else what
// they would say.
func CanOpen() error { return Available() }

func asRoot() bool { return false } // root's session is a session here

func busReachable() error { return nil }
