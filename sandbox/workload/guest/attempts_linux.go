package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempt is one thing that a renter's program must not get to do. A nil error says that it got to do it, and so does one
// that the kernel gives to those who may but ask for nonsense.
type attempt struct {
	name string
	try  func() error
}

// tryAll makes all attempts and says how each ended: "ok" or the name of the error. pid is that of a process of the host's,
// and file one of its files. Attempts are such that nothing comes of those that are let through.
func tryAll(pid int, file string) map[string]string {
	answers := make(map[string]string)
	all := append(openings(), append(calls(), append(deeds(), abroad(pid, file)...)...)...)
	for _, a := range all {
		done := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // and never unlocked: a thread that got away with something ends here
			done <- a.try()
		}()
		select {
		case err := <-done:
			answers[a.name] = nameOf(err)
		case <-time.After(5 * time.Second):
			answers[a.name] = "hangs"
		}
	}
	return answers
}

// openings open what leads to the kernel, its devices and its settings.
func openings() []attempt {
	var all []attempt
	opening := func(how string, flags int, paths ...string) {
		for _, path := range paths {
			all = append(all, attempt{how + " " + path, func() error {
				fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
				if err == nil {
					_ = unix.Close(fd)
				}
				return err
			}})
		}
	}
	opening("read", unix.O_RDONLY, "/dev/mem", "/dev/kmsg", "/dev/port", "/dev/sda", "/dev/vda", "/dev/loop0", "/dev/loop-control", "/dev/kvm",
		"/dev/fuse", "/dev/net/tun", "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl", "/dev/dri/card0", "/dev/kfd")
	opening("write", unix.O_WRONLY, "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
		"/proc/sys/net/ipv4/ip_forward", "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled",
		"/sys/power/state", "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/cgroup.procs",
		"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cgroup.procs")
	for _, device := range []struct {
		name         string
		mode         uint32
		major, minor uint32
	}{
		{"memory", unix.S_IFCHR, 1, 1},
		{"kernel messages", unix.S_IFCHR, 1, 11},
		{"a disk", unix.S_IFBLK, 8, 0},
		{"a virtual disk", unix.S_IFBLK, 254, 0},
		{"a loop device", unix.S_IFBLK, 7, 0},
		{"a tunnel", unix.S_IFCHR, 10, 200},
		{"an NVIDIA GPU", unix.S_IFCHR, 195, 0},
		{"another NVIDIA GPU", unix.S_IFCHR, 195, 1},
		{"a display", unix.S_IFCHR, 226, 0},
	} {
		all = append(all, attempt{"make and open " + device.name, func() error {
			path := filepath.Join(workDir(), fmt.Sprintf("device-%d-%d", device.major, device.minor))
			if err := unix.Mknod(path, device.mode|0o600, int(unix.Mkdev(device.major, device.minor))); err != nil {
				return err
			}
			defer os.Remove(path)
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
			if err == nil {
				_ = unix.Close(fd)
			}
			return err
		}})
	}
	return all
}

// calls are system calls for those who rule the machine.
func calls() []attempt {
	raw := func(number uintptr, args ...uintptr) func() error {
		return func() error {
			var a [6]uintptr
			copy(a[:], args)
			result, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
			if errno != 0 {
				return errno
			}
			if result > 2 && result < 1<<16 {
				_ = unix.Close(int(result)) // most likely a descriptor; else there is none of that number
			}
			return nil
		}
	}
	var all []attempt
	for _, s := range []struct {
		name                   string
		family, kind, protocol int
	}{
		{"crypto socket", unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
		{"virtual machine socket", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
		{"packet socket", unix.AF_PACKET, unix.SOCK_RAW, 0},
		{"raw socket", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW},
		{"raw ICMP socket", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
		{"raw IPv6 socket", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
		{"firewall socket", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER},
		{"transform socket", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM},
	} {
		all = append(all, attempt{s.name, raw(unix.SYS_SOCKET, uintptr(s.family), uintptr(s.kind|unix.SOCK_CLOEXEC), uintptr(s.protocol))})
	}
	text := func(s string) uintptr { p, _ := unix.BytePtrFromString(s); return uintptr(unsafe.Pointer(p)) }
	root, none, tmpfs := text("/"), text("none"), text("tmpfs")
	below := filepath.Join(workDir(), "mounted")
	_ = os.Mkdir(below, 0o755) // where it cannot be made, nothing is mounted on it
	all = append(all,
		attempt{"unshare the users", raw(unix.SYS_UNSHARE, unix.CLONE_NEWUSER)},
		attempt{"unshare the mounts", raw(unix.SYS_UNSHARE, unix.CLONE_NEWNS)},
		attempt{"unshare the network", raw(unix.SYS_UNSHARE, unix.CLONE_NEWNET)},
		attempt{"clone3", raw(unix.SYS_CLONE3)},
		attempt{"mount a file system", raw(unix.SYS_MOUNT, none, text(below), tmpfs, 0, 0)},
		attempt{"unmount /dev/shm", raw(unix.SYS_UMOUNT2, text("/dev/shm"), unix.MNT_DETACH)},
		attempt{"pivot_root", raw(unix.SYS_PIVOT_ROOT, root, root)},
		attempt{"open_tree", raw(unix.SYS_OPEN_TREE, nowhere-99, root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)},
		attempt{"move_mount", raw(unix.SYS_MOVE_MOUNT, nowhere, root, nowhere, root, 0)},
		attempt{"fsopen", raw(unix.SYS_FSOPEN, tmpfs, unix.FSOPEN_CLOEXEC)},
		attempt{"bpf", raw(unix.SYS_BPF, 9999)},
		attempt{"perf_event_open", raw(unix.SYS_PERF_EVENT_OPEN)},
		attempt{"keyctl", raw(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, nowhere-2, 0)},
		attempt{"add_key", raw(unix.SYS_ADD_KEY)},
		attempt{"request_key", raw(unix.SYS_REQUEST_KEY)},
		attempt{"userfaultfd", raw(unix.SYS_USERFAULTFD, unix.O_CLOEXEC)},
		attempt{"io_uring_setup", raw(unix.SYS_IO_URING_SETUP, 1)},
		attempt{"kexec_load", raw(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0xffff)},
		attempt{"init_module", raw(unix.SYS_INIT_MODULE)},
		attempt{"finit_module", raw(unix.SYS_FINIT_MODULE, nowhere)},
		attempt{"delete_module", raw(unix.SYS_DELETE_MODULE, text("no_such_module"), unix.O_NONBLOCK)},
		attempt{"read the kernel's log", raw(unix.SYS_SYSLOG, 10)},
		attempt{"reboot", raw(unix.SYS_REBOOT)}, // without its magic numbers
		attempt{"settimeofday", raw(unix.SYS_SETTIMEOFDAY)},
		attempt{"swapon", raw(unix.SYS_SWAPON, 1, 0)},
		attempt{"swapoff", raw(unix.SYS_SWAPOFF, 1)},
		attempt{"acct", raw(unix.SYS_ACCT, 1)},
		attempt{"quotactl", raw(unix.SYS_QUOTACTL, nowhere)},
		attempt{"iopl", raw(unix.SYS_IOPL, 3)},
		attempt{"ioperm", raw(unix.SYS_IOPERM, 0x80, 1, 1)},
		attempt{"fanotify_init", raw(unix.SYS_FANOTIFY_INIT, unix.FAN_CLOEXEC)},
		attempt{"pidfd_getfd", raw(unix.SYS_PIDFD_GETFD, nowhere)},
		attempt{"setdomainname", raw(unix.SYS_SETDOMAINNAME, none, 4)},
		attempt{"sethostname", raw(unix.SYS_SETHOSTNAME, none, 4)},
	)
	return all
}

// deeds take more than one call.
func deeds() []attempt {
	child := func(flags uintptr) func() error {
		return func() error {
			cmd := exec.Command("/proc/self/exe", "-exit=0")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
			return cmd.Run()
		}
	}
	return []attempt{
		{"a child in a user namespace", child(unix.CLONE_NEWUSER)},
		{"a child in a mount namespace", child(unix.CLONE_NEWNS)},
		{"a child in a network namespace", child(unix.CLONE_NEWNET)},
		{"enter the namespaces of pid 1", func() error {
			fd, err := unix.Open("/proc/1/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Setns(fd, unix.CLONE_NEWNET)
		}},
		{"open a file by its handle", func() error {
			const shared = "/dev/shm" // in memory: not every file system has handles
			handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, shared, 0)
			if err != nil {
				return err
			}
			dir, err := unix.Open(shared, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(dir)
			fd, err := unix.OpenByHandleAt(dir, handle, unix.O_RDONLY|unix.O_CLOEXEC)
			if err == nil {
				_ = unix.Close(fd)
			}
			return err
		}},
		{"take down an interface", func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			request, err := unix.NewIfreq("lo")
			if err != nil {
				return err
			}
			return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
		}},
		{"mark packets", func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 1)
		}},
		{"take all capabilities", func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			if err := unix.Capget(&header, &data[0]); err != nil {
				return err
			}
			const admin = 1 << unix.CAP_SYS_ADMIN
			data[0].Permitted |= admin
			data[0].Effective |= admin
			return unix.Capset(&header, &data[0])
		}},
		{"become root by a setuid program", gainByBit},
		{"run ahead of everyone", func() error {
			return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}, 0)
		}},
		{"a better priority", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -20) }},
		{"make a file immutable", func() error {
			file, err := os.CreateTemp(workDir(), "immutable-")
			if err != nil {
				return err
			}
			defer func() { file.Close(); os.Remove(file.Name()) }()
			if err := unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, unix.STATX_ATTR_IMMUTABLE); err != nil {
				return err
			}
			return unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, 0)
		}},
		{"a packet socket by a 32-bit call", func() error { return runCode(socketCode(unix.AF_PACKET, unix.SOCK_RAW)) }},
		{"a virtual machine socket by a 32-bit call", func() error { return runCode(socketCode(unix.AF_VSOCK, unix.SOCK_STREAM)) }},
	}
}

// abroad are attempts on a process and a file of the host's.
func abroad(pid int, file string) []attempt {
	return []attempt{
		{"signal a process of the host", func() error { return unix.Kill(pid, 0) }},
		{"trace a process of the host", func() error {
			const seize = 0x4206
			_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, seize, uintptr(pid), 0, 0, 0, 0)
			if errno != 0 {
				return errno
			}
			return nil
		}},
		{"look at the host by a process of it", func() error { return readable(fmt.Sprintf("/proc/%d/root%s", pid, file)) }},
		{"read a file of the host", func() error { return readable(file) }},
		{"leave a chroot for the host", func() error { return escapeIn(file) }},
		{"reach the engine at /var/run/docker.sock", func() error { return dialSocket("/var/run/docker.sock") }},
		{"reach the engine at /run/docker.sock", func() error { return dialSocket("/run/docker.sock") }},
		{"reach containerd", func() error { return dialSocket("/run/containerd/containerd.sock") }},
		{"reach the engine at its own place", func() error { return dialSocket(os.Getenv("HOST_SOCKET")) }},
	}
}

func readable(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return file.Close()
}

func dialSocket(path string) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	return conn.Close()
}

// runCode runs machine code that exits with the number of an error.
func runCode(code []byte) error {
	program, err := writeProgram(code)
	if err != nil {
		return err
	}
	defer os.Remove(program)
	err = exec.Command(program).Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
		return syscall.Errno(exit.ExitCode())
	}
	return err
}

// gainByBit runs a program of root's with the setuid bit as somebody else, and says EPERM where it stays somebody else's.
func gainByBit() error {
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	path := filepath.Join(workDir(), "setuid")
	if err := os.WriteFile(path, own, 0o700); err != nil {
		return err
	}
	defer os.Remove(path)
	if err := os.Chmod(path, 0o755|os.ModeSetuid); err != nil {
		return err
	}
	cmd := exec.Command(path, "-whoami")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	out, err := cmd.Output()
	if err == nil && strings.TrimSpace(string(out)) != "0" {
		return unix.EPERM
	}
	return err
}

// escapeIn has another process leave a chroot: the root directory is the whole process'.
func escapeIn(file string) error {
	out, err := exec.Command("/proc/self/exe", "-escape", file).Output()
	if err != nil {
		return err
	}
	var number int
	if err := json.Unmarshal(out, &number); err != nil {
		return err
	}
	if number != 0 {
		return syscall.Errno(number)
	}
	return nil
}

// escape goes into a chroot and out of it, as far up as it gets, and opens a file by its path from there.
func escape(file string) error {
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Chroot(workDir()); err != nil {
		return err
	}
	if err := unix.Fchdir(fd); err != nil {
		return err
	}
	for range 32 {
		if err := unix.Chdir(".."); err != nil {
			return err
		}
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return readable(file)
}
