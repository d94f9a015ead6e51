package tray

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

var update = flag.Bool("update", false, "write the menus as they are")

// noon is when the tests take place, in the zone they take place in.
var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.Local)

// online is a host on which nothing is wrong.
func online() agent.Status {
	payout := time.Date(2026, 12, 1, 12, 0, 0, 0, time.Local)
	return agent.Status{
		Agent:   protocol.Agent{Version: "1.4.0", StartedAt: noon.Add(-24 * time.Hour)},
		NodeID:  "node_7f3a",
		Account: account.Info{SignedIn: true, CanSignIn: true, Owner: "ada@example.com", NodeID: "node_7f3a", KeyID: "key_1", KeySource: "in the keyring"},
		Node:    agent.Wish{State: protocol.Online},
		Backend: protocol.LinkHealth{Connected: true, Registered: true}, Accepting: true,
		Hardware: &hardware.Survey{GPUs: []hardware.GPU{{Index: 0, UUID: "GPU-a", Model: "NVIDIA GeForce RTX 4090"}, {Index: 1, UUID: "GPU-b", Model: "NVIDIA GeForce RTX 4090"}}},
		Offer:    protocol.Offer{Currency: "EUR"},
		Engine:   rental.EngineInfo{Available: true, Shield: rental.ShieldInfo{State: rental.ShieldOn, Blocked: 12}},
		Earnings: &protocol.Earnings{Currency: "EUR", RatePerHour: "0.45", Today: "4.18", Month: "92.10", Unpaid: "31.00", NextPayoutAt: &payout},
	}
}

func rented(id string, state rental.State) rental.Status {
	return rental.Status{
		ID: rental.ID(id), State: state, StartedAt: noon.Add(-2 * time.Hour),
		Addresses: []rental.Address{
			{Port: rental.Port{Container: 22, Protocol: rental.TCP, Public: 10022}, Public: "relay.example.com:10022"},
			{Port: rental.Port{Container: 8888, Protocol: rental.TCP, Public: 18888}, Public: "relay.example.com:18888"},
		},
		Spec: rental.Spec{
			ID: rental.ID(id), Image: "docker.io/pytorch/pytorch:2.5_cuda@sha256:" + strings.Repeat("a", 64),
			GPUs: []rental.GPU{{Index: 0, UUID: "GPU-a"}}, PricePerHour: "0.45", ExpiresAt: noon.Add(6 * time.Hour),
		},
	}
}

func shown(s agent.Status) view {
	return view{link: heard, status: s, notify: true, now: noon, options: Options{Dashboard: "https://example.com/dashboard", LogFile: "/var/log/agent.log", Version: "1.4.0"}}
}

// with changes a picture.
func with(s agent.Status, change func(*agent.Status)) agent.Status {
	change(&s)
	return s
}

func situations() map[string]view {
	withRentals := with(online(), func(s *agent.Status) {
		pulling := rented("r-2", rental.Pulling)
		pulling.StartedAt, pulling.Addresses = time.Time{}, nil
		pulling.Spec.GPUs = []rental.GPU{{Index: 1, UUID: "GPU-b"}}
		pulling.Progress = &rental.Progress{Phase: "pulling", Current: 49, Total: 100}
		s.Rentals = []rental.Status{rented("r-1", rental.Running), pulling, rented("r-0", rental.Stopped)}
	})
	all := map[string]view{
		"looking":          {link: looking, options: Options{Version: "1.4.0"}},
		"looking for ours": {link: looking, options: Options{Version: "1.4.0", Hosting: true}},
		"online":           shown(online()),
		"rented":           shown(withRentals),
		"paused until": shown(with(online(), func(s *agent.Status) {
			s.Node = agent.Wish{State: protocol.Paused, Reason: "user", Until: noon.Add(time.Hour)}
		})),
		"paused, rented":    shown(with(withRentals, func(s *agent.Status) { s.Node = agent.Wish{State: protocol.Paused, Reason: "user"} })),
		"draining":          shown(with(withRentals, func(s *agent.Status) { s.Node = agent.Wish{State: protocol.Draining, Reason: "user"} })),
		"drained by market": shown(with(online(), func(s *agent.Status) { s.Node = agent.Wish{State: protocol.Paused, Reason: "backend"} })),
		"narrowed offer":    shown(with(online(), func(s *agent.Status) { s.Proposal = &protocol.Offer{} })),
		"takes none": shown(with(online(), func(s *agent.Status) {
			s.Accepting, s.Why, s.Earnings = false, "no disk space is left to rent out", nil
		})),
		"offline": shown(with(online(), func(s *agent.Status) {
			s.Backend = protocol.LinkHealth{Problem: "The backend's name does not resolve."}
			s.Problems = []agent.Problem{{Code: "backend_unreachable", Message: "The backend's name does not resolve.", Fix: "The agent keeps trying."}}
		})),
		"problems": shown(with(online(), func(s *agent.Status) {
			s.Problems = []agent.Problem{
				{Code: "docker_unavailable", Message: "Docker is not running.", Fix: "Start it with: sudo systemctl start docker."},
				{Code: "driver_mismatch", Message: "The NVIDIA driver and its library differ,\nwhich happens after an update that was not followed by a restart of the machine."},
			}
		})),
		"signed out": shown(with(online(), func(s *agent.Status) {
			s.Account, s.Accepting, s.Earnings, s.NodeID = account.Info{CanSignIn: true, Problem: "the browser was closed"}, false, nil, ""
		})),
		"asked to sign in": shown(with(online(), func(s *agent.Status) { s.Account = account.Info{CanSignIn: true} })),
		"signing in": shown(with(online(), func(s *agent.Status) {
			s.Account = account.Info{CanSignIn: true, SigningIn: &account.SigningIn{Method: account.Device, URL: "https://id.example.com/device", UserCode: "BCDF-GHJK"}}
		})),
		"key refused": shown(with(withRentals, func(s *agent.Status) {
			s.Backend = protocol.LinkHealth{NeedsSignIn: true, Refused: "key_revoked", Problem: "The backend no longer accepts this host's key."}
			s.Problems = []agent.Problem{{Code: "sign_in_needed", Message: "The backend no longer accepts this host's key.", Fix: "Get a new host key."}}
		})),
		"no account": shown(with(online(), func(s *agent.Status) { s.Account, s.Backend = account.Info{}, protocol.LinkHealth{NeedsSignIn: true} })),
		"key by hand": shown(with(online(), func(s *agent.Status) {
			s.Account = account.Info{SignedIn: true, KeySource: "environment (HOST_API_KEY)"}
		})),
		"many rentals": shown(with(online(), func(s *agent.Status) {
			for i := range 13 {
				r := rented(fmt.Sprintf("r-%d", i), rental.Running)
				r.Addresses, r.Spec.GPUs = nil, nil
				s.Rentals = append(s.Rentals, r)
			}
		})),
		"trouble": shown(with(online(), func(s *agent.Status) {
			r := rented("r-1", rental.Running)
			r.Trouble, r.Unreachable = "The relay refuses port 10022.", true
			s.Rentals = []rental.Status{r}
			s.Problems = []agent.Problem{{Code: "rental_trouble", Message: "Rental r-1: The relay refuses port 10022.", Fix: "The agent keeps trying."}}
		})),
		"leaving after": shown(with(withRentals, func(s *agent.Status) { s.Leaving = true })),
		"leaving, ending": shown(with(withRentals, func(s *agent.Status) {
			s.Leaving, s.Rentals = true, []rental.Status{rented("r-1", rental.Stopping)}
		})),
		"attached": shown(withRentals),
		"gone":     shown(withRentals),
		"starting": shown(online()),
	}
	change := func(name string, by func(*view)) {
		v := all[name]
		by(&v)
		all[name] = v
	}
	change("asked to sign in", func(v *view) { v.signingIn = true })
	change("leaving after", func(v *view) { v.quitting = agent.AfterRentals })
	change("attached", func(v *view) { v.status.PID, v.options.LogFile, v.autostart.on = 4711, "", true })
	change("gone", func(v *view) { v.link = gone })
	change("starting", func(v *view) { v.link, v.starting, v.notify = gone, true, false })
	return all
}

// drawn is a menu as text, with what a click does.
func drawn(entries []entry, indent string) string {
	var b strings.Builder
	for _, e := range entries {
		title := e.title
		switch {
		case e.line:
			title = "----"
		case e.ticked:
			title = "[x] " + title
		case e.box:
			title = "[ ] " + title
		}
		if e.off {
			title = "(" + title + ")"
		}
		if e.deed != (deed{}) {
			title += fmt.Sprintf("   ⇒ %s %q", e.deed.verb, e.deed.what)
		}
		b.WriteString(indent + title + "\n" + drawn(e.below, indent+"    "))
	}
	return b.String()
}

func TestMenus(t *testing.T) {
	for name, v := range situations() {
		t.Run(name, func(t *testing.T) {
			state, _ := standing(v)
			got := fmt.Sprintf("icon: %s\ntooltip: %s\n\n%s", state, tooltip(v), drawn(menu(v), ""))
			file := filepath.Join("testdata", "menu", strings.NewReplacer(",", "", " ", "-").Replace(name)+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("menu (-want +got):\n%s", diff)
			}
		})
	}
}

// TestShape checks what every menu has to keep: titles that fit, keys that tell entries apart, and no
// submenu below a submenu.
func TestShape(t *testing.T) {
	var check func(t *testing.T, entries []entry, deep int)
	check = func(t *testing.T, entries []entry, deep int) {
		keys := map[string]bool{}
		for _, e := range entries {
			if keys[e.key] {
				t.Errorf("two entries are %q", e.key)
			}
			keys[e.key] = true
			if n := len([]rune(e.title)); n > titleLength || n == 0 && !e.line || strings.ContainsAny(e.title, "\n\t") {
				t.Errorf("title %q", e.title)
			}
			if len(e.below) > 0 && (deep > 1 || e.off || e.deed != (deed{})) {
				t.Errorf("%q cannot have entries below it", e.title)
			}
			check(t, e.below, deep+1)
		}
	}
	for name, v := range situations() {
		t.Run(name, func(t *testing.T) {
			check(t, menu(v), 1)
			if n := len([]rune(tooltip(v))); n > tooltipLength {
				t.Errorf("a tooltip of %d characters", n)
			}
		})
	}
}

func TestPauseEnd(t *testing.T) {
	night := time.Date(2026, 12, 31, 23, 30, 0, 0, time.Local)
	for what, want := range map[string]time.Time{
		anHour:   night.Add(time.Hour),
		tomorrow: time.Date(2027, 1, 1, 8, 0, 0, 0, time.Local),
		ever:     {},
	} {
		if got := pauseEnd(what, night); !got.Equal(want) {
			t.Errorf("%q from %s: got %s, want %s", what, night, got, want)
		}
	}
}

// TestWordsFromElsewhere: nothing that cannot be seen, as what turns the direction of writing, comes from the marketplace
// or a renter into the menu.
func TestWordsFromElsewhere(t *testing.T) {
	const hidden = "a\u202eb\u2066c\u200bd\ue000\x1b[31m\n\u2028"
	s := with(online(), func(s *agent.Status) {
		r := rented("r-1"+hidden, rental.Running)
		r.Spec.Image, r.Spec.PricePerHour, r.Trouble = "docker.io/pytorch/"+hidden, "1"+hidden, hidden
		r.Addresses[0].Public = hidden
		twin := r
		twin.ID += "2"
		s.Rentals = []rental.Status{r, twin}
		s.Account = account.Info{SignedIn: true, Owner: hidden, Problem: hidden, KeySource: hidden}
		s.Offer.Currency = hidden
		s.Earnings = &protocol.Earnings{Currency: hidden, RatePerHour: "1", Today: hidden, Month: hidden, Unpaid: "1"}
		s.Hardware = &hardware.Survey{GPUs: []hardware.GPU{{UUID: "GPU-a", Model: hidden}}}
		s.Problems = []agent.Problem{{Code: "x", Message: hidden, Fix: hidden}}
	})
	var check func(entries []entry)
	check = func(entries []entry) {
		for _, e := range entries {
			if strings.ContainsFunc(e.title, func(r rune) bool { return !unicode.IsGraphic(r) }) {
				t.Errorf("%s: title %q", e.key, e.title)
			}
			check(e.below)
		}
	}
	check(menu(shown(s)))
	s.Account = account.Info{CanSignIn: true, SigningIn: &account.SigningIn{UserCode: hidden}}
	check(menu(shown(s)))
	for line := range strings.SplitSeq(tooltip(shown(s)), "\n") {
		check([]entry{{key: "tooltip", title: line}})
	}
}

// TestCoarseProgress checks that a download does not close an open menu all the time.
func TestCoarseProgress(t *testing.T) {
	titles := map[string]bool{}
	for i := range int64(1001) {
		r := rented("r", rental.Pulling)
		r.Progress = &rental.Progress{Current: i, Total: 1000}
		titles[rentalTitle(r, false)] = true
	}
	if len(titles) != 11 {
		t.Errorf("a download has %d titles, want one for every tenth", len(titles))
	}
}
