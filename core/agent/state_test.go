package agent

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// What has ended keeps a place for the host's owner: settled or not, over a restart, for a day.
func TestEndedIsShown(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		s.mustOK(order("r-1"))
		m.engine.Exit("r-1", rental.Exit{Code: 3, At: time.Now()})
		pass(0)
		last := s.link.lastInstance("r-1")
		s.mustOK(&protocol.StatusReceived{RentalID: "r-1", Sequence: last.Sequence})
		for range 2 {
			status := s.Status()
			if len(status.Rentals) != 0 || len(status.Ended) != 1 {
				t.Fatalf("rentals %+v, ended %+v", status.Rentals, status.Ended)
			}
			if e := status.Ended[0]; e.ID != "r-1" || e.State != rental.Failed || e.ExitCode == nil || *e.ExitCode != 3 || e.EndedAt.IsZero() {
				t.Errorf("ended: %+v", e)
			}
			if _, _, err := s.Logs(t.Context(), "r-1", 0, time.Time{}); err == nil || !strings.Contains(err.Error(), "logs are gone since") {
				t.Errorf("logs of what has ended: %v", err)
			}
			s.leave()
			s = m.boot()
		}
		pass(endedShown)
		s.must(s.Pause(t.Context(), time.Time{})) // any change makes a new picture
		if ended := s.Status().Ended; len(ended) != 0 {
			t.Errorf("after a day: %+v", ended)
		}
		s.leave()
	})
}

// A state directory that takes nothing more costs new rentals for as long as that lasts, and no
// longer: nobody has to tell the agent that there is room again.
func TestOrderOnFullDisk(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		disk := &forgetful{Memory: m.state}
		m.state = disk
		s := m.boot()
		s.mustOK(order("r-1"))
		disk.fill(true)
		if err := os.RemoveAll(m.ledger); err != nil { // what the book holds open takes no more files
			t.Fatal(err)
		}
		for _, id := range []string{"r-2", "r-3"} { // the first finds out, the second is not tried
			message := s.mustRefuse(protocol.InsufficientResources, with(order(id), func(o *protocol.StartInstance) { o.PortMapping = nil }))
			if !strings.HasPrefix(message, "The agent's state directory is full or cannot be written: ") || strings.Contains(message, m.ledger) {
				t.Errorf("order %s was refused with %q", id, message)
			}
		}
		for range 2 { // trying again changes nothing while the disk is full
			status := s.Status()
			if status.Accepting || !strings.Contains(status.Why, "state directory") {
				t.Errorf("accepting %v, because %q", status.Accepting, status.Why)
			}
			if p := status.Problems; len(p) != 1 || p[0].Code != "state_not_kept" || p[0].Fix == "" {
				t.Errorf("problems: %+v", p)
			}
			pass(2 * stateRetry)
		}
		if got := s.state("r-1"); got != "running" {
			t.Errorf("the rental that was there is %s", got)
		}
		disk.fill(false)
		pass(stateRetry)
		if status := s.Status(); !status.Accepting || len(status.Problems) != 0 {
			t.Errorf("with room again: accepting %v, because %q; problems %+v", status.Accepting, status.Why, status.Problems)
		}
		s.leave()
	})
}
