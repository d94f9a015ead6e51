package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// child is a running program.
type child struct {
	cmd    *exec.Cmd
	output *tail
	reaper sync.WaitGroup
	gone   context.Context // done once the process is reaped; its cause tells how it ended
}

// spawn starts a program. It stays on one operating system thread from start to end, because the
// kernel ties the life of the child to the thread that made it.
func spawn(program string, args []string, log io.Writer) (*child, error) {
	gone, reaped := context.WithCancelCause(context.Background())
	c := &child{cmd: exec.Command(program, args...), gone: gone, output: &tail{next: log}}
	c.cmd.Stdout, c.cmd.Stderr = c.output, c.output
	dieWithParent(c.cmd)
	started := make(chan error)
	c.reaper.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			_ = c.cmd.Wait() // ProcessState has it too
			reaped(fmt.Errorf("it ended with %s", c.cmd.ProcessState))
		}
	})
	if err := <-started; err != nil {
		reaped(err)
		return nil, err
	}
	return c, nil
}

// kill ends the process and waits until it is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // an error says that it is gone already
	c.reaper.Wait()
}

// awaitTLS returns once the child answers at addr. It is known by its certificate, because
// another program may hold the port while the child is still finding that out.
func (c *child) awaitTLS(ctx context.Context, addr string, config *tls.Config) error {
	dialing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(c.gone, func() { stop(context.Cause(c.gone)) })()
	dialer := tls.Dialer{Config: config}
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := dialer.DialContext(dialing, "tcp", addr)
		if err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-dialing.Done():
			return fmt.Errorf("waiting until it answers: %w: %s", context.Cause(dialing), c.output)
		case <-again.C:
		}
	}
}

// tail passes output on and keeps its end, for the error of a start that failed.
type tail struct {
	next io.Writer
	mu   sync.Mutex
	kept []byte
}

const tailBytes = 2 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - tailBytes; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	return t.next.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.kept))
}
