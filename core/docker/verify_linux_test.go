package docker_test

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/rental"
)

// A program that ends at once leaves a number behind that is nobody's, or another's: it must not be judged by that.
func TestProgramsThatEndAtOnceAreNotJudged(t *testing.T) {
	const containers, times = 4, 3
	e := newEngine(t)
	var all sync.WaitGroup
	for i := range containers {
		s := spec(rental.ID(fmt.Sprintf("instant-%d", i)))
		s.Command, s.Ports = []string{"-exit=7"}, nil
		id := create(t, e, s)
		all.Go(func() {
			for range times {
				c, err := e.Start(context.Background(), id)
				if err != nil {
					t.Errorf("Start: %v", err)
					return
				}
				exit, err := e.Wait(context.Background(), c.ID)
				if err != nil || exit.Code != 7 || exit.Failure != nil {
					t.Errorf("Wait: %+v, %v; want code 7", exit, err)
				}
			}
		})
	}
	all.Wait()
}

func TestZombiesAndStrangersAreNotJudged(t *testing.T) {
	id := strings.Repeat("a", 64)
	dead := exec.Command("true")
	if err := dead.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dead.Wait() })
	for late := time.Now().Add(30 * time.Second); !docker.Zombie(dead.Process.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("the program does not end")
		}
	}
	alive := exec.Command("cat")
	if _, err := alive.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := alive.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = alive.Process.Kill(), alive.Wait() })
	for what, pid := range map[string]int{"a corpse": dead.Process.Pid, "a stranger": alive.Process.Pid, "nobody": 1 << 22, "init": 1, "none": 0} {
		if err := docker.KernelTraits(pid, id, nil); err != nil {
			t.Errorf("%s was judged: %v", what, err)
		}
	}
}

// What the kernel says of containers that are not shut in is found, each for its own reason.
func TestKernelTraitsOfOpenContainers(t *testing.T) {
	e := newEngine(t)
	c := rent(t, e, spec("closed"))
	if err := docker.KernelTraits(pidOf(t, c.ID), c.ID, nil); err != nil {
		t.Errorf("a rental is found to deviate: %v", err)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no filter":     {[]string{"--security-opt=seccomp=unconfined"}, "not filtered"},
		"new rights":    {nil, "gain rights"},
		"capabilities":  {[]string{"--security-opt=no-new-privileges"}, "capabilities"},
		"host's net":    {[]string{"--security-opt=no-new-privileges", "--cap-drop=ALL", "--cgroupns=private", "--network=host"}, "net namespace"},
		"host's pids":   {[]string{"--security-opt=no-new-privileges", "--cap-drop=ALL", "--cgroupns=private", "--pid=host"}, "pid namespace"},
		"a kernel disk": {[]string{"--security-opt=no-new-privileges", "--cap-drop=ALL", "--cgroupns=private", "--device=/dev/kmsg"}, "devices"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := cli(t, append(append([]string{"run", "-d"}, test.args...), image, "-http=127.0.0.1:0", "-udp=127.0.0.1:0")...)
			t.Cleanup(func() { cli(t, "rm", "-f", id) })
			if err := docker.KernelTraits(pidOf(t, id), id, nil); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("found %v, want something of %q", err, test.want)
			}
		})
	}
}

func pidOf(t *testing.T, id string) int {
	t.Helper()
	pid, err := strconv.Atoi(cli(t, "inspect", "-f", "{{.State.Pid}}", id))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// What somebody has opened from outside is not taken up again, and is ended.
func TestARentalThatWasOpenedIsEnded(t *testing.T) {
	e := newEngine(t)
	c := rent(t, e, spec("opened"))
	cli(t, "network", "create", "somebody")
	cli(t, "network", "connect", "somebody", c.ID)
	t.Cleanup(func() { cli(t, "network", "disconnect", "-f", "somebody", c.ID); cli(t, "network", "rm", "somebody") })
	_, err := newEngine(t).Start(t.Context(), c.ID)
	wantFailure(t, err, rental.CodeIsolation)
	for late := time.Now().Add(30 * time.Second); cli(t, "inspect", "-f", "{{.State.Running}}", c.ID) != "false"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("it runs on")
		}
	}
}

// A decoy that has all that a rental is known by, but its id.
func TestDecoysAreLeftAlone(t *testing.T) {
	e := newEngine(t)
	s := spec("original")
	c := rent(t, e, s)
	net := cli(t, "inspect", "-f", "{{.HostConfig.NetworkMode}}", c.ID)
	labels := strings.Split(cli(t, "inspect", "-f", `{{range $k, $v := .Config.Labels}}--label={{$k}}={{$v}}{{println}}{{end}}`, c.ID), "\n")
	decoy := cli(t, append(append([]string{"run", "-d", "--network", net}, labels...), image)...)
	t.Cleanup(func() { cli(t, "rm", "-f", decoy) })

	untouched := func(when string) {
		t.Helper()
		if state := cli(t, "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", decoy); state != "running 0" {
			t.Errorf("%s the decoy is %s", when, state)
		}
	}
	holdings, err := e.Holdings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range holdings {
		if h.ContainerID == decoy {
			t.Error("the decoy is listed")
		}
	}
	_, err = e.Start(t.Context(), decoy)
	wantFailure(t, err, rental.CodeNotFound)
	untouched("after it could have been adopted")
	if err := e.Remove(t.Context(), s.ID, decoy); err != nil {
		t.Errorf("Remove: %v", err)
	}
	untouched("after a removal by its id")
	if cli(t, "inspect", "-f", "{{.State.Status}}", c.ID) != "running" {
		t.Error("the rental's container went with another's id")
	}

	cli(t, "rm", "-f", c.ID) // and now the decoy takes its name
	cli(t, "rename", decoy, "dc-original")
	for _, known := range []string{c.ID, strings.Repeat("0", 64)} {
		if err := e.Remove(t.Context(), s.ID, known); err != nil {
			t.Errorf("Remove: %v", err)
		}
		untouched("after a removal by name")
	}
	cli(t, "rm", "-f", decoy)
	if err := e.Remove(t.Context(), s.ID, c.ID); err != nil {
		t.Errorf("Remove: %v", err)
	}
}
