package trayhost

import (
	"context"
	"fmt"
	"slices"

	"github.com/godbus/dbus/v5"
)

const (
	notificationsName = "org.freedesktop.Notifications"
	notificationsPath = "/org/freedesktop/Notifications"
)

// Notification is one that a program has asked to show.
type Notification struct {
	ID       uint32
	Replaces uint32 // 0: none
	App      string
	Title    string
	Body     string
	Urgent   bool
}

// ShowNotifications makes the panel the one who shows notifications. It keeps them all.
func (p *Panel) ShowNotifications() error {
	notify := func(app string, replaces uint32, icon, title, body string, actions []string, hints map[string]dbus.Variant, timeout int32) (uint32, *dbus.Error) {
		p.mu.Lock()
		id := replaces
		if id == 0 {
			id = uint32(len(p.notes) + 1)
		}
		p.notes = append(p.notes, Notification{
			ID: id, Replaces: replaces, App: app, Title: title, Body: body,
			Urgent: hints["urgency"].Value() == byte(2),
		})
		p.mu.Unlock()
		p.tell()
		return id, nil
	}
	err := p.conn.ExportMethodTable(map[string]any{
		"Notify":            notify,
		"CloseNotification": func(uint32) *dbus.Error { return nil },
		"GetCapabilities":   func() ([]string, *dbus.Error) { return []string{"body"}, nil },
		"GetServerInformation": func() (name, vendor, version, spec string, err *dbus.Error) {
			return "trayhost", "sandbox", "1", "1.2", nil
		},
	}, notificationsPath, notificationsName)
	if err != nil {
		return fmt.Errorf("setting up notifications: %w", err)
	}
	return p.own(notificationsName)
}

// Notifications are those shown so far, oldest first.
func (p *Panel) Notifications() []Notification {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.notes)
}

// AwaitNotification waits for one that will do, also among those shown before.
func (p *Panel) AwaitNotification(ctx context.Context, will func(Notification) bool) (Notification, error) {
	var found Notification
	err := p.await(ctx, func() bool {
		for _, note := range p.Notifications() {
			if will(note) {
				found = note
				return true
			}
		}
		return false
	})
	if err != nil {
		return found, fmt.Errorf("waiting for a notification: %w; shown were %+v", err, p.Notifications())
	}
	return found, nil
}
