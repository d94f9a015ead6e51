package main

import (
	"strings"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

func TestWriteImages(t *testing.T) {
	now := time.Now()
	cache := rental.ImageCache{CapBytes: 5 << 30, Images: []rental.CachedImage{
		{Reference: "docker.io/library/debian:12", Digest: "sha256:0123456789abcdef0123", SizeBytes: 2 << 30, LastUsed: now, InUse: true, Private: true},
		{Reference: "ghcr.io/o/r:1", Digest: "sha256:ab", SizeBytes: 1 << 30, LastUsed: now.Add(-time.Hour)},
	}}
	var b strings.Builder
	if err := writeImages(&b, cache, now); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	for i, want := range []string{"IMAGE", "0123456789ab ", "ghcr.io/o/r:1", "2 images, 1.0 GiB not in use, of which at most 5.0 GiB stay"} {
		if i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Fatalf("line %d lacks %q:\n%s", i, want, b.String())
		}
	}
	if !strings.HasSuffix(lines[1], "in use, private") {
		t.Errorf("wrote %q", lines[1])
	}
	b.Reset()
	if err := writeImages(&b, rental.ImageCache{}, now); err != nil || !strings.HasPrefix(b.String(), "0 images") {
		t.Errorf("no images: %q, %v", b.String(), err)
	}
}
