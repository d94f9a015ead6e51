package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/secret"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var moment = time.Date(2026, 11, 23, 10, 30, 0, 0, time.UTC)

var offer = Offer{GPUIndices: []int{0, 1}, CPUCores: 14, RAMMB: 28672, DiskGB: 400, MinPricePerGPUHour: "0.35", Currency: "USD"}

var network = Network{
	DownloadMbps: new(940.5), UploadMbps: new(480.25), LatencyMS: new(8.5), JitterMS: new(0.75),
	Server: "speed.example.com", MeasuredAt: moment,
}

var running = InstanceStatus{
	RentalID: "r-1", Sequence: 7, State: "running",
	ContainerID: "4f66ad9a0b2e", ImageDigest: "sha256:0011",
	Ports: []PublicPort{{ContainerPort: 22, Protocol: "tcp", PublicAddress: "relay.example.com:10022"}},
	At:    moment,
}

// examples are one full message of each kind; names are golden files.
func examples() map[string]struct {
	id   string
	from func([]byte) (Incoming, error)
	m    Message
} {
	type example = struct {
		id   string
		from func([]byte) (Incoming, error)
		m    Message
	}
	return map[string]example{
		"register": {"reg-1", DecodeFromAgent, &Register{
			Protocol: Version, NodeID: new("5f0c9d4e-7b57-4a53-a4e5-0d8f5a8f2c11"),
			Agent:  Agent{Version: "1.4.0", OS: "linux", Arch: "amd64", Commit: "abc1234", StartedAt: moment},
			Status: Online, Accepting: true, Features: []string{"tunnel.frp", "gpu.nvidia"},
			Hardware: Hardware{
				GPUs: []GPU{{
					Index: 0, UUID: "GPU-1", Vendor: "nvidia", Model: "NVIDIA GeForce RTX 4090",
					VRAMTotalMB: new(int64(24564)), VRAMAvailableMB: new(int64(23800)), PCIBusID: new("00000000:01:00.0"),
					PowerLimitW: new(450.0), ComputeCapability: new("8.9"), PCIeGeneration: new(4), PCIeWidth: new(16),
				}},
				DriverVersion: new("570.10"), CUDAVersion: new("12.8"),
				System: System{
					CPUModel: new("AMD Ryzen 9"), CPUCores: new(16), CPUThreads: new(32), RAMTotalMB: new(int64(64000)),
					RAMAvailableMB: new(int64(60000)), DiskTotalGB: new(int64(900)), DiskAvailableGB: new(int64(500)),
					OS: "linux", OSVersion: new("Debian 12"), Kernel: new("6.1.0"), Virtualized: new(false),
				},
				Docker: &Docker{Version: "28.5.2", APIVersion: "1.51", Runtimes: []string{"runc", "nvidia"}, StorageDriver: "overlay2", CDI: true},
				Warnings: []Warning{{
					Code: "driver_too_old", Message: "The NVIDIA driver is too old.", Fix: "Install driver 570 or newer.",
				}},
			},
			Network: &network, Offer: offer, Instances: []InstanceStatus{running},
		}},
		"register_bare": {"reg-2", DecodeFromAgent, &Register{Protocol: Version, Agent: Agent{Version: "dev"}, Status: Paused}},
		"heartbeat": {"", DecodeFromAgent, &Heartbeat{
			NodeID: new("node-1"), Status: Online, Accepting: true, Instances: 1, Metrics: Metrics{
				CPUTemp: new(54.0), GPUTemp: []*float64{new(61.0), nil}, GPUUtilization: []*float64{new(97.0), new(0.0)},
				RAMUsageMB: new(int64(9120)), DiskUsageGB: new(int64(211)), CPUUtilization: new(12.5),
				GPUMemoryUsedMB: []*int64{new(int64(20110)), new(int64(0))}, GPUPowerW: []*float64{new(388.1), new(22.0)},
				GPUFanPercent: []*float64{new(55.0), nil}, NetRxBytes: new(uint64(1 << 40)), NetTxBytes: new(uint64(7)),
			},
		}},
		"heartbeat_bare":  {"", DecodeFromAgent, &Heartbeat{Status: Draining}},
		"instance_status": {"", DecodeFromAgent, &running},
		"instance_status_pulling": {"", DecodeFromAgent, &InstanceStatus{
			RentalID: "r-1", Sequence: 2, State: "pulling", Progress: &Progress{Phase: "pulling", CurrentBytes: 10, TotalBytes: 100}, At: moment,
		}},
		"instance_status_failed": {"", DecodeFromAgent, &InstanceStatus{
			RentalID: "r-1", Sequence: 9, State: "failed", ExitCode: new(137), At: moment,
			Error: &Error{Code: ContainerFailed, Message: "The container ran out of memory."},
		}},
		"command_result": {"c-1", DecodeFromAgent, &CommandResult{OK: true, Result: json.RawMessage(`{"text":"a < b\n","truncated":false}`)}},
		"command_result_refused": {"c-2", DecodeFromAgent, &CommandResult{
			Error: &Error{Code: InsufficientResources, Message: "Memory: 64 GiB asked, 28 GiB free."},
		}},
		"node_status": {"", DecodeFromAgent, &NodeStatus{Status: Paused, Reason: "user", Until: new(moment), Offer: offer}},

		"registered": {"reg-1", Decode, &Registered{
			NodeID: "5f0c9d4e-7b57-4a53-a4e5-0d8f5a8f2c11", HeartbeatIntervalS: 5, ServerTime: moment,
			Relay: &Relay{
				Address: "relay.example.com:7000", Token: secret.New("relay-token"), TLS: true, ServerName: "relay.example.com",
				CAPEM: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
			},
			Earnings: &Earnings{Currency: "USD"},
		}},
		"registered_bare": {"reg-1", Decode, &Registered{NodeID: "n", HeartbeatIntervalS: 60}},
		"start_instance": {"c-1", Decode, &StartInstance{
			RentalID: "r-1", Image: "docker.io/pytorch/pytorch:2.9", Command: []string{"python", "-V"},
			EnvVars: map[string]string{"JUPYTER_TOKEN": "t0p <secret>"}, GPUIndices: []int{0}, RAMLimit: 16 << 30, CPUCores: 4,
			DiskLimit: 60 << 30, ShmSize: 8 << 30,
			PortMapping:  PortMapping{{22, "tcp"}: 10022, {8888, "tcp"}: 10888, {53, "udp"}: 10022},
			RegistryAuth: &RegistryAuth{Username: "u", Password: secret.New("registry-password")},
			ExpiresAt:    moment, PricePerHour: "0.42",
		}},
		"start_instance_bare": {"", Decode, &StartInstance{RentalID: "r-1", Image: "debian:12", RAMLimit: 512 << 20, CPUCores: 0.5}},
		"stop_instance":       {"c-3", Decode, &StopInstance{RentalID: "r-1", Graceful: new(false), GraceS: new(0)}},
		"drain_node":          {"c-4", Decode, &DrainNode{Reason: "maintenance", StopInstances: true, Deadline: moment}},
		"resume_node":         {"c-5", Decode, &ResumeNode{}},
		"get_logs":            {"c-6", Decode, &GetLogs{RentalID: "r-1", Tail: 100, Since: moment}},
		"run_speedtest":       {"c-7", Decode, &RunSpeedtest{}},
		"earnings": {"", Decode, &Earnings{
			Currency: "USD", RatePerHour: "0.42", Today: "4.18", Month: "88.10", Total: "1024.00", Unpaid: "-3.5",
			NextPayoutAt: new(moment), History: []DayAmount{{"2026-11-20", "4.18"}},
		}},
		"notice":            {"", Decode, &Notice{Title: "Payout sent", Body: "It arrives tomorrow.\nThank you.", URL: "https://example.com/payouts", Severity: "info"}},
		"set_offer_request": {"c-8", Decode, &SetOfferRequest{Offer: offer}},
		"status_received":   {"", Decode, &StatusReceived{RentalID: "r-1", Sequence: 9}},
	}
}

// TestGolden holds the wire form of every message still, both ways.
func TestGolden(t *testing.T) {
	for name, example := range examples() {
		t.Run(name, func(t *testing.T) {
			frame, err := Encode(example.id, example.m)
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, frame, "", "  "); err != nil {
				t.Fatal(err)
			}
			pretty.WriteByte('\n')
			golden := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(golden, pretty.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), pretty.String()); diff != "" {
				t.Errorf("encoded (-golden +got):\n%s", diff)
			}
			got, err := example.from(want)
			if err != nil {
				t.Fatal(err)
			}
			compact := cmp.Transformer("compact", func(raw json.RawMessage) string {
				var b bytes.Buffer
				_ = json.Compact(&b, raw)
				return b.String()
			})
			if diff := cmp.Diff(Incoming{ID: example.id, Data: example.m}, got, cmp.AllowUnexported(secret.String{}), compact); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGoldenCoversEveryEvent: a message without a golden file is a message nobody has looked at.
func TestGoldenCoversEveryEvent(t *testing.T) {
	covered := map[string]bool{}
	for _, example := range examples() {
		covered[example.m.Event()] = true
	}
	for _, m := range []Message{
		Register{},
		Heartbeat{},
		InstanceStatus{},
		CommandResult{},
		NodeStatus{},
		Registered{},
		StartInstance{},
		StopInstance{},
		DrainNode{},
		ResumeNode{},
		GetLogs{},
		RunSpeedtest{},
		Earnings{},
		Notice{},
		SetOfferRequest{},
		StatusReceived{},
	} {
		if !covered[m.Event()] {
			t.Errorf("no golden file for %s", m.Event())
		}
	}
}

// TestResultLists: what a result carries keeps its lists too.
func TestResultLists(t *testing.T) {
	frame, err := Encode("c", CommandResult{OK: true, Result: Offer{}})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(frame, []byte(`"gpu_indices":[]`)) {
		t.Errorf("got %s", frame)
	}
}

// TestEncodeLeavesItsMessageAlone: a message may be shared with readers elsewhere.
func TestEncodeLeavesItsMessageAlone(t *testing.T) {
	m := &Register{Hardware: Hardware{Docker: &Docker{}}, Instances: []InstanceStatus{{}}}
	if _, err := Encode("", m); err != nil {
		t.Fatal(err)
	}
	if m.Instances[0].Ports != nil || m.Hardware.Docker.Runtimes != nil || m.Features != nil {
		t.Error("Encode changed its argument")
	}
}

func TestEncodeBoundsTheFrame(t *testing.T) {
	if _, err := Encode("", CommandResult{Result: Logs{Text: string(make([]byte, MaxFrameBytes/6))}}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a frame above the limit was encoded: %v", err)
	}
	if _, err := Encode("", CommandResult{Result: math.NaN()}); err == nil || errors.Is(err, ErrTooLarge) {
		t.Errorf("what JSON cannot say was encoded, or is too large: %v", err)
	}
}

// TestBeatWithoutNumbers: a sensor that reads no number was not measured; the others were.
func TestBeatWithoutNumbers(t *testing.T) {
	temperatures := []*float64{new(math.NaN()), new(61.0)}
	frame, err := Encode("", &Heartbeat{Status: Online, Metrics: Metrics{
		CPUTemp: new(math.Inf(1)), CPUUtilization: new(math.NaN()), GPUTemp: temperatures, GPUUtilization: []*float64{new(math.Inf(-1))},
		GPUPowerW: []*float64{new(math.NaN())}, GPUFanPercent: []*float64{new(math.NaN())}, RAMUsageMB: new(int64(7)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	in, err := DecodeFromAgent(frame)
	if err != nil {
		t.Fatal(err)
	}
	want := Metrics{
		GPUTemp: []*float64{nil, new(61.0)}, GPUUtilization: []*float64{nil}, GPUPowerW: []*float64{nil}, GPUFanPercent: []*float64{nil},
		RAMUsageMB: new(int64(7)),
	}
	if diff := cmp.Diff(want, in.Data.(*Heartbeat).Metrics); diff != "" || !math.IsNaN(*temperatures[0]) {
		t.Errorf("-want +got, and the argument is %v:\n%s", *temperatures[0], diff)
	}
}

func BenchmarkEncodeHeartbeat(b *testing.B) {
	beat := examples()["heartbeat"].m
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode("", beat); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeStart(b *testing.B) {
	frame, err := Encode("c-1", examples()["start_instance"].m)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(frame); err != nil {
			b.Fatal(err)
		}
	}
}
