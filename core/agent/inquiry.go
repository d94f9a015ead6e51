package agent

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Bounds of what takes longer than an answer may.
const (
	logsBound      = 20 * time.Second
	logsAtOnce     = 4
	maxLogsBytes   = 128 << 10
	maxLogsEncoded = 192 << 10 // in JSON: a frame holds 256 KiB
	speedTestBound = 2 * time.Minute
)

// errRented ends a speed test: it would take the renter's bandwidth, and measure what is left.
var errRented = rental.Failf(rental.CodeConflict, "A rental has come while the speed test was running; run it again when no rental runs.")

// Logs returns the newest output of a rental's container: at most tail lines (1 to 5000; 0: 200),
// none older than since, control characters escaped. truncated tells that there is more.
func (a *Agent) Logs(ctx context.Context, id rental.ID, tail int, since time.Time) (text string, truncated bool, err error) {
	host := a.board.latest.Load()
	rentals := slices.Concat(host.Ended, host.Rentals)
	at := slices.IndexFunc(rentals, func(s rental.Status) bool { return s.ID == id })
	if at >= 0 && rentals[at].State.Final() {
		return "", false, rental.Failf(rental.CodeNotFound, "Rental %s has ended; its container and logs are gone since %s.", id, rentals[at].At.Format(time.RFC3339))
	}
	if at < 0 {
		return "", false, rental.Failf(rental.CodeNotFound, "There is no rental %s on this host.", id)
	}
	if rentals[at].ContainerID == "" {
		return "", false, rental.Failf(rental.CodeNotFound, "Rental %s has no container yet, it is %s.", id, rentals[at].State)
	}
	if tail == 0 {
		tail = 200
	}
	return a.parts.Engine.Logs(ctx, rentals[at].ContainerID, min(max(tail, 1), 5000), since)
}

// Images lists the images that were pulled for rentals and are still on this host.
func (a *Agent) Images(ctx context.Context) (rental.ImageCache, error) {
	return a.parts.Engine.Images(ctx)
}

// PruneImages removes the images that were pulled for rentals, but those in use and those the owner keeps.
func (a *Agent) PruneImages(ctx context.Context) (rental.PrunedImages, error) {
	pruned, err := a.parts.Engine.PruneImages(ctx)
	if len(pruned.Images) > 0 {
		a.options.Log.Info("images removed as the owner asked", "images", len(pruned.Images), "freed_bytes", pruned.FreedBytes)
	}
	return pruned, err
}

// readLogs answers get_logs when they have been read, beside everything else.
func (l *loop) readLogs(order *protocol.GetLogs, reply func(any, error)) {
	if l.reading >= logsAtOnce {
		reply(nil, refuse(protocol.Conflict, "this host reads at most %d logs at once; ask again when one has been answered", logsAtOnce))
		return
	}
	l.reading++
	l.lanes.do("logs "+order.RentalID, func() job {
		return func(ctx context.Context) func() {
			ctx, cancel := context.WithTimeout(ctx, logsBound)
			defer cancel()
			text, truncated, err := l.Logs(ctx, rental.ID(order.RentalID), order.Tail, order.Since)
			newest := fit(text)
			return func() {
				l.reading--
				reply(protocol.Logs{Text: newest, Truncated: truncated || len(newest) < len(text)}, overtime(err, "reading the logs"))
			}
		}
	})
}

// fit keeps the newest part of a text that goes into one frame.
func fit(text string) string {
	text = newest(text, maxLogsBytes)
	for {
		encoded, err := json.Marshal(text)
		if err != nil || len(encoded) <= maxLogsEncoded {
			return text
		}
		text = newest(text, len(text)*3/4)
	}
}

// newest is the end of a text, from the start of a character on.
func newest(text string, most int) string {
	if len(text) <= most {
		return text
	}
	text = text[len(text)-most:]
	for len(text) > 0 && !utf8.RuneStart(text[0]) {
		text = text[1:]
	}
	return text
}

// runSpeedtest answers run_speedtest when it is done.
func (l *loop) runSpeedtest(reply func(any, error)) {
	l.measure(func(network hardware.Network, err error) {
		reply(protocol.Network(network), overtime(err, "the speed test"))
	})
}

// measure tests the network's speed while no rental needs it.
func (l *loop) measure(done func(hardware.Network, error)) {
	refused := l.refuseTest()
	if refused != nil {
		done(hardware.Network{}, refused)
		return
	}
	ctx, stop := context.WithCancelCause(l.lanes.ctx)
	l.stopTest = stop
	l.lanes.do("speed test", func() job {
		return func(context.Context) func() {
			network, err := l.test(ctx)
			return func() {
				stop(nil)
				l.stopTest = nil
				if err == nil {
					l.memory.Network = &network
					l.remember()
				}
				l.keep(func(error) { done(network, err) })
			}
		}
	})
}

func (l *loop) refuseTest() error {
	switch {
	case l.parts.SpeedTest == nil:
		return rental.Failf(rental.CodeNotFound, "No server for speed tests is configured on this host.")
	case l.live() > 0:
		return rental.Failf(rental.CodeConflict, "A rental is running; a speed test would take its bandwidth.")
	case l.stopTest != nil:
		return rental.Failf(rental.CodeConflict, "A speed test is running already.")
	}
	return nil
}

// test runs one test; what cut it short is told as the reason.
func (l *loop) test(ctx context.Context) (hardware.Network, error) {
	bounded, cancel := context.WithTimeout(ctx, speedTestBound)
	defer cancel()
	network, err := l.parts.SpeedTest(bounded)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return network, err
}

// overtime gives an inquiry that was cut off by its bound the wire's word for it.
func overtime(err error, what string) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return refuse(protocol.Timeout, "%s took too long on this host", what)
	}
	return err
}
