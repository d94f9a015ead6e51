package docker

import (
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"

	"github.com/distributedcompute/host-agent/core/rental"
)

// asEngineSays is how an engine tells of a planned container: capabilities spelt out, the kernel's files filled in, and
// nothing in places where we had said nothing.
func asEngineSays(t *testing.T, s rental.Spec, known facts) container.InspectResponse {
	t.Helper()
	p, err := newPlan(s, testImage, testBrought, "dc-net-test", known, testSeal)
	if err != nil {
		t.Fatal(err)
	}
	h := *p.HostConfig
	h.CapAdd = nil
	for _, name := range p.HostConfig.CapAdd {
		h.CapAdd = append(h.CapAdd, "CAP_"+name)
	}
	h.MaskedPaths = []string{"/proc/acpi", "/proc/kcore", "/sys/firmware"}
	h.ReadonlyPaths = []string{"/proc/bus", "/proc/sys"}
	h.ExtraHosts, h.Binds, h.BlkioDeviceReadBps = []string{}, []string{}, nil
	h.OomKillDisable = new(false)
	there := container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{Name: "/" + p.Name, HostConfig: &h, State: &container.State{}},
		Config:            p.Config,
		NetworkSettings:   &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{"dc-net-test": {}}},
	}
	if known.AppArmor {
		there.AppArmorProfile = "docker-default"
	}
	return there
}

func TestContainersAsPlannedHaveNoMismatch(t *testing.T) {
	amd := least()
	amd.GPUs = []rental.GPU{{UUID: "card-a", Vendor: rental.AMD, Render: "renderD128"}}
	for name, test := range map[string]struct {
		spec  rental.Spec
		known facts
	}{
		"greatest": {greatest(), facts{AppArmor: true, Quota: true}},
		"direct":   {greatest(), facts{Direct: true}},
		"by CDI":   {greatest(), facts{CDI: true}},
		"least":    {least(), facts{}},
		"AMD":      {amd, facts{}},
	} {
		gpus, err := mismatch(asEngineSays(t, test.spec, test.known), test.known)
		if err != nil || len(gpus) != len(test.spec.GPUs) {
			t.Errorf("%s: %v, %v", name, gpus, err)
		}
	}
}

// What engines change of what was asked for is none of the container's doing.
func TestWhatEnginesChangeIsNoMismatch(t *testing.T) {
	for name, test := range map[string]struct {
		known  facts
		change func(*container.InspectResponse)
	}{
		"settings for all logs": {facts{}, func(c *container.InspectResponse) {
			c.HostConfig.LogConfig.Config = map[string]string{
				"max-size": maxLogFile, "max-file": maxLogFiles, "compress": "true", "cache-disabled": "true",
			}
		}},
		"no limit of swap": {facts{NoSwapLimit: true}, func(c *container.InspectResponse) { c.HostConfig.MemorySwap = -1 }},
		"another version": {facts{}, func(c *container.InspectResponse) {
			c.Config.Labels[labelRecipe] = "earlier"
			c.HostConfig.SecurityOpt[1] = "seccomp={}"
			c.HostConfig.CapAdd = c.HostConfig.CapAdd[1:]
		}},
	} {
		there := asEngineSays(t, greatest(), test.known)
		test.change(&there)
		if _, err := mismatch(there, test.known); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	there := asEngineSays(t, greatest(), facts{NoSwapLimit: true})
	there.Config.Labels[labelRecipe] = "earlier"
	there.HostConfig.Memory = 0
	if _, err := mismatch(there, facts{NoSwapLimit: true}); err == nil {
		t.Error("a container of another version needs no limits")
	}
}

func TestMismatchesAreFound(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(*container.InspectResponse)
		devices bool
	}{
		"privileged":       {func(c *container.InspectResponse) { c.HostConfig.Privileged = true }, false},
		"a bind":           {func(c *container.InspectResponse) { c.HostConfig.Binds = []string{"/:/host"} }, false},
		"a capability":     {func(c *container.InspectResponse) { c.HostConfig.CapAdd = append(c.HostConfig.CapAdd, "CAP_SYS_ADMIN") }, false},
		"kept ones":        {func(c *container.InspectResponse) { c.HostConfig.CapDrop = nil }, false},
		"no filter":        {func(c *container.InspectResponse) { c.HostConfig.SecurityOpt = c.HostConfig.SecurityOpt[:1] }, false},
		"another filter":   {func(c *container.InspectResponse) { c.HostConfig.SecurityOpt[1] = "seccomp=unconfined" }, false},
		"another runtime":  {func(c *container.InspectResponse) { c.HostConfig.Runtime = "nvidia" }, false},
		"the host's pids":  {func(c *container.InspectResponse) { c.HostConfig.PidMode = "host" }, false},
		"shared memory":    {func(c *container.InspectResponse) { c.HostConfig.IpcMode = "shareable" }, false},
		"the host's users": {func(c *container.InspectResponse) { c.HostConfig.UsernsMode = "host" }, false},
		"starts itself":    {func(c *container.InspectResponse) { c.HostConfig.RestartPolicy.Name = "always" }, false},
		"all ports":        {func(c *container.InspectResponse) { c.HostConfig.PublishAllPorts = true }, false},
		"ports everywhere": {func(c *container.InspectResponse) {
			for _, bindings := range c.HostConfig.PortBindings {
				bindings[0].HostIP = "0.0.0.0"
			}
		}, false},
		"a kernel setting":  {func(c *container.InspectResponse) { c.HostConfig.Sysctls = map[string]string{"kernel.shmmax": "1"} }, false},
		"logs without end":  {func(c *container.InspectResponse) { delete(c.HostConfig.LogConfig.Config, "max-size") }, false},
		"swap":              {func(c *container.InspectResponse) { c.HostConfig.MemorySwap = -1 }, false},
		"no memory limit":   {func(c *container.InspectResponse) { c.HostConfig.Memory = 0 }, false},
		"no pids limit":     {func(c *container.InspectResponse) { c.HostConfig.PidsLimit = nil }, false},
		"no CPU limit":      {func(c *container.InspectResponse) { c.HostConfig.NanoCPUs = 0 }, false},
		"open kernel files": {func(c *container.InspectResponse) { c.HostConfig.MaskedPaths = nil }, false},
		"writable ones":     {func(c *container.InspectResponse) { c.HostConfig.ReadonlyPaths = []string{} }, false},
		"a mount": {func(c *container.InspectResponse) {
			c.Mounts = []container.MountPoint{{Type: mount.TypeBind, Destination: "/x"}}
		}, false},
		"a volume in /proc": {func(c *container.InspectResponse) {
			c.Mounts = []container.MountPoint{{Type: mount.TypeVolume, Destination: "/proc/x"}}
		}, false},
		"a terminal":       {func(c *container.InspectResponse) { c.Config.Tty = true }, false},
		"a health check":   {func(c *container.InspectResponse) { c.Config.Healthcheck = nil }, false},
		"a second network": {func(c *container.InspectResponse) { c.NetworkSettings.Networks["bridge"] = nil }, false},
		"no AppArmor":      {func(c *container.InspectResponse) { c.AppArmorProfile = "unconfined" }, false},
		"all GPUs": {func(c *container.InspectResponse) {
			c.HostConfig.DeviceRequests[0].DeviceIDs, c.HostConfig.DeviceRequests[0].Count = nil, -1
		}, true},
		"another GPU": {func(c *container.InspectResponse) { c.HostConfig.DeviceRequests[0].DeviceIDs[0] = "GPU-0" }, true},
		"no GPU":      {func(c *container.InspectResponse) { c.HostConfig.DeviceRequests = nil }, true},
		"a device": {func(c *container.InspectResponse) {
			c.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: "/dev/sda"}}
		}, true},
		"a rule for devices": {func(c *container.InspectResponse) { c.HostConfig.DeviceCgroupRules = []string{"a *:* rwm"} }, true},
		"sees all GPUs":      {func(c *container.InspectResponse) { c.Config.Env = append(c.Config.Env, "NVIDIA_VISIBLE_DEVICES=all") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			there := asEngineSays(t, greatest(), facts{AppArmor: true})
			test.change(&there)
			_, err := mismatch(there, facts{})
			found, ok := err.(*deviation)
			if !ok {
				t.Fatalf("found %v", err)
			}
			if found.devices != test.devices {
				t.Errorf("%s: concerns GPUs %t", found, found.devices)
			}
		})
	}
}

func TestAMDDevicesAreNamedStrictly(t *testing.T) {
	for render, taken := range map[string]bool{
		"renderD128": true, "renderD129": true, "": false, "card0": false, "../sda": false, "renderD128/../../sda": false,
		"renderD0": false, "renderD128 ": false, "kmsg": false, "/dev/sda": false, "renderD128\n": false,
	} {
		s := least()
		s.GPUs = []rental.GPU{{UUID: "card-a", Vendor: rental.AMD, Render: render}}
		p, err := newPlan(s, testImage, luggage{}, "dc-net-test", facts{}, testSeal)
		if (err == nil) != taken {
			t.Errorf("%q: %v", render, err)
		}
		if err != nil {
			continue
		}
		var places []string
		for _, device := range p.HostConfig.Devices {
			places = append(places, device.PathOnHost+" "+device.PathInContainer+" "+device.CgroupPermissions)
		}
		node := "/dev/dri/" + render
		if want := []string{"/dev/kfd /dev/kfd rw", node + " " + node + " rw"}; !slices.Equal(places, want) || p.HostConfig.DeviceRequests != nil {
			t.Errorf("%q: devices %v, requests %v", render, places, p.HostConfig.DeviceRequests)
		}
		if !slices.Contains(p.Config.Env, "NVIDIA_VISIBLE_DEVICES=void") {
			t.Errorf("%q: environment %q", render, p.Config.Env)
		}
	}
	s := least()
	s.GPUs = []rental.GPU{{UUID: "a", Vendor: rental.AMD, Render: "renderD128"}, {UUID: "b", Vendor: rental.AMD, Render: "renderD128"}}
	if _, err := newPlan(s, testImage, luggage{}, "dc-net-test", facts{}, testSeal); err == nil {
		t.Error("one device is handed out twice")
	}
	s.GPUs = []rental.GPU{{UUID: "a", Vendor: "other"}}
	if _, err := newPlan(s, testImage, luggage{}, "dc-net-test", facts{}, testSeal); err == nil || !strings.Contains(err.Error(), "other") {
		t.Errorf("a GPU of an unknown vendor: %v", err)
	}
}
