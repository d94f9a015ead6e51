package desktop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// Where Windows keeps what starts when a user logs on, and what the user has switched off of it in
// Task Manager or Settings. The library used elsewhere needs a C compiler here, and does not look at the second.
const (
	runKey      = `Software\Microsoft\Windows\CurrentVersion\Run`
	approvedKey = `Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run`

	maxCommand = 259 // in UTF-16 units; Windows starts no longer one
)

func (a *Autostart) state() (State, error) {
	command, on, err := a.recorded()
	if err != nil || !on {
		return State{}, err
	}
	state := State{On: true}
	if len(command) > 0 {
		state.Program = command[0]
	}
	off, err := switchedOff()
	if off {
		state.On = false
		state.Blocked = "starting with the session is switched off in Windows: switch the agent on in Task Manager, under Startup apps"
	}
	return state, err
}

func (a *Autostart) recorded() (command []string, on bool, err error) {
	key, err := registry.OpenKey(registry.CURRENT_USER, runKey, registry.QUERY_VALUE)
	if errors.Is(err, registry.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer key.Close()
	line, _, err := key.GetStringValue(ID)
	if errors.Is(err, registry.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if command, err = windows.DecomposeCommandLine(line); err != nil {
		command = nil // somebody's handiwork; it is there all the same
	}
	return command, true, nil
}

// switchedOff reads the user's switch: its first byte is odd when it is off. Windows keeps it when the
// entry goes, and it is the user's: nothing here changes it.
func switchedOff() (bool, error) {
	key, err := registry.OpenKey(registry.CURRENT_USER, approvedKey, registry.QUERY_VALUE)
	if errors.Is(err, registry.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer key.Close()
	value, _, err := key.GetBinaryValue(ID)
	if errors.Is(err, registry.ErrNotExist) {
		return false, nil
	}
	return len(value) > 0 && value[0]%2 == 1, err
}

func (a *Autostart) enable(command []string) error {
	// Always in quotation marks: at a space without, Windows would try a shorter path first.
	line := `"` + command[0] + `"`
	if len(command) > 1 {
		line += " " + windows.ComposeCommandLine(command[1:])
	}
	if units, err := windows.UTF16FromString(line); err != nil || len(units)-1 > maxCommand {
		return fmt.Errorf("the command is longer than the %d characters that Windows starts: move %s to a shorter path", maxCommand, command[0])
	}
	key, _, err := registry.CreateKey(registry.CURRENT_USER, runKey, registry.SET_VALUE)
	if err != nil {
		return err
	}
	return errors.Join(key.SetStringValue(ID, line), key.Close())
}

func (a *Autostart) disable() error {
	key, err := registry.OpenKey(registry.CURRENT_USER, runKey, registry.SET_VALUE)
	if errors.Is(err, registry.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer key.Close()
	if err := key.DeleteValue(ID); err != nil && !errors.Is(err, registry.ErrNotExist) {
		return err
	}
	return nil
}

func recordable([]string) error { return nil }

// windowed gives the program without a console window where it lies beside the one with: agent.exe,
// agentw.exe.
func windowed(program string) string {
	ext := filepath.Ext(program)
	other := strings.TrimSuffix(program, ext) + "w" + ext
	if info, err := os.Stat(other); err == nil && info.Mode().IsRegular() {
		return other
	}
	return program
}
