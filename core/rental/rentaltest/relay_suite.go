package rentaltest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

// TestRelay checks that a relay keeps to the contract of rental.Relay. Routes and others lead from
// different public ports to targets that answer.
func TestRelay(t *testing.T, relay rental.Relay, routes, others []rental.Route) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const id = rental.ID("conformance")
	t.Cleanup(func() { _ = relay.Withdraw(context.Background(), id) })
	ignore := func(string) {}

	must(t, "withdrawing what is not published", relay.Withdraw(ctx, id))
	for _, set := range [][]rental.Route{routes, routes, others, routes} {
		addresses, err := relay.Publish(ctx, id, set, ignore)
		must(t, "Publish", err)
		if len(addresses) != len(set) {
			t.Fatalf("%d addresses for %d routes", len(addresses), len(set))
		}
		for i, a := range addresses {
			if a.Port != set[i].Port || a.Public == "" {
				t.Errorf("address %d is %+v, for %v", i, a, set[i].Port)
			}
		}
	}
	for range 2 {
		must(t, "Withdraw", relay.Withdraw(ctx, id))
	}

	ended, end := context.WithCancel(ctx)
	end()
	_, err := relay.Publish(ended, id, routes, ignore)
	if _, ok := errors.AsType[*rental.Failure](err); !ok {
		t.Errorf("publishing within no time: got %v, want a failure", err)
	}
	must(t, "Withdraw after that", relay.Withdraw(ctx, id))
}
