package docker

import (
	"net/netip"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/shield"
)

func TestShieldIsWatchedCloselyOnlyWhileRentalsRun(t *testing.T) {
	for name, tc := range map[string]struct {
		set  func(*guard)
		want time.Duration
	}{
		"nothing chosen":      {func(*guard) {}, shieldEvery},
		"idle":                {func(g *guard) { g.hands = g.own }, shieldEvery},
		"idle by containers":  {func(g *guard) { g.hands = borrowedHands{} }, shieldAnyway},
		"failed by them":      {func(g *guard) { g.hands, g.failed = borrowedHands{}, true }, shieldEvery},
		"rented":              {func(g *guard) { g.hands = g.own; rented(g) }, glanceEvery},
		"rented, a rival":     {func(g *guard) { g.hands = g.own; rented(g); g.rival.quarrels = enoughQuarrels }, shieldEvery},
		"rented by container": {func(g *guard) { g.hands = borrowedHands{}; rented(g) }, shieldEvery},
		"over":                {func(g *guard) { g.hands = g.own; rented(g); g.forgets("rented") }, shieldEvery},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuard(&Shielding{})
			tc.set(g)
			if got := g.pace(); got != tc.want {
				t.Errorf("looked at every %s, want %s", got, tc.want)
			}
		})
	}
}

func rented(g *guard) { g.turned.owners[netip.MustParseAddr("10.0.0.2")] = "rented" }

func TestRivalIsTold(t *testing.T) {
	standing := func(mark string) shield.Standing { return shield.Standing{Picture: shield.Picture{Mark: mark}} }
	ours, other, none := standing("ours"), standing("other"), standing("")
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

	type look struct {
		there shield.Standing
		after time.Duration // since the look before; ours is put up after each that found another
	}
	soon := func(there ...shield.Standing) (looks []look) {
		for _, s := range there {
			looks = append(looks, look{s, glanceEvery})
		}
		return looks
	}
	for name, tc := range map[string]struct {
		looks []look
		told  int
		rival bool // at the end
	}{
		"once":                     {soon(other, ours), 0, false},
		"again and again":          {soon(other, other, other), 1, true},
		"told once":                {soon(other, other, other, other, other), 1, true},
		"also less often":          {append(soon(other, other, other), look{other, shieldEvery}, look{other, shieldEvery}), 1, true},
		"flushed again and again":  {soon(none, none, none, none), 0, false},
		"flushed between":          {soon(other, other, none, other), 0, false},
		"now and then":             {[]look{{other, time.Second}, {other, time.Hour}, {other, time.Hour}, {other, time.Hour}}, 0, false},
		"ours only for a moment":   {soon(other, other, ours, other), 1, true},
		"gone":                     {append(soon(other, other, other), look{ours, time.Minute}), 1, false},
		"gone and there once more": {append(soon(other, other, other), look{ours, time.Minute}, look{other, time.Second}), 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			now, told := begin, 0
			r := rivalry{raised: begin}
			for _, l := range tc.looks {
				now = now.Add(l.after)
				if l.there.Mark == ours.Mark {
					r.calm(now)
					continue
				}
				if r.found(ours, l.there, now) {
					told++
				}
				r.raised = now
			}
			if rival := r.quarrels >= enoughQuarrels; told != tc.told || rival != tc.rival {
				t.Errorf("told %d times, want %d; a rival: %t, want %t", told, tc.told, rival, tc.rival)
			}
		})
	}
}
