package desktop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/emersion/go-autostart"

	"github.com/distributedcompute/host-agent/core/durable"
)

const entryFile = ID + ".desktop"

// app is the library's view of this user's entry. It finds, tells of and removes it. It does not write
// it: it quotes Exec as Go quotes strings, so that a "$" or "%" in a path starts something else or
// nothing, it writes in place, and an entry of its has no TryExec and no Hidden.
func app() *autostart.App { return &autostart.App{Name: ID} }

func (a *Autostart) state() (State, error) {
	shared, sharedPath, err := sharedEntry()
	if err != nil {
		return State{}, err
	}
	own, err := ownEntry()
	if err != nil {
		return State{}, err
	}
	effective := shared
	if own != nil {
		effective = own
	}
	if effective == nil {
		return State{}, nil
	}
	state := State{On: effective.on(), Elsewhere: sharedPath}
	if command := effective.command(); len(command) > 0 {
		state.Program = command[0]
	}
	return state, nil
}

func (a *Autostart) recorded() (command []string, on bool, err error) {
	own, err := ownEntry()
	if own == nil || err != nil || !own.on() {
		return nil, false, err
	}
	return own.command(), true, nil
}

func (a *Autostart) enable(command []string) error {
	shared, _, err := sharedEntry()
	if err != nil {
		return err
	}
	if shared != nil && shared.on() && slices.Equal(shared.command(), command) {
		return removeOwn() // what the package brought says the same, and follows its updates
	}
	icon, err := a.keepIcon()
	if err != nil {
		return err
	}
	return writeOwn(entryText(command, icon))
}

func (a *Autostart) disable() error {
	shared, _, err := sharedEntry()
	if err != nil {
		return err
	}
	if shared != nil && shared.on() {
		return writeOwn(maskText)
	}
	return removeOwn()
}

func removeOwn() error {
	if app().IsEnabled() {
		if err := app().Disable(); err != nil {
			return err
		}
	}
	icon, err := iconPath()
	if err != nil {
		return err
	}
	if err := os.Remove(icon); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ownEntry reads the user's entry, nil where there is none.
func ownEntry() (entry, error) {
	dir, err := ownDir()
	if err != nil {
		return nil, err
	}
	if !app().IsEnabled() {
		return nil, nil
	}
	return readEntry(filepath.Join(dir, entryFile))
}

// sharedEntry reads the entry for all users, nil where there is none.
func sharedEntry() (entry, string, error) {
	dirs := os.Getenv("XDG_CONFIG_DIRS")
	if dirs == "" {
		dirs = "/etc/xdg"
	}
	for _, dir := range filepath.SplitList(dirs) {
		if !filepath.IsAbs(dir) {
			continue // the specification has them ignored
		}
		file := filepath.Join(dir, "autostart", entryFile)
		found, err := readEntry(file)
		if found != nil || err != nil {
			return found, file, err
		}
	}
	return nil, "", nil
}

// ownDir is the library's directory; here it is an error where the user has none.
func ownDir() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "autostart"), err
}

func writeOwn(text string) error {
	dir, err := ownDir()
	if err != nil {
		return err
	}
	return publish(filepath.Join(dir, entryFile), []byte(text))
}

// keepIcon puts the icon where its entry can name it; "" where there is none.
func (a *Autostart) keepIcon() (string, error) {
	if a.icon == nil {
		return "", nil
	}
	file, err := iconPath()
	if err != nil {
		return "", err
	}
	return file, publish(file, a.icon)
}

func iconPath() (string, error) {
	data := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(data) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "icons", "hicolor", "256x256", "apps", ID+".png"), nil
}

// publish replaces a file that others of the session read.
func publish(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer root.Close()
	if err := durable.Replace(root, filepath.Base(file), content); err != nil {
		return err
	}
	return root.Chmod(filepath.Base(file), 0o644)
}

// recordable refuses what some desktop would not start again, or not as meant, however well it is quoted:
// systemd, which does it for GNOME and KDE, takes no quotation mark in a program's path, keeps the backslash before
// a "$" or "`", does not undo "%%" in a path, and puts the home directory in place of "~".
func recordable(command []string) error {
	program := command[0]
	if i := strings.IndexAny(program, "\"'\\$`%"); i >= 0 {
		return fmt.Errorf("the path %s holds a %c, with which some desktops do not start a program: move it to another path", program, program[i])
	}
	if strings.Contains(path.Base(program), "=") {
		return fmt.Errorf("the program's name %s holds an =, with which desktops do not start it: rename it", path.Base(program))
	}
	for _, arg := range command[1:] {
		if i := strings.IndexAny(arg, "\\$`"); i >= 0 {
			return fmt.Errorf("%s holds a %c, which some desktops change: give another path", arg, arg[i])
		}
		if strings.HasPrefix(arg, "~") {
			return fmt.Errorf("%s begins with a ~, which some desktops change: give the whole path", arg)
		}
	}
	return nil
}

// windowed gives the program without a console window; there are none here.
func windowed(program string) string { return program }
