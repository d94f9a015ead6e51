//go:build !linux

package engine

import (
	"context"
	"errors"
)

// Engine is a running private Docker Engine; there is none but on Linux.
type Engine struct{}

var errLinuxOnly = errors.New("a private Docker Engine needs Linux")

// Isolated runs run as it is: namespaces are Linux's.
func Isolated(run func() int) int { return run() }

// Start says that this system cannot do it.
func Start(context.Context, Options) (*Engine, error) { return nil, errLinuxOnly }

// Host implements the engine's address.
func (*Engine) Host() string { return "" }

// Pid is always 0.
func (*Engine) Pid() int { return 0 }

// HookCalls says that this system cannot do it.
func (*Engine) HookCalls() ([]HookCall, error) { return nil, errLinuxOnly }

// RefuseGPUs says that this system cannot do it.
func (*Engine) RefuseGPUs(string) error { return errLinuxOnly }

// SetLiveRestore says that this system cannot do it.
func (*Engine) SetLiveRestore(context.Context, bool) error { return errLinuxOnly }

// Restart says that this system cannot do it.
func (*Engine) Restart(context.Context) error { return errLinuxOnly }

// Down says that this system cannot do it.
func (*Engine) Down() error { return errLinuxOnly }

// Kill says that this system cannot do it.
func (*Engine) Kill() error { return errLinuxOnly }

// Stop says that this system cannot do it.
func (*Engine) Stop() error { return errLinuxOnly }
