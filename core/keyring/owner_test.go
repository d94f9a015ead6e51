package keyring_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/keyring"
)

func TestOwnerKeyStaysTheSame(t *testing.T) {
	dir := t.TempDir()
	first, err := keyring.OwnerKey(dir)
	if err != nil || len(first) != 32 {
		t.Fatalf("got %d bytes, %v", len(first), err)
	}
	second, err := keyring.OwnerKey(dir)
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("the second call gives another key (%v)", err)
	}
	other, err := keyring.OwnerKey(t.TempDir())
	if err != nil || bytes.Equal(first, other) {
		t.Errorf("two directories have one key (%v)", err)
	}
	path := filepath.Join(dir, "owner.key")
	// A damaged key is not replaced silently: what it marked would be no one's.
	if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.OwnerKey(dir); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("damaged: got %v", err)
	}
}
