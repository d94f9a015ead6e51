package agent

import (
	"context"
	"reflect"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/preflight"
)

// Versioning is the part of a picture that speaks of versions.
type Versioning struct {
	// Versions are the judgement of what runs rentals; absent until the first look, and where none is made.
	Versions        *preflight.Report `json:"versions,omitempty"`
	VersionsAwaited bool              `json:"versions_awaited,omitempty"`        // no rental is taken before they are known
	VersionsWaived  bool              `json:"unsafe_allow_old_engine,omitempty"` // the owner takes rentals whatever they are
}

func (l *loop) versioning() Versioning {
	return Versioning{
		Versions:        l.versions,
		VersionsAwaited: l.parts.Preflight != nil && l.versions == nil && !l.options.AllowOldEngine,
		VersionsWaived:  l.options.AllowOldEngine,
	}
}

// How long after one look at the versions the next is made, while engine and driver stay the same: a table grows
// old, and an engine may not have answered. A host that is kept from rentals waits to be mended: a package may be
// upgraded, or a module kept out, without the engine's being started anew.
const (
	versionsAgain  = 24 * time.Hour
	versionsUnfit  = 2 * time.Minute
	versionsFailed = 30 * time.Second
)

// versioned is what the versions were looked at with.
type versioned struct {
	engine engineLife
	driver string
	gpus   bool
}

// lookAtVersions judges the host's versions, away from the loop, unless that has been done with engine and driver as
// they are. There is nothing to judge without an engine.
func (l *loop) lookAtVersions() {
	if l.parts.Preflight == nil {
		return
	}
	l.lanes.do("versions", func() job {
		info := l.parts.Engine.Info()
		if l.survey == nil || !info.Available || l.leaving != "" {
			return nil
		}
		now := versioned{engine: lifeOf(info), gpus: len(l.survey.GPUs) > 0}
		if l.survey.DriverVersion != nil {
			now.driver = *l.survey.DriverVersion
		}
		if now == l.judged && time.Now().Before(l.versionsAt) {
			return nil
		}
		survey := *l.survey
		return func(ctx context.Context) func() {
			report, err := l.parts.Preflight(ctx, survey)
			return func() { l.versionsSeen(now, report, err) }
		}
	})
}

// versionsSeen takes a judgement into the picture. One that says the same is no news to the backend.
func (l *loop) versionsSeen(with versioned, report preflight.Report, err error) {
	l.judged, l.versionsAt = with, time.Now().Add(versionsAgain)
	switch {
	case err != nil:
		l.versionsAt = time.Now().Add(versionsFailed)
		l.log.Warn("looking at the versions of this host", "error", err)
	case l.versions == nil || !reflect.DeepEqual(report, *l.versions):
		l.versions, l.stale = &report, true
	}
	if err == nil && !report.Fit() && !l.options.AllowOldEngine {
		l.versionsAt = time.Now().Add(versionsUnfit)
	}
	l.lookAtVersions() // the engine may have come back since
}

// lookAtVersionsAgain does so when it is time to.
func (l *loop) lookAtVersionsAgain(now time.Time) {
	if l.versionsAt.IsZero() || now.Before(l.versionsAt) {
		return
	}
	l.versionsAt = time.Time{}
	l.lookAtVersions()
}

// versionProblems are what keeps this host from rentals, or what its owner has taken upon himself. They come
// last: nothing is going wrong.
func versionProblems(s *Status) []Problem {
	if s.Versions == nil {
		return nil
	}
	var list []Problem
	unfit := s.Versions.Unfit()
	switch {
	case len(unfit) > 0 && s.VersionsWaived:
		list = append(list, Problem{
			"old_engine_allowed",
			"This host takes rentals though its versions have known escapes, as unsafe_allow_old_engine says: " + s.Versions.String() + ".",
			"See what to upgrade with: distributed-agent doctor. Then take unsafe_allow_old_engine away.",
		})
	default:
		for _, c := range unfit {
			list = append(list, Problem{versionCode(c), c.Reason, c.Fix})
		}
	}
	for _, note := range s.Versions.Notes {
		list = append(list, Problem(note))
	}
	if s.Versions.Stale {
		list = append(list, Problem{
			"version_table_old",
			"What this agent knows of unsafe versions ends on " + s.Versions.TableDate + ": what was found since is not checked.",
			"Install the newest version of the agent.",
		})
	}
	return list
}

// versionCode is the stable word for one component's verdict, such as runc_version_below.
func versionCode(c preflight.Component) string {
	return strings.ReplaceAll(c.Name, "-", "_") + "_version_" + string(c.Verdict)
}

// versionWarnings are what the backend is told of the versions: each component too, whatever the owner allows.
func versionWarnings(s *Status) []hardware.Gap {
	if s.Versions == nil {
		return nil
	}
	var list []hardware.Gap
	if s.VersionsWaived {
		for _, c := range s.Versions.Unfit() {
			list = append(list, hardware.Gap{Code: versionCode(c), Message: c.Reason, Fix: c.Fix})
		}
	}
	for _, p := range versionProblems(s) {
		list = append(list, hardware.Gap(p))
	}
	return list
}
