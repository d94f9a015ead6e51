package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/distributedcompute/host-agent/sandbox/market"
)

const agentEndsWithin = 30 * time.Second

// agent is the host agent: the real program, in a process of its own.
type agent struct {
	cmd  *exec.Cmd
	log  string // file
	wait sync.WaitGroup
	// ended is closed when the process is gone; err is set before.
	ended chan struct{}
	err   error
}

// startAgent starts the program as its owner would. lost is called if it ends by itself.
func startAgent(program, config, log string, lost context.CancelCauseFunc) (*agent, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the agent's log: %w", err)
	}
	defer file.Close()
	a := &agent{log: log, ended: make(chan struct{})}
	a.cmd = exec.Command(program, "start", "--headless", "--config", config)
	a.cmd.Env = market.WithoutSettings(os.Environ())
	a.cmd.Stdout, a.cmd.Stderr = file, file
	detach(a.cmd)
	if err := a.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the agent: %w (build it with `make build`)", err)
	}
	a.wait.Go(func() {
		defer close(a.ended)
		a.err = a.cmd.Wait()
		lost(fmt.Errorf("the agent ended by itself (%s)", a.cmd.ProcessState))
	})
	return a, nil
}

// stop asks the agent to end, and ends it if it does not. One that has ended by itself has been told of.
func (a *agent) stop() error {
	if a.hasEnded() {
		return nil
	}
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		_ = a.cmd.Process.Kill() // it has ended, or signals are not known here
	}
	late := time.NewTimer(agentEndsWithin)
	defer late.Stop()
	select {
	case <-a.ended:
	case <-late.C:
		_ = a.cmd.Process.Kill()
		a.wait.Wait()
		return fmt.Errorf("the agent did not end within %s of being asked", agentEndsWithin)
	}
	a.wait.Wait()
	if a.err != nil {
		return fmt.Errorf("the agent ended badly: %w", a.err)
	}
	return nil
}

func (a *agent) hasEnded() bool {
	select {
	case <-a.ended:
		return true
	default:
		return false
	}
}

// lastWords are the last lines of the agent's log.
func (a *agent) lastWords(lines int) string {
	content, err := os.ReadFile(a.log)
	if err != nil {
		return err.Error()
	}
	if len(content) == 0 {
		return "(it said nothing)"
	}
	all := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
