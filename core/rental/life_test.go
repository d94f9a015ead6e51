package rental_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/rental/rentaltest"
	"github.com/distributedcompute/host-agent/core/secret"
)

// expectNothing checks that a rental has left nothing on engine and relay.
func (h *host) expectNothing(id rental.ID) {
	h.t.Helper()
	held, _ := h.engine.Holdings(h.t.Context())
	if slices.ContainsFunc(held, func(x rental.Holding) bool { return x.ID == id }) {
		h.t.Errorf("the container of %s is still there", id)
	}
	if routes := h.relay.Routes(id); routes != nil {
		h.t.Errorf("the routes of %s are still there: %v", id, routes)
	}
}

func TestExits(t *testing.T) {
	for name, test := range map[string]struct {
		exit  rental.Exit
		state rental.State
		code  rental.Code
		says  string
	}{
		"done":    {rental.Exit{Code: 0}, rental.Stopped, "", ""},
		"crashed": {rental.Exit{Code: 3}, rental.Failed, rental.CodeContainerFailed, "exit code 3"},
		"oom":     {rental.Exit{Code: 137, OOMKilled: true}, rental.Failed, rental.CodeContainerFailed, "16 GiB"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				h.accept(spec("r-1"))
				h.expect("r-1", rental.Running, "")
				test.exit.At = time.Now().Add(-time.Second).UTC()
				h.engine.Exit("r-1", test.exit)
				s := h.expect("r-1", test.state, test.code)
				if s.ExitCode == nil || *s.ExitCode != test.exit.Code || !s.EndedAt.Equal(test.exit.At) {
					t.Errorf("exit told as %v at %v", s.ExitCode, s.EndedAt)
				}
				if s.Failure != nil && !strings.Contains(s.Failure.Message, test.says) {
					t.Errorf("message %q does not say %q", s.Failure.Message, test.says)
				}
				h.expectNothing("r-1")
			})
		})
	}
}

// TestProgramEndsAtOnce: a program that is over before its ports could be read ends like any other.
func TestProgramEndsAtOnce(t *testing.T) {
	for code, want := range map[int]rental.State{0: rental.Stopped, 3: rental.Failed} {
		t.Run(string(want), func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				h.engine.Flash(rental.Exit{Code: code, At: time.Now()})
				h.accept(spec("r-1"))
				time.Sleep(time.Second)
				s := h.status("r-1")
				if s.State != want || s.ExitCode == nil || *s.ExitCode != code {
					t.Errorf("the rental is %s with exit code %v, want %s with %d", s.State, s.ExitCode, want, code)
				}
				if slices.Contains(h.states("r-1"), rental.Running) {
					t.Error("it was told to be running")
				}
				h.expectNothing("r-1")
			})
		})
	}
}

// TestEndAtEveryStep holds the life at one step after the other, and ends it there.
func TestEndAtEveryStep(t *testing.T) {
	obstruct := func(h *host) { h.relay.Obstruct("The relay is down.") }
	hold := func(method string) func(*host) { return func(h *host) { h.engine.Hold(method) } }
	for state, prepare := range map[rental.State]func(*host){
		rental.Pulling:    hold("Pull"),
		rental.Creating:   hold("Create"),
		rental.Starting:   hold("Start"),
		rental.Tunnelling: obstruct,
		rental.Running:    func(*host) {},
	} {
		for _, why := range []*rental.Failure{nil, rental.Failf(rental.CodeStoppedByHost, "The host has ended the rental.")} {
			t.Run(string(state), func(t *testing.T) {
				inBubble(t, func(t *testing.T, h *host) {
					prepare(h)
					h.accept(spec("r-1"))
					h.expect("r-1", state, "")
					h.end("r-1", why, time.Second)
					var code rental.Code
					if why != nil {
						code = why.Code
					}
					h.expect("r-1", rental.Stopped, code)
					h.expectNothing("r-1")
					h.end("r-1", nil, 0) // again
				})
			})
		}
	}
}

func TestFailuresOnTheWay(t *testing.T) {
	broken := rental.Failf(rental.CodeContainerFailed, "The container cannot run.")
	for name, test := range map[string]struct {
		prepare func(*host, *rental.Spec)
		within  time.Duration
		code    rental.Code
		after   []rental.State // up to stopping
	}{
		"no such image": {
			func(_ *host, s *rental.Spec) { s.Image = "registry.example.com/none:1" }, 0, rental.CodeImageNotFound,
			[]rental.State{rental.Accepted, rental.Pulling},
		},
		"endless pull": {
			func(h *host, _ *rental.Spec) { h.engine.Hold("Pull") }, 2 * time.Hour, rental.CodeTimeout,
			[]rental.State{rental.Accepted, rental.Pulling},
		},
		"create": {
			func(h *host, _ *rental.Spec) { h.engine.Fail("Create", broken) }, 0, rental.CodeContainerFailed,
			wholeLife[:3],
		},
		"start": {
			func(h *host, _ *rental.Spec) { h.engine.Fail("Start", broken) }, 0, rental.CodeContainerFailed,
			wholeLife[:4],
		},
		"unnamed": {
			func(h *host, _ *rental.Spec) { h.engine.Fail("Start", errors.New("/home/x: boom")) }, 0, rental.CodeInternal,
			wholeLife[:4],
		},
		"publish": {
			func(h *host, _ *rental.Spec) { h.relay.Obstruct("The relay is down.") }, time.Minute, rental.CodeTunnelFailed,
			wholeLife[:5],
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				s := spec("r-1")
				test.prepare(h, &s)
				h.accept(s)
				if test.within > 0 {
					time.Sleep(test.within - time.Second)
					if h.status("r-1").State.Final() {
						t.Fatal("failed early")
					}
					time.Sleep(2 * time.Second)
				}
				final := h.expect("r-1", rental.Failed, test.code)
				if strings.Contains(final.Failure.Message, "/home") {
					t.Errorf("the message tells a path: %s", final.Failure.Message)
				}
				h.expectNothing("r-1")
				want := slices.Clone(test.after)
				if len(want) > 2 {
					want = append(want, rental.Stopping)
				}
				want = append(want, rental.Failed)
				if diff := cmp.Diff(want, h.states("r-1")); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestEngineAwayWhileStarting(t *testing.T) {
	for _, method := range []string{"Pull", "Create", "Start"} {
		t.Run(method, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				away := rental.Failf(rental.CodeDockerUnavailable, "Docker does not answer.")
				h.engine.Fail(method, away)
				h.accept(spec("back"))
				time.Sleep(time.Minute)
				if s := h.status("back"); s.State.Final() || s.Trouble != away.Message {
					t.Fatalf("after a minute: %s, trouble %q", s.State, s.Trouble)
				}
				h.engine.Fail(method, nil)
				time.Sleep(10 * time.Second)
				if s := h.expect("back", rental.Running, ""); s.Trouble != "" {
					t.Errorf("trouble stays: %q", s.Trouble)
				}

				h.engine.Fail(method, away)
				h.accept(spec("stays"))
				time.Sleep(3 * time.Minute)
				h.engine.Fail(method, nil)
				h.expect("stays", rental.Failed, rental.CodeDockerUnavailable)
				h.expectNothing("stays")
			})
		})
	}
}

func TestEngineAwayWhileStopping(t *testing.T) {
	for _, method := range []string{"Stop", "Remove"} {
		t.Run(method, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				h.accept(spec("r-1"))
				h.expect("r-1", rental.Running, "")
				h.engine.Fail(method, errors.New("device or resource busy"))
				h.end("r-1", nil, time.Second)
				time.Sleep(24 * time.Hour)
				if s := h.expect("r-1", rental.Stopping, ""); s.Trouble == "" {
					t.Error("no trouble is told")
				}
				h.engine.Fail(method, nil)
				time.Sleep(6 * time.Second)
				h.expect("r-1", rental.Stopped, "")
				h.expectNothing("r-1")
			})
		})
	}
}

func TestRoutesGoFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		h.expect("r-1", rental.Running, "")
		release := h.engine.Hold("Stop")
		h.end("r-1", nil, 30*time.Second)
		if s := h.expect("r-1", rental.Stopping, ""); s.Addresses != nil || h.relay.Routes("r-1") != nil {
			t.Error("routes are still there while the container stops")
		}
		if grace := h.engine.Grace("r-1"); grace != 30*time.Second {
			t.Errorf("grace %v", grace)
		}
		release()
		h.expect("r-1", rental.Stopped, "")
	})
}

func TestWithdrawalIsRetriedButHoldsNothingUp(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		h.expect("r-1", rental.Running, "")
		h.relay.RefuseWithdrawal(errors.New("no"))
		h.end("r-1", nil, 0)
		h.expect("r-1", rental.Stopping, "")
		if h.engine.Starts("r-1") != 0 {
			t.Error("the container waits for the relay")
		}
		h.relay.RefuseWithdrawal(nil)
		time.Sleep(6 * time.Second)
		h.expect("r-1", rental.Stopped, "")
		h.expectNothing("r-1")
	})
}

func TestShorterGraceHurriesTheStop(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		h.expect("r-1", rental.Running, "")
		h.engine.Hold("Stop")
		h.end("r-1", nil, 10*time.Minute)
		time.Sleep(time.Minute)
		h.end("r-1", nil, time.Hour) // no effect
		synctest.Wait()
		if grace := h.engine.Grace("r-1"); grace != 10*time.Minute {
			t.Errorf("grace %v", grace)
		}
		h.end("r-1", nil, 2*time.Second)
		synctest.Wait()
		if grace := h.engine.Grace("r-1"); grace != 2*time.Second {
			t.Errorf("grace %v", grace)
		}
	})
}

func TestExpiry(t *testing.T) {
	expiring := func() rental.Spec {
		s := spec("r-1")
		s.ExpiresAt = time.Now().Add(time.Hour)
		return s
	}
	for name, wait := range map[string]func(*host){
		"running":     func(*host) { time.Sleep(time.Hour) },
		"agent away":  func(h *host) { h.leave(); time.Sleep(2 * time.Hour); h.boot() },
		"engine away": func(h *host) { h.engine.GoAway(); time.Sleep(2 * time.Hour); h.engine.ComeBack() },
		"both away": func(h *host) {
			h.leave()
			h.engine.GoAway()
			time.Sleep(2 * time.Hour)
			h.boot()
			time.Sleep(time.Hour)
			h.engine.ComeBack()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				h.accept(expiring())
				time.Sleep(time.Hour - time.Second)
				h.expect("r-1", rental.Running, "")
				wait(h)
				time.Sleep(6 * time.Second)
				h.expect("r-1", rental.Stopped, rental.CodeExpired)
				h.expectNothing("r-1")
			})
		})
	}
	t.Run("pulling", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *host) {
			h.engine.Hold("Pull")
			h.accept(expiring())
			time.Sleep(time.Hour + time.Second)
			h.expect("r-1", rental.Stopped, rental.CodeExpired)
		})
	})
}

func TestEngineRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		first := h.expect("r-1", rental.Running, "")
		before := h.relay.Routes("r-1")
		h.engine.GoAway()
		h.engine.Restart()
		time.Sleep(time.Hour)
		h.engine.ComeBack()
		time.Sleep(6 * time.Second)
		s := h.expect("r-1", rental.Running, "")
		if s.ContainerID != first.ContainerID || !s.StartedAt.Equal(first.StartedAt) || h.engine.Starts("r-1") != 2 {
			t.Errorf("container %s started %d times, first at %v", s.ContainerID, h.engine.Starts("r-1"), s.StartedAt)
		}
		if cmp.Equal(before, h.relay.Routes("r-1"), cmp.Comparer(func(a, b rental.Route) bool { return a == b })) {
			t.Error("the routes still lead to the old ports")
		}
		want := append(slices.Clone(wholeLife[:6]), rental.Starting, rental.Tunnelling, rental.Running)
		if diff := cmp.Diff(want, h.states("r-1")); diff != "" {
			t.Error(diff)
		}
	})
}

// TestEngineNotReadyAfterItsRestart: what a start needs beside the engine may be ready later than that.
func TestEngineNotReadyAfterItsRestart(t *testing.T) {
	hooks := rental.Failf(rental.CodeGPUUnavailable, "The GPU cannot be handed out.")
	away := rental.Failf(rental.CodeDockerUnavailable, "Docker does not answer.")
	for name, test := range map[string]struct {
		err   error
		after time.Duration
		state rental.State
		code  rental.Code
	}{
		"ready later":    {hooks, time.Minute, rental.Running, ""},
		"unnamed":        {errors.New("boom"), time.Minute, rental.Running, ""},
		"never ready":    {hooks, 3 * time.Minute, rental.Failed, rental.CodeGPUUnavailable},
		"container lost": {rental.Failf(rental.CodeNotFound, "gone"), 0, rental.Failed, rental.CodeInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				h.accept(spec("r-1"))
				h.expect("r-1", rental.Running, "")
				// The time it is away does not count.
				h.engine.Fail("Start", away)
				h.engine.Restart()
				time.Sleep(time.Hour)
				if s := h.expect("r-1", rental.Starting, ""); s.Trouble != away.Message {
					t.Errorf("trouble %q", s.Trouble)
				}
				h.engine.Fail("Start", test.err)
				time.Sleep(6*time.Second + test.after)
				h.engine.Fail("Start", nil)
				time.Sleep(6 * time.Second)
				if s := h.expect("r-1", test.state, test.code); s.Trouble != "" {
					t.Errorf("trouble stays: %q", s.Trouble)
				}
			})
		})
	}
}

func TestContainerRemovedByAnother(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		h.expect("r-1", rental.Running, "")
		h.engine.Lose("r-1")
		h.expect("r-1", rental.Failed, rental.CodeInterrupted)
		h.expectNothing("r-1")
	})
}

// A container that stands where the rental's was, with all that it was known by, has another id than the ledger knows.
func TestAnotherContainerIsNeitherAdoptedNorRemoved(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		h.expect("r-1", rental.Running, "")
		h.leave()
		h.engine.Lose("r-1")
		h.engine.Plant("r-1", time.Now())
		h.boot()
		h.expect("r-1", rental.Failed, rental.CodeInterrupted)
		time.Sleep(48 * time.Hour) // and no sweep takes it
		held, err := h.engine.Holdings(t.Context())
		if err != nil || len(held) != 1 || held[0].ContainerID != "planted-r-1" || !held[0].Running {
			t.Errorf("the engine holds %v, %v; want the other container, running", held, err)
		}
	})
}

func TestTroubleIsToldOnceAndEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		before := h.expect("r-1", rental.Running, "")
		for range 5 {
			h.relay.Obstruct("The relay is down.")
			synctest.Wait()
		}
		s := h.expect("r-1", rental.Running, "")
		if s.Trouble != "The relay is down." || s.Sequence != before.Sequence+1 {
			t.Errorf("trouble %q, %d statuses", s.Trouble, s.Sequence-before.Sequence)
		}
		h.relay.Obstruct("")
		if s := h.expect("r-1", rental.Running, ""); s.Trouble != "" || s.Sequence != before.Sequence+2 {
			t.Errorf("trouble %q, %d statuses", s.Trouble, s.Sequence-before.Sequence)
		}
	})
}

func TestProgress(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.engine.Report(rental.Progress{Phase: "pulling", Current: 1, Total: 3}, rental.Progress{Phase: "pulling", Current: 2, Total: 3})
		h.accept(spec("r-1"))
		for i := range int64(2) {
			s := h.expect("r-1", rental.Pulling, "")
			if s.Progress == nil || s.Progress.Current != i+1 {
				t.Fatalf("progress %+v", s.Progress)
			}
			time.Sleep(time.Second)
		}
		if s := h.expect("r-1", rental.Running, ""); s.Progress != nil {
			t.Errorf("progress is still told: %+v", s.Progress)
		}
	})
}

func TestTwoLivesDoNotWaitForEachOther(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		release := h.engine.Hold("Pull")
		h.accept(spec("slow"))
		h.expect("slow", rental.Pulling, "")
		release()
		hold := h.engine.Hold("Stop")
		h.accept(spec("quick"))
		h.expect("quick", rental.Running, "")
		h.expect("slow", rental.Running, "")
		h.end("slow", nil, 0)
		h.expect("slow", rental.Stopping, "")
		h.engine.Exit("quick", rental.Exit{})
		h.expect("quick", rental.Stopped, "")
		hold()
		h.expect("slow", rental.Stopped, "")
	})
}

func TestTakingOver(t *testing.T) {
	plain, private := spec("r-1"), spec("r-1")
	private.Registry = &rental.RegistryAuth{Username: "u", Password: secret.New("p")}
	held := func(method string) func(*host) { return func(h *host) { h.engine.Hold(method) } }
	free := func(method string) func(*host) { return func(h *host) { h.engine.Hold(method)() } }
	for name, test := range map[string]struct {
		spec    rental.Spec
		prepare func(*host) // before the order
		then    func(*host) // once the first agent has come as far as it can
		away    func(*host) // while there is no agent
		state   rental.State
		code    rental.Code
		starts  int
	}{
		"running":    {plain, nil, nil, nil, rental.Running, "", 1},
		"tunnelling": {plain, func(h *host) { h.relay.Obstruct("down") }, nil, nil, rental.Running, "", 1},

		"failed": {plain, nil, nil, func(h *host) { h.engine.Exit("r-1", rental.Exit{Code: 7}) }, rental.Failed, rental.CodeContainerFailed, 0},
		"done":   {plain, nil, nil, func(h *host) { h.engine.Exit("r-1", rental.Exit{}) }, rental.Stopped, "", 0},
		"gone":   {plain, nil, nil, func(h *host) { h.engine.Lose("r-1") }, rental.Failed, rental.CodeInterrupted, 0},

		"engine restarted": {plain, nil, func(h *host) { h.engine.Hold("Start"); h.engine.Restart() }, free("Start"), rental.Running, "", 2},
		"started again, and done with no agent near": {plain, nil, func(h *host) { h.engine.Hold("Start"); h.engine.Restart() }, func(h *host) {
			free("Start")(h)
			time.Sleep(time.Second)
			h.engine.Launch("r-1")
			h.engine.Exit("r-1", rental.Exit{})
		}, rental.Stopped, "", 0},
		"engine restarted with no agent near": {plain, nil, nil, func(h *host) { h.engine.Restart() }, rental.Failed, rental.CodeInterrupted, 0},

		"host shut down":  {plain, nil, nil, func(h *host) { h.engine.Exit("r-1", rental.Exit{Code: 143}) }, rental.Failed, rental.CodeInterrupted, 0},
		"host lost power": {plain, nil, nil, func(h *host) { h.engine.Exit("r-1", rental.Exit{Code: 255}) }, rental.Failed, rental.CodeInterrupted, 0},
		"out of memory":   {plain, nil, nil, func(h *host) { h.engine.Exit("r-1", rental.Exit{Code: 137, OOMKilled: true}) }, rental.Failed, rental.CodeContainerFailed, 0},

		"pulling":  {plain, held("Pull"), nil, free("Pull"), rental.Running, "", 1},
		"creating": {plain, held("Create"), nil, free("Create"), rental.Running, "", 1},
		"starting": {plain, held("Start"), nil, free("Start"), rental.Running, "", 1},
		"stopping": {plain, nil, func(h *host) { h.engine.Hold("Stop"); h.end("r-1", nil, 0) }, free("Stop"), rental.Stopped, "", 0},
		"removing": {plain, nil, func(h *host) { h.engine.Hold("Remove"); h.end("r-1", nil, 0) }, free("Remove"), rental.Stopped, "", 0},

		"pulling a private image":       {private, held("Pull"), nil, free("Pull"), rental.Failed, rental.CodeImageUnauthorized, 0},
		"creating from a private image": {private, held("Create"), nil, free("Create"), rental.Running, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				for _, do := range []func(*host){test.prepare, func(h *host) { h.accept(test.spec) }, test.then} {
					if do != nil {
						do(h)
						synctest.Wait()
					}
				}
				last := h.status("r-1")
				h.leave()
				if test.away != nil {
					test.away(h)
				}
				time.Sleep(time.Hour)
				h.boot()
				s := h.expect("r-1", test.state, test.code)
				if last.ContainerID != "" && s.ContainerID != last.ContainerID {
					t.Errorf("container %s became %s", last.ContainerID, s.ContainerID)
				}
				if got := h.engine.Starts("r-1"); got != test.starts {
					t.Errorf("started %d times, want %d", got, test.starts)
				}
				if s.State == rental.Running && (h.relay.Routes("r-1") == nil || s.Addresses == nil) {
					t.Error("its ports have not been published again")
				}
				if s.State.Final() {
					h.expectNothing("r-1")
				}
				h.states("r-1") // in order over both agents
			})
		})
	}
}

// TestPublishingStaysBounded: an agent's restart does not make a rental one that has been up, nor one
// that has been up another.
func TestPublishingStaysBounded(t *testing.T) {
	const down = "The relay is down."
	reboot := func(h *host) {
		h.leave()
		h.relay = rentaltest.NewRelay()
		h.relay.Obstruct(down)
		h.open()
		h.run()
	}
	t.Run("never up", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *host) {
			h.relay.Obstruct(down)
			h.accept(spec("r-1"))
			h.expect("r-1", rental.Tunnelling, "")
			reboot(h)
			time.Sleep(59 * time.Second)
			h.expect("r-1", rental.Tunnelling, "")
			time.Sleep(2 * time.Second)
			h.expect("r-1", rental.Failed, rental.CodeTunnelFailed)
		})
	})
	t.Run("up before", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *host) {
			h.accept(spec("r-1"))
			h.expect("r-1", rental.Running, "")
			h.relay.Obstruct(down)
			h.engine.Restart()
			h.expect("r-1", rental.Tunnelling, "")
			reboot(h)
			time.Sleep(24 * time.Hour)
			h.expect("r-1", rental.Tunnelling, "")
			h.relay.Obstruct("")
			h.expect("r-1", rental.Running, "")
		})
	})
}

func TestTakingOverWaitsForEngineAndRelay(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		before := h.expect("r-1", rental.Running, "")
		h.leave()
		h.engine.GoAway()
		h.boot()
		time.Sleep(24 * time.Hour)
		s := h.expect("r-1", rental.Running, "")
		if s.Trouble == "" || !cmp.Equal(s.Addresses, before.Addresses) {
			t.Errorf("trouble %q, addresses %v", s.Trouble, s.Addresses)
		}
		h.relay.Obstruct("The relay is down.")
		h.engine.ComeBack()
		time.Sleep(24 * time.Hour)
		if s := h.expect("r-1", rental.Running, ""); s.Trouble != "The relay is down." {
			t.Errorf("trouble %q", s.Trouble)
		}
		h.relay.Obstruct("")
		if s := h.expect("r-1", rental.Running, ""); s.Trouble != "" {
			t.Errorf("trouble %q", s.Trouble)
		}
		h.end("r-1", nil, 0)
		h.expect("r-1", rental.Stopped, "")
	})
}

func TestEndWhileTakingOver(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		h.expect("r-1", rental.Running, "")
		h.leave()
		h.engine.GoAway()
		h.boot()
		h.end("r-1", nil, 0)
		h.expect("r-1", rental.Stopping, "")
		h.engine.ComeBack()
		time.Sleep(6 * time.Second)
		h.expect("r-1", rental.Stopped, "")
		h.expectNothing("r-1")
	})
}

// TestEndTakesWhatNoRecordTells ends a rental whose record a power cut has set back to before its
// container was made.
func TestEndTakesWhatNoRecordTells(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.engine.Hold("Pull")
		h.accept(spec("r-1"))
		h.expect("r-1", rental.Pulling, "")
		h.leave()
		h.engine.Plant("r-1", time.Now())
		h.boot()
		h.end("r-1", nil, 0)
		h.expect("r-1", rental.Stopped, "")
		h.expectNothing("r-1")
	})
}

func TestSequenceGoesOnWithoutAGap(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		for range 3 {
			last := h.expect("r-1", rental.Running, "")
			h.leave()
			h.boot()
			if s := h.expect("r-1", rental.Running, ""); s.Sequence != last.Sequence+1 {
				t.Errorf("sequence went from %d to %d", last.Sequence, s.Sequence)
			}
		}
	})
}
