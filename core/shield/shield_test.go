package shield

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSpansMergeWhatMeets(t *testing.T) {
	parse := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	for name, tc := range map[string]struct {
		prefixes []netip.Prefix
		want     []span
	}{
		"none":            {nil, nil},
		"one":             {parse("10.0.0.0/8"), []span{{0x0a000000, 0x0affffff}}},
		"one in another":  {parse("10.1.0.0/16", "10.0.0.0/8"), []span{{0x0a000000, 0x0affffff}}},
		"neighbours":      {parse("10.0.1.0/24", "10.0.0.0/24"), []span{{0x0a000000, 0x0a0001ff}}},
		"apart":           {parse("10.0.2.0/24", "10.0.0.0/24"), []span{{0x0a000000, 0x0a0000ff}, {0x0a000200, 0x0a0002ff}}},
		"up to the last":  {parse("240.0.0.0/4", "255.255.255.255/32"), []span{{0xf0000000, 0xffffffff}}},
		"not masked":      {parse("10.0.0.9/24"), []span{{0x0a000000, 0x0a0000ff}}},
		"of another kind": {parse("2001:db8::/32"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, spans(tc.prefixes), cmp.AllowUnexported(span{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPolicyOfNoConnectionsIsRefused(t *testing.T) {
	if (Policy{}).check() == nil {
		t.Error("a policy without limits is taken")
	}
}
