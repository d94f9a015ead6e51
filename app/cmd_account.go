package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/control"
	"github.com/distributedcompute/host-agent/core/desktop"
)

func (c *cli) signInCommand() *cobra.Command {
	var how signInFlags
	cmd := &cobra.Command{
		Use:   "sign-in",
		Short: "Sign this host in to the marketplace, in the browser",
		Long: `sign-in opens the marketplace's sign-in page and stores the host key that comes of it. Without a browser
on this machine (over SSH, on a server) it shows a code to type on any device, where the marketplace offers that.`,
		Args: cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			if err := addressed(cfg); err != nil {
				return err
			}
			return c.signIn(ctx, cfg, how)
		}),
	}
	how.add(cmd)
	return cmd
}

type signInFlags struct{ device, noBrowser bool }

func (f *signInFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.device, "device", false, "sign in with a code on another device")
	cmd.Flags().BoolVar(&f.noBrowser, "no-browser", false, "print the page's address and open nothing")
}

func (f signInFlags) method(environ []string) account.Method {
	if f.device || !f.noBrowser && remote(environ) {
		return account.Device
	}
	return account.Browser
}

// remote tells that whoever types is likely not in front of this machine's screen.
func remote(environ []string) bool {
	given := map[string]bool{}
	for _, name := range []string{"SSH_TTY", "SSH_CONNECTION", "SSH_CLIENT", "DISPLAY", "WAYLAND_DISPLAY"} {
		given[name] = lookup(environ, name) != ""
	}
	return given["SSH_TTY"] || given["SSH_CONNECTION"] || given["SSH_CLIENT"] ||
		runtime.GOOS == "linux" && !given["DISPLAY"] && !given["WAYLAND_DISPLAY"]
}

func lookup(environ []string, name string) string {
	for _, variable := range environ {
		if value, ok := strings.CutPrefix(variable, name+"="); ok {
			return value
		}
	}
	return ""
}

// signIn signs in through the agent that is running, else in this process.
func (c *cli) signIn(ctx context.Context, cfg *config.Config, how signInFlags) error {
	ctx, stop := signal.NotifyContext(ctx, quitSignals...)
	defer stop()
	context.AfterFunc(ctx, stop) // a second interrupt ends the program at once
	client := control.NewClient(cfg.StateDir, buildVersion().Version)
	if _, err := client.Identity(ctx); err == nil {
		return c.signInAt(ctx, runningDesk{client}, how)
	} else if !errors.Is(err, control.ErrNotRunning) {
		return err
	}
	a, err := c.ownAccount(cfg)
	if err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	running, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() {
		a.Run(running, func() { // it returns no error
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	})
	return c.signInAt(ctx, ownDesk{a, changed}, how)
}

// signInDesk is where a sign-in is done: in the running agent or in this process.
type signInDesk interface {
	SignIn(ctx context.Context, method account.Method) (account.SigningIn, error)
	CancelSignIn(ctx context.Context) error
	info(ctx context.Context) (account.Info, error)
	// infos yields the account now and after each change, until ctx ends.
	infos(ctx context.Context, yield func(account.Info) bool) error
}

func (c *cli) signInAt(ctx context.Context, at signInDesk, how signInFlags) error {
	before, err := at.info(ctx)
	if err != nil {
		return err
	}
	after := before
	prompt, err := c.begin(ctx, at, how)
	if err == nil {
		c.prompt(ctx, prompt, how)
		err = at.infos(ctx, func(info account.Info) bool {
			after = info
			return info.SigningIn != nil
		})
	}
	switch {
	case ctx.Err() != nil:
		at.CancelSignIn(context.WithoutCancel(ctx))
		return errors.New("the sign-in was given up; nothing has changed")
	case err != nil:
		return err
	case after.KeyID != before.KeyID: // every sign-in makes a key
		c.tellSignedIn(after)
		return nil
	case after.Problem != "":
		return errors.New(after.Problem)
	}
	return errors.New("the sign-in was cancelled; nothing has changed")
}

// begin falls back to the browser's way where no code can be had.
func (c *cli) begin(ctx context.Context, at signInDesk, how signInFlags) (account.SigningIn, error) {
	method := how.method(c.environ)
	prompt, err := at.SignIn(ctx, method)
	if err != nil && method == account.Device && !how.device {
		return at.SignIn(ctx, account.Browser)
	}
	return prompt, err
}

func (c *cli) prompt(ctx context.Context, p account.SigningIn, how signInFlags) {
	if p.UserCode != "" {
		c.println("open this page on any device:\n\n  %s\n\nand enter this code, if it does not show it:  %s\n", p.URL, p.UserCode)
		c.println("only if you have just started this here. Waiting until %s; Ctrl-C gives up.", clock(p.ExpiresAt, time.Now()))
		return
	}
	c.println("sign in on this page, in a browser on this machine:\n\n  %s\n", p.URL)
	if !how.noBrowser && !remote(c.environ) {
		c.open(ctx, p.URL)
	}
	c.println("waiting until %s; Ctrl-C gives up", clock(p.ExpiresAt, time.Now()))
}

func (c *cli) tellSignedIn(info account.Info) {
	if info.NodeID != "" { // else another key goes before the new one
		c.println("signed in as %s; this host is node %s", plain(cmp.Or(info.Owner, "the owner of the key")), plain(info.NodeID))
	}
	c.tellKept(info)
}

// tellKept says where the key is, or that another one goes before it.
func (c *cli) tellKept(info account.Info) {
	if info.Problem != "" {
		c.println("%s", plain(info.Problem))
		return
	}
	c.println("the host key is kept in: %s", plain(info.KeySource))
}

// open sends the browser to a page whose address has been printed: where there is none, that is enough.
func (c *cli) open(ctx context.Context, url string) {
	if err := desktop.OpenURL(ctx, url); err != nil {
		c.println("(no browser was opened: %v)", err)
	}
}

// runningDesk signs in within the running agent.
type runningDesk struct{ *control.Client }

func (d runningDesk) info(ctx context.Context) (account.Info, error) {
	status, err := d.Status(ctx)
	return status.Account, err
}

func (d runningDesk) infos(ctx context.Context, yield func(account.Info) bool) error {
	for status, err := range d.Watch(ctx) {
		if err != nil {
			return err
		}
		if !yield(status.Account) {
			return nil
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.New("the agent has quit meanwhile; sign in again when it runs")
}

// ownDesk signs in within this process.
type ownDesk struct {
	*account.Account
	changed <-chan struct{}
}

func (d ownDesk) CancelSignIn(context.Context) error { d.Account.CancelSignIn(); return nil }

func (d ownDesk) info(ctx context.Context) (account.Info, error) {
	if _, err := d.Key(ctx); ctx.Err() != nil { // one that cannot be read is no reason not to sign in
		return account.Info{}, err
	}
	return d.Info(), nil
}

func (d ownDesk) infos(ctx context.Context, yield func(account.Info) bool) error {
	for yield(d.Info()) {
		select {
		case <-d.changed:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// ownAccount opens the account in this process. It is run to sign in, and by no other command: to exchange
// a key in time takes longer than they last.
func (c *cli) ownAccount(cfg *config.Config) (*account.Account, error) {
	settings := cfg.Log
	if settings.Level > slog.LevelDebug {
		settings.Level = slog.LevelError // what comes of a command is told in words
	}
	if err := config.MakeStateDir(cfg.StateDir); err != nil {
		return nil, err
	}
	return openAccount(cfg, describeAgent(), newLog(c.errOut, settings))
}

// keyHolder is who has the host key in hand: the running agent, or the account in this process.
type keyHolder interface {
	SignOut(ctx context.Context) (account.SignedOut, error)
	RotateKey(ctx context.Context) error
}

// atAccount does something with the host key, in the running agent, else in this process.
func (c *cli) atAccount(act func(keyHolder) error) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	err = act(control.NewClient(cfg.StateDir, buildVersion().Version))
	if !errors.Is(err, control.ErrNotRunning) {
		return err
	}
	own, err := c.ownAccount(cfg)
	if err != nil {
		return err
	}
	return act(own)
}

func (c *cli) signOutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sign-out",
		Short: "Give the host key back: it becomes void; rentals run on",
		Args:  cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			var out account.SignedOut
			err := c.atAccount(func(at keyHolder) (err error) {
				out, err = at.SignOut(ctx)
				return err
			})
			if err != nil {
				return err
			}
			c.tellSignedOut(out)
			return nil
		}),
	}
}

func (c *cli) tellSignedOut(out account.SignedOut) {
	if out.Revoked {
		c.println("signed out: the marketplace has made the host key void")
	} else {
		c.println("signed out on this machine; the marketplace has made no key void: %s", plain(out.Why))
		c.println("where this host's key may still be good, revoke it in your dashboard")
	}
	if out.Source != "" {
		c.println("a key is still in a place that is yours to clear: %s", plain(out.Source))
	}
}

func (c *cli) rotateKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate-key",
		Short: "Exchange the host key for a new one",
		Args:  cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			if err := c.atAccount(func(at keyHolder) error { return at.RotateKey(ctx) }); err != nil {
				return err
			}
			c.println("the host has a new key; the old one is void as soon as the new one has been used")
			return nil
		}),
	}
}

// maxKeyInput is far more than a key; who sends more has sent something else.
const maxKeyInput = 4096

// readSecret reads a key or token from standard input or a file; never from the command line, which others can see.
func (c *cli) readSecret(file string) (string, error) {
	from := c.in
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("opening the token's file: %w", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxKeyInput))
	if err != nil {
		return "", fmt.Errorf("reading it: %w", err)
	}
	return string(text), nil
}
