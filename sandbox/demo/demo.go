// Package demo shows a whole rental on this machine, from the host's registration to the last trace
// of the rental's end. Agent, Docker Engine, relay, registry and backend are real; the story fails
// as soon as one of them does not do what was promised.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

const (
	patience      = 3 * time.Minute // for everything up to the running rental
	endPatience   = time.Minute     // for the rental's end
	leavePatience = time.Minute     // for taking everything away
	// pullRate slows the registry, so that the pull can be watched: bytes a second.
	pullRate = 4 << 20
)

// Options say how the demo is shown.
type Options struct {
	Program string    // what to type for the sandbox
	Agent   string    // program of the host agent
	Once    bool      // ask nothing, end by itself
	Out     io.Writer // a terminal gets progress too
	Err     io.Writer // where a demo in namespaces of its own says why it failed
	In      io.Reader // where Enter is pressed
}

// Run shows the demo and takes everything away again: on the machine's own Docker Engine where it
// answers, else on a private one. The error is [ErrTold] where the reason has been told already.
func Run(ctx context.Context, o Options) error {
	if _, err := os.Stat(o.Agent); err != nil {
		return fmt.Errorf("finding the agent's program: %w (build it with `make build`)", err)
	}
	if err := showSomewhere(ctx, o); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "\n  Next: open a marketplace of your own with `%s up`, and play with it as README.md tells.\n", o.Program)
	return nil
}

func showSomewhere(ctx context.Context, o Options) error {
	if _, err := systemEngine(ctx); err != nil {
		fmt.Fprintf(o.Out, "\n%s. A private one runs as long as the demo,\nin namespaces of its own; that needs root.\n", whyNone(err))
		return isolate(ctx, o)
	}
	return show(ctx, stage{Options: o, engine: systemEngine})
}

// stage is where the demo is shown.
type stage struct {
	Options
	engine   func(context.Context) (*found, error)
	frps     string // program; "": it is looked for
	workload []byte // program; nil: it is compiled
	window   window // zero: a browser needs none
}

// show tells the story and clears up. What went wrong follows the agent's last words.
func show(ctx context.Context, on stage) (err error) {
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	s := &story{stage: on, tell: newNarrator(on.Out), lost: lost}
	err = s.play(ctx)
	if err != nil && s.agent != nil {
		s.tell.say("\nThe agent's last words:\n%s\n", s.agent.lastWords(20))
	}
	return errors.Join(err, s.leave(context.WithoutCancel(ctx)))
}

// story is one showing. Its fields are filled in as it goes on.
type story struct {
	stage stage
	tell  *narrator
	lost  context.CancelCauseFunc // ends the story with its reason

	dir     string
	engine  *found
	market  *market.Market
	agent   *agent
	node    string
	order   protocol.StartInstance
	status  protocol.InstanceStatus // of the running rental
	address string                  // where it answers
	network []string                // ids of the container's networks
	ended   bool
}

func (s *story) play(ctx context.Context) error {
	begin, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the demo took longer than %s", patience))
	defer cancel()
	for _, act := range []func(context.Context) error{
		s.prepare, s.openMarket, s.startAgent, s.register, s.rent, s.visit, s.heartbeats, s.logs,
	} {
		if err := act(begin); err != nil {
			return because(begin, err)
		}
	}
	if err := s.invite(ctx); err != nil {
		return err
	}
	if s.agent.hasEnded() {
		return context.Cause(ctx)
	}
	end, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), endPatience, fmt.Errorf("the end of the rental took longer than %s", endPatience))
	defer cancel()
	return because(end, s.end(end))
}

// because puts the reason why a context ended before the error that came of it.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

func (s *story) prepare(ctx context.Context) (err error) {
	s.tell.say("\nA machine is rented out")
	// Short names: the agent's control socket lies below, and systems bound the path of a socket to some 100 bytes.
	s.dir, err = os.MkdirTemp("", "dc-demo-")
	if err != nil {
		return fmt.Errorf("making the demo's directory: %w", err)
	}
	if s.engine, err = s.stage.engine(ctx); err != nil {
		return err
	}
	s.tell.done("Docker Engine %s answers (%s)", s.engine.version, s.engine.whose)
	return nil
}

func (s *story) openMarket(ctx context.Context) (err error) {
	s.tell.now("opening the marketplace, compiling the workload")
	s.market, err = market.Open(ctx, market.Options{
		Dir:        filepath.Join(s.dir, "m"),
		DockerHost: s.engine.docker.host,
		Workload:   s.stage.workload,
		Frps:       s.stage.frps,
	})
	if err != nil {
		return err
	}
	s.market.Registry.LimitRate(pullRate)
	s.tell.done("The marketplace is open")
	s.tell.detail("backend", "%s", s.market.Backend.URL())
	s.tell.detail("relay", "%s", s.market.Relay.Addr())
	s.tell.detail("registry", "%s (slowed to %d MiB/s, so that the pull can be watched)", s.market.Registry.Addr(), pullRate>>20)
	return nil
}

func (s *story) startAgent(context.Context) (err error) {
	s.agent, err = startAgent(s.stage.Agent, s.market.Config(), filepath.Join(s.dir, "agent.log"), s.lost)
	return err
}

func (s *story) register(ctx context.Context) error {
	s.tell.now("waiting for the agent to register")
	node, err := s.market.Backend.WaitNode(ctx)
	if err != nil {
		return err
	}
	s.node = node.ID
	s.tell.done("The agent has registered")
	s.tell.detail("node", "%s", node.ID)
	s.tellHardware(node.Register)
	if !node.Register.Accepting {
		return s.waitAccepting(ctx)
	}
	return nil
}

// waitAccepting gives an agent that registered early the time to find its engine.
func (s *story) waitAccepting(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("the agent takes no rentals"))
	defer cancel()
	for range s.market.Backend.Events(ctx, 0) {
		if node, _ := s.market.Backend.Node(s.node); node.Register.Accepting || node.Heartbeat != nil && node.Heartbeat.Accepting {
			return nil
		}
	}
	return context.Cause(ctx)
}

func (s *story) rent(ctx context.Context) (err error) {
	s.order, err = s.market.Rent(ctx, market.Rent{
		Node:  s.node,
		Ports: []string{"8080"},
		Env:   map[string]string{"GREETING": "hello"},
	})
	if err != nil {
		return fmt.Errorf("ordering a rental: %w", err)
	}
	s.tell.done("Rental %s is ordered: %g CPU, %s GiB, port 8080", s.order.RentalID, s.order.CPUCores, gib(int64(s.order.RAMLimit)))
	return s.follow(ctx)
}

// follow tells the rental's way until it runs.
func (s *story) follow(ctx context.Context) error {
	for report := range s.market.Backend.Reports(ctx, s.order.RentalID) {
		s.status = report.Status
		switch {
		case s.status.Final():
			s.ended = true
			return fmt.Errorf("the rental %s: %w", s.status.State, problem(s.status))
		case s.status.State == "running":
			return s.runs(ctx)
		case s.status.Progress != nil:
			// The host learns of one layer after the other; the renter's marketplace knows them all.
			pulled, all := s.status.Progress.CurrentBytes, s.market.ImageSize
			s.tell.now("%s  %s  %.1f of %.1f MiB", s.status.State, bar(pulled, all), mib(pulled), mib(all))
		default:
			s.tell.now("%s", s.status.State)
		}
	}
	return fmt.Errorf("waiting for the rental to run: it is %q", s.status.State)
}

func problem(status protocol.InstanceStatus) error {
	if status.Error == nil {
		return errors.New("no reason was given")
	}
	return status.Error
}

func (s *story) runs(ctx context.Context) (err error) {
	s.tell.done("It runs")
	s.tellWay()
	if len(s.status.Ports) != 1 {
		return fmt.Errorf("the running rental has %d public ports, ordered was 1", len(s.status.Ports))
	}
	s.address = s.status.Ports[0].PublicAddress
	s.network, err = s.engine.docker.networksOf(ctx, s.status.ContainerID)
	if err != nil {
		return fmt.Errorf("looking for the rental's container: %w", err)
	}
	return nil
}

func (s *story) visit(ctx context.Context) error {
	got, err := visit(ctx, s.address)
	if err != nil {
		return err
	}
	if err := check(got, s.order); err != nil {
		return err
	}
	s.tell.done("Its public address http://%s answers", s.address)
	s.tellGot(got)
	return nil
}
