package backend

import (
	"strconv"
	"testing"
)

func TestOldEventsAreForgotten(t *testing.T) {
	b := &Backend{grown: make(chan struct{})}
	const all = 3*keptEvents + 7
	read, mark := 0, 0
	for i := range all {
		if i == all-3 {
			mark = b.Mark()
		}
		b.record(Event{ID: strconv.Itoa(i)})
		if len(b.events) > 2*keptEvents {
			t.Fatalf("%d events are kept, want %d at most", len(b.events), 2*keptEvents)
		}
	}
	for event := range b.Events(t.Context(), mark) {
		if want := strconv.Itoa(all - 3 + read); event.ID != want {
			t.Fatalf("event %s came from the mark, want %s", event.ID, want)
		}
		if read++; read == 3 {
			break
		}
	}
	read = 0
	for event := range b.Events(t.Context(), 0) {
		if read++; event.ID == strconv.Itoa(all-1) {
			break
		}
	}
	if read < keptEvents || read != len(b.events) {
		t.Errorf("%d events can be read from the beginning, want the %d that are kept", read, len(b.events))
	}
}
