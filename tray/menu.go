package tray

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// entry is one line of the menu.
type entry struct {
	// key says what the entry is, whatever its title says: an entry keeps its place on the screen
	// only while it is about the same thing, or a late click would do something else.
	key    string
	title  string
	off    bool // it cannot be clicked
	box    bool // it can be ticked
	ticked bool
	line   bool // it only separates
	deed   deed
	below  []entry // a submenu where there are some
}

// deed is what a click does. The zero deed does nothing.
type deed struct {
	verb verb
	what string // of what: text to copy, URL, path, rental, time, how
}

type verb string

const (
	copyText      verb = "copy"
	openURL       verb = "open"
	openFile      verb = "open file"
	pause         verb = "pause"
	resume        verb = "resume"
	drain         verb = "drain"
	endRental     verb = "end rental"
	retry         verb = "retry"
	signIn        verb = "sign in"
	cancelSignIn  verb = "cancel sign-in"
	signOut       verb = "sign out"
	autostartTo   verb = "start at login"
	notifications verb = "notifications"
	startAgent    verb = "start agent"
	quit          verb = "quit"
	closeIcon     verb = "close icon"
)

// What a pause and a switch can be told.
const (
	anHour   = "hour"
	tomorrow = "tomorrow"
	ever     = ""
	on       = "on"
	off      = "off"
)

// morning is the hour at which "until tomorrow" ends: whoever pauses for a day's work wants the night's
// and the morning's rentals least of all at midnight.
const morning = 8

func text(key, title string) entry { return entry{key: key, title: title, off: true} }

func choice(key, title string, v verb, what string) entry {
	return entry{key: key, title: title, deed: deed{v, what}}
}

// menu is the whole menu.
func menu(v view) []entry {
	_, words := standing(v)
	sections := [][]entry{
		slices.Concat([]entry{text("standing", words)}, shield(v), problems(v)),
		earnings(v),
		rentals(v),
		intake(v),
		marketplace(v),
		settings(v),
		ways(v),
	}
	var all []entry
	for i, section := range sections {
		if len(section) > 0 && len(all) > 0 {
			all = append(all, entry{key: "line " + strconv.Itoa(i), line: true})
		}
		all = append(all, section...)
	}
	fit(all)
	return all
}

// fit makes titles of whatever words the entries have.
func fit(entries []entry) {
	for i, e := range entries {
		entries[i].title = clip(e.title, titleLength)
		fit(e.below)
	}
}

// shield is always one line, so that the menu keeps its shape.
func shield(v view) []entry {
	if v.link != heard {
		return nil
	}
	return []entry{text("shield", v.status.Engine.Shield.String())}
}

func problems(v view) []entry {
	list := v.status.Problems
	if !v.status.Account.SignedIn && v.status.Account.CanSignIn { // the menu says so, and how to, elsewhere
		list = slices.DeleteFunc(slices.Clone(list), func(p agent.Problem) bool { return p.Code == "sign_in_needed" })
	}
	if v.link != heard || len(list) == 0 {
		return nil
	}
	all := entry{key: "problems", title: "Problems (" + strconv.Itoa(len(list)) + ")"}
	for i, p := range list {
		key := strconv.Itoa(i) + " " + p.Code
		all.below = append(all.below, choice(key, p.Message, copyText, p.Message))
		switch {
		case p.Code == "sign_in_needed" && v.status.Account.CanSignIn:
			all.below = append(all.below, choice(key+" fix", "→ Sign in…", signIn, ""))
		case p.Code == "backend_unreachable" || p.Code == "key_used_twice":
			all.below = append(all.below, choice(key+" fix", "→ Try again now", retry, ""))
		case p.Fix != "":
			all.below = append(all.below, choice(key+" fix", "→ "+p.Fix, copyText, p.Fix))
		}
	}
	return []entry{all}
}

// earnings says what is known, and nothing of the rest.
func earnings(v view) []entry {
	e := v.status.Earnings
	if v.link != heard || e == nil {
		return nil
	}
	var lines []entry
	if worth(e.RatePerHour) && len(live(v.status)) > 0 {
		lines = append(lines, text("rate", "Earning "+money(e.RatePerHour, e.Currency)+" per hour"))
	}
	for _, sum := range []struct{ key, words, amount string }{
		{"today", "Today: ", e.Today}, {"month", "This month: ", e.Month}, {"unpaid", "Unpaid: ", e.Unpaid},
	} {
		if sum.amount != "" && (sum.key != "unpaid" || worth(e.Unpaid)) {
			lines = append(lines, text(sum.key, sum.words+money(sum.amount, e.Currency)))
		}
	}
	if e.NextPayoutAt != nil && worth(e.Unpaid) {
		lines = append(lines, text("payout", "Next payout: "+e.NextPayoutAt.Local().Format("2 January")))
	}
	return lines
}

// intake is about whether new rentals come, now or at all.
func intake(v view) []entry {
	s := v.status
	switch {
	case v.link == heard && leavesAfter(v):
		return []entry{choice("stay", "Stay: do not quit", resume, "")}
	case v.link != heard || s.Leaving || signInNeeded(s):
		return nil
	}
	entries := []entry{{key: "pause", title: "Pause", below: []entry{
		choice("hour", "For 1 hour", pause, anHour),
		choice("tomorrow", "Until tomorrow, 8:00", pause, tomorrow),
		choice("ever", "Until I resume", pause, ever),
	}}}
	online := s.Node.State == "" || s.Node.State == protocol.Online
	switch {
	case s.Proposal != nil && (online || s.Node.Reason == byBackend):
		entries = append(entries, choice("resume", "Offer everything I allow again", resume, ""))
	case online:
	case s.Node.Reason == byBackend:
		entries = append(entries, text("resume", "Resume: the marketplace does this itself"))
	default:
		entries = append(entries, choice("resume", "Resume", resume, ""))
	}
	if s.Node.State != protocol.Draining {
		entries = append(entries, choice("drain", "Drain: finish current rentals, take no new ones", drain, ""))
	}
	return entries
}

// marketplace is about the account and the pages of the marketplace.
func marketplace(v view) []entry {
	var entries []entry
	if v.options.Dashboard != "" {
		entries = append(entries, choice("dashboard", "Open dashboard", openURL, v.options.Dashboard))
	}
	if v.link != heard {
		return entries
	}
	a := v.status.Account
	switch {
	case a.SigningIn != nil:
		if code := a.SigningIn.UserCode; code != "" {
			entries = append(entries, choice("code "+code, "Code "+code, copyText, code))
		}
		return append(entries,
			choice("page "+a.SigningIn.URL, "Open the page again", openURL, a.SigningIn.URL),
			choice("cancel", "Cancel sign-in", cancelSignIn, ""))
	case v.signingIn:
		return append(entries, text("asking", "Asking for the sign-in page…"))
	}
	if a.Problem != "" {
		entries = append(entries, choice("failed", "Last sign-in: "+a.Problem, copyText, a.Problem))
	}
	if a.CanSignIn && signInNeeded(v.status) {
		title := "Sign in…"
		if a.SignedIn {
			title = "Sign in again…"
		}
		entries = append(entries, choice("sign in", title, signIn, ""))
	}
	switch {
	case a.SignedIn:
		entries = append(entries, signedIn(v))
	case !a.CanSignIn:
		entries = append(entries, choice("setup", "No host key yet: copy the command that stores one", copyText, "distributed-agent setup --api-key-stdin < key.txt"))
	}
	return entries
}

func signedIn(v view) entry {
	a := v.status.Account
	title, consequence := "Signed in", "Sign out: no rentals until you sign in again"
	if a.Owner != "" {
		title += " as " + a.Owner
	}
	if n := len(live(v.status)); n > 0 {
		consequence = "Sign out: the marketplace loses sight of " + plural(n, "rental") + ", and no new ones come"
	}
	e := entry{key: "account", title: title}
	if a.KeySource != "" {
		place, _, _ := strings.Cut(a.KeySource, ", ") // what that protects against, the command line says
		e.below = append(e.below, text("key", "Host key: "+place))
	}
	e.below = append(e.below, choice("sign out", consequence, signOut, ""))
	return e
}

func settings(v view) []entry {
	login := entry{key: "autostart", title: "Start at login", box: true, ticked: v.autostart.on, deed: deed{autostartTo, toggled(v.autostart.on)}}
	if v.autostart.blocked != "" {
		login.title, login.off = "Start at login: "+v.autostart.blocked, true
	}
	logs := choice("logs", "Logs", openFile, v.options.LogFile)
	if v.options.LogFile == "" {
		logs = choice("logs", "Logs: copy the command that shows them", copyText, "journalctl -t distributed-agent")
	}
	version, node := cmp.Or(v.status.Agent.Version, v.options.Version), cmp.Or(v.status.NodeID, v.status.Account.NodeID)
	about := "version " + version
	if node != "" {
		about += ", node " + node
	}
	return []entry{
		login,
		{key: "notifications", title: "Notifications", box: true, ticked: v.notify, deed: deed{notifications, toggled(v.notify)}},
		logs,
		choice("about", "About: version "+version, copyText, "distributed-agent "+about),
	}
}

func toggled(now bool) string {
	if now {
		return off
	}
	return on
}

// ways are the ways to part.
func ways(v view) []entry {
	var entries []entry
	if v.attached() {
		if v.link == gone {
			start := choice("start", "Start the agent", startAgent, "")
			start.off = v.starting
			return []entry{start, choice("close", "Close this icon", closeIcon, "")}
		}
		entries = append(entries, choice("close", "Close this icon; the agent goes on", closeIcon, ""))
	}
	title := "Quit"
	if v.attached() {
		title = "Quit the agent"
	}
	running, them := plural(len(live(v.status)), "rental"), "them"
	if len(live(v.status)) == 1 {
		them = "it"
	}
	switch {
	case v.link == looking && !v.options.Hosting:
		entries = append(entries, choice("close", "Close this icon", closeIcon, ""))
	case len(live(v.status)) == 0:
		entries = append(entries, choice("quit", title, quit, string(agent.LeaveRentals)))
	default:
		how := []entry{choice("leave", "Leave "+running+" running (the next start adopts "+them+")", quit, string(agent.LeaveRentals))}
		if !v.status.Leaving {
			how = append(how, choice("after", "Finish rentals, then quit", quit, string(agent.AfterRentals)))
		}
		how = append(how, choice("ending", "End rentals and quit", quit, string(agent.EndingRentals)))
		entries = append(entries, entry{key: "quit", title: title, below: how})
	}
	return entries
}
