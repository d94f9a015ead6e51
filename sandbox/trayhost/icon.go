package trayhost

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Icon is one program's icon in the panel.
type Icon struct {
	panel *Panel
	owner string // name on the bus
	path  dbus.ObjectPath
}

// Look is what a person sees of an icon who points at it and opens its menu.
type Look struct {
	ID      string // by which desktops remember what to do with it
	Title   string
	Tooltip string
	Image   *image.NRGBA // nil: none
	Menu    *Node
}

type pixmap struct {
	W, H int32
	Pix  []byte // ARGB in network order, not premultiplied
}

func (p pixmap) image() *image.NRGBA {
	if p.W <= 0 || p.H <= 0 || len(p.Pix) != int(p.W)*int(p.H)*4 {
		return nil
	}
	m := image.NewNRGBA(image.Rect(0, 0, int(p.W), int(p.H)))
	for i := 0; i < len(p.Pix); i += 4 {
		m.Set(i/4%int(p.W), i/4/int(p.W), color.NRGBA{p.Pix[i+1], p.Pix[i+2], p.Pix[i+3], p.Pix[i]})
	}
	return m
}

type tooltip struct {
	Icon   string
	Images []pixmap
	Title  string
	Text   string
}

func (i *Icon) call(ctx context.Context, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return i.panel.conn.Object(i.owner, path).CallWithContext(ctx, method, 0, args...)
}

// Look looks at the icon once.
func (i *Icon) Look(ctx context.Context) (Look, error) {
	var props map[string]dbus.Variant
	if err := i.call(ctx, i.path, "org.freedesktop.DBus.Properties.GetAll", itemName).Store(&props); err != nil {
		return Look{}, fmt.Errorf("reading the icon's properties: %w", err)
	}
	var look Look
	look.ID, _ = props["Id"].Value().(string)
	look.Title, _ = props["Title"].Value().(string)
	var tip tooltip
	if err := dbus.Store([]any{props["ToolTip"].Value()}, &tip); err != nil {
		return Look{}, fmt.Errorf("reading the icon's tooltip: %w", err)
	}
	look.Tooltip = strings.TrimSpace(tip.Title + "\n" + tip.Text)
	var images []pixmap
	if err := dbus.Store([]any{props["IconPixmap"].Value()}, &images); err != nil {
		return Look{}, fmt.Errorf("reading the icon's picture: %w", err)
	}
	if len(images) > 0 {
		look.Image = images[0].image()
	}
	menu, _ := props["Menu"].Value().(dbus.ObjectPath)
	root, err := i.layout(ctx, menu)
	if err != nil {
		return Look{}, err
	}
	root.menu, look.Menu = menu, root
	return look, nil
}

// layout asks twice: some programs cut the first answer to one level, so that old panels can follow.
func (i *Icon) layout(ctx context.Context, menu dbus.ObjectPath) (*Node, error) {
	var (
		revision uint32
		raw      layout
	)
	for range 2 {
		raw = layout{}
		if err := i.call(ctx, menu, menuName+".GetLayout", int32(0), int32(-1), []string{}).Store(&revision, &raw); err != nil {
			return nil, fmt.Errorf("reading the icon's menu: %w", err)
		}
	}
	return raw.node()
}

// Await looks until what it sees will do, and gives that. An error tells what was there last.
func (i *Icon) Await(ctx context.Context, will func(Look) bool) (Look, error) {
	var (
		look Look
		err  error
	)
	waited := i.panel.await(ctx, func() bool {
		now, failed := i.Look(ctx)
		if err = failed; err != nil {
			return false
		}
		look = now
		return will(look)
	})
	if waited == nil {
		return look, nil
	}
	if look.Menu == nil {
		return look, fmt.Errorf("waiting for the tray icon: %w (%v)", waited, err)
	}
	return look, fmt.Errorf("waiting for the tray icon: %w; last seen with tooltip %q and menu:\n%s", waited, look.Tooltip, look.Menu)
}

// AwaitMenu waits until the menu, drawn as text, has all of these words in it.
func (i *Icon) AwaitMenu(ctx context.Context, words ...string) (Look, error) {
	look, err := i.Await(ctx, func(l Look) bool {
		drawn := l.Menu.String()
		for _, word := range words {
			if !strings.Contains(drawn, word) {
				return false
			}
		}
		return true
	})
	if err != nil {
		return look, fmt.Errorf("looking for %q: %w", words, err)
	}
	return look, nil
}

// Click waits for an entry and clicks it: labels lead to it from the top, each the whole text of an
// entry or, where just one entry starts so, its beginning.
func (i *Icon) Click(ctx context.Context, labels ...string) error {
	var entry *Node
	look, err := i.Await(ctx, func(l Look) bool {
		entry = l.Menu.Find(labels...)
		return entry != nil && entry.Enabled
	})
	if err != nil {
		return fmt.Errorf("clicking %q: %w", labels, err)
	}
	return i.ClickEntry(ctx, look, entry)
}

// ClickEntry clicks an entry that was seen in a look, also one that cannot be clicked by a person,
// as some panels do.
func (i *Icon) ClickEntry(ctx context.Context, look Look, entry *Node) error {
	err := i.call(ctx, look.Menu.menu, menuName+".Event", entry.ID, "clicked", dbus.MakeVariant(""), uint32(time.Now().Unix())).Err
	if err != nil {
		return fmt.Errorf("clicking %q: %w", entry.Label, err)
	}
	return nil
}
