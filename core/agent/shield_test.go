package agent

import (
	"slices"
	"testing"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

func TestShieldDecidesWhatIsTakenAndSaid(t *testing.T) {
	missing := rental.ShieldInfo{State: rental.ShieldMissing, Problem: "It could not be put up.", Fix: "Look."}
	waived := missing
	waived.Waived = true
	for name, tt := range map[string]struct {
		shield         rental.ShieldInfo
		taken, offered bool
		problem        string
	}{
		"on":           {rental.ShieldInfo{State: rental.ShieldOn}, true, true, ""},
		"awaited":      {rental.ShieldInfo{State: rental.ShieldAwaited}, true, false, ""},
		"missing":      {missing, false, false, "shield_missing"},
		"not wanted":   {rental.ShieldInfo{}, true, false, ""},
		"done without": {waived, true, false, "unshielded"},
	} {
		t.Run(name, func(t *testing.T) {
			host := &Status{Hardware: &hardware.Survey{}, Engine: rental.EngineInfo{Available: true, GPUReady: true, Shield: tt.shield}, Node: Wish{State: protocol.Online}}
			if taken := closed(host) == nil; taken != tt.taken {
				t.Errorf("rentals are taken: %t, want %t (%v)", taken, tt.taken, closed(host))
			}
			if offered := slices.Contains(features(host), "isolation.lan"); offered != tt.offered {
				t.Errorf("isolation.lan is said: %t, want %t", offered, tt.offered)
			}
			code := ""
			for _, p := range shieldProblems(host) {
				code = p.Code
			}
			if code != tt.problem {
				t.Errorf("problem %q, want %q", code, tt.problem)
			}
		})
	}
}
