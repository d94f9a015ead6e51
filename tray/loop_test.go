package tray

import (
	"context"
	"testing"
)

// slowDesk says what was true of the start at login before it was held up.
type slowDesk struct {
	Desk
	release chan struct{}
}

func (d slowDesk) Autostart(context.Context) (bool, string, error) {
	<-d.release
	return false, "", nil
}

// TestAnswerFromBeforeASwitch: a click on the start at login counts for more than what was asked before.
func TestAnswerFromBeforeASwitch(t *testing.T) {
	desk := slowDesk{release: make(chan struct{})}
	l := newTray(nil, desk, Options{})
	l.look(t.Context())
	l.working(deed{autostartTo, on}, true)
	l.working(deed{autostartTo, on}, false)
	l.view.autostart.on = true
	close(desk.release)
	(<-l.done)()
	if !l.view.autostart.on {
		t.Error("the switch shows what was there before the click")
	}
}
