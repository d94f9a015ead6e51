//go:build !darwin || cgo

package tray

import (
	"log/slog"
	"reflect"
	"sync"

	"fyne.io/systray"

	"github.com/distributedcompute/host-agent/assets"
)

// name is what the icon is called.
const name = "DistributedCompute"

// screen is the desktop's own tray. Systray keeps its state in the process, so there is one for each.
type screen struct {
	log     *slog.Logger
	clicked chan item
	changed chan struct{} // capacity 1: there are other entries

	mu    sync.Mutex
	items []*line

	desktop // what the system adds
}

func newScreen(log *slog.Logger) *screen {
	return &screen{log: log, clicked: make(chan item, 16), changed: make(chan struct{}, 1)}
}

// line is an entry of the menu.
type line struct {
	*systray.MenuItem
	clicks <-chan struct{} // the entry's own, which clear takes from it
}

func (l *line) title(text string) { l.SetTitle(escape(text)) }

func (l *line) enable(now bool) {
	if now {
		l.Enable()
	} else {
		l.Disable()
	}
}

func (l *line) tick(now bool) {
	if now {
		l.Check()
	} else {
		l.Uncheck()
	}
}

func (s *screen) icon(state assets.State) { setIcon(state) }
func (s *screen) tooltip(text string)     { systray.SetTooltip(text) }
func (s *screen) clicks() <-chan item     { return s.clicked }

func (s *screen) clear() {
	s.mu.Lock()
	for _, l := range s.items {
		l.ClickedCh = nil // or it would be closed, and a click at this moment would panic
	}
	s.items = nil
	s.mu.Unlock()
	systray.ResetMenu()
}

func (s *screen) add(below item, e entry) item {
	parent, _ := below.(*line)
	if e.line {
		systray.AddSeparator()
		return nil
	}
	var made *systray.MenuItem
	switch title := escape(e.title); {
	case parent != nil:
		made = parent.AddSubMenuItem(title, "")
	case e.box:
		made = systray.AddMenuItemCheckbox(title, "", e.ticked)
	default:
		made = systray.AddMenuItem(title, "")
	}
	if e.off {
		made.Disable()
	}
	l := &line{made, made.ClickedCh}
	s.mu.Lock()
	s.items = append(s.items, l)
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return l
}

// attend hands on clicks while body runs.
func (s *screen) attend(body func() error) error {
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() { s.read(stop) })
	defer reader.Wait()
	defer close(stop)
	return body()
}

// read does nothing but read, for all entries: a click that nobody reads at its moment is lost.
func (s *screen) read(stop <-chan struct{}) {
	for {
		s.mu.Lock()
		items := append([]*line(nil), s.items...)
		s.mu.Unlock()
		cases := []reflect.SelectCase{receive(stop), receive(s.changed)}
		for _, l := range items {
			cases = append(cases, receive(l.clicks))
		}
		for same := true; same; {
			switch i, _, _ := reflect.Select(cases); i {
			case 0:
				return
			case 1:
				same = false
			default:
				select {
				case s.clicked <- items[i-2]:
				default: // nobody clicks so fast
				}
			}
		}
	}
}

func receive(from any) reflect.SelectCase {
	return reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(from)}
}
