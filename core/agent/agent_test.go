package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/secret"
)

// onRig runs a test in a bubble of its own, where time passes when nothing else happens.
func onRig(t *testing.T, test func(t *testing.T, m *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newRig(t)) })
}

func TestRentAndStop(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		start := order("r-1")
		start.GPUIndices = []int{1}
		s.mustOK(start)
		if got := s.state("r-1"); got != rental.Running {
			t.Fatalf("the rental is %s, want running", got)
		}
		want := []string{"accepted", "pulling", "creating", "starting", "tunnelling", "running"}
		if diff := cmp.Diff(want, s.link.states("r-1")); diff != "" {
			t.Errorf("states posted (-want +got):\n%s", diff)
		}
		running := s.link.lastInstance("r-1")
		if running.ContainerID == "" || len(running.Ports) != 1 || running.Ports[0].ContainerPort != 22 {
			t.Errorf("the backend was told %+v", running)
		}
		if gpus := s.Status().Rentals[0].Spec.GPUs; len(gpus) != 1 || gpus[0].UUID != "GPU-bbbb" {
			t.Errorf("got GPUs %v, want that with UUID GPU-bbbb", gpus)
		}
		pass(6 * time.Second)
		if beat, _ := s.link.latestBeat(); beat.Instances != 1 {
			t.Errorf("heartbeat counts %d instances, want 1", beat.Instances)
		}

		s.mustOK(&protocol.StopInstance{ContainerID: running.ContainerID})
		final := s.link.lastInstance("r-1")
		if final.State != "stopped" || final.Error != nil {
			t.Fatalf("the backend was told %+v, want stopped without an error", final)
		}
		s.mustOK(&protocol.StatusReceived{RentalID: "r-1", Sequence: final.Sequence})
		if got := len(s.Status().Rentals); got != 0 {
			t.Errorf("%d rentals in the picture after the end was acknowledged, want 0", got)
		}
		s.leave()
	})
}

func TestSameOrderTwice(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		first := s.mustOK(order("r-1"))
		if diff := cmp.Diff(first, s.mustOK(order("r-1"))); diff != "" {
			t.Errorf("the same order is answered otherwise:\n%s", diff)
		}
		s.mustRefuse(protocol.Conflict, with(order("r-1"), func(o *protocol.StartInstance) { o.CPUCores = 2 }))
		if err := s.Pause(t.Context(), time.Time{}); err != nil {
			t.Fatal(err)
		}
		s.mustOK(order("r-1"))
		s.mustRefuse(protocol.NotAccepting, order("r-2"))
		s.leave()

		again := m.boot()
		again.mustOK(order("r-1"))
		again.mustRefuse(protocol.Conflict, with(order("r-1"), func(o *protocol.StartInstance) { o.Image += "-slim" }))
		if got := m.engine.Starts("r-1"); got != 1 {
			t.Errorf("the container was started %d times, want once", got)
		}
		again.leave()
	})
}

// What its owner has narrowed since does not change what a known order says.
func TestSameOrderAfterLimitsAreNarrowed(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		m.opts.Limits.Registries.Loopback = true
		start := with(order("r-1"), func(o *protocol.StartInstance) {
			o.Image, o.ShmSize = "localhost:5000/a", 1<<30
			o.PortMapping[protocol.PortKey{Port: 80, Protocol: "tcp"}] = 10080
		})
		s := m.boot()
		s.mustOK(start)
		s.leave()
		m.opts.Limits = Limits{Rentals: 1, Pids: 1, Ports: 1, ShmBytes: 1}
		again := m.boot()
		again.mustOK(start)
		again.mustRefuse(protocol.Conflict, with(order("r-1"), func(o *protocol.StartInstance) {
			for port := range uint16(40) {
				o.PortMapping[protocol.PortKey{Port: 100 + port, Protocol: "tcp"}] = 10100 + port
			}
		}))
		again.leave()
	})
}

// A GPU rental that is known stays known when its GPU is gone.
func TestSameOrderAfterGPUIsGone(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		start := with(order("r-1"), func(o *protocol.StartInstance) { o.GPUIndices = []int{0} })
		s := m.boot()
		s.mustOK(start)
		s.leave()
		m.survey = func(context.Context, string) hardware.Survey {
			return *with(new(testSurvey()), func(s *hardware.Survey) { s.GPUs = nil })
		}
		again := m.boot()
		again.mustOK(start)
		again.leave()
	})
}

// Orders that arrive while an earlier one is being written to disk find its place taken.
func TestOrdersAtOnceShareTheMachine(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		for i := range 4 {
			o := order(fmt.Sprintf("r-%d", i))
			o.GPUIndices, o.PortMapping = []int{0}, nil
			s.link.in <- protocol.Incoming{ID: fmt.Sprintf("g%d", i), Data: o}
		}
		synctest.Wait()
		accepted := 0
		for i := range 4 {
			answers := s.link.answersTo(fmt.Sprintf("g%d", i))
			if len(answers) != 1 {
				t.Fatalf("order %d was answered %d times", i, len(answers))
			}
			if answers[0].OK {
				accepted++
			} else if answers[0].Error.Code != protocol.GPUUnavailable {
				t.Errorf("order %d: %+v", i, answers[0].Error)
			}
		}
		if accepted != 1 {
			t.Errorf("one GPU was rented %d times", accepted)
		}
		s.leave()
	})
}

func TestStopInstance(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		s.mustOK(order("r-1"))
		container := s.link.lastInstance("r-1").ContainerID
		s.mustRefuse(protocol.NotFound, &protocol.StopInstance{RentalID: "r-2"})
		s.mustRefuse(protocol.NotFound, &protocol.StopInstance{ContainerID: "nobody"})
		s.mustRefuse(protocol.NotFound, &protocol.StopInstance{})
		s.mustOK(&protocol.StopInstance{RentalID: "r-1", Graceful: new(false), GraceS: new(20)})
		if got, stopped := m.engine.grace[container]; !stopped || got != 0 {
			t.Errorf("a stop that is not graceful gave %v (stopped: %v)", got, stopped)
		}
		s.mustOK(&protocol.StopInstance{RentalID: "r-1"})
		s.leave()
	})
	for name, tc := range map[string]struct {
		order protocol.StopInstance
		want  time.Duration
	}{
		"default":  {protocol.StopInstance{}, 30 * time.Second},
		"named":    {protocol.StopInstance{GraceS: new(5)}, 5 * time.Second},
		"too long": {protocol.StopInstance{GraceS: new(6000)}, 10 * time.Minute},
		"negative": {protocol.StopInstance{GraceS: new(-1)}, 0},
		"not kind": {protocol.StopInstance{GraceS: new(5), Graceful: new(false)}, 0},
	} {
		if got := graceOf(&tc.order); got != tc.want {
			t.Errorf("%s: grace is %v, want %v", name, got, tc.want)
		}
	}
}

func TestRegistered(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		s.mustOK(order("r-1"))
		posted := len(s.link.posted())
		s.mustOK(&protocol.Registered{
			NodeID: "node-1", HeartbeatIntervalS: 7,
			Relay:    &protocol.Relay{Address: "relay.example.com:7000", Token: secret.New("relay-secret"), ServerName: "relay.example.com", CAPEM: "PEM"},
			Earnings: &protocol.Earnings{Currency: "USD", Total: "12.30"},
		})
		if got := s.link.posted()[posted:]; len(got) != 1 || got[0].State != "running" {
			t.Errorf("after registered the backend was told %+v, want the running rental once", got)
		}
		status := s.Status()
		if status.NodeID != "node-1" || s.link.pace() != 7*time.Second || status.Earnings.Total != "12.30" {
			t.Errorf("node %q, interval %v, earnings %+v", status.NodeID, s.link.pace(), status.Earnings)
		}
		want := rental.Terms{Address: "relay.example.com:7000", Token: secret.New("relay-secret"), ServerName: "relay.example.com", CAPEM: []byte("PEM")}
		if got := m.relay.last(); got.Address != want.Address || !got.Token.Equal(want.Token) || got.ServerName != want.ServerName || string(got.CAPEM) != "PEM" {
			t.Errorf("the relay is used with %+v", got)
		}
		s.mustOK(&protocol.Registered{NodeID: "node-1", Relay: &protocol.Relay{Address: "no port"}})
		if got := m.relay.last().Address; got != want.Address {
			t.Errorf("a relay without a port was used: %s", got)
		}
		s.leave()

		// The next agent knows all that before it has heard the backend.
		m.relay.used = nil
		again := m.boot()
		if got := m.relay.last(); got.Address != want.Address || got.Token.Reveal() != "relay-secret" {
			t.Errorf("the next agent uses the relay with %+v", got)
		}
		r, _ := again.link.lastRegister()
		if r.NodeID == nil || *r.NodeID != "node-1" || len(r.Instances) != 1 || r.Instances[0].RentalID != "r-1" {
			t.Errorf("the next agent registers as %v with %+v", r.NodeID, r.Instances)
		}
		again.leave()

		m.opts.Relay = &rental.Terms{Address: "own.example.com:7000"}
		own := m.boot()
		own.mustOK(&protocol.Registered{NodeID: "node-1", Relay: &protocol.Relay{Address: "other.example.com:7000"}})
		if got := m.relay.last().Address; got != "own.example.com:7000" {
			t.Errorf("the owner's relay was replaced by %s", got)
		}
		own.leave()
	})
}

func TestIntroduction(t *testing.T) {
	t.Run("fast survey", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			began := time.Now()
			s := m.boot()
			r, n := s.link.lastRegister()
			if n != 1 || len(r.Hardware.GPUs) != 2 || r.Hardware.Docker == nil || !r.Accepting || r.Offer.CPUCores != 7 {
				t.Errorf("%d registers, the last %+v", n, r)
			}
			if diff := cmp.Diff([]string{"tunnel.frp", "logs", "gpu.nvidia"}, r.Features); diff != "" {
				t.Error(diff)
			}
			beat, first := s.link.latestBeat()
			if wait := first.Sub(began); wait != 0 {
				t.Errorf("the first heartbeat came after %v", wait)
			}
			if len(beat.Metrics.GPUTemp) != 2 || len(beat.Metrics.GPUPowerW) != 2 || beat.Metrics.GPUTemp[1] != nil {
				t.Errorf("the beat's rows do not follow the survey's GPUs: %+v", beat.Metrics)
			}
			s.leave()
		})
	})
	t.Run("slow survey", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			m.survey = func(ctx context.Context, path string) hardware.Survey {
				time.Sleep(300 * time.Millisecond)
				return testSurvey()
			}
			began := time.Now()
			s := m.boot()
			r, n := s.link.lastRegister()
			if n != 1 || len(r.Hardware.GPUs) != 0 || r.Accepting {
				t.Errorf("%d registers, the last %+v", n, r)
			}
			if _, first := s.link.latestBeat(); first.Sub(began) > patience {
				t.Errorf("the first heartbeat waited %v for the survey", first.Sub(began))
			}
			s.mustRefuse(protocol.NotAccepting, order("r-1"))
			pass(time.Second)
			if r, n := s.link.lastRegister(); n != 2 || len(r.Hardware.GPUs) != 2 || !r.Accepting {
				t.Errorf("%d registers, the last %+v", n, r)
			}
			s.leave()
		})
	})
	t.Run("Docker goes and comes", func(t *testing.T) {
		onRig(t, func(t *testing.T, m *rig) {
			surveys := []string{}
			m.survey = func(ctx context.Context, path string) hardware.Survey {
				surveys = append(surveys, path)
				return testSurvey()
			}
			s := m.boot()
			m.engine.become(func(i *rental.EngineInfo) {
				*i = rental.EngineInfo{Problem: "Docker is not running.", Fix: "Start it."}
			})
			if r, n := s.link.lastRegister(); n != 2 || r.Hardware.Docker != nil || r.Accepting {
				t.Errorf("Docker gone: %d registers, the last %+v", n, r)
			}
			s.mustRefuse(protocol.DockerUnavailable, order("r-1"))
			if p := s.Status().Problems; len(p) != 1 || p[0].Code != "docker_unavailable" || p[0].Fix != "Start it." {
				t.Errorf("problems: %+v", p)
			}
			m.engine.become(func(i *rental.EngineInfo) {
				*i = rental.EngineInfo{Available: true, Version: "28.5.2", DataRoot: "/mnt/docker", GPUReady: true, Since: time.Now()}
			})
			if r, _ := s.link.lastRegister(); r.Hardware.Docker == nil || !r.Accepting {
				t.Errorf("Docker back: the last register is %+v", r)
			}
			if diff := cmp.Diff([]string{"/var/lib/docker", "/mnt/docker"}, surveys); diff != "" {
				t.Errorf("surveys of (-want +got):\n%s", diff)
			}
			s.mustOK(order("r-1"))
			s.leave()
		})
	})
}

func TestSeedOnlyBackend(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		s.send("", order("r-1"))
		s.send("", order("r-1"))
		s.send("", with(order("r-2"), func(o *protocol.StartInstance) { o.PortMapping = nil }))
		if s.state("r-1") != rental.Running || s.state("r-2") != rental.Running {
			t.Fatalf("rentals are %s and %s", s.state("r-1"), s.state("r-2"))
		}
		s.send("", &protocol.StopInstance{ContainerID: s.link.lastInstance("r-1").ContainerID})
		if s.state("r-1") != rental.Stopped {
			t.Errorf("the stopped rental is %s", s.state("r-1"))
		}
		s.send("", &protocol.DrainNode{})
		pass(5 * time.Second)
		if got, _ := s.link.latestBeat(); got.Status != protocol.Draining || got.Accepting || got.NodeID != nil {
			t.Errorf("heartbeat says %+v", got)
		}
		if n := s.link.answered(); n != 0 {
			t.Errorf("answered %d messages that want no answer", n)
		}
		s.leave()
	})
}

// An end that nobody has confirmed is told by the next agent too, asked or not.
func TestEndsAreToldAgainAfterRestart(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		s.send("", order("r-1"))
		s.send("", with(order("r-2"), func(o *protocol.StartInstance) { o.PortMapping = nil }))
		s.send("", &protocol.StopInstance{RentalID: "r-1"})
		want := s.link.lastInstance("r-1")
		s.leave()
		again := m.boot()
		told := again.link.posted()
		if len(told) == 0 || want.State != "stopped" || !cmp.Equal(told[0], want) {
			t.Errorf("the next agent tells %+v, want first %+v", told, want)
		}
		if got := again.link.states("r-2"); slices.Contains(got, "stopped") {
			t.Errorf("a rental that lives is told to be %v", got)
		}
		again.mustOK(&protocol.StatusReceived{RentalID: "r-1", Sequence: want.Sequence})
		again.leave()
		third := m.boot()
		if got := third.link.states("r-1"); len(got) != 0 {
			t.Errorf("a confirmed end is told again: %v", got)
		}
		third.leave()
	})
}

// A backend that neither registers this host nor confirms an end does not make its picture grow for ever.
func TestUnconfirmedEndsAreForgotten(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		s.send("", order("r-1"))
		s.send("", &protocol.StopInstance{RentalID: "r-1"})
		pass(8 * 24 * time.Hour)
		s.send("", order("r-2"))
		if s.state("r-1") != "" || s.state("r-2") != rental.Running {
			t.Errorf("after 8 days the rentals are %q and %q", s.state("r-1"), s.state("r-2"))
		}
		s.leave()
	})
}

// crowded is a book with so many records more than it really has.
type crowded struct {
	Rentals
	more int
}

func (c crowded) Known() int { return c.Rentals.Known() + c.more }

// Orders that can only fail, however many, fill neither the disk nor the picture.
func TestRecordsAreBounded(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		const room = mostEnded + 20
		m.parts = func(p *Parts) { p.Rentals = crowded{p.Rentals, mostRecords - room} }
		s := m.boot()
		s.mustOK(order("r-0"))
		failing := func(id string) *protocol.StartInstance {
			return with(order(id), func(o *protocol.StartInstance) { o.Image, o.PortMapping = "docker.io/no/such:1", nil })
		}
		for i := 1; i < room; i++ {
			s.mustOK(failing(fmt.Sprintf("r-%d", i)))
		}
		message := s.mustRefuse(protocol.InsufficientResources, failing("r-more"))
		if !strings.HasPrefix(message, "rentals: this host remembers 5000 ") {
			t.Errorf("refused with %q", message)
		}
		s.mustOK(failing("r-1")) // known
		rentals := s.Status().Rentals
		if len(rentals) != 1+mostEnded || rentals[0].ID != "r-0" || rentals[mostEnded].ID != rental.ID(fmt.Sprintf("r-%d", room-1)) {
			t.Errorf("%d rentals in the picture, from %s to %s", len(rentals), rentals[0].ID, rentals[len(rentals)-1].ID)
		}
		s.leave()
	})
}

func TestEveryMessageIsAnsweredOnce(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		for _, message := range []protocol.Message{
			&protocol.Registered{NodeID: "n"}, &protocol.DrainNode{}, &protocol.ResumeNode{}, &protocol.Earnings{Currency: "USD"},
			&protocol.Notice{Title: "t"}, &protocol.SetOfferRequest{},
		} {
			s.mustOK(message)
		}
		s.mustRefuse(protocol.UnknownEvent, protocol.Heartbeat{})
		s.mustRefuse(protocol.NotFound, &protocol.StatusReceived{RentalID: "r-9", Sequence: 1})
		s.mustRefuse(protocol.NotFound, &protocol.GetLogs{RentalID: "r-9"})
		s.mustRefuse(protocol.NotFound, &protocol.RunSpeedtest{})
		s.leave()
	})
}

// What the backend sends is bounded by what the agent has in hand, and heartbeats keep their time.
func TestStorm(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		s.mustOK(order("r-1"))
		storm := []protocol.Message{
			order("r-1"),
			with(order("r-1"), func(o *protocol.StartInstance) { o.CPUCores = 3 }),
			with(order("r-2"), func(o *protocol.StartInstance) { o.RAMLimit = 1 << 45 }),
			with(order("r-3"), func(o *protocol.StartInstance) { o.Image = "../../etc" }),
			&protocol.StopInstance{RentalID: "unknown"},
			&protocol.DrainNode{}, &protocol.ResumeNode{},
			&protocol.StatusReceived{RentalID: "r-1", Sequence: 99},
			&protocol.GetLogs{RentalID: "unknown"},
			&protocol.Registered{NodeID: "n", HeartbeatIntervalS: 5},
		}
		const commands = 10_000
		most := 0
		for i := range commands {
			s.link.in <- protocol.Incoming{ID: fmt.Sprint(i), Data: storm[i%len(storm)]}
			s.mail.mu.Lock()
			most = max(most, len(s.mail.queue))
			s.mail.mu.Unlock()
		}
		synctest.Wait()
		for i := range commands {
			if n := len(s.link.answersTo(fmt.Sprint(i))); n != 1 {
				t.Fatalf("command %d (%s) was answered %d times", i, storm[i%len(storm)].Event(), n)
			}
		}
		if most > 2*maxInFlight {
			t.Errorf("%d events waited at once, want at most %d", most, 2*maxInFlight)
		}
		if got := m.engine.Starts("r-1"); got != 1 || len(s.Status().Rentals) != 1 {
			t.Errorf("the storm started %d containers and left %d rentals", got, len(s.Status().Rentals))
		}
		s.leave()
	})
}

func TestWatch(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		ctx, stop := context.WithCancel(t.Context())
		var seen []protocol.NodeState
		finished := make(chan struct{})
		slow := make(chan struct{})
		go func() {
			defer close(finished)
			for status := range s.Watch(ctx) {
				seen = append(seen, status.Node.State)
				<-slow
			}
		}()
		synctest.Wait()
		// The reader sits on the first picture: nobody waits for it.
		for range 50 {
			s.mustOK(&protocol.DrainNode{})
			s.mustOK(&protocol.ResumeNode{})
		}
		if err := s.Pause(t.Context(), time.Time{}); err != nil {
			t.Fatal(err)
		}
		slow <- struct{}{}
		synctest.Wait()
		if diff := cmp.Diff([]protocol.NodeState{protocol.Online, protocol.Paused}, seen); diff != "" {
			t.Errorf("a slow reader saw (-want +got):\n%s", diff)
		}
		stop()
		close(slow)
		<-finished
		if n := len(s.board.watchers); n != 0 {
			t.Errorf("%d watchers are left", n)
		}

		var last Status
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for status := range s.Watch(t.Context()) {
				last = status
			}
		}()
		synctest.Wait()
		s.leave()
		<-ended
		if !last.Leaving || last.Accepting {
			t.Errorf("the last picture is %+v", last)
		}
		if err := s.Pause(t.Context(), time.Time{}); !errors.Is(err, errLeaving) {
			t.Errorf("a wish after the end: %v", err)
		}
	})
}

func TestOfferOnRequest(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		m.opts.Offer = OfferLimits{GPUs: []int{1}, CPUs: 4, MinPricePerGPUHour: "0.30"}
		s := m.boot()
		got := s.mustOK(&protocol.SetOfferRequest{Offer: protocol.Offer{GPUIndices: []int{0, 1}, CPUCores: 64, RAMMB: 4096, MinPricePerGPUHour: "0.20", Currency: "USD"}})
		want := protocol.Offer{GPUIndices: []int{1}, CPUCores: 4, RAMMB: 4096, DiskGB: 400, MinPricePerGPUHour: "0.30", Currency: "USD"}
		if diff := cmp.Diff(want, got.Result); diff != "" {
			t.Errorf("offer in force (-want +got):\n%s", diff)
		}
		if _, got := s.link.lastNode(); got != "online backend" {
			t.Errorf("node_status: %q", got)
		}
		s.leave()
		again := m.boot()
		if diff := cmp.Diff(want, again.Status().Offer); diff != "" {
			t.Errorf("after a restart (-want +got):\n%s", diff)
		}
		again.leave()
	})
}

// What the backend asks of the offer is seen by the owner, and holds no longer than he lets it.
func TestProposalIsTheOwnersToEnd(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		own := s.Status().Offer
		s.mustOK(&protocol.SetOfferRequest{Offer: protocol.Offer{CPUCores: 64}})
		if got := s.Status().Proposal; got != nil {
			t.Errorf("shown though it changes nothing: %+v", got)
		}
		narrow := protocol.Offer{GPUIndices: []int{}, CPUCores: 2}
		s.mustOK(&protocol.SetOfferRequest{Offer: narrow})
		s.leave()

		again := m.boot()
		status := again.Status()
		if status.Proposal == nil || !cmp.Equal(*status.Proposal, narrow) || len(status.Offer.GPUIndices) != 0 || status.Offer.CPUCores != 2 {
			t.Errorf("after a restart: proposal %+v, offer %+v", status.Proposal, status.Offer)
		}
		again.must(again.Resume(t.Context()))
		status = again.Status()
		if diff := cmp.Diff(own, status.Offer); diff != "" || status.Proposal != nil {
			t.Errorf("after resume: proposal %+v, offer (-want +got):\n%s", status.Proposal, diff)
		}
		if last, said := again.link.lastNode(); said != "online user" || last.Offer.CPUCores != own.CPUCores {
			t.Errorf("node_status: %q with %+v", said, last.Offer)
		}
		again.leave()
		third := m.boot()
		if diff := cmp.Diff(own, third.Status().Offer); diff != "" {
			t.Errorf("after a restart (-want +got):\n%s", diff)
		}
		// A drain of the backend is not his to end, but the proposal is.
		third.mustOK(&protocol.SetOfferRequest{Offer: narrow})
		third.mustOK(&protocol.DrainNode{})
		third.must(third.Resume(t.Context()))
		if status := third.Status(); status.Proposal != nil || status.Accepting {
			t.Errorf("drained, after resume: accepting %v, proposal %+v", status.Accepting, status.Proposal)
		}
		third.leave()
	})
}

func TestNotices(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		s := m.boot()
		for i := range 12 {
			s.mustOK(&protocol.Notice{Title: fmt.Sprint(i), URL: "https://example.com/news"})
		}
		s.mustOK(&protocol.Notice{Title: "\x1b[31mred\u202e", Body: strings.Repeat("ä", 5000), URL: "javascript:alert(1)"})
		notices := s.Status().Notices
		last := notices[len(notices)-1]
		if len(notices) != 10 || last.Title != " [31mred " || len([]rune(last.Body)) != 2000 || last.URL != "" {
			t.Errorf("%d notices, the last: %q %q", len(notices), last.Title, last.URL)
		}
		if notices[0].URL != "https://example.com/news" {
			t.Errorf("a good address was dropped: %+v", notices[0])
		}
		s.leave()
	})
}

func TestPartsAreRequired(t *testing.T) {
	if _, err := New(Parts{}, Options{}); err == nil {
		t.Error("an agent without parts was made")
	}
	onRig(t, func(t *testing.T, m *rig) {
		for name, opts := range map[string]Options{
			"negative": {Offer: OfferLimits{RAMMB: -1}},
			"price":    {Offer: OfferLimits{MinPricePerGPUHour: "-0.5"}},
		} {
			s := m.boot()
			if _, err := New(s.parts, opts); err == nil {
				t.Errorf("%s: an agent was made with %+v", name, opts.Offer)
			}
			if err := s.Run(t.Context()); err == nil {
				t.Error("an agent ran twice")
			}
			s.leave()
		}
	})
}

// What nobody accounts for is swept away, but only once the backend has been heard: before that the
// ledger might be the one that is wrong.
func TestOrphansAreSweptOnceTheBackendIsHeard(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		m.engine.Plant("ghost", time.Now())
		left := func() int {
			holdings, err := m.engine.Holdings(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return len(holdings)
		}
		s := m.boot()
		pass(time.Hour)
		if left() != 1 {
			t.Fatal("an orphan was removed before the backend was heard")
		}
		s.mustOK(&protocol.Registered{NodeID: "node-1"})
		pass(time.Hour)
		if left() != 0 {
			t.Error("the orphan is still there")
		}
		s.leave()
	})
}
