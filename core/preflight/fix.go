package preflight

import (
	"fmt"
	"slices"
	"strings"
)

// trust is for who knows better than a number.
const trust = " If you know that your build has the fixes, set unsafe_allow_old_engine: true in agent.yaml; the marketplace is told."

// upgrade names the package that helps, and the exact command where there is one.
func upgrade(entry *Entry, host Host, from Package, built bool) (pkg, fix string) {
	switch {
	case host.Desktop:
		return "Docker Desktop", "Update Docker Desktop, which brings it along: https://docs.docker.com/desktop/"
	case entry.Name == Kernel:
		return kernelUpgrade(host, built)
	case entry.Name == Driver:
		return entry.Upgrade, "Install the newest driver of a branch that is looked after (" + strings.Join(entry.Floors, ", ") + " or newer) and restart the machine: " + entry.Page
	case built:
		fix = fmt.Sprintf("Put the makers' own packages in its place (%s): %s", entry.Upgrade, entry.Page)
		if command := host.upgrades(from.Name); from.Name != "" && command != "" {
			fix = fmt.Sprintf("Upgrade it with: %s. Where that brings no newer version: put the makers' own packages in its place (%s): %s",
				command, entry.Upgrade, entry.Page)
		}
		return firstOf(from.Name, entry.Upgrade), fix + trust
	}
	pkg = firstOf(from.Name, entry.Upgrade)
	if command := host.upgrades(pkg); from.Name != "" && command != "" {
		return pkg, "Upgrade it with: " + command
	}
	return pkg, fmt.Sprintf("Install the newest %s (%s): %s", entry.Title, entry.Upgrade, entry.Page)
}

// kernelUpgrade upgrades all there is where one machine's kernel is of another package than the next one's.
func kernelUpgrade(host Host, built bool) (pkg, fix string) {
	pkg = "the kernel's package"
	command := "sudo apt-get update && sudo apt-get upgrade --with-new-pkgs"
	switch {
	case host.is("ubuntu"), host.is("debian"):
	case host.is("fedora"), host.is("rhel"):
		pkg, command = "kernel", host.upgrades("kernel")
	case host.is("suse"):
		pkg, command = "kernel-default", host.upgrades("kernel-default")
	case host.is("arch"):
		pkg, command = "linux", host.upgrades("linux")
	default:
		return pkg, "Install your distribution's newest kernel and restart the machine."
	}
	fix = "Upgrade it with: " + command + ", and restart the machine."
	if built {
		fix += trust
	}
	return pkg, fix
}

// upgrades is the command that upgrades packages on this host; "" where that is not known.
func (h *Host) upgrades(packages string) string {
	switch {
	case h.is("debian"), h.is("ubuntu"):
		return "sudo apt-get update && sudo apt-get install --only-upgrade " + packages
	case h.is("fedora"), h.is("rhel"), h.is("centos"):
		return "sudo dnf upgrade " + packages
	case h.is("suse"):
		return "sudo zypper update " + packages
	case h.is("arch"):
		return "sudo pacman -Syu " + packages
	case h.is("alpine"):
		return "sudo apk upgrade " + packages
	}
	return ""
}

// is reports whether the host's distribution is of a family.
func (h *Host) is(family string) bool {
	return h.Distribution == family || slices.ContainsFunc(strings.Fields(h.Like), func(like string) bool {
		return like == family || strings.HasPrefix(like, family) && family == "suse"
	}) || family == "suse" && strings.HasPrefix(h.Distribution, "opensuse")
}

// mitigation is the command that closes holes by keeping kernel modules out; "" where some hole stays open.
func mitigation(open []Advisory, blocked []string) string {
	var lines []string
	for _, a := range open {
		if len(a.ClosedBy) == 0 {
			return ""
		}
		for _, module := range a.ClosedBy {
			if !slices.Contains(blocked, module) {
				lines = append(lines, "install "+module+` /bin/false`)
			}
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return fmt.Sprintf(`printf '%s\n' | sudo tee %s, and restart the machine.`, strings.Join(lines, `\n`), blockingFile)
}

func firstOf(words ...string) string {
	for _, word := range words {
		if word != "" {
			return strings.Fields(word)[0]
		}
	}
	return ""
}
