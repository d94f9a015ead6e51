package backend_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/sandbox/backend"
)

func TestUnknownKeyIsRefused(t *testing.T) {
	m := start(t, backend.Options{})
	for name, key := range map[string]secret.String{"made up": secret.New("nobody"), "empty": {}} {
		t.Run(name, func(t *testing.T) {
			_, response, err := m.dial(t.Context(), key)
			if err == nil || response == nil {
				t.Fatalf("dialling gave %v, want a refusal", err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			var refusal struct{ Error protocol.Error }
			if err := json.Unmarshal(body, &refusal); err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != http.StatusUnauthorized || refusal.Error.Code != "unauthorized" || refusal.Error.Message == "" {
				t.Errorf("answered %d %s, want 401 and the backend's own error", response.StatusCode, body)
			}
		})
	}
}

func TestRegister(t *testing.T) {
	m := start(t, backend.Options{HeartbeatIntervalS: 7, Relay: &protocol.Relay{
		Address: "127.0.0.1:7000", Token: secret.New("hush"), TLS: true, ServerName: "relay.example",
	}})
	key := m.IssueKey()
	c := m.connect(t, key)
	if c.Subprotocol() != protocol.Subprotocol {
		t.Errorf("subprotocol %q was selected", c.Subprotocol())
	}
	answer := c.register("r-1")
	if answer.Event != "registered" || answer.ID != "r-1" || answer.Data["heartbeat_interval_s"] != 7.0 {
		t.Errorf("answer = %+v", answer)
	}
	relay, _ := answer.Data["relay"].(map[string]any)
	if relay["token"] != "hush" || relay["server_name"] != "relay.example" {
		t.Errorf("relay = %v", relay)
	}
	node, err := m.WaitNode(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if node.ID != answer.Data["node_id"] || node.Register.Agent.Version != "1.0.0" {
		t.Errorf("node = %+v, want id %v", node, answer.Data["node_id"])
	}

	// The same key is the same node, and the newer connection counts.
	again := m.connect(t, key).register("r-2")
	if again.Data["node_id"] != node.ID {
		t.Errorf("second registration gave node %v, want %s", again.Data["node_id"], node.ID)
	}
	if _, _, err := c.ReadMessage(); err == nil {
		t.Error("the older connection was left open")
	}
	if other := m.connect(t, m.IssueKey()).register("r-1"); other.Data["node_id"] == node.ID {
		t.Error("another key got the same node")
	}
}

func TestHeartbeatsAreKept(t *testing.T) {
	m := start(t, backend.Options{})
	c := m.connect(t, m.IssueKey())
	c.register("r")
	for n := range 3 {
		c.say("", protocol.Heartbeat{Status: protocol.Online, Instances: n})
	}
	_, err := m.WaitEvent(within(t), 0, func(e backend.Event) bool {
		beat, ok := e.Message.(*protocol.Heartbeat)
		return ok && beat.Instances == 2
	})
	if err != nil {
		t.Fatal(err)
	}
	nodes := m.Nodes()
	if len(nodes) != 1 || len(nodes[0].Heartbeats) != 3 || nodes[0].Heartbeat.Instances != 2 {
		t.Errorf("nodes = %+v, want one with three heartbeats", nodes)
	}
}

func TestCommandsAreAnsweredById(t *testing.T) {
	m := start(t, backend.Options{PricePerHour: "0.10"})
	c := m.connect(t, m.IssueKey())
	node := c.register("r").Data["node_id"].(string)

	type outcome struct {
		result protocol.CommandResult
		err    error
	}
	results := make(chan outcome)
	for _, rental := range []string{"one", "two"} {
		go func() {
			result, err := m.StartInstance(within(t), node, order(rental))
			results <- outcome{result, err}
		}()
	}
	first, second := c.hear(), c.hear()
	if first.ID == second.ID || first.Data["price_per_hour"] != "0.10" {
		t.Fatalf("orders are %+v and %+v", first, second)
	}
	// Answered in the other order, one refused: each caller gets its own.
	refused, _ := second.Data["rental_id"].(string)
	c.say(second.ID, protocol.CommandResult{Error: &protocol.Error{Code: protocol.NotAccepting, Message: "Paused."}})
	if got := <-results; got.err != nil || got.result.OK || got.result.Error.Code != protocol.NotAccepting {
		t.Errorf("order %v gave %+v", refused, got)
	}
	if rental, _ := m.Rental(refused); rental.Refusal == nil || rental.Refusal.Message != "Paused." {
		t.Errorf("refused rental = %+v", rental)
	}
	c.say(first.ID, protocol.CommandResult{OK: true})
	if got := <-results; got.err != nil || !got.result.OK {
		t.Errorf("order %v gave %+v", first.Data["rental_id"], got)
	}
}

func TestResults(t *testing.T) {
	m := start(t, backend.Options{})
	c := m.connect(t, m.IssueKey())
	node := c.register("r").Data["node_id"].(string)

	answer := func(result protocol.CommandResult) {
		t.Helper()
		c.say(c.hear().ID, result)
	}
	type logs struct {
		protocol.Logs
		err error
	}
	got := make(chan logs)
	ask := func() {
		text, err := m.GetLogs(within(t), node, protocol.GetLogs{RentalID: "one", Tail: 5})
		got <- logs{text, err}
	}
	go ask()
	answer(protocol.CommandResult{OK: true, Result: protocol.Logs{Text: "hello", Truncated: true}})
	if l := <-got; l.err != nil || l.Text != "hello" || !l.Truncated {
		t.Errorf("logs = %+v", l)
	}
	go ask()
	answer(protocol.CommandResult{Error: &protocol.Error{Code: protocol.NotFound, Message: "No such rental."}})
	if l := <-got; l.err == nil {
		t.Error("a refusal was taken for logs")
	} else if refusal, ok := errors.AsType[*protocol.Error](l.err); !ok || refusal.Code != protocol.NotFound {
		t.Errorf("refusal = %v", l.err)
	}
}

func TestRentalHistory(t *testing.T) {
	m := start(t, backend.Options{})
	c := m.connect(t, m.IssueKey())
	c.register("r")
	for n, state := range []string{"accepted", "pulling", "running"} {
		c.say("", status("one", int64(n+1), state))
	}
	c.say("", status("one", 3, "running")) // again, as after a reconnect
	if _, err := m.WaitState(within(t), "one", "running"); err != nil {
		t.Fatal(err)
	}
	c.say("", status("one", 4, "stopped"))
	receipt := c.hear()
	if receipt.Event != "status_received" || receipt.Data["rental_id"] != "one" || receipt.Data["sequence"] != 4.0 {
		t.Errorf("a final status was answered with %+v", receipt)
	}
	rental, _ := m.Rental("one")
	if len(rental.History) != 4 || rental.Latest().State != "stopped" {
		t.Errorf("history = %+v", rental.History)
	}
	c.say("", protocol.InstanceStatus{
		RentalID: "two", Sequence: 1, State: "failed",
		Error: &protocol.Error{Code: protocol.ImageNotFound, Message: "No such image."},
	})
	if _, err := m.WaitState(within(t), "two", "running"); err == nil || !strings.Contains(err.Error(), "No such image.") {
		t.Errorf("waiting for a failed rental gave %v", err)
	}
}

func TestHeldReceipts(t *testing.T) {
	m := start(t, backend.Options{})
	m.HoldReceipts(true)
	c := m.connect(t, m.IssueKey())
	c.register("r")
	c.say("", status("one", 1, "failed"))
	if again := c.register("r-2"); again.Event != "registered" {
		t.Errorf("got %+v, want no receipt before the next answer", again)
	}
}

func TestCutAndDown(t *testing.T) {
	m := start(t, backend.Options{})
	key := m.IssueKey()
	url := m.URL()

	c := m.connect(t, key)
	node := c.register("r").Data["node_id"].(string)
	waiting := make(chan error)
	go func() {
		_, err := m.ResumeNode(within(t), node)
		waiting <- err
	}()
	c.hear()
	m.Cut(websocket.CloseServiceRestart)
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		t.Errorf("a cut with code 1012 was heard as %v", err)
	}
	if err := <-waiting; err == nil {
		t.Error("a command was answered by nobody")
	}

	c = m.connect(t, key)
	c.register("r")
	m.Down()
	if _, _, err := c.ReadMessage(); err == nil {
		t.Error("a connection outlived the backend")
	}
	if _, _, err := m.dial(t.Context(), key); !isRefused(err) {
		t.Errorf("dialling a backend that is down gave %v", err)
	}
	if err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.URL() != url {
		t.Errorf("came back as %s, was %s", m.URL(), url)
	}
	if back := m.connect(t, key).register("r"); back.Data["node_id"] != node {
		t.Errorf("after an outage the node is %v, was %s", back.Data["node_id"], node)
	}
}

// Of two agents with one key the older is told why it has to go, and the newer stays.
func TestReplaced(t *testing.T) {
	m := start(t, backend.Options{})
	key := m.IssueKey()
	older := m.connect(t, key)
	older.register("r")
	newer := m.connect(t, key)
	_ = older.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _, err := older.ReadMessage()
	closed, ok := errors.AsType[*websocket.CloseError](err)
	if !ok || closed.Code != protocol.CloseReplaced || closed.Text != "replaced by another connection of this node" {
		t.Errorf("the older connection ended with %v", err)
	}
	node := newer.register("r").Data["node_id"].(string)
	n, err := m.WaitNode(within(t)) // it counts as registered just after the answer has gone out
	if err != nil || n.ID != node || n.Connections != 2 {
		t.Errorf("the node is %+v, %v", n, err)
	}
}

func isRefused(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

func TestExpire(t *testing.T) {
	m := start(t, backend.Options{})
	key := m.IssueKey()
	c := m.connect(t, key)
	c.register("r")
	m.Expire(key)
	if _, _, err := c.ReadMessage(); err == nil {
		t.Error("the connection outlived its key")
	}
	_, response, err := m.dial(t.Context(), key)
	if err == nil || response == nil || response.StatusCode != http.StatusUnauthorized {
		t.Errorf("an expired key was answered %v, %v", response, err)
	}
	m.Restore(key)
	m.connect(t, key).register("again")
	if nodes := m.Nodes(); len(nodes) != 1 || nodes[0].Connections != 2 {
		t.Errorf("a restored key belongs to %+v, want the node it belonged to", nodes)
	}
}

func TestIntercept(t *testing.T) {
	m := start(t, backend.Options{})
	key := m.IssueKey()
	m.Intercept(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	_, response, err := m.dial(t.Context(), key)
	if err == nil || response == nil || response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") != "3" {
		t.Errorf("answered %+v, %v", response, err)
	}
	m.Intercept(nil)
	m.connect(t, key)
}

func TestGarbledFramesAreRecorded(t *testing.T) {
	m := start(t, backend.Options{})
	c := m.connect(t, m.IssueKey())
	if err := c.WriteMessage(websocket.TextMessage, []byte(`{"event":"nonsense"}`)); err != nil {
		t.Fatal(err)
	}
	event, err := m.WaitEvent(within(t), 0, func(e backend.Event) bool { return e.Kind == backend.Garbled })
	if err != nil || event.Problem == "" {
		t.Errorf("event = %+v, %v", event, err)
	}
	if answer := c.register("r"); answer.Event != "registered" {
		t.Errorf("after a wrong frame register was answered %+v", answer)
	}
}

func TestSeedOnly(t *testing.T) {
	m := start(t, backend.Options{SeedOnly: true, PricePerHour: "0.10"})
	c := m.connect(t, m.IssueKey())
	if c.Subprotocol() != "" {
		t.Errorf("subprotocol %q was selected", c.Subprotocol())
	}
	c.say("r", protocol.Register{Protocol: 1, Agent: protocol.Agent{Version: "1"}, Status: protocol.Online})
	c.say("", protocol.Heartbeat{Status: protocol.Online})
	node, err := m.WaitNode(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.StartInstance(within(t), node.ID, order("one")); err != nil {
		t.Fatal(err)
	}
	c.say("", status("one", 1, "stopped"))
	got := c.hear() // neither an answer to register nor a receipt comes before
	if got.Event != "start_instance" || got.ID != "" || got.Data["price_per_hour"] != nil {
		t.Errorf("heard %+v, want start_instance without an id or a price", got)
	}
	if _, err := m.StopInstance(within(t), node.ID, protocol.StopInstance{RentalID: "one"}); err != nil {
		t.Fatal(err)
	}
	if got := c.hear(); got.Event != "stop_instance" || got.ID != "" {
		t.Errorf("heard %+v, want stop_instance without an id", got)
	}
}

func TestSendRaw(t *testing.T) {
	m := start(t, backend.Options{})
	c := m.connect(t, m.IssueKey())
	node := c.register("r").Data["node_id"].(string)
	if err := m.SendRaw(node, []byte(`{"event":"privileged"`)); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, text, err := c.ReadMessage(); err != nil || string(text) != `{"event":"privileged"` {
		t.Errorf("heard %q, %v", text, err)
	}
	if err := m.SendRaw("nobody", nil); err == nil {
		t.Error("a frame went to a node that does not exist")
	}
}

func TestPublicPorts(t *testing.T) {
	m := start(t, backend.Options{})
	web, dns := protocol.PortKey{Port: 80, Protocol: "tcp"}, protocol.PortKey{Port: 53, Protocol: "udp"}
	seen := map[uint16]bool{}
	for range 20 {
		mapping, err := m.PublicPorts(web, dns)
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range mapping {
			if seen[port] || port < 1024 {
				t.Errorf("port %d was assigned twice or is privileged", port)
			}
			seen[port] = true
		}
	}
}
