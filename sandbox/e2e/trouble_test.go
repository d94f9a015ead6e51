//go:build linux

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// The agent dies without a word; the rental does not notice.
func TestKillAndAdopt(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	running := w.rent(w.order("r-adopted"))
	address := running.Ports[0].PublicAddress
	w.answers(address)
	before, err := shared.docker.inspect(running.ContainerID)
	w.must(err)

	for range 3 {
		w.agent.kill()
		w.start()
		w.answers(address)
	}
	after, err := shared.docker.inspect(running.ContainerID)
	w.must(err)
	if diff := cmp.Diff(before.State, after.State); diff != "" {
		t.Errorf("the container was touched (-before +after):\n%s", diff)
	}
	if ids, err := shared.docker.containers(); err != nil || len(ids) != 1 {
		t.Errorf("containers: %v, %v", ids, err)
	}
	stopped := w.stop("r-adopted")
	if stopped.Sequence <= running.Sequence {
		t.Errorf("sequence went from %d to %d over a restart", running.Sequence, stopped.Sequence)
	}
	w.nothingLeft()
}

func TestRelayRestart(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	running := w.rent(w.order("r-relay"))
	address := running.Ports[0].PublicAddress
	w.answers(address)
	w.Relay.Kill()
	w.eventually("status tells that the relay is away", func() bool {
		s := w.status()
		return !s.Relay.Connected && s.Relay.Problem != ""
	})
	w.must(w.Relay.Restart(w.ctx))
	w.answers(address)
	w.eventually("status tells that all is well", func() bool {
		s := w.status()
		return s.Relay.Connected && len(s.Rentals) == 1 && s.Rentals[0].Trouble == ""
	})
	w.untouched(running)
}

func TestBackendRestart(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	running := w.rent(w.order("r-backend"))
	w.Backend.Down()
	w.eventually("status tells that the backend is away", func() bool { return w.status().Backend.Problem != "" })
	w.answers(running.Ports[0].PublicAddress)

	// What happens meanwhile is told later.
	if out, code := w.cli("rentals", "end", "r-backend"); code != 0 {
		t.Fatalf("ending a rental by hand exits %d: %s", code, out)
	}
	w.eventually("the container is gone", func() bool {
		ids, err := shared.docker.containers()
		return err == nil && len(ids) == 0
	})
	w.must(w.Backend.Up(w.ctx))
	status := w.reach("r-backend", "stopped")
	if status.Error == nil || status.Error.Code != protocol.StoppedByHost {
		t.Errorf("final status %+v, want error code stopped_by_host", status)
	}
}

func TestEngineRestart(t *testing.T) {
	tests := []struct {
		name        string
		liveRestore bool
		kill        bool
		sameProcess bool // the rental's container is not even restarted
	}{
		{name: "live-restore", liveRestore: true, sameProcess: true},
		{name: "live-restore, killed", liveRestore: true, kill: true, sameProcess: true},
		{name: "plain"},
		{name: "plain, killed", kill: true},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, options{})
			w.must(shared.engine.SetLiveRestore(w.ctx, test.liveRestore))
			w.start()
			id := fmt.Sprintf("r-engine-%d", i)
			running := w.rent(w.order(id))
			address := running.Ports[0].PublicAddress
			w.answers(address)
			before, err := shared.docker.inspect(running.ContainerID)
			w.must(err)

			if test.kill {
				w.must(shared.engine.Kill())
			} else {
				w.must(shared.engine.Down())
			}
			w.eventually("status tells that Docker is away", func() bool { return !w.status().Engine.Available })
			if out, code := w.cli("logs", id); code != 6 {
				t.Errorf("logs without Docker exits %d, want 6: %s", code, out)
			}
			w.must(shared.engine.Restart(w.ctx))

			w.eventually("the same container runs", func() bool {
				c, err := shared.docker.inspect(running.ContainerID)
				return err == nil && c.State.Running
			})
			w.answers(address)
			after, err := shared.docker.inspect(running.ContainerID)
			w.must(err)
			if same := before.State.Pid == after.State.Pid; same != test.sameProcess {
				t.Errorf("same process: %v, want %v", same, test.sameProcess)
			}
			w.eventually("the agent accepts again", func() bool { return w.status().Accepting })
			w.stop(id)
			w.nothingLeft()
		})
	}
}

// An agent that is there before Docker says so and takes rentals once Docker has come.
func TestDockerComesLater(t *testing.T) {
	w := newWorld(t, options{})
	w.must(shared.engine.Down())
	w.start()
	s := w.status()
	if s.Accepting || s.Engine.Problem == "" || !hasProblem(s, "ocker") {
		t.Errorf("without Docker the status is %+v", s)
	}
	node, _ := w.Backend.Node(w.node)
	if node.Heartbeat.Accepting {
		t.Error("the node accepts rentals without Docker")
	}
	result, err := w.Backend.StartInstance(w.within(), w.node, w.order("r-early"))
	w.must(err)
	if result.OK || result.Error.Code != protocol.DockerUnavailable {
		t.Errorf("start_instance without Docker: %+v", result)
	}
	w.must(shared.engine.Restart(w.ctx))
	w.eventually("the node accepts", func() bool { return w.status().Accepting })
	w.rent(w.order("r-late"))
	w.stop("r-late")
}

func TestWrongKey(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	running := w.rent(w.order("r-expired-key"))
	w.Backend.Expire(w.Key)
	w.eventually("status asks to sign in", func() bool { return w.status().Backend.NeedsSignIn })
	w.answers(running.Ports[0].PublicAddress)
	w.untouched(running)
}

func TestWrongAuthority(t *testing.T) {
	w := newWorld(t, options{})
	other := newWorld(t, options{})
	pem, err := os.ReadFile(other.Dir + "/ca.pem")
	w.must(err)
	w.must(os.WriteFile(w.Dir+"/ca.pem", pem, 0o600))
	w.run()
	w.eventually("status names the certificate", func() bool {
		out, code := w.cli("status", "--json")
		return code == 0 && strings.Contains(out, "certificate")
	})
	if nodes := w.Backend.Nodes(); len(nodes) != 0 {
		t.Errorf("nodes connected past a wrong authority: %v", nodes)
	}
}

func TestPortTaken(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	order := w.order("r-port")
	var address string
	for _, public := range order.PortMapping {
		address = portAddress(public)
	}
	squatter := listen(t, address)
	w.accept(order)
	w.eventually("status names the taken port", func() bool {
		s := w.status()
		return len(s.Rentals) == 1 && strings.Contains(s.Rentals[0].Trouble, "port")
	})
	squatter.Close()
	w.reach("r-port", "running")
	w.answers(address)
}

// Nothing that is wrong, hostile or too much starts anything, and the link stays up.
func TestRefusals(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.eventually("the node accepts", func() bool { return w.status().Accepting })
	good := fmt.Sprintf(`"rental_id":"r-bad","image":%q,"gpu_indices":[],"ram_limit":"64m","cpu_cores":0.5`, w.Image)
	tests := []struct {
		name, frame string
		want        protocol.ErrorCode // "": no answer is due
	}{
		{"not JSON", `{"event":`, ""},
		{"no event", `{"id":"a1"}`, protocol.InvalidRequest},
		{"unknown event", `{"event":"self_destruct","id":"a2","data":{}}`, protocol.UnknownEvent},
		{"unknown event without id", `{"event":"self_destruct","data":{}}`, ""},
		{"privileged", `{"event":"start_instance","id":"a3","data":{` + good + `,"privileged":false}}`, protocol.ForbiddenOption},
		{"volumes", `{"event":"start_instance","id":"a4","data":{` + good + `,"volumes":["/:/host"]}}`, protocol.ForbiddenOption},
		{"unknown field", `{"event":"start_instance","id":"a5","data":{` + good + `,"nice":true}}`, protocol.InvalidRequest},
		{"path in the id", `{"event":"start_instance","id":"a6","data":{` + strings.Replace(good, "r-bad", "../r", 1) + `}}`, protocol.InvalidRequest},
		{"too much memory", `{"event":"start_instance","id":"a7","data":{` + strings.Replace(good, "64m", "900g", 1) + `}}`, protocol.InsufficientResources},
		{"GPU that is not there", `{"event":"start_instance","id":"a8","data":{` + strings.Replace(good, "[]", "[3]", 1) + `}}`, protocol.GPUUnavailable},
		{"NVIDIA variable", `{"event":"start_instance","id":"a9","data":{` + good + `,"env_vars":{"NVIDIA_VISIBLE_DEVICES":"all"}}}`, protocol.ForbiddenOption},
		{"stop of nothing", `{"event":"stop_instance","id":"b1","data":{"rental_id":"r-none"}}`, protocol.NotFound},
	}
	before, _ := w.Backend.Node(w.node)
	for _, test := range tests {
		mark := w.Backend.Mark()
		w.must(w.Backend.SendRaw(w.node, []byte(test.frame)))
		if test.want == "" {
			continue
		}
		result := w.answer(mark)
		if result.OK || result.Error == nil || result.Error.Code != test.want {
			t.Errorf("%s: answered %+v, want %s", test.name, result.Error, test.want)
		}
	}
	after, _ := w.Backend.Node(w.node)
	if !after.Connected || after.Connections != before.Connections {
		t.Errorf("the link did not hold: %d connections, then %d", before.Connections, after.Connections)
	}
	w.nothingLeft()
}

func TestPauseDrainQuit(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.eventually("the node accepts", func() bool { return w.status().Accepting })
	running := w.rent(w.order("r-stays"))
	for i, step := range []struct {
		command string
		accepts bool
	}{{"pause", false}, {"resume", true}, {"drain", false}, {"resume", true}} {
		if out, code := w.cli(step.command); code != 0 {
			t.Fatalf("%s exits %d: %s", step.command, code, out)
		}
		id := fmt.Sprintf("r-%s-%d", step.command, i)
		result, err := w.Backend.StartInstance(w.within(), w.node, w.order(id))
		if err != nil || result.OK != step.accepts {
			t.Fatalf("after %s an order is answered %+v, %v", step.command, result, err)
		}
		if step.accepts {
			w.reach(id, "running")
			w.stop(id)
		}
	}
	if _, code := w.cli("start"); code != 3 {
		t.Errorf("a second start exits %d, want 3", code)
	}
	w.quit()
	if c, err := shared.docker.inspect(running.ContainerID); err != nil || !c.State.Running {
		t.Errorf("quitting touched the rental: %+v, %v", c, err)
	}
	if _, code := w.cli("status"); code != 4 {
		t.Errorf("status without an agent exits %d, want 4", code)
	}
	w.start()
	w.answers(running.Ports[0].PublicAddress)
	w.stop("r-stays")
	w.nothingLeft()
}

// answer is the next command_result after a mark.
func (w *world) answer(mark int) *protocol.CommandResult {
	w.t.Helper()
	for event := range w.Backend.Events(w.within(), mark) {
		if result, ok := event.Message.(*protocol.CommandResult); ok {
			return result
		}
	}
	w.t.Fatal("no answer came")
	return nil
}

// untouched requires that a rental's container still runs as it did.
func (w *world) untouched(running protocol.InstanceStatus) {
	w.t.Helper()
	c, err := shared.docker.inspect(running.ContainerID)
	if err != nil || !c.State.Running {
		w.t.Errorf("the rental's container: %+v, %v", c, err)
	}
}

// nothingLeft requires that the engine holds nothing of a rental, and nothing at all of the agent once that
// has quit: while it runs it keeps one unused network in stock.
func (w *world) nothingLeft() {
	w.t.Helper()
	if ids, err := shared.docker.containers(); err != nil || len(ids) != 0 {
		w.t.Errorf("containers left: %v, %v", ids, err)
	}
	w.quit()
	if ids, err := shared.docker.networks(); err != nil || len(ids) != 0 {
		w.t.Errorf("networks left: %v, %v", ids, err)
	}
}

// quit ends the agent as its owner would.
func (w *world) quit() {
	w.t.Helper()
	if out, code := w.cli("stop"); code != 0 {
		w.t.Fatalf("stop exits %d: %s", code, out)
	}
	select {
	case <-w.agent.done:
	case <-time.After(patience):
		w.t.Fatal("the agent does not quit")
	}
	if code := w.agent.cmd.ProcessState.ExitCode(); code != 0 {
		w.t.Errorf("the agent exits %d after stop", code)
	}
}

func hasProblem(s status, text string) bool {
	for _, p := range s.Problems {
		if strings.Contains(p.Message, text) && p.Fix != "" {
			return true
		}
	}
	return false
}
