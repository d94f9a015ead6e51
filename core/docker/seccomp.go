package docker

import (
	"encoding/json"
	"strings"
)

// seccompOption is how a filter of system calls is handed to the engine.
const seccompOption = "seccomp="

// What is allowed and what is not follows the default profile of Moby (github.com/moby/profiles, seccomp/v0.2.3, June
// 2026), which lets apt, sshd, Python and CUDA run, and is tighter where a rental has no need: sockets of four families
// alone, no 32-bit multiplexer that would get around that, no way to another user namespace. A new call is refused until
// it is listed here. Engines leave out names that their library does not know.

// allowedCalls are those every program may make, whatever the arguments, by what they are for.
var allowedCalls = strings.Fields(`
	read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek readahead
	open openat openat2 creat close close_range dup dup2 dup3 fcntl fcntl64 flock ioctl pipe pipe2 memfd_create memfd_secret
	stat stat64 lstat lstat64 fstat fstat64 newfstatat fstatat64 statx statfs statfs64 fstatfs fstatfs64 statmount listmount
	access faccessat faccessat2 umask utime utimes utimensat utimensat_time64 futimesat
	chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32
	mkdir mkdirat rmdir mknod mknodat link linkat symlink symlinkat unlink unlinkat rename renameat renameat2
	readlink readlinkat getdents getdents64 getcwd chdir fchdir name_to_handle_at
	getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat
	listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat
	truncate truncate64 ftruncate ftruncate64 fallocate fadvise64 fadvise64_64 copy_file_range sendfile sendfile64
	splice tee vmsplice sync syncfs fsync fdatasync sync_file_range cachestat
	inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
	io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set

	select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64
	epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
	eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_settime64 timerfd_gettime timerfd_gettime64

	bind connect listen accept accept4 shutdown getsockname getpeername getsockopt setsockopt
	send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64

	brk mmap mmap2 munmap mremap mprotect madvise mincore msync remap_file_pages membarrier map_shadow_stack mseal
	mlock mlock2 mlockall munlock munlockall pkey_alloc pkey_free pkey_mprotect
	shmget shmat shmdt shmctl semget semop semctl semtimedop semtimedop_time64 msgget msgsnd msgrcv msgctl ipc
	mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64

	fork vfork execve execveat exit exit_group wait4 waitid waitpid kill tkill tgkill pause prctl seccomp rseq
	pidfd_open pidfd_send_signal process_mrelease
	landlock_create_ruleset landlock_add_rule landlock_restrict_self
	futex futex_time64 futex_wait futex_waitv futex_wake futex_requeue get_robust_list set_robust_list
	set_tid_address get_thread_area set_thread_area
	rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
	rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn restart_syscall uretprobe

	getpid getppid gettid getpgid getpgrp setpgid getsid setsid getpriority setpriority getcpu getrandom
	getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getgroups getgroups32
	getresuid getresuid32 getresgid getresgid32 setuid setuid32 setgid setgid32 setgroups setgroups32
	setreuid setreuid32 setregid setregid32 setresuid setresuid32 setresgid setresgid32
	setfsuid setfsuid32 setfsgid setfsgid32 capget capset chroot
	getrlimit ugetrlimit setrlimit prlimit64 getrusage times sysinfo uname
	sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
	sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min
	sched_rr_get_interval sched_rr_get_interval_time64 sched_yield

	time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep clock_nanosleep_time64
	nanosleep adjtimex clock_adjtime clock_adjtime64 alarm getitimer setitimer
	timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
`)

// tracingCalls look into other processes of the same user, as debuggers and MPI do. Before Linux 4.8 a traced process could
// leave the filter.
var tracingCalls = []string{"ptrace", "process_vm_readv", "process_vm_writev"}

// Families of sockets and what they are called with, by the kernel's numbers.
const (
	afUnix    = 1
	afInet    = 2
	afInet6   = 10
	afNetlink = 16
)

// netlinkProtocols are those that programs look at the network (route, sock_diag), log in (audit) and find
// devices (uevent) by.
var netlinkProtocols = []uint64{0, 4, 9, 15}

// newNamespaces are the flags of clone that ask for namespaces; time's is none of clone's.
const newNamespaces = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

// personalities are Linux and its 32-bit form, each with and without uname26, and the question for the current one.
var personalities = []uint64{0x0, 0x8, 0x20000, 0x20008, 0xffffffff}

const (
	allow  = "SCMP_ACT_ALLOW"
	refuse = "SCMP_ACT_ERRNO"
	ePerm  = 1
	eNoSys = 38
)

// The form in which engines take a filter; fields that an engine does not know, it passes over.
type (
	callFilter struct {
		DefaultAction   string       `json:"defaultAction"`
		DefaultErrnoRet uint         `json:"defaultErrnoRet"`
		ArchMap         []callTables `json:"archMap"`
		Syscalls        []callRule   `json:"syscalls"`
	}
	callTables struct {
		Architecture     string   `json:"architecture"`
		SubArchitectures []string `json:"subArchitectures"`
	}
	callRule struct {
		Names    []string      `json:"names"`
		Action   string        `json:"action"`
		ErrnoRet uint          `json:"errnoRet,omitempty"`
		Args     []callArg     `json:"args,omitempty"` // all must hold
		Includes *callIncludes `json:"includes,omitempty"`
	}
	callArg struct {
		Index    uint   `json:"index"`
		Value    uint64 `json:"value"`
		ValueTwo uint64 `json:"valueTwo"`
		Op       string `json:"op"`
	}
	callIncludes struct {
		Arches    []string `json:"arches,omitempty"`
		MinKernel string   `json:"minKernel,omitempty"`
	}
)

// systemCallFilter is the filter of every rental, in the engine's JSON. It is the same on all hosts: the engine picks what
// is for its processor.
func systemCallFilter() string {
	filter := callFilter{
		DefaultAction: refuse, DefaultErrnoRet: ePerm,
		// Without x32, which no distribution of today uses: its calls end the program.
		ArchMap: []callTables{
			{"SCMP_ARCH_X86_64", []string{"SCMP_ARCH_X86"}},
			{"SCMP_ARCH_AARCH64", []string{"SCMP_ARCH_ARM"}},
		},
		Syscalls: []callRule{
			{Names: allowedCalls, Action: allow},
			{Names: tracingCalls, Action: allow, Includes: &callIncludes{MinKernel: "4.8"}},
			{Names: []string{"arch_prctl", "modify_ldt"}, Action: allow, Includes: &callIncludes{Arches: []string{"amd64"}}},
			{
				Names: []string{
					"arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2", "breakpoint", "cacheflush", "set_tls",
				},
				Action: allow, Includes: &callIncludes{Arches: []string{"arm64"}},
			},
			{Names: []string{"clone"}, Action: allow, Args: []callArg{{Index: 0, Value: newNamespaces, Op: "SCMP_CMP_MASKED_EQ"}}},
			// Its flags lie in memory, where a filter cannot look. C libraries that hear it does not exist use clone.
			{Names: []string{"clone3"}, Action: refuse, ErrnoRet: eNoSys},
			{Names: []string{"socketpair"}, Action: allow, Args: []callArg{is(0, afUnix)}},
		},
	}
	for _, family := range []uint64{afUnix, afInet, afInet6} {
		filter.Syscalls = append(filter.Syscalls, callRule{Names: []string{"socket"}, Action: allow, Args: []callArg{is(0, family)}})
	}
	for _, protocol := range netlinkProtocols {
		filter.Syscalls = append(filter.Syscalls, callRule{
			Names: []string{"socket"}, Action: allow, Args: []callArg{is(0, afNetlink), is(2, protocol)},
		})
	}
	for _, personality := range personalities {
		filter.Syscalls = append(filter.Syscalls, callRule{
			Names: []string{"personality"}, Action: allow, Args: []callArg{is(0, personality)},
		})
	}
	text, err := json.Marshal(filter)
	if err != nil {
		panic("encoding the filter of system calls: " + err.Error()) // it is made of text and numbers
	}
	return string(text)
}

// is compares an argument.
func is(index uint, value uint64) callArg {
	return callArg{Index: index, Value: value, Op: "SCMP_CMP_EQ"}
}
