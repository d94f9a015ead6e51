package docker

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// refusedCalls are those that have led out of containers, reach the kernel's less trodden parts or concern the host alone,
// by the reason. None may be allowed, whatever the arguments.
var refusedCalls = map[string]string{
	"user namespaces and other views of the system":   "unshare setns",
	"mounts, old and new":                             "mount umount umount2 pivot_root mount_setattr move_mount open_tree fsopen fsconfig fsmount fspick open_by_handle_at",
	"programs in the kernel":                          "bpf",
	"measuring the kernel":                            "perf_event_open lookup_dcookie",
	"keys, which know no namespace":                   "keyctl add_key request_key",
	"page faults handled by the renter":               "userfaultfd",
	"a second way into the kernel":                    "io_uring_setup io_uring_enter io_uring_register",
	"another kernel, other modules":                   "kexec_load kexec_file_load init_module finit_module delete_module create_module query_module get_kernel_syms",
	"the host's power, name, time and disks":          "reboot sethostname setdomainname settimeofday stime clock_settime clock_settime64 swapon swapoff acct quotactl quotactl_fd nfsservctl sysfs _sysctl ustat uselib",
	"the kernel's log and terminals":                  "syslog vhangup",
	"ports of the machine":                            "iopl ioperm",
	"handles of other processes":                      "pidfd_getfd kcmp process_madvise",
	"memory of other nodes":                           "get_mempolicy set_mempolicy mbind move_pages migrate_pages set_mempolicy_home_node",
	"watching whole file systems":                     "fanotify_init",
	"modules of security":                             "lsm_get_self_attr lsm_set_self_attr lsm_list_modules",
	"32-bit programs' way around the rule of sockets": "socketcall",
	"8086 mode": "vm86 vm86old",
}

// limitedCalls are allowed with certain arguments alone.
var limitedCalls = []string{"clone", "personality", "socket", "socketpair"}

func TestSystemCallFilterGolden(t *testing.T) {
	var got bytes.Buffer
	if err := json.Indent(&got, []byte(systemCallFilter()), "", " "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	file := filepath.Join("testdata", "seccomp.json")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("filter (-want +got), run with -update after reviewing:\n%s", diff)
	}
}

func TestSystemCallsThatAreRefused(t *testing.T) {
	filter := decodedFilter(t)
	if filter.DefaultAction != refuse || filter.DefaultErrnoRet != ePerm {
		t.Errorf("what is not listed is answered by %s %d", filter.DefaultAction, filter.DefaultErrnoRet)
	}
	for reason, calls := range refusedCalls {
		for call := range strings.FieldsSeq(calls) {
			for _, rule := range filter.Syscalls {
				if rule.Action == allow && slices.Contains(rule.Names, call) {
					t.Errorf("%s is allowed, though it is refused for %s", call, reason)
				}
			}
		}
	}
}

func TestSystemCallsThatAreLimited(t *testing.T) {
	filter := decodedFilter(t)
	allowed := make(map[string][][]callArg)
	for _, rule := range filter.Syscalls {
		for _, call := range rule.Names {
			if rule.Action == allow {
				allowed[call] = append(allowed[call], rule.Args)
			}
			if limited := slices.Contains(limitedCalls, call); rule.Action == allow && limited != (len(rule.Args) > 0) {
				t.Errorf("%s is allowed with arguments %v", call, rule.Args)
			}
		}
	}
	want := map[string][][]callArg{
		"clone": {{{Index: 0, Value: 0x7e020000, Op: "SCMP_CMP_MASKED_EQ"}}},
		"socket": {
			{is(0, 1)},
			{is(0, 2)},
			{is(0, 10)},
			{is(0, 16), is(2, 0)},
			{is(0, 16), is(2, 4)},
			{is(0, 16), is(2, 9)},
			{is(0, 16), is(2, 15)},
		},
		"socketpair":  {{is(0, 1)}},
		"personality": {{is(0, 0)}, {is(0, 8)}, {is(0, 0x20000)}, {is(0, 0x20008)}, {is(0, 0xffffffff)}},
	}
	for call, args := range want {
		if diff := cmp.Diff(args, allowed[call]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", call, diff)
		}
	}
	if at := slices.IndexFunc(filter.Syscalls, func(r callRule) bool { return slices.Contains(r.Names, "clone3") }); at < 0 ||
		filter.Syscalls[at].Action != refuse || filter.Syscalls[at].ErrnoRet != eNoSys {
		t.Error("clone3 is not said to be missing, so C libraries would not fall back to clone")
	}
}

func TestNoSystemCallIsListedTwice(t *testing.T) {
	seen := make(map[string]bool)
	for _, call := range slices.Concat(allowedCalls, tracingCalls, limitedCalls) {
		if seen[call] {
			t.Errorf("%s is listed twice", call)
		}
		seen[call] = true
	}
}

func decodedFilter(t *testing.T) callFilter {
	t.Helper()
	var filter callFilter
	decoder := json.NewDecoder(strings.NewReader(systemCallFilter()))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&filter); err != nil {
		t.Fatal(err)
	}
	return filter
}
