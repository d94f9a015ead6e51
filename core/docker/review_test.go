package docker

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/blkiodev"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"

	"github.com/distributedcompute/host-agent/core/rental"
)

// unset is the decision for a field that stays the engine's default, whatever is rented.
const unset = "never set"

// reviewed are all fields of what is sent to the engine, however deep, with the decision for each: "never set", or where
// the value comes from. A field that is not listed has come with a new version of the API, and needs a decision.
// Types that stand in no plan are listed all the same: their fields are decided before somebody uses them.
var reviewed = map[reflect.Type]map[string]string{
	reflect.TypeFor[container.Config](): {
		"Hostname": unset, "Domainname": unset, "User": unset, // the image's
		"AttachStdin": unset, "AttachStdout": unset, "AttachStderr": unset,
		"ExposedPorts": "the rented ports", "Tty": unset, "OpenStdin": unset, "StdinOnce": unset,
		"Env": "the renter's, checked, and ours", "Cmd": "the renter's", "Healthcheck": "constant NONE", "ArgsEscaped": unset,
		"Image": "the pulled image's id", "Volumes": unset, "WorkingDir": unset, "Entrypoint": unset,
		"NetworkDisabled": unset, "MacAddress": unset, "OnBuild": unset, "Labels": "what was rented, sealed",
		"StopSignal": unset, "StopTimeout": "constant", "Shell": unset,
	},
	reflect.TypeFor[container.HealthConfig](): {
		"Test": "constant NONE", "Interval": unset, "Timeout": unset, "StartPeriod": unset, "StartInterval": unset, "Retries": unset,
	},
	reflect.TypeFor[container.HostConfig](): {
		"Binds": unset, "ContainerIDFile": unset, "LogConfig": "constant", "NetworkMode": "own network",
		"PortBindings": "the rented ports, on loopback, unless the agent reaches the container's address", "RestartPolicy": "constant no", "AutoRemove": unset, "VolumeDriver": unset,
		"VolumesFrom": unset, "ConsoleSize": unset, "Annotations": unset, "CapAdd": "constant", "CapDrop": "constant ALL",
		"CgroupnsMode": "constant private", "DNS": "constant", "DNSOptions": unset, "DNSSearch": "constant none", "ExtraHosts": unset,
		"GroupAdd": unset, "IpcMode": "constant private", "Cgroup": unset, "Links": unset, "OomScoreAdj": "constant",
		"PidMode": unset, "Privileged": unset, "PublishAllPorts": unset, "ReadonlyRootfs": unset,
		"SecurityOpt": "constant, and AppArmor where the engine has it", "StorageOpt": "the rented size, where the engine keeps to it",
		"Tmpfs": unset, "UTSMode": unset, "UsernsMode": unset, "ShmSize": "the rented size", "Sysctls": unset,
		"Runtime": "constant runc", "Isolation": unset, "Resources": "field by field", "Mounts": unset, "MaskedPaths": unset,
		"ReadonlyPaths": unset, "Init": "constant",
	},
	reflect.TypeFor[container.Resources](): {
		"CPUShares": unset, "Memory": "rented", "NanoCPUs": "rented", "CgroupParent": unset, "BlkioWeight": unset,
		"BlkioWeightDevice": unset, "BlkioDeviceReadBps": unset, "BlkioDeviceWriteBps": unset,
		"BlkioDeviceReadIOps": unset, "BlkioDeviceWriteIOps": unset, "CPUPeriod": unset, "CPUQuota": unset,
		"CPURealtimePeriod": unset, "CPURealtimeRuntime": unset, "CpusetCpus": unset, "CpusetMems": unset,
		"Devices": "the rented GPUs that are AMD's", "DeviceCgroupRules": unset, "DeviceRequests": "the rented GPUs that are NVIDIA's",
		"KernelMemory": unset, "KernelMemoryTCP": unset, "MemoryReservation": unset, "MemorySwap": "rented, as Memory",
		"MemorySwappiness": unset, "OomKillDisable": unset, "PidsLimit": "rented", "Ulimits": "constant", "CPUCount": unset,
		"CPUPercent": unset, "IOMaximumIOps": unset, "IOMaximumBandwidth": unset,
	},
	reflect.TypeFor[container.DeviceRequest](): {
		"Driver": "constant nvidia or cdi", "Count": unset, "DeviceIDs": "the rented UUIDs", "Capabilities": "constant", "Options": unset,
	},
	reflect.TypeFor[container.DeviceMapping](): {
		"PathOnHost": "the GPU's node", "PathInContainer": "the same", "CgroupPermissions": "constant rw",
	},
	reflect.TypeFor[container.LogConfig]():      {"Type": "constant local", "Config": "constant"},
	reflect.TypeFor[container.RestartPolicy]():  {"Name": "constant no", "MaximumRetryCount": unset},
	reflect.TypeFor[container.Ulimit]():         {"Name": "constant core", "Hard": unset, "Soft": unset},
	reflect.TypeFor[nat.PortBinding]():          {"HostIP": "constant loopback", "HostPort": unset},
	reflect.TypeFor[network.NetworkingConfig](): {"EndpointsConfig": "own network, no settings"},
	reflect.TypeFor[network.EndpointSettings](): {
		"IPAMConfig": unset, "Links": unset, "Aliases": unset, "MacAddress": unset, "DriverOpts": unset, "GwPriority": unset,
		"NetworkID": unset, "EndpointID": unset, "Gateway": unset, "IPAddress": unset, "IPPrefixLen": unset, "IPv6Gateway": unset,
		"GlobalIPv6Address": unset, "GlobalIPv6PrefixLen": unset, "DNSNames": unset,
	},
	reflect.TypeFor[network.CreateOptions](): {
		"Driver": "constant bridge", "Scope": unset, "EnableIPv4": unset, "EnableIPv6": "constant false", "IPAM": "own range",
		"Internal": unset, "Attachable": unset, "Ingress": unset, "ConfigOnly": unset, "ConfigFrom": unset,
		"Options": "constant and own bridge", "Labels": "seal",
	},
	reflect.TypeFor[blkiodev.WeightDevice]():      {"Path": unset, "Weight": unset},
	reflect.TypeFor[blkiodev.ThrottleDevice]():    {"Path": unset, "Rate": unset},
	reflect.TypeFor[network.EndpointIPAMConfig](): {"IPv4Address": unset, "IPv6Address": unset, "LinkLocalIPs": unset},
	reflect.TypeFor[network.ConfigReference]():    {"Network": unset},
	reflect.TypeFor[network.IPAM]():               {"Driver": "constant default", "Options": unset, "Config": "own range"},
	reflect.TypeFor[network.IPAMConfig]():         {"Subnet": "own range", "IPRange": unset, "Gateway": "its first address", "AuxAddress": unset},
	reflect.TypeFor[mount.Mount](): {
		"Type": unset, "Source": unset, "Target": unset, "ReadOnly": unset, "Consistency": unset, "BindOptions": unset,
		"VolumeOptions": unset, "ImageOptions": unset, "TmpfsOptions": unset, "ClusterOptions": unset,
	},
	reflect.TypeFor[mount.BindOptions](): {
		"Propagation": unset, "NonRecursive": unset, "CreateMountpoint": unset, "ReadOnlyNonRecursive": unset, "ReadOnlyForceRecursive": unset,
	},
	reflect.TypeFor[mount.VolumeOptions]():  {"NoCopy": unset, "Labels": unset, "Subpath": unset, "DriverConfig": unset},
	reflect.TypeFor[mount.ImageOptions]():   {"Subpath": unset},
	reflect.TypeFor[mount.Driver]():         {"Name": unset, "Options": unset},
	reflect.TypeFor[mount.TmpfsOptions]():   {"SizeBytes": unset, "Mode": unset, "Options": unset},
	reflect.TypeFor[mount.ClusterOptions](): {},
}

// maximal is a rental of all that can be rented, GPUs of both makers included.
func maximal() rental.Spec {
	s := greatest()
	s.GPUs = append(s.GPUs, rental.GPU{Index: 7, UUID: "card-7", Vendor: rental.AMD, Render: "renderD135"})
	return s
}

// review walks what is sent to the engine and what it could hold, field by field.
type review struct {
	t      *testing.T
	met    map[reflect.Type]bool            // types whose fields have been gone through
	filled map[reflect.Type]map[string]bool // fields that some plan sets
}

func TestEveryFieldIsReviewed(t *testing.T) {
	r := review{t, make(map[reflect.Type]bool), make(map[reflect.Type]map[string]bool)}
	for _, known := range []facts{{AppArmor: true, Quota: true}, {CDI: true}} {
		p, err := newPlan(maximal(), testImage, testBrought, "dc-net-test", known, testSeal)
		if err != nil {
			t.Fatal(err)
		}
		for _, sent := range []any{p.Config, p.HostConfig, p.Networking, networkOptions("dc-net-test", testSubnet, testSeal)} {
			r.fields(reflect.TypeOf(sent))
			r.values(reflect.ValueOf(sent))
		}
	}
	for kind, decisions := range reviewed {
		if !r.met[kind] {
			t.Errorf("%s is sent nowhere any more", kind)
		}
		for name, decision := range decisions {
			if _, ok := kind.FieldByName(name); !ok {
				t.Errorf("%s has no field %s any more", kind, name)
			}
			if decision != unset && !r.filled[kind][name] {
				t.Errorf("%s.%s is set by no plan, though it was decided to be: %s", kind, name, decision)
			}
		}
	}
}

// ours reports whether a type's fields go to the engine one by one: those of its client's packages.
func (r *review) ours(kind reflect.Type) bool {
	return kind.Kind() == reflect.Struct && strings.Contains(kind.PkgPath(), "/") && !strings.HasPrefix(kind.PkgPath(), "net/")
}

// fields demands a decision for every field of a type and of all types that it leads to.
func (r *review) fields(kind reflect.Type) {
	switch kind.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		r.fields(kind.Elem())
		return
	case reflect.Map:
		r.fields(kind.Key())
		r.fields(kind.Elem())
		return
	}
	if !r.ours(kind) || r.met[kind] {
		return
	}
	r.met[kind] = true
	for field := range kind.Fields() {
		if reviewed[kind][field.Name] == "" {
			r.t.Errorf("%s.%s has not been reviewed", kind, field.Name)
		}
		r.fields(field.Type)
	}
}

// values checks that what was decided to stay the engine's default does.
func (r *review) values(value reflect.Value) {
	switch value.Kind() {
	case reflect.Pointer:
		if !value.IsNil() {
			r.values(value.Elem())
		}
	case reflect.Slice, reflect.Array:
		for i := range value.Len() {
			r.values(value.Index(i))
		}
	case reflect.Map:
		for _, element := range value.Seq2() {
			r.values(element)
		}
	case reflect.Struct:
		if !r.ours(value.Type()) {
			return
		}
		for field, content := range value.Fields() {
			switch {
			case content.IsZero():
				continue
			case reviewed[value.Type()][field.Name] == unset:
				r.t.Errorf("%s.%s is %v, which was decided never to be set", value.Type(), field.Name, content)
			}
			if r.filled[value.Type()] == nil {
				r.filled[value.Type()] = make(map[string]bool)
			}
			r.filled[value.Type()][field.Name] = true
			r.values(content)
		}
	}
}

// The review is of use only if it sees what is wrong.
func TestReviewSeesWhatIsNew(t *testing.T) {
	kinds := slices.Collect(maps.Keys(reviewed))
	if len(kinds) < 20 {
		t.Errorf("only %d types are reviewed", len(kinds))
	}
	for _, kind := range []reflect.Type{reflect.TypeFor[container.HostConfig](), reflect.TypeFor[container.Config]()} {
		if got, want := len(reviewed[kind]), kind.NumField(); got != want {
			t.Errorf("%d of %d fields of %s are reviewed", got, want, kind)
		}
	}
}
