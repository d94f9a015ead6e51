package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

const (
	answersWithin = 15 * time.Second
	// stillOpen is how long a connection has to last: the relay accepts every one, and closes it
	// again where nothing listens behind the tunnel.
	stillOpen = 500 * time.Millisecond
)

// announce prints the public addresses of a running rental, each TCP one as soon as it answers. The
// error says what keeps it from answering, or how the rental ended instead.
func announce(ctx context.Context, out io.Writer, at *place, status protocol.InstanceStatus) error {
	for _, port := range status.Ports {
		says := "is at"
		if port.Protocol == "tcp" {
			if err := awaitAnswer(ctx, at, status.RentalID, port); err != nil {
				return err
			}
			says = "answers on"
		}
		fmt.Fprintf(out, "port %d/%s %s %s\n", port.ContainerPort, port.Protocol, says, port.PublicAddress)
	}
	if err := stillRuns(ctx, at, status.RentalID); err != nil {
		return err
	}
	fmt.Fprintf(out, "end it with: %s\n", at.command("stop "+status.RentalID))
	return nil
}

func awaitAnswer(ctx context.Context, at *place, rental string, port protocol.PublicPort) error {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	for !answers(ctx, port.PublicAddress) {
		if err := stillRuns(ctx, at, rental); err != nil && ctx.Err() == nil {
			return err
		}
		if !pause(ctx) {
			return fmt.Errorf("the rental runs, but nothing answers on port %d/%s (%s): see `%s`",
				port.ContainerPort, port.Protocol, port.PublicAddress, at.command("logs "+rental))
		}
	}
	return nil
}

// answers reports whether a program accepts connections at a public address.
func answers(ctx context.Context, address string) bool {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(stillOpen))
	_, err = conn.Read(make([]byte, 1))
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// stillRuns reports an error that says how a rental ended, unless it runs. One that is being stopped
// is waited for: its end says more.
func stillRuns(ctx context.Context, at *place, id string) error {
	rental, err := at.client().Rental(ctx, id)
	for err == nil && rental.State == "stopping" && pause(ctx) {
		rental, err = at.client().Rental(ctx, id)
	}
	if err != nil || rental.State == "running" {
		return err
	}
	if rental.Problem == "" {
		return fmt.Errorf("the rental is %s", rental.State)
	}
	return fmt.Errorf("the rental has %s: %s", rental.State, rental.Problem)
}

// pause lets a moment pass before something is asked again; false says that ctx has ended.
func pause(ctx context.Context) bool {
	select {
	case <-time.After(100 * time.Millisecond):
		return true
	case <-ctx.Done():
		return false
	}
}
