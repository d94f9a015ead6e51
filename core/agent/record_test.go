package agent

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
)

// notes is an audit record in memory.
type notes struct {
	noAudit
	t     *testing.T
	mu    sync.Mutex
	lines []string // kind, rental, data
}

func (n *notes) Note(kind, rental string, data any) {
	content, err := json.Marshal(data)
	if err != nil {
		n.t.Error(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, strings.TrimSpace(kind+" "+rental)+" "+string(content))
}

// words are the lines without what differs from one time to the next.
func (n *notes) words(t *testing.T) (lines []string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, line := range n.lines {
		what, data, _ := strings.Cut(line, " {")
		var fields map[string]any
		if err := json.Unmarshal([]byte("{"+data), &fields); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"event", "ok", "code", "state", "act", "how"} {
			if v, ok := fields[name]; ok {
				value, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				what += " " + strings.Trim(string(value), `"`)
			}
		}
		lines = append(lines, what)
	}
	return lines
}

func TestWhatIsAskedAndDoneIsRecorded(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		kept := &notes{t: t}
		m.parts = func(p *Parts) { p.Audit = kept }
		s := m.boot()
		s.mustOK(order("r-1"))
		s.mustRefuse(protocol.NotFound, &protocol.GetLogs{RentalID: "r-2"})
		if err := s.Pause(t.Context(), time.Time{}); err != nil {
			t.Fatal(err)
		}
		if err := s.EndRental(t.Context(), "r-1"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		s.send("", &protocol.Earnings{})
		s.Quit(LeaveRentals)
		if err := <-s.left; err != nil {
			t.Fatal(err)
		}
		want := []string{
			"agent_started",
			"asked r-1 start_instance",
			"answered r-1 start_instance true",
			"rental r-1 accepted", "rental r-1 pulling", "rental r-1 creating", "rental r-1 starting", "rental r-1 tunnelling", "rental r-1 running",
			"asked r-2 get_logs",
			"answered r-2 get_logs false not_found",
			"owner pause",
			"owner r-1 end",
			"rental r-1 stopping",
			"rental r-1 stopped_by_host stopped",
			"owner quit, leave",
			"agent_quit true leave",
		}
		sorted := func(lines []string) map[string]int { // an answer waits for the disk, and rentals do not wait for it
			set := map[string]int{}
			for _, line := range lines {
				set[line]++
			}
			return set
		}
		got := kept.words(t)
		if diff := cmp.Diff(sorted(want), sorted(got)); diff != "" {
			t.Errorf("recorded (-want +got):\n%s", diff)
		}
		if got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("begins with %q, ends with %q", got[0], got[len(got)-1])
		}
	})
}

// TestNoSecretIsRecorded: neither in clear, nor as part of what a digest is made of.
func TestNoSecretIsRecorded(t *testing.T) {
	made := func(value, password string) *protocol.StartInstance {
		o := order("r-1")
		o.EnvVars = map[string]string{"SSH_PASSWORD": value}
		o.RegistryAuth = &protocol.RegistryAuth{Username: "u", Password: secret.New(password)}
		return o
	}
	first := digest(made("canary-1", "canary-2"))
	if first != digest(made("another", "word")) {
		t.Error("the digest depends on secrets")
	}
	other := made("canary-1", "canary-2")
	other.Image = "docker.io/library/debian:13"
	if len(first) != 64 || first == digest(other) {
		t.Errorf("digest %q does not depend on the order", first)
	}
	onRig(t, func(t *testing.T, m *rig) {
		kept := &notes{t: t}
		m.parts = func(p *Parts) { p.Audit = kept }
		s := m.boot()
		s.mustOK(made("canary-1", "canary-2"))
		s.send("", &protocol.Registered{NodeID: "n-1", Relay: &protocol.Relay{Address: "127.0.0.1:1", Token: secret.New("canary-3"), TLS: true}})
		s.leave()
		for _, line := range kept.lines {
			if bytes.Contains([]byte(line), []byte("canary")) {
				t.Errorf("recorded %s", line)
			}
		}
		if len(kept.lines) < 8 {
			t.Errorf("recorded %q", kept.lines)
		}
	})
}
