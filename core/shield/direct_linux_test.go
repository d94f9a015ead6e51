package shield

import (
	"net/netip"
	"runtime"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

var policy = Policy{
	MaxConnections: 2000, PerSecond: 200, Upload: 1 << 20, Download: 1 << 20,
	Deny: []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32")},
}

// alone gives the test a network namespace of its own.
func alone(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test, and the namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("making a network namespace (needs root): %v", err)
	}
}

func apply(t *testing.T, policy Policy) Picture {
	t.Helper()
	up, err := Direct{}.Apply(t.Context(), policy)
	if err != nil {
		t.Fatal(err)
	}
	return up
}

func look(t *testing.T) Picture {
	t.Helper()
	there, err := Direct{}.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return there
}

func TestMarkTellsPoliciesApart(t *testing.T) {
	alone(t)
	if there := look(t); there.Mark != "" {
		t.Errorf("before it is put up, the shield has the mark %q", there.Mark)
	}
	first := apply(t, policy)
	if first.Mark == "" || look(t).Mark != first.Mark || apply(t, policy).Mark != first.Mark {
		t.Errorf("the same policy gives different marks: %q, then %q", first.Mark, look(t).Mark)
	}
	other := policy
	other.Deny = append(other.Deny, netip.MustParsePrefix("198.51.0.0/24"))
	if apply(t, other).Mark == first.Mark {
		t.Error("another denied range gives the same mark")
	}
	other = policy
	other.MaxConnections++
	if apply(t, other).Mark == first.Mark {
		t.Error("another limit gives the same mark")
	}
	if err := (Direct{}).Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if err := (Direct{}).Remove(t.Context()); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
	if there := look(t); there.Mark != "" {
		t.Errorf("after its removal the shield has the mark %q", there.Mark)
	}
}

func TestMarkNoticesWhatWasChanged(t *testing.T) {
	inet := &nftables.Table{Family: nftables.TableFamilyINet, Name: Table}
	chain := func(name string) *nftables.Chain { return &nftables.Chain{Name: name, Table: inet} }
	for name, tamper := range map[string]func(*testing.T, *nftables.Conn){
		"a rule deleted": func(t *testing.T, conn *nftables.Conn) {
			rules, err := conn.GetRules(inet, chain("from_rental"))
			if err != nil || len(rules) == 0 {
				t.Fatalf("%d rules, %v", len(rules), err)
			}
			if err := conn.DelRule(rules[len(rules)/2]); err != nil {
				t.Fatal(err)
			}
		},
		"a rule put before the others": func(_ *testing.T, conn *nftables.Conn) {
			conn.InsertRule(&nftables.Rule{Table: inet, Chain: chain("forward"), Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
		},
		"a chain emptied": func(_ *testing.T, conn *nftables.Conn) { conn.FlushChain(chain("input")) },
		"a range allowed again": func(t *testing.T, conn *nftables.Conn) {
			set, err := conn.GetSetByName(inet, "deny")
			if err != nil {
				t.Fatal(err)
			}
			conn.FlushSet(set)
		},
		"everything flushed": func(_ *testing.T, conn *nftables.Conn) { conn.FlushRuleset() },
	} {
		t.Run(name, func(t *testing.T) {
			alone(t)
			up := apply(t, policy)
			conn, err := nftables.New()
			if err != nil {
				t.Fatal(err)
			}
			tamper(t, conn)
			if err := conn.Flush(); err != nil {
				t.Fatal(err)
			}
			if look(t).Mark == up.Mark {
				t.Error("the mark is the same")
			}
			if apply(t, policy).Mark != up.Mark {
				t.Error("the shield cannot be put up again")
			}
		})
	}
}
