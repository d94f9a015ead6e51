package desktop

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/gen2brain/beeep"
)

// notifyWithin bounds how long the desktop is waited for to take a notification.
const notifyWithin = 3 * time.Second

// Bounds of what a notification says, in characters; desktops show less.
const (
	maxTitle = 100
	maxBody  = 400
)

// Note is something the user should see now.
type Note struct {
	Key         string // of what it is about: the same text under the same key is not shown again soon; "": the title
	Title, Body string // plain text, from whomever: what a desktop could take for markup is taken out
	Urgent      bool   // shown with a sound, and more of them in a short time
}

// NotifierOptions say whom notifications come from.
type NotifierOptions struct {
	Name string // of the program, as the desktop shows it; the first Notifier's is everyone's
	Icon []byte // a PNG
}

// Notifier shows notifications, and not too many of them: see Notify.
type Notifier struct {
	turn    chan struct{} // held by who shows one; guards limiter
	limiter limiter
	show    func(Note) error
}

// NewNotifier makes a Notifier. It reaches for the desktop only when there is something to show.
func NewNotifier(o NotifierOptions) *Notifier {
	return &Notifier{
		turn:    make(chan struct{}, 1),
		limiter: limiter{shown: map[string]showing{}},
		show: func(note Note) error {
			if err := busReachable(); err != nil {
				return err
			}
			introducing.Do(func() { beeep.AppName = o.Name })
			if note.Urgent {
				return beeep.Alert(note.Title, note.Body, o.Icon)
			}
			return beeep.Notify(note.Title, note.Body, o.Icon)
		},
	}
}

// introducing is when the library, which knows one name for the whole process, learns it: later it
// would race with a notification under way.
var introducing sync.Once

// Notify shows a note, and returns nil too where it keeps it back: the same text under the same key
// within 5 minutes, and more than 6 notes in 10 minutes, 12 with the urgent ones. The next note shown
// says how many were kept back for their number. It waits 3 seconds for the desktop at most.
func (n *Notifier) Notify(ctx context.Context, note Note) error {
	note.Title, note.Body = plain(note.Title, maxTitle), plain(note.Body, maxBody)
	if note.Key == "" {
		note.Key = note.Title
	}
	ctx, cancel := context.WithTimeout(ctx, notifyWithin)
	defer cancel()
	select {
	case n.turn <- struct{}{}:
	case <-ctx.Done():
		return late(ctx)
	}
	told, ok := n.limiter.admit(note, time.Now())
	if !ok {
		<-n.turn
		return nil
	}
	shown := make(chan error, 1)
	// The library cannot be told to stop. While it hangs it keeps the turn, so that one hangs at most.
	go func() {
		err := n.show(told)
		if err == nil {
			n.limiter.keep(note, time.Now())
		}
		<-n.turn
		shown <- err
	}()
	select {
	case err := <-shown:
		if err != nil {
			return fmt.Errorf("showing a notification: %w", err)
		}
		return nil
	case <-ctx.Done():
		return late(ctx)
	}
}

func late(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.New("showing a notification: the desktop does not take it")
	}
	return fmt.Errorf("showing a notification: %w", ctx.Err())
}

// plain takes out of a text what a desktop may take for more than text. Linux desktops read markup in
// it, with links and pictures; Windows gets it inside XML, which a library may in turn put into a PowerShell script;
// a leading dash would be an option where a program shows it.
func plain(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r) || r == unicode.ReplacementChar:
			return ' '
		case r == '<':
			return '‹'
		case r == '>':
			return '›'
		}
		return r
	}, text)
	text = strings.TrimLeft(text, "- ")
	if runtime.GOOS == "windows" {
		text = unscripted.Replace(text)
	}
	if runes := []rune(text); len(runes) > limit {
		text = string(runes[:limit-1]) + "…"
	}
	return strings.TrimSpace(text)
}

// unscripted takes from a text what PowerShell carries out inside a string.
var unscripted = strings.NewReplacer("$", "＄", "`", "'")
