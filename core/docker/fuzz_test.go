package docker

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/distributedcompute/host-agent/core/rental"
)

// FuzzPlan checks that whatever a backend orders, of whatever image, on whatever engine, nothing that leads out of the
// container comes of it. order is a spec and image a luggage, as JSON; the bits of engine are what is known of that.
func FuzzPlan(f *testing.F) {
	for _, s := range []rental.Spec{maximal(), greatest(), least()} {
		order, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		image, err := json.Marshal(testBrought)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(order, image, byte(0b1111))
	}
	f.Fuzz(func(t *testing.T, order, image []byte, engine byte) {
		var s rental.Spec
		var brought luggage
		if json.Unmarshal(order, &s) != nil || json.Unmarshal(image, &brought) != nil {
			return
		}
		known := facts{
			Architecture: "amd64", AppArmor: engine&1 != 0, Quota: engine&2 != 0, CDI: engine&4 != 0, OffersCDI: engine&8 != 0, Direct: engine&16 != 0,
		}
		p, err := newPlan(s, testImage, brought, "dc-net-fuzz", known, testSeal)
		if err != nil {
			if _, ok := err.(*rental.Failure); !ok {
				t.Errorf("refused for no reason that has a code: %v", err)
			}
			return
		}
		for name, kept := range invariants {
			if !kept(s, brought, known, p) {
				t.Errorf("%s: broken for %s of %s", name, order, image)
			}
		}
	})
}

var (
	anyNode   = regexp.MustCompile(`^/dev/(kfd|dri/renderD[0-9]{3,6})$`)
	anyGPU    = regexp.MustCompile(`^(nvidia\.com/gpu=)?(GPU|MIG)-[0-9A-Fa-f-]{36}$`)
	anyAbsent = regexp.MustCompile(`(?i)^(NVIDIA_|LD_|DOCKER_RESOURCE_|CUDA_COMPAT)`)
)

// invariants hold for every plan there is. They are said anew here, not taken from the policy.
var invariants = map[string]func(rental.Spec, luggage, facts, plan) bool{
	"it is not privileged": func(_ rental.Spec, _ luggage, _ facts, p plan) bool { return !p.HostConfig.Privileged },
	"no file of the host is in it": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		h := p.HostConfig
		return len(h.Binds)+len(h.Mounts)+len(h.VolumesFrom)+len(h.Tmpfs)+len(p.Config.Volumes) == 0 && h.VolumeDriver == "" && h.ContainerIDFile == ""
	},
	"no other container is linked": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		return len(p.HostConfig.Links)+len(p.HostConfig.ExtraHosts) == 0
	},
	"no namespace is shared": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		h := p.HostConfig
		return h.PidMode == "" && h.UTSMode == "" && h.UsernsMode == "" && h.IpcMode == "private" && h.CgroupnsMode == "private"
	},
	"its network is its own": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		return p.HostConfig.NetworkMode == "dc-net-fuzz" && len(p.Networking.EndpointsConfig) == 1 && p.Networking.EndpointsConfig["dc-net-fuzz"] != nil
	},
	"names are resolved in public": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		return slices.Equal(p.HostConfig.DNS, []string{"1.1.1.1", "8.8.8.8"}) && slices.Equal(p.HostConfig.DNSSearch, []string{"."})
	},
	"all capabilities are dropped": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		return slices.Equal(p.HostConfig.CapDrop, []string{"ALL"})
	},
	"no strong capability is added": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		return len(p.HostConfig.CapAdd) == 11 && !slices.ContainsFunc(p.HostConfig.CapAdd, func(name string) bool {
			return slices.Contains([]string{
				"ALL", "SYS_ADMIN", "NET_ADMIN", "NET_RAW", "MKNOD", "SYS_PTRACE", "SYS_MODULE", "SYS_RAWIO", "DAC_READ_SEARCH", "BPF", "PERFMON", "SETPCAP",
			}, strings.TrimPrefix(name, "CAP_"))
		})
	},
	"rights cannot be gained": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		return slices.Contains(p.HostConfig.SecurityOpt, "no-new-privileges:true")
	},
	"system calls are filtered by ours": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		filters := 0
		for _, option := range p.HostConfig.SecurityOpt {
			if text, ok := strings.CutPrefix(option, "seccomp="); ok && strings.HasPrefix(text, `{"defaultAction":"SCMP_ACT_ERRNO"`) {
				filters++
			}
		}
		return filters == 1 && !strings.Contains(strings.Join(p.HostConfig.SecurityOpt, " "), "unconfined")
	},
	"AppArmor is on where there is one": func(_ rental.Spec, _ luggage, known facts, p plan) bool {
		return slices.Contains(p.HostConfig.SecurityOpt, "apparmor=docker-default") == known.AppArmor
	},
	"the kernel's files stay hidden": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		return p.HostConfig.MaskedPaths == nil && p.HostConfig.ReadonlyPaths == nil && len(p.HostConfig.Sysctls) == 0
	},
	"it runs by runc": func(_ rental.Spec, _ luggage, _ facts, p plan) bool { return p.HostConfig.Runtime == "runc" },
	"only the agent starts it": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		return p.HostConfig.RestartPolicy.Name == "no" && !p.HostConfig.AutoRemove
	},
	"memory is as rented, without swap": func(s rental.Spec, _ luggage, _ facts, p plan) bool {
		h := p.HostConfig
		return h.Memory == s.MemoryBytes && h.Memory >= 6<<20 && h.MemorySwap == h.Memory && h.OomKillDisable == nil
	},
	"shared memory is within memory": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		return p.HostConfig.ShmSize > 0 && p.HostConfig.ShmSize <= p.HostConfig.Memory
	},
	"CPUs are limited": func(_ rental.Spec, _ luggage, _ facts, p plan) bool { return p.HostConfig.NanoCPUs >= 1e7 },
	"processes are limited": func(s rental.Spec, _ luggage, _ facts, p plan) bool {
		return *p.HostConfig.PidsLimit == s.PidsLimit && s.PidsLimit > 0
	},
	"the disk is limited where it can be": func(_ rental.Spec, _ luggage, known facts, p plan) bool {
		return (p.HostConfig.StorageOpt["size"] != "") == known.Quota
	},
	"nothing is dumped": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		u := p.HostConfig.Ulimits
		return len(u) == 1 && u[0].Name == "core" && u[0].Hard == 0 && u[0].Soft == 0
	},
	"the host outlives it when memory runs out": func(_ rental.Spec, _ luggage, _ facts, p plan) bool { return p.HostConfig.OomScoreAdj > 0 },
	"its log is bounded": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		return p.HostConfig.LogConfig.Type == "local" && p.HostConfig.LogConfig.Config["max-size"] == "10m" && p.HostConfig.LogConfig.Config["max-file"] == "3"
	},
	"ports are on loopback alone, or nowhere": func(s rental.Spec, _ luggage, known facts, p plan) bool {
		if known.Direct {
			return len(p.HostConfig.PortBindings) == 0 && !p.HostConfig.PublishAllPorts
		}
		for _, bindings := range p.HostConfig.PortBindings {
			if len(bindings) != 1 || bindings[0].HostIP != "127.0.0.1" || bindings[0].HostPort != "" {
				return false
			}
		}
		return len(p.HostConfig.PortBindings) == len(s.Ports) && !p.HostConfig.PublishAllPorts
	},
	"devices are of GPUs": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		return len(p.HostConfig.DeviceCgroupRules) == 0 && !slices.ContainsFunc(p.HostConfig.Devices, func(d container.DeviceMapping) bool {
			return !anyNode.MatchString(d.PathOnHost) || d.PathInContainer != d.PathOnHost || d.CgroupPermissions != "rw"
		})
	},
	"devices are those rented": func(s rental.Spec, _ luggage, _ facts, p plan) bool {
		amd := 0
		for _, gpu := range s.GPUs {
			if gpu.Vendor == rental.AMD {
				amd++
			}
		}
		if amd == 0 {
			return len(p.HostConfig.Devices) == 0
		}
		return len(p.HostConfig.Devices) == amd+1
	},
	"GPUs are asked for by UUID": func(s rental.Spec, _ luggage, known facts, p plan) bool {
		asked := 0
		for _, request := range p.HostConfig.DeviceRequests {
			if request.Count != 0 || len(request.Options) > 0 || (request.Driver == "cdi") != known.CDI {
				return false
			}
			for _, id := range request.DeviceIDs {
				if !anyGPU.MatchString(id) || strings.HasPrefix(id, "nvidia.com/") != known.CDI {
					return false
				}
				asked++
			}
		}
		nvidia := 0
		for _, gpu := range s.GPUs {
			if gpu.Vendor == "" {
				nvidia++
			}
		}
		return asked == nvidia && len(p.HostConfig.DeviceRequests) <= 1
	},
	"the last word on GPUs is ours": func(s rental.Spec, _ luggage, _ facts, p plan) bool {
		env := p.Config.Env
		visible := strings.TrimPrefix(env[len(env)-2], "NVIDIA_VISIBLE_DEVICES=")
		if env[len(env)-1] != "NVIDIA_DRIVER_CAPABILITIES=compute,utility" {
			return false
		}
		if visible == "void" {
			return len(p.HostConfig.DeviceRequests) == 0
		}
		for _, id := range strings.Split(visible, ",") {
			if !slices.ContainsFunc(s.GPUs, func(gpu rental.GPU) bool { return gpu.UUID == id }) {
				return false
			}
		}
		return true
	},
	"the renter sets nothing that is ours": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		for _, entry := range p.Config.Env[:len(p.Config.Env)-2] {
			name, _, set := strings.Cut(entry, "=")
			if name == "" || set && anyAbsent.MatchString(name) || strings.ContainsRune(entry, 0) {
				return false
			}
		}
		return true
	},
	"what the image sets of ours is taken away": func(_ rental.Spec, brought luggage, _ facts, p plan) bool {
		for _, name := range brought.Variables {
			kept := name == "LD_LIBRARY_PATH" || name == "NVIDIA_REQUIRE_CUDA"
			if anyAbsent.MatchString(name) && slices.Contains(p.Config.Env, name) == kept {
				return false
			}
		}
		return true
	},
	"it runs the pulled image": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		return p.Config.Image == testImage.ID && p.Config.Entrypoint == nil && p.Config.User == ""
	},
	"the image is not into the kernel's files": func(_ rental.Spec, brought luggage, _ facts, _ plan) bool {
		for _, place := range append([]string{brought.WorkingDir}, brought.Volumes...) {
			top, _, _ := strings.Cut(strings.TrimPrefix(path.Clean("/"+place), "/"), "/")
			if top == "proc" || top == "sys" || top == "dev" {
				return false
			}
		}
		return len(brought.Volumes) <= 32
	},
	"nobody talks to it": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		c := p.Config
		return !c.Tty && !c.OpenStdin && !c.AttachStdin && !c.AttachStdout && !c.AttachStderr && slices.Equal(c.Healthcheck.Test, []string{"NONE"})
	},
	"it is known as this agent's": func(s rental.Spec, _ luggage, _ facts, p plan) bool {
		return p.Name == "dc-"+string(s.ID) && sealed(p, s.ID) && p.Config.Labels[labelManaged] == "1"
	},
	"the image does not speak for us": func(_ rental.Spec, brought luggage, _ facts, p plan) bool {
		for _, name := range brought.Labels {
			if value, ok := p.Config.Labels[name]; strings.HasPrefix(name, "distributedcompute.") && !ok {
				return false
			} else if ok && value != "" && !slices.Contains([]string{labelManaged, labelRental, labelOwner, labelSpec, labelPorts, labelGPUs}, name) {
				return false
			}
		}
		return true
	},
	"what is made of it passes the look from outside": func(_ rental.Spec, _ luggage, _ facts, p plan) bool {
		fields, err := fieldsOf(p.HostConfig)
		return err == nil && fields["Privileged"] == "" && fields["Memory"] != ""
	},
}
