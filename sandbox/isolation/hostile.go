//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// variant is one order that has to be refused.
type variant struct {
	what  string // it tries
	data  json.RawMessage
	code  protocol.ErrorCode
	names string // the message has to hold it: the field
}

// absent leaves a field out.
type absent struct{}

// bad are values of one field, each of them refused with the same code.
type bad struct {
	field  string
	code   protocol.ErrorCode
	names  string // "": the field
	values []any
}

// hostile are orders made from a good one, each with one thing wrong with it. taken is a public port of a rental that
// runs, which also has GPU 0.
func hostile(good map[string]any, live map[string]any, taken int) ([]variant, error) {
	const (
		invalid      = protocol.InvalidRequest
		forbidden    = protocol.ForbiddenOption
		insufficient = protocol.InsufficientResources
	)
	var variants []variant
	registry, _, _ := strings.Cut(fmt.Sprint(good["image"]), "/")
	number := 0
	add := func(what, field string, value any, code protocol.ErrorCode, names string) error {
		number++
		order := maps.Clone(good)
		order["rental_id"] = fmt.Sprintf("hostile-%d", number)
		order[field] = value
		if _, none := value.(absent); none {
			delete(order, field)
		}
		data, err := json.Marshal(order)
		if err != nil {
			return fmt.Errorf("writing an order: %w", err)
		}
		variants = append(variants, variant{what, data, code, names})
		return nil
	}
	// What leads out of a container, and what no order can say.
	for _, name := range []string{
		"privileged", "volumes", "mounts", "binds", "devices", "cap_add", "security_opt", "network_mode", "pid_mode", "ipc_mode",
		"userns_mode", "runtime", "gpus", "sysctls", "extra_hosts", "Privileged", "PRIVILEGED", "Binds", "Mounts", "Runtime",
	} {
		// No value of theirs is harmless enough, also not one that asks for nothing.
		value := []any{true, []string{"/:/host"}, false, nil}[number%4]
		if err := add(name, name, value, forbidden, name); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{
		"HostConfig", "host_config", "CapAdd", "NetworkMode", "PidMode", "cgroup_parent", "cgroupns_mode", "pids_limit", "oom_score_adj",
		"restart_policy", "entrypoint", "user", "working_dir", "labels", "hostname", "dns", "links", "volumes_from", "ulimits", "init",
		"tty", "healthcheck", "stop_signal", "device_cgroup_rules", "device_requests", "group_add", "storage_opt", "tmpfs", "uts_mode",
		"masked_paths", "readonly_paths", "shell", "script", "url", "platform", "auto_remove", "publish_all_ports", "log_config",
		"annotations", "__proto__", "node_id", "rental_id ", "Image",
	} {
		if err := add("a field "+name, name, "host", invalid, name); err != nil {
			return nil, err
		}
	}
	long := strings.Repeat("x", 70_000)
	many := func(n int, of func(int) (string, any)) map[string]any {
		all := map[string]any{}
		for i := range n {
			name, value := of(i)
			all[name] = value
		}
		return all
	}
	for _, b := range []bad{
		{"rental_id", invalid, "", []any{
			absent{},
			nil, "", 7, true,
			[]string{"a"},
			strings.Repeat("r", 64), "../../etc", "a/b", "-rm", ".hidden", "a b", "a\nb", "a\x00b",
			"a;reboot", "$(reboot)", "räuber",
		}},
		{"image", invalid, "", []any{
			absent{},
			nil, "", 7,
			[]string{"debian"},
			"UPPER/case", "debian ;reboot", "$(reboot)", "-v/:/host", "file:///etc/passwd", "http://10.0.0.1/x",
			strings.Repeat("ab", 32), "sha256:" + strings.Repeat("ab", 32), "sha256:abcd", "debian@sha256:abcd", "debian:" + strings.Repeat("t", 129),
			"docker.io/" + strings.Repeat("x", 600), "debian\x00", "../../escape",
			"192.168.1.1:5000/x", "10.0.0.1/x", "172.16.0.1:5000/x", "169.254.169.254/x", "100.64.0.1/x", "router.lan/x", "nas.local:5000/x",
			"metadata.google.internal/x", "db:5000/x", "127.1:5000/x", "0.0.0.0:5000/x",
		}},
		// The owner's list names them by one of their names; an order may give another.
		{"image", protocol.ImageForbidden, "takes no images from", []any{
			"ghcr.io/anyone/tool",
			"ghcr.io:443/anyone/tool:1", "GHCR.io/anyone/tool", "ghcr.io/anyone/tool@sha256:" + strings.Repeat("ab", 32),
			"quay.io:8443/anyone/tool", "forbidden/tool", "docker.io/forbidden/tool:1", "index.docker.io/forbidden/tool",
			"registry-1.docker.io/forbidden/deep/tool", registry + "/" + forbiddenImage,
		}},
		{"command", invalid, "", []any{"rm -rf /", 7, []any{"sh", 7}, []string{""}, []string{"sh", "a\x00b"}, []string{long}, make([]string, 129)}},
		{"env_vars", invalid, "", []any{
			[]string{"A=b"},
			"A=b",
			map[string]any{"": "x"},
			map[string]any{"A=B": "x"},
			map[string]any{"A B": "x"},
			map[string]any{"1A": "x"},
			map[string]any{"A-B": "x"},
			map[string]any{"A": "x\x00y"},
			map[string]any{"A": 7},
			map[string]any{"A": nil},
			map[string]any{"A": long},
			map[string]any{strings.Repeat("A", 257): "x"},
			many(257, func(i int) (string, any) { return fmt.Sprint("V", i), "x" }),
		}},
		{"env_vars", forbidden, "", []any{
			map[string]any{"NVIDIA_VISIBLE_DEVICES": "all"},
			map[string]any{"nvidia_visible_devices": "all"},
			map[string]any{"NVIDIA_DRIVER_CAPABILITIES": "all"},
			map[string]any{"NVIDIA_MIG_CONFIG_DEVICES": "all"},
			map[string]any{"NVIDIA_IMEX_CHANNELS": "0"},
			map[string]any{"LD_PRELOAD": "/x.so"},
			map[string]any{"LD_AUDIT": "/x.so"},
			map[string]any{"ld_library_path": "/x"},
			map[string]any{"DOCKER_RESOURCE_GPU": "all"},
			map[string]any{"CUDA_COMPAT_PATH": "/x"},
		}},
		{"gpu_indices", invalid, "", []any{"all", 0, []any{"0"}, []any{"GPU-11111111-2222-3333-4444-555555555555"}, []int{-1}, []float64{0.5}, []int{64}, []int{1, 1}, make([]int, 65)}},
		{"gpu_indices", protocol.GPUUnavailable, "GPU 7", []any{[]int{7}, []int{1, 7}}},
		{"gpu_indices", protocol.GPUUnavailable, "GPU 2 is not offered", []any{[]int{2}}},
		{"gpu_indices", protocol.GPUUnavailable, "GPU 0 is rented", []any{[]int{0}, []int{0, 1}}},
		{"ram_limit", invalid, "", []any{absent{}, nil, 0, -1, "0", "-1g", "lots", "", true, 4096, 1.5, json.RawMessage("1e400"), "9999p", []int{1}}},
		{"ram_limit", insufficient, "", []any{"900t", int64(1) << 45}},
		{"cpu_cores", invalid, "", []any{absent{}, nil, 0, -1, "1", "NaN", 0.001, 1e9, json.RawMessage("1e400")}},
		{"cpu_cores", insufficient, "", []any{1000, 512.5}},
		{"disk_limit", invalid, "", []any{0, -1, "lots", "9999p", true, []int{1}}},
		{"disk_limit", insufficient, "", []any{"900t"}},
		{"shm_size", invalid, "", []any{0, -1, "lots", true, "1t"}},
		{"shm_size", insufficient, "", []any{"48m"}},
		{"port_mapping", invalid, "", []any{
			[]int{22},
			"22:22",
			map[string]any{"0": 20001},
			map[string]any{"65536": 20001},
			map[string]any{"022": 20001},
			map[string]any{"-1": 20001},
			map[string]any{"22/sctp": 20001},
			map[string]any{"22/TCP": 20001},
			map[string]any{"127.0.0.1:22": 20001},
			map[string]any{"22": 0},
			map[string]any{"22": 65536},
			map[string]any{"22": "20001"},
			map[string]any{"22": nil},
			map[string]any{"22": 20001, "23": 20001},
			map[string]any{"22": 20001, "22/tcp": 20002},
			many(65, func(i int) (string, any) { return fmt.Sprint(i + 1), 20001 + i }),
			many(33, func(i int) (string, any) { return fmt.Sprint(i + 1), 20001 + i }),
		}},
		{"port_mapping", protocol.PortUnavailable, "public port", []any{map[string]any{"8080": taken}}},
		{"registry_auth", invalid, "", []any{
			"user:password",
			map[string]any{"username": "a"},
			map[string]any{"password": "a"},
			map[string]any{"username": "a", "password": "b", "email": "c"},
			map[string]any{"username": strings.Repeat("a", 257), "password": "b"},
			map[string]any{"username": "a\r\nX-Registry: b", "password": "b"},
			map[string]any{"username": "a", "password": 7},
		}},
		{"expires_at", protocol.Expired, "", []any{time.Now().Add(-time.Hour).UTC(), "2001-01-01T00:00:00Z"}},
		{"expires_at", invalid, "", []any{"yesterday", 7, "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "", true}},
		{"price_per_hour", invalid, "", []any{"free", "-1", "1e9", 0.1, "NaN", "1.0000000000001"}},
	} {
		names := b.names
		if names == "" {
			names = b.field
		}
		for i, value := range b.values {
			if err := add(fmt.Sprintf("%s, %s %d", b.field, b.code, i), b.field, value, b.code, names); err != nil {
				return nil, err
			}
		}
	}
	good = maps.Clone(good)
	good["gpu_indices"] = []int{1}
	if err := add("a GPU below its price", "price_per_hour", "0.01", protocol.NotAccepting, "price_per_hour"); err != nil {
		return nil, err
	}
	// Another order under the id of a rental that runs.
	for _, field := range []string{"command", "env_vars", "ram_limit", "cpu_cores", "disk_limit", "shm_size", "port_mapping", "price_per_hour"} {
		other := maps.Clone(live)
		other[field] = map[string]any{
			"command": []string{"other"}, "env_vars": map[string]string{"OTHER": "1"}, "ram_limit": "96m", "cpu_cores": 0.2, "disk_limit": "48m",
			"shm_size": "16m", "port_mapping": map[string]any{}, "price_per_hour": "0.99",
		}[field]
		data, err := json.Marshal(other)
		if err != nil {
			return nil, fmt.Errorf("writing an order: %w", err)
		}
		variants = append(variants, variant{"another " + field + " for a rental that runs", data, protocol.Conflict, "ental"})
	}
	return variants, nil
}

// crooked are frames that are wrong as a whole: as their data, or as frames, with an id to answer by.
func crooked() []variant {
	// With the frame and its data that is one level too many.
	deep := strings.Repeat("[", protocol.MaxDepth-1) + strings.Repeat("]", protocol.MaxDepth-1)
	invalid := protocol.InvalidRequest
	var variants []variant
	for _, data := range []string{`[]`, `"reboot"`, `7`, `true`} {
		variants = append(variants, variant{"data " + data, json.RawMessage(data), invalid, "data"})
	}
	return append(variants,
		variant{"no data", json.RawMessage(`null`), invalid, "rental_id"},
		variant{"a field twice", json.RawMessage(`{"rental_id":"a","rental_id":"b","image":"debian","ram_limit":"64m","cpu_cores":1}`), invalid, "rental_id"},
		variant{"an option twice", json.RawMessage(`{"rental_id":"a","image":"debian","ram_limit":"64m","cpu_cores":1,"privileged":false,"privileged":true}`), invalid, "privileged"},
		variant{"a deep value", json.RawMessage(`{"rental_id":"a","image":` + deep + `}`), invalid, "nesting"},
		variant{"a value just not too deep", json.RawMessage(`{"rental_id":"a","image":` + deep[1:len(deep)-1] + `}`), invalid, "image"},
	)
}

// unreadable are frames that cannot be answered: the agent has to leave them and go on.
func unreadable() []string {
	return []string{
		``, ` `, `{`, `}`, `null`, `[]`, `"start_instance"`, `7`, `{"event":"start_instance"`, `{"event":}`, `{'event':'start_instance'}`,
		`{"event":"start_instance","data":{}} {"event":"start_instance","data":{}}`, `{"event":"start_instance","event":"x","data":{}}`,
		`{"id":7,"event":"start_instance","data":{}}`, `{"event":"start_instance","data":{"privileged":true}}`, `{"data":{}}`,
		"{\"event\":\"start\x01_instance\"}", `{"event":"` + strings.Repeat("e", 100_000) + `"}`,
		strings.Repeat("[", 100_000),
	}
}

// breaking are frames that no backend may send: the agent has to hang up, come back, and go on.
func breaking() []struct{ what, frame string } {
	const order = `{"id":"broken","event":"start_instance","data":{"rental_id":"`
	return []struct{ what, frame string }{
		{"a frame over 256 KiB", order + strings.Repeat("a", protocol.MaxFrameBytes-len(order)-len(`"}}`)+1) + `"}}`},
		{"a frame of 4 MiB", order + strings.Repeat("a", 4<<20) + `"}}`},
		{"a frame that is not UTF-8", order + "\xff\xfe" + `"}}`},
	}
}

// foreign are events that no agent knows.
func foreign() []string {
	return []string{
		"run_shell", "exec", "upload_file", "update_agent", "set_config", "START_INSTANCE", "start_instance ", "register", "command_result",
		"docker", "pull_image", "create_container",
	}
}
