//go:build unix

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// maxSocketPath is what every system takes: Linux 107 bytes, macOS 103.
const maxSocketPath = 103

func socketPath(dir string) (string, error) {
	path := filepath.Join(dir, "control.sock")
	if len(path) > maxSocketPath {
		return "", fmt.Errorf("the control socket's path %s has %d bytes, the system takes %d; choose a shorter state_dir", path, len(path), maxSocketPath)
	}
	return path, nil
}

// listen is called with the lock held, so a socket that is there is left over.
func listen(dir string) (net.Listener, error) {
	path, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the stale control socket: %w", err)
	}
	// The socket is private from its first moment; a chmod would come too late.
	old := syscall.Umask(0o177)
	inner, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	return &trustedListener{inner}, nil
}

// trustedListener lets in only this user and root. The socket's mode says so already; this holds
// where somebody has changed it.
type trustedListener struct{ net.Listener }

func (l *trustedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := peer(conn.(*net.UnixConn)); err == nil && trusted(uid, os.Geteuid()) {
			return conn, nil
		}
		conn.Close()
	}
}

func trusted(uid uint32, me int) bool { return uid == 0 || int64(uid) == int64(me) }

// peer asks the kernel who is at the other end.
func peer(conn *net.UnixConn) (uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credErr error
	if err := raw.Control(func(fd uintptr) { uid, credErr = peerUID(int(fd)) }); err != nil {
		return 0, err
	}
	return uid, credErr
}

func dial(ctx context.Context, dir string) (net.Conn, error) {
	path, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNotRunning
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the agent of %s belongs to another user", dir)
	}
	return conn, err
}
