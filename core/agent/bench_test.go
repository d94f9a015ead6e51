package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/rental/rentaltest"
)

func BenchmarkHeartbeat(b *testing.B) {
	survey := testSurvey()
	status := &Status{NodeID: "node-1", Node: Wish{State: protocol.Online}, Hardware: &survey, Rentals: make([]rental.Status, 4)}
	row := []*float64{new(61.0), nil}
	sample := hardware.Sample{GPUTempC: row, GPUUtilization: row, GPUPowerW: row, GPUFanPercent: row, GPUMemoryUsedMB: []*int64{nil, nil}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(beat(status, sample)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommand is the time from a command's arrival in the loop to its answer, the ledger's
// fsync left out: a refused start, which passes every check.
func BenchmarkCommand(b *testing.B) {
	memory, err := OpenMemory(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer memory.Close()
	e, t := newEngine(), &trace{}
	e.trace = t
	book, err := rental.Open(rental.Options{Dir: b.TempDir(), Engine: e, Relay: rentaltest.NewRelay(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	l := answering{newLink(t), make(chan protocol.CommandResult, 1)}
	a, err := New(Parts{
		Rentals: book, Engine: e, Relay: &relay{trace: t}, Link: l, Meter: &meter{trace: t}, Memory: memory,
		Survey: func(context.Context, string) hardware.Survey { return testSurvey() },
	}, Options{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	left := make(chan error)
	go func() { left <- a.Run(ctx) }()
	for !a.Status().Accepting {
		time.Sleep(time.Millisecond)
	}
	start := order("r-1")
	start.RAMLimit = 1 << 45
	for b.Loop() {
		l.in <- protocol.Incoming{ID: "c", Data: start}
		if result := <-l.results; result.OK || result.Error.Code != protocol.InsufficientResources {
			b.Fatalf("got %+v", result.Error)
		}
	}
	stop()
	if err := <-left; err != nil {
		b.Fatal(err)
	}
}

// answering hands answers to the benchmark.
type answering struct {
	*link
	results chan protocol.CommandResult
}

func (l answering) Answer(_ protocol.Incoming, result protocol.CommandResult) { l.results <- result }
