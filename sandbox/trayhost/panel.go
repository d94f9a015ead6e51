package trayhost

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
)

const (
	watcherName = "org.kde.StatusNotifierWatcher"
	watcherPath = "/StatusNotifierWatcher"
	itemName    = "org.kde.StatusNotifierItem"
	menuName    = "com.canonical.dbusmenu"
)

// again is how long after one look the next one is taken where no signal says that something is new.
const again = 20 * time.Millisecond

// Panel is a desktop's panel: programs register their icons with it.
type Panel struct {
	conn  *dbus.Conn
	props *prop.Properties
	work  sync.WaitGroup

	mu    sync.Mutex
	icons []*Icon
	notes []Notification
	count Signals
	news  chan struct{} // closed and replaced at every signal and registration
}

// Signals counts what programs have emitted about their icons, by name ("LayoutUpdated").
type Signals map[string]int

// Since takes away what was counted earlier.
func (s Signals) Since(earlier Signals) Signals {
	left := Signals{}
	for name, n := range s {
		if n -= earlier[name]; n != 0 {
			left[name] = n
		}
	}
	return left
}

// OpenPanel opens a panel on a bus, with room for icons.
func OpenPanel(address string) (*Panel, error) {
	p, err := OpenEmpty(address)
	if err != nil {
		return nil, err
	}
	if err := p.ShowIcons(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// OpenEmpty opens a panel that shows no icons until ShowIcons: GNOME without an extension.
func OpenEmpty(address string) (*Panel, error) {
	conn, err := dbus.Connect(address)
	if err != nil {
		return nil, fmt.Errorf("connecting to the bus: %w", err)
	}
	p := &Panel{conn: conn, count: Signals{}, news: make(chan struct{})}
	if err := p.listen(); err != nil {
		p.Close()
		return nil, fmt.Errorf("setting up the panel: %w", err)
	}
	return p, nil
}

// Close takes the panel from the bus.
func (p *Panel) Close() {
	p.conn.Close()
	p.work.Wait()
}

func (p *Panel) listen() (err error) {
	signals := make(chan *dbus.Signal, 4096)
	p.conn.Signal(signals)
	p.work.Go(func() { p.note(signals) }) // ends with the connection, which closes the channel
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchInterface(itemName)},
		{dbus.WithMatchInterface(menuName)},
		{dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged")},
	} {
		if err := p.conn.AddMatchSignal(match...); err != nil {
			return err
		}
	}
	if err := p.conn.ExportMethodTable(map[string]any{
		"RegisterStatusNotifierItem": p.register,
		"RegisterStatusNotifierHost": func(string) *dbus.Error { return nil },
	}, watcherPath, watcherName); err != nil {
		return err
	}
	p.props, err = prop.Export(p.conn, watcherPath, prop.Map{watcherName: {
		"RegisteredStatusNotifierItems":  {Value: []string{}, Emit: prop.EmitTrue},
		"IsStatusNotifierHostRegistered": {Value: true, Emit: prop.EmitConst},
		"ProtocolVersion":                {Value: int32(0), Emit: prop.EmitConst},
	}})
	return err
}

// ShowIcons makes room for icons; the programs that wait for it register.
func (p *Panel) ShowIcons() error { return p.own(watcherName) }

// HideIcons takes the room away, as a panel that ends does; a restart is HideIcons and ShowIcons.
func (p *Panel) HideIcons() error {
	if _, err := p.conn.ReleaseName(watcherName); err != nil {
		return fmt.Errorf("giving up the name %s: %w", watcherName, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.icons = nil
	return nil
}

func (p *Panel) own(name string) error {
	reply, err := p.conn.RequestName(name, dbus.NameFlagDoNotQueue)
	if err != nil {
		return fmt.Errorf("taking the name %s: %w", name, err)
	}
	if reply != dbus.RequestNameReplyPrimaryOwner && reply != dbus.RequestNameReplyAlreadyOwner {
		return fmt.Errorf("taking the name %s: somebody has it", name)
	}
	return nil
}

func (p *Panel) register(sender dbus.Sender, service string) *dbus.Error {
	icon := &Icon{panel: p, owner: string(sender), path: "/StatusNotifierItem"}
	if strings.HasPrefix(service, "/") { // some programs give a path, others a name
		icon.path = dbus.ObjectPath(service)
	} else if service != "" {
		icon.owner = service
	}
	p.mu.Lock()
	p.icons = append(p.icons, icon)
	names := make([]string, len(p.icons))
	for i, icon := range p.icons {
		names[i] = icon.owner + string(icon.path)
	}
	p.mu.Unlock()
	p.props.SetMust(watcherName, "RegisteredStatusNotifierItems", names)
	p.conn.Emit(watcherPath, watcherName+".StatusNotifierItemRegistered", icon.owner+string(icon.path))
	p.tell()
	return nil
}

// note counts signals and forgets icons whose program has gone.
func (p *Panel) note(signals <-chan *dbus.Signal) {
	for signal := range signals {
		name := signal.Name[strings.LastIndexByte(signal.Name, '.')+1:]
		if name == "NameOwnerChanged" {
			if owner, gone := lost(signal.Body); gone {
				p.forget(owner)
			}
		} else {
			p.mu.Lock()
			p.count[name]++
			p.mu.Unlock()
		}
		p.tell()
	}
}

// lost tells from the body of a NameOwnerChanged who has gone.
func lost(body []any) (name string, gone bool) {
	if len(body) != 3 {
		return "", false
	}
	name, _ = body[0].(string)
	return name, body[2] == ""
}

func (p *Panel) forget(owner string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var left []*Icon
	for _, icon := range p.icons {
		if icon.owner != owner {
			left = append(left, icon)
		}
	}
	p.icons = left
}

// tell wakes everyone who waits.
func (p *Panel) tell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.news)
	p.news = make(chan struct{})
}

// await looks, at every signal and now and then, until what it sees will do.
func (p *Panel) await(ctx context.Context, look func() bool) error {
	for {
		p.mu.Lock()
		news := p.news
		p.mu.Unlock()
		if look() {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-news:
		case <-time.After(again):
		}
	}
}

// Icon waits until a program has registered an icon and gives the newest one.
func (p *Panel) Icon(ctx context.Context) (*Icon, error) {
	var icon *Icon
	err := p.await(ctx, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.icons) > 0 {
			icon = p.icons[len(p.icons)-1]
		}
		return icon != nil
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for a tray icon: %w", err)
	}
	return icon, nil
}

// Empty waits until no program has an icon.
func (p *Panel) Empty(ctx context.Context) error {
	err := p.await(ctx, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.icons) == 0
	})
	if err != nil {
		return fmt.Errorf("waiting for the tray icon to go: %w", err)
	}
	return nil
}

// Signals is what has been counted so far.
func (p *Panel) Signals() Signals {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.count)
}

// Quiet waits until no signal has come for a while and gives what has been counted.
func (p *Panel) Quiet(ctx context.Context, while time.Duration) (Signals, error) {
	before := p.Signals()
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for silence on the bus: %w", context.Cause(ctx))
		case <-time.After(while):
		}
		now := p.Signals()
		if maps.Equal(before, now) {
			return now, nil
		}
		before = now
	}
}
