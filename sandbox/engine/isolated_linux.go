package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageVariable tells a re-executed program which part of Isolated it is.
const stageVariable = "DISTRIBUTEDCOMPUTE_SANDBOX_STAGE"

// noRaceSleep lets a program that was built with the race detector end without its pause of one second.
const noRaceSleep = "GORACE=atexit_sleep_ms=0"

const (
	stageInit = "init" // first process of the new namespaces
	stageRun  = "run"  // the program itself, inside
)

// Isolated runs run in a copy of this program inside namespaces of its own (network, mounts,
// processes) and returns its exit code. Only loopback exists in there, /run is empty, and whatever
// is still running or mounted when run returns, the kernel takes away. It must be the first thing
// a program does. It needs root or a sudo that asks nothing, and fails without both: tests that did
// not run must not look like tests that passed.
//
// A second dockerd in one network namespace would flush the firewall rules of the first; that is
// why a private engine gets a private network.
func Isolated(run func() int) int {
	if filepath.Base(os.Args[0]) == hookName {
		return hookMain()
	}
	switch os.Getenv(stageVariable) {
	case stageRun:
		return run()
	case stageInit:
		return exitCode(initMain())
	}
	if os.Geteuid() != 0 {
		return elevated()
	}
	// The parent-death signal goes by thread, so this one must last as long as the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := again(stageInit)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	defer removeCgroups(cgroupParent(os.Getpid()))
	cmd.Env = append(cmd.Env, cgroupVariable+"="+cgroupParent(os.Getpid()), noRaceSleep)
	if err := cmd.Start(); err != nil {
		return exitCode(fmt.Errorf("entering new namespaces: %w", err))
	}
	return exitCode(waitForwarding(cmd))
}

// elevated runs this program again as root.
func elevated() int {
	if exec.Command("sudo", "-n", "true").Run() != nil {
		return exitCode(errors.New("the private Docker Engine needs root: run as root, or run `sudo -v` first"))
	}
	self := again("")
	// sudo replaces PATH even with -E, and the go command may only be found by the caller's.
	args := append([]string{"-n", "-E", "env", "PATH=" + os.Getenv("PATH")}, self.Args...)
	cmd := exec.Command("sudo", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = self.Stdin, self.Stdout, self.Stderr
	if err := cmd.Start(); err != nil {
		return exitCode(fmt.Errorf("running sudo: %w", err))
	}
	return exitCode(waitForwarding(cmd))
}

// again is this very program with its arguments, as another stage.
func again(stage string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageVariable+"="+stage)
	return cmd
}

// initMain prepares the namespaces, runs the program in them and collects the dead of every
// process that was left to it, as the first process of a PID namespace has to.
func initMain() error {
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""}, // what is mounted in here stays in here
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"tmpfs", "/run", "tmpfs", 0, "mode=755"}, // hides the machine's own Docker and containerd
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	if err := raiseLoopback(); err != nil {
		return fmt.Errorf("raising the loopback interface: %w", err)
	}
	cmd := again(stageRun)
	cmd.Env = slices.DeleteFunc(cmd.Env, func(entry string) bool { return entry == noRaceSleep })
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting again inside: %w", err)
	}
	var forwarding sync.WaitGroup
	stop := forwardSignals(&forwarding, cmd.Process)
	defer func() { stop(); forwarding.Wait() }()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("waiting for the program: %w", err)
		case pid == cmd.Process.Pid && status.Signaled():
			return endedWith(128 + int(status.Signal()))
		case pid == cmd.Process.Pid:
			return endedWith(status.ExitStatus())
		}
	}
}

// raiseLoopback sets the interface up; a new network namespace starts with it down.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// waitForwarding waits for cmd and hands it the signals that ask this process to end.
func waitForwarding(cmd *exec.Cmd) error {
	var forwarding sync.WaitGroup
	stop := forwardSignals(&forwarding, cmd.Process)
	defer func() { stop(); forwarding.Wait() }()
	return cmd.Wait()
}

// forwardSignals passes signals on until stop is called. An interrupt is only kept from ending this process:
// the terminal has already sent it to the whole group.
func forwardSignals(wg *sync.WaitGroup, to *os.Process) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	wg.Go(func() {
		for s := range signals {
			if s != os.Interrupt {
				_ = to.Signal(s) // it may have ended already
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

// exitStatus carries the exit code of a program that ended.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// endedWith gives nil for success.
func endedWith(code int) error {
	if code == 0 {
		return nil
	}
	return exitStatus(code)
}

// exitCode turns how a stage ended into the code to exit with, and says what went wrong in between.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if exit.ExitCode() >= 0 {
			return exit.ExitCode()
		}
		return 1
	}
	fmt.Fprintln(os.Stderr, "sandbox: "+strings.TrimSpace(err.Error()))
	return 1
}
