package tray

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/rental"
)

// news is what a person should be told of the step from one picture to the next. before is nil where
// after is the first one of an agent: then nothing has happened, whatever there is.
func news(before *agent.Status, after agent.Status) []Note {
	notes := signInNews(before, after)
	if before == nil {
		return notes
	}
	for _, r := range after.Rentals {
		if note, ok := rentalNews(find(before.Rentals, r.ID), r, after); ok {
			notes = append(notes, note)
		}
	}
	for _, r := range after.Ended {
		if find(after.Rentals, r.ID) != nil {
			continue
		}
		if was := find(before.Rentals, r.ID); was != nil {
			if note, ok := rentalNews(was, r, after); ok {
				notes = append(notes, note)
			}
		}
	}
	for _, n := range after.Notices {
		if slices.Contains(before.Notices, n) {
			continue
		}
		body := n.Body
		if n.URL != "" {
			body = strings.TrimSpace(body + "\n" + n.URL)
		}
		notes = append(notes, Note{Key: "notice " + n.At.Format(time.RFC3339Nano), Title: cmp.Or(n.Title, "A message from the marketplace"), Body: body, Urgent: n.Severity == "critical"})
	}
	return notes
}

func find(rentals []rental.Status, id rental.ID) *rental.Status {
	i := slices.IndexFunc(rentals, func(r rental.Status) bool { return r.ID == id })
	if i < 0 {
		return nil
	}
	return &rentals[i]
}

// firstRun bounds how long a rental that has begun may take to be reachable: later it has been started again.
const firstRun = 5 * time.Minute

// rentalNews tells of a rental that has begun or ended. was is nil where it is new.
func rentalNews(was *rental.Status, is rental.Status, s agent.Status) (Note, bool) {
	what, key := shortImage(is.Spec.Image), "rental "+string(is.ID)
	if len(is.Spec.GPUs) > 0 {
		what += " on GPU " + gpuIndices(is.Spec.GPUs)
	}
	switch {
	case is.State.Final() && (was == nil || was.State.Final()):
		return Note{}, false
	case is.State.Final() && is.StartedAt.IsZero():
		return Note{Key: key, Title: "A rental did not start", Body: what + ": " + why(is)}, true
	case is.State.Final():
		return Note{Key: key, Title: "A rental has ended", Body: what + ended(is, s.Offer.Currency)}, true
	// One that ran before this agent did has been adopted, not begun.
	case is.State == rental.Running && (was == nil || was.State != rental.Running) && !is.StartedAt.Before(s.Agent.StartedAt):
		if is.At.Sub(is.StartedAt) > firstRun {
			return Note{Key: key, Title: "A rental runs again", Body: what}, true
		}
		body := what
		if is.Spec.PricePerHour != "" {
			body += ", " + money(is.Spec.PricePerHour, s.Offer.Currency) + " per hour"
		}
		return Note{Key: key, Title: "A rental has started", Body: body}, true
	}
	return Note{}, false
}

func why(r rental.Status) string {
	if r.Failure == nil {
		return "it was ended before."
	}
	return sentence(r.Failure.Message)
}

// ended says what a rental has earned, and why it ended where something went wrong.
func ended(r rental.Status, currency string) string {
	words := ""
	if price, ok := new(big.Rat).SetString(r.Spec.PricePerHour); ok && r.EndedAt.After(r.StartedAt) {
		hours := big.NewRat(int64(r.EndedAt.Sub(r.StartedAt)), int64(time.Hour))
		words = ", earned about " + money(price.Mul(price, hours).FloatString(2), currency)
	}
	if r.Failure != nil {
		words += ": " + sentence(r.Failure.Message)
	}
	return words
}

func signInNews(before *agent.Status, after agent.Status) []Note {
	a := after.Account
	switch {
	case keyRefused(after) && (before == nil || !keyRefused(*before)):
		how := "you sign in again from the menu of this icon."
		if !a.CanSignIn {
			how = "there is a new key: see Problems in the menu of this icon."
		}
		return []Note{{Key: "sign-in", Title: "Sign-in needed", Urgent: true, Body: "The marketplace no longer takes this host's key. No new rentals come until " + how}}
	case before == nil:
		return nil
	case a.Problem != "" && before.Account.Problem != a.Problem:
		return []Note{{Key: "sign-in", Title: "The sign-in did not succeed", Body: sentence(a.Problem)}}
	case a.SignedIn && (!before.Account.SignedIn || before.Account.SigningIn != nil && a.KeyID != before.Account.KeyID):
		if a.Owner == "" {
			return []Note{{Key: "sign-in", Title: "Signed in", Body: "This machine is on the marketplace."}}
		}
		return []Note{{Key: "sign-in", Title: "Signed in as " + a.Owner, Body: "This machine is on the marketplace."}}
	}
	return nil
}

// notSignedIn is the code of a worry that is no problem of the agent's.
const notSignedIn = "not_signed_in"

// concerns are what a person may have to see to. Warnings stay in the menu.
func concerns(s agent.Status) []agent.Problem {
	grave := slices.DeleteFunc(slices.Clone(s.Problems), isWarning)
	if s.Account.SignedIn || s.Account.SigningIn != nil || !signInNeeded(s) {
		return grave
	}
	fix := "Sign in from the menu of this icon to rent it out."
	if !s.Account.CanSignIn {
		fix = "Store a host key: see Problems in the menu of this icon."
	}
	return append(grave, agent.Problem{Code: notSignedIn, Message: "This machine is not signed in to the marketplace.", Fix: fix})
}

// blip is how long a problem must last to be told: many go away by themselves.
const blip = 30 * time.Second

// worries remembers since when there are which problems.
type worries map[string]worry

type worry struct {
	since time.Time
	told  bool
}

// spare takes a worry as told.
func (w worries) spare(code string, now time.Time) { w[code] = worry{since: now, told: true} }

// step takes the problems of this moment and gives those to tell now, and when to ask again (zero:
// when the problems have changed). A rental's own trouble is told in its menu alone.
func (w worries) step(problems []agent.Problem, now time.Time) (notes []Note, again time.Time) {
	there := map[string]bool{}
	for _, p := range problems {
		if p.Code == "sign_in_needed" || p.Code == "rental_trouble" || there[p.Code] {
			continue
		}
		there[p.Code] = true
		known, ok := w[p.Code]
		if !ok {
			known.since = now
		}
		if due := known.since.Add(blip); !known.told && !now.Before(due) {
			known.told = true
			notes = append(notes, Note{Key: "problem " + p.Code, Title: clip(p.Message, titleLength), Body: p.Fix})
		} else if !known.told && (again.IsZero() || due.Before(again)) {
			again = due
		}
		w[p.Code] = known
	}
	for code := range w {
		if !there[code] {
			delete(w, code)
		}
	}
	return notes, again
}
