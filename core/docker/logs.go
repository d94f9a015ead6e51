package docker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

// maxLogs is how much of a log is given, in bytes.
const maxLogs = 128 << 10

// Logs returns the newest output of a container: at most tail lines (0: all), not older than since (zero:
// from its start) and never more than 128 KiB. What a terminal would act on is escaped. truncated tells
// that the size has cut older output off.
func (e *Engine) Logs(ctx context.Context, containerID string, tail int, since time.Time) (text string, truncated bool, err error) {
	options := container.LogsOptions{ShowStdout: true, ShowStderr: true}
	if tail > 0 {
		options.Tail = strconv.Itoa(tail)
	}
	if !since.IsZero() {
		options.Since = since.UTC().Format(time.RFC3339Nano)
	}
	call, cancel := bounded(ctx)
	defer cancel()
	stream, err := e.api().ContainerLogs(call, containerID, options)
	if cerrdefs.IsNotFound(err) {
		return "", false, goneFailure()
	} else if err != nil {
		return "", false, failed(ctx, "reading the container's log", err)
	}
	defer stream.Close()
	newest := &lastBytes{limit: maxLogs}
	if _, err := stdcopy.StdCopy(newest, newest, stream); err != nil {
		return "", false, failed(ctx, "reading the container's log", err)
	}
	text, cut := lastRunes(escape(newest.kept), maxLogs)
	return text, cut || newest.dropped, nil
}

// lastBytes keeps the end of what is written to it.
type lastBytes struct {
	limit   int
	kept    []byte
	dropped bool
}

// Write implements io.Writer and never fails.
func (l *lastBytes) Write(p []byte) (int, error) {
	l.kept = append(l.kept, p...)
	if surplus := len(l.kept) - l.limit; surplus > 0 {
		l.kept = append(l.kept[:0], l.kept[surplus:]...)
		l.dropped = true
	}
	return len(p), nil
}

// escape writes control characters, text direction marks and bytes that are not UTF-8 as \x1b or \u202e;
// lines and tabs stay.
func escape(raw []byte) string {
	var out strings.Builder
	out.Grow(len(raw))
	for len(raw) > 0 {
		r, size := utf8.DecodeRune(raw)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, raw[0])
		case r == '\n' || r == '\t':
			out.WriteRune(r)
		case unicode.IsControl(r):
			fmt.Fprintf(&out, `\x%02x`, r)
		case unicode.Is(unicode.Bidi_Control, r):
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.Write(raw[:size])
		}
		raw = raw[size:]
	}
	return out.String()
}

// lastRunes is the end of text in at most limit bytes, beginning with a whole character.
func lastRunes(text string, limit int) (string, bool) {
	if len(text) <= limit {
		return text, false
	}
	from := len(text) - limit
	for from < len(text) && !utf8.RuneStart(text[from]) {
		from++
	}
	return text[from:], true
}
