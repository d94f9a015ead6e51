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

// never is the decision for a field that stays the engine's default, whatever is rented.
const never = "never set"

// reviewed are all fields of what is sent to the engine, however deep, with the decision for each: "never set", or where
// the value comes from. A field that is not listed has come with a new version of the API, and needs a decision.
// Types that stand in no plan are listed all the same: their fields are decided before somebody uses them.
var reviewed = map[reflect.Type]map[string]string{
	reflect.TypeFor[container.Config](): {
		"Hostname": never, "Domainname": never, "User": never, // the image's
		"AttachStdin": never, "AttachStdout": never, "AttachStderr": never,
		"ExposedPorts": "the rented ports", "Tty": never, "OpenStdin": never, "StdinOnce": never,
		"Env": "the renter's, checked, and ours", "Cmd": "the renter's", "Healthcheck": "constant NONE", "ArgsEscaped": never,
		"Image": "the pulled image's id", "Volumes": never, "WorkingDir": never, "Entrypoint": never,
		"NetworkDisabled": never, "MacAddress": never, "OnBuild": never, "Labels": "what was rented, sealed",
		"StopSignal": never, "StopTimeout": "constant", "Shell": never,
	},
	reflect.TypeFor[container.HealthConfig](): {
		"Test": "constant NONE", "Interval": never, "Timeout": never, "StartPeriod": never, "StartInterval": never, "Retries": never,
	},
	reflect.TypeFor[container.HostConfig](): {
		"Binds": never, "ContainerIDFile": never, "LogConfig": "constant", "NetworkMode": "own network",
		"PortBindings": "the rented ports, on loopback", "RestartPolicy": "constant no", "AutoRemove": never, "VolumeDriver": never,
		"VolumesFrom": never, "ConsoleSize": never, "Annotations": never, "CapAdd": "constant", "CapDrop": "constant ALL",
		"CgroupnsMode": "constant private", "DNS": "constant", "DNSOptions": never, "DNSSearch": "constant none", "ExtraHosts": never,
		"GroupAdd": never, "IpcMode": "constant private", "Cgroup": never, "Links": never, "OomScoreAdj": "constant",
		"PidMode": never, "Privileged": never, "PublishAllPorts": never, "ReadonlyRootfs": never,
		"SecurityOpt": "constant, and AppArmor where the engine has it", "StorageOpt": "the rented size, where the engine keeps to it",
		"Tmpfs": never, "UTSMode": never, "UsernsMode": never, "ShmSize": "the rented size", "Sysctls": never,
		"Runtime": "constant runc", "Isolation": never, "Resources": "field by field", "Mounts": never, "MaskedPaths": never,
		"ReadonlyPaths": never, "Init": "constant",
	},
	reflect.TypeFor[container.Resources](): {
		"CPUShares": never, "Memory": "rented", "NanoCPUs": "rented", "CgroupParent": never, "BlkioWeight": never,
		"BlkioWeightDevice": never, "BlkioDeviceReadBps": never, "BlkioDeviceWriteBps": never,
		"BlkioDeviceReadIOps": never, "BlkioDeviceWriteIOps": never, "CPUPeriod": never, "CPUQuota": never,
		"CPURealtimePeriod": never, "CPURealtimeRuntime": never, "CpusetCpus": never, "CpusetMems": never,
		"Devices": "the rented GPUs that are AMD's", "DeviceCgroupRules": never, "DeviceRequests": "the rented GPUs that are NVIDIA's",
		"KernelMemory": never, "KernelMemoryTCP": never, "MemoryReservation": never, "MemorySwap": "rented, as Memory",
		"MemorySwappiness": never, "OomKillDisable": never, "PidsLimit": "rented", "Ulimits": "constant", "CPUCount": never,
		"CPUPercent": never, "IOMaximumIOps": never, "IOMaximumBandwidth": never,
	},
	reflect.TypeFor[container.DeviceRequest](): {
		"Driver": "constant nvidia or cdi", "Count": never, "DeviceIDs": "the rented UUIDs", "Capabilities": "constant", "Options": never,
	},
	reflect.TypeFor[container.DeviceMapping](): {
		"PathOnHost": "the GPU's node", "PathInContainer": "the same", "CgroupPermissions": "constant rw",
	},
	reflect.TypeFor[container.LogConfig]():      {"Type": "constant local", "Config": "constant"},
	reflect.TypeFor[container.RestartPolicy]():  {"Name": "constant no", "MaximumRetryCount": never},
	reflect.TypeFor[container.Ulimit]():         {"Name": "constant core", "Hard": never, "Soft": never},
	reflect.TypeFor[nat.PortBinding]():          {"HostIP": "constant loopback", "HostPort": never},
	reflect.TypeFor[network.NetworkingConfig](): {"EndpointsConfig": "own network, no settings"},
	reflect.TypeFor[network.EndpointSettings](): {
		"IPAMConfig": never, "Links": never, "Aliases": never, "MacAddress": never, "DriverOpts": never, "GwPriority": never,
		"NetworkID": never, "EndpointID": never, "Gateway": never, "IPAddress": never, "IPPrefixLen": never, "IPv6Gateway": never,
		"GlobalIPv6Address": never, "GlobalIPv6PrefixLen": never, "DNSNames": never,
	},
	reflect.TypeFor[network.CreateOptions](): {
		"Driver": "constant bridge", "Scope": never, "EnableIPv4": never, "EnableIPv6": "constant false", "IPAM": never,
		"Internal": never, "Attachable": never, "Ingress": never, "ConfigOnly": never, "ConfigFrom": never,
		"Options": "constant and own bridge", "Labels": "seal",
	},
	reflect.TypeFor[blkiodev.WeightDevice]():      {"Path": never, "Weight": never},
	reflect.TypeFor[blkiodev.ThrottleDevice]():    {"Path": never, "Rate": never},
	reflect.TypeFor[network.EndpointIPAMConfig](): {"IPv4Address": never, "IPv6Address": never, "LinkLocalIPs": never},
	reflect.TypeFor[network.ConfigReference]():    {"Network": never},
	reflect.TypeFor[network.IPAM]():               {"Driver": never, "Options": never, "Config": never},
	reflect.TypeFor[network.IPAMConfig]():         {"Subnet": never, "IPRange": never, "Gateway": never, "AuxAddress": never},
	reflect.TypeFor[mount.Mount](): {
		"Type": never, "Source": never, "Target": never, "ReadOnly": never, "Consistency": never, "BindOptions": never,
		"VolumeOptions": never, "ImageOptions": never, "TmpfsOptions": never, "ClusterOptions": never,
	},
	reflect.TypeFor[mount.BindOptions](): {
		"Propagation": never, "NonRecursive": never, "CreateMountpoint": never, "ReadOnlyNonRecursive": never, "ReadOnlyForceRecursive": never,
	},
	reflect.TypeFor[mount.VolumeOptions]():  {"NoCopy": never, "Labels": never, "Subpath": never, "DriverConfig": never},
	reflect.TypeFor[mount.ImageOptions]():   {"Subpath": never},
	reflect.TypeFor[mount.Driver]():         {"Name": never, "Options": never},
	reflect.TypeFor[mount.TmpfsOptions]():   {"SizeBytes": never, "Mode": never, "Options": never},
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
		for _, sent := range []any{p.Config, p.HostConfig, p.Networking, networkOptions("dc-net-test", testSeal)} {
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
			if decision != never && !r.filled[kind][name] {
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
			case reviewed[value.Type()][field.Name] == never:
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
