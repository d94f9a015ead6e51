package hardware

import (
	"os/exec"
	"syscall"
)

// hideWindow keeps a console window from flashing up.
func hideWindow(program *exec.Cmd) {
	program.SysProcAttr = &syscall.SysProcAttr{HideWindow: true}
}
