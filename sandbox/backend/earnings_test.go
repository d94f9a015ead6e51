package backend

import (
	"testing"
	"testing/quick"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// books are a backend's without its listener.
func books(rentals ...*Rental) *Backend {
	b := &Backend{rentals: map[string]*Rental{}}
	for _, r := range rentals {
		b.rentals[r.ID] = r
	}
	return b
}

// rental is one of node n-1 that was ordered at a price; nothing has come of it yet.
func rental(id, price string, ordered time.Time) *Rental {
	return &Rental{ID: id, Node: "n-1", Order: &protocol.StartInstance{PricePerHour: price}, ordered: ordered}
}

// tells has a status come in, dated at the moment in which it comes.
func (r *Rental) tells(at time.Time, state string) *Rental {
	return r.claims(at, at, state)
}

// claims has a status come in that is dated otherwise.
func (r *Rental) claims(at, dated time.Time, state string) *Rental {
	r.note(at, protocol.InstanceStatus{Sequence: r.Latest().Sequence + 1, State: state, At: dated})
	return r
}

func on(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.DateTime, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestWhatARentalEarns(t *testing.T) {
	noon := on(t, "2026-11-20 12:00:00")
	after := func(d time.Duration) time.Time { return noon.Add(d) }
	for _, tt := range []struct {
		name   string
		rental *Rental
		total  string // at 13:00
		rate   string
	}{
		{"ordered", rental("r", "0.10", noon), "0.00", "0.00"},
		{"pulling", rental("r", "0.10", noon).tells(noon, "pulling"), "0.00", "0.00"},
		{"running", rental("r", "0.10", noon).tells(noon, "running"), "0.10", "0.10"},
		{"ended", rental("r", "0.10", noon).tells(noon, "running").tells(after(150*time.Second), "stopped"), "0.0042", "0.00"},
		{"stopping", rental("r", "0.10", noon).tells(noon, "running").tells(after(time.Minute), "stopping"), "0.10", "0.10"},
		{"started again with its engine", rental("r", "0.10", noon).tells(noon, "running").tells(after(time.Minute), "starting").tells(after(2*time.Minute), "running"), "0.10", "0.10"},
		{"failed while it ran", rental("r", "0.36", noon).tells(noon, "running").tells(after(time.Second), "failed"), "0.0001", "0.00"},
		{"failed before it ran", rental("r", "0.10", noon).tells(noon, "creating").tells(after(time.Minute), "failed"), "0.00", "0.00"},
		{"less than a second", rental("r", "3600", noon).tells(noon, "running").tells(after(999*time.Millisecond), "stopped"), "0.00", "0.00"},
		{"half of what is shown", rental("r", "0.18", noon).tells(noon, "running").tells(after(time.Second), "stopped"), "0.0001", "0.00"},
		{"a third of an hour", rental("r", "1", noon).tells(noon, "running").tells(after(20*time.Minute), "stopped"), "0.3333", "0.00"},
		{"a price with many decimals", rental("r", "0.123456789012", noon).tells(noon, "running"), "0.1235", "0.1235"},
		{"tenths of a cent", rental("r", "0.125", noon).tells(noon, "running"), "0.1250", "0.1250"},
		{"no price", rental("r", "", noon).tells(noon, "running"), "0.00", "0.00"},
		{"a price below zero", rental("r", "-1", noon).tells(noon, "running"), "0.00", "0.00"},
		{"a price that is no decimal", rental("r", "1e9", noon).tells(noon, "running"), "0.00", "0.00"},
		{"two points", rental("r", "1.2.3", noon).tells(noon, "running"), "0.00", "0.00"},
		{"a start said to be before the order", rental("r", "1", noon).claims(after(30*time.Minute), noon.AddDate(-1, 0, 0), "running"), "1.00", "1.00"},
		{"a start said to be to come", rental("r", "1", noon).claims(after(30*time.Minute), noon.AddDate(1, 0, 0), "running"), "0.50", "1.00"},
		{"a start without a time", rental("r", "1", noon).claims(after(30*time.Minute), time.Time{}, "running"), "0.50", "1.00"},
		{"told late", rental("r", "1", noon).claims(after(30*time.Minute), after(15*time.Minute), "running").claims(after(50*time.Minute), after(45*time.Minute), "stopped"), "0.50", "0.00"},
		{"an end said to be to come", rental("r", "1", noon).tells(noon, "running").claims(after(15*time.Minute), noon.AddDate(1, 0, 0), "stopped"), "0.25", "0.00"},
		{"an end said to be before the start", rental("r", "1", noon).tells(noon, "running").claims(after(15*time.Minute), noon.AddDate(-1, 0, 0), "stopped"), "0.00", "0.00"},
		{"ended twice", rental("r", "1", noon).tells(noon, "running").tells(after(15*time.Minute), "stopped").tells(after(30*time.Minute), "failed"), "0.25", "0.00"},
		{"a clock set back since", rental("r", "1", noon.AddDate(0, 0, 1)).tells(noon.AddDate(0, 0, 1), "running"), "0.00", "1.00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := after(time.Hour)
			e := books(tt.rental).account("n-1", now).told(now)
			if e.Total != tt.total || e.RatePerHour != tt.rate {
				t.Errorf("total %s at %s an hour, want %s at %s", e.Total, e.RatePerHour, tt.total, tt.rate)
			}
		})
	}
}

func TestRentalWithoutAnOrderEarnsNothing(t *testing.T) {
	noon := on(t, "2026-11-20 12:00:00")
	r := new(Rental).tells(noon, "running")
	if got := r.price(); !got.IsZero() {
		t.Errorf("price = %s", got)
	}
}

// After a time without a connection register tells the end first, and the start follows.
func TestStartThatIsToldAfterTheEnd(t *testing.T) {
	noon := on(t, "2026-11-20 12:00:00")
	back := noon.Add(time.Hour)
	r := rental("r", "1", noon)
	for _, tt := range []struct {
		status protocol.InstanceStatus
		turned bool
		total  string
	}{
		{protocol.InstanceStatus{Sequence: 9, State: "stopped", At: noon.Add(40 * time.Minute)}, false, "0.00"},
		{protocol.InstanceStatus{Sequence: 7, State: "running", At: noon.Add(25 * time.Minute)}, true, "0.25"},
		{protocol.InstanceStatus{Sequence: 5, State: "running", At: noon.Add(10 * time.Minute)}, true, "0.50"},
		{protocol.InstanceStatus{Sequence: 5, State: "running", At: noon}, false, "0.50"},
		{protocol.InstanceStatus{Sequence: 9, State: "stopped", At: noon.Add(40 * time.Minute)}, false, "0.50"},
	} {
		if turned := r.note(back, tt.status); turned != tt.turned {
			t.Errorf("%+v: turned = %t", tt.status, turned)
		}
		if got := books(r).account("n-1", back).told(back).Total; got != tt.total {
			t.Errorf("%+v: total %s, want %s", tt.status, got, tt.total)
		}
	}
	if len(r.History) != 1 {
		t.Errorf("history = %+v, want what was newer than all before", r.History)
	}
}

func TestDaysAndMonths(t *testing.T) {
	lasting := func(name, price, from string, d time.Duration) *Rental {
		at := on(t, from)
		return rental(name, price, at).tells(at, "running").tells(at.Add(d), "stopped")
	}
	b := books(
		lasting("long ago", "1", "2026-10-02 00:00:00", time.Hour),
		lasting("first told day", "1", "2026-11-02 23:00:00", time.Hour),
		lasting("day before", "1", "2026-11-01 23:00:00", time.Hour),
		lasting("over a month's end", "2", "2026-11-30 23:30:00", time.Hour),
		lasting("too little to show", "0.0001", "2026-11-10 12:00:00", time.Minute),
		rental("over midnight", "0.50", on(t, "2026-11-30 23:00:00")).tells(on(t, "2026-11-30 23:00:00"), "running"),
		rental("beside it", "0.25", on(t, "2026-12-01 11:00:00")).tells(on(t, "2026-12-01 11:00:00"), "running"),
	)
	foreign := lasting("another node's", "100", "2026-12-01 00:00:00", time.Hour)
	foreign.Node = "n-2"
	b.rentals[foreign.ID] = foreign
	now := on(t, "2026-12-01 12:00:00")
	payout := on(t, "2027-01-01 00:00:00")
	want := protocol.Earnings{
		Currency: "USD", RatePerHour: "0.75",
		Today: "7.25", Month: "7.25", Total: "11.75", Unpaid: "7.25", NextPayoutAt: &payout,
		History: []protocol.DayAmount{{Day: "2026-11-02", Amount: "1.00"}, {Day: "2026-11-30", Amount: "1.50"}, {Day: "2026-12-01", Amount: "7.25"}},
	}
	// Wherever the clock stands, days are those of UTC.
	for _, zone := range []*time.Location{time.UTC, time.FixedZone("west", -11*60*60), time.FixedZone("east", 14*60*60)} {
		at := now.In(zone)
		if diff := cmp.Diff(want, b.account("n-1", at).told(at)); diff != "" {
			t.Errorf("in %s: %s", zone, diff)
		}
	}
}

// Any rentals at any time: the days add up to the total, to the last second and without rounding;
// nothing is below zero; and time takes nothing away.
func TestEarningsAddUp(t *testing.T) {
	start := on(t, "2026-01-30 00:00:00")
	type life struct {
		Cents                     uint16
		Ordered, Began, Ran, Told uint32 // seconds, each from the one before
		BeganAs, EndedAs          int32  // what the host's clock makes of it, in seconds
		Unended                   bool
	}
	seconds := func(n uint32) time.Duration { return time.Duration(n%(40*24*3600)) * time.Second }
	holds := func(lives []life, look, later uint32) bool {
		var rentals []*Rental
		now := start.Add(seconds(look))
		then := now.Add(seconds(later))
		most := decimal.Zero // if each were paid from its order on
		for i, l := range lives {
			r := rental(string(rune('A'+i)), decimal.New(int64(l.Cents), -2).String(), start.Add(seconds(l.Ordered)))
			began := r.ordered.Add(seconds(l.Began))
			ended := began.Add(seconds(l.Ran))
			if began.After(now) {
				continue // what has not come yet is not known
			}
			r.claims(began, began.Add(time.Duration(l.BeganAs)*time.Second), "running")
			if !l.Unended && !ended.After(now) {
				r.claims(ended, ended.Add(time.Duration(l.EndedAs)*time.Second), "stopped")
			}
			most = most.Add(r.price().Mul(decimal.NewFromInt(int64(now.Sub(r.ordered) / time.Second))))
			rentals = append(rentals, r)
		}
		b := books(rentals...)
		a, grown := b.account("n-1", now), b.account("n-1", then)
		sum, spans := decimal.Zero, decimal.Zero
		for day, amount := range a.days {
			if amount.IsNegative() || amount.GreaterThan(grown.days[day]) || !day.Equal(day.Truncate(dayLong)) {
				return false
			}
			sum = sum.Add(amount)
		}
		for _, r := range rentals {
			from, until := r.paid(now)
			spans = spans.Add(r.price().Mul(decimal.NewFromInt(int64(until.Sub(from) / time.Second))))
		}
		return sum.Equal(spans) && sum.Equal(a.since(time.Time{})) && !sum.GreaterThan(most)
	}
	if err := quick.Check(holds, &quick.Config{MaxCount: 500}); err != nil {
		t.Error(err)
	}
}
