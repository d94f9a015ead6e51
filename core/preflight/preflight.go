// Package preflight judges the versions this host runs rentals with: container engine, containerd, runc,
// the kernel and, where there are GPUs, NVIDIA's driver and toolkit. Each of them has had holes that lead
// out of a container.
//
// [Shipped] is a dated table of the versions that are free of them, [Collect] looks at the host without
// changing it, and [Table.Judge] is a pure function of both. A distribution's build may carry a fix under an
// old version number; unless the table knows the package, nothing can be said of it, and what is unknown is
// not fit.
package preflight

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Verdict is what can be said of one component.
type Verdict string

// The verdicts. Below and Unknown keep a host from being listed.
const (
	OK      Verdict = "ok"
	Below   Verdict = "below"   // it has known holes
	Unknown Verdict = "unknown" // a distribution's build, or a version that says nothing
	Absent  Verdict = "absent"  // not on this host, or of no concern to it
)

// The components, by their names in the table.
const (
	Docker       = "docker"
	Containerd   = "containerd"
	Runc         = "runc"
	Toolkit      = "nvidia-toolkit"
	Driver       = "nvidia-driver"
	Kernel       = "kernel"
	staleAfter   = 90 * 24 * time.Hour
	dateLayout   = "2006-01-02"
	blockingFile = "/etc/modprobe.d/distributed-agent.conf"
)

// Report is what was found on a host, and what to do about it.
type Report struct {
	TableDate  string      `json:"table_date"` // of the newest fact in the table, 2006-01-02
	Stale      bool        `json:"stale"`      // the table is older than 90 days
	Components []Component `json:"components"`
	Notes      []Note      `json:"notes"` // settings that ought to be otherwise; they keep nobody from being listed
}

// Component is the judgement of one part.
type Component struct {
	Name           string   `json:"name"`
	Title          string   `json:"title"`
	Verdict        Verdict  `json:"verdict"`
	Version        string   `json:"version,omitempty"`         // as it says itself
	Package        string   `json:"package,omitempty"`         // that it was installed by, where one is known
	PackageVersion string   `json:"package_version,omitempty"` // of that package
	Reason         string   `json:"reason,omitempty"`          // one sentence, "" where all is well
	Advisories     []string `json:"advisories,omitempty"`      // open ones, the gravest first
	Upgrade        string   `json:"upgrade,omitempty"`         // the package to upgrade, where that helps
	Fix            string   `json:"fix,omitempty"`             // what to do, with the exact command where there is one
}

// Note is a setting of the host that ought to be otherwise.
type Note struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
}

// Fit reports whether rentals may run here.
func (r *Report) Fit() bool { return len(r.Unfit()) == 0 }

// Unfit are the components that keep this host from being listed.
func (r *Report) Unfit() []Component {
	return slices.DeleteFunc(slices.Clone(r.Components), func(c Component) bool {
		return c.Verdict == OK || c.Verdict == Absent
	})
}

// Unfit words: "Docker Engine 20.10.24+dfsg1 (unknown), runc 1.1.5 (below)".
func (r *Report) String() string {
	var words []string
	for _, c := range r.Unfit() {
		words = append(words, fmt.Sprintf("%s (%s)", c, c.Verdict))
	}
	return strings.Join(words, ", ")
}

// String names the component and its version.
func (c Component) String() string {
	if c.Version == "" {
		return c.Title
	}
	return c.Title + " " + c.Version
}

// Host is what of a machine the judgement depends on.
type Host struct {
	// Distribution, Release and Like are ID, VERSION_ID and ID_LIKE of os-release where the engine runs; ""
	// where it is not known.
	Distribution, Release, Like string
	// Desktop is set where the engine runs in a virtual machine that comes with it.
	Desktop bool
	// Versions are what the components say of themselves. An empty version is one that could not be asked
	// for; a component without an entry is absent.
	Versions map[string]string
	// Base is the version of kernel.org that the running kernel was built from, where it says so.
	Base string
	// Packages are the installed ones of those that [Table.Packages] names, with their versions.
	Packages map[string]string
	// Blocked are the kernel modules that cannot be loaded.
	Blocked []string
	// GPUs tells that there are NVIDIA GPUs, whose driver and toolkit count then.
	GPUs bool
	// CDI tells that GPUs may be handed out by CDI.
	CDI bool
	// Settings are those of the NVIDIA Container Toolkit: "section.key" → value.
	Settings map[string]string
}
