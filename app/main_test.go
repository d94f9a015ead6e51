package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/control"
	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/rental"
)

// TestExitCodes holds the contract with scripts; the long help lists it.
func TestExitCodes(t *testing.T) {
	tests := []struct {
		err  error
		want int
	}{
		{errors.New("anything"), 1},
		{&control.Refusal{Code: string(rental.CodeNotFound)}, 1},
		{usagef("--tail: %w", errors.New("takes a number")), 2},
		{&control.AlreadyRunning{}, 3},
		{control.ErrNotRunning, 4},
		{keyring.ErrNone, 5},
		{&control.Refusal{Code: string(rental.CodeDockerUnavailable)}, 6},
	}
	for _, tt := range tests {
		if got := exitCode(fmt.Errorf("doing something: %w", tt.err)); got != tt.want {
			t.Errorf("%v: got %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestErrorsDoNotSteerTheTerminal(t *testing.T) {
	var b strings.Builder
	explain(&b, errors.Join(errors.New("no image \x1b[2J"), errors.New("second")))
	if want := "distributed-agent: no image \uFFFD[2J\ndistributed-agent: second\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
