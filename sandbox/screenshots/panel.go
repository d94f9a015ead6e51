//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
)

// iconX and iconY are where the icon is on the screen.
const (
	iconX = width - panelHeight/2
	iconY = height - panelHeight/2
)

// panel is the icon in the panel, as somebody at the screen sees it and clicks it. What its menu says
// is read from the bus: to wait for the words is surer than to wait for their picture.
type panel struct {
	*desktop
	conn *dbus.Conn
}

// open waits until there is a panel that shows icons.
func (p *panel) open(ctx context.Context) error {
	return until(ctx, "the panel", func() (bool, error) {
		if p.conn == nil {
			conn, err := dbus.Connect(p.address, dbus.WithContext(ctx))
			if err != nil {
				return false, err
			}
			p.conn = conn
		}
		_, err := p.icons()
		return err == nil, err
	})
}

func (p *panel) close() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

// entry is one of a menu.
type entry struct {
	label string
	line  bool // it only separates
	off   bool
	below []entry
}

type layout struct {
	ID       int32
	Props    map[string]dbus.Variant
	Children []dbus.Variant
}

func (l layout) entries() ([]entry, error) {
	var all []entry
	for _, child := range l.Children {
		var below layout
		if err := dbus.Store([]any{child.Value()}, &below); err != nil {
			return nil, fmt.Errorf("reading the menu: %w", err)
		}
		if below.Props["visible"].Value() == false {
			continue
		}
		label, _ := below.Props["label"].Value().(string)
		e := entry{
			label: strings.NewReplacer("__", "_", "_", "").Replace(label),
			line:  below.Props["type"].Value() == "separator",
			off:   below.Props["enabled"].Value() == false,
		}
		var err error
		if e.below, err = below.entries(); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// icons are those in the panel: name on the bus and path in one.
func (p *panel) icons() (items []string, err error) {
	watcher := p.conn.Object("org.kde.StatusNotifierWatcher", "/StatusNotifierWatcher")
	if err := watcher.StoreProperty("org.kde.StatusNotifierWatcher.RegisteredStatusNotifierItems", &items); err != nil {
		return nil, fmt.Errorf("looking into the panel: %w", err)
	}
	return items, nil
}

// menu is what the menu of the one icon holds at this moment.
func (p *panel) menu(ctx context.Context) ([]entry, error) {
	items, err := p.icons()
	if err != nil {
		return nil, err
	}
	if len(items) != 1 {
		return nil, fmt.Errorf("looking for the icon: the panel has %d", len(items))
	}
	program, path, _ := strings.Cut(items[0], "/")
	var menu dbus.ObjectPath
	if err := p.conn.Object(program, dbus.ObjectPath("/"+path)).StoreProperty("org.kde.StatusNotifierItem.Menu", &menu); err != nil {
		return nil, fmt.Errorf("looking for the icon's menu: %w", err)
	}
	var (
		revision uint32
		root     layout
	)
	err = p.conn.Object(program, menu).CallWithContext(ctx, "com.canonical.dbusmenu.GetLayout", 0, int32(0), int32(-1), []string{}).Store(&revision, &root)
	if err != nil {
		return nil, fmt.Errorf("reading the menu: %w", err)
	}
	return root.entries()
}

// says waits until an entry of the menu begins so.
func (p *panel) says(ctx context.Context, words string) error {
	return until(ctx, strconv.Quote(words)+" in the menu", func() (bool, error) {
		all, err := p.menu(ctx)
		if err != nil {
			return false, err
		}
		said := make([]string, len(all))
		for i, e := range all {
			if said[i] = e.label; strings.HasPrefix(e.label, words) {
				return true, nil
			}
		}
		return false, fmt.Errorf("it says %q", said)
	})
}

// see takes a picture of the screen.
func (p *panel) see(ctx context.Context) (*image.NRGBA, error) {
	data, err := p.tool(ctx, "import", "-window", "root", "-define", "png:compression-level=1", "png:-")
	if err != nil {
		return nil, err
	}
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("reading a picture of the screen: %w", err)
	}
	return uncovered(picture), nil
}

// settles gives the first picture that will do and stays the same.
func (p *panel) settles(ctx context.Context, what string, will func(*image.NRGBA) bool) (*image.NRGBA, error) {
	var last *image.NRGBA
	same := 0
	err := until(ctx, what, func() (bool, error) {
		now, err := p.see(ctx)
		if err != nil {
			return false, err
		}
		if last == nil || !bytes.Equal(last.Pix, now.Pix) {
			same = 0
		}
		last, same = now, same+1
		return same >= 2 && will(now), nil
	})
	return last, err
}

// point moves the pointer.
func (p *panel) point(ctx context.Context, x, y int) error {
	_, err := p.tool(ctx, "xdotool", "mousemove", strconv.Itoa(x), strconv.Itoa(y))
	return err
}

func (p *panel) keys(ctx context.Context, keys ...string) error {
	_, err := p.tool(ctx, "xdotool", append([]string{"key", "--delay", "60"}, keys...)...)
	return err
}

// pointed is the screen with the tooltip.
func (p *panel) pointed(ctx context.Context) (*image.NRGBA, error) {
	if err := p.point(ctx, iconX, iconY); err != nil {
		return nil, err
	}
	sight, err := p.settles(ctx, "the tooltip", somethingAbove)
	if err != nil {
		return nil, err
	}
	return sight, p.away(ctx)
}

// away leaves the icon alone.
func (p *panel) away(ctx context.Context) error {
	if err := p.point(ctx, width/4, height/4); err != nil {
		return err
	}
	_, err := p.settles(ctx, "the empty screen", nothingAbove)
	return err
}

// opened clicks the icon and gives the screen with the menu, which shut closes.
func (p *panel) opened(ctx context.Context) (*image.NRGBA, error) {
	if err := p.point(ctx, iconX, iconY); err != nil {
		return nil, err
	}
	if _, err := p.tool(ctx, "xdotool", "click", "1"); err != nil {
		return nil, err
	}
	// No tooltip is as high as a menu.
	return p.settles(ctx, "the menu", func(sight *image.NRGBA) bool { return above(sight).Dy() > 3*panelHeight })
}

// shut closes menu and submenu.
func (p *panel) shut(ctx context.Context) error {
	if err := p.keys(ctx, "Escape", "Escape"); err != nil {
		return err
	}
	return p.away(ctx)
}

// reach walks down the open menu to the entry that begins so.
func (p *panel) reach(ctx context.Context, label string) error {
	all, err := p.menu(ctx)
	if err != nil {
		return err
	}
	var down []string
	for _, e := range all {
		if e.line || e.off {
			continue // walked over
		}
		down = append(down, "Down")
		if strings.HasPrefix(e.label, label) {
			return p.keys(ctx, down...)
		}
	}
	return fmt.Errorf("looking for %q in the menu: it is not there", label)
}

// below is the screen with the menu and the submenu of an entry.
func (p *panel) below(ctx context.Context, label string) (*image.NRGBA, error) {
	if _, err := p.opened(ctx); err != nil {
		return nil, err
	}
	if err := p.reach(ctx, label); err != nil {
		return nil, err
	}
	menu, err := p.settles(ctx, "the menu", somethingAbove)
	if err != nil {
		return nil, err
	}
	if err := p.keys(ctx, "Right"); err != nil {
		return nil, err
	}
	return p.settles(ctx, "the submenu of "+label, func(sight *image.NRGBA) bool { return different(menu, sight) > panelHeight*panelHeight })
}

// click clicks an entry and, where there is a second one, that of its submenu.
func (p *panel) click(ctx context.Context, labels ...string) error {
	if len(labels) == 1 {
		if _, err := p.opened(ctx); err != nil {
			return err
		}
		if err := p.reach(ctx, labels[0]); err != nil {
			return err
		}
	} else if err := p.choose(ctx, labels[0], labels[1]); err != nil {
		return err
	}
	if err := p.keys(ctx, "Return"); err != nil {
		return err
	}
	return p.away(ctx)
}

// choose opens a submenu, whose first entry is then the chosen one, and walks to another.
func (p *panel) choose(ctx context.Context, label, below string) error {
	if _, err := p.below(ctx, label); err != nil {
		return err
	}
	all, err := p.menu(ctx)
	if err != nil {
		return err
	}
	for _, e := range all {
		if !strings.HasPrefix(e.label, label) {
			continue
		}
		var down []string
		for _, b := range e.below {
			if b.off || b.line {
				continue
			}
			if strings.HasPrefix(b.label, below) {
				if len(down) == 0 {
					return nil
				}
				return p.keys(ctx, down...)
			}
			down = append(down, "Down")
		}
	}
	return fmt.Errorf("looking for %q below %q: it is not there", below, label)
}
