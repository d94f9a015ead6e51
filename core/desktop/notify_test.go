package desktop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// recording makes a Notifier that shows on a list.
func recording(show func(Note) error) (*Notifier, *[]string) {
	shown := new([]string)
	n := NewNotifier(NotifierOptions{})
	n.show = func(note Note) error {
		if show != nil {
			if err := show(note); err != nil {
				return err
			}
		}
		*shown = append(*shown, note.Title+": "+note.Body)
		return nil
	}
	return n, shown
}

func notify(t *testing.T, n *Notifier, note Note) {
	t.Helper()
	if err := n.Notify(t.Context(), note); err != nil {
		t.Errorf("%+v: %v", note, err)
	}
}

func TestTheSameIsShownOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, shown := recording(nil)
		note := Note{Key: "docker", Title: "Docker", Body: "is gone"}
		notify(t, n, note)
		time.Sleep(sameAgain - time.Second)
		notify(t, n, note)
		notify(t, n, Note{Key: "docker", Title: "Docker", Body: "is back"})
		notify(t, n, Note{Key: "disk", Title: "Docker", Body: "is gone"})
		notify(t, n, Note{Title: "Docker", Body: "is gone"})
		notify(t, n, Note{Title: "Docker", Body: "is gone"})
		time.Sleep(sameAgain)
		notify(t, n, note)
		want := []string{"Docker: is gone", "Docker: is back", "Docker: is gone", "Docker: is gone", "Docker: is gone"}
		if diff := cmp.Diff(want, *shown); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestAFloodIsKeptBackAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, shown := recording(nil)
		for i := range 10 {
			notify(t, n, Note{Title: "rental", Body: fmt.Sprint(i)})
			time.Sleep(time.Second)
		}
		for i := range 10 {
			notify(t, n, Note{Title: "urgent", Body: fmt.Sprint(i), Urgent: true})
		}
		time.Sleep(window)
		notify(t, n, Note{Title: "rental", Body: "later"})
		notify(t, n, Note{Title: "rental", Body: "last"})
		want := []string{
			"rental: 0", "rental: 1", "rental: 2", "rental: 3", "rental: 4", "rental: 5",
			"urgent: 0 (and 4 more)", "urgent: 1", "urgent: 2", "urgent: 3", "urgent: 4", "urgent: 5",
			"rental: later (and 4 more)", "rental: last",
		}
		if diff := cmp.Diff(want, *shown); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestWhatWasNotShownIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("no daemon")
		n, shown := recording(func(Note) error { return failure })
		note := Note{Title: "a", Body: "b"}
		if err := n.Notify(t.Context(), note); !errors.Is(err, failure) {
			t.Errorf("got %v", err)
		}
		failure = nil
		notify(t, n, note)
		if len(*shown) != 1 {
			t.Errorf("shown: %q", *shown)
		}
	})
}

func TestADesktopThatHangsHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		calls := 0
		n, shown := recording(func(Note) error {
			calls++
			<-release
			return nil
		})
		for i := range 3 {
			began := time.Now()
			err := n.Notify(t.Context(), Note{Title: fmt.Sprint(i)})
			if err == nil || !strings.Contains(err.Error(), "the desktop does not take it") || time.Since(began) != notifyWithin {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := n.Notify(ctx, Note{Title: "x"}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		if calls != 1 {
			t.Errorf("%d calls hang", calls)
		}
		close(release)
		synctest.Wait()
		notify(t, n, Note{Title: "at last"})
		if diff := cmp.Diff([]string{"0: ", "at last: "}, *shown); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestNotesArePlainText(t *testing.T) {
	for text, want := range map[string]string{
		"GPU 0 ist zu heiß: 95 °C":                         "GPU 0 ist zu heiß: 95 °C",
		"<a href=\"https://evil.example.com\">sign in</a>": "‹a href=\"https://evil.example.com\"›sign in‹/a›",
		"--icon=/etc/passwd":                               "icon=/etc/passwd",
		" - x":                                             "x",
		"a\nb\x1b[31m\x00\xffc":                            "a b [31m  c",
		"]]><image src='x'/>":                              "]]›‹image src='x'/›",
		strings.Repeat("ö", 500):                           strings.Repeat("ö", maxBody-1) + "…",
		"\n\"@\nStart-Process x":                           "\"@ Start-Process x",
	} {
		if got := plain(text, maxBody); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	// What PowerShell carries out inside the string it is given there.
	if got := unscripted.Replace("$(calc) `a ${x}"); got != "＄(calc) 'a ＄{x}" {
		t.Errorf("got %q", got)
	}
}
