package desktop_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// homeKey marks the run that is in a home of its own.
const homeKey = "DESKTOP_TEST_HOME"

// TestMain runs the tests once more, in a home of their own, which go-autostart looks up when a program
// starts, and as nobody where root runs them: for root there is no desktop.
func TestMain(m *testing.M) {
	if os.Getenv(homeKey) != "" {
		os.Exit(m.Run())
	}
	os.Exit(atHome())
}

func atHome() int {
	home, err := os.MkdirTemp("", "desktop-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(home)
	temp := filepath.Join(home, "tmp") // the tests' programs lie beside it: one among temporary files is not recorded
	if err := os.Mkdir(temp, 0o777); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer program.Close()
	// By its descriptor: go puts the program where nobody else can look for it, and its log too.
	cmd := exec.Command("/proc/self/fd/3", slices.DeleteFunc(slices.Clone(os.Args[1:]), func(arg string) bool {
		return strings.HasPrefix(arg, "-test.testlogfile")
	})...)
	cmd.ExtraFiles = []*os.File{program}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), homeKey+"="+home, "HOME="+home, "TMPDIR="+temp, "XDG_CONFIG_HOME="+home+"/.config", "XDG_DATA_HOME="+home+"/.local/share", "XDG_CONFIG_DIRS="+home+"/xdg",
		"DBUS_SESSION_BUS_ADDRESS=", "DISPLAY=", "WAYLAND_DISPLAY=", "APPIMAGE=", "APPDIR=")
	if os.Geteuid() == 0 {
		const nobody = 65534
		if err := errors.Join(os.Chown(home, nobody, nobody), os.Chown(temp, nobody, nobody)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// need gives the path of a program that is in a distribution's package. Without it the test is skipped; in
// CI it fails.
func need(t *testing.T, program, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: apt-get install %s", program, pkg)
	}
	t.Skipf("%s is not installed: apt-get install %s", program, pkg)
	return ""
}
