package docker_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/shield"
)

var errHands = errors.New("no hands, as the test wishes")

func shielding() *docker.Shielding {
	return &docker.Shielding{Policy: shield.Policy{MaxConnections: 2000, PerSecond: 200}}
}

// shieldedEngine is an engine whose rentals are kept off the LAN. The shield is gone when the test ends.
func shieldedEngine(t *testing.T, with *docker.Shielding) *docker.Engine {
	t.Helper()
	takeDown(t)
	t.Cleanup(func() { takeDown(t) })
	return engineWith(t, docker.Options{Host: daemon.Host(), OwnerKey: []byte(ownerKey), Shielding: with})
}

func takeDown(t *testing.T) {
	t.Helper()
	if err := (shield.Direct{}).Remove(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func standing(t *testing.T) shield.Picture {
	t.Helper()
	there, err := shield.Direct{}.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return there
}

func stands(t *testing.T) bool { t.Helper(); return standing(t).Mark != "" }

func TestNoRentalStartsWithoutTheShield(t *testing.T) {
	e := shieldedEngine(t, shielding())
	id := create(t, e, spec("shielded"))
	if stands(t) {
		t.Fatal("the shield is up before anybody needs it")
	}
	e.LoseHands(errHands)
	_, err := e.Start(t.Context(), id)
	wantFailure(t, err, rental.CodeIsolation)
	if state := cli(t, "inspect", "-f", "{{.State.Status}}", id); state != "created" {
		t.Errorf("the container is %s", state)
	}
	if info := e.Info().Shield; info.State != rental.ShieldMissing || !info.Refuses() {
		t.Errorf("told of the shield: %+v", info)
	}

	e.LoseHands(nil)
	if _, err := e.Start(t.Context(), id); err != nil {
		t.Fatalf("Start: %v", err)
	}
	if info := e.Info().Shield; !stands(t) || info.State != rental.ShieldOn || info.How != "direct" || info.Refuses() {
		t.Errorf("told of the shield, which stands (%t): %+v", stands(t), info)
	}
	mark := standing(t).Mark

	takeDown(t)
	if _, err := e.Start(t.Context(), id); err != nil { // as when it is adopted
		t.Fatalf("Start of what runs: %v", err)
	}
	if standing(t).Mark != mark {
		t.Error("a start did not put the shield up again")
	}
}

func TestOwnerMayDoWithoutTheShield(t *testing.T) {
	with := shielding()
	with.AllowUnshielded = true
	e := shieldedEngine(t, with)
	e.LoseHands(errHands)
	rent(t, e, spec("unshielded"))
	if info := e.Info().Shield; info.State != rental.ShieldMissing || info.Problem == "" || info.Refuses() {
		t.Errorf("told of the shield: %+v", info)
	}
}

func TestShieldIsPutUpAgainAndRentalsEndWithoutIt(t *testing.T) {
	e := shieldedEngine(t, shielding())
	changed := watch(t, e)
	until(t, e, changed, func(i rental.EngineInfo) bool { return i.Shield.State == rental.ShieldOn })
	c := rent(t, e, spec("watched"))

	report(t, c) // its ports are reached as ever
	takeDown(t)
	began := time.Now()
	e.LookAtShield()
	if !eventually(t, func() bool { return stands(t) }) {
		t.Fatal("the shield stays down")
	}
	t.Logf("up again %s after the look", time.Since(began).Round(time.Millisecond))

	ended := make(chan rental.Exit, 1)
	go func() {
		exit, err := e.Wait(context.Background(), c.ID)
		if err != nil {
			t.Errorf("Wait: %v", err)
		}
		ended <- exit
	}()
	e.Blind(errHands)
	e.LookAtShield()
	until(t, e, changed, func(i rental.EngineInfo) bool { return i.Shield.State == rental.ShieldMissing })
	e.InsistOnShield(t.Context())
	report(t, c) // nobody has seen the shield gone
	e.StoodBefore(time.Hour)
	began = time.Now()
	e.LookAtShield()
	select {
	case exit := <-ended:
		if exit.Failure == nil || exit.Failure.Code != rental.CodeIsolation || exit.EngineStopped {
			t.Errorf("the rental ended with %+v", exit)
		}
		t.Logf("ended %s after the look", time.Since(began).Round(time.Millisecond))
	case <-time.After(time.Minute):
		t.Fatal("a rental runs on though nobody has seen the shield for long")
	}
	e.LoseHands(nil)

	again := rent(t, e, spec("unshielded-at-once")) // which puts it up again
	e.LoseHands(errHands)
	e.LookAtShield()
	if exit, err := e.Wait(t.Context(), again.ID); err != nil || exit.Failure == nil || exit.Failure.Code != rental.CodeIsolation {
		t.Errorf("a rental whose shield is gone ended with %+v, %v", exit, err)
	}
	e.LoseHands(nil)
}

func TestHandsInAContainerPutUpTheSameShield(t *testing.T) {
	with := shielding()
	with.Policy.Deny = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	with.Program = filepath.Join(t.TempDir(), "distributed-agent-shield")
	build := exec.Command("go", "build", "-o", with.Program, "../../app/shield")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the shield's program: %v\n%s", err, out)
	}
	e := shieldedEngine(t, with)
	id := create(t, e, spec("borrowed"))
	if err := e.Borrow(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := e.Start(t.Context(), id); err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Logf("started %s after it was asked for", time.Since(began).Round(time.Millisecond))
	if info := e.Info().Shield; info.State != rental.ShieldOn || info.How != "container" {
		t.Errorf("told of the shield: %+v", info)
	}
	borrowed := standing(t)
	if own, err := shield.Raise(t.Context(), shield.Direct{}, with.Policy); err != nil || own.Mark != borrowed.Mark {
		t.Errorf("own hands put up %q, %v; those of the container %q", own.Mark, err, borrowed.Mark)
	}
	began = time.Now()
	if _, err := e.Start(t.Context(), id); err != nil {
		t.Errorf("Start: %v", err)
	}
	t.Logf("a look took %s", time.Since(began).Round(time.Millisecond))
	if left := cli(t, "ps", "-aq", "--filter", "label=distributedcompute.shield"); left != "" {
		t.Errorf("containers of the shield are left: %s", left)
	}

	with.Program = "/nowhere"
	other := engineWith(t, docker.Options{Host: daemon.Host(), OwnerKey: []byte(ownerKey), Shielding: with})
	if err := other.Borrow(t.Context()); err == nil || !strings.Contains(err.Error(), "isolation.program") {
		t.Errorf("without the program: %v", err)
	}
}
