//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/sandbox/engine"
)

// shared is the place of all tests: building the program and starting an engine take seconds.
var shared *place

func TestMain(m *testing.M) {
	os.Exit(engine.Isolated(func() (code int) {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		var err error
		if shared, err = openPlace(ctx); err == nil {
			err = shared.startAgent(ctx)
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
		return m.Run()
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
	t.Log(v)
}

func TestRefused(t *testing.T) { prove(t, shared.refused) }
