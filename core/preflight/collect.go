package preflight

import (
	"bufio"
	"context"
	"io"
	"slices"
	"strings"
)

// Engine is what the container engine says of itself and of where it runs.
type Engine struct {
	// Components are the versions of the engine's parts by their names: "docker", "containerd", "runc".
	Components map[string]string
	Kernel     string // release of the kernel that containers run on
	System     string // the operating system there, in words
	CDI        bool
}

// Drivers are the versions that the GPUs' survey has found.
type Drivers struct {
	GPUs    bool   // there are NVIDIA GPUs
	Version string // of the driver; "" where it is not known
}

// Collect looks at this host. It changes nothing, runs no program but nvidia-ctk and rpm, where they are there and
// needed, and returns within seconds whatever they do.
func Collect(ctx context.Context, table *Table, engine Engine, drivers Drivers) Host {
	host := Host{Versions: map[string]string{}, GPUs: drivers.GPUs, CDI: engine.CDI}
	for _, name := range []string{Docker, Containerd, Runc} {
		host.Versions[name] = engine.Components[name]
	}
	if engine.Kernel != "" {
		host.Versions[Kernel] = engine.Kernel
	}
	host.Desktop = strings.Contains(engine.System, "Docker Desktop")
	if host.Desktop {
		return host // what is installed here is not what runs there, and the toolkit comes with it
	}
	lookAround(ctx, table, &host, drivers)
	return host
}

// readRelease reads an os-release file.
func readRelease(r io.Reader) map[string]string {
	values := map[string]string{}
	for line := range lines(r) {
		name, value, found := strings.Cut(line, "=")
		if found && !strings.HasPrefix(name, "#") {
			values[strings.TrimSpace(name)] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return values
}

// readDpkg reads dpkg's list and gives the versions of the packages in names that are installed.
func readDpkg(r io.Reader, names []string) map[string]string {
	versions := map[string]string{}
	var name, version string
	installed := false
	keep := func() {
		if installed && version != "" && slices.Contains(names, name) {
			versions[name] = version
		}
		name, version, installed = "", "", false
	}
	for line := range lines(r) {
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch field {
		case "":
			keep()
		case "Package":
			name = value
		case "Version":
			version = value
		case "Status":
			installed = strings.HasSuffix(value, " installed")
		}
	}
	keep()
	return versions
}

// readRPM reads lines of "name version".
func readRPM(text string, names []string) map[string]string {
	versions := map[string]string{}
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) == 2 && slices.Contains(names, words[0]) {
			versions[words[0]] = words[1]
		}
	}
	return versions
}

// readBlocks gives the modules that modprobe is told to load by doing nothing. "blacklist" does not count: it
// keeps a module from being found by what it serves, not by its name.
func readBlocks(r io.Reader) []string {
	var blocked []string
	for line := range lines(r) {
		words := strings.Fields(line)
		if len(words) != 3 || words[0] != "install" {
			continue
		}
		switch words[2] {
		case "/bin/false", "/usr/bin/false", "/bin/true", "/usr/bin/true":
			blocked = append(blocked, strings.ReplaceAll(words[1], "-", "_"))
		}
	}
	return blocked
}

// readModules gives which of names a modules.dep or modules.builtin has.
func readModules(r io.Reader, names []string) []string {
	var found []string
	for line := range lines(r) {
		path, _, _ := strings.Cut(line, ":")
		base := path[strings.LastIndexByte(path, '/')+1:]
		base, _, _ = strings.Cut(base, ".ko")
		if base = strings.ReplaceAll(base, "-", "_"); slices.Contains(names, base) {
			found = append(found, base)
		}
	}
	return found
}

// readSettings reads the simple values of a TOML file, "section.key" → value.
func readSettings(r io.Reader) map[string]string {
	values := map[string]string{}
	section := ""
	for line := range lines(r) {
		line = strings.TrimSpace(line)
		if name, found := strings.CutPrefix(line, "["); found {
			section = strings.TrimSpace(strings.TrimRight(name, "] ")) + "."
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if !found || strings.HasPrefix(line, "#") {
			continue
		}
		value, _, _ = strings.Cut(value, "#")
		values[section+strings.TrimSpace(name)] = strings.Trim(strings.TrimSpace(value), `"'`)
	}
	return values
}

// kernelBase finds the version of kernel.org in what the running kernel says of itself: of Ubuntu's
// version_signature the last word, of Debian's banner the version of its package, which follows kernel.org.
func kernelBase(signature, banner string) string {
	if words := strings.Fields(signature); len(words) == 3 && words[0] == "Ubuntu" {
		return words[2]
	}
	if _, after, found := strings.Cut(banner, " Debian "); found {
		if words := strings.Fields(after); len(words) > 0 {
			upstream, _, _ := strings.Cut(words[0], "-")
			return upstream
		}
	}
	return ""
}

// toolkitVersion reads what nvidia-ctk --version prints.
func toolkitVersion(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	if _, version, found := strings.Cut(first, "version "); found {
		return strings.TrimSpace(version)
	}
	return ""
}

// lines yields the lines of what is a text, and stops where it is none.
func lines(r io.Reader) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		scanner := bufio.NewScanner(r)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			if !yield(scanner.Text()) {
				return
			}
		}
	}
}
