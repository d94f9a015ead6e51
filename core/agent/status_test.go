package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// The keys of a status are read by scripts: none may vanish or change its form.
func TestStatusJSON(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		m.survey = func(context.Context, string) hardware.Survey {
			return hardware.Survey{GPUs: []hardware.GPU{}, Gaps: []hardware.Gap{}}
		}
		s := m.boot()
		text, err := json.Marshal(s.Status())
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"rentals", "notices", "problems"} {
			if _, isList := got[key].([]any); !isList {
				t.Errorf("%s is %v, want a list though it is empty", key, got[key])
			}
		}
		want := []string{
			"accepting", "account", "agent", "at", "backend", "docker", "earnings", "ended", "hardware", "leaving", "metrics", "network", "node",
			"not_accepting_because", "notices", "offer", "pid", "problems", "relay", "rentals", "unheard_because",
		}
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" {
			t.Errorf("keys (-want +got):\n%s", diff)
		}
		s.leave()
	})
}

func TestProblems(t *testing.T) {
	survey := testSurvey()
	survey.Gaps = []hardware.Gap{{Code: "no_cpu_sensor"}, {Code: "driver_hangs", Message: "It hangs.", Fix: "Restart."}}
	calm := Status{
		Backend: LinkHealth{Connected: true}, Engine: rental.EngineInfo{Available: true, GPUReady: true},
		Relay: rental.RelayInfo{Connected: true}, Hardware: new(testSurvey()),
	}
	for name, tc := range map[string]struct {
		change func(s *Status)
		want   string // code
		says   string
	}{
		"calm":           {func(*Status) {}, "", ""},
		"starting":       {func(s *Status) { *s = Status{} }, "", ""},
		"backend down":   {func(s *Status) { s.Backend = LinkHealth{Problem: "The backend does not answer."} }, "backend_unreachable", "The backend does not answer."},
		"key refused":    {func(s *Status) { s.Backend = LinkHealth{NeedsSignIn: true} }, "sign_in_needed", "The backend no longer accepts this host's key."},
		"suspended":      {func(s *Status) { s.Backend = LinkHealth{Refused: protocol.HostSuspended, Problem: "Suspended."} }, "host_suspended", "Suspended."},
		"too old":        {func(s *Status) { s.Backend = LinkHealth{Refused: protocol.UpgradeRequired, Problem: "Too old."} }, "upgrade_required", "Too old."},
		"clock wrong":    {func(s *Status) { s.Backend = LinkHealth{Refused: protocol.ClockSkew, Problem: "Wrong."} }, "clock_skew", "Wrong."},
		"bad registered": {func(s *Status) { s.Backend = LinkHealth{Connected: true, Problem: "The answer is of no use."} }, "registration_unusable", "The answer is of no use."},
		"key used twice": {func(s *Status) { s.Backend = LinkHealth{Replaced: true, Problem: "Another agent has signed on."} }, "key_used_twice", "Another agent has signed on."},
		"disk full":      {func(s *Status) { s.Unwritable = "no space left" }, "state_not_kept", "The agent's state directory is full or cannot be written: no space left."},
		"no Docker":      {func(s *Status) { s.Engine = rental.EngineInfo{Problem: "Docker is not running."} }, "docker_unavailable", "Docker is not running."},
		"relay down":     {func(s *Status) { s.Relay = rental.RelayInfo{Problem: "The relay does not answer."} }, "relay_unreachable", "The relay does not answer."},
		"relay down, rented": {func(s *Status) {
			s.Relay = rental.RelayInfo{Problem: "The relay does not answer."}
			s.Rentals = []rental.Status{{ID: "r-1", State: rental.Running, Trouble: "Not reached.", Unreachable: true}}
		}, "relay_unreachable", "The relay does not answer."},
		"no toolkit":         {func(s *Status) { s.Engine.GPUReady = false }, "gpu_not_ready", "Docker cannot hand out this machine's GPUs."},
		"no toolkit, no GPU": {func(s *Status) { s.Engine.GPUReady = false; s.Hardware = &hardware.Survey{} }, "", ""},
		"driver hangs":       {func(s *Status) { s.Hardware = &survey }, "driver_hangs", "It hangs."},
		"disk low": {func(s *Status) {
			s.Engine.DiskLow, s.Engine.DiskReserveBytes = true, 20<<30
		}, "disk_low", "The disk with Docker's data has less free space than the 20480 MiB that this host keeps for itself."},
		"disk unknown": {func(s *Status) {
			s.Hardware = &hardware.Survey{Gaps: []hardware.Gap{{Code: "disk_unknown", Message: "It is in a virtual machine."}}}
		}, "disk_unknown", "It is in a virtual machine."},
		"disk unknown, named": {func(s *Status) {
			s.Hardware = &hardware.Survey{Gaps: []hardware.Gap{{Code: "disk_unknown"}}}
			s.Offer.DiskGB = 100
		}, "", ""},
		"trouble": {func(s *Status) {
			s.Rentals = []rental.Status{{ID: "r-1", State: rental.Running, Trouble: "port 10022 is taken."}, {ID: "r-0", State: rental.Failed, Trouble: "old"}}
		}, "rental_trouble", "Rental r-1: port 10022 is taken."},
	} {
		t.Run(name, func(t *testing.T) {
			s := calm
			tc.change(&s)
			got := problems(&s)
			if tc.want == "" {
				if len(got) != 0 {
					t.Errorf("got %+v, want none", got)
				}
				return
			}
			if len(got) != 1 || got[0].Code != tc.want || got[0].Message != tc.says {
				t.Errorf("got %+v, want %s: %s", got, tc.want, tc.says)
			}
		})
	}
}

// What the owner reads is never in words that only a backend can act on, and promises no rental that
// cannot come.
func TestWhyNoRentals(t *testing.T) {
	connected := LinkHealth{Connected: true}
	open := Status{
		Node: Wish{State: protocol.Online}, Backend: connected, Hardware: new(testSurvey()), Engine: rental.EngineInfo{Available: true},
		Offer: protocol.Offer{CPUCores: 1, RAMMB: 1024, DiskGB: 10},
	}
	for name, tc := range map[string]struct {
		change       func(s *Status)
		why, unheard string
	}{
		"open":              {func(*Status) {}, "", ""},
		"drained":           {func(s *Status) { s.Node = Wish{State: protocol.Paused, Reason: byBackend} }, "the backend has taken this node out of service, and takes it back itself", ""},
		"drained, quitting": {func(s *Status) { s.Node = Wish{State: protocol.Paused, Reason: byBackend}; s.Leaving = true }, "the agent on this host is shutting down", ""},
		"paused":            {func(s *Status) { s.Node = Wish{State: protocol.Paused, Reason: byUser} }, "this node is paused by its owner", ""},
		"no connection":     {func(s *Status) { s.Backend = LinkHealth{} }, "", "the backend is not connected"},
		"key refused":       {func(s *Status) { s.Backend = LinkHealth{NeedsSignIn: true, Refused: protocol.KeyRevoked} }, "", "the backend does not take this host's key"},
		"no key":            {func(s *Status) { s.Backend = LinkHealth{NeedsSignIn: true} }, "", "this host is not signed in"},
		"key used twice":    {func(s *Status) { s.Backend = LinkHealth{Replaced: true} }, "", "another agent serves this node with the same key"},
		"all rented":        {func(s *Status) { s.Offer.CPUCores = 0 }, "all offered CPUs are rented", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := open
			tc.change(&s)
			if why, silent := notAccepting(&s), unheard(s.Backend); why != tc.why || silent != tc.unheard {
				t.Errorf("got %q and %q, want %q and %q", why, silent, tc.why, tc.unheard)
			}
		})
	}
}

func TestOffer(t *testing.T) {
	size := func(threads int, ram, disk, available int64) *hardware.Survey {
		return &hardware.Survey{System: hardware.System{CPUThreads: &threads, RAMTotalMB: &ram, DiskTotalGB: &disk, DiskAvailableGB: &available}}
	}
	for name, tc := range map[string]struct {
		survey *hardware.Survey
		own    OfferLimits
		want   protocol.Offer
	}{
		"nothing known":   {nil, OfferLimits{}, protocol.Offer{GPUIndices: []int{}}},
		"nothing told":    {&hardware.Survey{}, OfferLimits{CPUs: 4, RAMMB: 1}, protocol.Offer{GPUIndices: []int{}}},
		"disk by word":    {&hardware.Survey{}, OfferLimits{DiskGB: 50}, protocol.Offer{GPUIndices: []int{}, DiskGB: 50}},
		"two GPUs":        {new(testSurvey()), OfferLimits{}, protocol.Offer{GPUIndices: []int{0, 1}, CPUCores: 7, RAMMB: 29492, DiskGB: 400}},
		"one GPU of two":  {new(testSurvey()), OfferLimits{GPUs: []int{1, 5}}, protocol.Offer{GPUIndices: []int{1}, CPUCores: 7, RAMMB: 29492, DiskGB: 400}},
		"no GPU":          {new(testSurvey()), OfferLimits{GPUs: []int{}}, protocol.Offer{GPUIndices: []int{}, CPUCores: 7, RAMMB: 29492, DiskGB: 400}},
		"owner's figures": {new(testSurvey()), OfferLimits{CPUs: 7.5, RAMMB: 1000, DiskGB: 10}, protocol.Offer{GPUIndices: []int{0, 1}, CPUCores: 7.5, RAMMB: 1000, DiskGB: 10}},
		"more than is":    {new(testSurvey()), OfferLimits{CPUs: 64, RAMMB: 1 << 30, DiskGB: 9999}, protocol.Offer{GPUIndices: []int{0, 1}, CPUCores: 8, RAMMB: 32768, DiskGB: 400}},
		"small reserve":   {new(testSurvey()), OfferLimits{DiskGB: 9999, DiskReserveBytes: 1 << 30}, protocol.Offer{GPUIndices: []int{0, 1}, CPUCores: 7, RAMMB: 29492, DiskGB: 499}},
		"small machine":   {size(2, 4096, 40, 30), OfferLimits{}, protocol.Offer{GPUIndices: []int{}, CPUCores: 1, RAMMB: 2048, DiskGB: 10}},
		"tiny machine":    {size(1, 1024, 10, 5), OfferLimits{}, protocol.Offer{GPUIndices: []int{}, CPUCores: 0.5, RAMMB: 512}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, offerOf(tc.survey, rental.EngineInfo{}, tc.own)); diff != "" {
				t.Errorf("offer (-want +got):\n%s", diff)
			}
		})
	}
}

// What an engine in a virtual machine does not have, the machine around it cannot rent out.
func TestOfferOfVirtualMachine(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		m.engine.info.CPUs, m.engine.info.MemoryBytes = 4, 8<<30-1
		s := m.boot()
		offered := func(cpus float64, ram int64) {
			t.Helper()
			r, _ := s.link.lastRegister()
			if o := s.Status().Offer; o.CPUCores != cpus || o.RAMMB != ram {
				t.Errorf("offered are %g CPUs and %d MiB, want %g and %d", o.CPUCores, o.RAMMB, cpus, ram)
			}
			if last, _ := s.link.lastNode(); r.Offer.CPUCores != cpus && last.Offer.CPUCores != cpus {
				t.Errorf("the backend was told of %g CPUs, then %g", r.Offer.CPUCores, last.Offer.CPUCores)
			}
		}
		offered(3, 8191-2048)
		m.engine.become(func(i *rental.EngineInfo) { i.CPUs, i.MemoryBytes = 16, 64<<30 }) // never more than the machine
		offered(7, 29492)
		m.engine.become(func(i *rental.EngineInfo) { i.CPUs = 2 })
		offered(1, 29492)
		m.engine.become(func(i *rental.EngineInfo) { *i = rental.EngineInfo{Problem: "Docker is not running."} })
		offered(1, 29492)
		s.leave()
		m.opts.Offer = OfferLimits{CPUs: 6, RAMMB: 16384}
		m.engine.info = rental.EngineInfo{Available: true, CPUs: 4, MemoryBytes: 8 << 30}
		s = m.boot()
		offered(4, 8192)
		s.leave()
	})
}

func TestProposal(t *testing.T) {
	own := protocol.Offer{GPUIndices: []int{0, 2}, CPUCores: 8, RAMMB: 1000, DiskGB: 100, MinPricePerGPUHour: "0.30", Currency: "USD"}
	for name, tc := range map[string]struct {
		wanted *protocol.Offer
		want   func(o *protocol.Offer)
	}{
		"none":           {nil, func(*protocol.Offer) {}},
		"empty":          {&protocol.Offer{}, func(*protocol.Offer) {}},
		"less":           {&protocol.Offer{GPUIndices: []int{2, 7}, CPUCores: 2, RAMMB: 10, DiskGB: 1}, func(o *protocol.Offer) { o.GPUIndices, o.CPUCores, o.RAMMB, o.DiskGB = []int{2}, 2, 10, 1 }},
		"no GPU":         {&protocol.Offer{GPUIndices: []int{}}, func(o *protocol.Offer) { o.GPUIndices = []int{} }},
		"more":           {&protocol.Offer{GPUIndices: []int{0, 1, 2, 3}, CPUCores: 80, RAMMB: 9999, DiskGB: 9999}, func(*protocol.Offer) {}},
		"negative":       {&protocol.Offer{CPUCores: -1, RAMMB: -1, DiskGB: -1}, func(*protocol.Offer) {}},
		"dearer":         {&protocol.Offer{MinPricePerGPUHour: "0.4", Currency: "USD"}, func(o *protocol.Offer) { o.MinPricePerGPUHour = "0.4" }},
		"cheaper":        {&protocol.Offer{MinPricePerGPUHour: "0.1", Currency: "USD"}, func(*protocol.Offer) {}},
		"other currency": {&protocol.Offer{MinPricePerGPUHour: "90", Currency: "JPY"}, func(*protocol.Offer) {}},
		"no price":       {&protocol.Offer{MinPricePerGPUHour: "a lot", Currency: "USD"}, func(*protocol.Offer) {}},
	} {
		t.Run(name, func(t *testing.T) {
			want := own
			tc.want(&want)
			if diff := cmp.Diff(want, propose(own, tc.wanted)); diff != "" {
				t.Errorf("offer (-want +got):\n%s", diff)
			}
		})
	}
}

// What goes to the backend shows empty lists as lists, and no path of this host.
func TestRegistrationJSON(t *testing.T) {
	status := Status{Node: Wish{State: protocol.Online}, Hardware: &hardware.Survey{System: hardware.System{DiskPath: "/home/me/docker", OS: "linux"}}}
	status.Rentals = []rental.Status{{ID: "r-1", Sequence: 3, State: rental.Running, Trouble: "local", At: time.Unix(0, 0).UTC()}}
	text, err := json.Marshal(registration(&status))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"protocol":1,"node_id":null,"agent":{"version":"","os":"","arch":"","commit":"","started_at":"0001-01-01T00:00:00Z"},` +
		`"status":"online","accepting":false,"features":["tunnel.frp","logs"],"hardware":{"gpus":[],"driver_version":null,"cuda_version":null,` +
		`"system":{"cpu_model":null,"cpu_cores":null,"cpu_threads":null,"ram_total_mb":null,"ram_available_mb":null,"disk_total_gb":null,"disk_available_gb":null,"os":"linux","os_version":null,"kernel":null,"virtualized":null},` +
		`"docker":null,"warnings":[]},"network":null,"offer":{"gpu_indices":null,"cpu_cores":0,"ram_mb":0,"disk_gb":0,"min_price_per_gpu_hour":"","currency":""},` +
		`"instances":[{"rental_id":"r-1","sequence":3,"state":"running","container_id":"","image_digest":"","ports":[],"progress":null,"exit_code":null,"error":null,"at":"1970-01-01T00:00:00Z"}]}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("register (-want +got):\n%s", diff)
	}
}

// However many ends nobody has confirmed, a register fits its frame and names every rental that lives.
func TestRegistrationFitsAFrame(t *testing.T) {
	ended := rental.Status{
		State: rental.Failed, ContainerID: strings.Repeat("c", 64), ImageDigest: "sha256:" + strings.Repeat("d", 64),
		Failure: rental.Failf(rental.CodePullFailed, "Image %s could not be pulled.", strings.Repeat("i", 512)),
	}
	living := rental.Status{ID: "living", State: rental.Running}
	for i := range 32 {
		port := rental.Port{Container: uint16(i + 1), Protocol: rental.TCP, Public: uint16(10000 + i)}
		living.Addresses = append(living.Addresses, rental.Address{Port: port, Public: fmt.Sprintf("relay.of.a.marketplace.example.com:%d", port.Public)})
	}
	status := Status{Node: Wish{State: protocol.Online}}
	for range 24 {
		status.Rentals = append(status.Rentals, living)
	}
	for i := range 2000 {
		ended.ID = rental.ID(fmt.Sprintf("ended-%d", i))
		status.Rentals = append(status.Rentals, ended)
	}
	register := registration(&status)
	if _, err := protocol.Encode("id", register); err != nil {
		t.Error(err)
	}
	told := register.Instances
	if len(told) != 24+mostEnded || told[23].RentalID != "living" || told[len(told)-1].RentalID != "ended-1999" {
		t.Errorf("told of %d rentals, the last of them %s", len(told), told[len(told)-1].RentalID)
	}
	if len(status.Rentals) != 2024 || status.Rentals[24].ID != "ended-0" {
		t.Error("the picture itself was changed")
	}
}
