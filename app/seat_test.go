package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"

	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/control"
)

var errScreen, errAgent = errors.New("no screen"), errors.New("no agent")

func untilHidden(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// seated gives a seat whose agent ends as told, or with the context.
func seated(t *testing.T, end <-chan error) *seat {
	t.Helper()
	dir, err := os.MkdirTemp("", "da") // a short path: the control socket lives below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return newSeat(&config.Config{StateDir: dir}, slog.New(slog.DiscardHandler), func(ctx context.Context, listener *control.Listener) error {
		defer listener.Close()
		select {
		case err := <-end:
			return err
		case <-ctx.Done():
			return nil
		}
	})
}

// The icon goes with the agent of its process, and the agent stays without an icon.
func TestSeat(t *testing.T) {
	broken := func(context.Context) error { return errScreen }
	for name, tt := range map[string]struct {
		screen func(context.Context) error
		agent  error
	}{
		"the agent quits":            {untilHidden, nil},
		"the agent ends by an error": {untilHidden, errAgent},
		"there is no screen":         {broken, nil},
		"neither works":              {broken, errAgent},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := make(chan error)
				s := seated(t, end)
				if err := s.take(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := s.take(t.Context()); err != nil {
					t.Fatal("taking it again:", err)
				}
				shown := make(chan error, 1)
				go func() { shown <- s.show(t.Context(), tt.screen) }()
				synctest.Wait()
				select {
				case err := <-shown:
					t.Fatalf("it ended with %v while the agent runs", err)
				default:
				}
				end <- tt.agent
				if err := <-shown; !errors.Is(err, tt.agent) {
					t.Errorf("it ended with %v, want %v", err, tt.agent)
				}
			})
		})
	}
}

// Where the agent is elsewhere there is only the icon, until somebody starts an agent from it.
func TestSeatOfAnother(t *testing.T) {
	s := seated(t, nil)
	if err := s.show(t.Context(), func(context.Context) error { return errScreen }); !errors.Is(err, errScreen) {
		t.Errorf("without a screen: %v", err)
	}
	end := make(chan error, 1)
	s = seated(t, end)
	err := s.show(t.Context(), func(ctx context.Context) error {
		if err := s.take(t.Context()); err != nil {
			return err
		}
		end <- errAgent
		return untilHidden(ctx)
	})
	if !errors.Is(err, errAgent) {
		t.Errorf("after its agent has ended: %v", err)
	}
}
