package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.Local)

// rented is a host with everything a host can have.
func rented() agent.Status {
	gpu := func(i int) hardware.GPU {
		return hardware.GPU{Index: i, UUID: "GPU-1", Model: "NVIDIA GeForce RTX 4090", VRAMTotalMB: new(int64(24564))}
	}
	return agent.Status{
		Agent:     protocol.Agent{Version: "1.4.0", OS: "linux", Arch: "amd64", StartedAt: noon.Add(-125 * time.Minute)},
		PID:       4711,
		NodeID:    "n-1",
		KeySource: "credential /run/credentials/agent/host-api-key",
		Node:      agent.Wish{State: protocol.Paused, Reason: "user", Until: noon.Add(time.Hour)},
		Why:       "paused by its owner",
		Backend:   agent.LinkHealth{URL: "wss://market.example.com/agent", Connected: true, Registered: true, Since: noon.Add(-time.Hour)},
		Engine:    rental.EngineInfo{Available: true, Version: "28.5.2", APIVersion: "1.51", StorageDriver: "overlay2", GPUReady: true, Shield: rental.ShieldInfo{State: rental.ShieldOn, How: "direct", Blocked: 12}},
		Relay:     rental.RelayInfo{Address: "relay.example.com:7000", Connected: true, Routes: 2},
		Hardware:  &hardware.Survey{GPUs: []hardware.GPU{gpu(0), gpu(1)}, System: hardware.System{CPUModel: new("AMD Ryzen 9"), CPUCores: new(16), CPUThreads: new(32), RAMTotalMB: new(int64(64 << 10)), DiskTotalGB: new(int64(900)), DiskAvailableGB: new(int64(400)), OS: "linux", OSVersion: new("Debian 12")}},
		Network:   &hardware.Network{DownloadMbps: new(940.12), UploadMbps: new(480.0), LatencyMS: new(8.0), Server: "speed.example.com", MeasuredAt: noon.AddDate(0, 0, -2)},
		Sample:    hardware.Sample{CPUUtilization: new(12.4), RAMUsageMB: new(int64(9120)), DiskUsageGB: new(int64(211)), GPUTempC: []*float64{new(61.0), nil}, GPUUtilization: []*float64{new(97.0), new(0.0)}, GPUMemoryUsedMB: []*int64{new(int64(20110)), new(int64(0))}},
		Offer:     protocol.Offer{GPUIndices: []int{0, 1}, CPUCores: 14, RAMMB: 28 << 10, DiskGB: 400, MinPricePerGPUHour: "0.35", Currency: "USD"},
		Proposal:  &protocol.Offer{CPUCores: 14},
		Account:   account.Info{SignedIn: true, Owner: "ada@example.com"},
		Earnings:  &protocol.Earnings{Currency: "USD", RatePerHour: "0.42", Today: "4.18", Month: "91.02", Total: "1024.00", Unpaid: "12.00", NextPayoutAt: new(noon.AddDate(0, 0, 8))},
		Notices:   []agent.Notice{{At: noon.Add(-time.Hour), Notice: protocol.Notice{Title: "Maintenance", Body: "The relay restarts at 14:00."}}},
		Rentals: []rental.Status{
			{
				ID: "r-1", State: rental.Running, StartedAt: noon.Add(-90 * time.Second),
				Spec:      rental.Spec{Image: "docker.io/pytorch/pytorch:2.9", GPUs: []rental.GPU{{Index: 0}}},
				Addresses: []rental.Address{{Port: rental.Port{Container: 22, Protocol: rental.TCP}, Public: "relay.example.com:10022"}, {Port: rental.Port{Container: 8888, Protocol: rental.TCP}, Public: "relay.example.com:10888"}},
			},
			{ID: "r-22", State: rental.Pulling, Spec: rental.Spec{Image: "docker.io/library/ubuntu:24.04"}, Progress: &rental.Progress{Phase: "pulling", Current: 300 << 20, Total: 1 << 30}},
			{ID: "r-3", State: rental.Failed, Spec: rental.Spec{Image: "docker.io/no/such:1\t\x1b[31m"}, Failure: rental.Failf(rental.CodeImageNotFound, "There is no such image.")},
		},
		Problems: []agent.Problem{{Code: "driver_too_old", Message: "The NVIDIA driver is too old.", Fix: "Install version 560 or newer."}, {Code: "x", Message: "Something nobody can mend, \x1b[2J."}},
	}
}

func TestStatusAsPeopleSeeIt(t *testing.T) {
	for name, status := range map[string]agent.Status{
		"rented": rented(),
		"no gpu": {
			Agent: protocol.Agent{Version: "1.4.0", OS: "linux", Arch: "amd64", StartedAt: noon},
			Hardware: &hardware.Survey{
				System: hardware.System{CPUModel: new("AMD EPYC"), CPUCores: new(1), CPUThreads: new(1), OS: "linux"},
				Gaps:   []hardware.Gap{{Code: "no_gpu", Message: "No NVIDIA GPU was found.", Fix: "Install its driver."}, {Code: "no_cpu_sensor", Message: "No sensor."}},
			},
			Sample: hardware.Sample{CPUUtilization: new(18.0)},
			Offer:  protocol.Offer{CPUCores: 1, RAMMB: 2 << 10, DiskGB: 20, MinPricePerGPUHour: "0", Currency: "USD"},
		},
		"new": {Agent: protocol.Agent{Version: "1.4.0", OS: "windows", Arch: "amd64", StartedAt: noon}, PID: 1, Backend: agent.LinkHealth{URL: "wss://m", NextTry: noon.Add(9 * time.Second)}},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := writeStatus(&b, status, noon); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "status-"+strings.ReplaceAll(name, " ", "-")+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestProgressBar(t *testing.T) {
	tests := []struct {
		current, total int64
		want           string
	}{
		{0, 0, "0 B"},
		{5 << 20, 0, "5.0 MiB"},
		{0, 1 << 30, "[..........]   0 % of 1.0 GiB"},
		{450 << 20, 1 << 30, "[####......]  44 % of 1.0 GiB"},
		{1 << 30, 1 << 30, "[##########] 100 % of 1.0 GiB"},
		{2 << 30, 1 << 30, "[##########] 100 % of 1.0 GiB"},
		{-1, 100, "[..........]   0 % of 100 B"},
	}
	for _, tt := range tests {
		if got := progressBar(rental.Progress{Current: tt.current, Total: tt.total}, 10); got != tt.want {
			t.Errorf("%d of %d: got %q, want %q", tt.current, tt.total, got, tt.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 59900 * time.Millisecond: "59 s", time.Minute: "1 min 0 s", 3*time.Hour + 5*time.Minute: "3 h 5 min", 49 * time.Hour: "2 d 1 h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestMoments(t *testing.T) {
	tests := []struct {
		text string
		want time.Time // zero: refused
	}{
		{"90m", noon.Add(90 * time.Minute)},
		{"18:30", noon.Add(6*time.Hour + 30*time.Minute)},
		{"11:00", noon.Add(23 * time.Hour)},
		{noon.Add(time.Hour).Format(time.RFC3339), noon.Add(time.Hour)},
		{noon.Add(-time.Hour).Format(time.RFC3339), time.Time{}},
		{"-5m", time.Time{}},
		{"24:61", time.Time{}},
		{"tomorrow", time.Time{}},
		{"", time.Time{}},
	}
	for _, tt := range tests {
		got, err := parseMoment(tt.text, noon)
		if !got.Equal(tt.want) || (err == nil) == tt.want.IsZero() {
			t.Errorf("%q: got %v, %v; want %v", tt.text, got, err, tt.want)
		}
	}
}
