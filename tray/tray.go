// Package tray is the agent's icon in the desktop's panel, with its menu and notifications. It shows
// what the agent says and hands on what a person clicks; it owns nothing, so the command line can do
// all that it can.
package tray

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
)

// ErrNoScreen says that there is no desktop to show an icon on, or that it has gone. The agent is as
// well without.
var ErrNoScreen = errors.New("there is no desktop to show an icon on")

// Host is the agent as the tray sees and steers it.
type Host interface {
	// Watch yields the picture at once and after each change, until ctx ends or the agent has gone.
	Watch(ctx context.Context) iter.Seq2[agent.Status, error]
	Pause(ctx context.Context, until time.Time) error // zero: until Resume
	Resume(ctx context.Context) error
	Drain(ctx context.Context, deadline time.Time) error // zero: as long as the rentals run
	EndRental(ctx context.Context, id string) error
	Retry(ctx context.Context) error // to reach the backend, at once
	Quit(ctx context.Context, how agent.How) error
	// SignIn returns once there is a page to open; the sign-in goes on in the agent.
	SignIn(ctx context.Context, method account.Method) (account.SigningIn, error)
	CancelSignIn(ctx context.Context) error
	SignOut(ctx context.Context) (account.SignedOut, error)
}

// Desk is the desktop of whoever looks at the icon. Calls that take a context may take a while.
type Desk interface {
	OpenURL(ctx context.Context, url string) error
	OpenFile(ctx context.Context, path string) error
	Copy(ctx context.Context, text string) error
	Notify(ctx context.Context, note Note) error
	Autostart(ctx context.Context) (on bool, blocked string, err error) // blocked: why this cannot be changed here; "" where it can
	SetAutostart(ctx context.Context, on bool) error
	Notifications() bool // whether the person wants any
	SetNotifications(on bool) error
	StartAgent(ctx context.Context) error
}

// Note is a notification. Notes of one key are about the same thing: the newest counts.
type Note struct {
	Key         string
	Title, Body string
	Urgent      bool
}

// Options say what the tray stands beside.
type Options struct {
	PID       int    // of this process: an agent with another one goes on without the icon
	Hosting   bool   // the agent that is looked for first is one of this process
	Dashboard string // URL of the marketplace's dashboard; "": none
	LogFile   string // "": the log goes elsewhere
	Version   string
	Log       *slog.Logger // nil: none
}

// Run shows the icon until ctx ends or it has been closed, which is no error. It belongs on the main
// goroutine, and only once into a process. ErrNoScreen is what it returns where there is no desktop,
// at once, or when the desktop ends.
func Run(ctx context.Context, host Host, desk Desk, o Options) error {
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	s, err := openScreen(ctx, o.Log)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	return s.show(ctx, func() error { return newTray(host, desk, o).run(ctx, s) })
}
