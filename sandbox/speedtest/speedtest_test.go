package speedtest

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestServer(t *testing.T) {
	s, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	base := strings.TrimSuffix(s.URL(), "upload.php")

	for _, tt := range []struct {
		method, path string
		body         int
		status       int
		want         string // "": see size
		size         int
	}{
		{method: "GET", path: "latency.txt", status: 200, want: "test=test\n"},
		{method: "GET", path: "upload.php", status: 200, want: "size=500"},
		{method: "POST", path: "upload.php", body: 999_490, status: 200, want: "size=999490"},
		{method: "GET", path: "random350x350.jpg", status: 200, size: 245_000},
		{method: "GET", path: "random1000x1000.jpg", status: 200, size: 2_000_000},
		{method: "GET", path: "random1000x1.jpg", status: 404, want: "404 page not found\n"},
		{method: "GET", path: "random99999x99999.jpg", status: 404, want: "404 page not found\n"},
		{method: "GET", path: "random-1x-1.jpg", status: 404, want: "404 page not found\n"},
		{method: "GET", path: "other.txt", status: 404, want: "404 page not found\n"},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), tt.method, base+tt.path, bytes.NewReader(make([]byte, tt.body)))
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != tt.status {
				t.Errorf("status %d, want %d", response.StatusCode, tt.status)
			}
			if tt.want != "" && string(body) != tt.want {
				t.Errorf("body %q, want %q", body, tt.want)
			}
			if tt.size != 0 && len(body) != tt.size {
				t.Errorf("%d bytes, want %d", len(body), tt.size)
			}
		})
	}
	if down, up := s.Transferred(); down != 2_245_000 || up != 999_490 {
		t.Errorf("counted %d down and %d up, want 2245000 and 999490", down, up)
	}
}
