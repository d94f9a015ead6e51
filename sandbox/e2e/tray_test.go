//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/assets"
	"github.com/distributedcompute/host-agent/sandbox/trayhost"
)

// signIn clicks through the sign-in as a person does; the page is visited without a browser.
func (d *desk) signIn(entry string) {
	d.t.Helper()
	d.forget()
	d.click(entry)
	address := d.browsed(d.Identity.Issuer() + "/oauth/authorize?")
	d.sees("Waiting for you to sign in", "Open the page again", "Cancel sign-in")
	page, err := d.Identity.Visit(d.within(), address, d.Owner, true)
	d.must(err)
	if !strings.Contains(page, d.Owner.Email) {
		d.t.Errorf("the page at the end does not say who signed in:\n%s", page)
	}
	d.sees("Signed in as " + d.Owner.Email)
	d.hears()
}

// hears waits for the node of the host.
func (d *desk) hears() {
	d.t.Helper()
	node, err := d.Backend.WaitNode(d.within())
	d.must(err)
	d.node = node.ID
}

// TestTray does what a person does with the icon, from the first sign-in to the last quit.
func TestTray(t *testing.T) {
	d := newDesk(t)
	p := d.show()

	d.looks(assets.SignedOut, "Not signed in")
	d.signIn("Sign in…")
	d.looks(assets.Online, "Online, ready for rentals")
	d.notified("Signed in")

	// A rental shows with all that its host wants to know.
	running := d.rent(d.order("r-tray"))
	address := running.Ports[0].PublicAddress
	d.looks(assets.Rented, "Rented out: 1 rental\nToday: ")
	d.sees("workload:latest", "Since ", "per hour", "Today: ", "This month: ", "Unpaid: ", "Next payout: ")
	d.notified("rental")
	d.click("workload:latest", "Copy "+address)
	d.eventually("the address is copied", func() bool { return d.clipboard() == address })

	// Pause, resume and drain reach the agent and the backend.
	for _, tt := range []struct {
		labels  []string
		status  string
		icon    assets.State
		tooltip string
	}{
		{[]string{"Pause", "For 1 hour"}, "paused", assets.Paused, "Paused until "},
		{[]string{"Resume"}, "online", assets.Rented, "Rented out"},
		{[]string{"Pause", "Until tomorrow"}, "paused", assets.Paused, "Paused until "},
		{[]string{"Pause", "Until I resume"}, "paused", assets.Paused, "Paused until you resume"},
		{[]string{"Resume"}, "online", assets.Rented, "Rented out"},
		{[]string{"Drain"}, "draining", assets.Draining, "Draining: 1 rental to go"},
		{[]string{"Resume"}, "online", assets.Rented, "Rented out"},
	} {
		d.click(tt.labels...)
		d.looks(tt.icon, tt.tooltip)
		d.eventually("the backend hears of "+tt.status, func() bool {
			node, _ := d.Backend.Node(d.node)
			return node.Status != nil && string(node.Status.Status) == tt.status
		})
	}

	// The desktop's own entries.
	d.click("Open dashboard")
	d.browsed(d.Backend.Dashboard())
	entry := filepath.Join(d.home, ".config", "autostart", "io.distributedcompute.Agent.desktop")
	d.click("Start at login")
	d.eventually("the autostart file is there", func() bool { return exists(entry) })
	d.sees("[x] Start at login")
	if out, code := d.cli("autostart", "status"); code != 0 || !strings.HasPrefix(out, "on: ") {
		t.Errorf("autostart status: %d %s", code, out)
	}
	d.click("Start at login")
	d.eventually("the autostart file is gone", func() bool { return !exists(entry) })
	d.click("Notifications")
	d.sees("[ ] Notifications")
	if out, _ := d.cli("notifications", "status"); out != "off\n" {
		t.Errorf("notifications status: %s", out)
	}
	d.click("Notifications")
	d.sees("[x] Notifications")
	d.forget()
	d.click("Logs")
	if log := d.browsed("/"); !strings.Contains(read(t, log), "agent started") {
		t.Errorf("%s is not the log", log)
	}
	d.click("About")
	d.eventually("version and node are copied", func() bool { return strings.Contains(d.clipboard(), d.node) })

	// The backend goes and comes.
	d.Backend.Down()
	d.looks(assets.Offline, "Offline")
	d.sees("Problems (", "Try again now")
	d.must(d.Backend.Up(d.ctx))
	d.click("Problems", "→ Try again now")
	d.looks(assets.Rented, "Rented out")

	// The panel restarts.
	d.must(d.panel.HideIcons())
	d.must(d.panel.ShowIcons())
	icon, err := d.panel.Icon(d.within())
	d.must(err)
	d.icon = icon
	d.looks(assets.Rented, "Rented out")

	// The host ends the rental.
	d.click("workload:latest", "End this rental now")
	if end := d.reach("r-tray", "stopped"); end.Error == nil || end.Error.Code != "stopped_by_host" {
		t.Errorf("ended as %+v", end)
	}
	d.looks(assets.Online, "Online, ready for rentals")

	// A notice of the marketplace is shown.
	d.notice("Maintenance", "on Sunday")
	d.notified("Maintenance")

	// Signing out makes the key void; signing in again gives the same node.
	before := d.node
	d.click("Signed in as "+d.Owner.Email, "Sign out")
	d.looks(assets.SignedOut, "Not signed in")
	d.sees("Sign in…")
	d.signIn("Sign in…")
	if d.node != before {
		t.Errorf("the host is node %s after another sign-in, was %s", d.node, before)
	}

	d.click("Quit")
	d.ended(p, 0)
}

// TestQuitWithARental quits in each of the three ways.
func TestQuitWithARental(t *testing.T) {
	d := newDesk(t)
	p := d.show()
	d.signIn("Sign in…")

	d.rent(d.order("r-left"))
	d.click("Quit", "Leave 1 rental running")
	d.ended(p, 0)
	if ids, err := shared.docker.containers(); err != nil || len(ids) != 1 {
		t.Fatalf("after quitting: containers %v, %v; want the rental's", ids, err)
	}

	p = d.show()
	d.sees("workload:latest")
	d.click("Quit", "Finish rentals, then quit")
	d.looks(assets.Draining, "Quitting when the last rental has ended: 1 rental to go")
	d.stop("r-left")
	d.ended(p, 0)

	p = d.show()
	d.hears()
	d.rent(d.order("r-ended"))
	d.click("Quit", "End rentals and quit")
	d.reach("r-ended", "stopped")
	d.ended(p, 0)
	if ids, err := shared.docker.containers(); err != nil || len(ids) != 0 {
		t.Errorf("after ending rentals and quitting: containers %v, %v", ids, err)
	}
}

// TestTrayAttaches shows the icon of an agent that runs already.
func TestTrayAttaches(t *testing.T) {
	d := newDesk(t)
	token := d.Backend.IssueEnrolmentToken(1, patience)
	if out, code := d.cliWith(token.Reveal(), "setup", "--enroll-token-stdin"); code != 0 {
		t.Fatalf("setup: %d %s", code, out)
	}
	headless := d.process("start", "--headless", "--config", d.Config())
	d.hears()

	p := d.show()
	d.looks(assets.Online, "Online, ready for rentals")
	d.sees("Logs: copy the command that shows them")
	if log := filepath.Join(filepath.Dir(d.Config()), "state", "agent.log"); exists(log) {
		t.Errorf("the icon logs to %s, where the agent's log is looked for", log)
	}
	if out, code := d.cli("tray"); code != 3 || !strings.Contains(out, "the icon is in the tray already") {
		t.Errorf("a second icon: %d %s", code, out)
	}
	d.click("Pause", "Until I resume")
	d.eventually("the agent is paused", func() bool { return d.status().Node.State == "paused" })
	if out, code := d.cli("start", "--headless"); code != 3 {
		t.Errorf("a second agent: %d %s", code, out)
	}
	d.click("Close this icon; the agent goes on")
	d.ended(p, 0)
	if d.status().Node.State != "paused" {
		t.Error("the agent has gone with the icon")
	}

	// The agent goes; the icon stays and starts it.
	p = d.show()
	d.looks(assets.Paused, "Paused")
	if out, code := d.cli("stop"); code != 0 {
		t.Fatalf("stop: %d %s", code, out)
	}
	d.ended(headless, 0)
	d.looks(assets.Offline, "The agent is not running")
	d.click("Start the agent")
	d.looks(assets.Paused, "Paused")
	d.click("Quit")
	d.ended(p, 0)
	if _, code := d.cli("status"); code != 4 {
		t.Errorf("status exits %d after quitting, want 4", code)
	}
}

// notified waits for a notification with these words.
func (d *desk) notified(words string) {
	d.t.Helper()
	_, err := d.panel.AwaitNotification(d.within(), func(n trayhost.Notification) bool {
		return strings.Contains(strings.ToLower(n.Title+" "+n.Body), strings.ToLower(words))
	})
	if err != nil {
		d.t.Fatalf("a notification with %q: %v; shown were %+v", words, err, d.panel.Notifications())
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
