package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// pipeName gives every state directory its own pipe; pipes have no directories to live in.
func pipeName(dir string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(filepath.Clean(dir))))
	return fmt.Sprintf(`\\.\pipe\distributed-agent-%x`, sum[:8])
}

func listen(dir string) (net.Listener, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("finding out who runs the agent: %w", err)
	}
	// Full access for the system, administrators and this user; nobody else gets any.
	acl := "D:P(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;" + user.User.Sid.String() + ")"
	inner, err := winio.ListenPipe(pipeName(dir), &winio.PipeConfig{SecurityDescriptor: acl})
	if err != nil {
		return nil, fmt.Errorf("opening the control pipe: %w", err)
	}
	return inner, nil
}

func dial(ctx context.Context, dir string) (net.Conn, error) {
	conn, err := winio.DialPipeContext(ctx, pipeName(dir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrNotRunning
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the agent of %s belongs to another user", dir)
	}
	return conn, err
}
