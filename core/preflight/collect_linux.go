package preflight

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	programWithin = 5 * time.Second
	mostFileBytes = 64 << 20 // dpkg's list of a full desktop has some 10 MiB
	mostOutput    = 64 << 10
)

// lookAround adds what this machine says, where the engine runs on it.
func lookAround(ctx context.Context, table *Table, host *Host, drivers Drivers) {
	running := release()
	if engine := host.Versions[Kernel]; engine != "" && engine != running {
		return // in a virtual machine: nothing here is of its system
	}
	host.Versions[Kernel] = running
	host.Base = kernelBase(text("/proc/version_signature"), text("/proc/version"))
	host.Blocked = blockedModules(running, table.Modules())

	system := readRelease(strings.NewReader(first("/etc/os-release", "/usr/lib/os-release")))
	host.Distribution, host.Release, host.Like = system["ID"], system["VERSION_ID"], system["ID_LIKE"]
	host.Packages = installed(ctx, table.Packages())

	if !host.GPUs {
		return
	}
	if !strings.Contains(running, "microsoft") { // there the driver is that of Windows, with numbers of its own
		host.Versions[Driver] = drivers.Version
	}
	host.Settings = readSettings(strings.NewReader(text("/etc/nvidia-container-runtime/config.toml")))
	version := toolkitVersion(output(ctx, "nvidia-ctk", "--version"))
	if version == "" { // the package's number is the vendor's, but for the revision
		version, _, _ = strings.Cut(host.Packages["nvidia-container-toolkit"], "-")
	}
	if version != "" || runnable("nvidia-container-runtime") || runnable("nvidia-container-runtime-hook") {
		host.Versions[Toolkit] = version
	}
}

// release is that of the running kernel, as uname -r prints it.
func release() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// installed asks the list of packages of whichever kind this system has.
func installed(ctx context.Context, names []string) map[string]string {
	if file, err := os.Open("/var/lib/dpkg/status"); err == nil {
		defer file.Close()
		return readDpkg(io.LimitReader(file, mostFileBytes), names)
	}
	for _, base := range []string{"/usr/lib/sysimage/rpm", "/var/lib/rpm"} {
		if _, err := os.Stat(base); err == nil {
			return readRPM(output(ctx, "rpm", slices.Concat([]string{"-q", "--qf", `%{NAME} %{VERSION}-%{RELEASE}\n`}, names)...), names)
		}
	}
	return nil
}

// blockedModules are those of names that the running kernel cannot be made to load: modprobe is told not to, or
// they do not exist. One that is loaded, or built in, is not blocked.
func blockedModules(release string, names []string) []string {
	var told []string
	for _, dir := range []string{"/etc/modprobe.d", "/run/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"} {
		files, err := filepath.Glob(dir + "/*.conf")
		if err != nil {
			continue
		}
		for _, file := range files {
			told = append(told, readBlocks(strings.NewReader(text(file)))...)
		}
	}
	base := "/lib/modules/" + release
	listed := text(base + "/modules.dep")
	loadable := readModules(strings.NewReader(listed), names)
	builtIn := readModules(strings.NewReader(text(base+"/modules.builtin")), names)
	var blocked []string
	for _, name := range names {
		_, err := os.Stat("/sys/module/" + name)
		// Without the list it is not known which modules there are.
		missing := listed != "" && !slices.Contains(loadable, name)
		if os.IsNotExist(err) && !slices.Contains(builtIn, name) && (missing || slices.Contains(told, name)) {
			blocked = append(blocked, name)
		}
	}
	return blocked
}

// text is what a file holds, "" where it cannot be read.
func text(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, mostFileBytes))
	if err != nil {
		return ""
	}
	return string(content)
}

func first(paths ...string) string {
	for _, path := range paths {
		if content := text(path); content != "" {
			return content
		}
	}
	return ""
}

func runnable(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// output is what a program prints, "" where it is not there, fails, or takes too long.
func output(ctx context.Context, name string, args ...string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, programWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	var out bytes.Buffer
	cmd.Stdout = &bounded{to: &out, left: mostOutput}
	if err := cmd.Run(); err != nil && out.Len() == 0 { // rpm fails where one of many packages is not there
		return ""
	}
	return out.String()
}

// bounded keeps the beginning of what is written, and drops the rest.
type bounded struct {
	to   io.Writer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	n, err := b.to.Write(p[:min(len(p), b.left)])
	b.left -= n
	if err != nil {
		return n, err
	}
	return len(p), nil
}
