package tunnel

import (
	"context"
	"net"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	knockTimeout = 5 * time.Second
	// The pause between two knocks doubles from the first value up to the second. From proofLate
	// on, the rental is told about it.
	proofFirst = 5 * time.Millisecond
	proofLate  = 300 * time.Millisecond
	proofMost  = 2 * time.Second
)

// prove returns once a public TCP address of p has answered.
func (r *Relay) prove(ctx context.Context, p *publication, address string) error {
	for pause := proofFirst; ; pause = min(2*pause, proofMost) {
		err := knock(ctx, address)
		if err == nil {
			return r.note(ctx, p, nil)
		}
		if pause > proofLate {
			late := rental.Failf(rental.CodeTunnelFailed, "The relay has opened %s, but it cannot be reached from here: %s.", address, reason(err))
			if err := r.note(ctx, p, late); err != nil {
				return err
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func knock(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: knockTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// note has the loop tell the rental why its address does not answer; nil takes it back.
func (r *Relay) note(ctx context.Context, p *publication, unproven *rental.Failure) error {
	return r.carryOut(ctx, func(*keeper) { p.unproven = unproven })
}
