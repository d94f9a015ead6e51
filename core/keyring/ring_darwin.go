package keyring

import (
	"errors"
	"fmt"
	"os"
)

const (
	ringName   = "the login keychain"
	ringAdvice = "run the agent as the user who signed in, and log in or unlock the keychain"
)

func ringSource(entry string) Source {
	return Source(fmt.Sprintf("login keychain, entry %q: locked until this user logs in, then open to this user's programs and to root", entry))
}

// reachable tells why there is no keyring to ask.
func reachable() error {
	if os.Geteuid() == 0 {
		return errors.New("root has no keychain of its own")
	}
	return nil
}
