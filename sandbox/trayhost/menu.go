package trayhost

import (
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

// Node is an entry of a menu; the root is one too, with neither label nor place.
type Node struct {
	ID        int32
	Label     string
	Enabled   bool
	Visible   bool
	Separator bool
	Box       bool // it can be ticked
	Ticked    bool
	Submenu   bool // it says that it has entries below it
	Entries   []*Node

	menu dbus.ObjectPath // of the root
}

// spoken reads a label as panels do: a single underline marks the access key, two are one.
var spoken = strings.NewReplacer("__", "_", "_", "")

type layout struct {
	ID       int32
	Props    map[string]dbus.Variant
	Children []dbus.Variant
}

func (l *layout) node() (*Node, error) {
	n := &Node{ID: l.ID, Enabled: true, Visible: true}
	label, _ := l.Props["label"].Value().(string)
	n.Label = spoken.Replace(label)
	n.Separator = l.Props["type"].Value() == "separator"
	n.Box = l.Props["toggle-type"].Value() == "checkmark"
	n.Ticked = n.Box && l.Props["toggle-state"].Value() == int32(1)
	n.Submenu = l.Props["children-display"].Value() == "submenu"
	if enabled, said := l.Props["enabled"].Value().(bool); said {
		n.Enabled = enabled
	}
	if visible, said := l.Props["visible"].Value().(bool); said {
		n.Visible = visible
	}
	for _, child := range l.Children {
		var below layout
		if err := dbus.Store([]any{child.Value()}, &below); err != nil {
			return nil, fmt.Errorf("reading an entry of the menu: %w", err)
		}
		entry, err := below.node()
		if err != nil {
			return nil, err
		}
		n.Entries = append(n.Entries, entry)
	}
	return n, nil
}

// Find gives the visible entry to which labels lead, as in Icon.Click; nil where there is none.
func (n *Node) Find(labels ...string) *Node {
	for _, label := range labels {
		if n = n.child(label); n == nil {
			return nil
		}
	}
	return n
}

func (n *Node) child(label string) *Node {
	var begins []*Node
	for _, entry := range n.Entries {
		switch {
		case !entry.Visible || entry.Separator:
		case entry.Label == label:
			return entry
		case strings.HasPrefix(entry.Label, label):
			begins = append(begins, entry)
		}
	}
	if len(begins) != 1 {
		return nil
	}
	return begins[0]
}

// String draws what is below n as text, an entry a line.
func (n *Node) String() string {
	var b strings.Builder
	n.draw(&b, "")
	return b.String()
}

func (n *Node) draw(b *strings.Builder, indent string) {
	for _, entry := range n.Entries {
		if !entry.Visible {
			continue
		}
		b.WriteString(indent + entry.line() + "\n")
		entry.draw(b, indent+"  ")
	}
}

func (n *Node) line() string {
	line := n.Label
	switch {
	case n.Separator:
		return "----"
	case n.Ticked:
		line = "[x] " + line
	case n.Box:
		line = "[ ] " + line
	}
	if !n.Enabled {
		line = "(" + line + ")"
	}
	if n.Submenu {
		line += " >"
	}
	return line
}
