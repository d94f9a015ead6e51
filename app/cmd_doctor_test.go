package main

import (
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// What an agent knows to keep rentals away, doctor does not call fit; and it wants no toolkit for who has no GPU of NVIDIA's.
func TestDiagnose(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*agent.Status)
		fit    bool
		says   string
	}{
		"all is well":      {func(*agent.Status) {}, true, "ok shield on · 3 blocked today"},
		"AMD needs less":   {func(s *agent.Status) { s.Hardware.GPUs = []hardware.GPU{{Vendor: "amd"}} }, true, "ok gpus 1 GPU"},
		"NVIDIA needs it":  {func(s *agent.Status) { s.Hardware.GPUs = []hardware.GPU{{Vendor: "nvidia"}} }, false, "bad gpus Docker cannot"},
		"no shield":        {func(s *agent.Status) { s.Engine.Shield = broken(false) }, false, "bad shield missing · no rentals. It is gone."},
		"no shield wanted": {func(s *agent.Status) { s.Engine.Shield = broken(true) }, true, "warning shield missing · rentals may reach"},
		"full disk": {
			func(s *agent.Status) { s.Engine.DiskLow, s.Engine.DiskReserveBytes = true, 20<<30 }, false, "less than the 20.0 GiB that",
		},
		"withheld": {
			func(s *agent.Status) {
				s.GPUTroubles = []rental.GPUTrouble{{Withheld: true, Message: "GPU 0 is in use.", Fix: "End it."}}
			}, true, "warning gpus GPU 0 is in use.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := agent.Status{
				Hardware: &hardware.Survey{},
				Engine:   rental.EngineInfo{Available: true, Shield: rental.ShieldInfo{State: rental.ShieldOn, Blocked: 3}},
				Backend:  agent.LinkHealth{Connected: true},
			}
			test.change(&s)
			found := diagnose(s, true)
			var lines []string
			for _, f := range found.Findings {
				lines = append(lines, f.Verdict+" "+f.Name+" "+f.Message)
			}
			if text := strings.Join(lines, "\n"); found.Fit != test.fit || !strings.Contains(text, test.says) {
				t.Errorf("fit %v, want %v; it lacks %q:\n%s", found.Fit, test.fit, test.says, text)
			}
		})
	}
}

func broken(waived bool) rental.ShieldInfo {
	return rental.ShieldInfo{State: rental.ShieldMissing, Problem: "It is gone.", Fix: "Mend it.", Waived: waived}
}
