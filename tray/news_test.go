package tray

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

func TestNews(t *testing.T) {
	rentals := func(all ...rental.Status) agent.Status {
		return with(online(), func(s *agent.Status) { s.Rentals = all })
	}
	in := func(state rental.State, change func(*rental.Status)) rental.Status {
		r := rented("r-1", state)
		if change != nil {
			change(&r)
		}
		return r
	}
	unstarted := func(r *rental.Status) { r.StartedAt = time.Time{} }
	ended := func(r *rental.Status) { r.EndedAt = noon }
	settled := with(online(), func(s *agent.Status) { s.Ended = []rental.Status{in(rental.Stopped, ended)} })
	notices := func(titles ...string) agent.Status {
		return with(online(), func(s *agent.Status) {
			for _, title := range titles {
				s.Notices = append(s.Notices, agent.Notice{At: noon, Notice: protocol.Notice{Title: title, Body: "Tonight.", URL: "https://example.com/news"}})
			}
		})
	}
	signed := func(info account.Info) agent.Status {
		return with(online(), func(s *agent.Status) { s.Account = info })
	}
	under := &account.SigningIn{URL: "https://id.example.com"}
	refused := with(online(), func(s *agent.Status) { s.Backend.NeedsSignIn, s.Backend.Refused = true, "key_revoked" })

	tests := map[string]struct {
		before *agent.Status
		after  agent.Status
		want   []Note
	}{
		"nothing changed": {new(rentals(in(rental.Running, nil))), rentals(in(rental.Running, nil)), nil},
		"started": {
			new(rentals(in(rental.Tunnelling, unstarted))), rentals(in(rental.Running, nil)),
			[]Note{{Key: "rental r-1", Title: "A rental has started", Body: "pytorch:2.5_cuda on GPU 0, 0.45 EUR per hour"}},
		},
		"started between pictures": {
			new(online()), rentals(in(rental.Running, nil)),
			[]Note{{Key: "rental r-1", Title: "A rental has started", Body: "pytorch:2.5_cuda on GPU 0, 0.45 EUR per hour"}},
		},
		"there at the start": {nil, rentals(in(rental.Running, nil)), nil},
		"adopted late": {
			new(online()), rentals(in(rental.Running, func(r *rental.Status) { r.StartedAt = noon.Add(-48 * time.Hour) })), nil,
		},
		"reachable": {
			new(rentals(in(rental.Tunnelling, nil))), rentals(in(rental.Running, nil)),
			[]Note{{Key: "rental r-1", Title: "A rental has started", Body: "pytorch:2.5_cuda on GPU 0, 0.45 EUR per hour"}},
		},
		"started again with the engine": {
			new(rentals(in(rental.Starting, nil))), rentals(in(rental.Running, func(r *rental.Status) { r.At = r.StartedAt.Add(time.Hour) })),
			[]Note{{Key: "rental r-1", Title: "A rental runs again", Body: "pytorch:2.5_cuda on GPU 0"}},
		},
		"ended": {
			new(rentals(in(rental.Running, nil))), rentals(in(rental.Stopped, ended)),
			[]Note{{Key: "rental r-1", Title: "A rental has ended", Body: "pytorch:2.5_cuda on GPU 0, earned about 0.90 EUR"}},
		},
		"ended and settled": {
			new(rentals(in(rental.Running, nil))), settled,
			[]Note{{Key: "rental r-1", Title: "A rental has ended", Body: "pytorch:2.5_cuda on GPU 0, earned about 0.90 EUR"}},
		},
		"settled after its end": {new(rentals(in(rental.Stopped, ended))), settled, nil},
		"ended long ago":        {new(online()), settled, nil},
		"failed at work": {
			new(rentals(in(rental.Running, nil))),
			rentals(in(rental.Failed, func(r *rental.Status) {
				ended(r)
				r.Spec.PricePerHour, r.Failure = "", rental.Failf(rental.CodeContainerFailed, "the container was killed")
			})),
			[]Note{{Key: "rental r-1", Title: "A rental has ended", Body: "pytorch:2.5_cuda on GPU 0: The container was killed."}},
		},
		"failed to start": {
			new(rentals(in(rental.Pulling, unstarted))),
			rentals(in(rental.Failed, func(r *rental.Status) {
				unstarted(r)
				r.Failure = rental.Failf(rental.CodeImageNotFound, "There is no such image.")
			})),
			[]Note{{Key: "rental r-1", Title: "A rental did not start", Body: "pytorch:2.5_cuda on GPU 0: There is no such image."}},
		},
		"notice": {
			new(notices("old")), notices("old", "Maintenance"),
			[]Note{{Key: "notice " + noon.Format(time.RFC3339Nano), Title: "Maintenance", Body: "Tonight.\nhttps://example.com/news"}},
		},
		"notice without a title": {
			new(online()), notices(""),
			[]Note{{Key: "notice " + noon.Format(time.RFC3339Nano), Title: "A message from the marketplace", Body: "Tonight.\nhttps://example.com/news"}},
		},
		"notices at the start": {nil, notices("old"), nil},
		"signed in": {
			new(signed(account.Info{CanSignIn: true, SigningIn: under})), online(),
			[]Note{{Key: "sign-in", Title: "Signed in as ada@example.com", Body: "This machine is on the marketplace."}},
		},
		"signed in again": {
			new(signed(account.Info{CanSignIn: true, SignedIn: true, KeyID: "key_0", SigningIn: under})), online(),
			[]Note{{Key: "sign-in", Title: "Signed in as ada@example.com", Body: "This machine is on the marketplace."}},
		},
		"key exchanged":    {new(signed(account.Info{CanSignIn: true, SignedIn: true, KeyID: "key_0"})), online(), nil},
		"sign-in given up": {new(signed(account.Info{CanSignIn: true, SigningIn: under})), signed(account.Info{CanSignIn: true}), nil},
		"sign-in failed": {
			new(signed(account.Info{CanSignIn: true, SigningIn: under})), signed(account.Info{CanSignIn: true, Problem: "the code has expired"}),
			[]Note{{Key: "sign-in", Title: "The sign-in did not succeed", Body: "The code has expired."}},
		},
		"key refused": {
			new(online()), refused,
			[]Note{{Key: "sign-in", Title: "Sign-in needed", Body: "The marketplace no longer takes this host's key. No new rentals come until you sign in again from the menu of this icon.", Urgent: true}},
		},
		"key refused at the start": {
			nil, refused,
			[]Note{{Key: "sign-in", Title: "Sign-in needed", Body: "The marketplace no longer takes this host's key. No new rentals come until you sign in again from the menu of this icon.", Urgent: true}},
		},
		"key by hand refused": {
			nil, with(refused, func(s *agent.Status) { s.Account.CanSignIn = false }),
			[]Note{{Key: "sign-in", Title: "Sign-in needed", Body: "The marketplace no longer takes this host's key. No new rentals come until there is a new key: see Problems in the menu of this icon.", Urgent: true}},
		},
		"signed out":        {new(online()), with(signed(account.Info{CanSignIn: true}), func(s *agent.Status) { s.Backend.NeedsSignIn = true }), nil},
		"key still refused": {&refused, refused, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, news(test.before, test.after)); diff != "" {
				t.Errorf("news (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWorriesWaitOutBlips(t *testing.T) {
	docker := agent.Problem{Code: "docker_unavailable", Message: "Docker is not running.", Fix: "Start it."}
	silent := agent.Problem{Code: "rental_trouble", Message: "Rental r-1: …"}
	told := []Note{{Key: "problem docker_unavailable", Title: "Docker is not running.", Body: "Start it."}}
	steps := []struct {
		after    time.Duration // since the start
		problems []agent.Problem
		want     []Note
		again    time.Duration // since the start; 0: never
	}{
		{0, []agent.Problem{docker, silent}, nil, 30 * time.Second},
		{29 * time.Second, []agent.Problem{docker}, nil, 30 * time.Second},
		{29500 * time.Millisecond, nil, nil, 0}, // it was a blip
		{40 * time.Second, []agent.Problem{docker}, nil, 70 * time.Second},
		{70 * time.Second, []agent.Problem{docker, docker}, told, 0},
		{200 * time.Second, []agent.Problem{docker}, nil, 0}, // told once
		{201 * time.Second, nil, nil, 0},
		{202 * time.Second, []agent.Problem{docker}, nil, 232 * time.Second}, // another one
	}
	w := worries{}
	for _, step := range steps {
		got, again := w.step(step.problems, noon.Add(step.after))
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("at %s (-want +got):\n%s", step.after, diff)
		}
		want := time.Time{}
		if step.again != 0 {
			want = noon.Add(step.again)
		}
		if !again.Equal(want) {
			t.Errorf("at %s: asks again at %s, want %s", step.after, again, want)
		}
	}
}

func TestSigningOutIsNoWorry(t *testing.T) {
	out := with(online(), func(s *agent.Status) { s.Account = account.Info{CanSignIn: true} })
	w := worries{}
	w.step(concerns(out), noon)
	if got, _ := w.step(concerns(out), noon.Add(blip)); len(got) != 1 {
		t.Errorf("a host that was never signed in: got %v, want one note", got)
	}
	w = worries{}
	w.spare(notSignedIn, noon)
	w.step(concerns(out), noon)
	if got, _ := w.step(concerns(out), noon.Add(blip)); got != nil {
		t.Errorf("a host that was signed out: got %v, want none", got)
	}
}
