package backend

import (
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// TestSession follows one connection over real TLS: who calls, what is said first, and that
// commands and answers cross.
func TestSession(t *testing.T) {
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler)).start()
	peer := <-accepted
	defer peer.Close()
	for header, want := range map[string]string{
		"Authorization":            "Bearer " + testKey,
		"User-Agent":               fmt.Sprintf("distributed-agent/1.2.3 (%s; %s)", runtime.GOOS, runtime.GOARCH),
		"Sec-Websocket-Protocol":   "distributedcompute.v1",
		"Sec-Websocket-Extensions": "",
	} {
		if got := peer.request.Header.Get(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
	first := peer.next()
	if _, ok := first.Data.(*protocol.Register); !ok || first.ID == "" {
		t.Fatalf("the first frame is %s %q, want a register with an id", first.Data.Event(), first.ID)
	}
	if second := peer.next(); second.Data.Event() != "heartbeat" {
		t.Errorf("the second frame is %s, want a heartbeat", second.Data.Event())
	}
	if h := link.await(func(h protocol.LinkHealth) bool { return h.Connected }); h.Registered {
		t.Error("registered before the backend has answered")
	}
	peer.say(first.ID, protocol.Registered{NodeID: "node-1", HeartbeatIntervalS: 7})
	in := <-link.Commands()
	if registered, ok := in.Data.(*protocol.Registered); !ok || in.ID != "" || registered.HeartbeatIntervalS != 7 {
		t.Errorf("handed on %s, want registered without an id", object(in))
	}
	link.await(func(h protocol.LinkHealth) bool { return h.Registered })
	peer.say("c-1", protocol.RunSpeedtest{})
	if in := <-link.Commands(); in.ID != "c-1" || in.Data.Event() != "run_speedtest" {
		t.Errorf("handed on %s", object(in))
	}
	link.Answer(command("c-1"), protocol.CommandResult{OK: true})
	link.Answer(command("c-1"), protocol.CommandResult{OK: false}) // there is one answer
	link.Answer(command("c-2"), protocol.CommandResult{OK: true})
	for _, id := range []string{"c-1", "c-2"} {
		if result, got := until[*protocol.CommandResult](peer); got != id || !result.OK {
			t.Errorf("answered %q %+v, want %q", got, result, id)
		}
	}
}

// TestReregister: another register goes out on the same connection, under an id of its own.
func TestReregister(t *testing.T) {
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler))
	link.Reregister() // without a connection: the first register says it all
	link.start()
	peer := <-accepted
	defer peer.Close()
	_, first := until[*protocol.Register](peer)
	until[*protocol.Heartbeat](peer)
	link.Reregister()
	_, second := until[*protocol.Register](peer)
	if second == first {
		t.Errorf("both registers have the id %q", first)
	}
	peer.raw(fmt.Sprintf(`{"event":"command_result","id":%q,"data":{"ok":false}}`, second)) // no answer to an answer
	link.PostNode(protocol.NodeStatus{Status: protocol.Online})
	for {
		in := peer.next()
		if _, last := in.Data.(*protocol.NodeStatus); last {
			break
		}
		if in.Data.Event() != "heartbeat" {
			t.Errorf("sent %s", object(in))
		}
	}
}

// TestRefusedRegistered: the host is told of an answer to register that cannot be used, until there is
// one that can.
func TestRefusedRegistered(t *testing.T) {
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler)).start()
	peer := <-accepted
	defer peer.Close()
	_, id := until[*protocol.Register](peer)
	peer.raw(fmt.Sprintf(`{"event":"registered","id":%q,"data":{"node_id":"n","heartbeat_interval_s":90}}`, id))
	h := link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
	if !h.Connected || h.Registered || !strings.Contains(h.Problem, "(heartbeat_interval_s: takes a whole number from 1 to 60, got 90)") {
		t.Errorf("health is %+v", h)
	}
	peer.raw(fmt.Sprintf(`{"event":"registered","id":%q,"data":{"node_id":"n","earnings":{"today":1.5}}}`, id))
	if in := <-link.Commands(); in.Data.(*protocol.Registered).NodeID != "n" {
		t.Errorf("handed on %s", object(in))
	}
	if h := link.Health(); !h.Registered || h.Problem != "" {
		t.Errorf("health is %+v", h)
	}
}

// TestEarningsLeftOut: of a part that was left out there is a line in the log.
func TestEarningsLeftOut(t *testing.T) {
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler)).start()
	peer := <-accepted
	defer peer.Close()
	peer.raw(`{"event":"registered","data":{"node_id":"n","earnings":{"today":1.5}}}`)
	<-link.Commands()
	if log := link.log.String(); !strings.Contains(log, "earnings.today: takes a decimal number") {
		t.Errorf("the log says\n%s", log)
	}
}

// TestUnsayable: what cannot be encoded is called too large only where it is.
func TestUnsayable(t *testing.T) {
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler)).start()
	peer := <-accepted
	defer peer.Close()
	for i, test := range []struct {
		result any
		says   string
	}{
		{math.NaN(), "The answer cannot be sent."},
		{strings.Repeat("a", protocol.MaxFrameBytes), "The answer is too large to be sent; ask for less."},
	} {
		peer.say(fmt.Sprint(i), protocol.RunSpeedtest{})
		link.Answer(<-link.Commands(), protocol.CommandResult{OK: true, Result: test.result})
		if answer, _ := until[*protocol.CommandResult](peer); answer.Error == nil || answer.Error.Message != test.says {
			t.Errorf("answered %s, want %q", object(answer), test.says)
		}
	}
	s := newSession(link.Link, 1, peer.Conn, talk{register: func() protocol.Register {
		return protocol.Register{Offer: protocol.Offer{CPUCores: math.NaN()}}
	}})
	if err := s.register(); err == nil || strings.Contains(err.Error(), "too large") || !strings.Contains(err.Error(), "cannot be sent (encoding register:") {
		t.Errorf("says %v", err)
	}
}

// TestSeedOnlyBackend: a backend that selects no subprotocol, never answers register and sends no
// ids is served like any other.
func TestSeedOnlyBackend(t *testing.T) {
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler)).start()
	peer := <-accepted
	defer peer.Close()
	link.SetInterval(0) // the fastest there is: 1 s
	until[*protocol.Heartbeat](peer)
	peer.raw(`{"event":"start_instance","data":{"rental_id":"r-1","image":"debian","env_vars":{},"gpu_indices":[],"ram_limit":"512m","cpu_cores":1,"port_mapping":{"22":10022}}}`)
	peer.raw(`{"event":"stop_instance","data":{"rental_id":"r-1","graceful":true}}`)
	peer.raw(`{"event":"drain_node"}`)
	for _, want := range []string{"start_instance", "stop_instance", "drain_node"} {
		if in := <-link.Commands(); in.ID != "" || in.Data.Event() != want {
			t.Errorf("handed on %s, want %s", object(in), want)
		}
	}
	until[*protocol.Heartbeat](peer)
	if h := link.Health(); !h.Connected || h.Registered {
		t.Errorf("health is %+v", h)
	}
}

// TestRefusedFrames: what is not understood is answered where it can be, and the link stays up.
func TestRefusedFrames(t *testing.T) {
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler)).start()
	peer := <-accepted
	defer peer.Close()
	for _, test := range []struct {
		frame string
		id    string
		code  protocol.ErrorCode
	}{
		{`garbage`, "", ""},
		{``, "", ""},
		{`{"event":"run_shell"}`, "", ""},
		{`{"event":"run_shell","id":"c-1"}`, "c-1", protocol.UnknownEvent},
		{`{"event":"start_instance","id":"c-2","data":{"rental_id":"r","image":"a","ram_limit":1,"cpu_cores":1,"privileged":true}}`, "c-2", protocol.ForbiddenOption},
		{`{"event":"start_instance","id":"c-3","data":{"rental_id":"r","image":"a","ram_limit":1,"cpu_cores":"x"}}`, "c-3", protocol.InvalidRequest},
		{strings.Repeat(`[`, 100_000), "", ""},
		{`{"event":"notice","id":"c-4","data":{"title":7}}`, "c-4", protocol.InvalidRequest},
	} {
		peer.raw(test.frame)
		if test.id == "" {
			continue
		}
		result, id := until[*protocol.CommandResult](peer)
		if id != test.id || result.OK || result.Error == nil || result.Error.Code != test.code {
			t.Errorf("%.80s\nanswered %q %s, want %q %s", test.frame, id, object(result), test.id, test.code)
		}
	}
	peer.say("", protocol.ResumeNode{})
	if in := <-link.Commands(); in.Data.Event() != "resume_node" {
		t.Errorf("handed on %s: a refused frame came through", object(in))
	}
	if complaints := strings.Count(link.log.String(), "cannot be answered"); complaints != 1 {
		t.Errorf("%d complaints in the log, want 1: they are rate-limited", complaints)
	}
}

// TestBrokenContract: what breaks the contract of frames closes the connection with its code.
func TestBrokenContract(t *testing.T) {
	for _, test := range []struct {
		name string
		kind int
		data []byte
		code int
	}{
		{"binary", websocket.BinaryMessage, []byte(`{"event":"resume_node"}`), websocket.CloseUnsupportedData},
		{"invalid UTF-8", websocket.TextMessage, []byte("{\"event\":\"\xff\"}"), websocket.CloseInvalidFramePayloadData},
		{"too large", websocket.TextMessage, make([]byte, 64*protocol.MaxFrameBytes), websocket.CloseMessageTooBig},
	} {
		t.Run(test.name, func(t *testing.T) {
			handler, accepted := peers(t)
			link := newLink(t, serveTLS(t, handler)).start()
			peer := <-accepted
			if err := peer.WriteMessage(test.kind, test.data); err != nil {
				t.Fatal(err)
			}
			for {
				if _, _, err := peer.ReadMessage(); err != nil {
					if !websocket.IsCloseError(err, test.code) {
						t.Errorf("ended with %v, want code %d", err, test.code)
					}
					break
				}
			}
			peer.Close()
			h := link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
			if h.Connected || h.NextTry.IsZero() || !strings.Contains(h.Problem, "closed") {
				t.Errorf("health is %+v", h)
			}
		})
	}
}

// TestLargestFrame: the limit itself still passes.
func TestLargestFrame(t *testing.T) {
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler)).start()
	peer := <-accepted
	defer peer.Close()
	frame := `{"event":"resume_node","data":{"padding":""}}`
	peer.raw(strings.Replace(frame, `""`, `"`+strings.Repeat("p", protocol.MaxFrameBytes-len(frame))+`"`, 1))
	if in := <-link.Commands(); in.Data.Event() != "resume_node" {
		t.Errorf("handed on %s", object(in))
	}
}

// TestRepeatedCommand: a thousand times the same command is one effect and the same answer.
func TestRepeatedCommand(t *testing.T) {
	const times = 1000
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler)).start()
	peer := <-accepted
	defer peer.Close()
	for range 3 {
		peer.say("c-1", protocol.RunSpeedtest{}) // the repeats arrive before the answer
	}
	peer.say("", protocol.ResumeNode{})
	if in := <-link.Commands(); in.ID != "c-1" {
		t.Fatalf("handed on %s", object(in))
	}
	if in := <-link.Commands(); in.Data.Event() != "resume_node" {
		t.Fatalf("handed on twice: %s", object(in))
	}
	link.Answer(command("c-1"), protocol.CommandResult{OK: true, Result: "first"})
	first, _ := until[*protocol.CommandResult](peer)
	go func() {
		for range times {
			peer.say("c-1", protocol.RunSpeedtest{})
		}
		peer.say("", protocol.DrainNode{})
	}()
	for i := range times {
		if again, id := until[*protocol.CommandResult](peer); id != "c-1" || object(again) != object(first) {
			t.Fatalf("answer %d is %q %s, want %s", i, id, object(again), object(first))
		}
	}
	if in := <-link.Commands(); in.Data.Event() != "drain_node" {
		t.Errorf("handed on again: %s", object(in))
	}
}

// command is one with that id, of the first connection.
func command(id string) protocol.Incoming { return protocol.Incoming{ID: id, Connection: 1} }

// TestAnswersStayOnTheirConnection: a backend that counts its ids anew on each connection never takes
// the answer to an earlier command for that to another one.
func TestAnswersStayOnTheirConnection(t *testing.T) {
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler)).start()
	peer := <-accepted
	peer.say("1", protocol.RunSpeedtest{})
	peer.say("2", protocol.DrainNode{})
	test, drain := <-link.Commands(), <-link.Commands()
	peer.Close()
	link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
	link.Answer(drain, protocol.CommandResult{OK: true, Result: "old"}) // while there is no connection
	link.Retry()
	peer = <-accepted
	defer peer.Close()
	peer.say("1", protocol.ResumeNode{})
	resume := <-link.Commands()
	link.Answer(test, protocol.CommandResult{OK: true, Result: "old"})
	link.Answer(resume, protocol.CommandResult{OK: true, Result: "new"})
	if answer, id := until[*protocol.CommandResult](peer); id != "1" || string(answer.Result.(json.RawMessage)) != `"new"` {
		t.Errorf("answered %q %s, want the answer to the new 1", id, object(answer))
	}
}

// TestStorm: 10,000 commands, valid, repeated, malformed and hostile, are all answered while the
// memory stays bounded and heartbeats go on.
func TestStorm(t *testing.T) {
	const commands = 10_000
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler)).start()
	peer := <-accepted
	defer peer.Close()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	go func() { // the agent
		for in := range link.Commands() {
			link.Answer(in, protocol.CommandResult{OK: true})
		}
	}()
	go func() { // the backend's writing half
		for i := range commands {
			id := fmt.Sprintf("c-%d", i)
			switch i % 4 {
			case 0:
				peer.say(id, protocol.GetLogs{RentalID: "r-1", Tail: 1})
			case 1:
				peer.say(id, protocol.StartInstance{RentalID: "r-1", Image: "a", RAMLimit: 1 << 20, CPUCores: 1})
			case 2:
				peer.raw(fmt.Sprintf(`{"event":"start_instance","id":%q,"data":{"privileged":true}}`, id))
			case 3:
				peer.raw(fmt.Sprintf(`{"event":"stop_instance","id":%q,"data":{}}`, id))
			}
		}
	}()
	answered := map[string]bool{}
	for len(answered) < commands {
		_, id := until[*protocol.CommandResult](peer)
		if answered[id] {
			t.Fatalf("%s is answered twice", id)
		}
		answered[id] = true
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 16<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
}

// TestStatuses: states in order, of progress the latest, final ones again after each reconnect
// until they are confirmed.
func TestStatuses(t *testing.T) {
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler))
	pulling := status("r-1", 2, "pulling")
	link.PostInstance(status("r-1", 1, "accepted"))
	link.PostInstance(pulling)
	for i := range int64(100) {
		pulling.Sequence, pulling.Progress = 3+i, &protocol.Progress{Phase: "pulling", CurrentBytes: i}
		link.PostInstance(pulling)
	}
	link.PostInstance(status("r-1", 103, "failed"))
	link.PostInstance(status("r-2", 1, "stopped"))
	link.PostNode(protocol.NodeStatus{Status: protocol.Paused})
	link.start()
	peer := <-accepted
	until[*protocol.Heartbeat](peer) // register and a heartbeat come before the statuses
	var got []string
	for range 5 {
		in := peer.next()
		s, ok := in.Data.(*protocol.InstanceStatus)
		if !ok {
			t.Fatalf("sent %s: register has said how the node is", object(in))
		}
		got = append(got, fmt.Sprint(s.RentalID, " ", s.Sequence, " ", s.State))
	}
	want := "r-1 1 accepted, r-2 1 stopped, r-1 2 pulling, r-1 102 pulling, r-1 103 failed"
	if strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
	peer.say("", protocol.StatusReceived{RentalID: "r-1", Sequence: 102}) // not the final one
	peer.say("", protocol.StatusReceived{RentalID: "r-2", Sequence: 1})
	for range 2 {
		if in := <-link.Commands(); in.Data.Event() != "status_received" {
			t.Errorf("handed on %s", object(in))
		}
	}
	peer.Close()
	link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
	link.Retry()
	peer = <-accepted
	defer peer.Close()
	if s, _ := until[*protocol.InstanceStatus](peer); s.RentalID != "r-1" || s.Sequence != 103 {
		t.Errorf("sent again: %s, want the end of r-1", object(s))
	}
	link.PostInstance(status("r-1", 103, "failed")) // known already
	link.PostInstance(status("r-3", 1, "accepted"))
	if s, _ := until[*protocol.InstanceStatus](peer); s.RentalID != "r-3" {
		t.Errorf("sent %s, want r-3", object(s))
	}
}

// TestLeave: what is queued is sent, then the close frame, and Run returns.
func TestLeave(t *testing.T) {
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, handler)).start()
	peer := <-accepted
	defer peer.Close()
	until[*protocol.Heartbeat](peer)
	for i := range 50 {
		link.PostInstance(status(fmt.Sprintf("r-%d", i), 1, "stopped"))
	}
	link.leave()
	seen := 0
	for {
		_, frame, err := peer.ReadMessage()
		if err != nil {
			if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
				t.Errorf("ended with %v, want 1001", err)
			}
			break
		}
		if strings.Contains(string(frame), `"instance_status"`) {
			seen++
		}
	}
	if seen != 50 {
		t.Errorf("%d of 50 final statuses were sent on the way out", seen)
	}
	if err := <-link.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if h := link.Health(); h.Connected || h.Registered {
		t.Errorf("health is %+v", h)
	}
}

// BenchmarkCommand is the way of a command through the link, and of its answer back, over TLS.
func BenchmarkCommand(b *testing.B) {
	handler, accepted := peers(b)
	link := newLink(b, serveTLS(b, handler)).start()
	peer := <-accepted
	defer peer.Close()
	go func() {
		for in := range link.Commands() {
			link.Answer(in, protocol.CommandResult{OK: true})
		}
	}()
	until[*protocol.Heartbeat](peer)
	for i := 0; b.Loop(); i++ {
		peer.say(fmt.Sprint(i), protocol.StartInstance{RentalID: "r-1", Image: "debian", RAMLimit: 1 << 30, CPUCores: 1})
		until[*protocol.CommandResult](peer)
	}
}
