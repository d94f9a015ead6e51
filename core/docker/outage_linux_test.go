package docker_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/sandbox/engine"
)

// waiting waits for a container in the background; the result is on the channel.
func waiting(t *testing.T, e *docker.Engine, id string) <-chan waited {
	t.Helper()
	result := make(chan waited, 1)
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() {
		exit, err := e.Wait(ctx, id)
		result <- waited{exit, err}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return result
}

type waited struct {
	exit rental.Exit
	err  error
}

func TestWaitOutlivesTheEngine(t *testing.T) {
	tests := map[string]struct {
		liveRestore bool
		end         func(*engine.Engine) error
		survives    bool
		atOnce      bool // nobody has the time to see that it is away
		deaf        bool // another program will not end, so that the engine has to kill it
		exits       int  // the code of a program that survives and then ends by itself
	}{
		"restart":                   {end: (*engine.Engine).Down, deaf: true},
		"restart at once":           {end: (*engine.Engine).Down, atOnce: true},
		"restart with live-restore": {liveRestore: true, end: (*engine.Engine).Down, survives: true, exits: 143},
		"killed":                    {end: (*engine.Engine).Kill},
		"killed with live-restore":  {liveRestore: true, end: (*engine.Engine).Kill, survives: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := daemon.SetLiveRestore(t.Context(), test.liveRestore); err != nil {
				t.Fatal(err)
			}
			e := newEngine(t)
			c := rent(t, e, spec("outage"))
			report(t, c)
			results := []<-chan waited{waiting(t, e, c.ID)}
			if test.deaf {
				s := spec("deaf")
				s.Command = []string{"-ignore-sigterm"}
				deaf := rent(t, e, s)
				report(t, deaf)
				results = append(results, waiting(t, e, deaf.ID))
			}
			if err := test.end(daemon); err != nil {
				t.Fatal(err)
			}
			if !test.atOnce {
				_, err := e.Start(t.Context(), c.ID)
				wantFailure(t, err, rental.CodeDockerUnavailable)
			}
			if test.survives {
				report(t, c) // nothing of the engine's stands between the renter and his program
			}
			if err := daemon.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if test.survives {
				report(t, c)
				awaitStream(t)
				if test.exits != 0 { // as if the engine had done it, which has been away before
					request(c.Routes[0].Target.String(), fmt.Sprintf("/exit?code=%d", test.exits))
				} else if err := e.Stop(t.Context(), c.ID, 10*time.Second); err != nil {
					t.Fatal(err)
				}
				if got := <-results[0]; got.err != nil || got.exit.EngineStopped || got.exit.Code != test.exits {
					t.Errorf("Wait: %+v, %v; want the end that came long after the engine's return", got.exit, got.err)
				}
				return
			}
			for _, result := range results {
				if got := <-result; got.err != nil || !got.exit.EngineStopped {
					t.Errorf("Wait: %+v, %v; want it ended by the engine", got.exit, got.err)
				}
			}
			again, err := e.Start(t.Context(), c.ID)
			if err != nil {
				t.Fatalf("starting again: %v", err)
			}
			report(t, again)
		})
	}
}

func TestExitDuringAnOutageIsTheProgramsOwn(t *testing.T) {
	e := newEngine(t)
	changed := watch(t, e)
	until(t, e, changed, func(i rental.EngineInfo) bool { return i.Available })
	c := rent(t, e, spec("own-exit"))
	report(t, c)
	if err := daemon.SetLiveRestore(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := daemon.SetLiveRestore(context.Background(), false); err != nil {
			t.Error(err)
		}
	})
	if !eventually(t, e.KeepsContainers) {
		t.Fatal("Run has not noticed that the engine keeps containers from now on")
	}
	address := cli(t, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", c.ID)
	result := waiting(t, e, c.ID)
	if err := daemon.Down(); err != nil {
		t.Fatal(err)
	}
	request(address+":8080", "/exit?code=7")
	ended := time.Now()
	if err := daemon.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := <-result
	if got.err != nil || got.exit.EngineStopped != (got.exit.Code == 255) {
		t.Errorf("Wait: %+v, %v; want the program's own code 7, or 255 where the engine does not know", got.exit, got.err)
	}
	if got.exit.At.After(ended.Add(time.Second)) { // and not when the engine noticed
		t.Errorf("ended at %v, and it was told to end before %v", got.exit.At, ended)
	}
	t.Logf("exit %+v, told to end before %v", got.exit, ended)
}

// An engine that a person asks to end a container is not taken for one that shuts down, nor waited for.
func TestEndedByAnotherHand(t *testing.T) {
	e := newEngine(t)
	tests := map[string][]string{"stopped": {"stop", "-t", "5"}, "killed": {"kill"}, "removed": {"rm", "-f"}}
	for name, command := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := rent(t, e, spec(rental.ID("hand-"+name)))
			report(t, c)
			result := waiting(t, e, c.ID)
			cli(t, append(command, c.ID)...)
			began := time.Now()
			got := <-result
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("noticed after %v", took)
			}
			switch {
			case got.exit.EngineStopped:
				t.Errorf("taken for the engine's shutdown: %+v", got.exit)
			case got.err != nil && name == "removed":
				wantFailure(t, got.err, rental.CodeNotFound)
			case got.err != nil || got.exit.Code != 0 && name == "stopped":
				t.Errorf("Wait: %+v, %v", got.exit, got.err)
			}
		})
	}
}

func TestHealthFollowsTheEngine(t *testing.T) {
	e := newEngine(t)
	changed := watch(t, e)
	info := until(t, e, changed, func(i rental.EngineInfo) bool { return i.Available })
	if info.Version == "" || info.APIVersion == "" || info.StorageDriver == "" || info.DataRoot == "" ||
		!info.GPUReady || info.Rootless || info.Problem != "" || time.Since(info.Since).Abs() > time.Minute {
		t.Errorf("info %+v", info)
	}
	if err := daemon.Down(); err != nil {
		t.Fatal(err)
	}
	away := until(t, e, changed, func(i rental.EngineInfo) bool { return strings.Contains(i.Problem, "not running") })
	if away.Available || away.Fix == "" || !away.Since.IsZero() {
		t.Errorf("info while away %+v", away)
	}
	began := time.Now()
	if err := daemon.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, e, changed, func(i rental.EngineInfo) bool { return i.Available })
	t.Logf("seen again %s after the restart began", time.Since(began))
}

func TestNoEngineSaysWhatToDo(t *testing.T) {
	e := engineWith(t, docker.Options{Host: "unix://" + t.TempDir() + "/none.sock", OwnerKey: []byte(ownerKey)})
	info := until(t, e, watch(t, e), func(i rental.EngineInfo) bool { return i.Problem != "" })
	if info.Available || info.Fix == "" {
		t.Errorf("info %+v", info)
	}
	t.Logf("%s %s", info.Problem, info.Fix)
	_, err := e.Holdings(t.Context())
	wantFailure(t, err, rental.CodeDockerUnavailable)
}

func TestNetworkInStock(t *testing.T) {
	networks := func() string { return cli(t, "network", "ls", "-q", "--filter", "label=distributedcompute.managed") }
	if before := networks(); before != "" {
		t.Fatalf("networks were left by other tests: %q", before)
	}
	// What a killed agent leaves: a network without a container.
	killed := newEngine(t)
	id := create(t, killed, spec("killed"))
	cli(t, "rm", "-f", id)
	left := networks()

	ctx, stop := context.WithCancel(t.Context())
	e := newEngine(t)
	var running sync.WaitGroup
	running.Go(func() {
		if err := e.Run(ctx, func() {}); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stocked := eventually(t, func() bool { now := networks(); return now != "" && now != left && !strings.Contains(now, "\n") })
	if !stocked {
		t.Errorf("networks %q, want one that is not %q", networks(), left)
	}
	spare := networks()
	c := create(t, e, spec("stocked"))
	if got := cli(t, "inspect", "-f", "{{.HostConfig.NetworkMode}}", c); got != cli(t, "network", "inspect", "-f", "{{.Name}}", spare) {
		t.Errorf("the rental is on %s, not on the network in stock", got)
	}
	if _, err := e.Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if !eventually(t, func() bool { return strings.Count(networks(), "\n") == 1 }) {
		t.Errorf("networks %q, want the rental's and one in stock", networks())
	}
	stop()
	running.Wait()
	if now := networks(); now != spare {
		t.Errorf("networks after Run %q, want the rental's %q", now, spare)
	}
}

// What stands between agent and engine may cut connections; the container knows nothing of it.
func TestLostConnectionIsNoShutdown(t *testing.T) {
	between := newProxy(t, strings.TrimPrefix(daemon.Host(), "unix://"))
	e := engineWith(t, docker.Options{Host: "unix://" + between.Addr().String(), OwnerKey: []byte(ownerKey)})
	c := rent(t, e, spec("cut"))
	report(t, c)
	result := waiting(t, e, c.ID)
	for range 3 {
		between.await(t)
		between.cut()
	}
	between.await(t)
	request(c.Routes[0].Target.String(), "/exit?code=7")
	if got := <-result; got.err != nil || got.exit.EngineStopped || got.exit.Code != 7 {
		t.Errorf("Wait: %+v, %v; want the program's own end", got.exit, got.err)
	}
}

// proxy passes connections on to a socket.
type proxy struct {
	net.Listener
	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu
}

func newProxy(t *testing.T, socket string) *proxy {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: listener, conns: map[net.Conn]bool{}}
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			in, err := p.Accept()
			if err != nil {
				return
			}
			passing.Go(func() { p.pass(in, socket) })
		}
	})
	t.Cleanup(func() { p.Close(); p.cut(); passing.Wait() })
	return p
}

func (p *proxy) pass(in net.Conn, socket string) {
	defer in.Close()
	out, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer out.Close()
	p.mu.Lock()
	p.conns[in] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, in)
	}()
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
	_, _ = io.Copy(out, in)
	_ = out.Close()
	back.Wait()
}

// cut ends all connections there are.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
	}
	clear(p.conns)
}

// await returns when there are two connections, as Wait needs them.
func (p *proxy) await(t *testing.T) {
	t.Helper()
	two := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.conns) >= 2
	}
	if !eventually(t, two) {
		t.Fatal("Wait has not come back to the engine")
	}
}

// awaitStream returns when the engine has somebody who listens to its events.
func awaitStream(t *testing.T) {
	t.Helper()
	if !eventually(t, func() bool { return cli(t, "info", "-f", "{{.NEventsListener}}") == "1" }) {
		t.Fatal("Wait has not come back to the engine")
	}
}

// Networks that killed agents have left use up the address pool, which has room for four here.
func TestNetworksLeftBehindMakeRoom(t *testing.T) {
	e := engineWith(t, docker.Options{Host: daemon.Host(), OwnerKey: []byte(ownerKey), AddressPool: "10.99.0.0/27"})
	for range 6 {
		cli(t, "rm", "-f", create(t, e, spec("left")))
	}
}

func eventually(t testing.TB, condition func() bool) bool {
	t.Helper()
	for late := time.Now().Add(time.Minute); time.Now().Before(late); time.Sleep(50 * time.Millisecond) {
		if condition() {
			return true
		}
	}
	return false
}
