package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/sandbox/engine"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

func TestMain(m *testing.M) { os.Exit(engine.Isolated(m.Run)) }

// TestDrivingAMarketplace runs `sandbox up`, a real agent on a real engine, and every command that drives them.
func TestDrivingAMarketplace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with a space") // as home directories may have
	private, err := engine.Start(t.Context(), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := private.Stop(); err != nil {
			t.Error(err)
		}
	})
	startUp(t, dir, private.Host())
	config := filepath.Join(dir, "agent.yaml")
	before, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if said, err := runIn(t, dir, "up"); err == nil || !strings.Contains(err.Error(), "a sandbox runs already on") {
		t.Errorf("a second marketplace in the same place: %v\n%s", err, said)
	}
	if after, err := os.ReadFile(config); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the second one touched the first one's files: %v", err)
	}
	startAgent(t, config)

	// sandbox runs a command that is to succeed and to print all of wants.
	sandbox := func(line string, wants ...string) string {
		t.Helper()
		said, err := runIn(t, dir, strings.Fields(line)...)
		if err != nil {
			t.Fatalf("sandbox %s: %v\n%s", line, err, said)
		}
		for _, want := range wants {
			if !strings.Contains(said, want) {
				t.Errorf("sandbox %s does not say %q:\n%s", line, want, said)
			}
		}
		return said
	}
	awaitNode(t, dir)
	sandbox("rent --id r-1 --port 8080 --port 9090/udp --env GREETING=hello", "r-1  running", "port 8080/tcp answers on 127.0.0.1:", "port 9090/udp is at", "end it with: build/sandbox stop r-1 --dir")
	// It may be seen running for a moment, but how it ended is told.
	if said, err := runIn(t, dir, "rent", "--id", "r-2", "--", "-exit", "3"); err != nil && !strings.Contains(err.Error(), "exit code 3") {
		t.Errorf("a rental whose program ends at once: %v\n%s", err, said)
	}
	await(t, "how the rental ended", func() bool { return strings.Contains(sandbox("rentals"), "exit code 3") })
	sandbox("nodes", "registered", "online")
	sandbox("rentals", "r-1", "running")
	sandbox("logs r-1", "serving http")
	sandbox("drain", "takes no new rentals", "build/sandbox resume")
	if said, err := runIn(t, dir, "rent"); err == nil {
		t.Errorf("a draining host took a rental:\n%s", said)
	}
	sandbox("resume", "takes rentals")
	if said := sandbox("stop r-1", "r-1  stopped"); strings.Contains(said, "pulling") || strings.Contains(said, "running") {
		t.Errorf("stop tells the rental's whole history:\n%s", said)
	}
	sandbox("rentals", "refused")
	sandbox("speedtest", "Mbit/s")
	sandbox("cut --code 1012", "connect again")
	sandbox("expire", "build/sandbox expire --undo")
	sandbox("expire --undo", "good again")
	sandbox("enrol --uses 2", "dce_")
}

// startUp runs `sandbox up` until the test ends.
func startUp(t *testing.T, dir, dockerHost string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	root := newRoot("build/sandbox")
	root.SetArgs([]string{"up", "--dir", dir, "--docker-host", dockerHost})
	var running sync.WaitGroup
	running.Go(func() {
		if err := root.ExecuteContext(ctx); err != nil {
			t.Errorf("sandbox up: %v", err)
		}
	})
	t.Cleanup(func() { stop(); running.Wait() })
	await(t, "the marketplace to open", func() bool {
		_, err := (&place{dir: dir}).client().Nodes(t.Context())
		return err == nil
	})
}

// startAgent runs the real agent until the test ends; its log is shown if the test fails.
func startAgent(t *testing.T, config string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "distributed-agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/distributedcompute/host-agent/app")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the agent: %v\n%s", err, out)
	}
	var log bytes.Buffer
	cmd := exec.Command(program, "start", "--headless", "--config", config)
	cmd.Env = market.WithoutSettings(os.Environ())
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the agent ended with: %v", err)
		}
		if t.Failed() {
			t.Logf("the agent said:\n%s", log.String())
		}
	})
}

func awaitNode(t *testing.T, dir string) {
	t.Helper()
	await(t, "the agent to take rentals", func() bool {
		nodes, err := (&place{dir: dir}).client().Nodes(t.Context())
		return err == nil && len(nodes) == 1 && nodes[0].Registered && nodes[0].Accepting
	})
}

// await asks until something is so.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	late := time.After(time.Minute)
	for !is() {
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("waiting for %s took more than a minute", what)
		}
	}
}
