package main

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/rental"
)

func TestNarrationTellsEachThingOnce(t *testing.T) {
	pull := rental.Status{ID: "r-1", State: rental.Pulling, Spec: rental.Spec{Image: "img"}, Progress: &rental.Progress{Current: 1, Total: 2}}
	running := rental.Status{ID: "r-1", State: rental.Running, Addresses: []rental.Address{{Port: rental.Port{Container: 80, Protocol: rental.TCP}, Public: "p:1"}}}
	docker := agent.Problem{Code: "docker_unavailable", Message: "Docker is not running.", Fix: "Start it."}
	pictures := []agent.Status{
		{Problems: []agent.Problem{docker, {Code: "backend_unreachable", Message: "told by the link"}}, Why: "no Docker"},
		{Problems: []agent.Problem{{Code: docker.Code, Message: "Docker is still not running."}}, Why: "no Docker"},
		{NodeID: "n-1", Backend: agent.LinkHealth{Registered: true, URL: "wss://m"}, Accepting: true},
		{NodeID: "n-1", Backend: agent.LinkHealth{Registered: true, URL: "wss://m"}, Accepting: true, Rentals: []rental.Status{pull}},
		{NodeID: "n-1", Backend: agent.LinkHealth{Registered: true, URL: "wss://m"}, Why: "paused", Rentals: []rental.Status{running}},
		{NodeID: "n-1", Backend: agent.LinkHealth{Registered: true, URL: "wss://m"}, Rentals: []rental.Status{{ID: "r-1", State: rental.Stopped}}},
		{NodeID: "n-1", Rentals: []rental.Status{{ID: "r-2", State: rental.Failed, Failure: rental.Failf(rental.CodeTimeout, "Too late.")}}},
	}
	var screen bytes.Buffer
	bottom := &footer{w: &screen, terminal: true}
	var log bytes.Buffer
	withoutTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	narrate(slices.Values(pictures), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: withoutTime})), bottom)

	want := `level=WARN msg=problem code=docker_unavailable problem="Docker is not running." fix="Start it."
level=INFO msg="registered with the marketplace" node=n-1 backend=wss://m
level=INFO msg="taking rentals"
level=INFO msg="problem solved" code=docker_unavailable
level=INFO msg="taking no rentals" because=paused
level=INFO msg="rental running" rental=r-1 at="80/tcp=p:1"
level=INFO msg="rental ended" rental=r-1
level=WARN msg="rental failed" rental=r-2 code=timeout reason="Too late."
`
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := screen.String(); !strings.HasPrefix(got, "\rpulling [##########..........]  50 % of 2 B img") || !strings.HasSuffix(got, " \r") {
		t.Errorf("the footer shows %q", got)
	}
}

func TestFooterOfSeveralPulls(t *testing.T) {
	pull := rental.Status{State: rental.Pulling, Spec: rental.Spec{Image: "img"}, Progress: &rental.Progress{Current: 1, Total: 2}}
	if got := pulling([]rental.Status{pull, {State: rental.Running}, pull, pull}); !strings.HasPrefix(got, "3 images, pulling [####") {
		t.Errorf("got %q", got)
	}
}
