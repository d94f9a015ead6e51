package main

import (
	"io"
	"os"

	"golang.org/x/sys/windows"
)

// allowEscapes asks the console to understand escape sequences; one that cannot shows them.
func allowEscapes(w io.Writer) {
	f, ok := w.(*os.File)
	if !ok {
		return
	}
	var mode uint32
	if console := windows.Handle(f.Fd()); windows.GetConsoleMode(console, &mode) == nil {
		windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING)
	}
}
