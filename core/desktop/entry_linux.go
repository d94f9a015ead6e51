package desktop

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// entry is the group [Desktop Entry] of a .desktop file: raw values by key.
type entry map[string]string

// maskText hides the entry for all users from this one.
const maskText = `[Desktop Entry]
Type=Application
Version=1.0
Name=DistributedCompute Agent
Hidden=true
`

// entryText is an entry that starts a command; icon is a path, or "".
func entryText(command []string, icon string) string {
	quoted := make([]string, len(command))
	for i, arg := range command {
		quoted[i] = quote(arg)
	}
	var b strings.Builder
	line := func(key, value string) { b.WriteString(key + "=" + escape(value) + "\n") }
	b.WriteString("[Desktop Entry]\n")
	line("Type", "Application")
	line("Version", "1.0")
	line("Name", "DistributedCompute Agent")
	line("Comment", "Rents out this machine's GPUs")
	line("Exec", strings.Join(quoted, " "))
	line("TryExec", command[0])
	if icon != "" {
		line("Icon", icon)
	}
	line("Terminal", "false")
	line("NoDisplay", "true")
	line("StartupNotify", "false")
	line("X-GNOME-Autostart-enabled", "true")
	return b.String()
}

// readEntry reads a file, nil where there is none.
func readEntry(file string) (entry, error) {
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseEntry(string(content)), nil
}

// parseEntry is as lenient as desktops are: what it does not understand is not there.
func parseEntry(text string) entry {
	found := entry{}
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			inside = line == "[Desktop Entry]"
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok && inside && !strings.HasPrefix(line, "#") {
			found[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return found
}

// on reports whether desktops start the entry. Hidden is the specification's word for a removed one,
// the other is how GNOME's settings switch one off.
func (e entry) on() bool {
	return e["Hidden"] != "true" && e["X-GNOME-Autostart-enabled"] != "false"
}

// command is what Exec starts, nil where that cannot be told.
func (e entry) command() []string {
	var (
		command []string
		arg     strings.Builder
		started bool // within an argument
		quoted  bool
	)
	runes := []rune(unescape(e["Exec"]))
	for i := 0; i < len(runes); i++ {
		switch r := runes[i]; {
		case r == '"':
			quoted, started = !quoted, true
		case r == ' ' && !quoted:
			if started {
				command = append(command, arg.String())
			}
			arg.Reset()
			started = false
		case r == '\\' && quoted, r == '%':
			i++
			if i == len(runes) {
				return nil
			}
			if r == '%' && runes[i] != '%' {
				continue // stands for files or for nothing; an entry that is started by itself is given none
			}
			arg.WriteRune(runes[i])
			started = true
		default:
			arg.WriteRune(r)
			started = true
		}
	}
	if quoted {
		return nil
	}
	if started {
		command = append(command, arg.String())
	}
	return command
}

// quote writes an argument of Exec: in quotation marks where it holds a character that the
// specification reserves, and then with a backslash before those that mean something there still.
func quote(arg string) string {
	arg = strings.ReplaceAll(arg, "%", "%%")
	if arg != "" && !strings.ContainsAny(arg, " \t\n\"'\\><~|&;$*?#()`") {
		return arg
	}
	return `"` + strings.NewReplacer(`"`, `\"`, "`", "\\`", "$", `\$`, `\`, `\\`).Replace(arg) + `"`
}

// escape writes a value of type string. Readers undo it before they look at what the value says, so
// it comes on top of quote.
func escape(value string) string { return strings.ReplaceAll(value, `\`, `\\`) }

func unescape(value string) string {
	return strings.NewReplacer(`\\`, `\`, `\s`, " ", `\n`, "\n", `\t`, "\t", `\r`, "\r").Replace(value)
}
