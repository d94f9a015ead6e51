package tunnel

import (
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/rental"
)

// The texts are those of frps 0.52 to 0.70.
func TestRefusedRoute(t *testing.T) {
	port := rental.Port{Container: 22, Protocol: rental.TCP, Public: 10022}
	for _, test := range []struct {
		text string
		code rental.Code
		want string
	}{
		{"port already used", rental.CodePortUnavailable, "Public port 10022 is taken on the relay r:7000; asking for it again."},
		{"port unavailable", rental.CodePortUnavailable, "Public port 10022 is taken on the relay r:7000; asking for it again."},
		{"acquire port 10022 error: port already used", rental.CodePortUnavailable, "Public port 10022 is taken on the relay r:7000; asking for it again."},
		{"port not allowed", rental.CodePortUnavailable, "The relay r:7000 does not allow public port 10022."},
		{"exceed the max_ports_per_client", rental.CodePortUnavailable, "The relay r:7000 allows this host no more ports, so public port 10022 stays closed."},
		{"proxy [a.b] already exists", rental.CodePortUnavailable, "The relay r:7000 still holds public port 10022 for an earlier connection of this host; asking for it again."},
		{"new proxy [a.b] error", rental.CodeTunnelFailed, `The relay r:7000 refuses public port 10022: "new proxy [a.b] error".`},
		{"\x1b[31mred\n", rental.CodeTunnelFailed, `The relay r:7000 refuses public port 10022: " [31mred ".`},
		{strings.Repeat("é", 5000), rental.CodeTunnelFailed, `The relay r:7000 refuses public port 10022: "` + strings.Repeat("é", 200) + `".`},
	} {
		got := refusedRoute(port, test.text, "r:7000")
		if got.Code != test.code || got.Message != test.want {
			t.Errorf("%.40q: %s %q, want %s %q", test.text, got.Code, got.Message, test.code, test.want)
		}
	}
}
