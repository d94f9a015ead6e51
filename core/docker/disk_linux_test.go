package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/rental"
)

func write(t *testing.T, path string, size int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCountStaysInTheTree(t *testing.T) {
	outside, tree := t.TempDir(), t.TempDir()
	write(t, outside+"/large", 8<<20)
	write(t, tree+"/a/file", 1<<20)
	for _, err := range []error{
		os.Link(tree+"/a/file", tree+"/a/again"),
		os.Symlink(outside, tree+"/directory"),
		os.Symlink(outside+"/large", tree+"/file"),
		os.Symlink("..", tree+"/a/up"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sparse, err := os.Create(tree + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	if err := sparse.Truncate(1 << 40); err != nil {
		t.Fatal(err)
	}
	sparse.Close()
	got, err := countDirs(t.Context(), 1000, tree)
	if err != nil || got.bytes < 1<<20 || got.bytes > 2<<20 || got.files != 6 || got.tooDeep {
		t.Errorf("counted %+v, %v; want one file of 1 MiB under two names, a directory, three links and a hole", got, err)
	}
	if _, err := countDirs(t.Context(), 1000, tree+"/directory"); err == nil {
		t.Error("a link was followed to begin with")
	}
}

func TestCountEndsEarly(t *testing.T) {
	tree := t.TempDir()
	for n := range 600 {
		write(t, fmt.Sprintf("%s/%d/%d", tree, n%5, n), 0)
	}
	got, err := countDirs(t.Context(), 100, tree)
	if err != nil || got.files <= 100 || got.files > 150 {
		t.Errorf("counted %+v, %v; want it to end soon after 100 files", got, err)
	}
	deep := t.TempDir()
	write(t, deep+strings.Repeat("/d", deepest+5)+"/file", 1)
	got, err = countDirs(t.Context(), 1000, deep)
	if err != nil || !got.tooDeep || got.files != deepest {
		t.Errorf("counted %+v, %v; want it to end %d directories down", got, err, deepest)
	}
}

func TestExcess(t *testing.T) {
	const limit = 1 << 30
	tests := map[string]struct {
		used  usage
		limit int64
		want  string // of the message; "": none
	}{
		"within":         {usage{bytes: limit, files: leastFiles}, limit, ""},
		"bytes":          {usage{bytes: limit + 1<<20}, limit, "written 1.0 GiB"},
		"files":          {usage{files: leastFiles + 1}, limit, "made 200001 files"},
		"files of a lot": {usage{files: leastFiles + 1}, 64 << 30, ""},
		"depth":          {usage{tooDeep: true}, limit, "nested"},
		"not known":      {usage{bytes: 1 << 50, files: 1 << 40}, 0, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			failure := test.used.excess(test.limit)
			switch {
			case failure == nil && test.want == "":
			case failure == nil || test.want == "" || failure.Code != rental.CodeDiskLimit || !strings.Contains(failure.Message, test.want):
				t.Errorf("failure %v, want %q", failure, test.want)
			}
		})
	}
}

func TestReserveIsOneFigure(t *testing.T) {
	for _, test := range []struct{ named, total, want int64 }{
		{0, 100 << 30, 20 << 30}, {0, 4000 << 30, 400 << 30}, {5 << 30, 4000 << 30, 5 << 30},
	} {
		if got := rental.DiskReserve(test.named, test.total); got != test.want {
			t.Errorf("reserve of %d, named %d: %d, want %d", test.total, test.named, got, test.want)
		}
	}
}
