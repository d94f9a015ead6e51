package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/distributedcompute/host-agent/assets"
	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/control"
	"github.com/distributedcompute/host-agent/core/desktop"
	"github.com/distributedcompute/host-agent/tray"
)

func (c *cli) trayCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tray",
		Short: "Show the icon in the tray; runs the agent too, unless one is running",
		Long: `tray shows the agent's icon. Where no agent is running it runs one, as start does, and logs to a file
(distributed-agent logs shows it). Where one is running already, as a service or in another session, the
icon is that agent's; a second one is not shown. The program called without a command does the same on a desktop.`,
		Args: cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error { return c.tray(ctx) }),
	}
	c.addSettingFlags(cmd)
	return cmd
}

func (c *cli) tray(ctx context.Context) error {
	err := c.trayOf(ctx)
	if err != nil && desktop.Available() == nil && !isTerminal(c.errOut) {
		// Whoever clicked on an icon looks at no terminal.
		notifier := desktop.NewNotifier(desktop.NotifierOptions{Name: "DistributedCompute", Icon: assets.App()})
		note := desktop.Note{Key: "failed", Title: "DistributedCompute has ended", Body: err.Error(), Urgent: true}
		if errors.Is(err, control.ErrShown) {
			note.Title, note.Urgent = "DistributedCompute is running", false
		}
		err = errors.Join(err, notifier.Notify(ctx, note))
	}
	return err
}

func (c *cli) trayOf(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	if err := desktop.Available(); err != nil {
		return usagef("showing the icon: %w; without a desktop run: distributed-agent start --headless", err)
	}
	if err := addressed(cfg); err != nil {
		return err
	}
	if err := config.MakeStateDir(cfg.StateDir); err != nil {
		return err
	}
	release, err := control.ClaimIcon(cfg.StateDir)
	if err != nil {
		return err
	}
	defer release()
	file := logFile(cfg)
	bottom := newFooter(c.errOut)
	log := newLog(withFile(bottom, file), cfg.Log)
	seat := newSeat(cfg, log, hosting{cfg, log, bottom, true}.run)
	err = seat.take(ctx)
	if other, taken := errors.AsType[*control.AlreadyRunning](err); taken {
		log = newLog(bottom, cfg.Log) // the file is the agent's
		if _, err := os.Stat(file); err != nil {
			file = "" // it logs elsewhere
		}
		log.Info("showing the icon of the agent that is running", "pid", other.PID)
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, quitSignals...)
		defer stop()
		context.AfterFunc(ctx, stop) // a second one ends the program at once
	} else if err != nil {
		return err
	}
	return c.showTray(ctx, cfg, seat, file, log)
}

// showTray is called on the main goroutine, as some systems demand of what draws.
func (c *cli) showTray(ctx context.Context, cfg *config.Config, seat *seat, file string, log *slog.Logger) error {
	start := func(context.Context) error { return seat.take(ctx) }
	return seat.show(ctx, func(ctx context.Context) error {
		desk, err := c.desk(cfg, start)
		if err != nil {
			return err
		}
		if err := desk.autostart.Refresh(ctx); err != nil {
			log.Warn("looking after the start at login", "error", err)
		}
		client := control.NewClient(cfg.StateDir, buildVersion().Version)
		return tray.Run(ctx, client, desk, tray.Options{PID: os.Getpid(), Hosting: seat.hosting(), Dashboard: cfg.Dashboard, LogFile: file, Version: buildVersion().Version, Log: log})
	})
}

// logFile is where an agent without a terminal logs to.
func logFile(cfg *config.Config) string {
	if cfg.Log.File != "" {
		return cfg.Log.File
	}
	return filepath.Join(cfg.StateDir, "agent.log")
}

// withFile copies what goes to w into a file of bounded size; "" is none.
func withFile(w io.Writer, file string) io.Writer {
	if file == "" {
		return w
	}
	return both{w, &lumberjack.Logger{Filename: file, MaxSize: 10, MaxBackups: 3}}
}

// both writes to a file whatever becomes of the terminal: a program of a desktop may have none.
type both struct{ screen, file io.Writer }

func (b both) Write(p []byte) (int, error) {
	b.screen.Write(p)
	return b.file.Write(p)
}
