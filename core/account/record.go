package account

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/distributedcompute/host-agent/core/durable"
)

const recordName = "account.json"

// record is account.json: what belongs to the key that is kept here, and never the key.
type record struct {
	InstallID string    `json:"install_id"`     // the same for all sign-ins of this installation
	Kept      bool      `json:"kept,omitempty"` // there is a key
	NodeID    string    `json:"node_id,omitempty"`
	KeyID     string    `json:"key_id,omitempty"`
	Owner     string    `json:"owner,omitempty"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	Rejected  string    `json:"rejected,omitempty"` // the backend's code for not taking the key; "": it has not said so
	// ExchangeBegan is when a new key was asked for that has not come: zero where none is missing.
	ExchangeBegan time.Time `json:"exchange_began,omitzero"`
}

// lost tells that a new key may be on its way that never arrives. The one kept here is good for some
// minutes more, in which another can be had for it.
func (r record) lost(now time.Time) bool {
	return !r.ExchangeBegan.IsZero() && now.Sub(r.ExchangeBegan).Abs() < exchangeLasts
}

// expiring tells that the key's time is nearly over, and that it is one that can be exchanged.
func (r record) expiring(now time.Time) bool {
	return !r.ExpiresAt.IsZero() && r.ExpiresAt.Sub(now) < freshBefore && (r.Rejected == "" || r.Rejected == expired)
}

// readRecord gives the zero value where there is none yet.
func readRecord(stateDir string) (record, error) {
	root, err := os.OpenRoot(stateDir)
	if err != nil {
		return record{}, fmt.Errorf("opening the state directory: %w", err)
	}
	defer root.Close()
	text, err := root.ReadFile(recordName)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, fmt.Errorf("reading %s: %w", recordName, err)
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return record{}, fmt.Errorf("understanding %s: %w", recordName, err)
	}
	return r, nil
}

func (r record) write(stateDir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", recordName, err)
	}
	root, err := os.OpenRoot(stateDir)
	if err != nil {
		return fmt.Errorf("opening the state directory: %w", err)
	}
	defer root.Close()
	if err := durable.Replace(root, recordName, append(text, '\n')); err != nil {
		return fmt.Errorf("writing %s: %w", recordName, err)
	}
	return nil
}

// newID is a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
