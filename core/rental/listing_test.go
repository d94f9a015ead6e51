package rental_test

import (
	"net/netip"
	"testing"

	"github.com/distributedcompute/host-agent/core/rental"
)

func TestRegistriesRefusal(t *testing.T) {
	const taken = rental.Code("")
	for _, tt := range []struct {
		name        string
		allow, deny []string
		loopback    bool
		image       string
		want        rental.Code
	}{
		{"no lists", nil, nil, false, "docker.io/library/debian:12", taken},
		{"allowed registry", []string{"docker.io"}, nil, false, "docker.io/library/debian:12", taken},
		{"allowed by another name", []string{"index.docker.io"}, nil, false, "docker.io/library/debian:12", taken},
		{"image by another name", []string{"docker.io"}, nil, false, "registry-1.docker.io/library/debian:12", taken},
		{"not allowed", []string{"docker.io"}, nil, false, "ghcr.io/o/r:1", rental.CodeImageForbidden},
		{"allowed owner", []string{"ghcr.io/owner"}, nil, false, "ghcr.io/owner/r:1", taken},
		{"allowed image itself", []string{"ghcr.io/owner/r"}, nil, false, "ghcr.io/owner/r@sha256:ab", taken},
		{"another owner of like name", []string{"ghcr.io/owner"}, nil, false, "ghcr.io/owner2/r:1", rental.CodeImageForbidden},
		{"the owner below another", []string{"ghcr.io/owner"}, nil, false, "ghcr.io/x/owner/r:1", rental.CodeImageForbidden},
		{"a registry of like name", []string{"ghcr.io"}, nil, false, "ghcr.io.example.com/r:1", rental.CodeImageForbidden},
		{"denied registry", nil, []string{"docker.io"}, false, "docker.io/library/debian:12", rental.CodeImageForbidden},
		{"denied by another name", nil, []string{"docker.io"}, false, "registry-1.docker.io/library/debian:12", rental.CodeImageForbidden},
		{"denied in capitals", nil, []string{"ghcr.io"}, false, "GHCR.IO/o/r:1", rental.CodeImageForbidden},
		{"denied at a port", nil, []string{"ghcr.io"}, false, "ghcr.io:443/o/r:1", rental.CodeImageForbidden},
		{"denied port alone", nil, []string{"example.com:8443"}, false, "example.com/o/r:1", taken},
		{"denied port", nil, []string{"example.com:8443"}, false, "example.com:8443/o/r:1", rental.CodeImageForbidden},
		{"denied part", nil, []string{"ghcr.io/owner/"}, false, "ghcr.io/owner/r:1", rental.CodeImageForbidden},
		{"both", []string{"ghcr.io"}, []string{"ghcr.io/owner"}, false, "ghcr.io/owner/r:1", rental.CodeImageForbidden},
		{"tag is no part of the name", nil, []string{"ghcr.io/o/r:1"}, false, "ghcr.io/o/r:1", taken},
		{"local network", nil, nil, true, "192.168.1.10:5000/a:1", rental.CodeInvalid},
		{"metadata service", []string{"169.254.169.254"}, nil, true, "169.254.169.254/a:1", rental.CodeInvalid},
		{"local name", nil, nil, true, "nas.local:5000/a:1", rental.CodeInvalid},
		{"loopback", nil, nil, false, "127.0.0.1:5000/a:1", rental.CodeInvalid},
		{"loopback allowed", nil, nil, true, "127.0.0.1:5000/a:1", taken},
		{"loopback denied", nil, []string{"127.0.0.1:5000/a"}, true, "127.0.0.1:5000/a:1", rental.CodeImageForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refusal := rental.Registries{Allow: tt.allow, Deny: tt.deny, Loopback: tt.loopback}.Refusal(tt.image)
			got := taken
			if refusal != nil {
				got = refusal.Code
			}
			if got != tt.want {
				t.Errorf("%s: %v, want %q", tt.image, refusal, tt.want)
			}
		})
	}
}

func TestIsPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"1.1.1.1": true, "151.101.1.1": true, "2606:4700::1111": true, "64:ff9b::101:101": true, "::ffff:1.1.1.1": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "100.64.0.1": false, "100.127.255.255": false, "127.0.0.1": false,
		"169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.0.1": false, "192.0.2.1": false,
		"198.18.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "::": false, "::1": false, "fe80::1%eth0": false,
		"fd00::1": false, "fec0::1": false, "ff02::1": false, "2001:db8::1": false, "2002:c0a8:101::1": false,
		"::ffff:192.168.1.1": false, "64:ff9b::c0a8:101": false, "::192.168.1.1": false,
	} {
		if got := rental.IsPublic(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is public: %t, want %t", text, got, want)
		}
	}
	if rental.IsPublic(netip.Addr{}) {
		t.Error("no address is public")
	}
}
