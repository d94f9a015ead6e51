package trayhost_test

import (
	"context"
	"errors"
	"image/color"
	"os"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/sandbox/trayhost"
)

const (
	itemName = "org.kde.StatusNotifierItem"
	menuName = "com.canonical.dbusmenu"
	itemPath = "/StatusNotifierItem"
	menuPath = "/Menu"
)

// program has a tray icon, made by hand.
type program struct {
	*dbus.Conn
	props  *prop.Properties
	clicks chan int32
}

type (
	pixmap struct {
		W, H int32
		Pix  []byte
	}
	tooltip struct {
		Icon        string
		Images      []pixmap
		Title, Text string
	}
	layout struct {
		ID       int32
		Props    map[string]dbus.Variant
		Children []dbus.Variant
	}
	props = map[string]any
)

func entry(id int32, with props, children ...layout) layout {
	l := layout{ID: id, Props: map[string]dbus.Variant{}, Children: []dbus.Variant{}}
	for name, value := range with {
		l.Props[name] = dbus.MakeVariant(value)
	}
	for _, child := range children {
		l.Children = append(l.Children, dbus.MakeVariant(child))
	}
	return l
}

func startProgram(t *testing.T, address string) *program {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &program{Conn: conn, clicks: make(chan int32, 1)}
	menu := entry(0, nil,
		entry(1, props{"label": "a__b _c", "enabled": false}),
		entry(2, props{"type": "separator"}),
		entry(3, props{"label": "More", "children-display": "submenu"},
			entry(4, props{"label": "Tick", "toggle-type": "checkmark", "toggle-state": int32(1)}),
			entry(5, props{"label": "Tack", "toggle-type": "checkmark"})),
		entry(6, props{"label": "Hidden", "visible": false}))
	err = conn.ExportMethodTable(map[string]any{
		"GetLayout": func(int32, int32, []string) (uint32, layout, *dbus.Error) { return 1, menu, nil },
		"Event": func(id int32, event string, _ dbus.Variant, _ uint32) *dbus.Error {
			p.clicks <- id
			return nil
		},
	}, menuPath, menuName)
	if err != nil {
		t.Fatal(err)
	}
	p.props, err = prop.Export(conn, itemPath, prop.Map{itemName: {
		"Id": {Value: "p"}, "Title": {Value: "Program"}, "Menu": {Value: dbus.ObjectPath(menuPath)},
		"ToolTip":    {Value: tooltip{Images: []pixmap{}, Title: "All is well"}},
		"IconPixmap": {Value: []pixmap{{1, 1, []byte{128, 1, 2, 3}}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *program) register(t *testing.T) {
	t.Helper()
	err := p.Object("org.kde.StatusNotifierWatcher", "/StatusNotifierWatcher").Call("org.kde.StatusNotifierWatcher.RegisterStatusNotifierItem", 0, itemPath).Err
	if err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T) (context.Context, *trayhost.Bus, *trayhost.Panel) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	bus, err := trayhost.StartBus()
	if errors.Is(err, trayhost.ErrNoDaemon) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	panel, err := trayhost.OpenPanel(bus.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(panel.Close)
	return ctx, bus, panel
}

func TestPanel(t *testing.T) {
	ctx, bus, panel := start(t)
	p := startProgram(t, bus.Address)
	p.register(t)
	icon, err := panel.Icon(ctx)
	if err != nil {
		t.Fatal(err)
	}
	look, err := icon.Look(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if look.ID != "p" || look.Title != "Program" || look.Tooltip != "All is well" {
		t.Errorf("got id %q, title %q, tooltip %q", look.ID, look.Title, look.Tooltip)
	}
	if got := look.Image.NRGBAAt(0, 0); got != (color.NRGBA{1, 2, 3, 128}) {
		t.Errorf("the pixel is %v", got)
	}
	want := "(a_b c)\n----\nMore >\n  [x] Tick\n  [ ] Tack\n"
	if diff := cmp.Diff(want, look.Menu.String()); diff != "" {
		t.Errorf("menu (-want +got):\n%s", diff)
	}
	if err := icon.Click(ctx, "Mo", "Tack"); err != nil || <-p.clicks != 5 {
		t.Errorf("clicking an entry: %v", err)
	}
	for _, labels := range [][]string{{"a_b c"}, {"More", "Ta", "x"}, {"More", "T"}, {"Hidden"}} {
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		if err := icon.Click(short, labels...); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("clicking %q, which no person could: %v", labels, err)
		}
		cancel()
	}

	before := panel.Signals()
	for range 2 {
		if err := p.Emit(menuPath, menuName+".LayoutUpdated", uint32(2), int32(0)); err != nil {
			t.Fatal(err)
		}
	}
	after, err := panel.Quiet(ctx, 50*time.Millisecond)
	if diff := cmp.Diff(trayhost.Signals{"LayoutUpdated": 2}, after.Since(before)); diff != "" || err != nil {
		t.Errorf("signals (-want +got), %v:\n%s", err, diff)
	}

	if err := panel.HideIcons(); err != nil {
		t.Fatal(err)
	}
	if err := panel.Empty(ctx); err != nil {
		t.Error(err)
	}
	if err := panel.ShowIcons(); err != nil {
		t.Fatal(err)
	}
	p.register(t)
	if _, err := panel.Icon(ctx); err != nil {
		t.Error(err)
	}
	p.Close() // its icon goes with it
	if err := panel.Empty(ctx); err != nil {
		t.Error(err)
	}
}

func TestNotifications(t *testing.T) {
	ctx, bus, panel := start(t)
	if err := panel.ShowNotifications(); err != nil {
		t.Fatal(err)
	}
	conn, err := dbus.Connect(bus.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	notify := func(replaces uint32, title string, hints map[string]dbus.Variant) (id uint32) {
		t.Helper()
		err := conn.Object("org.freedesktop.Notifications", "/org/freedesktop/Notifications").Call("org.freedesktop.Notifications.Notify", 0,
			"app", replaces, "", title, "Body", []string{}, hints, int32(-1)).Store(&id)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := notify(0, "First", nil)
	if again := notify(first, "Second", map[string]dbus.Variant{"urgency": dbus.MakeVariant(byte(2))}); again != first {
		t.Errorf("a note that replaces %d has id %d", first, again)
	}
	got, err := panel.AwaitNotification(ctx, func(n trayhost.Notification) bool { return n.Urgent })
	want := trayhost.Notification{ID: first, Replaces: first, App: "app", Title: "Second", Body: "Body", Urgent: true}
	if err != nil || got != want {
		t.Errorf("got %+v (%v), want %+v", got, err, want)
	}
	if all := panel.Notifications(); len(all) != 2 || all[0].Title != "First" {
		t.Errorf("got %+v", all)
	}
}

func TestPanelsKeepApart(t *testing.T) {
	_, bus, _ := start(t)
	if second, err := trayhost.OpenPanel(bus.Address); err == nil {
		second.Close()
		t.Error("two panels have room for icons on one bus")
	}
}
