//go:build !linux

package shield

import (
	"context"
	"errors"
	"net/netip"
)

// Direct are the hands of a process that may change the kernel's packet filter; only Linux has it.
type Direct struct{}

var errNoFilter = errors.New("this system has no packet filter for containers: they run in a virtual machine")

// Apply implements Hands; it always fails.
func (Direct) Apply(context.Context, Policy) (Picture, error) { return Picture{}, errNoFilter }

// Look implements Hands; it always fails.
func (Direct) Look(context.Context) (Picture, error) { return Picture{}, errNoFilter }

// Remove implements Hands; it always fails.
func (Direct) Remove(context.Context) error { return errNoFilter }

// Generation implements Watcher; it always fails.
func (Direct) Generation(context.Context) (uint32, error) { return 0, errNoFilter }

// Blocked implements Watcher; it always fails.
func (Direct) Blocked(context.Context) (map[netip.Addr]uint64, error) { return nil, errNoFilter }
