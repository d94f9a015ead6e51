package desktop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ID names the program on a desktop: its autostart entry, its icon.
const ID = "io.distributedcompute.Agent"

// AutostartOptions say what is started with the session.
type AutostartOptions struct {
	Program string   // absolute path; "": the program that runs
	Args    []string // after the program's name
	Icon    []byte   // a PNG of 256 pixels for lists of what starts with the session; Linux alone shows one. nil: none
}

// Autostart starts the program with this user's desktop session. It holds nothing: what it says and
// does is what the system has on record at that moment.
type Autostart struct {
	program string
	args    []string
	icon    []byte
}

// State is what is on record.
type State struct {
	On        bool   // the program starts with the next session
	Blocked   string // why it does not although there is an entry, and what to do, in one sentence; "": nothing is in its way
	Program   string // what the entry starts; "": there is none, or it cannot be read
	Elsewhere string // the entry for all users that this user's takes the place of; "": there is none
}

// NewAutostart makes an Autostart; it reads and changes nothing.
func NewAutostart(o AutostartOptions) *Autostart {
	return &Autostart{program: o.Program, args: slices.Clone(o.Args), icon: o.Icon}
}

// State reads what is on record.
func (a *Autostart) State(ctx context.Context) (State, error) {
	if err := ctx.Err(); err != nil {
		return State{}, err
	}
	if asRoot() {
		return State{Blocked: errNoSession.Error()}, nil
	}
	state, err := a.state()
	if err != nil {
		return State{}, fmt.Errorf("reading what starts with the session: %w", err)
	}
	if !state.On {
		return state, nil
	}
	if state.Program == "" {
		state.On, state.Blocked = false, "starting with the session is on, but for a command that cannot be read; switch it on again"
	} else if _, err := os.Stat(state.Program); err != nil {
		state.On, state.Blocked = false, fmt.Sprintf("starting with the session is on, but for %s, which is not there any more; switch it on again", state.Program)
	}
	return state, nil
}

// Enable makes the program start with the next session. Where the user has switched it off in the
// system's own settings, which only the user may undo, the error says where.
func (a *Autostart) Enable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	program, err := a.target()
	if err == nil {
		err = a.record(program, a.args)
	}
	if err == nil {
		var state State
		if state, err = a.State(ctx); state.Blocked != "" {
			err = errors.New(state.Blocked)
		}
	}
	if err != nil {
		return fmt.Errorf("switching start with the session on: %w", err)
	}
	return nil
}

// Disable makes the program start with no session. It is no error where it did not.
func (a *Autostart) Disable(ctx context.Context) error {
	err := ctx.Err()
	if err == nil && asRoot() {
		err = errNoSession
	}
	if err == nil {
		err = a.disable()
	}
	if err != nil {
		return fmt.Errorf("switching start with the session off: %w", err)
	}
	return nil
}

// Refresh puts the program's present path into the user's entry where that has another program's or one that is not
// there any more. An entry with other arguments starts another agent, and stays. What is off stays off, a link that leads to the program stays a
// link, and a program among temporary files changes nothing. To be called on every start.
func (a *Autostart) Refresh(ctx context.Context) error {
	if err := ctx.Err(); err != nil || asRoot() {
		return err
	}
	command, on, err := a.recorded()
	if err != nil {
		return fmt.Errorf("reading what starts with the session: %w", err)
	}
	if !on {
		return nil
	}
	program, err := a.target()
	switch {
	case errors.Is(err, errTemporary):
		return nil
	case err != nil:
	case len(command) == 0: // it cannot be read: half written, or edited
		err = a.record(program, a.args)
	case !same(command[0], program) && slices.Equal(command[1:], a.args):
		err = a.record(program, a.args)
	}
	if err != nil {
		return fmt.Errorf("correcting what starts with the session: %w", err)
	}
	return nil
}

var (
	errNoSession = fmt.Errorf("%w; without a desktop, use the systemd unit distributed-agent.service", ErrRoot)
	errTemporary = errors.New("the program lies among temporary files")
)

// target is the program to record, checked.
func (a *Autostart) target() (string, error) {
	if asRoot() {
		return "", errNoSession
	}
	program := a.program
	if program == "" {
		var err error
		if program, err = running(); err != nil {
			return "", fmt.Errorf("finding the program: %w", err)
		}
	}
	program = windowed(program)
	if !filepath.IsAbs(program) {
		return "", fmt.Errorf("%s is not an absolute path", program)
	}
	if temporary(program) {
		return "", fmt.Errorf("%w (%s): move it to where it can stay, and start it there", errTemporary, program)
	}
	if info, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("finding the program: %w", err)
	} else if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a program", program)
	}
	return program, nil
}

// record makes a command start with the session.
func (a *Autostart) record(program string, args []string) error {
	command := append([]string{program}, args...)
	for _, text := range command {
		if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("%q holds a character that no command can be recorded with", text)
		}
	}
	if err := recordable(command); err != nil {
		return err
	}
	return a.enable(command)
}

// running finds the path by which the program that runs is to be started again: through the link it was
// called by, which an update leads elsewhere, and by the image's file where it came in an AppImage.
func running() (string, error) {
	actual, err := os.Executable()
	if err != nil {
		return "", err
	}
	if image, mount := os.Getenv("APPIMAGE"), os.Getenv("APPDIR"); runtime.GOOS == "linux" && image != "" && within(actual, mount) {
		return image, nil
	}
	called, err := exec.LookPath(os.Args[0])
	if err == nil {
		called, err = filepath.Abs(called)
	}
	if err != nil || within(called, "/proc") || within(called, "/dev") || !same(called, actual) {
		return actual, nil
	}
	return called, nil
}

func same(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// temporary reports whether a program lies where nothing stays: among temporary files, where go run
// builds, where macOS moves what was just downloaded.
func temporary(program string) bool {
	if resolved, err := filepath.EvalSymlinks(program); err == nil {
		program = resolved
	}
	temp, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		temp = os.TempDir()
	}
	return within(program, temp) || slices.ContainsFunc(strings.Split(filepath.ToSlash(program), "/"), func(element string) bool {
		return strings.HasPrefix(element, "go-build") || element == "AppTranslocation"
	})
}

// within reports whether a path lies below a directory; none does below "".
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return dir != "" && err == nil && filepath.IsLocal(rel)
}
