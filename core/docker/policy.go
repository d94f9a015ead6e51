package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"

	"github.com/distributedcompute/host-agent/core/rental"
)

// capabilities are what a renter who is root in the container needs for apt, sshd, useradd and tar.
// Of Docker's own list NET_RAW (forged packets), MKNOD (device files) and SETPCAP are missing.
var capabilities = []string{
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL",
	"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETUID", "SYS_CHROOT",
}

// resolvers are public, because the network's own is on the host's LAN, which the shield keeps rentals off, and knows the
// names in it.
var resolvers = []string{"1.1.1.1", "8.8.8.8"}

// noSearch keeps the host's search domains from rentals; it is the engine's way to say none.
var noSearch = []string{"."}

// needed are those of the reserved variables that an image keeps, as many would not run without: where it has its
// libraries, and which driver it requires of the host. Neither hands out anything.
var needed = []string{"LD_LIBRARY_PATH", "NVIDIA_REQUIRE_CUDA"}

const (
	loopback      = "127.0.0.1"
	runtimeName   = "runc" // named, because the engine's default may be one that hands out all GPUs
	defaultShm    = 64 << 20
	leastMemory   = 6 << 20 // what the engine accepts
	stopSeconds   = 10      // what a shutdown of the engine, and so of the host, waits for a renter's program
	oomScore      = 500     // when memory runs out the rental dies, not the host's desktop
	gpuAbilities  = "compute,utility"
	noGPU         = "void" // tells NVIDIA's runtime to hand out nothing, whatever the image says
	maxEnvBytes   = 64 << 10
	maxLogFile    = "10m"
	maxLogFiles   = "3"
	networkDriver = "bridge"
)

var (
	gpuPattern  = regexp.MustCompile(`^(GPU|MIG)-[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)
	nodePattern = regexp.MustCompile(`^/dev/(kfd|dri/renderD[1-9][0-9]{2,5})$`)
	envPattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,255}$`)
	idPattern   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// facts are what the policy needs to know of the engine.
type facts struct {
	AppArmor     bool   // its default profile can be named
	Quota        bool   // its storage has been seen to hold a container to its size
	LiveRestore  bool   // containers outlive its restarts
	Unshieldable string // the kind of engine it is, if its containers reach the LAN past the packet filter
	Remapped     bool   // containers' users are others on the host
	NoSwapLimit  bool   // it cannot keep containers from the host's swap
	Architecture string // its processor, as images name it
	OffersCDI    bool   // it can hand out devices that are described on the host, NVIDIA's maybe among them
	Direct       bool   // the agent reaches containers at their own addresses
	CDI          bool   // it is to hand out NVIDIA's GPUs by their description, as their hook does not
}

// plan is everything that is asked of the engine for one rental.
type plan struct {
	Name       string
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig
}

// newPlan turns a rental into the container that it may have, on a network of its own. It is pure and the
// only place where containers are shaped: what is not written here, a renter cannot get. A spec that asks
// for more, or an image that does, is a *rental.Failure.
func newPlan(spec rental.Spec, image rental.Image, brought luggage, net string, facts facts, seal seal) (plan, error) {
	if err := checkSpec(spec, image); err != nil {
		return plan{}, err
	}
	if failure := checkImage(brought, facts.Architecture); failure != nil {
		return plan{}, failure
	}
	env, err := environment(spec, brought.Variables)
	if err != nil {
		return plan{}, err
	}
	labels, err := labels(spec, image, brought.Labels, net, seal)
	if err != nil {
		return plan{}, err
	}
	host, err := shape{
		Network: net, MemoryBytes: spec.MemoryBytes, NanoCPUs: int64(spec.CPUs * 1e9), Pids: spec.PidsLimit, ShmBytes: shm(spec),
		Storage: storage(spec, facts), Ports: spec.Ports, GPUs: spec.GPUs,
		AppArmor: facts.AppArmor, CDI: facts.CDI, Direct: facts.Direct,
	}.hostConfig()
	if err != nil {
		return plan{}, err
	}
	exposed, _ := ports(spec.Ports)
	return plan{
		Name: containerName(spec.ID),
		Config: &container.Config{
			Image:        image.ID, // what was pulled, not what the tag may say by now
			Cmd:          spec.Command,
			Env:          env,
			ExposedPorts: exposed,
			Labels:       labels,
			// An image's own check would be a program that the engine starts again and again.
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
			StopTimeout: new(stopSeconds),
		},
		HostConfig: host,
		Networking: &network.NetworkingConfig{
			EndpointsConfig: map[string]*network.EndpointSettings{net: {}},
		},
	}, nil
}

// shape is what one rental's place on the host differs in from another's.
type shape struct {
	Network               string
	MemoryBytes, ShmBytes int64
	NanoCPUs, Pids        int64
	Storage               map[string]string
	Ports                 []rental.Port
	GPUs                  []rental.GPU
	AppArmor, CDI, Direct bool
}

// hostConfig is all that concerns the host. The same function tells what a container that runs must look like.
func (s shape) hostConfig() (*container.HostConfig, error) {
	devices, err := deviceNodes(s.GPUs)
	if err != nil {
		return nil, err
	}
	_, published := ports(s.Ports)
	if s.Direct {
		published = nil // nothing on the host listens for anybody
	}
	return &container.HostConfig{
		Runtime:      runtimeName,
		NetworkMode:  container.NetworkMode(s.Network),
		PortBindings: published,
		DNS:          resolvers,
		DNSSearch:    noSearch,
		// Only the agent may start a rental: an engine that does would be ahead of every check.
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		Init:          new(true),
		CapDrop:       []string{"ALL"},
		CapAdd:        capabilities,
		SecurityOpt:   securityOptions(s.AppArmor),
		IpcMode:       container.IPCModePrivate,
		CgroupnsMode:  container.CgroupnsModePrivate,
		ShmSize:       s.ShmBytes,
		OomScoreAdj:   oomScore,
		LogConfig: container.LogConfig{
			Type:   "local",
			Config: map[string]string{"max-size": maxLogFile, "max-file": maxLogFiles},
		},
		StorageOpt: s.Storage,
		Resources: container.Resources{
			Devices:        devices,
			Memory:         s.MemoryBytes,
			MemorySwap:     s.MemoryBytes, // the sum of both: no swap
			NanoCPUs:       s.NanoCPUs,
			PidsLimit:      new(s.Pids),
			Ulimits:        []*container.Ulimit{{Name: "core", Soft: 0, Hard: 0}},
			DeviceRequests: deviceRequests(s.GPUs, s.CDI),
		},
	}, nil
}

// recipe tells one way of making containers from another: it changes with whatever is the same for all rentals.
func recipe() string {
	made, err := shape{
		Network: "net", MemoryBytes: 1, ShmBytes: 1, NanoCPUs: 1, Pids: 1, AppArmor: true,
		GPUs: []rental.GPU{{UUID: "GPU", Vendor: rental.NVIDIA}, {Vendor: rental.AMD, Render: "renderD128"}},
	}.hostConfig()
	if err != nil {
		panic("making a container of constants: " + err.Error())
	}
	fields, err := fieldsOf(made)
	if err != nil {
		panic("describing a container of constants: " + err.Error())
	}
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		fmt.Fprintf(sum, "%s=%s\n", name, fields[name])
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// networkOptions shape a rental's own bridge: containers on it cannot reach each other, and ports that are published are so
// on loopback. The names of the bridges begin alike for the shield to find them by.
func networkOptions(name string, subnet netip.Prefix, seal seal) network.CreateOptions {
	return network.CreateOptions{
		IPAM:       addressing(subnet),
		Driver:     networkDriver,
		EnableIPv6: new(false),
		Options: map[string]string{
			"com.docker.network.bridge.name":              bridgeName(name),
			"com.docker.network.bridge.enable_icc":        "false",
			"com.docker.network.bridge.host_binding_ipv4": loopback,
		},
		Labels: map[string]string{
			labelManaged: "1",
			labelOwner:   seal.of(kindNetwork, name),
		},
	}
}

// addressing gives a network a range and its gateway the first address of that. It is nil for no range in particular.
func addressing(subnet netip.Prefix) *network.IPAM {
	if !subnet.IsValid() {
		return nil
	}
	return &network.IPAM{
		Driver: "default",
		Config: []network.IPAMConfig{{Subnet: subnet.String(), Gateway: subnet.Addr().Next().String()}},
	}
}

// checkSpec repeats, next to the engine, what whoever made the spec has to have checked: a zero would
// mean "unlimited" to the engine.
func checkSpec(spec rental.Spec, image rental.Image) error {
	if _, err := rental.ParseID(string(spec.ID)); err != nil {
		return rental.Failf(rental.CodeInvalid, "%v.", err)
	}
	switch {
	case !idPattern.MatchString(image.ID):
		return rental.Failf(rental.CodeInvalid, "Image %.80q is not an image id.", image.ID)
	case spec.MemoryBytes < leastMemory:
		return rental.Failf(rental.CodeInvalid, "Memory of %d bytes is below the least of %d.", spec.MemoryBytes, leastMemory)
	case !(spec.CPUs >= 0.01 && spec.CPUs <= 4096): // also refuses NaN
		return rental.Failf(rental.CodeInvalid, "Cpus of %g is not between 0.01 and 4096.", spec.CPUs)
	case spec.PidsLimit < 1:
		return rental.Failf(rental.CodeInvalid, "A pids limit of %d is none.", spec.PidsLimit)
	case spec.DiskBytes < 0 || spec.ShmBytes < 0:
		return rental.Failf(rental.CodeInvalid, "A size is below zero.")
	case spec.ShmBytes > spec.MemoryBytes:
		return rental.Failf(rental.CodeInvalid, "Shared memory of %d bytes is more than the memory of %d.", spec.ShmBytes, spec.MemoryBytes)
	}
	for _, word := range spec.Command {
		if strings.ContainsRune(word, 0) {
			return rental.Failf(rental.CodeInvalid, "The command holds a NUL character.")
		}
	}
	return errorsOf(checkGPUs(spec.GPUs), checkPorts(spec.Ports))
}

// errorsOf is the first failure there is.
func errorsOf(failures ...*rental.Failure) error {
	for _, failure := range failures {
		if failure != nil {
			return failure
		}
	}
	return nil
}

func checkGPUs(gpus []rental.GPU) *rental.Failure {
	seen := make(map[string]bool, len(gpus))
	for i, gpu := range gpus {
		if gpu.Vendor == rental.NVIDIA && !gpuPattern.MatchString(gpu.UUID) {
			return rental.Failf(rental.CodeInvalid, "GPU %.80q is not a GPU's UUID.", gpu.UUID)
		}
		if _, err := gpu.DeviceNodes(); err != nil {
			return rental.Failf(rental.CodeInvalid, "%v.", err)
		}
		for _, name := range []string{strings.ToLower(gpu.UUID), gpu.Render} {
			if name != "" && seen[name] {
				return rental.Failf(rental.CodeInvalid, "GPU %.80s is asked for twice.", name)
			}
			seen[name] = true
		}
		if slices.ContainsFunc(gpus[:i], gpu.Overlaps) {
			return rental.Failf(rental.CodeInvalid, "GPU %.80s and a part of it are asked for.", gpu.UUID)
		}
	}
	return nil
}

func checkPorts(ports []rental.Port) *rental.Failure {
	seen := make(map[nat.Port]bool, len(ports))
	for _, port := range ports {
		if port.Container == 0 || (port.Protocol != rental.TCP && port.Protocol != rental.UDP) {
			return rental.Failf(rental.CodeInvalid, "Port %.40q cannot be published.", port.String())
		}
		if seen[natPort(port)] {
			return rental.Failf(rental.CodeInvalid, "Port %s is asked for twice.", port)
		}
		seen[natPort(port)] = true
	}
	return nil
}

// environment is the renter's, in the order of names, followed by ours: of two settings the last counts.
// A name without a value takes away what the image has under it.
func environment(spec rental.Spec, brought []string) ([]string, error) {
	env := make([]string, 0, len(spec.Env)+len(brought)+2)
	size := 0
	for _, name := range slices.Sorted(maps.Keys(spec.Env)) {
		value := spec.Env[name]
		if !envPattern.MatchString(name) || strings.ContainsRune(value, 0) {
			return nil, rental.Failf(rental.CodeInvalid, "Environment variable %.80q cannot be set.", name)
		}
		if rental.ReservedVariable(name) {
			return nil, rental.Failf(rental.CodeInvalid, "Environment variable %s is set by the host, not by the renter.", name)
		}
		if size += len(name) + len(value); size > maxEnvBytes {
			return nil, rental.Failf(rental.CodeInvalid, "The environment is larger than %d bytes.", maxEnvBytes)
		}
		env = append(env, name+"="+value)
	}
	for _, name := range brought {
		if rental.ReservedVariable(name) && !slices.Contains(needed, name) {
			env = append(env, name)
		}
	}
	return append(env, visibleVariable+"="+visibleDevices(spec.GPUs), "NVIDIA_DRIVER_CAPABILITIES="+gpuAbilities), nil
}

// visibleVariable tells NVIDIA's runtime which GPUs to hand out.
const visibleVariable = "NVIDIA_VISIBLE_DEVICES"

func visibleDevices(gpus []rental.GPU) string {
	if ids := uuids(gpus); len(ids) > 0 {
		return strings.Join(ids, ",")
	}
	return noGPU
}

// The drivers of engines that hand out NVIDIA's GPUs: by NVIDIA's own hook, or by what the host says of its devices.
const (
	driverHook = "nvidia"
	driverCDI  = "cdi"
	cdiKind    = "nvidia.com/gpu="
)

// deviceRequests ask for exactly these GPUs, where they are NVIDIA's.
func deviceRequests(gpus []rental.GPU, cdi bool) []container.DeviceRequest {
	ids := uuids(gpus)
	switch {
	case len(ids) == 0:
		return nil
	case cdi:
		for i, id := range ids {
			ids[i] = cdiKind + id
		}
		return []container.DeviceRequest{{Driver: driverCDI, DeviceIDs: ids}}
	}
	return []container.DeviceRequest{{
		Driver:       driverHook,
		DeviceIDs:    ids,
		Capabilities: [][]string{append([]string{"gpu"}, strings.Split(gpuAbilities, ",")...)},
	}}
}

// uuids are those of NVIDIA's GPUs, which engines are asked for by UUID.
func uuids(gpus []rental.GPU) []string {
	var ids []string
	for _, gpu := range gpus {
		if gpu.Vendor == rental.NVIDIA {
			ids = append(ids, gpu.UUID)
		}
	}
	return ids
}

// deviceNodes are the devices of the host that come with these GPUs, each once. They may be read and written; to make
// others like them takes a capability that rentals do not have.
func deviceNodes(gpus []rental.GPU) ([]container.DeviceMapping, error) {
	var nodes []container.DeviceMapping
	seen := make(map[string]bool)
	for _, gpu := range gpus {
		paths, err := gpu.DeviceNodes()
		if err != nil {
			return nil, rental.Failf(rental.CodeInvalid, "%v.", err)
		}
		for _, place := range paths {
			if !nodePattern.MatchString(place) {
				return nil, rental.Failf(rental.CodeInvalid, "%.80q is no device of a GPU.", place)
			}
			if !seen[place] {
				nodes = append(nodes, container.DeviceMapping{PathOnHost: place, PathInContainer: place, CgroupPermissions: "rw"})
			}
			seen[place] = true
		}
	}
	return nodes, nil
}

// ports are published on loopback, each on a port that the engine chooses.
func ports(rented []rental.Port) (nat.PortSet, nat.PortMap) {
	exposed, published := nat.PortSet{}, nat.PortMap{}
	for _, port := range rented {
		exposed[natPort(port)] = struct{}{}
		published[natPort(port)] = []nat.PortBinding{{HostIP: loopback}}
	}
	return exposed, published
}

func natPort(port rental.Port) nat.Port {
	return nat.Port(strconv.Itoa(int(port.Container)) + "/" + string(port.Protocol))
}

// labels are what the container is known by. What an image has of ours is overridden, and emptied where we set none.
func labels(spec rental.Spec, image rental.Image, brought []string, net string, seal seal) (map[string]string, error) {
	shape, err := fingerprint(spec, image)
	if err != nil {
		return nil, err
	}
	rented, err := json.Marshal(spec.Ports)
	if err != nil {
		return nil, fmt.Errorf("encoding ports: %w", err)
	}
	gpus, err := json.Marshal(spec.GPUs)
	if err != nil {
		return nil, fmt.Errorf("encoding GPUs: %w", err)
	}
	set := make(map[string]string)
	for _, name := range brought {
		if strings.HasPrefix(strings.ToLower(name), labelPrefix) {
			set[name] = ""
		}
	}
	maps.Copy(set, map[string]string{
		labelManaged: "1",
		labelRental:  string(spec.ID),
		labelSpec:    shape,
		labelPorts:   string(rented),
		labelGPUs:    string(gpus),
		labelDisk:    strconv.FormatInt(diskLimit(spec), 10),
		labelRecipe:  recipe(),
	})
	set[labelOwner] = seal.ofContainer(set, net)
	return set, nil
}

const appArmorOption = "apparmor=docker-default"

// securityOptions name our own filter of system calls, whatever the engine's is: old engines let through what new
// ones have learned to refuse, some filter nothing, and a host may have loosened its own.
func securityOptions(appArmor bool) []string {
	options := []string{"no-new-privileges:true", seccompOption + systemCallFilter()}
	if appArmor {
		options = append(options, appArmorOption)
	}
	return options
}

func shm(spec rental.Spec) int64 {
	if spec.ShmBytes > 0 {
		return spec.ShmBytes
	}
	return min(defaultShm, spec.MemoryBytes)
}

func storage(spec rental.Spec, facts facts) map[string]string {
	if !facts.Quota {
		return nil
	}
	return map[string]string{"size": strconv.FormatInt(diskLimit(spec), 10)}
}
