package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// aHost offers 7 CPUs, 29491 MiB, 400 GiB and two GPUs, of which rental r-0 has 2 CPUs, 8 GiB,
// 100 GiB, GPU 0 and public ports 10022/tcp and 10053/udp; r-old has ended and has nothing any more.
func aHost() *Status {
	survey := testSurvey()
	taken := rental.Spec{
		ID: "r-0", GPUs: []rental.GPU{{Index: 0, UUID: "GPU-aaaa"}}, MemoryBytes: 8 << 30, CPUs: 2, DiskBytes: 100 << 30,
		Ports: []rental.Port{{Container: 22, Protocol: rental.TCP, Public: 10022}, {Container: 53, Protocol: rental.UDP, Public: 10053}},
	}
	ended := rental.Spec{
		ID: "r-old", GPUs: []rental.GPU{{Index: 1, UUID: "GPU-bbbb"}}, MemoryBytes: 16 << 30, CPUs: 5, DiskBytes: 300 << 30,
		Ports: []rental.Port{{Container: 22, Protocol: rental.TCP, Public: 10023}},
	}
	own := OfferLimits{MinPricePerGPUHour: "0", Currency: "USD"}
	return &Status{
		Node:     Wish{State: protocol.Online},
		Engine:   rental.EngineInfo{Available: true, GPUReady: true},
		Hardware: &survey,
		Offer:    offerOf(&survey, rental.EngineInfo{}, own),
		Rentals:  []rental.Status{{ID: "r-0", State: rental.Running, Spec: taken}, {ID: "r-old", State: rental.Stopped, Spec: ended}},
	}
}

func TestJudge(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	type change func(h *Status, l *Limits, o *protocol.StartInstance)
	host := func(f func(h *Status)) change { return func(h *Status, _ *Limits, _ *protocol.StartInstance) { f(h) } }
	ask := func(f func(o *protocol.StartInstance)) change {
		return func(_ *Status, _ *Limits, o *protocol.StartInstance) { f(o) }
	}
	priced := func(least, offered string, gpus ...int) change {
		return func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Rentals = nil
			h.Offer.MinPricePerGPUHour = least
			o.PricePerHour, o.GPUIndices = offered, gpus
		}
	}
	ports := func(container uint16, proto string, public uint16) change {
		return ask(func(o *protocol.StartInstance) {
			o.PortMapping = protocol.PortMapping{{Port: container, Protocol: proto}: public}
		})
	}
	for name, tc := range map[string]struct {
		change change
		want   protocol.ErrorCode // "": taken on
		says   string
	}{
		"fits":                   {ask(func(*protocol.StartInstance) {}), "", ""},
		"leaving":                {host(func(h *Status) { h.Leaving = true }), protocol.NotAccepting, "shutting down"},
		"paused":                 {host(func(h *Status) { h.Node = Wish{State: protocol.Paused, Reason: "user"} }), protocol.NotAccepting, "paused by its owner"},
		"draining":               {host(func(h *Status) { h.Node = Wish{State: protocol.Draining, Reason: "user"} }), protocol.NotAccepting, "draining by its owner"},
		"drained by the backend": {host(func(h *Status) { h.Node = Wish{State: protocol.Paused, Reason: "backend"} }), protocol.NotAccepting, "resume_node"},
		"no survey yet":          {host(func(h *Status) { h.Hardware = nil }), protocol.NotAccepting, "looking at its hardware"},
		"no Docker":              {host(func(h *Status) { h.Engine.Available = false }), protocol.DockerUnavailable, "Docker"},
		"expired":                {ask(func(o *protocol.StartInstance) { o.ExpiresAt = now.Add(-time.Second) }), protocol.Expired, "in the past"},
		"expires now":            {ask(func(o *protocol.StartInstance) { o.ExpiresAt = now }), protocol.Expired, "in the past"},
		"expires later":          {ask(func(o *protocol.StartInstance) { o.ExpiresAt = now.Add(time.Second) }), "", ""},
		"GPU free":               {ask(func(o *protocol.StartInstance) { o.GPUIndices = []int{1} }), "", ""},
		"GPU rented":             {ask(func(o *protocol.StartInstance) { o.GPUIndices = []int{0} }), protocol.GPUUnavailable, "GPU 0 is rented"},
		"one of two GPUs rented": {ask(func(o *protocol.StartInstance) { o.GPUIndices = []int{1, 0} }), protocol.GPUUnavailable, "GPU 0 is rented"},
		"GPU not there":          {ask(func(o *protocol.StartInstance) { o.GPUIndices = []int{2} }), protocol.GPUUnavailable, "no usable GPU 2"},
		"GPU not offered": {func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Offer.GPUIndices = []int{0}
			o.GPUIndices = []int{1}
		}, protocol.GPUUnavailable, "GPU 1 is not offered"},
		"GPU without the toolkit": {func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Engine.GPUReady = false
			o.GPUIndices = []int{1}
		}, protocol.GPUUnavailable, "Container Toolkit"},
		"no GPU, no toolkit": {host(func(h *Status) { h.Engine.GPUReady = false }), "", ""},
		"GPU under a new index": {func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Hardware.GPUs[1].UUID = "GPU-aaaa"
			o.GPUIndices = []int{1}
		}, protocol.GPUUnavailable, "rented already"},
		"GPU of a rental that ends": {func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Rentals[0].State = rental.Stopping
			o.GPUIndices = []int{0}
		}, protocol.GPUUnavailable, "rented already"},
		"instance of a rented GPU": {func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Hardware.GPUs[1].UUID, h.Hardware.GPUs[1].Parent = "MIG-1", "GPU-aaaa"
			o.GPUIndices = []int{1}
		}, protocol.GPUUnavailable, "rented already"},
		"GPU with a rented instance": {func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Rentals[0].Spec.GPUs = []rental.GPU{{Index: 8, UUID: "MIG-1", Parent: "GPU-bbbb"}}
			o.GPUIndices = []int{1}
		}, protocol.GPUUnavailable, "rented already"},
		"instance beside a rented one": {func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Rentals[0].Spec.GPUs = []rental.GPU{{Index: 8, UUID: "MIG-1", Parent: "GPU-aaaa"}}
			h.Hardware.GPUs[1].UUID, h.Hardware.GPUs[1].Parent = "MIG-2", "GPU-aaaa"
			o.GPUIndices = []int{1}
		}, "", ""},
		"a GPU and an instance of it": {func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Rentals = nil
			h.Hardware.GPUs[1].UUID, h.Hardware.GPUs[1].Parent = "MIG-1", "GPU-aaaa"
			o.GPUIndices = []int{0, 1}
		}, protocol.GPUUnavailable, "part of another one"},
		"AMD without the toolkit": {func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Engine.GPUReady = false
			h.Hardware.GPUs[1].Vendor, h.Hardware.GPUs[1].Render = "amd", "renderD128"
			o.GPUIndices = []int{1}
		}, "", ""},
		"all CPUs that are left":  {ask(func(o *protocol.StartInstance) { o.CPUCores = 5 }), "", ""},
		"more CPUs than are left": {ask(func(o *protocol.StartInstance) { o.CPUCores = 5.5 }), protocol.InsufficientResources, "cpu_cores: asked 5.5, free 5"},
		"CPUs over rented":        {func(h *Status, _ *Limits, o *protocol.StartInstance) { h.Offer.CPUCores = 1 }, protocol.InsufficientResources, "cpu_cores: asked 1, free 0"},
		"CPU shares add up": {func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Offer.CPUCores = 2.3
			h.Rentals[0].Spec.CPUs = 2.2
			o.CPUCores = 0.1
		}, "", ""},
		"all RAM that is left":      {ask(func(o *protocol.StartInstance) { o.RAMLimit = (29492 - 8192) << 20 }), "", ""},
		"more RAM than is left":     {ask(func(o *protocol.StartInstance) { o.RAMLimit = (29492-8192)<<20 + 1 }), protocol.InsufficientResources, "ram_limit: asked 21301 MiB, free 21300 MiB"},
		"all disk that is left":     {ask(func(o *protocol.StartInstance) { o.DiskLimit = 300 << 30 }), "", ""},
		"more disk than is left":    {ask(func(o *protocol.StartInstance) { o.DiskLimit = 301 << 30 }), protocol.InsufficientResources, "disk_limit: asked 308224 MiB, free 307200 MiB"},
		"no disk asked, none left":  {host(func(h *Status) { h.Offer.DiskGB = 100 }), protocol.InsufficientResources, "disk: asked no certain size, free 0 MiB"},
		"no disk asked, none there": {host(func(h *Status) { h.Offer.DiskGB = 0 }), protocol.InsufficientResources, "disk"},
		"no disk asked, a bit left": {host(func(h *Status) { h.Offer.DiskGB = 101 }), "", ""},
		"disk of a rental that named none": {func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Rentals[0].Spec.DiskBytes = 0
			o.DiskLimit = 391 << 30
		}, protocol.InsufficientResources, "disk_limit: asked 400384 MiB, free 399360 MiB"},
		"disk low": {host(func(h *Status) { h.Engine.DiskLow, h.Engine.DiskReserveBytes = true, 20<<30 }), protocol.InsufficientResources, "disk: this host has less free space than the 20480 MiB it keeps for itself"},
		"no disk asked, none measured": {host(func(h *Status) {
			h.Offer.DiskGB, h.Hardware.System.DiskAvailableGB = 0, nil
		}), "", ""},
		"disk asked, none measured": {func(h *Status, _ *Limits, o *protocol.StartInstance) {
			h.Offer.DiskGB, h.Hardware.System.DiskAvailableGB = 0, nil
			o.DiskLimit = 1 << 30
		}, protocol.InsufficientResources, "disk_limit"},
		"shm inside RAM":            {ask(func(o *protocol.StartInstance) { o.ShmSize = 1 << 30 }), "", ""},
		"shm more than RAM":         {ask(func(o *protocol.StartInstance) { o.ShmSize = 1<<30 + 1 }), protocol.InvalidRequest, "shm_size"},
		"shm over the limit":        {func(_ *Status, l *Limits, o *protocol.StartInstance) { l.ShmBytes = 64 << 20; o.ShmSize = 1 << 30 }, protocol.InsufficientResources, "shm_size: asked 1024 MiB, this host allows 64 MiB"},
		"public port taken":         {ports(80, "tcp", 10022), protocol.PortUnavailable, "10022/tcp"},
		"public port taken, udp":    {ports(80, "udp", 10053), protocol.PortUnavailable, "10053/udp"},
		"same number, other kind":   {ports(80, "udp", 10022), "", ""},
		"same container port":       {ports(22, "tcp", 10099), "", ""},
		"port of an ended rental":   {ports(22, "tcp", 10023), "", ""},
		"as many rentals as go":     {func(_ *Status, l *Limits, _ *protocol.StartInstance) { l.Rentals = 1 }, protocol.InsufficientResources, "rentals"},
		"one more rental goes":      {func(_ *Status, l *Limits, _ *protocol.StartInstance) { l.Rentals = 2 }, "", ""},
		"price at the minimum":      {priced("0.35", "0.70", 0, 1), "", ""},
		"price below the minimum":   {priced("0.35", "0.69999", 0, 1), protocol.NotAccepting, "below this host's minimum of 0.35 USD"},
		"price exact beyond floats": {priced("0.1", "0.2", 0, 1), "", ""},
		"no price, a minimum":       {priced("0.35", "", 0), protocol.NotAccepting, "price_per_hour is missing"},
		"no price, no minimum":      {priced("0", "", 0), "", ""},
		"no GPU, no price":          {priced("0.35", ""), "", ""},
		"malformed":                 {ask(func(o *protocol.StartInstance) { o.RentalID = "../r" }), protocol.InvalidRequest, "rental_id"},
	} {
		t.Run(name, func(t *testing.T) {
			h, limits := aHost(), Limits{Rentals: 8, Pids: 4096, Ports: 32}
			o := order("r-1")
			o.PortMapping = nil
			tc.change(h, &limits, o)
			spec, refusal := judge(h, limits, o, nil, now)
			switch {
			case tc.want == "" && refusal != nil:
				t.Fatalf("refused: %s: %s", refusal.Code, refusal.Message)
			case tc.want == "" && spec.ID != "r-1":
				t.Errorf("got spec %+v", spec)
			case tc.want != "" && (refusal == nil || refusal.Code != tc.want || !strings.Contains(refusal.Message, tc.says)):
				t.Errorf("got %+v, want %s with %q", refusal, tc.want, tc.says)
			}
		})
	}
}

// An order that is known is neither measured again nor refused for what came since.
func TestJudgeKnown(t *testing.T) {
	h, limits := aHost(), Limits{Rentals: 1, Pids: 100, Ports: 32}
	h.Node = Wish{State: protocol.Paused, Reason: "user"}
	h.Hardware = nil
	known := h.Rentals[0]
	known.Spec.PidsLimit = 4096
	o := order("r-0")
	o.GPUIndices, o.RAMLimit = []int{0}, 1<<50
	o.ExpiresAt = time.Unix(0, 0)
	spec, refusal := judge(h, limits, o, &known, time.Now())
	if refusal != nil || spec.GPUs[0].UUID != "GPU-aaaa" || spec.PidsLimit != 4096 {
		t.Errorf("got %+v, %+v", spec, refusal)
	}
	if _, refusal := judge(h, limits, with(o, func(o *protocol.StartInstance) { o.Image = "::" }), &known, time.Now()); refusal == nil {
		t.Error("a malformed order was let through because its rental is known")
	}
}

func TestAccepting(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(h *Status)
		want   string
	}{
		"room":     {func(h *Status) {}, ""},
		"all GPUs": {func(h *Status) { h.Rentals[0].Spec.GPUs = []rental.GPU{{Index: 0}, {Index: 1}} }, "all offered GPUs are rented"},
		"the whole of what is rented in parts": {func(h *Status) {
			h.Rentals[0].Spec.GPUs = []rental.GPU{{Index: 8, UUID: "MIG-1", Parent: "GPU-aaaa"}, {Index: 15, UUID: "MIG-2", Parent: "GPU-bbbb"}}
		}, "all offered GPUs are rented"},
		"all CPUs":        {func(h *Status) { h.Rentals[0].Spec.CPUs = 7 }, "all offered CPUs are rented"},
		"all RAM":         {func(h *Status) { h.Rentals[0].Spec.MemoryBytes = 64 << 30 }, "all offered RAM is rented"},
		"all disk":        {func(h *Status) { h.Rentals[0].Spec.DiskBytes = 400 << 30 }, "no disk space is left to rent out"},
		"disk in a VM":    {func(h *Status) { h.Offer.DiskGB, h.Hardware.System.DiskAvailableGB = 0, nil }, ""},
		"no GPUs offered": {func(h *Status) { h.Offer.GPUIndices = nil }, ""},
	} {
		h := aHost()
		tc.change(h)
		if got := exhausted(h); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}
