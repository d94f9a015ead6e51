//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/distributedcompute/host-agent/sandbox/market"
)

const (
	leastAttempts = 30
	leastControls = 20 // of the attempts that get through outside of a container
)

// refusals are the errors by which a kernel tells who may not, or that there is nothing of that kind. Whatever else it says, it
// says to those who may.
var refusals = []string{
	"EPERM", "EACCES", "ENOSYS", "EROFS", "ENOENT", "ENXIO", "ENODEV", "ESRCH", "ECONNREFUSED",
	"EAFNOSUPPORT", "ESOCKTNOSUPPORT", "EPROTONOSUPPORT",
}

// turnedAway reports whether an attempt got nowhere. A program that the kernel has ended for it got nowhere either.
func turnedAway(answer string) bool {
	return slices.Contains(refusals, answer) || strings.HasPrefix(answer, "signal: ")
}

// denied has a program in a rental try what leads out of a container. The same program tries the same as root outside of
// one, to show that much of it would be possible there.
func (p *place) denied(ctx context.Context) (verdict, error) {
	v := verdict{name: "denied"}
	_, running, err := p.rent(ctx, market.Rent{
		ID: "prober", GPUs: []int{0}, CPUs: 0.5, RAMBytes: 128 << 20, DiskBytes: 64 << 20, Ports: []string{"8080"},
		Env: map[string]string{"HOST_SOCKET": p.socket()},
	})
	if err != nil {
		return v, err
	}
	query := url.Values{"pid": {fmt.Sprint(p.agent.Process.Pid)}, "file": {p.program}}
	answers := map[string]string{}
	if err := p.page(ctx, running, "/attempts?"+query.Encode(), &answers); err != nil {
		return v, p.withLogs(ctx, "prober", err)
	}
	controls, err := p.control(ctx)
	if err != nil {
		return v, err
	}
	possible := 0
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		v.of++
		outside := "allowed"
		if turnedAway(controls[name]) {
			outside = "denied"
		} else {
			possible++
		}
		if turnedAway(answers[name]) {
			v.got++
			v.note("denied  %-12s outside %-7s %-12s %s", answers[name], outside, controls[name], name)
		} else {
			v.fail("allowed %-12s outside %-7s %-12s %s", answers[name], outside, controls[name], name)
		}
	}
	v.note("%d of them get through outside of a container", possible)
	if possible < leastControls || v.of < leastAttempts {
		v.fail("%d attempts, %d of which get through outside: takes at least %d and %d", v.of, possible, leastAttempts, leastControls)
	}
	v.want = v.of
	return v, p.end(ctx, "prober")
}

// control makes the attempts as root in namespaces that are thrown away.
func (p *place) control(ctx context.Context) (map[string]string, error) {
	victim := exec.CommandContext(ctx, p.guest, "-http", "127.0.0.1:0", "-udp", "127.0.0.1:0")
	if err := victim.Start(); err != nil {
		return nil, fmt.Errorf("starting a process to try things on: %w", err)
	}
	defer func() { _ = victim.Process.Kill(); _ = victim.Wait() }()
	cmd := exec.CommandContext(ctx, p.guest, "-attempts", "-pid", fmt.Sprint(victim.Process.Pid), "-file", p.program)
	cmd.Env = append(os.Environ(), "HOST_SOCKET="+p.socket())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS, Pdeathsig: syscall.SIGKILL,
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("trying the same outside of a container: %w", err)
	}
	answers := map[string]string{}
	if err := json.Unmarshal(out, &answers); err != nil {
		return nil, fmt.Errorf("reading what came of it outside of a container: %w", err)
	}
	return answers, nil
}
