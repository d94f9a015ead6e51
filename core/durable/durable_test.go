package durable_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/distributedcompute/host-agent/core/durable"
)

func open(t *testing.T) (dir string, root *os.Root) {
	t.Helper()
	dir = t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

func TestReplaceLeavesOnePrivateFile(t *testing.T) {
	dir, root := open(t)
	// What a crash or somebody else has left keeps neither its mode nor its content.
	for _, name := range []string{"state", "state" + durable.Suffix} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("a longer one that was there before"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, content := range []string{"first", "2"} {
		if err := durable.Replace(root, "state", []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := root.ReadFile("state"); err != nil || string(got) != content {
			t.Errorf("got %q, %v; want %q", got, err, content)
		}
	}
	info, err := root.Stat("state")
	if err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestReplaceFollowsNoLink(t *testing.T) {
	dir, root := open(t)
	target := filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(target, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"state", "state" + durable.Suffix} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Skip("this system makes no symbolic links:", err)
		}
	}
	if err := durable.Replace(root, "state", []byte("new")); err != nil {
		t.Fatal(err)
	}
	if content, _ := os.ReadFile(target); string(content) != "untouched" {
		t.Errorf("the link's target now holds %q", content)
	}
	if got, err := root.ReadFile("state"); err != nil || string(got) != "new" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestReplaceKeepsTheOldFileWhenItFails(t *testing.T) {
	_, root := open(t)
	if err := durable.Replace(root, "state", []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := root.MkdirAll("state"+durable.Suffix+"/in-the-way", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(root, "state", []byte("new")); err == nil {
		t.Error("replacing succeeded with a directory in the way")
	}
	if got, err := root.ReadFile("state"); err != nil || string(got) != "old" {
		t.Errorf("got %q, %v; want the old content", got, err)
	}
}

func TestReplaceLeavesNothingBehindWhenItFails(t *testing.T) {
	dir, root := open(t)
	if err := root.MkdirAll("state/in-the-way", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(root, "state", []byte("secret")); err == nil {
		t.Error("a directory was replaced")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
