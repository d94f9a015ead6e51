package keyring

import (
	"errors"
	"os"
	"strings"
)

// machineID names this installation of the system. It is confidential: only what is derived from it
// may leave the program.
func machineID() (string, error) {
	text, err := os.ReadFile("/etc/machine-id")
	id := strings.TrimSpace(string(text))
	if err == nil && (id == "" || id == "uninitialized") {
		err = errors.New("/etc/machine-id is empty")
	}
	return id, err
}
