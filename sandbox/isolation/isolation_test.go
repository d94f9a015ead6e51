//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/sandbox/engine"
)

// What all tests of a run share: building the program and starting an engine take seconds.
var (
	shared *place
	owned  []*decoy
)

func TestMain(m *testing.M) {
	os.Exit(engine.Isolated(func() (code int) {
		// Where the agent was not built before, and all packages are tested at once, that alone takes minutes.
		ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
		defer cancel()
		var err error
		if shared, err = openPlace(ctx, "ext4"); err == nil {
			err = shared.startAgent(ctx)
		}
		if err == nil {
			owned, err = shared.setDecoys(ctx)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "isolation:", err)
			return 1
		}
		defer func() {
			if err := shared.close(); err != nil {
				fmt.Fprintln(os.Stderr, "isolation:", err)
				code = 1
			}
		}()
		if code = m.Run(); code != 0 {
			return code
		}
		v, err := shared.decoysTouched(context.Background(), owned)
		if err != nil || v.short() {
			fmt.Fprintln(os.Stderr, v, err, strings.Join(v.wrong, "\n"))
			return 1
		}
		return 0
	}))
}

// prove requires that a part does not fall short.
func prove(t *testing.T, part func(context.Context) (verdict, error)) {
	t.Helper()
	v, err := part(t.Context())
	for _, wrong := range v.wrong {
		t.Error(wrong)
	}
	switch {
	case err != nil:
		t.Fatalf("%s: %v", v.name, err)
	case v.short():
		t.Errorf("%s falls short%s", v, shared.lastWords())
	}
	for _, note := range v.notes {
		t.Log(note)
	}
	t.Log(v)
}

func TestRefused(t *testing.T) { prove(t, shared.refused) }

func TestReachable(t *testing.T) {
	prove(t, func(ctx context.Context) (verdict, error) { return shared.reachable(ctx, true) })
}

func TestContained(t *testing.T) {
	prove(t, func(ctx context.Context) (verdict, error) {
		return shared.contained(ctx, lightBombs)
	})
}

func TestDenied(t *testing.T) { prove(t, shared.denied) }

func TestDecoysAreSeenWhenTouched(t *testing.T) {
	d := *owned[2]
	if d.kind != "volume" {
		t.Fatalf("decoy %s is no volume", d.kind)
	}
	d.before = strings.ReplaceAll(d.before, decoyText, "something else")
	if v, err := shared.decoysTouched(t.Context(), []*decoy{&d}); err != nil || v.got != 1 || !v.short() {
		t.Errorf("a changed file is told as %s, %v", v, err)
	}
}
