package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/distributedcompute/host-agent/sandbox/engine"
	"github.com/distributedcompute/host-agent/sandbox/relay"
	"github.com/distributedcompute/host-agent/sandbox/workload"
)

// InsideCommand is the hidden command by which the demo runs itself again as [Inside], its one
// argument being the order.
const InsideCommand = "demo-inside"

// ErrTold says that the demo failed and has told why.
var ErrTold = errors.New("the demo failed")

// order is what the demo outside tells the one inside. Whatever has to be compiled has been by
// then: what runs as root leaves nothing in the user's caches.
type order struct {
	Agent    string `json:"agent"`
	Frps     string `json:"frps"`
	Workload string `json:"workload"` // file
	Once     bool   `json:"once"`
	Window   window `json:"window,omitzero"`
}

// isolate shows the demo in namespaces of its own, with a private engine. A window lets the
// person's browser look in: the network in there cannot be reached otherwise.
func isolate(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp("", "dc-demo-")
	if err != nil {
		return fmt.Errorf("making the demo's directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	order, err := prepareOrder(ctx, o, dir)
	if err != nil {
		return err
	}
	if o.Once {
		return runInside(ctx, o, order)
	}
	var listen net.ListenConfig
	outside, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("opening the window: %w", err)
	}
	order.Window = window{Address: outside.Addr().String(), Socket: filepath.Join(dir, "window")}
	looking := forward(outside, "unix", order.Window.Socket)
	defer looking.close()
	return runInside(ctx, o, order)
}

func prepareOrder(ctx context.Context, o Options, dir string) (order, error) {
	agent, err := filepath.Abs(o.Agent)
	if err != nil {
		return order{}, fmt.Errorf("finding the agent's program: %w", err)
	}
	frps, err := relay.Program(ctx, "")
	if err != nil {
		return order{}, err
	}
	program, err := workload.Build(ctx)
	if err != nil {
		return order{}, err
	}
	file := filepath.Join(dir, "workload")
	if err := os.WriteFile(file, program, 0o600); err != nil {
		return order{}, fmt.Errorf("keeping the workload: %w", err)
	}
	return order{Agent: agent, Frps: frps, Workload: file, Once: o.Once}, nil
}

// runInside runs this program's [InsideCommand], through sudo where it has to.
func runInside(ctx context.Context, o Options, order order) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	text, err := json.Marshal(order)
	if err != nil {
		return fmt.Errorf("writing the order: %w", err)
	}
	args := []string{self, InsideCommand, string(text)}
	if os.Geteuid() != 0 {
		if args, err = asRoot(args, o.Once); err != nil {
			return err
		}
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = o.In, o.Out, o.Err
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the demo in namespaces of its own: %w", err)
	}
	// The terminal's interrupt goes to both; other signals have to be handed on.
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	if err := cmd.Wait(); err != nil {
		return ErrTold
	}
	return nil
}

// asRoot puts sudo before a command line.
func asRoot(args []string, once bool) ([]string, error) {
	sudo, err := exec.LookPath("sudo")
	if err != nil {
		return nil, errors.New("no Docker Engine answers, and a private one needs root: start Docker, or run the demo as root")
	}
	if !once {
		return append([]string{sudo}, args...), nil
	}
	if err := exec.Command(sudo, "-n", "true").Run(); err != nil {
		return nil, errors.New("no Docker Engine answers, and a private one needs root: start Docker, or allow sudo without a password")
	}
	return append([]string{sudo, "-n"}, args...), nil
}

// Inside shows the demo in new namespaces and returns the exit code of the program. It has to be
// called before anything else is started, and needs root.
func Inside(ctx context.Context, text string) int {
	return engine.Isolated(func() int {
		if err := inside(ctx, text); err != nil {
			fmt.Fprintln(os.Stderr, "sandbox: "+err.Error())
			return 1
		}
		return 0
	})
}

func inside(ctx context.Context, text string) error {
	var order order
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return fmt.Errorf("reading the order: %w", err)
	}
	program, err := os.ReadFile(order.Workload)
	if err != nil {
		return fmt.Errorf("reading the workload: %w", err)
	}
	return show(ctx, stage{
		Options:  Options{Agent: order.Agent, Once: order.Once, Out: os.Stdout, In: os.Stdin},
		engine:   privateEngine,
		frps:     order.Frps,
		workload: program,
		window:   order.Window,
	})
}
