//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// openerName is the program by which desktops open pages. Ours, which is this one by that name, leaves
// the address in a file, for a visitor who needs no window.
const openerName = "xdg-open"

func openPage() int {
	self, err := os.Executable()
	if err == nil && len(os.Args) == 2 {
		err = os.WriteFile(pageFile(filepath.Dir(self)), []byte(os.Args[1]+"\n"), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "opening a page:", err)
		return 1
	}
	return 0
}

func pageFile(bin string) string { return filepath.Join(bin, "page") }

// page waits for a page to be opened.
func (d *desktop) page(ctx context.Context) (address string, err error) {
	err = until(ctx, "a page to be opened", func() (bool, error) {
		text, err := os.ReadFile(pageFile(d.path("bin")))
		address = strings.TrimSpace(string(text))
		return strings.HasSuffix(string(text), "\n"), err
	})
	return address, err
}

// install copies a program to where the owner of the desktop can run it: the folder it comes from may be closed.
func install(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("finding a program: %w (build it with `make build`)", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o700)
	if err != nil {
		return fmt.Errorf("installing %s: %w", filepath.Base(to), err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Chown(owner, owner), out.Close()); err != nil {
		return fmt.Errorf("installing %s: %w", filepath.Base(to), err)
	}
	return nil
}
