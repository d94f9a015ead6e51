package backend_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/backend"
)

// take orders a rental and has the node accept it.
func (c client) take(m market, node string, o protocol.StartInstance) {
	c.t.Helper()
	ordered := make(chan error, 1)
	go func() {
		_, err := m.StartInstance(within(c.t), node, o)
		ordered <- err
	}()
	c.say(c.hearOf("start_instance").ID, protocol.CommandResult{OK: true})
	if err := <-ordered; err != nil {
		c.t.Fatal(err)
	}
}

// hearOf skips what comes before an event.
func (c client) hearOf(event string) frame {
	c.t.Helper()
	for {
		if f := c.hear(); f.Event == event {
			return f
		}
	}
}

func TestEarningsAreTold(t *testing.T) {
	m := start(t, backend.Options{PricePerHour: "3600", EarningsEvery: 20 * time.Millisecond})
	key := m.IssueKey()
	c := m.connect(t, key)
	answer := c.register("r-1")
	node := answer.Data["node_id"].(string)
	told, _ := answer.Data["earnings"].(map[string]any)
	payout, err := time.Parse(time.RFC3339, told["next_payout_at"].(string))
	if err != nil || payout.Day() != 1 || !payout.After(time.Now()) {
		t.Errorf("next payout %v, %v", told["next_payout_at"], err)
	}
	delete(told, "next_payout_at")
	if diff := cmp.Diff(map[string]any{
		"currency": "USD", "rate_per_hour": "0.00", "today": "0.00", "month": "0.00", "total": "0.00", "unpaid": "0.00", "history": []any{},
	}, told); diff != "" {
		t.Errorf("on the first day: %s", diff)
	}

	c.take(m, node, order("one"))
	c.say("", status("one", 1, "pulling"))
	c.say("", status("one", 2, "running"))
	if e := c.hear(); e.Event != "earnings" || e.ID != "" || e.Data["rate_per_hour"] != "3600.00" {
		t.Fatalf("at the start heard %+v, want earnings", e)
	}
	// Nothing more is said by the node, and a dollar a second comes in.
	for total := any("0.00"); total == "0.00"; {
		total = c.hearOf("earnings").Data["total"]
	}

	// One that comes back is told with its registration, and goes on being told.
	c = m.connect(t, key)
	again := c.register("r-2")
	told, _ = again.Data["earnings"].(map[string]any)
	if again.Event != "registered" || told["rate_per_hour"] != "3600.00" || told["total"] == "0.00" {
		t.Errorf("after a reconnect heard %+v", again)
	}
	c.hearOf("earnings")

	c.say("", status("one", 3, "stopping"))
	c.say("", status("one", 4, "failed"))
	c.hearOf("status_received")
	for rate := any(""); rate != "0.00"; {
		rate = c.hearOf("earnings").Data["rate_per_hour"]
	}
	if e := m.Earnings(node); e.RatePerHour != "0.00" || len(e.History) == 0 || e.Unpaid != e.Month {
		t.Errorf("at the end: %+v", e)
	}
	// One more may have been under way; then, for ten times the pace, there is silence.
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	pushes := 0
	for {
		_, _, err := c.ReadMessage()
		if err != nil {
			break
		}
		pushes++
	}
	if pushes > 1 {
		t.Errorf("with nothing running %d pushes came", pushes)
	}
}

func TestNodesEarnApart(t *testing.T) {
	m := start(t, backend.Options{PricePerHour: "1"})
	one, other := m.connect(t, m.IssueKey()), m.connect(t, m.IssueKey())
	node, idle := one.register("r").Data["node_id"].(string), other.register("r").Data["node_id"].(string)
	one.take(m, node, order("one"))
	one.say("", status("one", 1, "running"))
	one.hearOf("earnings")
	if e := m.Earnings(node); e.RatePerHour != "1.00" {
		t.Errorf("the node that runs it: %+v", e)
	}
	// Another node can neither end it nor run it in its place.
	other.say("", status("one", 9, "stopped"))
	if f := other.hear(); f.Event != "status_received" {
		t.Errorf("heard %+v", f)
	}
	if r, _ := m.Rental("one"); r.Latest().State != "running" || m.Earnings(node).RatePerHour != "1.00" {
		t.Errorf("after another node's word it is %+v", r.Latest())
	}
	for _, id := range []string{idle, "nobody"} {
		if e := m.Earnings(id); e.RatePerHour != "0.00" || e.Total != "0.00" {
			t.Errorf("node %s: %+v", id, e)
		}
	}
}

// What pays nothing says nothing of earnings: the receipt is all that comes.
func TestNoPriceNoEarnings(t *testing.T) {
	m := start(t, backend.Options{EarningsEvery: time.Millisecond})
	c := m.connect(t, m.IssueKey())
	node := c.register("r").Data["node_id"].(string)
	c.take(m, node, order("one"))
	c.say("", status("one", 1, "running"))
	c.say("", status("one", 2, "stopped"))
	if f := c.hear(); f.Event != "status_received" {
		t.Errorf("heard %+v, want the receipt alone", f)
	}
	if f := c.register("r-2"); f.Event != "registered" {
		t.Errorf("heard %+v, want the answer alone", f)
	}
}

func TestSeedOnlyTellsNoEarnings(t *testing.T) {
	m := start(t, backend.Options{SeedOnly: true, EarningsEvery: time.Millisecond})
	c := m.connect(t, m.IssueKey())
	c.say("", protocol.Heartbeat{Status: protocol.Online})
	node, err := m.WaitNode(within(t))
	if err != nil {
		t.Fatal(err)
	}
	priced := order("one")
	priced.PricePerHour = "3600"
	if _, err := m.StartInstance(within(t), node.ID, priced); err != nil {
		t.Fatal(err)
	}
	c.hearOf("start_instance")
	c.say("", status("one", 1, "running"))
	if _, err := m.WaitState(within(t), "one", "running"); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, text, err := c.ReadMessage(); err == nil {
		t.Errorf("heard %s, want nothing", text)
	}
}
