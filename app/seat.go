package main

import (
	"context"
	"log/slog"
	"sync"

	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/control"
)

// seat is where the agent sits in this process, if it does. The tray beside it is a client of the
// agent wherever that is, and the agent never depends on the tray.
type seat struct {
	cfg  *config.Config
	log  *slog.Logger
	host func(ctx context.Context, listener *control.Listener) error

	mu    sync.Mutex
	taken bool
	wg    sync.WaitGroup
	over  chan struct{} // closed when the agent of this process has ended
	err   error         // how; set before over is closed
}

func newSeat(cfg *config.Config, log *slog.Logger, host func(context.Context, *control.Listener) error) *seat {
	return &seat{cfg: cfg, log: log, host: host, over: make(chan struct{})}
}

// take runs the agent in this process until ctx ends or somebody quits it. The error is
// *control.AlreadyRunning where another process has it.
func (s *seat) take(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken {
		return nil
	}
	listener, err := listen(ctx, s.cfg)
	if err != nil {
		return err
	}
	s.taken = true
	s.wg.Go(func() {
		defer close(s.over)
		s.err = s.host(ctx, listener)
	})
	return nil
}

func (s *seat) hosting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// show runs screen until the agent of this process has ended, ctx ends, or screen returns where the
// agent is elsewhere. Without a screen it waits for the agent of this process alone.
func (s *seat) show(ctx context.Context, screen func(context.Context) error) error {
	showing, hide := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer hide()
		select {
		case <-s.over:
		case <-showing.Done():
		}
	})
	err := screen(showing)
	if s.hosting() {
		if err != nil {
			s.log.Warn("going on without an icon in the tray", "because", err)
		}
		<-s.over
		err = s.err
	}
	hide()
	wg.Wait()
	s.wg.Wait()
	return err
}

// wait waits for the agent of this process.
func (s *seat) wait() error {
	s.wg.Wait()
	return s.err
}
