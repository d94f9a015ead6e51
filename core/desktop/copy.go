package desktop

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/atotto/clipboard"
)

// copyWithin bounds how long the clipboard is waited for: another program may hold it.
const copyWithin = 3 * time.Second

// Copy puts text on the user's clipboard.
func Copy(ctx context.Context, text string) error {
	if clipboard.Unsupported {
		return errors.New("copying to the clipboard: no program for it is installed; install xclip, or wl-clipboard on Wayland, and start the agent again")
	}
	ctx, cancel := context.WithTimeout(ctx, copyWithin)
	defer cancel()
	copied := make(chan error, 1)
	go func() { copied <- clipboard.WriteAll(text) }() // it cannot be told to stop
	var err error
	select {
	case err = <-copied:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	if runtime.GOOS == "linux" {
		return fmt.Errorf("copying to the clipboard with xclip or wl-copy: %w; is this a desktop session?", err)
	}
	return fmt.Errorf("copying to the clipboard: %w", err)
}
