package docker

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/rental"
)

var update = flag.Bool("update", false, "write the golden files anew")

const testGPU = "GPU-11111111-aaaa-4bbb-8ccc-000000000001"

var (
	testSeal  = newSeal([]byte("a key that is only for tests"))
	testImage = rental.Image{ID: "sha256:" + strings.Repeat("ab", 32), Digest: "sha256:" + strings.Repeat("cd", 32)}

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
			}{plan, networkOptions("dc-net-test", testSeal)}, "", "  ")
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

// reviewed are all fields of what is sent to the engine, with the decision for each: "zero" is the engine's
// default and never set, anything else says where the value comes from. A field that is not listed has come
// with a new version of the API, and needs a decision.
var reviewed = map[reflect.Type]map[string]string{
	reflect.TypeFor[container.Config](): {
		"Hostname": "zero", "Domainname": "zero", "User": "zero", // the image's
		"AttachStdin": "zero", "AttachStdout": "zero", "AttachStderr": "zero",
		"ExposedPorts": "spec", "Tty": "zero", "OpenStdin": "zero", "StdinOnce": "zero",
		"Env": "spec and constant", "Cmd": "spec", "Healthcheck": "constant NONE", "ArgsEscaped": "zero",
		"Image": "the pulled image's id", "Volumes": "zero", "WorkingDir": "zero", "Entrypoint": "zero",
		"NetworkDisabled": "zero", "MacAddress": "zero", "OnBuild": "zero", "Labels": "spec and seal",
		"StopSignal": "zero", "StopTimeout": "constant", "Shell": "zero",
	},
	reflect.TypeFor[container.HostConfig](): {
		"Binds": "zero", "ContainerIDFile": "zero", "LogConfig": "constant", "NetworkMode": "own network",
		"PortBindings": "spec, loopback", "RestartPolicy": "constant no", "AutoRemove": "zero", "VolumeDriver": "zero",
		"VolumesFrom": "zero", "ConsoleSize": "zero", "Annotations": "zero", "CapAdd": "constant", "CapDrop": "constant ALL",
		"CgroupnsMode": "constant private", "DNS": "constant", "DNSOptions": "zero", "DNSSearch": "constant none", "ExtraHosts": "zero",
		"GroupAdd": "zero", "IpcMode": "constant private", "Cgroup": "zero", "Links": "zero", "OomScoreAdj": "constant",
		"PidMode": "zero", "Privileged": "zero", "PublishAllPorts": "zero", "ReadonlyRootfs": "zero",
		"SecurityOpt": "constant and engine", "StorageOpt": "spec and engine", "Tmpfs": "zero", "UTSMode": "zero", "UsernsMode": "zero",
		"ShmSize": "spec", "Sysctls": "zero", "Runtime": "constant runc", "Isolation": "zero", "Resources": "below",
		"Mounts": "zero", "MaskedPaths": "zero", "ReadonlyPaths": "zero", "Init": "constant",
	},
	reflect.TypeFor[container.Resources](): {
		"CPUShares": "zero", "Memory": "spec", "NanoCPUs": "spec", "CgroupParent": "zero", "BlkioWeight": "zero",
		"BlkioWeightDevice": "zero", "BlkioDeviceReadBps": "zero", "BlkioDeviceWriteBps": "zero",
		"BlkioDeviceReadIOps": "zero", "BlkioDeviceWriteIOps": "zero", "CPUPeriod": "zero", "CPUQuota": "zero",
		"CPURealtimePeriod": "zero", "CPURealtimeRuntime": "zero", "CpusetCpus": "zero", "CpusetMems": "zero", "Devices": "zero",
		"DeviceCgroupRules": "zero", "DeviceRequests": "spec", "KernelMemory": "zero", "KernelMemoryTCP": "zero",
		"MemoryReservation": "zero", "MemorySwap": "spec, as Memory", "MemorySwappiness": "zero", "OomKillDisable": "zero",
		"PidsLimit": "spec", "Ulimits": "constant", "CPUCount": "zero", "CPUPercent": "zero", "IOMaximumIOps": "zero",
		"IOMaximumBandwidth": "zero",
	},
	reflect.TypeFor[network.NetworkingConfig](): {"EndpointsConfig": "own network, no settings"},
	reflect.TypeFor[network.CreateOptions](): {
		"Driver": "constant bridge", "Scope": "zero", "EnableIPv4": "zero", "EnableIPv6": "constant false", "IPAM": "zero",
		"Internal": "zero", "Attachable": "zero", "Ingress": "zero", "ConfigOnly": "zero", "ConfigFrom": "zero",
		"Options": "constant and own bridge", "Labels": "seal",
	},
	reflect.TypeFor[container.DeviceRequest](): {
		"Driver": "constant nvidia", "Count": "zero", "DeviceIDs": "spec", "Capabilities": "constant", "Options": "zero",
	},
}

func TestEveryFieldIsReviewed(t *testing.T) {
	plan, err := newPlan(greatest(), testImage, testBrought, "dc-net-test", facts{AppArmor: true, Quota: true}, testSeal)
	if err != nil {
		t.Fatal(err)
	}
	for _, sent := range []any{
		*plan.Config, *plan.HostConfig, plan.HostConfig.Resources, *plan.Networking,
		networkOptions("dc-net-test", testSeal), plan.HostConfig.DeviceRequests[0],
	} {
		value := reflect.ValueOf(sent)
		decisions := reviewed[value.Type()]
		fields := make(map[string]bool)
		for field, content := range value.Fields() {
			fields[field.Name] = true
			switch decision := decisions[field.Name]; {
			case decision == "":
				t.Errorf("%s.%s has not been reviewed", value.Type(), field.Name)
			case decision == "zero" && !content.IsZero():
				t.Errorf("%s.%s is %v, which was decided to stay the engine's default", value.Type(), field.Name, content)
			case decision != "zero" && content.IsZero():
				t.Errorf("%s.%s is not set, though it was decided to be: %s", value.Type(), field.Name, decision)
			}
		}
		for name := range decisions {
			if !fields[name] {
				t.Errorf("%s has no field %s any more", value.Type(), name)
			}
		}
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

// FuzzPlan checks that whatever a backend asks for, nothing that leads out of the container comes of it.
func FuzzPlan(f *testing.F) {
	for _, s := range []rental.Spec{greatest(), least()} {
		seed, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed, true)
	}
	f.Add([]byte(`{"id":"a","env":{"NVIDIA_VISIBLE_DEVICES":"all"},"memory_bytes":99999999,"cpus":1,"pids_limit":1}`), false)
	f.Fuzz(func(t *testing.T, raw []byte, quota bool) {
		var s rental.Spec
		if json.Unmarshal(raw, &s) != nil {
			return
		}
		plan, err := newPlan(s, testImage, testBrought, "dc-net-fuzz", facts{Quota: quota}, testSeal)
		if err != nil {
			return
		}
		for _, broken := range brokenPromises(s, plan) {
			t.Errorf("%s, for %s", broken, raw)
		}
	})
}

// brokenPromises are those of the policy that a plan does not keep.
func brokenPromises(s rental.Spec, p plan) (broken []string) {
	promise := func(kept bool, format string, args ...any) {
		if !kept {
			broken = append(broken, fmt.Sprintf(format, args...))
		}
	}
	h := p.HostConfig
	promise(!h.Privileged, "privileged")
	promise(len(h.Binds)+len(h.Mounts)+len(h.VolumesFrom)+len(h.Devices)+len(h.DeviceCgroupRules)+len(h.Links) == 0, "something of the host is let in")
	promise(h.PidMode == "" && h.UTSMode == "" && h.UsernsMode == "" && h.IpcMode == "private" && h.CgroupnsMode == "private", "a namespace is shared")
	promise(h.NetworkMode == "dc-net-fuzz" && len(p.Networking.EndpointsConfig) == 1, "network %s", h.NetworkMode)
	promise(slices.Equal(h.CapDrop, []string{"ALL"}) && slices.Equal(h.CapAdd, capabilities), "capabilities %v", h.CapAdd)
	promise(slices.Equal(h.SecurityOpt, []string{"no-new-privileges:true", seccompOption + systemCallFilter()}), "security options %v", h.SecurityOpt)
	promise(h.MaskedPaths == nil && h.ReadonlyPaths == nil, "paths of the kernel are unmasked")
	promise(h.Runtime == "runc", "runtime %s", h.Runtime)
	promise(h.RestartPolicy.Name == "no" && !h.AutoRemove, "restart policy %v", h.RestartPolicy)
	promise(h.Memory >= leastMemory && h.Memory == h.MemorySwap && h.NanoCPUs > 0 && *h.PidsLimit > 0, "limits %+v", h.Resources)
	promise(h.ShmSize > 0 && h.ShmSize <= h.Memory, "shared memory %d", h.ShmSize)
	promise(h.LogConfig.Config["max-size"] != "" && h.LogConfig.Config["max-file"] != "", "log %v", h.LogConfig)
	promise(!h.PublishAllPorts && len(h.PortBindings) == len(s.Ports), "ports %v", h.PortBindings)
	for port, bindings := range h.PortBindings {
		promise(len(bindings) == 1 && bindings[0].HostIP == "127.0.0.1" && bindings[0].HostPort == "", "port %s at %v", port, bindings)
	}
	visible := noGPU
	if len(s.GPUs) > 0 {
		visible = strings.Join(uuids(s.GPUs), ",")
		promise(len(h.DeviceRequests) == 1 && h.DeviceRequests[0].Count == 0 && slices.Equal(h.DeviceRequests[0].DeviceIDs, uuids(s.GPUs)), "devices %v", h.DeviceRequests)
	} else {
		promise(len(h.DeviceRequests) == 0, "devices %v without GPUs", h.DeviceRequests)
	}
	last := p.Config.Env[len(p.Config.Env)-2:]
	promise(slices.Equal(last, []string{"NVIDIA_VISIBLE_DEVICES=" + visible, "NVIDIA_DRIVER_CAPABILITIES=" + gpuAbilities}), "environment ends with %q", last)
	for _, entry := range p.Config.Env[:len(p.Config.Env)-2] {
		name, _, set := strings.Cut(entry, "=")
		promise(!set || !rental.ReservedVariable(name), "environment has %s", entry)
		promise(!strings.ContainsRune(entry, 0), "environment has a NUL")
	}
	promise(p.Config.Image == testImage.ID && p.Config.Entrypoint == nil && !p.Config.Tty, "image %s", p.Config.Image)
	promise(slices.Equal(p.Config.Healthcheck.Test, []string{"NONE"}), "health check %v", p.Config.Healthcheck)
	promise(p.Name == "dc-"+string(s.ID) && sealed(p, s.ID), "labels %v", p.Config.Labels)
	return broken
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
	for _, name := range []string{labelRental, labelOwner, labelSpec, labelPorts, labelGPUs} {
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
