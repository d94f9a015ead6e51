package docker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/rental"
)

func downloading(id string, current, total int64) pullEvent {
	event := pullEvent{ID: id, Status: "Downloading"}
	event.ProgressDetail.Current, event.ProgressDetail.Total = current, total
	return event
}

func TestTallySumsUpLayers(t *testing.T) {
	var told []rental.Progress
	synctest.Test(t, func(t *testing.T) {
		var sum tally
		sum.changed = func() { told = append(told, sum.progress()) }
		steps := []struct {
			event pullEvent
			moved bool
		}{
			{pullEvent{Status: "Pulling from acme/model", ID: "1"}, true},
			{downloading("a", 10, 100), true},  // told at once
			{downloading("a", 20, 100), true},  // too soon to be told
			{downloading("a", 20, 100), false}, // nothing has come
			{downloading("b", 5, 50), true},
			{downloading("b", 2, 50), true}, // begun again
			{pullEvent{ID: "b", Status: "Retrying in 5 seconds"}, false},
			{pullEvent{ID: "b", Status: "Retrying in 4 seconds"}, false},
			{pullEvent{ID: "a", Status: "Download complete"}, true},
			{pullEvent{ID: "c", Status: "Already exists"}, true},
			{pullEvent{ID: "c", Status: "Already exists"}, false},
		}
		for _, step := range steps {
			if moved := sum.add(step.event); moved != step.moved {
				t.Errorf("%+v: moved %t, want %t", step.event, moved, step.moved)
			}
		}
		time.Sleep(progressEvery)
		sum.add(downloading("b", 50, 50))
	})
	want := []rental.Progress{
		{Phase: "pulling", Current: 10, Total: 100},
		{Phase: "pulling", Current: 150, Total: 150},
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
