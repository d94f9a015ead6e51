package preflight

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Judge says which of a host's components may hold rentals, and what helps where one may not.
func (t *Table) Judge(host Host, now time.Time) Report {
	report := Report{TableDate: t.FactsTo, Stale: t.stale(now), Notes: host.notes()}
	for i := range t.Components {
		report.Components = append(report.Components, t.judge(&t.Components[i], host))
	}
	return report
}

func (t *Table) judge(entry *Entry, host Host) Component {
	c := Component{Name: entry.Name, Title: entry.Title, Verdict: Absent}
	text, found := host.Versions[entry.Name]
	if !found || entry.GPU && !host.GPUs {
		return c
	}
	c.Version = shown(text)
	from := host.packageOf(entry)
	c.Package, c.PackageVersion = from.Name, host.Packages[from.Name]

	v, ok := parse(text)
	built := ok && foreign(entry, v, from)
	if entry.Name == Kernel && host.Base != "" {
		if base, known := parse(host.Base); known {
			v, ok, built = base, true, true
			v.suffix = ""
		}
	}
	if !ok {
		c.Verdict = Unknown
		c.Reason = fmt.Sprintf("The version of %s is not known, so neither is what it has of the known holes.", entry.Title)
		if text != "" {
			c.Reason = fmt.Sprintf("%s has a version that says nothing, so it is not known which of the known holes it has.", entry.Title)
		}
		c.Upgrade, c.Fix = upgrade(entry, host, from, false)
		return c
	}
	open := entry.open(v, host.Blocked)
	switch {
	case len(open.grave) == 0 && (entry.reached(v, entry.Floors) || open.closed):
		c.Verdict = OK
		c.Reason = entry.advice(v, open)
		return c
	case t.ported(entry, host, from):
		c.Verdict = OK
		return c
	}
	c.Verdict = Below
	if built {
		c.Verdict = Unknown
	}
	for _, a := range slices.Concat(open.grave, open.light) {
		c.Advisories = append(c.Advisories, a.ID)
	}
	c.Reason = entry.reason(c, open)
	c.Upgrade, c.Fix = upgrade(entry, host, from, built)
	if way := mitigation(open.grave, host.Blocked); way != "" && !host.Desktop {
		c.Fix += " Or keep the modules out that the holes need: " + way
	}
	return c
}

// holes are the open ones of a version.
type holes struct {
	grave, light []Advisory
	closed       bool // some are closed by modules that cannot be loaded, and by nothing else
}

func (e *Entry) open(v version, blocked []string) holes {
	var h holes
	for _, a := range e.Advisories {
		switch {
		case e.reached(v, a.Fixed):
		case a.closedBy(blocked):
			h.closed = true
		case a.Grave:
			h.grave = append(h.grave, a)
		default:
			h.light = append(h.light, a)
		}
	}
	return h
}

func (a *Advisory) closedBy(blocked []string) bool {
	return len(a.ClosedBy) > 0 && !slices.ContainsFunc(a.ClosedBy, func(module string) bool { return !slices.Contains(blocked, module) })
}

// advice is what there is to say of a version that may be listed.
func (e *Entry) advice(v version, open holes) string {
	switch {
	case e.reached(v, e.Recommended):
		return ""
	case open.closed:
		return "It has known holes, which are closed: the kernel modules they need cannot be loaded."
	}
	advice := "Newer is better: " + strings.Join(e.Recommended, ", ") + " and later are recommended"
	if len(open.light) > 0 {
		advice += fmt.Sprintf(" (%s: %s)", open.light[0].ID, open.light[0].Why)
	}
	return advice + "."
}

// reason is one sentence on why a component is not fit.
func (e *Entry) reason(c Component, open holes) string {
	holes := "is older than " + strings.Join(e.Floors, ", ") + ", the oldest that are known to be safe"
	if all := slices.Concat(open.grave, open.light); len(all) > 0 {
		first := all[0]
		holes = fmt.Sprintf("has %s (%s)", first.ID, first.Why)
		if len(all) > 1 {
			holes += fmt.Sprintf(" and %d more", len(all)-1)
		}
	}
	if c.Verdict == Below {
		return c.String() + " " + holes + "."
	}
	from := "a build of somebody else than its makers"
	if c.PackageVersion != "" {
		from = fmt.Sprintf("the package %s %s", c.Package, c.PackageVersion)
	}
	return fmt.Sprintf("%s is %s: by its number it %s; its builder may have repaired that, which cannot be told from here.", c, from, holes)
}

// foreign reports whether somebody else than the makers has built a component, and may have ported fixes to it.
func foreign(entry *Entry, v version, from Package) bool {
	if from.Name != "" {
		return !from.Vendor
	}
	return v.suffix != "" && v.suffix != "-ce" || entry.Name == Kernel && v.suffix != ""
}

// packageOf is the installed package that a component is from; the vendor's comes first. One that has another
// number than what runs is not what runs. The vendor's package of containerd brings a runc whose number is its own.
func (h *Host) packageOf(entry *Entry) Package {
	runs, known := parse(h.Versions[entry.Name])
	for _, p := range entry.Packages {
		_, upstream, _ := splitDebian(h.Packages[p.Name])
		held, ok := parse(upstream)
		if ok && (p.Vendor && entry.Name == Runc || !known || held.compare(runs) == 0) {
			return p
		}
	}
	return Package{}
}

// ported reports whether the table knows an installed package to carry the fixes.
func (t *Table) ported(entry *Entry, host Host, from Package) bool {
	return from.Name != "" && slices.ContainsFunc(t.Backports, func(b Backport) bool {
		return b.Component == entry.Name && b.Distribution == host.Distribution && b.Release == host.Release &&
			b.Package == from.Name && compareDebian(host.Packages[from.Name], b.Version) >= 0
	})
}

// notes are about the toolkit's settings.
func (h *Host) notes() []Note {
	notes := []Note{}
	if !h.GPUs {
		return notes
	}
	const file = "/etc/nvidia-container-runtime/config.toml"
	if h.Settings["nvidia-container-cli.no-cgroups"] == "true" {
		notes = append(notes, Note{
			"toolkit_no_cgroups",
			"The NVIDIA Container Toolkit is told not to use control groups, which keep a container from other GPUs.",
			"Set no-cgroups = false under [nvidia-container-cli] in " + file + ".",
		})
	}
	const byVariable = "accept-nvidia-visible-devices-envvar-when-unprivileged"
	// Where GPUs come by the toolkit's hook they come by that very variable, so it has to stay.
	if set := h.Settings[byVariable]; h.CDI && set != "false" {
		notes = append(notes, Note{
			"toolkit_takes_variables",
			"The NVIDIA Container Toolkit hands out GPUs that a variable of an image asks for.",
			"Set " + byVariable + " = false in " + file + ", where Docker hands out GPUs by CDI alone.",
		})
	}
	return notes
}

// shown is text that may be printed and sent anywhere, cut to a length.
func shown(text string) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
	return clean[:min(len(clean), longestVersion)]
}
