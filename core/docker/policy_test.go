package docker

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/rental"
)

var update = flag.Bool("update", false, "write the golden files anew")

const testGPU = "GPU-11111111-aaaa-4bbb-8ccc-000000000001"

var (
	testSeal   = newSeal([]byte("a key that is only for tests"))
	testSubnet = netip.MustParsePrefix("10.213.7.8/29")
	testImage  = rental.Image{ID: "sha256:" + strings.Repeat("ab", 32), Digest: "sha256:" + strings.Repeat("cd", 32)}

	// testBrought is what an image may bring along, harmless and not.
	testBrought = luggage{OS: "linux", Architecture: "amd64", WorkingDir: "/srv", Volumes: []string{"/data"}, Labels: []string{
		"maintainer", labelRental, labelOwner, "distributedcompute.spare", "DistributedCompute.Odd",
	}, Variables: []string{
		"PATH", "LD_LIBRARY_PATH", "NVIDIA_REQUIRE_CUDA",
		"DOCKER_RESOURCE_GPU", "LD_AUDIT", "LD_PRELOAD", "NVIDIA_IMEX_CHANNELS", "NVIDIA_MIG_CONFIG_DEVICES",
		"NVIDIA_MIG_MONITOR_DEVICES", "NVIDIA_VISIBLE_DEVICES",
	}}
)

// greatest asks for everything that a renter can ask for.
func greatest() rental.Spec {
	return rental.Spec{
		ID: "r-42", Image: "docker.io/pytorch/pytorch:2.9",
		Command:     []string{"python", "-m", "http.server"},
		Env:         map[string]string{"TOKEN": "t=1", "B": "", "A": "1"},
		GPUs:        []rental.GPU{{Index: 2, UUID: testGPU}, {Index: 0, UUID: "GPU-22222222-aaaa-4bbb-8ccc-000000000002"}},
		MemoryBytes: 16 << 30, CPUs: 3.5, PidsLimit: 4096, DiskBytes: 100 << 30, ShmBytes: 8 << 30,
		Ports: []rental.Port{
			{Container: 22, Protocol: rental.TCP, Public: 10022}, {Container: 53, Protocol: rental.UDP, Public: 10053},
		},
		ExpiresAt: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), PricePerHour: "0.50",
	}
}

// least asks for no more than it must.
func least() rental.Spec {
	return rental.Spec{ID: "r-1", Image: "docker.io/library/busybox:1", MemoryBytes: 32 << 20, CPUs: 0.5, PidsLimit: 64}
}

// TestPlanGolden shows, as the engine's API has it, all that a renter gets. A change in these files is a change of
// what hosts are exposed to.
func TestPlanGolden(t *testing.T) {
	for name, test := range map[string]struct {
		spec  rental.Spec
		facts facts
	}{
		"greatest": {greatest(), facts{AppArmor: true, Quota: true}},
		"least":    {least(), facts{}},
		"direct":   {func() rental.Spec { s := least(); s.Ports = greatest().Ports; return s }(), facts{Direct: true}},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := newPlan(test.spec, testImage, testBrought, "dc-net-test", test.facts, testSeal)
			if err != nil {
				t.Fatal(err)
			}
			for i, option := range plan.HostConfig.SecurityOpt {
				if option == seccompOption+systemCallFilter() {
					plan.HostConfig.SecurityOpt[i] = seccompOption + "(testdata/seccomp.json)"
				}
			}
			got, err := json.MarshalIndent(struct {
				Plan    any
				Network network.CreateOptions
			}{plan, networkOptions("dc-net-test", testSubnet, testSeal)}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", "plan-"+name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("plan (-want +got), run with -update after reviewing:\n%s", diff)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	for name, change := range map[string]func(*rental.Spec){
		"no id":                func(s *rental.Spec) { s.ID = "" },
		"an id that is a path": func(s *rental.Spec) { s.ID = "../../etc" },
		"no memory limit":      func(s *rental.Spec) { s.MemoryBytes = 0 },
		"unlimited memory":     func(s *rental.Spec) { s.MemoryBytes = -1 },
		"no cpu limit":         func(s *rental.Spec) { s.CPUs = 0 },
		"not a number of cpus": func(s *rental.Spec) { s.CPUs = math.NaN() },
		"endless cpus":         func(s *rental.Spec) { s.CPUs = math.Inf(1) },
		"no pids limit":        func(s *rental.Spec) { s.PidsLimit = 0 },
		"unlimited pids":       func(s *rental.Spec) { s.PidsLimit = -1 },
		"disk below zero":      func(s *rental.Spec) { s.DiskBytes = -1 },
		"shm above memory":     func(s *rental.Spec) { s.ShmBytes = s.MemoryBytes + 1 },
		"all GPUs":             func(s *rental.Spec) { s.GPUs = []rental.GPU{{UUID: "all"}} },
		"a GPU by index":       func(s *rental.Spec) { s.GPUs = []rental.GPU{{UUID: "0"}} },
		"two GPUs in one":      func(s *rental.Spec) { s.GPUs = []rental.GPU{{UUID: testGPU + "," + testGPU}} },
		"a GPU twice": func(s *rental.Spec) {
			s.GPUs = []rental.GPU{{UUID: testGPU}, {UUID: strings.Replace(testGPU, "a", "A", 1)}}
		},
		"port zero":        func(s *rental.Spec) { s.Ports = []rental.Port{{Protocol: rental.TCP}} },
		"another protocol": func(s *rental.Spec) { s.Ports = []rental.Port{{Container: 1, Protocol: "sctp"}} },
		"a port twice": func(s *rental.Spec) {
			s.Ports = []rental.Port{{Container: 1, Protocol: "tcp"}, {Container: 1, Protocol: "tcp", Public: 2}}
		},
		"NUL in the command":    func(s *rental.Spec) { s.Command = []string{"a\x00b"} },
		"NUL in a value":        func(s *rental.Spec) { s.Env = map[string]string{"A": "\x00"} },
		"a name with =":         func(s *rental.Spec) { s.Env = map[string]string{"A=B": "c"} },
		"an empty name":         func(s *rental.Spec) { s.Env = map[string]string{"": "c"} },
		"too large environment": func(s *rental.Spec) { s.Env = map[string]string{"A": strings.Repeat("x", maxEnvBytes)} },
		"visible devices":       func(s *rental.Spec) { s.Env = map[string]string{"NVIDIA_VISIBLE_DEVICES": "all"} },
		"them in lower case":    func(s *rental.Spec) { s.Env = map[string]string{"nvidia_visible_devices": "all"} },
		"preloaded library":     func(s *rental.Spec) { s.Env = map[string]string{"LD_PRELOAD": "/x.so"} },
		"swarm resource":        func(s *rental.Spec) { s.Env = map[string]string{"DOCKER_RESOURCE_GPU": "0"} },
		"CUDA compatibility":    func(s *rental.Spec) { s.Env = map[string]string{"CUDA_COMPAT_TIMEOUT": "1"} },
	} {
		t.Run(name, func(t *testing.T) {
			s := least()
			change(&s)
			_, err := newPlan(s, testImage, testBrought, "dc-net-test", facts{}, testSeal)
			failure, ok := err.(*rental.Failure)
			if !ok || failure.Code != rental.CodeInvalid || failure.Message == "" {
				t.Errorf("error %v (%T), want a failure invalid_request", err, err)
			}
		})
	}
	if _, err := newPlan(least(), rental.Image{ID: "busybox:latest"}, luggage{}, "dc-net-test", facts{}, testSeal); err == nil {
		t.Error("an image by name was accepted, though what it names may change")
	}
}

// sealed reports whether a plan's labels are the owner's, for its network.
func sealed(p plan, id rental.ID) bool {
	owner, ours := testSeal.rentalOf(p.Config.Labels, string(p.HostConfig.NetworkMode), "/"+p.Name)
	return ours && owner == id
}

// Whoever changes a label, or the network, has no container of ours.
func TestSealHoldsForAContainerAsItWasMade(t *testing.T) {
	p, err := newPlan(greatest(), testImage, testBrought, "dc-net-test", facts{}, testSeal)
	if err != nil {
		t.Fatal(err)
	}
	if !sealed(p, "r-42") {
		t.Fatal("a plan does not hold its own seal")
	}
	for _, name := range []string{labelRental, labelOwner, labelSpec, labelPorts, labelGPUs, labelDisk, labelRecipe} {
		changed := maps.Clone(p.Config.Labels)
		changed[name] += "0"
		if _, ours := testSeal.rentalOf(changed, "dc-net-test", "/"+p.Name); ours {
			t.Errorf("the seal holds with another label %s", name)
		}
	}
	for what, at := range map[string][2]string{"network": {"dc-net-other", p.Name}, "name": {"dc-net-test", "copy"}} {
		if _, ours := testSeal.rentalOf(p.Config.Labels, at[0], "/"+at[1]); ours {
			t.Errorf("the seal holds with another %s", what)
		}
	}
	if one, other := testSeal.of(kindContainer, "a", "bc"), testSeal.of(kindContainer, "ab", "c"); one == other {
		t.Error("parts of a seal run into each other")
	}
}

func TestSealHoldsForOneThingAlone(t *testing.T) {
	label := testSeal.of(kindContainer, "a")
	other := newSeal([]byte("another key that is for tests"))
	for name, held := range map[string]bool{
		"another name": testSeal.holds(label, kindContainer, "b"),
		"another kind": testSeal.holds(label, kindNetwork, "a"),
		"another key":  other.holds(label, kindContainer, "a"),
		"no label":     testSeal.holds("", kindContainer, "a"),
	} {
		if held {
			t.Errorf("%s: the seal holds", name)
		}
	}
	if !testSeal.holds(label, kindContainer, "a") {
		t.Error("the seal does not hold for what it was made for")
	}
}

func TestBridgeNamesFitTheKernel(t *testing.T) {
	names := make(map[string]bool)
	for range 100 {
		name := bridgeName(newNetworkName())
		if len(name) != 15 || !strings.HasPrefix(name, "gr-") {
			t.Fatalf("bridge name %q", name)
		}
		names[name] = true
	}
	if len(names) != 100 {
		t.Errorf("100 networks gave %d names", len(names))
	}
}

func TestEscape(t *testing.T) {
	for name, test := range map[string]struct{ raw, want string }{
		"plain":           {"héllo\tworld\n", "héllo\tworld\n"},
		"terminal":        {"\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`},
		"carriage return": {"50%\r100%", `50%\x0d100%`},
		"C1":              {"\u009b2J", `\x9b2J`},
		"not UTF-8":       {"a\xffb", `a\xffb`},
		"direction":       {"a\u202eb", `a\u202eb`},
		"NUL and DEL":     {"\x00\x7f", `\x00\x7f`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := escape([]byte(test.raw)); got != test.want {
				t.Errorf("escape(%q) = %q, want %q", test.raw, got, test.want)
			}
		})
	}
}

func TestLogsAreBounded(t *testing.T) {
	newest := &lastBytes{limit: 10}
	for _, part := range []string{"0123456789", "abc", "", "de"} {
		if n, err := newest.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	if !bytes.Equal(newest.kept, []byte("56789abcde")) || !newest.dropped {
		t.Errorf("kept %q", newest.kept)
	}
	if text, cut := lastRunes("aé", 1); text != "" || !cut {
		t.Errorf("lastRunes cut a character in two: %q", text)
	}
	if text, cut := lastRunes("aéb", 3); text != "éb" || !cut {
		t.Errorf("lastRunes: %q", text)
	}
}

func TestHosts(t *testing.T) {
	for host, accepted := range map[string]bool{
		"": true, "unix:///var/run/docker.sock": true, "npipe:////./pipe/docker_engine": true,
		"tcp://127.0.0.1:2375": false, "http://localhost": false, "ssh://host": false, "/var/run/docker.sock": false,
		"unix://relative.sock": false, "unix://": false,
	} {
		if err := checkHost(host); (err == nil) != accepted {
			t.Errorf("checkHost(%q) = %v", host, err)
		}
	}
}
