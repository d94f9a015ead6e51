package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/control"
)

// listen makes this process the agent of the state directory; it comes first, so that there is one
// agent and early callers wait until it is there. Another agent is *control.AlreadyRunning.
func listen(ctx context.Context, cfg *config.Config) (*control.Listener, error) {
	if err := config.MakeStateDir(cfg.StateDir); err != nil {
		return nil, err
	}
	return control.Listen(ctx, cfg.StateDir)
}

// hosting is how an agent is run in this process.
type hosting struct {
	cfg    *config.Config
	log    *slog.Logger
	bottom *footer
	// keyless lets the agent run without a host key: there is a tray to sign in from.
	keyless bool
}

// garbage is how much of it may gather, in percent of what is in use. The agent makes little, so that a megabyte
// saved costs no time that could be measured.
const garbage = 50

// run runs the agent until somebody quits it or ctx ends.
func (h hosting) run(ctx context.Context, listener *control.Listener) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	this := describeAgent()
	server := control.NewServer(control.Identity{PID: os.Getpid(), Version: this.Version, StartedAt: this.StartedAt}, h.log)

	var wg sync.WaitGroup
	defer wg.Wait()
	serving, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	wg.Go(func() { served <- server.Serve(serving, listener) })

	parts, err := join(ctx, h.cfg, this, h.keyless, h.log)
	if err != nil {
		return err
	}
	defer parts.memory.Close()
	defer parts.desk.Close()
	a, err := agent.New(parts.Parts, parts.options)
	if err != nil {
		return err
	}
	server.Furnish(a)
	h.log.Info("agent started", "version", this.Version, "pid", os.Getpid(), "state", h.cfg.StateDir, "key", parts.Account.Info().KeySource)
	wg.Go(func() { narrate(a.Watch(serving), h.log, h.bottom) })
	wg.Go(func() { heed(serving, served, a, h.log) })
	err = a.Run(ctx)
	h.log.Info("agent quit")
	return err
}

func describeAgent() protocol.Agent {
	b := buildVersion()
	return protocol.Agent{Version: b.Version, OS: b.OS, Arch: b.Arch, Commit: b.Commit, StartedAt: time.Now().UTC()}
}

func newLog(w io.Writer, settings config.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: settings.Level}
	if settings.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// quitSignals are an interrupt and a service manager's wish; on Windows the second also stands for
// a closed console and the system's shutdown.
var quitSignals = []os.Signal{os.Interrupt, syscall.SIGTERM}

// heed quits the agent at the first signal, and ends the process at the second. An agent whose
// control socket has failed could not be asked anything any more, so it quits as well.
func heed(ctx context.Context, served <-chan error, a *agent.Agent, log *slog.Logger) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, quitSignals...)
	defer signal.Stop(signals)
	for asked := false; ; asked = true {
		select {
		case <-ctx.Done():
			return
		case err := <-served:
			if ctx.Err() != nil {
				return
			}
			log.Error("the control socket has failed; quitting", "error", err)
		case s := <-signals:
			if asked {
				os.Exit(exitFailed)
			}
			log.Info("quitting; rentals run on, and the next start adopts them", "signal", s.String(), "rentals", live(a.Status()))
		}
		a.Quit(agent.LeaveRentals)
	}
}
