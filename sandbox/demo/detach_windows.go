package demo

import (
	"os/exec"
	"syscall"
)

// detach keeps an interrupt that is typed for the demo from its child: the demo ends it in order.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
