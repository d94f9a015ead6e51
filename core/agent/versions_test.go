package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/preflight"
	"github.com/distributedcompute/host-agent/core/rental"
)

// versions are what a host says of its runc, judged by the shipped table; "" is a look that fails.
type versions struct {
	t     *testing.T
	runc  atomic.Pointer[string]
	looks atomic.Int64
}

func (v *versions) become(runc string) { v.runc.Store(&runc) }

func (v *versions) look(_ context.Context, survey hardware.Survey) (preflight.Report, error) {
	v.looks.Add(1)
	table, err := preflight.Shipped()
	if err != nil {
		v.t.Error(err)
	}
	if *v.runc.Load() == "" {
		return preflight.Report{}, errors.New("the engine does not answer")
	}
	host := preflight.Host{Distribution: "debian", GPUs: len(survey.GPUs) > 0, Versions: map[string]string{preflight.Runc: *v.runc.Load()}}
	day, err := time.Parse(time.DateOnly, table.FactsTo)
	if err != nil {
		v.t.Error(err)
	}
	return table.Judge(host, day), nil
}

func withVersions(t *testing.T, m *rig, runc string) *versions {
	v := &versions{t: t}
	v.become(runc)
	m.parts = func(p *Parts) { p.Preflight = v.look }
	return v
}

func warnings(r protocol.Register) (codes []string) {
	for _, w := range r.Hardware.Warnings {
		codes = append(codes, w.Code)
	}
	return codes
}

// A host with known holes takes no rentals until they are mended, which a look every two minutes shows, or the engine's
// next start.
func TestOldVersionsTakeNoRentals(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		v := withVersions(t, m, "1.1.5")
		s := m.boot()
		status := s.Status()
		if status.Accepting || !strings.HasPrefix(status.Why, "this host's versions have known escapes: runc 1.1.5 (below)") {
			t.Errorf("accepting %v, because %q", status.Accepting, status.Why)
		}
		if p := status.Problems; len(p) != 1 || p[0].Code != "runc_version_below" || !strings.Contains(p[0].Message, "CVE-2025-31133") || !strings.Contains(p[0].Fix, "containerd.io") {
			t.Errorf("problems %+v", p)
		}
		register, _ := s.link.lastRegister()
		if register.Accepting || !slices.Contains(warnings(register), "runc_version_below") {
			t.Errorf("the backend was told accepting %v, %v", register.Accepting, warnings(register))
		}
		if words := s.mustRefuse(protocol.NotAccepting, order("r-1")); !strings.Contains(words, "runc 1.1.5") {
			t.Errorf("refused because %q", words)
		}

		v.become("1.3.6")
		m.engine.become(func(i *rental.EngineInfo) { i.Since = time.Now() })
		pass(time.Second)
		if status := s.Status(); !status.Accepting || len(status.Problems) != 0 {
			t.Errorf("mended: accepting %v, because %q, problems %+v", status.Accepting, status.Why, status.Problems)
		}
		if register, _ := s.link.lastRegister(); !register.Accepting || len(warnings(register)) != 0 {
			t.Errorf("the backend was told accepting %v, %v", register.Accepting, warnings(register))
		}
		s.mustOK(order("r-1"))

		// What runs goes on, whatever is found later.
		v.become("1.1.5+ds1")
		pass(versionsAgain)
		if status := s.Status(); status.Accepting || status.Problems[0].Code != "runc_version_unknown" || s.state("r-1") != rental.Running {
			t.Errorf("accepting %v, problems %+v, r-1 %s", status.Accepting, status.Problems, s.state("r-1"))
		}
		if n := v.looks.Load(); n != 3 {
			t.Errorf("looked %d times, want at the start, with the engine and after a day", n)
		}
		v.become("1.3.6") // without a word of the engine
		pass(versionsUnfit)
		if status := s.Status(); !status.Accepting || len(status.Problems) != 0 {
			t.Errorf("mended again: accepting %v, because %q, problems %+v", status.Accepting, status.Why, status.Problems)
		}
		s.leave()
	})
}

// An owner who takes it upon himself is listed; the backend and he are told.
func TestOldVersionsAllowed(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		withVersions(t, m, "1.1.5+ds1")
		m.opts.AllowOldEngine = true
		s := m.boot()
		status := s.Status()
		if p := status.Problems; !status.Accepting || len(p) != 1 || p[0].Code != "old_engine_allowed" || !strings.Contains(p[0].Message, "runc 1.1.5+ds1") {
			t.Errorf("accepting %v, problems %+v", status.Accepting, p)
		}
		register, _ := s.link.lastRegister()
		if got := warnings(register); !register.Accepting || !slices.Equal(got, []string{"runc_version_unknown", "old_engine_allowed"}) {
			t.Errorf("the backend was told accepting %v, %v", register.Accepting, got)
		}
		s.mustOK(order("r-1"))
		s.leave()
	})
}

// Nothing is taken before the first judgement, and one that failed is made again.
func TestNoRentalsBeforeVersionsAreKnown(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		v := withVersions(t, m, "")
		s := m.boot()
		if status := s.Status(); status.Accepting || !status.VersionsAwaited {
			t.Errorf("accepting %v, because %q", status.Accepting, status.Why)
		}
		s.mustRefuse(protocol.NotAccepting, order("r-1"))
		v.become("1.3.6")
		pass(versionsFailed)
		if status := s.Status(); !status.Accepting || status.VersionsAwaited {
			t.Errorf("accepting %v, because %q", status.Accepting, status.Why)
		}
		s.leave()
	})
}

// An old table is said, and keeps nobody away.
func TestOldTable(t *testing.T) {
	s := &Status{Versioning: Versioning{Versions: &preflight.Report{
		TableDate: "2026-08-20", Stale: true,
		Notes: []preflight.Note{{Code: "toolkit_no_cgroups", Message: "Told not to.", Fix: "Tell it to."}},
	}}}
	list := versionProblems(s)
	if len(list) != 2 || list[0].Code != "toolkit_no_cgroups" || list[1].Code != "version_table_old" || !strings.Contains(list[1].Message, "2026-08-20") {
		t.Errorf("problems %+v", list)
	}
	if len(versionWarnings(s)) != 2 {
		t.Errorf("warnings %+v", versionWarnings(s))
	}
}
