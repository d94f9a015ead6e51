package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// wantedHeartbeats are counted before the story goes on.
const wantedHeartbeats = 3

func (s *story) heartbeats(ctx context.Context) error {
	s.tell.now("counting heartbeats")
	for range s.market.Backend.Events(ctx, 0) {
		node, _ := s.market.Backend.Node(s.node)
		beats := node.Heartbeats
		if len(beats) < wantedHeartbeats {
			continue
		}
		pace := beats[len(beats)-1].Sub(beats[len(beats)-2])
		if pace < 3*time.Second || pace > 8*time.Second {
			return fmt.Errorf("heartbeats come %s apart, asked were 5 s", pace.Round(time.Millisecond))
		}
		s.tell.done("%d heartbeats came, the last %.1f s after the one before", len(beats), pace.Seconds())
		s.tellMetrics(node.Heartbeat.Metrics)
		return nil
	}
	return errors.New("waiting for heartbeats")
}

func (s *story) tellMetrics(m protocol.Metrics) {
	cpu := "unknown"
	if m.CPUUtilization != nil {
		cpu = fmt.Sprintf("%.0f %%", *m.CPUUtilization)
	}
	s.tell.detail("metrics", "CPU %s, memory %s GiB, disk %s GiB", cpu, gibOf(m.RAMUsageMB), orUnknown(m.DiskUsageGB))
}

func (s *story) logs(ctx context.Context) error {
	logs, err := s.market.Backend.GetLogs(ctx, s.node, protocol.GetLogs{RentalID: s.order.RentalID, Tail: 20})
	if err != nil {
		return fmt.Errorf("fetching the rental's logs: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(logs.Text), "\n")
	if !strings.Contains(logs.Text, "GET /json") {
		return fmt.Errorf("the rental's logs do not tell of the visit, but: %q", logs.Text)
	}
	s.tell.done("Its logs can be read")
	s.tell.detail("last line", "%s", lines[len(lines)-1])
	return nil
}

// invite keeps the rental running for as long as the person wants to look at it.
func (s *story) invite(ctx context.Context) error {
	if s.stage.Once {
		return nil
	}
	address := s.address
	if s.stage.window != (window{}) {
		looking, err := s.stage.window.open(s.address)
		if err != nil {
			return fmt.Errorf("opening the window: %w", err)
		}
		defer looking.close()
		address = s.stage.window.Address
	}
	s.tell.say("\n  Open http://%s in a browser. Press Enter to end the rental.", address)
	pressed := make(chan struct{})
	// A read from a terminal cannot be called off: after an interrupt this one ends with the program.
	go func() {
		_, _ = bufio.NewReader(s.stage.In).ReadString('\n')
		close(pressed)
	}()
	select {
	case <-pressed:
	case <-ctx.Done():
		s.tell.say("")
	}
	s.tell.begun = time.Now()
	return nil
}

// end stops the rental and looks for what it may have left.
func (s *story) end(ctx context.Context) error {
	s.tell.now("stopping the rental")
	if err := s.stopRental(ctx); err != nil {
		return err
	}
	s.tell.done("The rental has been stopped")
	if rental, _ := s.market.Backend.Rental(s.order.RentalID); rental.Order != nil {
		earned := s.market.Backend.Earnings(s.node)
		s.tell.detail("earned", "%s %s, at %s an hour", earned.Total, earned.Currency, rental.Order.PricePerHour)
	}
	if err := refuses(ctx, s.address); err != nil {
		return err
	}
	leftovers := []string{"/containers/" + s.status.ContainerID + "/json"}
	for _, network := range s.network {
		leftovers = append(leftovers, "/networks/"+network)
	}
	for _, path := range leftovers {
		gone, err := s.engine.docker.gone(ctx, path)
		if err != nil {
			return fmt.Errorf("looking for leftovers: %w", err)
		}
		if !gone {
			return fmt.Errorf("the engine still has %s after the rental's end", path)
		}
	}
	s.tell.done("Its address refuses, its container and network are gone")
	return nil
}

func (s *story) stopRental(ctx context.Context) error {
	answer, err := s.market.Backend.StopInstance(ctx, s.node, protocol.StopInstance{RentalID: s.order.RentalID})
	if err == nil && answer.Error != nil {
		err = answer.Error
	}
	if err != nil {
		return fmt.Errorf("stopping the rental: %w", err)
	}
	_, err = s.market.Backend.WaitState(ctx, s.order.RentalID, "stopped")
	s.ended = err == nil
	return err
}

// leave takes away everything that is there, however far the story came.
func (s *story) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leavePatience)
	defer cancel()
	s.tell.now("leaving")
	var failures []error
	if s.order.RentalID != "" && !s.ended {
		brief, cancel := context.WithTimeout(ctx, 15*time.Second)
		_ = s.stopRental(brief) // what is left of it is taken away below
		cancel()
	}
	if s.agent != nil {
		failures = append(failures, s.agent.stop())
	}
	if s.engine != nil && s.market != nil {
		failures = append(failures, s.engine.docker.clear(ctx, s.market.Registry.Addr()))
	}
	if s.market != nil {
		failures = append(failures, s.market.Close())
	}
	if s.engine != nil {
		failures = append(failures, s.engine.stop())
	}
	if s.dir != "" {
		failures = append(failures, os.RemoveAll(s.dir))
	}
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("clearing up: %w", err)
	}
	s.tell.done("Agent, marketplace and image are gone too")
	return nil
}
