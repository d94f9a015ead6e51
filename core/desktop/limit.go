package desktop

import (
	"fmt"
	"time"
)

// The pace of notifications.
const (
	sameAgain      = 5 * time.Minute // before the same text is shown again under its key
	window         = 10 * time.Minute
	maxShown       = 6 // in a window
	maxShownUrgent = 2 * maxShown
)

// limiter decides which notes are shown. It is not safe for concurrent use.
type limiter struct {
	shown    map[string]showing // by key; the last one
	recent   []time.Time        // when notes were shown within the window, oldest first
	keptBack int                // since the last one shown
}

type showing struct {
	title, body string
	at          time.Time
}

// admit returns the note as it is to be shown, or false where it is to be kept back.
func (l *limiter) admit(note Note, now time.Time) (Note, bool) {
	for len(l.recent) > 0 && now.Sub(l.recent[0]) >= window {
		l.recent = l.recent[1:]
	}
	for key, last := range l.shown {
		if now.Sub(last.at) >= sameAgain {
			delete(l.shown, key)
		}
	}
	if last, ok := l.shown[note.Key]; ok && last.title == note.Title && last.body == note.Body {
		return note, false
	}
	limit := maxShown
	if note.Urgent {
		limit = maxShownUrgent
	}
	if len(l.recent) >= limit {
		l.keptBack++
		return note, false
	}
	if l.keptBack > 0 {
		note.Body += fmt.Sprintf(" (and %d more)", l.keptBack)
	}
	return note, true
}

// keep remembers a note that was shown.
func (l *limiter) keep(note Note, now time.Time) {
	l.shown[note.Key] = showing{note.Title, note.Body, now}
	l.recent = append(l.recent, now)
	l.keptBack = 0
}
