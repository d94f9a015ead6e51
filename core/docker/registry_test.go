package docker

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/distributedcompute/host-agent/core/rental"
)

// TestRegistryTransportStaysOnTheInternet looks at the address that is connected to, whatever its name was.
func TestRegistryTransportStaysOnTheInternet(t *testing.T) {
	asked := 0
	count := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ })
	plain, secure := httptest.NewServer(count), httptest.NewTLSServer(count)
	defer plain.Close()
	defer secure.Close()
	for name, tt := range map[string]struct {
		loopback bool
		url      string
		want     error
	}{
		"this machine":               {false, secure.URL, errNotPublic},
		"this machine by name":       {false, strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), errNotPublic},
		"this machine without TLS":   {false, plain.URL, errNoTLS},
		"local network":              {true, "https://192.168.1.1/", errNotPublic},
		"metadata service":           {true, "https://169.254.169.254/", errNotPublic},
		"elsewhere without TLS":      {true, "http://1.1.1.1/", errNoTLS},
		"this machine, where it may": {true, plain.URL, nil},
	} {
		t.Run(name, func(t *testing.T) {
			before := asked
			client := http.Client{Transport: newRegistryTransport(tt.loopback, rental.IsPublic)}
			response, err := client.Get(tt.url)
			if err == nil {
				response.Body.Close()
			}
			if !errors.Is(err, tt.want) || (asked > before) != (tt.want == nil) {
				t.Errorf("got %v, want %v; %d requests", err, tt.want, asked-before)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"7": 7 * time.Second, " 0 ": 0, "": 0, "soon": 0, "-3": 0, "99999999": 24 * time.Hour,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestWeightOf(t *testing.T) {
	layers := func(sizes ...int64) *v1.Manifest {
		m := &v1.Manifest{}
		for i, size := range sizes {
			kind := types.DockerLayer
			if i%2 == 1 {
				kind = types.OCIUncompressedLayer
			}
			m.Layers = append(m.Layers, v1.Descriptor{Size: size, MediaType: kind})
		}
		return m
	}
	for _, tt := range []struct {
		manifest       *v1.Manifest
		here           int
		download, disk int64
	}{
		{layers(), 0, 0, 0},
		{layers(100, 10), 0, 110, 320},
		{layers(100, 10), 1, 10, 20},
		{layers(100, 10), 5, 0, 0},
		{layers(-100), 0, 0, 0},
		{layers(1<<62, 1<<62, 1<<62), 0, 1 << 50, 1 << 60},
	} {
		if download, disk := weightOf(tt.manifest, tt.here); download != tt.download || disk != tt.disk {
			t.Errorf("%v: %d and %d, want %d and %d", tt.manifest.Layers, download, disk, tt.download, tt.disk)
		}
	}
}
