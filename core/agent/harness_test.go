package agent

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/rental/rentaltest"
)

const testImage = "docker.io/library/debian:12"

// rig is a host for one agent after the other: real book and real memory on disk, an engine, a
// relay and a backend in memory. It lives in a synctest bubble.
type rig struct {
	t       *testing.T
	ledger  string
	engine  *engine
	relay   *relay
	state   Memory
	survey  func(ctx context.Context, diskPath string) hardware.Survey
	devices rental.Devices // nil: nobody looks after GPUs
	parts   func(*Parts)   // last changes, nil: none
	opts    Options
}

func newRig(t *testing.T) *rig {
	state, err := OpenMemory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	return &rig{
		t:      t,
		ledger: t.TempDir(),
		engine: newEngine(),
		relay:  &relay{Relay: rentaltest.NewRelay()},
		state:  state,
		survey: func(context.Context, string) hardware.Survey { return testSurvey() },
		opts: Options{
			Agent:  protocol.Agent{Version: "1.2.3", OS: "linux", Arch: "amd64"},
			Limits: Limits{Rentals: 8},
		},
	}
}

// session is one agent's life on a machine.
type session struct {
	*Agent
	t     *testing.T
	link  *link
	book  *rental.Book
	trace *trace
	stop  context.CancelFunc
	left  chan error
}

// boot starts an agent and waits until it has nothing to do.
func (m *rig) boot() *session {
	m.t.Helper()
	book, err := rental.Open(rental.Options{Dir: m.ledger, Engine: m.engine, Relay: m.relay, Devices: m.devices, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		m.t.Fatal(err)
	}
	s := &session{t: m.t, book: book, trace: &trace{}, left: make(chan error, 1)}
	s.link = newLink(s.trace)
	m.engine.trace, m.relay.trace = s.trace, s.trace
	parts := Parts{
		Rentals: tracedBook{book, s.trace}, Engine: m.engine, Relay: m.relay, Link: s.link,
		Meter: &meter{trace: s.trace}, Survey: m.survey, Memory: m.state,
	}
	if m.parts != nil {
		m.parts(&parts)
	}
	if s.Agent, err = New(parts, m.opts); err != nil {
		m.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(m.t.Context())
	s.stop = stop
	go func() { s.left <- s.Run(ctx) }()
	pass(2 * patience)
	return s
}

// leave ends the agent as a signal does, leaving the rentals.
func (s *session) leave() {
	s.t.Helper()
	s.stop()
	if err := <-s.left; err != nil {
		s.t.Fatalf("leaving: %v", err)
	}
}

// send gives the agent a message and waits until nothing more comes of it.
func (s *session) send(id string, data protocol.Message) {
	s.link.in <- protocol.Incoming{ID: id, Data: data}
	synctest.Wait()
}

// ask sends a message with an id and returns its one answer.
func (s *session) ask(data protocol.Message) protocol.CommandResult {
	s.t.Helper()
	id := fmt.Sprintf("c%d", s.link.next())
	s.send(id, data)
	answers := s.link.answersTo(id)
	if len(answers) != 1 {
		s.t.Fatalf("%s was answered %d times: %+v", data.Event(), len(answers), answers)
	}
	return answers[0]
}

func (s *session) mustOK(data protocol.Message) protocol.CommandResult {
	s.t.Helper()
	result := s.ask(data)
	if !result.OK || result.Error != nil {
		s.t.Fatalf("%s: %+v", data.Event(), result.Error)
	}
	return result
}

func (s *session) mustRefuse(code protocol.ErrorCode, data protocol.Message) string {
	s.t.Helper()
	result := s.ask(data)
	if result.OK || result.Error == nil || result.Error.Code != code || result.Error.Message == "" {
		s.t.Fatalf("%s: got %+v (error %+v), want %s", data.Event(), result, result.Error, code)
	}
	return result.Error.Message
}

// state is where a rental stands in the agent's picture.
func (s *session) state(id rental.ID) rental.State {
	for _, r := range s.Status().Rentals {
		if r.ID == id {
			return r.State
		}
	}
	return ""
}

func order(id string) *protocol.StartInstance {
	return &protocol.StartInstance{
		RentalID: id, Image: testImage, RAMLimit: 1 << 30, CPUCores: 1,
		PortMapping: protocol.PortMapping{{Port: 22, Protocol: "tcp"}: 10022},
	}
}

// pass lets time go by, and what it brings about happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func with[T any](value *T, change func(*T)) *T {
	change(value)
	return value
}

// testSurvey is a machine with 8 threads, 32 GiB, 500 GiB free and two GPUs.
func testSurvey() hardware.Survey {
	return hardware.Survey{
		GPUs: []hardware.GPU{
			{Index: 0, UUID: "GPU-aaaa", Vendor: "nvidia", Model: "RTX 4090"},
			{Index: 1, UUID: "GPU-bbbb", Vendor: "nvidia", Model: "RTX 4090"},
		},
		System: hardware.System{
			CPUThreads: new(8), RAMTotalMB: new(int64(32768)),
			DiskTotalGB: new(int64(1000)), DiskAvailableGB: new(int64(500)), OS: "linux",
		},
		Gaps: []hardware.Gap{},
	}
}

// trace notes in which order things end.
type trace struct {
	mu    sync.Mutex
	names []string
}

func (t *trace) note(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.names = append(t.names, name)
}

func (t *trace) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.names)
}

type tracedBook struct {
	*rental.Book
	trace *trace
}

func (b tracedBook) Run(ctx context.Context, notify func(rental.Status)) error {
	defer b.trace.note("rentals")
	return b.Book.Run(ctx, notify)
}

// engine adds what the agent asks to an engine in memory.
type engine struct {
	images []rental.CachedImage
	*rentaltest.Engine
	trace *trace

	mu      sync.Mutex
	info    rental.EngineInfo
	changed func()
	logs    func(ctx context.Context, tail int) (string, bool, error)
	grace   map[string]time.Duration // of the last Stop of a container
}

func newEngine() *engine {
	return &engine{
		Engine: rentaltest.NewEngine(testImage),
		grace:  map[string]time.Duration{},
		info:   rental.EngineInfo{Available: true, Version: "28.5.2", DataRoot: "/var/lib/docker", GPUReady: true},
	}
}

func (e *engine) Run(ctx context.Context, changed func()) error {
	e.mu.Lock()
	e.changed = changed
	e.mu.Unlock()
	changed()
	<-ctx.Done()
	e.trace.note("engine")
	return nil
}

func (e *engine) Info() rental.EngineInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.info
}

// become changes what the engine says of itself.
func (e *engine) become(change func(*rental.EngineInfo)) {
	e.mu.Lock()
	change(&e.info)
	changed := e.changed
	e.mu.Unlock()
	if changed != nil {
		changed()
	}
	synctest.Wait()
}

func (e *engine) Images(context.Context) (rental.ImageCache, error) {
	return rental.ImageCache{Images: e.images}, nil
}

func (e *engine) PruneImages(context.Context) (rental.PrunedImages, error) {
	pruned := rental.PrunedImages{Images: e.images}
	e.images = nil
	return pruned, nil
}

func (e *engine) Logs(ctx context.Context, containerID string, tail int, since time.Time) (string, bool, error) {
	return e.logs(ctx, tail)
}

func (e *engine) Stop(ctx context.Context, containerID string, grace time.Duration) error {
	e.mu.Lock()
	e.grace[containerID] = grace
	e.mu.Unlock()
	return e.Engine.Stop(ctx, containerID, grace)
}

// relay adds what the agent asks to a relay in memory.
type relay struct {
	*rentaltest.Relay
	trace *trace
	mu    sync.Mutex
	used  []rental.Terms
}

func (r *relay) Run(ctx context.Context, changed func()) error {
	<-ctx.Done()
	r.trace.note("relay")
	return nil
}

func (r *relay) Use(terms rental.Terms) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used = append(r.used, terms)
}

// last is what the relay was told to use last.
func (r *relay) last() rental.Terms {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.used) == 0 {
		return rental.Terms{}
	}
	return r.used[len(r.used)-1]
}

func (r *relay) Info() rental.RelayInfo { return rental.RelayInfo{Connected: true} }

type meter struct {
	trace *trace
	mu    sync.Mutex
	used  []hardware.Survey
}

func (m *meter) Run(ctx context.Context) error {
	<-ctx.Done()
	m.trace.note("meter")
	return nil
}

func (m *meter) Use(s hardware.Survey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used = append(m.used, s)
}

// Sample knows of one GPU only, whatever the survey says.
func (m *meter) Sample() hardware.Sample {
	return hardware.Sample{RAMUsageMB: new(int64(1234)), GPUTempC: []*float64{new(61.0)}, At: time.Now()}
}

// link is a connection to a backend that the test plays.
type link struct {
	trace *trace
	in    chan protocol.Incoming

	mu        sync.Mutex
	count     int
	again     chan struct{}
	answers   map[string][]protocol.CommandResult
	instances []protocol.InstanceStatus
	nodes     []protocol.NodeStatus
	registers []protocol.Register
	beats     []time.Time
	lastBeat  protocol.Heartbeat
	interval  time.Duration
	health    LinkHealth
	changed   func()
	hang      chan struct{} // what Run waits for on its way out; nil: nothing
	fail      chan error    // makes Run return
}

func newLink(t *trace) *link {
	return &link{
		trace: t, in: make(chan protocol.Incoming), again: make(chan struct{}, 1),
		answers: map[string][]protocol.CommandResult{}, interval: 5 * time.Second, fail: make(chan error),
	}
}

func (l *link) Run(ctx context.Context, register func() protocol.Register, heartbeat func() protocol.Heartbeat, changed func()) error {
	defer close(l.in)
	l.mu.Lock()
	l.changed = changed
	l.mu.Unlock()
	l.register(register())
	beat := time.NewTicker(l.interval)
	defer beat.Stop()
	for {
		l.beat(heartbeat())
		select {
		case <-beat.C:
		case <-l.again:
			l.register(register())
		case err := <-l.fail:
			return err
		case <-ctx.Done():
			if l.hang != nil {
				<-l.hang
			}
			l.trace.note("link")
			return nil
		}
	}
}

func (l *link) register(r protocol.Register) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.registers = append(l.registers, r)
}

func (l *link) beat(b protocol.Heartbeat) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beats, l.lastBeat = append(l.beats, time.Now()), b
}

func (l *link) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	return l.count
}

func (l *link) Commands() <-chan protocol.Incoming { return l.in }

func (l *link) Answer(to protocol.Incoming, result protocol.CommandResult) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[to.ID] = append(l.answers[to.ID], result)
}

func (l *link) PostInstance(s protocol.InstanceStatus) {
	l.trace.note("posted " + s.State)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.instances = append(l.instances, s)
}

func (l *link) PostNode(s protocol.NodeStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes = append(l.nodes, s)
}

func (l *link) Reregister() { notify(l.again) }

func (l *link) HangUp() { l.trace.note("hang up") }

func (l *link) Retry() { l.trace.note("retry") }

func (l *link) SetInterval(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interval = d
}

func (l *link) Health() LinkHealth {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.health
}

func (l *link) answersTo(id string) []protocol.CommandResult {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers[id]
}

// states are those posted for a rental since the beginning.
func (l *link) states(id string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var states []string
	for _, s := range l.instances {
		if s.RentalID == id {
			states = append(states, s.State)
		}
	}
	return slices.Compact(states)
}

// lastInstance is the latest status posted for a rental.
func (l *link) lastInstance(id string) protocol.InstanceStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range slices.Backward(l.instances) {
		if s.RentalID == id {
			return s
		}
	}
	return protocol.InstanceStatus{}
}

// lastNode is the latest node_status, and what it says as "status reason".
func (l *link) lastNode() (protocol.NodeStatus, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.nodes) == 0 {
		return protocol.NodeStatus{}, ""
	}
	last := l.nodes[len(l.nodes)-1]
	return last, fmt.Sprintf("%s %s", last.Status, last.Reason)
}

// posted are all statuses of rentals.
func (l *link) posted() []protocol.InstanceStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.instances)
}

// latestBeat is the latest heartbeat, and when the first one came.
func (l *link) latestBeat() (beat protocol.Heartbeat, first time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastBeat, l.beats[0]
}

// pace is what the heartbeat's interval was set to.
func (l *link) pace() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.interval
}

// answered counts the messages that were answered.
func (l *link) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.answers)
}

// lastRegister is the latest register, and how many there were.
func (l *link) lastRegister() (protocol.Register, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.registers[len(l.registers)-1], len(l.registers)
}

// forgetful is a memory whose disk is full, for as long as full is set.
type forgetful struct {
	Memory
	mu   sync.Mutex
	full bool
}

func (f *forgetful) Save(r Remembered) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full {
		return fmt.Errorf("writing node.json: %w", &fs.PathError{Op: "write", Path: "/state/node.json", Err: syscall.ENOSPC})
	}
	return f.Memory.Save(r)
}

func (f *forgetful) fill(full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = full
}
