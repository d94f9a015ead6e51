package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/rental"
)

// news is one thing that happened, as a line of the log.
type news struct {
	level slog.Level
	text  string
	attrs []slog.Attr
}

// narrate tells what happens to the host while it runs, and shows a running pull in the footer. It
// reads the same pictures as any client of the control socket.
func narrate(pictures func(yield func(agent.Status) bool), log *slog.Logger, bottom *footer) {
	var before agent.Status
	for after := range pictures {
		for _, n := range compare(before, after) {
			log.LogAttrs(context.Background(), n.level, n.text, n.attrs...)
		}
		bottom.show(pulling(after.Rentals))
		before = after
	}
	bottom.show("")
}

// compare lists what is new between two pictures.
func compare(before, after agent.Status) []news {
	var list []news
	if after.Backend.Registered && !before.Backend.Registered {
		list = append(list, news{slog.LevelInfo, "registered with the marketplace", []slog.Attr{slog.String("node", after.NodeID), slog.String("backend", after.Backend.URL)}})
	}
	if after.Accepting != before.Accepting {
		list = append(list, acceptance(after))
	}
	list = append(list, compareRentals(before.Rentals, after.Rentals)...)
	return append(list, compareProblems(before.Problems, after.Problems)...)
}

func acceptance(s agent.Status) news {
	if s.Accepting {
		return news{level: slog.LevelInfo, text: "taking rentals"}
	}
	return news{slog.LevelInfo, "taking no rentals", []slog.Attr{slog.String("because", s.Why)}}
}

func compareRentals(before, after []rental.Status) []news {
	states := map[rental.ID]rental.State{}
	for _, r := range before {
		states[r.ID] = r.State
	}
	var list []news
	for _, r := range after {
		if was, known := states[r.ID]; !known || was != r.State {
			if n, ok := change(r); ok {
				list = append(list, n)
			}
		}
	}
	return list
}

// change tells the states of a rental that its host cares about; the agent itself tells that an
// order was accepted.
func change(r rental.Status) (news, bool) {
	attrs := []slog.Attr{slog.String("rental", string(r.ID))}
	switch r.State {
	case rental.Running:
		return news{slog.LevelInfo, "rental running", append(attrs, slog.String("at", addresses(r)))}, true
	case rental.Stopped:
		return news{slog.LevelInfo, "rental ended", attrs}, true
	case rental.Failed:
		if r.Failure != nil {
			attrs = append(attrs, slog.String("code", string(r.Failure.Code)), slog.String("reason", r.Failure.Message))
		}
		return news{slog.LevelWarn, "rental failed", attrs}, true
	}
	return news{}, false
}

func addresses(r rental.Status) string {
	var list []string
	for _, a := range r.Addresses {
		list = append(list, a.Port.String()+"="+a.Public)
	}
	return strings.Join(list, " ")
}

// toldByParts are problems that the part concerned logs itself, with their cause.
var toldByParts = map[string]bool{"backend_unreachable": true, "relay_unreachable": true, "rental_trouble": true}

// compareProblems follows problems by their code: a sentence that changes is the same problem.
func compareProblems(before, after []agent.Problem) []news {
	codes := func(problems []agent.Problem) map[string]bool {
		set := map[string]bool{}
		for _, p := range problems {
			set[p.Code] = true
		}
		return set
	}
	var list []news
	known, still := codes(before), codes(after)
	for _, p := range after {
		if !known[p.Code] && !toldByParts[p.Code] {
			list = append(list, news{slog.LevelWarn, "problem", []slog.Attr{slog.String("code", p.Code), slog.String("problem", p.Message), slog.String("fix", p.Fix)}})
		}
	}
	for _, p := range before {
		if !still[p.Code] && !toldByParts[p.Code] {
			list = append(list, news{slog.LevelInfo, "problem solved", []slog.Attr{slog.String("code", p.Code)}})
		}
	}
	return list
}

// pulling is the footer while images are pulled: the first of them, and how many there are.
func pulling(rentals []rental.Status) string {
	var lines []string
	for _, r := range rentals {
		if r.State == rental.Pulling && r.Progress != nil {
			lines = append(lines, "pulling "+progressBar(*r.Progress, barWidth)+" "+r.Spec.Image)
		}
	}
	switch len(lines) {
	case 0:
		return ""
	case 1:
		return lines[0]
	}
	return fmt.Sprintf("%d images, %s", len(lines), lines[0])
}
