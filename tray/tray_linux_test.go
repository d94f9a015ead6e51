package tray

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/assets"
	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/sandbox/trayhost"
)

const bound = 20 * time.Second // for anything; the machine may be busy

// rig is a tray in a child process, on a bus of its own.
type rig struct {
	t    testing.TB
	ctx  context.Context
	bus  *trayhost.Bus
	icon *trayhost.Icon

	*trayhost.Panel
	in  *json.Encoder
	end func() // of the child's input

	mu     sync.Mutex
	calls  []report
	news   chan struct{} // capacity 1
	exited chan struct{}
	died   error
	stderr bytes.Buffer
}

func startBus(t testing.TB) *trayhost.Bus {
	t.Helper()
	bus, err := trayhost.StartBus()
	if errors.Is(err, trayhost.ErrNoDaemon) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	return bus
}

// startTray starts a tray and the panel that shows it.
func startTray(t testing.TB, setup childSetup) *rig {
	t.Helper()
	r := prepare(t)
	panel, err := trayhost.OpenPanel(r.bus.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(panel.Close)
	r.Panel = panel
	r.start(setup, "DBUS_SESSION_BUS_ADDRESS="+r.bus.Address)
	r.find()
	return r
}

func prepare(t testing.TB) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(cancel)
	return &rig{t: t, ctx: ctx, bus: startBus(t), news: make(chan struct{}, 1), exited: make(chan struct{})}
}

func (r *rig) start(setup childSetup, env ...string) {
	r.t.Helper()
	text, err := json.Marshal(setup)
	if err != nil {
		r.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), append(env, childEnv+"="+string(text), "GORACE=exitcode=0 atexit_sleep_ms=50")...) // see races
	child.Stderr = &r.stderr
	in, err := child.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.in, r.end = json.NewEncoder(in), func() { in.Close() }
	go r.listen(out, child)
	r.t.Cleanup(func() {
		r.end()
		select {
		case <-r.exited:
		case <-time.After(bound):
			child.Process.Kill()
			<-r.exited
			r.t.Error("the tray did not end")
		}
		if r.died != nil {
			r.t.Errorf("the tray's process: %v", r.died)
		}
		for _, race := range races(r.stderr.String()) {
			r.t.Errorf("the tray's process has a data race:%s", race)
		}
		if r.t.Failed() {
			r.t.Logf("the tray said:\n%s", &r.stderr)
		}
	})
}

// races are the data races that the tray's process has reported, without those that systray 1.12.2 has
// with itself and with godbus: of the menu's version, and of the properties while they are sent.
func races(said string) []string {
	var own []string
	for report := range strings.SplitSeq(said, "==================") {
		if _, report, ok := strings.Cut(report, "WARNING: DATA RACE"); ok && !foreign(report) {
			own = append(own, report)
		}
	}
	return own
}

// foreign reports whether no access of a race is made by code of this module: who called it is no matter.
func foreign(race string) bool {
	accesses, _, _ := strings.Cut(race, "\n\nGoroutine ")
	for stack := range strings.SplitSeq(accesses, "\n\n") {
		for line := range strings.Lines(stack) {
			function := strings.TrimSpace(line)
			if strings.HasPrefix(function, "github.com/distributedcompute/") {
				return false
			}
			if strings.HasPrefix(function, "fyne.io/systray") || strings.HasPrefix(function, "github.com/godbus/") {
				break
			}
		}
	}
	return true
}

func (r *rig) listen(out io.Reader, child *exec.Cmd) {
	lines := json.NewDecoder(out)
	for {
		var call report
		if lines.Decode(&call) != nil {
			break
		}
		r.mu.Lock()
		r.calls = append(r.calls, call)
		r.mu.Unlock()
		select {
		case r.news <- struct{}{}:
		default:
		}
	}
	r.died = child.Wait()
	close(r.exited)
}

func (r *rig) find() {
	r.t.Helper()
	icon, err := r.Icon(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	r.icon = icon
}

func (r *rig) direct(d direction) {
	r.t.Helper()
	if err := r.in.Encode(d); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) picture(s agent.Status) { r.t.Helper(); r.direct(direction{Status: &s}) }

// sees waits until the menu has all of these words.
func (r *rig) sees(words ...string) trayhost.Look {
	r.t.Helper()
	look, err := r.icon.AwaitMenu(r.ctx, words...)
	if err != nil {
		r.t.Fatal(err)
	}
	return look
}

func (r *rig) click(labels ...string) {
	r.t.Helper()
	if err := r.icon.Click(r.ctx, labels...); err != nil {
		r.t.Fatal(err)
	}
}

// heard waits for a call and takes it and those before it from the list.
func (r *rig) heard(call string) report {
	r.t.Helper()
	for {
		r.mu.Lock()
		i := slices.IndexFunc(r.calls, func(c report) bool { return c.Call == call })
		if i >= 0 {
			found := r.calls[i]
			r.calls = slices.Delete(r.calls, i, i+1)
			r.mu.Unlock()
			return found
		}
		r.mu.Unlock()
		select {
		case <-r.news:
		case <-r.ctx.Done():
			r.t.Fatalf("no call of %s; there were %v", call, r.calls)
		}
	}
}

func (r *rig) expect(call string, with ...string) {
	r.t.Helper()
	if diff := cmp.Diff(report{call, with}, r.heard(call)); diff != "" {
		r.t.Errorf("call (-want +got):\n%s", diff)
	}
}

// quiet waits until nothing happens on the bus.
func (r *rig) quiet() trayhost.Signals {
	r.t.Helper()
	signals, err := r.Quiet(r.ctx, 300*time.Millisecond) // systray tells a new menu again after 150 ms
	if err != nil {
		r.t.Fatal(err)
	}
	return signals
}

// current is online, as of now: a rental is new that began after its agent.
func current() agent.Status {
	return with(online(), func(s *agent.Status) { s.Agent.StartedAt = time.Now().Add(-time.Hour) })
}

func options() Options {
	return Options{Dashboard: "https://example.com/dashboard", LogFile: "/var/log/agent.log", Version: "1.4.0"}
}

func TestPanelComesLateAndAgain(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	panel, err := trayhost.OpenEmpty(r.bus.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(panel.Close)
	r.Panel = panel
	r.start(childSetup{Options: options()}, "DBUS_SESSION_BUS_ADDRESS="+r.bus.Address, "XDG_CURRENT_DESKTOP=ubuntu:GNOME")
	r.picture(current())
	note := r.heard("Notify")
	if note.With[0] != "panel" || !strings.Contains(note.With[2], "gnome-shell-extension-appindicator") {
		t.Errorf("told %q, want how to see the icon", note.With)
	}
	for range 2 {
		if err := r.ShowIcons(); err != nil {
			t.Fatal(err)
		}
		r.find()
		r.sees("Online, ready for rentals", "Open dashboard")
		r.click("Logs")
		r.expect("OpenFile", "/var/log/agent.log")
		if err := r.HideIcons(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIconShowsEveryState(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	seen := map[assets.State]bool{}
	for name, v := range situations() {
		if v.link != heard || v.signingIn || v.quitting != "" || v.attached() {
			continue
		}
		v.now = time.Now()
		r.picture(v.status)
		state, _ := standing(v)
		seen[state] = true
		want := decode(t, assets.Icon(state))
		_, err := r.icon.Await(r.ctx, func(l trayhost.Look) bool {
			return l.Tooltip == tooltip(v) && l.Image != nil && bytes.Equal(l.Image.Pix, want.Pix)
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if len(seen) != 7 {
		t.Errorf("the icon was seen in %d states, want all 7: %v", len(seen), seen)
	}
	if look := r.sees(); look.ID != name || look.Title != name {
		t.Errorf("the icon is %q with title %q, want %q: desktops remember it by that", look.ID, look.Title, name)
	}
}

// decode gives a picture as a panel is to have it: colours as they are, not premultiplied.
func decode(t *testing.T, data []byte) *image.NRGBA {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	b := picture.Bounds()
	straight := image.NewNRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	smooth := 0
	for y := range b.Dy() {
		for x := range b.Dx() {
			c := color.NRGBAModel.Convert(picture.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
			straight.SetNRGBA(x, y, c)
			if c.A > 0 && c.A < 255 {
				smooth++
			}
		}
	}
	if smooth == 0 {
		t.Error("the picture has no half-transparent pixel, so this shows less than it should")
	}
	return straight
}

func TestMenuIsTheOneMeant(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	v := situations()["rented"]
	v.options, v.now = options(), time.Now()
	r.picture(v.status)
	var want strings.Builder
	write(&want, menu(v), "")
	look, err := r.icon.Await(r.ctx, func(l trayhost.Look) bool { return l.Menu.String() == want.String() })
	if err != nil {
		t.Errorf("%v\nwant:\n%s", err, &want)
	}
	if entry := look.Menu.Find("pytorch:2.5_cuda on GPU 0", "Copy relay.example.com:10022"); entry == nil {
		t.Error("an entry with an underline is not found")
	}
}

// write draws a menu as trayhost draws what it sees.
func write(b *strings.Builder, entries []entry, indent string) {
	for _, e := range entries {
		b.WriteString(indent + look(e) + "\n")
		write(b, e.below, indent+"  ")
	}
}

func look(e entry) string {
	title := e.title
	switch {
	case e.line:
		return "----"
	case e.ticked:
		title = "[x] " + title
	case e.box:
		title = "[ ] " + title
	}
	if e.off {
		title = "(" + title + ")"
	}
	if len(e.below) > 0 {
		title += " >"
	}
	return title
}

func TestEveryEntryDoesItsDeed(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	s := current()
	s.Rentals = []rental.Status{rented("r-1", rental.Running)}
	s.Problems = []agent.Problem{{Code: "docker_unavailable", Message: "Docker is not running.", Fix: "Start it."}, {Code: "backend_unreachable", Message: "No route."}}
	r.picture(s)

	r.click("pytorch", "Copy relay.example.com:10022")
	r.expect("Copy", "relay.example.com:10022")
	r.click("pytorch", "End this rental now")
	r.expect("EndRental", "r-1")
	r.click("Problems", "Docker is not running.")
	r.expect("Copy", "Docker is not running.")
	r.click("Problems", "→ Start it.")
	r.expect("Copy", "Start it.")
	r.click("Problems", "→ Try again now")
	r.expect("Retry")

	begun := time.Now()
	r.click("Pause", "For 1 hour")
	until, err := time.Parse(time.RFC3339, r.heard("Pause").With[0])
	if err != nil || until.Before(begun.Add(time.Hour).Truncate(time.Second)) || until.After(time.Now().Add(time.Hour)) {
		t.Errorf("a pause of an hour ends at %s (%v), and it is %s", until, err, time.Now())
	}
	r.click("Pause", "Until tomorrow")
	r.expect("Pause", pauseEnd(tomorrow, time.Now()).Format(time.RFC3339))
	r.click("Pause", "Until I resume")
	r.expect("Pause", "")
	r.click("Drain")
	r.expect("Drain", "true") // no deadline
	r.picture(with(s, func(s *agent.Status) { s.Node = agent.Wish{State: protocol.Draining, Reason: "user"} }))
	r.click("Resume")
	r.expect("Resume")

	r.click("Open dashboard")
	r.expect("OpenURL", "https://example.com/dashboard")
	r.click("Logs")
	r.expect("OpenFile", "/var/log/agent.log")
	r.click("About")
	r.expect("Copy", "distributed-agent version 1.4.0, node node_7f3a")
	r.click("Start at login")
	r.expect("SetAutostart", "true")
	r.sees("[x] Start at login")
	r.click("Start at login")
	r.expect("SetAutostart", "false")
	r.sees("[ ] Start at login")
	r.click("Notifications")
	r.expect("SetNotifications", "false")
	r.sees("[ ] Notifications")

	r.click("Signed in as ada@example.com", "Sign out")
	r.expect("SignOut")
	r.expect("Notify", "sign-in", "Signed out", "The host key is gone from this machine, but the marketplace has not confirmed that it is void: the marketplace cannot be reached. A copy is left, which is yours to remove: file /etc/key.")

	for label, how := range map[string]agent.How{
		"Leave 1 rental running (the next start adopts it)": agent.LeaveRentals,
		"Finish rentals, then quit":                         agent.AfterRentals,
		"End rentals and quit":                              agent.EndingRentals,
	} {
		r.click("Quit", label)
		r.expect("Quit", string(how))
	}
	r.picture(with(s, func(s *agent.Status) { s.Leaving = true }))
	r.sees("Quitting")
	r.direct(direction{Gone: true}) // and the icon goes with it
	r.expect("Run", "nil")
	if err := r.Empty(r.ctx); err != nil {
		t.Error(err)
	}
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	out := with(current(), func(s *agent.Status) { s.Account = account.Info{CanSignIn: true} })
	r.picture(out)
	r.click("Sign in…")
	r.expect("SignIn", "")
	r.expect("OpenURL", "https://id.example.com/device")

	r.picture(with(out, func(s *agent.Status) {
		s.Account.SigningIn = &account.SigningIn{URL: "https://id.example.com/device", UserCode: "BCDF-GHJK"}
	}))
	r.sees("(Waiting for you to sign in)")
	r.click("Code BCDF-GHJK")
	r.expect("Copy", "BCDF-GHJK")
	r.click("Open the page again")
	r.expect("OpenURL", "https://id.example.com/device")
	r.click("Cancel sign-in")
	r.expect("CancelSignIn")

	r.picture(current())
	r.expect("Notify", "sign-in", "Signed in as ada@example.com", "This machine is on the marketplace.")
	r.sees("Signed in as ada@example.com")

	r.direct(direction{Status: &out, Fail: map[string]bool{"OpenURL": true}})
	r.click("Sign in…")
	r.expect("Notify", "click sign in", "The sign-in needs your help", "Open https://id.example.com/device yourself and type the code BCDF-GHJK: it is a test of failure.")
	r.sees("\nSign in…") // to be clicked again
}

// TestFailureIsTold to a person who wants no news, too: it answers a click.
func TestFailureIsTold(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options(), Quiet: true})
	s := current()
	r.direct(direction{Status: &s, Fail: map[string]bool{"Drain": true}})
	r.sees("Online")
	r.picture(beginning(s))
	r.sees("Rented out")
	r.click("Drain")
	r.expect("Notify", "click drain", "The host still takes rentals", "It is a test of failure.")
}

// beginning adds a rental that begins now.
func beginning(s agent.Status) agent.Status {
	running := rented("r-1", rental.Running)
	running.StartedAt = time.Now()
	s.Rentals = []rental.Status{running}
	return s
}

func TestRentalsAreTold(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	s := current()
	r.picture(s)
	r.sees("Online")
	r.picture(beginning(s))
	r.expect("Notify", "rental r-1", "A rental has started", "pytorch:2.5_cuda on GPU 0, 0.45 EUR per hour")
}

// TestSwitchedOffElsewhere: on the command line.
func TestSwitchedOffElsewhere(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	s := current()
	r.picture(s)
	r.sees("[x] Notifications")
	r.direct(direction{Quiet: true})
	r.picture(beginning(s))
	r.sees("[ ] Notifications")
	r.none("Notify")
}

// TestLoginSwitchedOnElsewhere is seen with the agent's next picture, and told to the panels once.
func TestLoginSwitchedOnElsewhere(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	s := current()
	r.picture(s)
	r.sees("Online", "[ ] Start at login")
	before := r.quiet()
	r.direct(direction{Login: true})
	time.Sleep(lookAgain)
	for range 3 {
		r.picture(s)
		r.sees("[x] Start at login")
	}
	want := trayhost.Signals{"LayoutUpdated": 1, "ItemsPropertiesUpdated": 1}
	if diff := cmp.Diff(want, r.quiet().Since(before)); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
}

// TestQuitCalledOff: here or on the command line. The icon then stays when the agent goes for another reason.
func TestQuitCalledOff(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	s := current()
	s.Rentals = []rental.Status{rented("r-1", rental.Running)}
	r.picture(s)
	r.click("Quit", "Finish rentals, then quit")
	r.expect("Quit", string(agent.AfterRentals))
	r.picture(with(s, func(s *agent.Status) { s.Leaving = true }))
	r.sees("Quitting when the last rental has ended")
	r.click("Stay: do not quit")
	r.expect("Resume")
	r.picture(s)
	r.sees("Rented out", "Pause")
	r.direct(direction{Gone: true})
	r.sees("The agent is not running")
}

// TestNoticeIsPlain: what cannot be seen would let a title read otherwise than it is written.
func TestNoticeIsPlain(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	s := current()
	r.picture(s)
	r.sees("Online")
	s.Notices = []agent.Notice{{At: noon, Notice: protocol.Notice{Title: "Main\u202etenance", Body: "To\u200bnight\x1b.", URL: "https://example.com/news"}}}
	r.picture(s)
	r.expect("Notify", "notice "+noon.Format(time.RFC3339Nano), "Main tenance", "To night .\nhttps://example.com/news")
}

// TestClicksOnWhatIsOff: some panels send clicks on entries that cannot be clicked.
func TestClicksOnWhatIsOff(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	s := current()
	s.Rentals = []rental.Status{rented("r-1", rental.Stopping)}
	r.picture(s)
	seen := r.sees("(End this rental now")
	end := seen.Menu.Find("pytorch", "End this rental now")
	if end == nil || end.Enabled {
		t.Fatalf("the entry is %+v, want it off", end)
	}
	if err := r.icon.ClickEntry(r.ctx, seen, end); err != nil {
		t.Fatal(err)
	}
	r.click("Logs")
	r.expect("OpenFile", "/var/log/agent.log")
	r.none("EndRental")
}

// none checks that something has not been called.
func (r *rig) none(call string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(r.calls, func(c report) bool { return c.Call == call }) {
		r.t.Errorf("%s was called: %v", call, r.calls)
	}
}

// TestLateClickHitsNothing: a click on a rental that has just made way for another one must not end that.
func TestLateClickHitsNothing(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	s := current()
	s.Rentals = []rental.Status{rented("r-1", rental.Running)}
	r.picture(s)
	seen := r.sees("End this rental now")
	s.Rentals = []rental.Status{rented("r-2", rental.Running)}
	r.picture(s)
	if _, err := r.icon.Await(r.ctx, func(l trayhost.Look) bool {
		end := l.Menu.Find("pytorch", "End this rental now")
		return end != nil && end.ID != seen.Menu.Find("pytorch", "End this rental now").ID
	}); err != nil {
		t.Fatal(err)
	}
	if err := r.icon.ClickEntry(r.ctx, seen, seen.Menu.Find("pytorch", "End this rental now")); err != nil {
		t.Fatal(err)
	}
	r.click("Logs")
	r.expect("OpenFile", "/var/log/agent.log")
	r.none("EndRental")
}

// TestOnlyWhatChangedIsTold: every signal about the menu closes it on GNOME.
func TestOnlyWhatChangedIsTold(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	s := current()
	s.Rentals = []rental.Status{rented("r-1", rental.Running)}
	r.picture(s)
	r.sees("Today: 4.18 EUR", "End this rental now")

	steps := []struct {
		name   string
		change func(*agent.Status)
		want   trayhost.Signals
	}{
		{"the same", func(*agent.Status) {}, trayhost.Signals{}},
		{"readings that no menu shows", func(s *agent.Status) { s.At = time.Now(); s.Rentals[0].Sequence++ }, trayhost.Signals{}},
		{"one title", func(s *agent.Status) { s.Earnings = new(*s.Earnings); s.Earnings.Month = "92.55" }, trayhost.Signals{"LayoutUpdated": 1, "ItemsPropertiesUpdated": 1}},
		{"a title and the tooltip", func(s *agent.Status) { s.Earnings = new(*s.Earnings); s.Earnings.Today = "4.63" }, trayhost.Signals{"LayoutUpdated": 1, "ItemsPropertiesUpdated": 1, "NewToolTip": 1}},
		{"the icon, with title and tooltip", func(s *agent.Status) {
			s.Problems = []agent.Problem{}
			s.Backend = protocol.LinkHealth{}
		}, trayhost.Signals{"LayoutUpdated": 1, "ItemsPropertiesUpdated": 1, "NewToolTip": 1, "NewIcon": 1}},
	}
	before := r.quiet()
	for _, step := range steps {
		s.Rentals = slices.Clone(s.Rentals)
		step.change(&s)
		r.picture(s)
		after := r.quiet()
		if diff := cmp.Diff(step.want, after.Since(before)); diff != "" {
			t.Errorf("%s: signals (-want +got):\n%s", step.name, diff)
		}
		before = after
	}
}

func TestNoDesktop(t *testing.T) {
	t.Parallel()
	// What godbus would run where it finds no bus; it must not.
	bin := t.TempDir()
	if err := os.WriteFile(bin+"/dbus-launch", []byte("#!/bin/sh\ntouch "+bin+"/launched\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{"dead": "unix:path=" + bin + "/none", "unset": "", "autolaunch": "autolaunch:"} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); err == nil && name != "dead" {
				t.Skip("this user has a session bus")
			}
			r := prepare(t)
			r.start(childSetup{Options: options()}, "DBUS_SESSION_BUS_ADDRESS="+address, "PATH="+bin+":"+os.Getenv("PATH"))
			if run := r.heard("Run"); len(run.With) != 2 || run.With[1] != "true" || !strings.Contains(run.With[0], "session bus") {
				t.Errorf("Run returned %q, want ErrNoScreen", run.With)
			}
			if _, err := os.Stat(bin + "/launched"); err == nil {
				t.Error("dbus-launch was run")
			}
		})
	}
}

// silent gives the address of a bus that takes connections, and neither answers nor reads once word has come: "" at once.
func silent(t *testing.T, bus, word string) (address string) {
	t.Helper()
	socket := t.TempDir() + "/bus"
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	path, _, _ := strings.Cut(strings.TrimPrefix(bus, "unix:path="), ",")
	var conns []net.Conn
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns = append(conns, conn)
			if word == "" {
				continue
			}
			real, err := net.Dial("unix", path)
			if err != nil {
				t.Error(err)
				return
			}
			conns = append(conns, real)
			go io.Copy(conn, real)
			go func() {
				defer real.Close()
				for said := make([]byte, 1<<16); ; {
					n, err := conn.Read(said)
					if err != nil || bytes.Contains(said[:n], []byte(word)) {
						return
					}
					real.Write(said[:n])
				}
			}()
		}
	})
	t.Cleanup(func() {
		listener.Close()
		accepting.Wait()
		for _, conn := range conns {
			conn.Close()
		}
	})
	return "unix:path=" + socket
}

// TestSilentBus: a bus that takes connections and does not answer is no desktop, and does not keep the agent from its end.
func TestSilentBus(t *testing.T) {
	t.Parallel()
	for name, word := range map[string]string{"at once": "", "at the icon": "RequestName"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := prepare(t)
			r.start(childSetup{Options: options()}, "DBUS_SESSION_BUS_ADDRESS="+silent(t, r.bus.Address, word))
			if run := r.heard("Run"); len(run.With) != 2 || run.With[1] != "true" || !strings.Contains(run.With[0], "does not answer") {
				t.Errorf("Run returned %q, want ErrNoScreen", run.With)
			}
		})
		t.Run("end "+name, func(t *testing.T) {
			t.Parallel()
			r := prepare(t)
			r.start(childSetup{Options: options()}, "DBUS_SESSION_BUS_ADDRESS="+silent(t, r.bus.Address, word))
			time.Sleep(time.Second)
			r.leave()
		})
	}
	t.Run("later", func(t *testing.T) {
		t.Parallel()
		r := prepare(t)
		r.start(childSetup{Options: options()}, "DBUS_SESSION_BUS_ADDRESS="+silent(t, r.bus.Address, "RegisterStatusNotifierItem"))
		r.heard("Watch")
		for range 40 { // more icons than fit into a socket that nobody reads
			r.picture(current())
			time.Sleep(20 * time.Millisecond)
			r.picture(with(current(), func(s *agent.Status) { s.Node = agent.Wish{State: protocol.Paused, Reason: "user"} }))
			time.Sleep(20 * time.Millisecond)
		}
		r.leave()
	})
}

// leave ends the context of Run, which is to return soon.
func (r *rig) leave() {
	r.t.Helper()
	began := time.Now()
	r.direct(direction{Leave: true})
	r.expect("Run", "nil")
	if took := time.Since(began); took > endBound+time.Second {
		r.t.Errorf("Run returned after %s", took)
	}
}

func TestDesktopEnds(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	r.picture(current())
	r.sees("Online")
	r.bus.Close()
	if run := r.heard("Run"); len(run.With) != 2 || run.With[1] != "true" {
		t.Errorf("Run returned %q, want ErrNoScreen", run.With)
	}
}

func TestContextEnds(t *testing.T) {
	t.Parallel()
	r := startTray(t, childSetup{Options: options()})
	r.picture(current())
	r.sees("Online")
	r.direct(direction{Leave: true})
	r.expect("Run", "nil")
	if err := r.Empty(r.ctx); err != nil {
		t.Error(err)
	}
}

func TestAgentGoesAndComesBack(t *testing.T) {
	t.Parallel()
	o := options()
	o.PID = 4711
	r := startTray(t, childSetup{Options: o})
	r.sees("Looking for the agent…")
	r.direct(direction{Gone: true})
	r.sees("The agent is not running")
	r.picture(current())
	r.sees("Online, ready for rentals", "Close this icon; the agent goes on", "Quit the agent")
	r.direct(direction{Gone: true})
	r.sees("The agent is not running", "Start the agent")
	r.mu.Lock()
	r.calls = nil
	r.mu.Unlock()
	from := time.Now()
	r.expect("Watch")
	r.expect("Watch")
	if took := time.Since(from); took < time.Second {
		t.Errorf("the agent was looked for twice within %s", took)
	}
	r.click("Start the agent")
	r.expect("StartAgent")
	r.picture(current())
	r.sees("Online, ready for rentals")
	r.click("Close this icon; the agent goes on")
	r.expect("Run", "nil")
	r.none("Quit")
}

// BenchmarkChange measures from the agent's news to the panel's view of it.
func BenchmarkChange(b *testing.B) {
	r := startTray(b, childSetup{Options: options()})
	s := current()
	s.Rentals = []rental.Status{rented("r-1", rental.Running)}
	r.picture(s)
	r.sees("Rented out")
	for i := 0; b.Loop(); i++ {
		s.Earnings = new(*s.Earnings)
		s.Earnings.Month = time.Duration(i).String()
		r.picture(s)
		r.sees("This month: " + s.Earnings.Month + " EUR")
	}
	if each := b.Elapsed() / time.Duration(b.N); each > 200*time.Millisecond {
		b.Errorf("a change took %s to be seen, want less than 200 ms", each)
	}
}
