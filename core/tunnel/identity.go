package tunnel

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"regexp"

	"github.com/distributedcompute/host-agent/core/durable"
)

const sessionFile = "relay-session"

var sessionPattern = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// sessionID is the id this host's sessions log in with. The relay ends an older session with the
// same id first, and frees its ports; so an agent that starts again after a power cut need not
// wait until the relay has noticed. Whoever knows the id can do the same, so it is kept like a secret.
func sessionID(dir string, log *slog.Logger) string {
	if dir == "" {
		return rand.Text()
	}
	id, err := keptSessionID(dir)
	if err != nil {
		log.Warn("relay session id is not kept", "err", err)
		return rand.Text()
	}
	return id
}

func keptSessionID(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("opening directory: %w", err)
	}
	defer root.Close()
	if kept, err := root.ReadFile(sessionFile); err == nil && sessionPattern.Match(kept) {
		return string(kept), nil
	}
	id := rand.Text()
	if err := durable.Replace(root, sessionFile, []byte(id)); err != nil {
		return "", fmt.Errorf("writing session id: %w", err)
	}
	return id, nil
}
