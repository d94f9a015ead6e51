package tray

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/assets"
	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// view is all that the screen shows is made of.
type view struct {
	link   link
	status agent.Status // the agent's latest; what was said last while it is gone
	// quitting is what was asked of the agent from here; "" while nothing was.
	quitting  agent.How
	starting  bool // the agent is being started from here
	signingIn bool // the agent has been asked for a page to sign in on
	autostart autostart
	notify    bool
	options   Options
	now       time.Time
}

// link says whether there is an agent.
type link int

const (
	looking link = iota // nothing has been heard of it yet
	heard
	gone
)

// attached reports whether the agent is in another process, which goes on without this one.
func (v view) attached() bool {
	return v.link == gone || v.link == heard && v.status.PID != v.options.PID
}

type autostart struct {
	on      bool
	blocked string // why it cannot be changed; "" where it can
}

// byBackend is the reason of a pause or drain that the owner cannot end.
const byBackend = "backend"

// live are the rentals that have not ended.
func live(s agent.Status) []rental.Status {
	return slices.DeleteFunc(slices.Clone(s.Rentals), func(r rental.Status) bool { return r.State.Final() })
}

// signInNeeded reports whether nothing can come before somebody signs in.
func signInNeeded(s agent.Status) bool {
	return keyRefused(s) || !s.Account.SignedIn && (s.Account.CanSignIn || s.Backend.NeedsSignIn)
}

// keyRefused reports whether there is a host key that is no good, rather than none.
func keyRefused(s agent.Status) bool {
	// Just after a sign-in the link has not tried the key yet, and says still that it had none.
	return s.Backend.NeedsSignIn && s.Account.SignedIn && s.Backend.Refused != ""
}

// standing is the state of the host in a picture and in words.
func standing(v view) (assets.State, string) {
	s := v.status
	rentals := live(s)
	switch {
	case v.starting:
		return assets.Offline, "Starting the agent…"
	case v.link == looking:
		return assets.Offline, "Looking for the agent…"
	case v.link == gone:
		return assets.Offline, "The agent is not running"
	case s.Leaving:
		return assets.Draining, leaving(v)
	case s.Account.SigningIn != nil:
		return assets.SignedOut, "Waiting for you to sign in"
	case keyRefused(s):
		return assets.SignedOut, "Sign-in needed: the marketplace no longer takes this host's key"
	case signInNeeded(s) && !s.Account.CanSignIn:
		return assets.SignedOut, "No host key yet"
	case signInNeeded(s):
		return assets.SignedOut, "Not signed in"
	}
	if problem, grave := gravest(s.Problems); grave {
		return assets.Problem, clip(brief(problem.Message), titleLength)
	}
	switch {
	case !s.Backend.Connected && (s.Backend.Problem == "" || s.Backend.NeedsSignIn):
		return assets.Offline, "Connecting to the marketplace…"
	case !s.Backend.Connected:
		return assets.Offline, "Offline: the marketplace cannot be reached"
	case s.Node.State == protocol.Draining:
		return assets.Draining, "Draining: " + plural(len(rentals), "rental") + " to go"
	case s.Node.State == protocol.Paused:
		return assets.Paused, paused(v, rentals)
	case len(rentals) > 0:
		return assets.Rented, "Rented out: " + plural(len(rentals), "rental")
	case s.Accepting:
		return assets.Online, "Online, ready for rentals"
	}
	return assets.Online, clip("Online, takes no rentals: "+cmp.Or(s.Why, "not ready yet"), titleLength)
}

// gravest is the first problem that concerns the host as a whole and that the words of a state do
// not tell already.
func gravest(problems []agent.Problem) (agent.Problem, bool) {
	for _, p := range problems {
		switch p.Code {
		case "sign_in_needed", "backend_unreachable", "rental_trouble":
		default:
			if !isWarning(p) {
				return p, true
			}
		}
	}
	return agent.Problem{}, false
}

// isWarning reports whether rentals come all the same: the owner knows what he has allowed, or nothing is wrong yet.
func isWarning(p agent.Problem) bool {
	switch p.Code {
	case "old_engine_allowed", "unshielded", "version_table_old", "toolkit_no_cgroups", "toolkit_takes_variables":
		return true
	}
	return false
}

// brief is a sentence up to its colon, unless that is too soon to say anything.
func brief(sentence string) string {
	const least = 12
	if start, _, found := strings.Cut(sentence, ": "); found && len([]rune(start)) >= least {
		return start
	}
	return strings.TrimSuffix(sentence, ".")
}

func leaving(v view) string {
	rentals := live(v.status)
	switch {
	case leavesAfter(v):
		return "Quitting when the last rental has ended: " + plural(len(rentals), "rental") + " to go"
	case len(rentals) == 0 || v.quitting == agent.LeaveRentals:
		return "Quitting…"
	}
	return "Quitting: " + plural(len(rentals), "rental") + " being ended"
}

// leavesAfter reports whether the agent quits when its rentals have ended. Where the quit was not asked for here,
// that is what it looks like as long as a rental is not being ended.
func leavesAfter(v view) bool {
	return v.status.Leaving && (v.quitting == "" || v.quitting == agent.AfterRentals) &&
		slices.ContainsFunc(live(v.status), func(r rental.Status) bool { return r.State != rental.Stopping })
}

func paused(v view, rentals []rental.Status) string {
	node, words := v.status.Node, "Paused until you resume"
	switch {
	case node.Reason == byBackend:
		words = "Paused by the marketplace"
	case !node.Until.IsZero():
		words = "Paused until " + clock(node.Until, v.now)
	}
	if len(rentals) > 0 {
		words += "; still there: " + plural(len(rentals), "rental")
	}
	return words
}

// tooltip is what the icon says to who points at it.
func tooltip(v view) string {
	_, words := standing(v)
	today := ""
	if e := v.status.Earnings; v.link == heard && e != nil && e.Today != "" {
		today = "\nToday: " + clean(money(e.Today, e.Currency))
	}
	return clip("DistributedCompute: "+words, tooltipLength-len([]rune(today))) + today
}
