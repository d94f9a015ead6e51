package control

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

func TestCallersDoNotWaitForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := NewServer(Identity{}, slog.New(slog.DiscardHandler)).await(t.Context())
		if refusal, ok := errors.AsType[*Refusal](err); !ok || refusal.Code != "starting" {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(start); waited != furnishedIn {
			t.Errorf("waited %v", waited)
		}
	})
}
