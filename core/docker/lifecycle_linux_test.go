package docker_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/rental"
)

// portless is the relay of rentals without ports, which need none.
type portless struct{}

func (portless) Publish(context.Context, rental.ID, []rental.Route, func(string)) ([]rental.Address, error) {
	return nil, errors.New("a rental without ports was published")
}

func (portless) Withdraw(context.Context, rental.ID) error { return nil }

// keeper is a book of rentals on the real engine, and what it has told.
type keeper struct {
	*rental.Book
	engine *docker.Engine
	leave  func()

	mu   sync.Mutex
	told map[rental.ID]rental.Status // guarded by mu
}

// keep runs the book of a directory until the test ends or it is left.
func keep(t *testing.T, e *docker.Engine, dir string) *keeper {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	book, err := rental.Open(rental.Options{Dir: dir, Engine: e, Relay: portless{}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{Book: book, engine: e, told: map[rental.ID]rental.Status{}}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := book.Run(ctx, k.note); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	k.leave = func() { stop(); running.Wait() }
	t.Cleanup(k.leave)
	return k
}

func (k *keeper) note(s rental.Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told[s.ID] = s
}

func (k *keeper) last(id rental.ID) rental.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.told[id]
}

// take accepts a small rental, once the book runs. What is left of it goes when the test ends.
func (k *keeper) take(t *testing.T, s rental.Spec) {
	t.Helper()
	var err error
	if !within(time.Minute, func() bool { _, err = k.Accept(s); return err == nil }) {
		t.Fatalf("accepting %s: %v", s.ID, err)
	}
	t.Cleanup(func() {
		if last := k.last(s.ID); !last.State.Final() {
			if err := k.engine.Remove(context.Background(), s.ID, last.ContainerID); err != nil {
				t.Error(err)
			}
		}
	})
}

func (k *keeper) await(t *testing.T, id rental.ID, what string, wanted func(rental.Status) bool) rental.Status {
	t.Helper()
	if !within(time.Minute, func() bool { return wanted(k.last(id)) }) {
		t.Fatalf("rental %s is not %s but %+v", id, what, k.last(id))
	}
	return k.last(id)
}

func isRunning(s rental.Status) bool { return s.State == rental.Running }
func isFinal(s rental.Status) bool   { return s.State.Final() }

func within(d time.Duration, condition func() bool) bool {
	for late := time.Now().Add(d); time.Now().Before(late); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return true
		}
	}
	return condition()
}

func small(id rental.ID, command ...string) rental.Spec {
	return rental.Spec{ID: id, Image: image, MemoryBytes: 64 << 20, CPUs: 0.5, PidsLimit: 64, Command: command}
}

// addressOf is where a container's programs are reached from this machine.
func addressOf(t *testing.T, containerID string) string {
	t.Helper()
	return cli(t, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", containerID) + ":8080"
}

// However a rental ends, why and when is told exactly and soon.
func TestEveryEndIsToldExactlyAndSoon(t *testing.T) {
	k := keep(t, newEngine(t), t.TempDir())
	missing := small("missing")
	missing.Image = pushedWith(t, "no-program", func(c *imageConfig) { c.Entrypoint = []string{"/nothing"} })
	tests := []struct {
		spec  rental.Spec
		cause func(rental.Status)
		state rental.State
		code  rental.Code
		exit  int // -1: none is known
	}{
		{missing, nil, rental.Failed, rental.CodeContainerFailed, 127},
		{small("brief", "-exit=3"), nil, rental.Failed, rental.CodeContainerFailed, 3},
		{small("exits"), func(s rental.Status) { request(addressOf(t, s.ContainerID), "/exit?code=42") }, rental.Failed, rental.CodeContainerFailed, 42},
		{small("memory"), func(s rental.Status) { request(addressOf(t, s.ContainerID), "/allocate?mb=500") }, rental.Failed, rental.CodeContainerFailed, 137},
		{small("deaf", "-ignore-sigterm"), func(s rental.Status) {
			if err := k.End(s.ID, nil, time.Second); err != nil {
				t.Error(err)
			}
		}, rental.Stopped, "", 137},
		{small("killed"), func(s rental.Status) { cli(t, "kill", s.ContainerID) }, rental.Failed, rental.CodeContainerFailed, 137},
		{small("removed"), func(s rental.Status) { cli(t, "rm", "-f", s.ContainerID) }, rental.Failed, rental.CodeInterrupted, -1},
	}
	for _, test := range tests {
		k.take(t, test.spec)
	}
	t.Run("ends", func(t *testing.T) {
		for _, test := range tests {
			t.Run(string(test.spec.ID), func(t *testing.T) {
				t.Parallel()
				began, ended := time.Now(), time.Time{}
				if test.cause != nil {
					up := k.await(t, test.spec.ID, "running", isRunning)
					awaitGuest(t, up.ContainerID)
					began = time.Now()
					test.cause(up)
					ended = time.Now()
				}
				got := k.await(t, test.spec.ID, "over", isFinal)
				t.Logf("told %v after its cause began: %+v, billed %v", time.Since(began).Round(time.Millisecond), got.Failure, got.EndedAt.Sub(got.StartedAt))
				if test.cause != nil && time.Since(began) > 30*time.Second {
					t.Errorf("told after %v", time.Since(began))
				}
				code := rental.Code("")
				if got.Failure != nil {
					code = got.Failure.Code
				}
				exit := -1
				if got.ExitCode != nil {
					exit = *got.ExitCode
				}
				if got.State != test.state || code != test.code || exit != test.exit {
					t.Errorf("%s %q with exit code %d, want %s %q with %d", got.State, code, exit, test.state, test.code, test.exit)
				}
				if test.cause != nil && (got.EndedAt.Before(began.Add(-time.Second)) || got.EndedAt.After(ended.Add(5*time.Second))) {
					t.Errorf("ended at %v, and its cause was from %v to %v", got.EndedAt, began, ended)
				}
			})
		}
	})
	if left := cli(t, "ps", "-aq", "--filter", "label=distributedcompute.managed"); left != "" {
		t.Errorf("containers are left: %q", left)
	}
}

// awaitGuest returns when the workload answers.
func awaitGuest(t *testing.T, containerID string) {
	t.Helper()
	address := addressOf(t, containerID)
	if !within(30*time.Second, func() bool { return answering(address) }) {
		t.Fatalf("the workload does not answer at %s", address)
	}
}

// An agent that comes back takes all its rentals up together.
func TestManyRentalsAreTakenUpTogether(t *testing.T) {
	const many = 5
	dir := t.TempDir()
	first := keep(t, newEngine(t), dir)
	ids := make([]rental.ID, many)
	for i := range ids {
		ids[i] = rental.ID("many-" + string(rune('a'+i)))
		s := small(ids[i])
		s.CPUs = 0.1
		first.take(t, s)
	}
	before := map[rental.ID]rental.Status{}
	for _, id := range ids {
		before[id] = first.await(t, id, "running", isRunning)
	}
	first.leave()

	began := time.Now()
	again := keep(t, newEngine(t), dir)
	for _, id := range ids {
		up := again.await(t, id, "running", isRunning)
		if up.ContainerID != before[id].ContainerID || !up.StartedAt.Equal(before[id].StartedAt) {
			t.Errorf("rental %s runs in %s since %v, before in %s since %v", id, up.ContainerID, up.StartedAt, before[id].ContainerID, before[id].StartedAt)
		}
	}
	took := time.Since(began)
	t.Logf("%d rentals taken up after %v", many, took)
	if took > 30*time.Second {
		t.Errorf("taken up after %v", took)
	}
	for _, id := range ids {
		if err := again.End(id, nil, 0); err != nil {
			t.Error(err)
		}
	}
	for _, id := range ids {
		again.await(t, id, "over", isFinal)
	}
}

// When a rental is told to have ended, nothing that it has written is left for the next one to find.
func TestNothingOfARenterIsLeft(t *testing.T) {
	e := newEngine(t)
	k := keep(t, e, t.TempDir())
	canary := rand.Text() + rand.Text()
	s := small("canary", "-write=/root/canary,/data/canary", "-text="+canary)
	s.Image = pushedWith(t, "canary", func(c *imageConfig) { c.Volumes = map[string]struct{}{"/data": {}} })
	networks, volumes := cli(t, "network", "ls", "-q"), cli(t, "volume", "ls", "-q")
	root := cli(t, "info", "-f", "{{.DockerRootDir}}")
	k.take(t, s)
	up := k.await(t, s.ID, "running", isRunning)
	awaitGuest(t, up.ContainerID)
	if found := holding(t, root, canary); len(found) < 2 {
		t.Fatalf("while the rental runs, what it wrote is found in %q, want layer and volume", found)
	}
	if err := k.End(s.ID, nil, 0); err != nil {
		t.Fatal(err)
	}
	k.await(t, s.ID, "over", isFinal)
	if found := holding(t, root, canary); len(found) > 0 {
		t.Errorf("what the renter wrote is left in %q", found)
	}
	if all := cli(t, "ps", "-aq", "--no-trunc", "--filter", "id="+up.ContainerID); all != "" {
		t.Errorf("the container is left")
	}
	if now := cli(t, "volume", "ls", "-q"); now != volumes {
		t.Errorf("volumes changed from %q to %q", volumes, now)
	}
	if now := cli(t, "network", "ls", "-q"); now != networks {
		t.Errorf("networks changed from %q to %q", networks, now)
	}
}

// holding lists the files below a directory that hold a text near their beginning.
func holding(t *testing.T, dir, text string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || entry != nil && !entry.Type().IsRegular() {
			return nil
		}
		if err != nil {
			return err
		}
		if entry.Name() == "meta.db" {
			return nil // containerd's own, whose unused pages may still have the text as part of the command
		}
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer file.Close()
		start := make([]byte, 64<<10)
		n, _ := file.Read(start)
		if bytes.Contains(start[:n], []byte(text)) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// answering reports whether the workload at an address answers.
func answering(address string) bool {
	response, err := http.Get("http://" + address + "/json")
	if err == nil {
		response.Body.Close()
	}
	return err == nil
}
