package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// node is "state reason" of the picture.
func (s *session) node() string { return string(s.Status().Node.State) + " " + s.Status().Node.Reason }

func (s *session) wantNode(want string) {
	s.t.Helper()
	if got := s.node(); got != want {
		s.t.Errorf("the node is %q, want %q", got, want)
	}
}

func (s *session) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

func TestWishesSurviveRestart(t *testing.T) {
	for name, tc := range map[string]struct {
		wish func(s *session) error
		want string
	}{
		"pause": {func(s *session) error { return s.Pause(s.t.Context(), time.Time{}) }, "paused user"},
		"drain": {func(s *session) error { return s.Drain(s.t.Context(), time.Time{}) }, "draining user"},
		"backend's drain": {func(s *session) error {
			s.mustOK(&protocol.DrainNode{})
			return nil
		}, "draining backend"},
		"resume": {func(s *session) error {
			s.must(s.Pause(s.t.Context(), time.Time{}))
			return s.Resume(s.t.Context())
		}, "online "},
	} {
		t.Run(name, func(t *testing.T) {
			onRig(t, func(t *testing.T, m *rig) {
				s := m.boot()
				s.mustOK(order("r-1"))
				s.must(tc.wish(s))
				s.wantNode(tc.want)
				s.leave()
				again := m.boot()
				again.wantNode(tc.want)
				if again.state("r-1") != rental.Running {
					t.Errorf("the rental is %s, want running", again.state("r-1"))
				}
				again.leave()
			})
		})
	}
}

func TestPauseEndsByItself(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		until := time.Now().Add(time.Hour)
		s.must(s.Pause(t.Context(), until))
		if n, _ := s.link.lastNode(); n.Status != protocol.Paused || n.Reason != "user" || !n.Until.Equal(until) {
			t.Errorf("node_status: %+v", n)
		}
		pass(59 * time.Minute)
		s.wantNode("paused user")
		pass(time.Minute)
		s.wantNode("online ")
		if _, got := s.link.lastNode(); got != "online user" {
			t.Errorf("node_status: %q", got)
		}
		s.must(s.Pause(t.Context(), time.Now().Add(time.Minute)))
		s.leave()
		pass(time.Hour)
		again := m.boot()
		again.wantNode("online ")
		again.leave()
		if err := s.Pause(t.Context(), time.Now()); err == nil {
			t.Error("a pause that is over was accepted")
		}
	})
}

func TestOwnerWinsOverBackend(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		s.must(s.Pause(t.Context(), time.Time{}))
		s.mustOK(&protocol.ResumeNode{})
		s.wantNode("paused user")
		s.mustOK(&protocol.DrainNode{})
		s.wantNode("paused user")
		s.must(s.Resume(t.Context()))
		s.wantNode("paused backend")
		if err := s.Resume(t.Context()); err == nil {
			t.Error("the owner undid the backend's drain")
		}
		s.mustOK(&protocol.ResumeNode{})
		s.wantNode("online ")
		s.mustOK(order("r-1"))
		s.leave()
	})
}

func TestDrain(t *testing.T) {
	t.Run("waits for the last rental", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			s := m.boot()
			s.mustOK(order("r-1"))
			s.mustOK(&protocol.DrainNode{Deadline: time.Now().Add(time.Minute)})
			s.mustOK(&protocol.DrainNode{Deadline: time.Now().Add(time.Minute)})
			s.wantNode("draining backend")
			s.mustRefuse(protocol.NotAccepting, order("r-2"))
			pass(time.Hour)
			if s.state("r-1") != rental.Running {
				t.Fatalf("the rental is %s, want running: nobody asked to stop it", s.state("r-1"))
			}
			s.mustOK(&protocol.StopInstance{RentalID: "r-1"})
			s.wantNode("paused backend")
			if _, got := s.link.lastNode(); got != "paused backend" {
				t.Errorf("node_status: %q", got)
			}
			s.leave()
		})
	})
	t.Run("stops instances at once", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			s := m.boot()
			s.mustOK(order("r-1"))
			s.mustOK(&protocol.DrainNode{StopInstances: true})
			if last := s.link.lastInstance("r-1"); last.State != "stopped" || last.Error != nil {
				t.Errorf("the backend was told %+v", last)
			}
			s.wantNode("paused backend")
			s.leave()
		})
	})
	t.Run("stops instances at the deadline, over a restart", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			s := m.boot()
			s.mustOK(order("r-1"))
			s.mustOK(&protocol.DrainNode{StopInstances: true, Deadline: time.Now().Add(time.Hour)})
			pass(30 * time.Minute)
			s.wantNode("draining backend")
			s.leave()
			pass(time.Hour)
			again := m.boot()
			pass(2 * time.Second)
			if again.state("r-1") != rental.Stopped {
				t.Errorf("the rental is %s, want stopped", again.state("r-1"))
			}
			again.wantNode("paused backend")
			again.leave()
		})
	})
	t.Run("by the owner, with a deadline", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			s := m.boot()
			s.mustOK(order("r-1"))
			s.must(s.Drain(t.Context(), time.Now().Add(time.Hour)))
			s.wantNode("draining user")
			pass(time.Hour + time.Second)
			if last := s.link.lastInstance("r-1"); last.State != "stopped" || last.Error == nil || last.Error.Code != protocol.StoppedByHost {
				t.Errorf("the backend was told %+v, want stopped_by_host", last)
			}
			s.wantNode("paused user")
			s.leave()
		})
	})
	t.Run("resumed before the deadline", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			s := m.boot()
			s.mustOK(order("r-1"))
			s.must(s.Drain(t.Context(), time.Now().Add(time.Hour)))
			s.must(s.Resume(t.Context()))
			pass(2 * time.Hour)
			if s.state("r-1") != rental.Running {
				t.Errorf("the rental is %s, want running", s.state("r-1"))
			}
			s.leave()
		})
	})
}

func TestEndRental(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		s.mustOK(order("r-1"))
		if err := s.EndRental(t.Context(), "r-2"); err == nil {
			t.Error("ended a rental that is not there")
		}
		s.must(s.EndRental(t.Context(), "r-1"))
		if last := s.link.lastInstance("r-1"); last.State != "stopped" || last.Error == nil || last.Error.Code != protocol.StoppedByHost {
			t.Errorf("the backend was told %+v, want stopped_by_host", last)
		}
		s.leave()
	})
}

// A full disk costs the memory of a wish, not the wish.
func TestWishOnFullDisk(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		disk := &forgetful{Memory: m.state, full: true}
		m.state = disk
		s := m.boot()
		err := s.Pause(t.Context(), time.Time{})
		if err == nil || !strings.Contains(err.Error(), "in force now, but a restart") || strings.Contains(err.Error(), "/state") {
			t.Errorf("a pause that is not on disk was answered %v", err)
		}
		s.wantNode("paused user")
		if p := s.Status().Problems; len(p) != 1 || p[0].Code != "state_not_kept" {
			t.Errorf("problems: %+v", p)
		}
		s.mustOK(&protocol.DrainNode{})
		disk.fill(false)
		s.must(s.Pause(t.Context(), time.Time{}))
		if p := s.Status().Problems; len(p) != 0 {
			t.Errorf("problems: %+v", p)
		}
		s.leave()
		again := m.boot()
		again.wantNode("paused user")
		again.leave()
	})
}

// A pause that cannot be read any more is taken for one that holds, until its owner has his word.
func TestPauseOutlivesItsFile(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		dir := t.TempDir()
		m.state = openMemory(t, dir)
		s := m.boot()
		s.mustOK(order("r-1"))
		s.must(s.Pause(t.Context(), time.Time{}))
		s.leave()
		if err := os.WriteFile(filepath.Join(dir, memoryFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		again := m.boot()
		again.mustOK(&protocol.Registered{NodeID: "node-1"}) // which is written down
		again.wantNode("paused user")
		again.mustRefuse(protocol.NotAccepting, order("r-2"))
		if p := again.Status().Problems; len(p) != 1 || p[0].Code != "state_not_kept" || !strings.Contains(p[0].Fix, "resume") {
			t.Errorf("problems: %+v", p)
		}
		if again.state("r-1") != rental.Running {
			t.Errorf("the rental is %s, want running", again.state("r-1"))
		}
		again.leave()

		third := m.boot()
		third.wantNode("paused user")
		if p := third.Status().Problems; len(p) != 1 || p[0].Code != "state_not_kept" {
			t.Errorf("problems after another restart: %+v", p)
		}
		third.must(third.Resume(t.Context()))
		third.wantNode("online ")
		if p := third.Status().Problems; len(p) != 0 {
			t.Errorf("problems: %+v", p)
		}
		third.leave()
	})
}
