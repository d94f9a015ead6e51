package docker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/sandbox/engine"
)

var (
	_ rental.Engine = (*docker.Engine)(nil)
	_ agent.Engine  = (*docker.Engine)(nil)
)

const (
	gpuA = "GPU-11111111-aaaa-4bbb-8ccc-000000000001"
	gpuB = "GPU-22222222-aaaa-4bbb-8ccc-000000000002"
)

func TestRenterGetsWhatWasRentedAndNoMore(t *testing.T) {
	e := newEngine(t)
	s := spec("limits")
	s.MemoryBytes, s.CPUs, s.PidsLimit, s.ShmBytes = 200<<20, 0.5, 77, 96<<20
	s.Env = map[string]string{"GREETING": "hello"}
	got := report(t, rent(t, e, s))
	want := page{
		GPUsVisible: "void", GPUs: []string{},
		CPUs: 0.5, MemoryBytes: 200 << 20, PidsLimit: 77, ShmBytes: 96 << 20,
		Capabilities: []string{
			"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL",
			"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETUID", "SYS_CHROOT",
		},
		NoNewPrivs: true, Seccomp: "2",
		Environment: []string{"GREETING", "HOME", "HOSTNAME", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_VISIBLE_DEVICES", "PATH"},
	}
	slices.Sort(got.Capabilities)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the renter sees (-want +got):\n%s", diff)
	}
}

func TestGPUsReachTheHookExactly(t *testing.T) {
	e := newEngine(t)
	s := spec("gpus")
	s.GPUs = []rental.GPU{{Index: 1, UUID: gpuB}, {Index: 0, UUID: gpuA}}
	c := rent(t, e, s)
	calls, err := daemon.HookCalls()
	if err != nil || len(calls) == 0 {
		t.Fatalf("hook calls: %v, %v", calls, err)
	}
	last := calls[len(calls)-1]
	if diff := cmp.Diff([]string{gpuB, gpuA}, last.Devices); diff != "" || last.ContainerID != c.ID {
		t.Errorf("devices of container %s (-want +got):\n%s", last.ContainerID, diff)
	}
	got := report(t, c)
	want := []string{"GPU 0: Sandbox GPU (UUID: " + gpuB + ")", "GPU 1: Sandbox GPU (UUID: " + gpuA + ")"}
	if diff := cmp.Diff(want, got.GPUs); diff != "" {
		t.Errorf("nvidia-smi in the container (-want +got):\n%s", diff)
	}
}

// The hook of a host whose toolkit is set to descriptions refuses to work, and this engine is too old for those.
func TestGPUsThatTheHookRefuses(t *testing.T) {
	if err := daemon.RefuseGPUs(engine.CDIModeRefusal); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := daemon.RefuseGPUs(""); err != nil {
			t.Error(err)
		}
	})
	e := newEngine(t)
	s := spec("refused")
	s.GPUs = []rental.GPU{{UUID: gpuA}}
	_, err := e.Start(t.Context(), create(t, e, s))
	wantFailure(t, err, rental.CodeGPUUnavailable)
}

// Also where there are two ways, the first is found by an attempt that the hook sees and that runs nothing.
func TestWayToTheGPUsOfARealEngine(t *testing.T) {
	e := newEngine(t)
	if err := e.OfferCDI(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := daemon.HookCalls()
	if err != nil {
		t.Fatal(err)
	}
	containers := cli(t, "ps", "-aq")
	s := spec("tried")
	s.GPUs = []rental.GPU{{UUID: gpuA}}
	id := create(t, e, s)
	after, err := daemon.HookCalls()
	if err != nil || len(after) != len(before)+1 || !slices.Equal(after[len(after)-1].Devices, []string{gpuA}) {
		t.Errorf("the hook was called with %v, %v", after[len(before):], err)
	}
	if now := cli(t, "ps", "-aq"); len(strings.Fields(now)) != len(strings.Fields(containers))+1 {
		t.Errorf("containers went from %q to %q", containers, now)
	}
	if _, err := e.Start(t.Context(), id); err != nil {
		t.Error(err)
	}
}

func TestImageCannotBringAlongWhatSteersTheHook(t *testing.T) {
	e := newEngine(t)
	s := spec("steering")
	s.Image = pushed(t, "steering", "NVIDIA_IMEX_CHANNELS=0", "NVIDIA_MIG_CONFIG_DEVICES=all", "LD_PRELOAD=/evil.so", "NVIDIA_VISIBLE_DEVICES=all",
		"DOCKER_RESOURCE_GPU=all", "NVIDIA_GDS=enabled", "LD_LIBRARY_PATH=/usr/local/cuda/lib64")
	s.GPUs = []rental.GPU{{UUID: gpuA}}
	rent(t, e, s)
	calls, err := daemon.HookCalls()
	if err != nil || len(calls) == 0 {
		t.Fatalf("hook calls: %v, %v", calls, err)
	}
	last := calls[len(calls)-1]
	for _, entry := range last.Env {
		for _, name := range []string{"NVIDIA_IMEX", "NVIDIA_MIG", "LD_PRELOAD", "DOCKER_RESOURCE", "NVIDIA_GDS"} {
			if strings.HasPrefix(entry, name) {
				t.Errorf("the hook saw %s", entry)
			}
		}
	}
	if diff := cmp.Diff([]string{gpuA}, last.Devices); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	if !slices.Contains(last.Env, "LD_LIBRARY_PATH=/usr/local/cuda/lib64") {
		t.Errorf("the image has lost where its libraries are: %q", last.Env)
	}
}

func TestWithoutGPUsTheHookIsNotCalled(t *testing.T) {
	before, err := daemon.HookCalls()
	if err != nil {
		t.Fatal(err)
	}
	rent(t, newEngine(t), spec("plain"))
	after, err := daemon.HookCalls()
	if err != nil || len(after) != len(before) {
		t.Errorf("hook calls grew from %d to %d, %v", len(before), len(after), err)
	}
}

// Where containers' own addresses are out of the agent's reach.
func TestPortsArePublishedOnLoopbackOnly(t *testing.T) {
	e := newEngine(t)
	e.Publish()
	s := spec("ports")
	c := rent(t, e, s)
	if len(c.Routes) != 2 || c.Routes[0].Port != s.Ports[0] || c.Routes[1].Port != s.Ports[1] {
		t.Fatalf("routes %+v, want those of %+v in order", c.Routes, s.Ports)
	}
	for i, table := range []string{"/proc/net/tcp", "/proc/net/udp"} {
		addresses := listening(t, table, c.Routes[i].Target.Port())
		if diff := cmp.Diff([]string{"0100007F"}, addresses); diff != "" {
			t.Errorf("addresses on which the engine listens for %s (-want +got):\n%s", c.Routes[i].Port, diff)
		}
		if more := listening(t, table+"6", c.Routes[i].Target.Port()); len(more) > 0 {
			t.Errorf("port %s is published on IPv6 too: %s", c.Routes[i].Port, more)
		}
	}
	report(t, c)
	again, err := newEngine(t).Start(t.Context(), c.ID) // as an agent adopts it that would have made it otherwise
	if err != nil {
		t.Fatalf("adopting it: %v", err)
	}
	if diff := cmp.Diff(c.Routes, again.Routes, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("routes of another agent (-first +second):\n%s", diff)
	}
}

func TestHostsSearchDomainsAreNotTheRenters(t *testing.T) {
	replaceResolvConf(t, "nameserver 192.0.2.1\nsearch office.example\n")
	c := rent(t, newEngine(t), spec("search"))
	renters, err := os.ReadFile(cli(t, "inspect", "-f", "{{.ResolvConfPath}}", c.ID))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(renters); strings.Contains(text, "office.example") || !strings.Contains(text, "nameserver") {
		t.Errorf("the renter's resolv.conf:\n%s", text)
	}
}

// replaceResolvConf mounts another file over the host's until the test ends, for the tests and their engine alone.
func replaceResolvConf(t *testing.T, text string) {
	t.Helper()
	file := "/etc/resolv.conf"
	if target, err := os.Readlink(file); err == nil { // into /run, as a rule, which is empty here
		if file = target; !filepath.IsAbs(target) {
			file = filepath.Join("/etc", target)
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		made, err := os.OpenFile(file, os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		made.Close()
	}
	other := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(other, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(other, file, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(file, 0); err != nil {
			t.Error(err)
		}
	})
}

// listening lists the local addresses, in the kernel's hexadecimal, that are bound to a port.
func listening(t *testing.T, table string, port uint16) (addresses []string) {
	t.Helper()
	raw, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if address, found := strings.CutSuffix(fields[1], fmt.Sprintf(":%04X", port)); found && fields[2] != "" {
			addresses = append(addresses, address)
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses)
}

func TestRentalsHaveNetworksOfTheirOwn(t *testing.T) {
	e := newEngine(t)
	one, two := rent(t, e, spec("one")), rent(t, e, spec("two"))
	network := func(c rental.Container) string { return cli(t, "inspect", "-f", "{{.HostConfig.NetworkMode}}", c.ID) }
	if network(one) == network(two) {
		t.Errorf("both rentals are on network %s", network(one))
	}
	var options map[string]string
	if err := json.Unmarshal([]byte(cli(t, "network", "inspect", "-f", "{{json .Options}}", network(one))), &options); err != nil {
		t.Fatal(err)
	}
	bridge := options["com.docker.network.bridge.name"]
	if !strings.HasPrefix(bridge, "gr-") || options["com.docker.network.bridge.enable_icc"] != "false" {
		t.Errorf("options of the network: %v", options)
	}
	if _, err := os.Stat("/proc/sys/net/ipv4/conf/" + bridge); err != nil {
		t.Errorf("interface of the network: %v", err)
	}
}

func TestCreateIsIdempotent(t *testing.T) {
	e := newEngine(t)
	s := spec("twice")
	first := create(t, e, s)
	networks := cli(t, "network", "ls", "-q")
	again, err := e.Create(t.Context(), s, pull(t, e, image))
	if err != nil || again != first {
		t.Errorf("second Create: %s, %v; want %s", again, err, first)
	}
	s.PricePerHour, s.ExpiresAt = "0.50", time.Now()
	if again, err = e.Create(t.Context(), s, pull(t, e, image)); err != nil || again != first {
		t.Errorf("Create on other terms: %s, %v; want %s", again, err, first)
	}
	s.MemoryBytes *= 2
	_, err = e.Create(t.Context(), s, pull(t, e, image))
	wantFailure(t, err, rental.CodeConflict)
	if now := cli(t, "network", "ls", "-q"); now != networks {
		t.Errorf("networks changed from %q to %q", networks, now)
	}
}

func TestStartIsIdempotentAndStartsAgain(t *testing.T) {
	e := newEngine(t)
	c := rent(t, e, spec("restart"))
	again, err := e.Start(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c.StartedAt, again.StartedAt); diff != "" {
		t.Errorf("starting what runs (-want +got):\n%s", diff)
	}
	if err := e.Stop(t.Context(), c.ID, time.Second); err != nil {
		t.Fatal(err)
	}
	cli(t, "network", "prune", "-f") // takes the network away, as nothing runs on it
	if again, err = e.Start(t.Context(), c.ID); err != nil {
		t.Fatalf("starting again without the network: %v", err)
	}
	report(t, again)
}

func TestStartLeavesAPausedContainerAlone(t *testing.T) {
	e := newEngine(t)
	c := rent(t, e, spec("paused"))
	cli(t, "pause", c.ID)
	again, err := newEngine(t).Start(t.Context(), c.ID) // as an agent does that takes it up
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.Routes, c.Routes) || !again.StartedAt.Equal(c.StartedAt) {
		t.Errorf("starting what is paused made %+v of %+v", again, c)
	}
	if state := cli(t, "inspect", "-f", "{{.State.Status}}", c.ID); state != "paused" {
		t.Errorf("the container is %s", state)
	}
	cli(t, "unpause", c.ID)
	report(t, again)
}

func TestStartFailures(t *testing.T) {
	e := newEngine(t)
	s := spec("no-user")
	s.Image = pushedWith(t, "no-user", func(c *imageConfig) { c.User = "nobody-of-that-name" })
	_, err := e.Start(t.Context(), create(t, e, s))
	wantFailure(t, err, rental.CodeContainerFailed)
	_, err = e.Start(t.Context(), strings.Repeat("0", 64))
	wantFailure(t, err, rental.CodeNotFound)
	s = spec("brief")
	s.Command = []string{"-exit=3"}
	c, err := e.Start(t.Context(), create(t, e, s)) // that it was quick does not make it a failure to start
	if err != nil {
		t.Fatal(err)
	}
	exit, err := e.Wait(t.Context(), c.ID)
	if err != nil || exit.Code != 3 {
		t.Errorf("Wait: %+v, %v; want code 3", exit, err)
	}
}

func TestStopAndExits(t *testing.T) {
	e := newEngine(t)
	t.Run("program ends by itself", func(t *testing.T) {
		t.Parallel()
		c := rent(t, e, spec("exits"))
		report(t, c) // it is up
		request(c.Routes[0].Target.String(), "/exit?code=42")
		exit, err := e.Wait(t.Context(), c.ID)
		if err != nil || exit.Code != 42 || exit.EngineStopped || exit.OOMKilled || time.Since(exit.At).Abs() > 30*time.Second {
			t.Errorf("Wait: %+v, %v; want code 42 just now", exit, err)
		}
	})
	t.Run("asked to end", func(t *testing.T) {
		t.Parallel()
		c := rent(t, e, spec("polite"))
		report(t, c)
		if err := e.Stop(t.Context(), c.ID, 30*time.Second); err != nil {
			t.Fatal(err)
		}
		exit, err := e.Wait(t.Context(), c.ID)
		if err != nil || exit.Code != 0 || exit.EngineStopped {
			t.Errorf("Wait: %+v, %v; want code 0", exit, err)
		}
	})
	t.Run("ignores being asked", func(t *testing.T) {
		t.Parallel()
		s := spec("stubborn")
		s.Command = []string{"-ignore-sigterm"}
		c := rent(t, e, s)
		report(t, c)
		began := time.Now()
		if err := e.Stop(t.Context(), c.ID, 1500*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 1500*time.Millisecond || took > 30*time.Second {
			t.Errorf("Stop took %s with a grace of 1.5 s", took)
		}
		exit, err := e.Wait(t.Context(), c.ID)
		if err != nil || exit.Code != 137 || exit.EngineStopped || exit.OOMKilled {
			t.Errorf("Wait: %+v, %v; want code 137", exit, err)
		}
	})
	t.Run("out of memory", func(t *testing.T) {
		t.Parallel()
		s := spec("hungry")
		s.MemoryBytes = 64 << 20
		c := rent(t, e, s)
		report(t, c)
		request(c.Routes[0].Target.String(), "/allocate?mb=500")
		exit, err := e.Wait(t.Context(), c.ID)
		if err != nil || !exit.OOMKilled || exit.EngineStopped {
			t.Errorf("Wait: %+v, %v; want it killed for memory", exit, err)
		}
	})
	t.Run("what is gone", func(t *testing.T) {
		t.Parallel()
		nothing := strings.Repeat("0", 64)
		if err := e.Stop(t.Context(), nothing, time.Second); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if err := e.Remove(t.Context(), "never-was", ""); err != nil {
			t.Errorf("Remove: %v", err)
		}
		_, err := e.Wait(t.Context(), nothing)
		wantFailure(t, err, rental.CodeNotFound)
	})
	t.Run("nobody waits any more", func(t *testing.T) {
		t.Parallel()
		c := rent(t, e, spec("left"))
		ctx, cancel := context.WithCancelCause(t.Context())
		why := rental.Failf(rental.CodeExpired, "over")
		cancel(why)
		if _, err := e.Wait(ctx, c.ID); err != error(why) {
			t.Errorf("Wait: %v, want the context's cause", err)
		}
	})
}

func TestRemoveLeavesNothing(t *testing.T) {
	e := newEngine(t)
	networks, volumes := cli(t, "network", "ls", "-q"), cli(t, "volume", "ls", "-q")
	s := spec("volumes")
	s.Image = pushedWith(t, "volumes", func(c *imageConfig) { c.Volumes = map[string]struct{}{"/data": {}} })
	id := create(t, e, s)
	if cli(t, "volume", "ls", "-q") == volumes {
		t.Fatal("the image's volume was not made, so there is nothing to test")
	}
	if err := e.Remove(t.Context(), s.ID, ""); err != nil {
		t.Fatal(err)
	}
	if now := cli(t, "volume", "ls", "-q"); now != volumes {
		t.Errorf("volumes changed from %q to %q", volumes, now)
	}
	if now := cli(t, "network", "ls", "-q"); now != networks {
		t.Errorf("networks changed from %q to %q", networks, now)
	}
	if all := cli(t, "ps", "-aq", "--no-trunc"); strings.Contains(all, id) {
		t.Errorf("container %s is still there", id)
	}
}

func TestRemoveFreesItsNetworkOfGuests(t *testing.T) {
	e := newEngine(t)
	networks := cli(t, "network", "ls", "-q")
	s := spec("visited")
	c := rent(t, e, s)
	join(t, c)
	if err := e.Remove(t.Context(), s.ID, ""); err != nil {
		t.Fatal(err)
	}
	if now := cli(t, "network", "ls", "-q"); now != networks {
		t.Errorf("networks changed from %q to %q", networks, now)
	}
	if state := cli(t, "inspect", "-f", "{{.State.Status}}", "guest"); state != "running" {
		t.Errorf("the guest is %s", state)
	}
}

func TestRemoveDoesNotWaitForOtherNetworks(t *testing.T) {
	e := newEngine(t)
	s := spec("torn")
	c := rent(t, e, s)
	network := join(t, c)
	cli(t, "rm", "-f", c.ID) // now a network is left that cannot be removed
	if err := e.Remove(t.Context(), "never-was", ""); err != nil {
		t.Errorf("Remove: %v", err)
	}
	cli(t, "network", "disconnect", network, "guest")
	if err := e.Remove(t.Context(), "never-was", ""); err != nil {
		t.Errorf("Remove: %v", err)
	}
	if left := cli(t, "network", "ls", "-q", "--filter", "name="+network); left != "" {
		t.Errorf("network %s is still there", network)
	}
}

// join has a container of someone else on a rental's network, and returns its name.
func join(t *testing.T, c rental.Container) (network string) {
	t.Helper()
	network = cli(t, "inspect", "-f", "{{.HostConfig.NetworkMode}}", c.ID)
	cli(t, "run", "-d", "--name", "guest", "--network", network, image)
	t.Cleanup(func() { cli(t, "rm", "-f", "guest") })
	return network
}

func TestHoldingsAreOurOwn(t *testing.T) {
	e := newEngine(t)
	c := rent(t, e, spec("ours"))
	fresh := create(t, e, spec("fresh"))
	labels := cli(t, "inspect", "-f", `{{range $k, $v := .Config.Labels}}--label={{$k}}={{$v}}{{println}}{{end}}`, c.ID)
	cli(t, append(append([]string{"create", "--name", "copy"}, strings.Split(labels, "\n")...), image)...)
	cli(t, "create", "--name", "dc-forged", "--label=distributedcompute.managed=1", "--label=distributedcompute.rental=forged",
		"--label=distributedcompute.owner="+strings.Repeat("a", 64), image)
	t.Cleanup(func() { cli(t, "rm", "-f", "copy", "dc-forged") })

	// Another agent of this host, after a restart, finds its rentals; one with another key does not.
	holdings, err := newEngine(t).Holdings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(holdings, func(a, b rental.Holding) int { return strings.Compare(string(a.ID), string(b.ID)) })
	for i := range holdings {
		if time.Since(holdings[i].CreatedAt).Abs() > time.Minute {
			t.Errorf("holding %s was created at %s", holdings[i].ID, holdings[i].CreatedAt)
		}
		holdings[i].CreatedAt = time.Time{}
	}
	want := []rental.Holding{{ID: "fresh", ContainerID: fresh}, {ID: "ours", ContainerID: c.ID, Running: true, Ran: true}}
	if diff := cmp.Diff(want, holdings); diff != "" {
		t.Errorf("holdings (-want +got):\n%s", diff)
	}
	stranger := engineWith(t, docker.Options{Host: daemon.Host(), OwnerKey: []byte("another key, just as long")})
	if holdings, err = stranger.Holdings(t.Context()); err != nil || len(holdings) > 0 {
		t.Errorf("with another key: %v, %v", holdings, err)
	}

	if err := e.Remove(t.Context(), "forged", ""); err != nil {
		t.Errorf("Remove of a name that is someone else's: %v", err)
	}
	cli(t, "inspect", "dc-forged")
	_, err = e.Create(t.Context(), spec("forged"), pull(t, e, image))
	wantFailure(t, err, rental.CodeConflict)
}

func TestLogs(t *testing.T) {
	e := newEngine(t)
	c := rent(t, e, spec("logs"))
	report(t, c)
	visit(t, c, "/echo?%1b[31mred")
	text, truncated, err := e.Logs(t.Context(), c.ID, 0, time.Time{})
	if err != nil || truncated {
		t.Fatalf("Logs: truncated %t, %v", truncated, err)
	}
	if !strings.Contains(text, "serving http on") || !strings.Contains(text, "GET /json from") {
		t.Errorf("log: %s", text)
	}
	if text, _, err = e.Logs(t.Context(), c.ID, 1, time.Time{}); err != nil || strings.Count(text, "\n") != 1 {
		t.Errorf("the last line: %q, %v", text, err)
	}
	if text, _, err = e.Logs(t.Context(), c.ID, 0, time.Now().Add(time.Hour)); err != nil || text != "" {
		t.Errorf("of the future: %q, %v", text, err)
	}
	_, _, err = e.Logs(t.Context(), strings.Repeat("0", 64), 10, time.Time{})
	wantFailure(t, err, rental.CodeNotFound)
}
