package backend

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// taken is everything an outbox has to say, in order.
func taken(o *outbox) (all []string) {
	for {
		p, ok := o.take()
		switch message := p.message.(type) {
		case nil:
			if !ok {
				return all
			}
			all = append(all, string(p.frame))
		case protocol.NodeStatus:
			all = append(all, string(message.Status))
		case protocol.InstanceStatus:
			all = append(all, fmt.Sprint(message.RentalID, " ", message.Sequence))
		}
	}
}

// TestOutboxBounds: of too many statuses the oldest go, never the final one.
func TestOutboxBounds(t *testing.T) {
	o := newOutbox(time.Hour)
	for i := range int64(500) {
		o.postInstance(status("r-1", i+1, "running"))
	}
	o.postInstance(status("r-1", 501, "stopped"))
	all := taken(o)
	if len(all) != maxPerRental || all[0] != "r-1 438" || all[len(all)-1] != "r-1 501" {
		t.Errorf("%d statuses, %s to %s", len(all), all[0], all[len(all)-1])
	}
	dropped := 0
	for i := range 2 * maxAnswers {
		dropped += o.answer(0, fmt.Append(nil, i))
	}
	if all := taken(o); len(all) != maxAnswers || dropped != maxAnswers || all[0] != fmt.Sprint(maxAnswers) {
		t.Errorf("%d answers from %s, %d dropped", len(all), all[0], dropped)
	}
	for range 100 {
		o.answer(0, make([]byte, protocol.MaxFrameBytes))
	}
	if o.bytes > maxAnswerBytes || !o.crowded() {
		t.Errorf("%d bytes of answers are kept", o.bytes)
	}
}

// TestOutboxPutBack: what could not be sent is the next to be sent, once.
func TestOutboxPutBack(t *testing.T) {
	fill := func() *outbox {
		o := newOutbox(time.Hour)
		o.answer(0, []byte("a"))
		o.answer(0, []byte("b"))
		o.postNode(protocol.NodeStatus{Status: protocol.Paused})
		o.postInstance(status("r-1", 1, "accepted"))
		o.postInstance(status("r-1", 2, "failed"))
		o.postInstance(status("r-2", 1, "accepted"))
		return o
	}
	want := []string{"a", "b", "paused", "r-1 1", "r-2 1", "r-1 2"}
	if got := taken(fill()); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for failing := range want {
		o := fill()
		for range failing {
			o.take()
		}
		p, _ := o.take()
		o.putBack(p)
		got := taken(o)
		slices.Sort(got)
		rest := slices.Sorted(slices.Values(want[failing:]))
		if !slices.Equal(got, rest) {
			t.Errorf("after failing to send %s: %v, want %v", want[failing], got, rest)
		}
	}
}

// TestOutboxAnswers: an answer is for the connection its command came over, however late it is queued.
func TestOutboxAnswers(t *testing.T) {
	o := newOutbox(time.Hour)
	o.reconnected(1)
	o.answer(1, []byte("unsent"))
	o.reconnected(2)
	o.answer(1, []byte("late"))
	o.answer(2, []byte("new"))
	if got := taken(o); !slices.Equal(got, []string{"new"}) {
		t.Errorf("sent %v", got)
	}
}

// TestOutboxNode: of the node only the latest is said, and nothing that register says anew.
func TestOutboxNode(t *testing.T) {
	o := newOutbox(time.Hour)
	o.postNode(protocol.NodeStatus{Status: protocol.Paused})
	o.postNode(protocol.NodeStatus{Status: protocol.Online})
	if got := taken(o); !slices.Equal(got, []string{"online"}) {
		t.Errorf("sent %v", got)
	}
	for _, test := range []struct {
		queued, registered protocol.NodeState
		sent               []string
	}{
		{protocol.Paused, protocol.Online, nil},                // it is older
		{protocol.Online, protocol.Online, nil},                // there is no more to say
		{protocol.Paused, protocol.Paused, []string{"paused"}}, // it says why
	} {
		o.postNode(protocol.NodeStatus{Status: test.queued})
		o.introduced(test.registered)
		if got := taken(o); !slices.Equal(got, test.sent) {
			t.Errorf("%s queued, registered as %s: sent %v", test.queued, test.registered, got)
		}
	}
}

// TestOutboxNodeAfterEnds: a node status overtakes what is said of rentals, but not the ends before it.
func TestOutboxNodeAfterEnds(t *testing.T) {
	o := newOutbox(time.Hour)
	o.postInstance(status("r-1", 1, "running"))
	o.postInstance(status("r-2", 1, "stopping"))
	o.postInstance(status("r-2", 2, "stopped"))
	o.postInstance(status("r-3", 1, "stopped"))
	o.postInstance(status("r-1", 2, "starting"))
	o.postNode(protocol.NodeStatus{Status: protocol.Paused})
	o.postInstance(status("r-4", 1, "stopped"))
	o.settle("r-3", 1) // which makes nobody wait
	want := []string{"r-1 1", "r-2 1", "r-4 1", "r-1 2", "r-2 2", "paused"}
	if got := taken(o); !slices.Equal(got, want) {
		t.Errorf("sent %v, want %v", got, want)
	}
}

// TestOutboxOfMany: what an outbox does takes no longer because there is much in it.
func TestOutboxOfMany(t *testing.T) {
	const many = 100_000
	o := newOutbox(time.Hour)
	start := time.Now()
	for i := range many {
		o.postInstance(status(fmt.Sprint("r-", i), 1, "stopped"))
	}
	if got := len(taken(o)); got != many {
		t.Errorf("%d ends are sent", got)
	}
	o.reconnected(1)
	for i := range many { // the newest first, all of them waiting for their turn
		o.settle(fmt.Sprint("r-", many-1-i), 1)
	}
	if took := time.Since(start); took > 20*time.Second || !o.empty() {
		t.Errorf("took %v; empty: %v", took, o.empty())
	}
}

// TestOutboxForgets: nothing is left of a rental once its end has been confirmed, or its statuses
// have been sent.
func TestOutboxForgets(t *testing.T) {
	o := newOutbox(time.Hour)
	o.postInstance(status("r-1", 1, "running"))
	o.postInstance(status("r-2", 1, "stopped"))
	o.postInstance(status("r-3", 1, "stopped"))
	o.settle("r-3", 1) // before it was sent
	o.settle("r-9", 1) // of which nobody knows
	if got := taken(o); !slices.Equal(got, []string{"r-1 1", "r-2 1"}) {
		t.Errorf("sent %v", got)
	}
	o.reconnected(0)
	if got := taken(o); !slices.Equal(got, []string{"r-2 1"}) {
		t.Errorf("sent again %v", got)
	}
	o.settle("r-2", 2) // which is not its end
	o.reconnected(0)
	if got := taken(o); !slices.Equal(got, []string{"r-2 1"}) {
		t.Errorf("sent again %v", got)
	}
	o.settle("r-2", 1)
	o.reconnected(0)
	if got := taken(o); len(got) != 0 || len(o.rentals) != 0 {
		t.Errorf("sent %v, %d rentals are kept", got, len(o.rentals))
	}
}

// TestOutboxForgetsOnALongConnection: ends that nobody confirms do not pile up while it lasts.
func TestOutboxForgetsOnALongConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(time.Hour)
		for i := range 100 {
			o.postInstance(status(fmt.Sprintf("r-%d", i), 1, "stopped"))
			time.Sleep(time.Minute)
		}
		if got := len(taken(o)); got > 61 || len(o.rentals) != got {
			t.Errorf("%d ends are sent and %d kept, want those of an hour", got, len(o.rentals))
		}
	})
}

// TestRepliesBounded: a window of ids, the oldest forgotten first; large answers are not kept.
func TestRepliesBounded(t *testing.T) {
	var r replies
	for i := range 3 * rememberedIDs {
		id := fmt.Sprint(i)
		if _, known := r.begin(id); known {
			t.Fatalf("%s is known before it was seen", id)
		}
		r.settle(0, id, []byte(id))
	}
	if len(r.answers) != rememberedIDs || len(r.order) != rememberedIDs {
		t.Errorf("%d answers of %d ids are kept", len(r.answers), len(r.order))
	}
	newest := fmt.Sprint(3*rememberedIDs - 1)
	if answer, known := r.begin(newest); !known || string(answer) != newest {
		t.Errorf("the newest is forgotten: %q", answer)
	}
	if _, known := r.begin("0"); known {
		t.Error("the oldest is kept")
	}
	if !r.settle(0, "0", make([]byte, rememberedBytes+1)) {
		t.Error("a large answer was not the first")
	}
	if _, known := r.begin("0"); known {
		t.Error("a large answer is kept")
	}
}
