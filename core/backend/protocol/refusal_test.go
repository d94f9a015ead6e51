package protocol

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// start makes a start_instance frame of a good order in which fields (JSON, "name":value) come on
// top, or instead of those of the same name.
func start(fields ...string) string {
	good := []string{`"rental_id":"r-1"`, `"image":"debian:12"`, `"gpu_indices":[0]`, `"ram_limit":"1g"`, `"cpu_cores":1`}
	var kept []string
	for _, field := range good {
		name, _, _ := strings.Cut(field, ":")
		replaced := false
		for _, other := range fields {
			replaced = replaced || strings.HasPrefix(other, name+":")
		}
		if !replaced {
			kept = append(kept, field)
		}
	}
	return `{"event":"start_instance","id":"c","data":{` + strings.Join(append(kept, fields...), ",") + `}}`
}

// message makes a frame of the backend.
func message(event, data string) string {
	return fmt.Sprintf(`{"event":%q,"id":"c","data":%s}`, event, data)
}

// without is a start_instance that lacks a field.
func without(name string) string { return start(fmt.Sprintf(`%q:null`, name)) }

func repeat(format string, n int) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(parts, ",")
}

// refusals are frames that must not pass: the code and the start of the sentence say why.
var refusals = []struct {
	name, frame string
	code        ErrorCode
	says        string
	unanswered  bool // no id could be read
}{
	// The frame as a whole.
	{"empty", ``, InvalidRequest, "frame: takes one JSON object", true},
	{"spaces", `   `, InvalidRequest, "frame: takes one JSON object", true},
	{"not JSON", `hello`, InvalidRequest, "frame: takes one JSON object", true},
	{"cut off", `{"event":"notice","id":"c"`, InvalidRequest, "frame: takes one JSON object", true},
	{"two objects", `{"event":"resume_node"}{"event":"resume_node"}`, InvalidRequest, "frame: takes one JSON object", true},
	{"trailing comma", `{"event":"resume_node",}`, InvalidRequest, "frame: takes one JSON object", true},
	{"comment", `{"event":"resume_node"/**/}`, InvalidRequest, "frame: takes one JSON object", true},
	{"byte order mark", "\ufeff" + `{"event":"resume_node"}`, InvalidRequest, "frame: takes one JSON object", true},
	{"NaN", message("set_offer_request", `{"offer":{"cpu_cores":NaN}}`), InvalidRequest, "frame: takes one JSON object", true},
	{"invalid UTF-8", "{\"event\":\"notice\",\"id\":\"c\",\"data\":{\"title\":\"\xff\"}}", InvalidRequest, "frame: takes valid UTF-8", true},
	{"a list", `[{"event":"resume_node"}]`, InvalidRequest, "frame: takes an object, got a list", true},
	{"a text", `"resume_node"`, InvalidRequest, "frame: takes an object, got text", true},
	{"null", `null`, InvalidRequest, "frame: takes an object, got null", true},
	{"a number", `1`, InvalidRequest, "frame: takes an object, got a number", true},
	{"too large", message("notice", `{"body":"`+strings.Repeat("a", MaxFrameBytes)+`"}`), InvalidRequest, "frame: takes at most 262144 bytes", true},
	{"too deep", message("notice", strings.Repeat(`{"a":`, 16)+`1`+strings.Repeat(`}`, 16)), InvalidRequest, "frame: takes at most 16 levels", false},
	{"too deep in lists", message("notice", `{"a":`+strings.Repeat(`[`, 15)+strings.Repeat(`]`, 15)+`}`), InvalidRequest, "frame: takes at most 16 levels", false},
	{"a tower of lists", strings.Repeat(`[`, 130_000) + strings.Repeat(`]`, 130_000), InvalidRequest, "frame: takes one JSON object", true},
	{"a tower of objects", strings.Repeat(`{"a":`, 40_000) + `1` + strings.Repeat(`}`, 40_000), InvalidRequest, "frame: takes one JSON object", true},

	// The envelope.
	{"no event", `{"id":"c","data":{}}`, InvalidRequest, "event: takes text", false},
	{"null event", `{"event":null,"id":"c"}`, InvalidRequest, "event: takes text", false},
	{"empty event", `{"event":"","id":"c"}`, InvalidRequest, "event: takes text", false},
	{"number as event", `{"event":7,"id":"c"}`, InvalidRequest, "event: takes text of 1 to 64 characters without NUL, got 7", false},
	{"endless event", `{"event":"` + strings.Repeat("e", 65) + `","id":"c"}`, InvalidRequest, "event: takes text", false},
	{"capital key", `{"Event":"resume_node","id":"c"}`, InvalidRequest, "event: takes text", false},
	{"unknown event", `{"event":"run_shell","id":"c","data":{"cmd":"id"}}`, UnknownEvent, `event: "run_shell" is not known here`, false},
	{"capital event", `{"event":"START_INSTANCE","id":"c"}`, UnknownEvent, "event:", false},
	{"event of the agent", `{"event":"heartbeat","id":"c","data":{}}`, UnknownEvent, "event:", false},
	{"number as id", `{"event":"resume_node","id":7}`, InvalidRequest, "id: takes text of at most 128", true},
	{"object as id", `{"event":"resume_node","id":{}}`, InvalidRequest, "id: takes text of at most 128", true},
	{"endless id", `{"event":"resume_node","id":"` + strings.Repeat("i", 129) + `"}`, InvalidRequest, "id: takes text of at most 128", true},
	{"two ids", `{"event":"resume_node","id":"a","id":"b"}`, InvalidRequest, "id: takes one value", true},
	{"two events", `{"event":"resume_node","event":"drain_node","id":"c"}`, InvalidRequest, "event: takes one value", true},
	{"list as data", message("resume_node", `[]`), InvalidRequest, "data: takes an object, got a list", false},
	{"text as data", message("drain_node", `"now"`), InvalidRequest, "data: takes an object, got text", false},
	{"key twice in data", message("notice", `{"title":"a","title":"b"}`), InvalidRequest, "title: takes one value", false},

	// start_instance: what could lead out of the container.
	{"privileged", start(`"privileged":false`), ForbiddenOption, "privileged:", false},
	{"privileged, true", start(`"privileged":true`), ForbiddenOption, "privileged:", false},
	{"privileged, null", start(`"privileged":null`), ForbiddenOption, "privileged:", false},
	{"privileged, escaped", start(`"pri\u0076ileged":true`), ForbiddenOption, "privileged:", false},
	{"privileged, Docker's spelling", start(`"Privileged":true`), ForbiddenOption, "Privileged:", false},
	{"volumes", start(`"volumes":["/:/host"]`), ForbiddenOption, "volumes:", false},
	{"mounts", start(`"mounts":[]`), ForbiddenOption, "mounts:", false},
	{"binds", start(`"binds":["/var/run/docker.sock:/s"]`), ForbiddenOption, "binds:", false},
	{"devices", start(`"devices":["/dev/mem"]`), ForbiddenOption, "devices:", false},
	{"cap_add", start(`"cap_add":["SYS_ADMIN"]`), ForbiddenOption, "cap_add:", false},
	{"security_opt", start(`"security_opt":["seccomp=unconfined"]`), ForbiddenOption, "security_opt:", false},
	{"network_mode", start(`"network_mode":"host"`), ForbiddenOption, "network_mode:", false},
	{"pid_mode", start(`"pid_mode":"host"`), ForbiddenOption, "pid_mode:", false},
	{"ipc_mode", start(`"ipc_mode":"host"`), ForbiddenOption, "ipc_mode:", false},
	{"userns_mode", start(`"userns_mode":"host"`), ForbiddenOption, "userns_mode:", false},
	{"runtime", start(`"runtime":"runc-evil"`), ForbiddenOption, "runtime:", false},
	{"gpus", start(`"gpus":"all"`), ForbiddenOption, "gpus:", false},
	{"sysctls", start(`"sysctls":{"kernel.core_pattern":"|/x"}`), ForbiddenOption, "sysctls:", false},
	{"extra_hosts", start(`"extra_hosts":["a:1.2.3.4"]`), ForbiddenOption, "extra_hosts:", false},
	{"forbidden outranks unknown", start(`"colour":"red"`, `"volumes":[]`), ForbiddenOption, "volumes:", false},
	{"forbidden outranks a bad value", start(`"cpu_cores":-1`, `"binds":[]`), ForbiddenOption, "binds:", false},

	// start_instance: fields nobody knows.
	{"unknown field", start(`"cgroup_parent":"/"`), InvalidRequest, "cgroup_parent: is not a field of start_instance", false},
	{"capital field", start(`"Image":"debian"`), InvalidRequest, "Image: is not a field", false},
	{"entrypoint", start(`"entrypoint":["sh"]`), InvalidRequest, "entrypoint: is not a field", false},
	{"user", start(`"user":"0:0"`), InvalidRequest, "user: is not a field", false},
	{"empty name", start(`"":1`), InvalidRequest, `"": is not a field`, false},
	{"terminal escape in a name", start(`"\u001b[2J":1`), InvalidRequest, `"\x1b[2J": is not a field`, false},
	{"endless name", start(`"` + strings.Repeat("n", 1000) + `":1`), InvalidRequest, `"` + strings.Repeat("n", 64) + `": is not`, false},
	{"unknown in registry_auth", start(`"registry_auth":{"username":"u","password":"p","server":"x"}`), InvalidRequest, "registry_auth.server: is not a field of registry_auth", false},
	{"unknown outranks a bad value", start(`"ram_limit":"x"`, `"colour":1`), InvalidRequest, "colour:", false},
	{"field twice", start(`"image":"a"`, `"image":"b"`), InvalidRequest, "image: takes one value, got it twice", false},
	{"field twice, escaped", start(`"image":"a"`, `"im\u0061ge":"b"`), InvalidRequest, "image: takes one value, got it twice", false},

	// start_instance: values.
	{"no rental_id", without("rental_id"), InvalidRequest, "rental_id: takes 1 to 63 letters, digits, '_', '.' or '-', starting with a letter or digit, got nothing", false},
	{"rental_id is a path", start(`"rental_id":"../../etc"`), InvalidRequest, `rental_id: takes 1 to 63 letters`, false},
	{"rental_id starts with a dash", start(`"rental_id":"-rf"`), InvalidRequest, "rental_id:", false},
	{"rental_id too long", start(`"rental_id":"` + strings.Repeat("a", 64) + `"`), InvalidRequest, "rental_id:", false},
	{"rental_id ends in a newline", start(`"rental_id":"r-1\n"`), InvalidRequest, "rental_id:", false},
	{"rental_id is empty", start(`"rental_id":""`), InvalidRequest, "rental_id:", false},
	{"rental_id in Cyrillic", start(`"rental_id":"аренда"`), InvalidRequest, "rental_id:", false},
	{"no image", without("image"), InvalidRequest, "image:", false},
	{"image is an option", start(`"image":"--privileged"`), InvalidRequest, "image:", false},
	{"image with a space", start(`"image":"debian 12"`), InvalidRequest, `image: takes an image such as "docker.io/library/debian:12" of at most 512 characters, got "debian 12"`, false},
	{"image with a command", start(`"image":"a;reboot"`), InvalidRequest, "image:", false},
	{"image with NUL", start(`"image":"debian\u0000"`), InvalidRequest, "image:", false},
	{"image too long", start(`"image":"` + strings.Repeat("a", 513) + `"`), InvalidRequest, "image:", false},
	{"image is a list", start(`"image":["debian"]`), InvalidRequest, "image:", false},
	{"command is a text", start(`"command":"rm -rf /"`), InvalidRequest, "command: takes a list of at most 128, got text", false},
	{"command too long", start(`"command":[` + repeat(`"%d"`, 129) + `]`), InvalidRequest, "command: takes a list of at most 128, got 129", false},
	{"command with NUL", start(`"command":["a","b\u0000c"]`), InvalidRequest, "command[1]:", false},
	{"command with a number", start(`"command":["sleep",60]`), InvalidRequest, "command[1]:", false},
	{"command too large", start(`"command":["` + strings.Repeat("a", 40<<10) + `","` + strings.Repeat("b", 40<<10) + `"]`), InvalidRequest, "command: takes at most 65536 bytes", false},
	{"env is a list", start(`"env_vars":["A=b"]`), InvalidRequest, "env_vars: takes an object, got a list", false},
	{"env name with a dash", start(`"env_vars":{"A-B":"c"}`), InvalidRequest, "env_vars.A-B: takes letters", false},
	{"env name starts with a digit", start(`"env_vars":{"1A":"c"}`), InvalidRequest, "env_vars.1A:", false},
	{"env name is empty", start(`"env_vars":{"":"c"}`), InvalidRequest, `env_vars."":`, false},
	{"env name holds its value", start(`"env_vars":{"A=hush":""}`), InvalidRequest, "env_vars.", false},
	{"env value with NUL", start(`"env_vars":{"A":"hush\u0000"}`), InvalidRequest, "env_vars.A:", false},
	{"env value is a number", start(`"env_vars":{"A":4711}`), InvalidRequest, "env_vars.A: takes text of at most 65536 characters without NUL, got a number", false},
	{"env value is null", start(`"env_vars":{"A":null}`), InvalidRequest, "env_vars.A:", false},
	{"env twice", start(`"env_vars":{"A":"b","A":"c"}`), InvalidRequest, "env_vars.A: takes one value", false},
	{"env too many", start(`"env_vars":{` + repeat(`"V%d":""`, 257) + `}`), InvalidRequest, "env_vars: takes at most 256 variables, got 257", false},
	{"env too large", start(`"env_vars":{"A":"` + strings.Repeat("a", 40<<10) + `","B":"` + strings.Repeat("b", 40<<10) + `"}`), InvalidRequest, "env_vars: takes at most 65536 bytes", false},
	{"all GPUs", start(`"gpu_indices":"all"`), InvalidRequest, "gpu_indices: takes a list of at most 64, got text", false},
	{"GPU below 0", start(`"gpu_indices":[-1]`), InvalidRequest, "gpu_indices[0]: takes a whole number from 0 to 63, got -1", false},
	{"GPU above 63", start(`"gpu_indices":[0,64]`), InvalidRequest, "gpu_indices[1]:", false},
	{"GPU twice", start(`"gpu_indices":[1,1]`), InvalidRequest, "gpu_indices[1]: takes a value once", false},
	{"GPU and a half", start(`"gpu_indices":[0.5]`), InvalidRequest, "gpu_indices[0]:", false},
	{"GPU as text", start(`"gpu_indices":["0"]`), InvalidRequest, "gpu_indices[0]:", false},
	{"GPU null", start(`"gpu_indices":[null]`), InvalidRequest, "gpu_indices[0]:", false},
	{"too many GPUs", start(`"gpu_indices":[` + repeat(`%d`, 65) + `]`), InvalidRequest, "gpu_indices: takes a list of at most 64", false},
	{"no ram_limit", without("ram_limit"), InvalidRequest, "ram_limit: takes bytes as a number or a size", false},
	{"ram_limit 0", start(`"ram_limit":0`), InvalidRequest, "ram_limit:", false},
	{"ram_limit negative", start(`"ram_limit":-1`), InvalidRequest, "ram_limit:", false},
	{"ram_limit negative text", start(`"ram_limit":"-1g"`), InvalidRequest, "ram_limit:", false},
	{"ram_limit without digits", start(`"ram_limit":"g"`), InvalidRequest, "ram_limit:", false},
	{"ram_limit in another unit", start(`"ram_limit":"16q"`), InvalidRequest, `ram_limit: takes bytes as a number or a size such as "512m" or "16g", above 0 up to 1 PiB, got "16q"`, false},
	{"ram_limit beyond all", start(`"ram_limit":"9999999p"`), InvalidRequest, "ram_limit:", false},
	{"ram_limit overflows", start(`"ram_limit":99999999999999999999`), InvalidRequest, "ram_limit:", false},
	{"ram_limit with an exponent", start(`"ram_limit":1e9`), InvalidRequest, "ram_limit:", false},
	{"ram_limit hexadecimal", start(`"ram_limit":"0x10g"`), InvalidRequest, "ram_limit:", false},
	{"ram_limit infinite", start(`"ram_limit":"Inf"`), InvalidRequest, "ram_limit:", false},
	{"no cpu_cores", without("cpu_cores"), InvalidRequest, "cpu_cores: takes a number above 0 up to 1024, got nothing", false},
	{"cpu_cores text", start(`"cpu_cores":"x"`), InvalidRequest, `cpu_cores: takes a number above 0 up to 1024, got "x"`, false},
	{"cpu_cores 0", start(`"cpu_cores":0`), InvalidRequest, "cpu_cores:", false},
	{"cpu_cores negative", start(`"cpu_cores":-4`), InvalidRequest, "cpu_cores:", false},
	{"cpu_cores 1025", start(`"cpu_cores":1025`), InvalidRequest, "cpu_cores:", false},
	{"cpu_cores 1e999", start(`"cpu_cores":1e999`), InvalidRequest, "cpu_cores:", false},
	{"disk_limit 0", start(`"disk_limit":0`), InvalidRequest, "disk_limit:", false},
	{"shm_size list", start(`"shm_size":[]`), InvalidRequest, "shm_size:", false},
	{"ports are a list", start(`"port_mapping":["22:22"]`), InvalidRequest, "port_mapping: takes an object", false},
	{"container port 0", start(`"port_mapping":{"0":1}`), InvalidRequest, "port_mapping.0: takes a container port", false},
	{"container port 65536", start(`"port_mapping":{"65536":1}`), InvalidRequest, "port_mapping.65536:", false},
	{"container port +22", start(`"port_mapping":{"+22":1}`), InvalidRequest, "port_mapping.+22:", false},
	{"container port 022", start(`"port_mapping":{"022":1}`), InvalidRequest, "port_mapping.022:", false},
	{"container port range", start(`"port_mapping":{"22-80":1}`), InvalidRequest, "port_mapping.22-80:", false},
	{"sctp", start(`"port_mapping":{"22/sctp":1}`), InvalidRequest, "port_mapping.22/sctp:", false},
	{"bound to an address", start(`"port_mapping":{"0.0.0.0:22":1}`), InvalidRequest, "port_mapping.0.0.0.0:22:", false},
	{"public port 0", start(`"port_mapping":{"22":0}`), InvalidRequest, "port_mapping.22: takes a whole number from 1 to 65535, got 0", false},
	{"public port 65536", start(`"port_mapping":{"22":65536}`), InvalidRequest, "port_mapping.22:", false},
	{"public port as text", start(`"port_mapping":{"22":"10022"}`), InvalidRequest, "port_mapping.22:", false},
	{"public port null", start(`"port_mapping":{"22":null}`), InvalidRequest, "port_mapping.22:", false},
	{"one public port for two", start(`"port_mapping":{"22":10022,"23":10022}`), InvalidRequest, "port_mapping.23: takes a public port of its own", false},
	{"container port in two spellings", start(`"port_mapping":{"22":1,"22/tcp":2}`), InvalidRequest, "port_mapping.22/tcp: takes a container port once", false},
	{"too many ports", start(`"port_mapping":{` + repeat(`"1%03d":1`, 65) + `}`), InvalidRequest, "port_mapping: takes at most 64 ports, got 65", false},
	{"registry_auth is text", start(`"registry_auth":"hush"`), InvalidRequest, "registry_auth: takes an object, got text", false},
	{"registry_auth without password", start(`"registry_auth":{"username":"u"}`), InvalidRequest, "registry_auth.password:", false},
	{"registry_auth password is a number", start(`"registry_auth":{"username":"u","password":4711}`), InvalidRequest, "registry_auth.password: takes text of at most 16384 characters without NUL, got a number", false},
	{"registry_auth user with NUL", start(`"registry_auth":{"username":"hush\u0000","password":"p"}`), InvalidRequest, "registry_auth.username:", false},
	{"expires_at is a number", start(`"expires_at":1795430400`), InvalidRequest, "expires_at: takes a time such as", false},
	{"expires_at without a zone", start(`"expires_at":"2026-11-20T10:00:00"`), InvalidRequest, "expires_at:", false},
	{"expires_at of year 1", start(`"expires_at":"0001-01-01T00:00:00Z"`), InvalidRequest, "expires_at:", false},
	{"expires_at on the 31st of February", start(`"expires_at":"2026-02-31T10:00:00Z"`), InvalidRequest, "expires_at:", false},
	{"price is a float", start(`"price_per_hour":0.42`), InvalidRequest, "price_per_hour: takes a decimal number as text", false},
	{"price negative", start(`"price_per_hour":"-1"`), InvalidRequest, "price_per_hour:", false},
	{"price with a currency", start(`"price_per_hour":"$1"`), InvalidRequest, "price_per_hour:", false},

	// The other messages.
	{"stop nothing", message("stop_instance", `{}`), InvalidRequest, "rental_id: takes the rental to stop", false},
	{"stop a path", message("stop_instance", `{"rental_id":"a/b"}`), InvalidRequest, "rental_id:", false},
	{"stop a container by an option", message("stop_instance", `{"container_id":"--all"}`), InvalidRequest, "container_id:", false},
	{"grace_s 601", message("stop_instance", `{"rental_id":"r","grace_s":601}`), InvalidRequest, "grace_s: takes a whole number from 0 to 600, got 601", false},
	{"grace_s -1", message("stop_instance", `{"rental_id":"r","grace_s":-1}`), InvalidRequest, "grace_s:", false},
	{"graceful 1", message("stop_instance", `{"rental_id":"r","graceful":1}`), InvalidRequest, "graceful: takes true or false, got 1", false},
	{"drain reason with a bell", message("drain_node", `{"reason":"\u0007"}`), InvalidRequest, "reason: takes one line", false},
	{"drain by number", message("drain_node", `{"stop_instances":"yes"}`), InvalidRequest, `stop_instances: takes true or false, got "yes"`, false},
	{"drain with a deadline of text", message("drain_node", `{"deadline":"soon"}`), InvalidRequest, "deadline:", false},
	{"logs of nothing", message("get_logs", `{}`), InvalidRequest, "rental_id:", false},
	{"tail 0", message("get_logs", `{"rental_id":"r","tail":0}`), InvalidRequest, "tail: takes a whole number from 1 to 5000, got 0", false},
	{"tail 5001", message("get_logs", `{"rental_id":"r","tail":5001}`), InvalidRequest, "tail:", false},
	{"heartbeat 0", message("registered", `{"node_id":"n","heartbeat_interval_s":0}`), InvalidRequest, "heartbeat_interval_s: takes a whole number from 1 to 60, got 0", false},
	{"heartbeat 61", message("registered", `{"node_id":"n","heartbeat_interval_s":61}`), InvalidRequest, "heartbeat_interval_s:", false},
	{"heartbeat 2.5", message("registered", `{"node_id":"n","heartbeat_interval_s":2.5}`), InvalidRequest, "heartbeat_interval_s:", false},
	{"sequence beyond exact numbers", message("status_received", `{"rental_id":"r","sequence":1e16}`), InvalidRequest, "sequence:", false},
	{"registered without a node", message("registered", `{}`), InvalidRequest, "node_id:", false},
	{"node id is a path", message("registered", `{"node_id":"../x"}`), InvalidRequest, "node_id:", false},
	{"relay without an address", message("registered", `{"node_id":"n","relay":{}}`), InvalidRequest, "relay.address:", false},
	{"relay without a port", message("registered", `{"node_id":"n","relay":{"address":"relay"}}`), InvalidRequest, "relay.address:", false},
	{"relay token is a list", message("registered", `{"node_id":"n","relay":{"address":"r:1","token":["hush"]}}`), InvalidRequest, "relay.token: takes text of at most 4096 characters without NUL, got a list", false},
	{"earnings as floats", message("earnings", `{"today":4.18}`), InvalidRequest, "today: takes a decimal number as text", false},
	{"earnings of no day", message("earnings", `{"history":[{"day":"2026-13-01","amount":"1"}]}`), InvalidRequest, "history[0].day:", false},
	{"earnings without end", message("earnings", `{"history":[`+repeat(`{"day":"2026-11-20","amount":"%d"}`, 1001)+`]}`), InvalidRequest, "history: takes a list of at most 1000", false},
	{"notice leads to a file", message("notice", `{"url":"file:///etc/passwd"}`), InvalidRequest, "url: takes an https address", false},
	{"notice leads to a script", message("notice", `{"url":"javascript:alert(1)"}`), InvalidRequest, "url:", false},
	{"notice with a password", message("notice", `{"url":"https://u:p@example.com"}`), InvalidRequest, "url:", false},
	{"notice title of two lines", message("notice", `{"title":"a\nb"}`), InvalidRequest, "title:", false},
	{"notice body with escapes", message("notice", `{"body":"\u001b[31m"}`), InvalidRequest, "body:", false},
	{"no offer", message("set_offer_request", `{}`), InvalidRequest, "offer: takes an object, got nothing", false},
	{"offer below nothing", message("set_offer_request", `{"offer":{"ram_mb":-1}}`), InvalidRequest, "offer.ram_mb:", false},
	{"offer in lower case", message("set_offer_request", `{"offer":{"currency":"usd"}}`), InvalidRequest, "offer.currency:", false},
	{"received without a sequence", message("status_received", `{"rental_id":"r"}`), InvalidRequest, "sequence:", false},
	{"received a float", message("status_received", `{"rental_id":"r","sequence":1.5}`), InvalidRequest, "sequence:", false},
}

func TestRefusals(t *testing.T) {
	if len(refusals) < 100 {
		t.Errorf("%d refusals, want at least 100", len(refusals))
	}
	for _, test := range refusals {
		t.Run(test.name, func(t *testing.T) {
			_, err := Decode([]byte(test.frame))
			refusal, ok := errors.AsType[*DecodeError](err)
			if !ok {
				t.Fatalf("got %v, want a *DecodeError", err)
			}
			if refusal.Err.Code != test.code || !strings.HasPrefix(refusal.Error(), test.says) {
				t.Errorf("got %s %q, want %s %q", refusal.Err.Code, refusal, test.code, test.says)
			}
			if wantID := map[bool]string{true: "", false: "c"}[test.unanswered]; refusal.ID != wantID {
				t.Errorf("id %q, want %q", refusal.ID, wantID)
			}
			if message := refusal.Error(); strings.Contains(message, "hush") || strings.Contains(message, "4711") || len(message) > 400 {
				t.Errorf("says too much: %s", message)
			}
		})
	}
}

// TestRefusalsFromAgent: the backend's side keeps the same bounds.
func TestRefusalsFromAgent(t *testing.T) {
	for _, test := range []struct{ name, frame, says string }{
		{"event of the backend", message("start_instance", `{}`), "event:"},
		{"no metrics", message("heartbeat", `{"status":"online"}`), "metrics: takes an object"},
		{"unknown status", message("heartbeat", `{"status":"sleepy","metrics":{}}`), `status: takes one of online, paused, draining, got "sleepy"`},
		{"reading is text", message("heartbeat", `{"status":"online","metrics":{"gpu_temp":[null,"hot"]}}`), "metrics.gpu_temp[1]:"},
		{"register without hardware", message("register", `{"protocol":1,"agent":{"version":"1"},"status":"online"}`), "hardware:"},
		{"unknown state", message("instance_status", `{"rental_id":"r","sequence":1,"state":"happy"}`), "state: takes one of accepted"},
		{"port 0", message("instance_status", `{"rental_id":"r","sequence":1,"state":"running","ports":[{"container_port":0}]}`), "ports[0].container_port:"},
		{"ok is missing", message("command_result", `{}`), "ok:"},
		{"until never", message("node_status", `{"status":"paused","until":"never"}`), "until:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := DecodeFromAgent([]byte(test.frame))
			refusal, ok := errors.AsType[*DecodeError](err)
			if !ok || !strings.HasPrefix(refusal.Error(), test.says) || refusal.ID != "c" {
				t.Errorf("got %v, want %q", err, test.says)
			}
		})
	}
}

// TestAccepted: what the contract leaves open stays open.
func TestAccepted(t *testing.T) {
	for _, test := range []struct{ name, frame string }{
		{"no data", `{"event":"drain_node"}`},
		{"null data", `{"event":"resume_node","id":null,"data":null}`},
		{"unknown field of the envelope", `{"event":"resume_node","trace":"x"}`},
		{"unknown field outside start_instance", message("stop_instance", `{"rental_id":"r","colour":"red"}`)},
		{"seed's start", `{"event":"start_instance","data":{"rental_id":"r","image":"a","env_vars":{},"gpu_indices":[],"ram_limit":"512m","cpu_cores":1,"port_mapping":{"22":10022}}}`},
		{"no GPUs asked for", without("gpu_indices")},
		{"optional fields null", start(`"disk_limit":null`, `"registry_auth":null`, `"env_vars":null`, `"command":null`)},
		{"same public port for tcp and udp", start(`"port_mapping":{"53":53,"53/udp":53}`)},
		{"digest", start(`"image":"a/b@sha256:` + strings.Repeat("0", 64) + `"`)},
		{"16 levels", message("notice", `{"a":`+strings.Repeat(`[`, 14)+strings.Repeat(`]`, 14)+`}`)},
		{"brackets inside a text", message("notice", `{"a":"`+strings.Repeat(`[`, 40)+`\"`+strings.Repeat(`{`, 40)+`"}`)},
		{"128 characters of id", `{"event":"resume_node","id":"` + strings.Repeat("é", 128) + `"}`},
		{"leading and trailing space", " \n{\"event\":\"resume_node\"}\n"},
		{"whole number with a point", message("registered", `{"node_id":"n","heartbeat_interval_s":5.0}`)},
		{"whole numbers with an exponent", message("status_received", `{"rental_id":"r","sequence":1.2e1}`)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := Decode([]byte(test.frame)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRegisteredWithoutEarnings: what the host has earned is told again; his name and the relay are not.
func TestRegisteredWithoutEarnings(t *testing.T) {
	in, err := Decode([]byte(message("registered", `{"node_id":"n","heartbeat_interval_s":7.0,"relay":{"address":"r:1"},"earnings":{"history":[{"day":"2026-13-01","amount":"1"}]}}`)))
	if err != nil {
		t.Fatal(err)
	}
	if m := in.Data.(*Registered); m.NodeID != "n" || m.HeartbeatIntervalS != 7 || m.Relay == nil || m.Earnings != nil {
		t.Errorf("got %+v", m)
	}
	if in.Dropped == nil || !strings.HasPrefix(in.Dropped.Message, "earnings.history[0].day:") {
		t.Errorf("says %v of what was dropped", in.Dropped)
	}
}

func TestDefaults(t *testing.T) {
	in, err := Decode([]byte(message("stop_instance", `{"container_id":"4f66"}`)))
	if err != nil {
		t.Fatal(err)
	}
	if stop := in.Data.(*StopInstance); !*stop.Graceful || *stop.GraceS != 30 {
		t.Errorf("stop_instance: %v %v", *stop.Graceful, *stop.GraceS)
	}
	in, err = Decode([]byte(message("get_logs", `{"rental_id":"r"}`)))
	if err != nil {
		t.Fatal(err)
	}
	if logs := in.Data.(*GetLogs); logs.Tail != 200 {
		t.Errorf("get_logs: tail %d", logs.Tail)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"1024": 1024, "512m": 512 << 20, "16g": 16 << 30, "16G": 16 << 30, "1.5g": 3 << 29, "16 GiB": 16 << 30, "2kb": 2048, "1t": 1 << 40, "1p": 1 << 50, "7b": 7,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s: got %d %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "g", ".", "-1g", "+1g", "1gg", "1 g ", "1  g", "1e3", "0x1", "1_0", "nan", "1gi", "2p", "1,5g", "g1", "b"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}
