package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/secret"
)

var (
	twoGPUs    = []rental.GPU{{Index: 0, UUID: "GPU-aaaa"}, {Index: 1, UUID: "GPU-bbbb"}}
	testLimits = Limits{Rentals: 8, Pids: 4096, Ports: 4}
)

// received reads an order as it comes over the wire, where it can come: JSON has no NaN and no infinity.
func received(t *testing.T, order *protocol.StartInstance) (rental.Spec, *protocol.Error) {
	t.Helper()
	ports := map[string]uint16{} // a PortKey writes itself only as what it may be
	for key, public := range order.PortMapping {
		ports[fmt.Sprintf("%d/%s", key.Port, key.Protocol)] = public
	}
	mapping, err := json.Marshal(ports)
	if err != nil {
		t.Fatal(err)
	}
	bare := *order
	bare.PortMapping = nil
	frame, err := protocol.Encode("c", &bare)
	if _, unspeakable := errors.AsType[*json.UnsupportedValueError](err); unspeakable {
		return readOrder(order, twoGPUs, testLimits)
	}
	if errors.Is(err, protocol.ErrTooLarge) {
		return rental.Spec{}, invalid("%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	frame = bytes.Replace(frame, []byte(`"data":{`), fmt.Appendf(nil, `"data":{"port_mapping":%s,`, mapping), 1)
	in, err := protocol.Decode(frame)
	if fault, ok := errors.AsType[*protocol.DecodeError](err); ok {
		return rental.Spec{}, fault.Err
	}
	return readOrder(in.Data.(*protocol.StartInstance), twoGPUs, testLimits)
}

func TestReadOrder(t *testing.T) {
	expires := time.Date(2030, 1, 1, 12, 0, 0, 0, time.FixedZone("CET", 3600))
	got, refusal := received(t, &protocol.StartInstance{
		RentalID: "r-1.a_B", Image: "pytorch/pytorch:2.9", Command: []string{"sh", "-c", "echo $HOME; sleep 1"},
		EnvVars: map[string]string{"JUPYTER_TOKEN": "a=b\nc", "EMPTY": ""}, GPUIndices: []int{1, 0},
		RAMLimit: 16 << 30, CPUCores: 4.5, DiskLimit: 60 << 30, ShmSize: 8 << 30,
		PortMapping: protocol.PortMapping{
			{Port: 8888, Protocol: "tcp"}: 10888, {Port: 22, Protocol: "tcp"}: 10022, {Port: 22, Protocol: "udp"}: 10022,
		},
		RegistryAuth: &protocol.RegistryAuth{Username: "u", Password: secret.New("p")},
		ExpiresAt:    expires, PricePerHour: "0.42",
	})
	if refusal != nil {
		t.Fatal(refusal)
	}
	if got.Registry == nil || got.Registry.Password.Reveal() != "p" {
		t.Errorf("registry: %+v", got.Registry)
	}
	got.Registry = nil
	want := rental.Spec{
		ID: "r-1.a_B", Image: "docker.io/pytorch/pytorch:2.9", Command: []string{"sh", "-c", "echo $HOME; sleep 1"},
		Env: map[string]string{"JUPYTER_TOKEN": "a=b\nc", "EMPTY": ""}, GPUs: twoGPUs,
		MemoryBytes: 16 << 30, CPUs: 4.5, PidsLimit: 4096, DiskBytes: 60 << 30, ShmBytes: 8 << 30,
		Ports: []rental.Port{
			{Container: 22, Protocol: rental.TCP, Public: 10022},
			{Container: 22, Protocol: rental.UDP, Public: 10022},
			{Container: 8888, Protocol: rental.TCP, Public: 10888},
		},
		ExpiresAt: expires.UTC(), PricePerHour: "0.42",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
}

// hostile orders, each by what it changes of a good one; none may become a spec.
func TestHostileOrders(t *testing.T) {
	const canary = "S3CRET-CANARY"
	type o = protocol.StartInstance
	port := func(container uint16, proto string, public uint16) func(*o) {
		return func(x *o) { x.PortMapping = protocol.PortMapping{{Port: container, Protocol: proto}: public} }
	}
	env := func(name, value string) func(*o) {
		return func(x *o) { x.EnvVars = map[string]string{name: value} }
	}
	corpus := map[string]struct {
		change func(*o)
		want   protocol.ErrorCode
		names  string // the field
	}{
		"no id":              {func(x *o) { x.RentalID = "" }, protocol.InvalidRequest, "rental_id"},
		"path as id":         {func(x *o) { x.RentalID = "../../etc/passwd" }, protocol.InvalidRequest, "rental_id"},
		"dot id":             {func(x *o) { x.RentalID = ".." }, protocol.InvalidRequest, "rental_id"},
		"id with NUL":        {func(x *o) { x.RentalID = "r\x00" }, protocol.InvalidRequest, "rental_id"},
		"id with newline":    {func(x *o) { x.RentalID = "r\n" }, protocol.InvalidRequest, "rental_id"},
		"long id":            {func(x *o) { x.RentalID = strings.Repeat("r", 64) }, protocol.InvalidRequest, "rental_id"},
		"id as option":       {func(x *o) { x.RentalID = "-v" }, protocol.InvalidRequest, "rental_id"},
		"NUL in command":     {func(x *o) { x.Command = []string{"sh", canary + "\x00"} }, protocol.InvalidRequest, "command"},
		"empty program":      {func(x *o) { x.Command = []string{""} }, protocol.InvalidRequest, "command"},
		"many arguments":     {func(x *o) { x.Command = make257() }, protocol.InvalidRequest, "command"},
		"long arguments":     {func(x *o) { x.Command = []string{"sh", strings.Repeat("x", 1<<16)} }, protocol.InvalidRequest, "command"},
		"GPUs by variable":   {env("NVIDIA_VISIBLE_DEVICES", "all"), protocol.ForbiddenOption, "NVIDIA_VISIBLE_DEVICES"},
		"driver by variable": {env("NVIDIA_DRIVER_CAPABILITIES", "all"), protocol.ForbiddenOption, "NVIDIA_DRIVER_CAPABILITIES"},
		"lower case too":     {env("nvidia_visible_devices", "all"), protocol.ForbiddenOption, "nvidia_visible_devices"},
		"loader variable":    {env("LD_PRELOAD", canary), protocol.ForbiddenOption, "LD_PRELOAD"},
		"audit variable":     {env("LD_AUDIT", canary), protocol.ForbiddenOption, "LD_AUDIT"},
		"compat variable":    {env("CUDA_COMPAT_PATH", canary), protocol.ForbiddenOption, "CUDA_COMPAT_PATH"},
		"swarm resource":     {env("DOCKER_RESOURCE_GPU", "all"), protocol.ForbiddenOption, "DOCKER_RESOURCE_GPU"},
		"empty variable":     {env("", canary), protocol.InvalidRequest, "env_vars"},
		"= in a name":        {env("A=LD_PRELOAD", canary), protocol.InvalidRequest, "env_vars"},
		"dot in a name":      {env("discovery.type", "x"), protocol.InvalidRequest, "env_vars"},
		"digit first":        {env("1A", canary), protocol.InvalidRequest, "env_vars"},
		"NUL in a name":      {env("A\x00", canary), protocol.InvalidRequest, "env_vars"},
		"NUL in a value":     {env("A", canary+"\x00"), protocol.InvalidRequest, "env_vars"},
		"long name":          {env(strings.Repeat("A", 257), "x"), protocol.InvalidRequest, "env_vars"},
		"large values":       {env("A", strings.Repeat(canary, 6000)), protocol.InvalidRequest, "env_vars"},
		"many variables": {func(x *o) {
			x.EnvVars = map[string]string{}
			for i := range 257 {
				x.EnvVars[fmt.Sprintf("V%d", i)] = ""
			}
		}, protocol.InvalidRequest, "env_vars"},
		"all GPUs":          {func(x *o) { x.GPUIndices = []int{-1} }, protocol.InvalidRequest, "gpu_indices"},
		"a GPU twice":       {func(x *o) { x.GPUIndices = []int{1, 1} }, protocol.InvalidRequest, "gpu_indices"},
		"no such GPU":       {func(x *o) { x.GPUIndices = []int{2} }, protocol.GPUUnavailable, "GPU 2"},
		"no RAM":            {func(x *o) { x.RAMLimit = 0 }, protocol.InvalidRequest, "ram_limit"},
		"too little RAM":    {func(x *o) { x.RAMLimit = 1 << 20 }, protocol.InvalidRequest, "ram_limit"},
		"negative RAM":      {func(x *o) { x.RAMLimit = -1 }, protocol.InvalidRequest, "ram_limit"},
		"RAM overflow":      {func(x *o) { x.RAMLimit = math.MaxInt64 }, protocol.InvalidRequest, "ram_limit"},
		"no CPU":            {func(x *o) { x.CPUCores = 0 }, protocol.InvalidRequest, "cpu_cores"},
		"negative CPU":      {func(x *o) { x.CPUCores = -4 }, protocol.InvalidRequest, "cpu_cores"},
		"infinite CPU":      {func(x *o) { x.CPUCores = math.Inf(1) }, protocol.InvalidRequest, "cpu_cores"},
		"NaN CPU":           {func(x *o) { x.CPUCores = math.NaN() }, protocol.InvalidRequest, "cpu_cores"},
		"negative disk":     {func(x *o) { x.DiskLimit = -1 }, protocol.InvalidRequest, "disk_limit"},
		"negative shm":      {func(x *o) { x.ShmSize = -1 }, protocol.InvalidRequest, "shm_size"},
		"shm beyond RAM":    {func(x *o) { x.ShmSize = 2 << 30 }, protocol.InvalidRequest, "shm_size"},
		"port 0":            {port(0, "tcp", 10022), protocol.InvalidRequest, "port_mapping"},
		"public port 0":     {port(22, "tcp", 0), protocol.InvalidRequest, "port_mapping"},
		"unknown transport": {port(22, "sctp", 10022), protocol.InvalidRequest, "port_mapping"},
		"address as port":   {port(22, "tcp@192.168.1.1", 10022), protocol.InvalidRequest, "port_mapping"},
		"one public port twice": {func(x *o) {
			x.PortMapping = protocol.PortMapping{{Port: 22, Protocol: "tcp"}: 10022, {Port: 23, Protocol: "tcp"}: 10022}
		}, protocol.InvalidRequest, "port_mapping"},
		"many ports": {func(x *o) {
			x.PortMapping = protocol.PortMapping{}
			for i := range uint16(5) {
				x.PortMapping[protocol.PortKey{Port: 80 + i, Protocol: "tcp"}] = 10080 + i
			}
		}, protocol.InvalidRequest, "port_mapping"},
		"header in the user name": {func(x *o) { x.RegistryAuth = &protocol.RegistryAuth{Username: canary + "\r\nX: y"} }, protocol.InvalidRequest, "registry_auth.username"},
		"header in the password":  {func(x *o) { x.RegistryAuth = &protocol.RegistryAuth{Password: secret.New(canary + "\n")} }, protocol.InvalidRequest, "registry_auth.password"},
		"endless password": {func(x *o) {
			x.RegistryAuth = &protocol.RegistryAuth{Password: secret.New(strings.Repeat(canary, 1000))}
		}, protocol.InvalidRequest, "registry_auth.password"},
		"negative price":    {func(x *o) { x.PricePerHour = "-1" }, protocol.InvalidRequest, "price_per_hour"},
		"price as power":    {func(x *o) { x.PricePerHour = "1e999999999" }, protocol.InvalidRequest, "price_per_hour"},
		"price as fraction": {func(x *o) { x.PricePerHour = "1/3" }, protocol.InvalidRequest, "price_per_hour"},
	}
	for name, tc := range corpus {
		t.Run(name, func(t *testing.T) {
			spec, refusal := received(t, with(order("r-1"), tc.change))
			if refusal == nil {
				t.Fatalf("became a spec: %+v", spec)
			}
			if refusal.Code != tc.want || !strings.Contains(refusal.Message, tc.names) {
				t.Errorf("got %s: %s; want %s naming %s", refusal.Code, refusal.Message, tc.want, tc.names)
			}
			if strings.Contains(refusal.Message, canary) || len(refusal.Message) > 300 || strings.ContainsFunc(refusal.Message, isControl) {
				t.Errorf("the refusal repeats what it should not: %q", refusal.Message)
			}
		})
	}
}

func make257() []string {
	args := make([]string, 257)
	args[0] = "sh"
	return args
}

func TestReadImage(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	good := map[string]string{
		"debian":                          "docker.io/library/debian:latest",
		"debian:12":                       "docker.io/library/debian:12",
		"docker.io/pytorch/pytorch:2.9":   "docker.io/pytorch/pytorch:2.9",
		"ghcr.io/o/r@" + digest:           "ghcr.io/o/r@" + digest,
		"ghcr.io/o/r:v1@" + digest:        "ghcr.io/o/r:v1@" + digest,
		"registry.example.com:5000/a/b:c": "registry.example.com:5000/a/b:c",
		"8.8.8.8:5000/a":                  "8.8.8.8:5000/a:latest",
		"nvcr.io/nvidia/cuda:12.8.0-base": "nvcr.io/nvidia/cuda:12.8.0-base",
		"nas/backup":                      "docker.io/nas/backup:latest", // no registry: Docker Hub's user "nas"
	}
	for image, want := range good {
		if got, refusal := readImage(image, Limits{}); refusal != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", image, got, refusal, want)
		}
	}
	bad := []string{
		"", " ", "Debian", "debian:", "debian@sha256:abc", ":latest", "debian:12 ", "debian\n", "debian;rm", "https://docker.io/debian", "../debian", "/debian",
		strings.Repeat("a", 64), strings.Repeat("ab", 32), digest, "sha256:abcdef", "a/" + strings.Repeat("b", 600),
		"nas:5000/a", "router.lan/a", "box.local:5000/a", "registry.internal/a", "x.localhost:5000/a", "host.docker.internal:5000/a",
		"192.168.1.10:5000/a", "10.0.0.1/a", "172.17.0.1:5000/a", "169.254.169.254/a", "100.64.0.1/a", "0.0.0.0:5000/a", "224.0.0.1/a",
		"[fe80::1]:5000/a", "[fd00::1]/a", "[::]/a", "[::ffff:192.168.1.1]/a",
		"127.1:5000/a", "10.1/a", "0x7f.0.0.1/a", "1.2.3.4.5/a", "2130706433:5000/a",
	}
	loopback := []string{"localhost/a", "localhost:5000/a", "LOCALHOST:5000/a", "127.0.0.1:5000/a", "127.9.9.9/a", "[::1]:5000/a"}
	for _, image := range append(bad, loopback...) {
		if got, refusal := readImage(image, Limits{}); refusal == nil || refusal.Code != protocol.InvalidRequest {
			t.Errorf("%q became %q", image, got)
		}
	}
	for _, image := range bad {
		if got, refusal := readImage(image, Limits{Registries: rental.Registries{Loopback: true}}); refusal == nil {
			t.Errorf("with loopback allowed, %q became %q", image, got)
		}
	}
	denied := Limits{Registries: rental.Registries{Deny: []string{"docker.io/someone"}}}
	if got, refusal := readImage("someone/thing", denied); refusal == nil || refusal.Code != protocol.ImageForbidden {
		t.Errorf("an image of a denied part of a registry became %q, %v", got, refusal)
	}
	for _, image := range loopback {
		if _, refusal := readImage(image, Limits{Registries: rental.Registries{Loopback: true}}); refusal != nil {
			t.Errorf("with loopback allowed, %q: %v", image, refusal)
		}
	}
}

// Whatever comes, a spec that comes out keeps to what an order may ask.
func FuzzReadOrder(f *testing.F) {
	f.Add("r-1", "debian:12", "sh", "A", "b", int64(1<<30), 1.0, 0, uint16(22), "tcp", uint16(10022), "0.42")
	f.Add("../x", "sha256:00", "", "LD_PRELOAD", "\x00", int64(-1), math.Inf(1), -1, uint16(0), "x", uint16(0), "1/0")
	f.Fuzz(func(t *testing.T, id, image, arg, name, value string, ram int64, cpus float64, gpu int, container uint16, proto string, public uint16, price string) {
		spec, refusal := received(t, &protocol.StartInstance{
			RentalID: id, Image: image, Command: []string{arg}, EnvVars: map[string]string{name: value}, GPUIndices: []int{gpu},
			RAMLimit: protocol.Size(ram), CPUCores: cpus, PortMapping: protocol.PortMapping{{Port: container, Protocol: proto}: public}, PricePerHour: price,
		})
		if refusal != nil {
			if refusal.Message == "" || refusal.Code == "" {
				t.Errorf("a refusal without a reason: %+v", refusal)
			}
			return
		}
		if _, err := rental.ParseID(string(spec.ID)); err != nil {
			t.Error(err)
		}
		if again, refusal := readImage(spec.Image, testLimits); refusal != nil || again != spec.Image {
			t.Errorf("image %q is not in its full form: %q, %v", spec.Image, again, refusal)
		}
		for name := range maps.Keys(spec.Env) {
			if strings.ContainsAny(name, "=\x00") || strings.HasPrefix(name, "NVIDIA_") || strings.HasPrefix(name, "LD_") {
				t.Errorf("variable %q", name)
			}
		}
		if strings.ContainsRune(spec.Command[0], 0) || spec.MemoryBytes < leastMemory || !(spec.CPUs > 0 && spec.CPUs <= 1024) || spec.PidsLimit != 4096 ||
			len(spec.GPUs) != 1 || spec.GPUs[0].UUID == "" || spec.Ports[0].Container == 0 || spec.Ports[0].Public == 0 {
			t.Errorf("spec %+v", spec)
		}
	})
}
