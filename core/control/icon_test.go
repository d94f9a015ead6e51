package control_test

import (
	"errors"
	"testing"

	"github.com/distributedcompute/host-agent/core/control"
)

func TestOneIcon(t *testing.T) {
	dir := t.TempDir()
	release, err := control.ClaimIcon(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.ClaimIcon(dir); !errors.Is(err, control.ErrShown) {
		t.Errorf("a second icon: %v, want ErrShown", err)
	}
	if _, err := control.ClaimIcon(t.TempDir()); err != nil {
		t.Errorf("another agent's icon: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if _, err := control.ClaimIcon(dir); err != nil {
		t.Errorf("after the first has gone: %v", err)
	}
}
