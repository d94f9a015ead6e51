package desktop

import (
	"os"
	"path/filepath"

	"github.com/emersion/go-autostart"
)

// The library's LaunchAgent is all that is needed: it has the program started at the next log-in and
// leaves what the program started alone. macOS 13 and later let the user switch it off under Login Items, and
// tell nobody.

func (a *Autostart) state() (State, error) {
	command, on, err := a.recorded()
	if len(command) == 0 {
		return State{On: on}, err
	}
	return State{On: on, Program: command[0]}, err
}

func (a *Autostart) recorded() (command []string, on bool, err error) {
	app := &autostart.App{Name: ID}
	if !app.IsEnabled() {
		return nil, false, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, false, err
	}
	content, err := os.ReadFile(filepath.Join(home, "Library", "LaunchAgents", ID+".plist"))
	if err != nil {
		return nil, false, err
	}
	return arguments(content), true, nil
}

func (a *Autostart) enable(command []string) error {
	app := &autostart.App{Name: ID}
	for _, arg := range command {
		app.Exec = append(app.Exec, escapeXML(arg)) // the library escapes nothing
	}
	return app.Enable()
}

func (a *Autostart) disable() error {
	app := &autostart.App{Name: ID}
	if !app.IsEnabled() {
		return nil
	}
	return app.Disable()
}

func recordable([]string) error { return nil }

// windowed gives the program without a console window; there are none here.
func windowed(program string) string { return program }
