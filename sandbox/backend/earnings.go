package backend

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

const (
	currency = "USD" // of every price in the sandbox
	// earningDays are the days that are told one by one, today among them.
	earningDays = 30
	dayLong     = 24 * time.Hour
)

// Earnings is what a node has earned until now; all is zero for one that is not known.
//
// A rental earns its price_per_hour from its first `running` until its final status, by the whole
// second, however it ends; one without a price earns nothing. The times are the host's, but never before
// the order nor after the moment in which they came here: no host can claim more than the backend has
// seen go by. A node that is away earns on until it tells of an end, which takes back what was too much.
//
// Days and months are those of UTC. Sums are exact; what is shown is rounded half up to 4 decimals, and
// whole cents have 2. All is paid out at the beginning of the next month.
func (b *Backend) Earnings(node string) protocol.Earnings {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.account(node, now).told(now)
}

// earningNow reports whether a node earns at this moment.
func (b *Backend) earningNow(node string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.account(node, time.Now()).rate.IsPositive()
}

// tellEarnings pushes to a node what it has earned.
func (b *Backend) tellEarnings(s *session) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if err := s.send("", b.Earnings(s.node.id)); err != nil {
		b.options.Log.Info("earnings not told", "node", s.node.id, "error", err)
	}
}

// tellWhileEarning pushes them every now and then, as long as something earns and s lasts; it looks
// for the first time when register has been answered.
func (b *Backend) tellWhileEarning(s *session) {
	var tick <-chan time.Time // nil while nothing earns
	for {
		select {
		case <-tick:
			b.tellEarnings(s)
		case <-s.turned:
		case <-s.gone:
			return
		}
		tick = nil
		if b.earningNow(s.node.id) {
			tick = time.After(b.options.EarningsEvery)
		}
	}
}

// earningsTurned tells a node at once that a rental of its has begun or ceased to earn. It may have
// come over a connection that another has replaced since; before that one is registered there is
// nothing to tell, for the answer to register says it.
func (b *Backend) earningsTurned(n *node) {
	b.mu.Lock()
	s := n.session
	registered := n.registered
	b.mu.Unlock()
	if s == nil || !registered {
		return
	}
	b.tellEarnings(s)
	s.look()
}

// account is what a node has earned.
type account struct {
	rate decimal.Decimal // an hour, of what runs
	// days are the sums of price × seconds by the midnight a day begins with. Only what is shown is
	// divided by an hour: a third of a cent is no decimal number.
	days map[time.Time]decimal.Decimal
}

// account needs mu held.
func (b *Backend) account(node string, now time.Time) *account {
	a := &account{days: map[time.Time]decimal.Decimal{}}
	for _, r := range b.rentals {
		if r.Node == node {
			a.add(r, now)
		}
	}
	return a
}

func (a *account) add(r *Rental, now time.Time) {
	price := r.price()
	if r.began.At.IsZero() || price.IsZero() {
		return
	}
	if r.ended.At.IsZero() {
		a.rate = a.rate.Add(price)
	}
	from, until := r.paid(now)
	for from.Before(until) {
		day := from.Truncate(dayLong)
		end := earlier(day.Add(dayLong), until)
		seconds := decimal.NewFromInt(int64(end.Sub(from) / time.Second))
		a.days[day] = a.days[day].Add(price.Mul(seconds))
		from = end
	}
}

// since is the sum from a midnight on.
func (a *account) since(midnight time.Time) (sum decimal.Decimal) {
	for day, amount := range a.days {
		if !day.Before(midnight) {
			sum = sum.Add(amount)
		}
	}
	return sum
}

func (a *account) told(now time.Time) protocol.Earnings {
	today := now.UTC().Truncate(dayLong)
	month := today.AddDate(0, 0, 1-today.Day())
	payout := month.AddDate(0, 1, 0)
	thisMonth := shown(money(a.since(month)))
	e := protocol.Earnings{
		Currency:     currency,
		RatePerHour:  shown(a.rate),
		Today:        shown(money(a.days[today])),
		Month:        thisMonth,
		Total:        shown(money(a.since(time.Time{}))),
		Unpaid:       thisMonth,
		NextPayoutAt: &payout,
	}
	first := today.AddDate(0, 0, 1-earningDays)
	for _, day := range slices.SortedFunc(maps.Keys(a.days), time.Time.Compare) {
		if amount := money(a.days[day]); !day.Before(first) && amount.IsPositive() {
			e.History = append(e.History, protocol.DayAmount{Day: day.Format(time.DateOnly), Amount: shown(amount)})
		}
	}
	return e
}

// money is what a sum of price × seconds comes to.
func money(sum decimal.Decimal) decimal.Decimal {
	return sum.DivRound(decimal.NewFromInt(int64(time.Hour/time.Second)), 4)
}

// shown has 2 decimals where they say all, else 4.
func shown(amount decimal.Decimal) string {
	amount = amount.Round(4)
	if amount.Equal(amount.Truncate(2)) {
		return amount.StringFixed(2)
	}
	return amount.StringFixed(4)
}

// price is that of an hour: zero where there is none, or none that a host would take.
func (r *Rental) price() decimal.Decimal {
	if r.Order == nil || strings.Trim(r.Order.PricePerHour, "0123456789.") != "" {
		return decimal.Zero
	}
	price, err := decimal.NewFromString(r.Order.PricePerHour)
	if err != nil {
		return decimal.Zero
	}
	return price
}

// paid is the time that a rental which has begun is paid for, so far.
func (r *Rental) paid(now time.Time) (from, until time.Time) {
	from, until = r.began.within(r.ordered), now
	if !r.ended.At.IsZero() {
		until = r.ended.within(from)
	}
	return from.UTC().Truncate(time.Second), until.UTC().Truncate(time.Second)
}

// within is when a report says that it was made, unless that is before a moment or after it came.
func (r Report) within(first time.Time) time.Time {
	at := r.Status.At
	if at.IsZero() || at.After(r.At) {
		at = r.At
	}
	if at.Before(first) {
		return first
	}
	return at
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
