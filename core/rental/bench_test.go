package rental_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/rental/rentaltest"
)

// bench runs a book on a real disk with an engine and a relay that take no time.
func bench(b *testing.B, notify func(rental.Status)) *rental.Book {
	book, err := rental.Open(rental.Options{Dir: b.TempDir(), Engine: rentaltest.NewEngine(image), Relay: rentaltest.NewRelay(), Log: silent})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- book.Run(ctx, notify) }()
	b.Cleanup(func() { cancel(); <-done })
	for { // until Run has begun
		if _, err := book.Accept(spec("warm")); err == nil {
			return book
		}
	}
}

// BenchmarkAccept is what an order costs until it may be answered.
func BenchmarkAccept(b *testing.B) {
	held := make(chan struct{})
	defer close(held)
	book := bench(b, func(rental.Status) { <-held })
	for i := 0; b.Loop(); i++ {
		if _, err := book.Accept(spec(rental.ID(fmt.Sprint("r-", i)))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAcceptToRunning is what a book adds to the time of engine and relay.
func BenchmarkAcceptToRunning(b *testing.B) {
	running, over := make(chan struct{}, 1), make(chan struct{}, 1)
	book := bench(b, func(s rental.Status) {
		switch {
		case s.ID == "warm":
		case s.State == rental.Running:
			running <- struct{}{}
		case s.State.Final():
			over <- struct{}{}
		}
	})
	for i := 0; b.Loop(); i++ {
		id := rental.ID(fmt.Sprint("r-", i))
		if _, err := book.Accept(spec(id)); err != nil {
			b.Fatal(err)
		}
		<-running
		b.StopTimer()
		if err := book.End(id, nil, 0); err != nil {
			b.Fatal(err)
		}
		<-over
		b.StartTimer()
	}
}

// BenchmarkAcceptAgain is what a repeated order costs.
func BenchmarkAcceptAgain(b *testing.B) {
	book := bench(b, func(rental.Status) {})
	for b.Loop() {
		if _, err := book.Accept(spec("warm")); err != nil {
			b.Fatal(err)
		}
	}
}
