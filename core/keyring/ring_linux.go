package keyring

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

const (
	ringName   = "the desktop's keyring"
	ringAdvice = "run the agent as the user who signed in, and log in to the desktop or unlock the keyring"
)

func ringSource(entry string) Source {
	return Source(fmt.Sprintf("desktop keyring, entry %q: locked until this user logs in, then open to this user's programs and to root", entry))
}

// reachable tells why there is no keyring to ask. Without a bus to ask on, the library would start one, and
// a keyring with it that nobody else knows.
func reachable() error {
	if os.Geteuid() == 0 {
		// The bus in root's environment is that of whoever became root.
		return errors.New("root has no keyring of its own")
	}
	if bus := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); bus != "" && !strings.HasPrefix(bus, "autolaunch:") {
		return nil
	}
	if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); err == nil {
		return nil
	}
	return errors.New("this user has no session bus")
}
