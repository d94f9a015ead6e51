package desktop

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pkg/browser"
)

// openWithin is how long a caller waits to hear that nothing could be opened. Openers fail within it;
// one that succeeds may stay as long as what it opened.
const openWithin = time.Second

// OpenURL shows an http or https address in the user's browser. It returns after a second at most; nil
// then means that nothing has gone wrong so far. The error is ErrRoot on Linux as root.
func OpenURL(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return fmt.Errorf("opening a page: %w", err)
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return errors.New("opening a page: its address begins with neither https:// nor http://")
	case strings.ContainsAny(address, "\"<>\\^`{|} "):
		// On Windows a quotation mark would end the address on the browser's command line.
		return errors.New("opening a page: its address holds a character that no address may hold")
	}
	if err := open(ctx, address); err != nil {
		return fmt.Errorf("opening a page in the browser: %w", err)
	}
	return nil
}

// OpenFile shows a file or a folder with the program the user has for it. It returns as OpenURL does.
func OpenFile(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return fmt.Errorf("opening a file: %w", err)
	}
	// The library's own OpenFile makes an address of the path and escapes nothing in it.
	if err := open(ctx, path); err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	return nil
}

// quieten keeps what openers and browsers print off the agent's terminal. Nil is the null device; with
// a writer the library would wait for the browser itself to end, which holds the other end.
var quieten = sync.OnceFunc(func() { browser.Stdout, browser.Stderr = nil, nil })

func open(ctx context.Context, what string) error {
	if err := errors.Join(ctx.Err(), CanOpen()); err != nil {
		return err
	}
	quieten()
	opened := make(chan error, 1)
	// The library cannot be told to stop: it waits for the opener, and nobody waits for it longer than this.
	go func() { opened <- browser.OpenURL(what) }()
	select {
	case err := <-opened:
		if err != nil {
			return fmt.Errorf("no program for it could be started: %w", err)
		}
		return nil
	case <-time.After(openWithin):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
