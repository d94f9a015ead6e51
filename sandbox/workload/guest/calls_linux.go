package main

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// tryCalls makes system calls that a renter's program has no business with, and a few that it must be able to make, and
// says how the kernel answered each: "ok" or the name of the error. Arguments are such that a call which gets through
// does no harm, and mostly ends with EINVAL or EFAULT.
func tryCalls() map[string]string {
	answers := make(map[string]string)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: a thread that got away with something ends here
		for name, call := range rawCalls {
			_, _, errno := unix.RawSyscall6(call[0], call[1], call[2], call[3], 0, 0, 0)
			answers[name] = errorName(errno)
		}
		for name, socket := range sockets {
			fd, err := unix.Socket(socket[0], socket[1], socket[2])
			if err == nil {
				_ = unix.Close(fd)
			}
			answers[name] = nameOf(err)
		}
	}()
	<-done
	child := exec.Command("/guest", "-exit=0")
	answers["a child"] = nameOf(child.Run())
	child = exec.Command("/guest", "-exit=0")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	answers["a child in a user namespace"] = nameOf(child.Run())
	return answers
}

const nowhere = ^uintptr(0)

// rawCalls are numbers and first three arguments.
var rawCalls = map[string][4]uintptr{
	"unshare":          {unix.SYS_UNSHARE, unix.CLONE_NEWUSER},
	"setns":            {unix.SYS_SETNS, nowhere},
	"clone3":           {unix.SYS_CLONE3, 0, 0},
	"mount":            {unix.SYS_MOUNT},
	"umount2":          {unix.SYS_UMOUNT2},
	"pivot_root":       {unix.SYS_PIVOT_ROOT},
	"fsopen":           {unix.SYS_FSOPEN},
	"open_tree":        {unix.SYS_OPEN_TREE, nowhere},
	"move_mount":       {unix.SYS_MOVE_MOUNT, nowhere},
	"bpf":              {unix.SYS_BPF, nowhere},
	"perf_event_open":  {unix.SYS_PERF_EVENT_OPEN},
	"keyctl":           {unix.SYS_KEYCTL},
	"add_key":          {unix.SYS_ADD_KEY},
	"request_key":      {unix.SYS_REQUEST_KEY},
	"userfaultfd":      {unix.SYS_USERFAULTFD, nowhere},
	"io_uring_setup":   {unix.SYS_IO_URING_SETUP},
	"io_uring_enter":   {unix.SYS_IO_URING_ENTER, nowhere},
	"kexec_load":       {unix.SYS_KEXEC_LOAD, 0, 0, 0},
	"init_module":      {unix.SYS_INIT_MODULE},
	"finit_module":     {unix.SYS_FINIT_MODULE, nowhere},
	"delete_module":    {unix.SYS_DELETE_MODULE},
	"swapon":           {unix.SYS_SWAPON},
	"acct":             {unix.SYS_ACCT, 1},
	"sethostname":      {unix.SYS_SETHOSTNAME, 0, 0},
	"syslog":           {unix.SYS_SYSLOG, 10},
	"open_by_handle":   {unix.SYS_OPEN_BY_HANDLE_AT, nowhere},
	"fanotify_init":    {unix.SYS_FANOTIFY_INIT, nowhere},
	"pidfd_getfd":      {unix.SYS_PIDFD_GETFD, nowhere},
	"process_madvise":  {unix.SYS_PROCESS_MADVISE, nowhere},
	"move_pages":       {unix.SYS_MOVE_PAGES, nowhere},
	"quotactl":         {unix.SYS_QUOTACTL, nowhere},
	"getpid":           {unix.SYS_GETPID},
	"gettid":           {unix.SYS_GETTID},
	"epoll_create1":    {unix.SYS_EPOLL_CREATE1, nowhere},
	"process_vm_readv": {unix.SYS_PROCESS_VM_READV},
}

// sockets are families, types and protocols.
var sockets = map[string][3]int{
	"unix socket": {unix.AF_UNIX, unix.SOCK_STREAM}, "internet socket": {unix.AF_INET, unix.SOCK_STREAM},
	"IPv6 socket": {unix.AF_INET6, unix.SOCK_DGRAM}, "route socket": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE},
	"crypto socket": {unix.AF_ALG, unix.SOCK_SEQPACKET}, "virtual machine socket": {unix.AF_VSOCK, unix.SOCK_STREAM},
	"packet socket": {unix.AF_PACKET, unix.SOCK_RAW}, "bluetooth socket": {unix.AF_BLUETOOTH, unix.SOCK_RAW},
	"can socket": {unix.AF_CAN, unix.SOCK_RAW}, "key socket": {unix.AF_KEY, unix.SOCK_RAW},
	"raw socket": {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, "TIPC socket": {unix.AF_TIPC, unix.SOCK_STREAM},
	"RDS socket": {unix.AF_RDS, unix.SOCK_SEQPACKET}, "firewall socket": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER},
	"transform socket": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM},
}

func nameOf(err error) string {
	if err == nil {
		return "ok"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errorName(errno)
	}
	return err.Error()
}

func errorName(errno syscall.Errno) string {
	if errno == 0 {
		return "ok"
	}
	return unix.ErrnoName(errno)
}
