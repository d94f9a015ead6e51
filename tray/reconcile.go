package tray

import "slices"

// menuShown is the menu as it is on the screen.
type menuShown struct {
	menu    []entry
	items   [][]item // of the top and then of each submenu, in order; nil for a separator
	entries map[item]entry
}

// show makes the screen show a menu. Entries keep their place and get another title, as long as the
// menu has the same shape; otherwise all of it is built anew, and clicks on what was there lead nowhere.
func (m *menuShown) show(s surface, next []entry) {
	if m.entries == nil || !sameShape(m.menu, next) {
		s.clear()
		m.items, m.entries = nil, map[item]entry{}
		m.build(s, nil, next)
	} else {
		level := 0
		m.update(m.menu, next, &level)
	}
	m.menu = next
}

func sameShape(a, b []entry) bool {
	return slices.EqualFunc(a, b, func(a, b entry) bool {
		return a.key == b.key && a.line == b.line && a.box == b.box && sameShape(a.below, b.below)
	})
}

func (m *menuShown) build(s surface, below item, entries []entry) {
	level := len(m.items)
	m.items = append(m.items, nil)
	for _, e := range entries {
		it := s.add(below, e)
		m.items[level] = append(m.items[level], it)
		if e.line {
			continue
		}
		m.entries[it] = e
		if len(e.below) > 0 {
			m.build(s, it, e.below)
		}
	}
}

// update visits the levels in the order of build.
func (m *menuShown) update(was, is []entry, level *int) {
	items := m.items[*level]
	*level++
	for i, e := range is {
		if e.line {
			continue
		}
		it := items[i]
		if e.title != was[i].title {
			it.title(e.title)
		}
		if e.off != was[i].off {
			it.enable(!e.off)
		}
		if e.ticked != was[i].ticked {
			it.tick(e.ticked)
		}
		m.entries[it] = e
		if len(e.below) > 0 {
			m.update(was[i].below, e.below, level)
		}
	}
}
