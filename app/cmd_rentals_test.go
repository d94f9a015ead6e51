package main

import (
	"strings"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

func TestWriteEnded(t *testing.T) {
	now := time.Now()
	code := 0
	ended := []rental.Status{
		{ID: "r-1", State: rental.Stopped, ExitCode: &code, StartedAt: now.Add(-2 * time.Hour), EndedAt: now.Add(-time.Hour)},
		{ID: "r-2", State: rental.Failed, Failure: rental.Failf(rental.CodeContainerFailed, "It ended with exit code 3."), EndedAt: now},
	}
	var b strings.Builder
	if err := writeEnded(&b, ended, now); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[1], "r-2") || !strings.Contains(lines[1], "It ended with exit code 3.") ||
		!strings.HasPrefix(lines[2], "r-1") || !strings.Contains(lines[2], "exit code 0") {
		t.Errorf("wrote:\n%s", b.String())
	}
	b.Reset()
	if err := writeEnded(&b, nil, now); err != nil || b.Len() != 0 {
		t.Errorf("nothing has ended, wrote %q, %v", b.String(), err)
	}
}
