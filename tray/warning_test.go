package tray

import (
	"testing"

	"github.com/distributedcompute/host-agent/assets"
	"github.com/distributedcompute/host-agent/core/agent"
)

// What rentals come in spite of is in the menu, and neither changes the icon nor is told again and again.
func TestWarningsStayInTheMenu(t *testing.T) {
	allowed := agent.Problem{Code: "old_engine_allowed", Message: "This host takes rentals though its versions have known escapes.", Fix: "Upgrade."}
	below := agent.Problem{Code: "runc_version_below", Message: "runc 1.1.5 has CVE-2025-31133.", Fix: "Upgrade."}
	s := online()
	s.Problems = []agent.Problem{allowed}
	if state, words := standing(view{link: heard, status: s}); state != assets.Online {
		t.Errorf("allowed: %v, %q", state, words)
	}
	if got := concerns(s); len(got) != 0 {
		t.Errorf("told of %+v", got)
	}
	s.Problems = []agent.Problem{{Code: "unshielded", Message: "Rentals can reach your network, as isolation.allow_unshielded allows.", Fix: "Install Docker Engine."}}
	if state, words := standing(view{link: heard, status: s}); state != assets.Online || len(concerns(s)) != 0 {
		t.Errorf("without a shield, as was allowed: %v, %q", state, words)
	}
	s.Problems = []agent.Problem{allowed}
	if list := problems(view{link: heard, status: s}); len(list) != 1 || len(list[0].below) != 2 {
		t.Errorf("in the menu: %+v", list)
	}
	s.Problems = []agent.Problem{allowed, below}
	if state, words := standing(view{link: heard, status: s}); state != assets.Problem || words != "runc 1.1.5 has CVE-2025-31133" {
		t.Errorf("refused: %v, %q", state, words)
	}
	if got := concerns(s); len(got) != 1 || got[0].Code != below.Code {
		t.Errorf("told of %+v", got)
	}
}
