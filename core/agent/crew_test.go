package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// ended are the parts in the order they ended in, from the last status of a rental on.
func (s *session) ended() []string {
	all := s.trace.all()
	for i, name := range slices.Backward(all) {
		if strings.HasPrefix(name, "posted ") {
			return all[i:]
		}
	}
	return all
}

var partsInOrder = []string{"rentals", "link", "meter", "relay", "engine"}

func TestQuit(t *testing.T) {
	t.Run("leaving the rentals", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			s := m.boot()
			s.mustOK(order("r-1"))
			s.Quit(LeaveRentals)
			if err := <-s.left; err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(append([]string{"posted running"}, partsInOrder...), s.ended()); diff != "" {
				t.Errorf("parts ended (-want +got):\n%s", diff)
			}
			again := m.boot()
			if again.state("r-1") != rental.Running || m.engine.Starts("r-1") != 1 {
				t.Errorf("the rental is %s, its container was started %d times", again.state("r-1"), m.engine.Starts("r-1"))
			}
			again.leave()
		})
	})
	t.Run("ending the rentals", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			s := m.boot()
			s.mustOK(order("r-1"))
			s.mustOK(with(order("r-2"), func(o *protocol.StartInstance) { o.PortMapping = nil }))
			s.Quit(EndingRentals)
			if err := <-s.left; err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"r-1", "r-2"} {
				if last := s.link.lastInstance(id); last.State != "stopped" || last.Error == nil || last.Error.Code != protocol.StoppedByHost {
					t.Errorf("%s: the backend was told %+v", id, last)
				}
			}
			if diff := cmp.Diff(append([]string{"posted stopped"}, partsInOrder...), s.ended()); diff != "" {
				t.Errorf("parts ended (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("after the rentals", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			s := m.boot()
			s.mustOK(order("r-1"))
			s.Quit(AfterRentals)
			pass(24 * time.Hour)
			s.mustRefuse(protocol.NotAccepting, order("r-2"))
			if !s.Status().Leaving || s.state("r-1") != rental.Running {
				t.Fatalf("leaving %v, the rental is %s", s.Status().Leaving, s.state("r-1"))
			}
			s.link.in <- protocol.Incoming{ID: "stop", Data: &protocol.StopInstance{RentalID: "r-1"}}
			if err := <-s.left; err != nil {
				t.Fatal(err)
			}
			if len(s.link.answersTo("stop")) != 1 || s.link.lastInstance("r-1").State != "stopped" {
				t.Errorf("the stop was answered %v, the rental's last state is %s", s.link.answersTo("stop"), s.link.lastInstance("r-1").State)
			}
		})
	})
	t.Run("after the rentals, called off", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			s := m.boot()
			s.mustOK(order("r-1"))
			s.Quit(AfterRentals)
			synctest.Wait()
			if err := s.Resume(t.Context()); err != nil || s.Status().Leaving {
				t.Fatalf("resumed with %v, leaving %v", err, s.Status().Leaving)
			}
			if s.state("r-1") != rental.Running || !s.Status().Accepting {
				t.Errorf("the rental is %s, accepting %v", s.state("r-1"), s.Status().Accepting)
			}
		})
	})
	t.Run("after the rentals, then a signal", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			s := m.boot()
			s.mustOK(order("r-1"))
			s.Quit(AfterRentals)
			synctest.Wait()
			s.leave()
			if s.link.lastInstance("r-1").State != "running" {
				t.Errorf("the rental is %s", s.link.lastInstance("r-1").State)
			}
		})
	})
	t.Run("ending a rental that does not end", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			s := m.boot()
			s.mustOK(order("r-1"))
			release := m.engine.Hold("Stop")
			began := time.Now()
			s.Quit(EndingRentals)
			err := <-s.left
			release()
			if err == nil || !strings.Contains(err.Error(), "1 still there") {
				t.Errorf("got %v, want the rental that is left", err)
			}
			if took := time.Since(began); took > 3*time.Minute {
				t.Errorf("leaving took %v", took)
			}
		})
	})
}

// Nothing that hangs keeps the agent from leaving.
func TestLeavingIsBounded(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		s.link.hang = make(chan struct{})
		began := time.Now()
		s.stop()
		err := <-s.left
		if err == nil || !strings.Contains(err.Error(), "link") || time.Since(began) > linkBound {
			t.Errorf("left after %v with %v", time.Since(began), err)
		}
		if diff := cmp.Diff([]string{"rentals", "meter", "relay", "engine"}, s.trace.all()); diff != "" {
			t.Errorf("parts ended (-want +got):\n%s", diff)
		}
		close(s.link.hang)
	})
}

// A command that was taken on is answered before the link closes.
func TestWhatIsInHandIsFinished(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		m.engine.logs = func(ctx context.Context, tail int) (string, bool, error) {
			<-ctx.Done()
			return "", false, ctx.Err()
		}
		s := m.boot()
		s.mustOK(order("r-1"))
		s.send("logs", &protocol.GetLogs{RentalID: "r-1"})
		s.leave()
		if n := len(s.link.answersTo("logs")); n != 1 {
			t.Errorf("answered %d times", n)
		}
	})
}

func TestPartEndsByItself(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		s.link.fail <- errors.New("configuration makes no sense")
		err := <-s.left
		if err == nil || !strings.Contains(err.Error(), "running the link to the backend: configuration makes no sense") {
			t.Errorf("left with %v", err)
		}
		if diff := cmp.Diff([]string{"rentals", "meter", "relay", "engine"}, s.trace.all()); diff != "" {
			t.Errorf("parts ended (-want +got):\n%s", diff)
		}
	})
}

// A survey that hangs in a driver is cut short.
func TestLeavingDuringSurvey(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		ctxEnded := false
		m.survey = func(ctx context.Context, _ string) hardware.Survey {
			<-ctx.Done()
			ctxEnded = true
			return hardware.Survey{}
		}
		s := m.boot()
		s.leave()
		if !ctxEnded {
			t.Error("the survey was not cut short")
		}
	})
}
