package tray

import (
	"context"
	"fmt"
	"time"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
)

// perform does what a click asks for, away from the screen's loop. It gives what the loop is to do
// when it is done, which may be nil.
func (t *tray) perform(ctx context.Context, d deed) (func(), error) {
	switch d.verb {
	case copyText:
		return nil, t.desk.Copy(ctx, d.what)
	case openURL:
		return nil, t.desk.OpenURL(ctx, d.what)
	case openFile:
		return nil, t.desk.OpenFile(ctx, d.what)
	case pause:
		return nil, t.host.Pause(ctx, pauseEnd(d.what, time.Now()))
	case resume:
		return nil, t.host.Resume(ctx)
	case drain:
		return nil, t.host.Drain(ctx, time.Time{})
	case endRental:
		return nil, t.host.EndRental(ctx, d.what)
	case retry:
		return nil, t.host.Retry(ctx)
	case signIn:
		return nil, t.signIn(ctx)
	case cancelSignIn:
		return nil, t.host.CancelSignIn(ctx)
	case signOut:
		return nil, t.signOut(ctx)
	case autostartTo:
		err := t.desk.SetAutostart(ctx, d.what == on)
		return t.lookAtAutostart(ctx), err
	case notifications:
		err := t.desk.SetNotifications(d.what == on)
		notify := t.desk.Notifications()
		return func() { t.view.notify = notify }, err
	case startAgent:
		return t.hurry, t.desk.StartAgent(ctx)
	case quit:
		how := agent.How(d.what)
		if err := t.host.Quit(ctx, how); err != nil {
			return nil, err
		}
		return func() {
			t.view.quitting = how
			t.closed = t.view.link == gone
		}, nil
	}
	return nil, nil
}

// pauseEnd is when a pause ends that begins now.
func pauseEnd(what string, now time.Time) time.Time {
	switch what {
	case anHour:
		return now.Add(time.Hour)
	case tomorrow:
		y, m, d := now.Local().Date()
		return time.Date(y, m, d+1, morning, 0, 0, 0, time.Local)
	}
	return time.Time{}
}

func (t *tray) signIn(ctx context.Context) error {
	under, err := t.host.SignIn(ctx, account.Method(""))
	if err != nil {
		return err
	}
	if err := t.desk.OpenURL(ctx, under.URL); err != nil {
		code := ""
		if under.UserCode != "" {
			code = " and type the code " + under.UserCode
		}
		return fmt.Errorf("open %s yourself%s: %w", under.URL, code, err)
	}
	return nil
}

func (t *tray) signOut(ctx context.Context) error {
	out, err := t.host.SignOut(ctx)
	if err != nil {
		return err
	}
	note := Note{Key: "sign-in", Title: "Signed out", Body: "The host key is void and gone from this machine."}
	if !out.Revoked {
		note.Body = sentence("the host key is gone from this machine, but the marketplace has not confirmed that it is void: " + out.Why)
	}
	if out.Source != "" {
		note.Body += " A copy is left, which is yours to remove: " + out.Source + "."
	}
	return t.desk.Notify(ctx, note)
}

// lookAtAutostart asks the desktop and gives what the loop is to note.
func (t *tray) lookAtAutostart(ctx context.Context) func() {
	on, blocked, err := t.desk.Autostart(ctx)
	if err != nil {
		blocked = err.Error()
	}
	return func() { t.view.autostart = autostart{on, blocked} }
}

// failed says which wish came to nothing.
func (v verb) failed() string {
	switch v {
	case copyText:
		return "Nothing was copied"
	case openURL, openFile:
		return "This could not be opened"
	case pause, drain:
		return "The host still takes rentals"
	case resume:
		return "The host could not be resumed"
	case endRental:
		return "The rental was not ended"
	case signIn:
		return "The sign-in needs your help"
	case signOut:
		return "The sign-out did not succeed"
	case startAgent:
		return "The agent did not start"
	case quit:
		return "The agent did not quit"
	}
	return "This did not work: " + string(v)
}
