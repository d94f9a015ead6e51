package keyring

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// placeName is the file that remembers where the key is. It holds no secret.
const placeName = "key-place.json"

const (
	inKeyring = "keyring"
	inFile    = "file"
)

// place is where the key is; the zero value says that Keep has put it nowhere.
type place struct {
	Kind   string   `json:"kind,omitempty"`
	Origin string   `json:"origin,omitempty"` // of the marketplace the key is for
	Entry  string   `json:"entry,omitempty"`  // its name in the keyring
	Left   []string `json:"left,omitempty"`   // entries of older keys that have not been removed yet
}

func (p place) same(other place) bool {
	return p.Kind == other.Kind && p.Origin == other.Origin && p.Entry == other.Entry
}

// serves reports whether the key is one for the marketplace at origin. Setup can be given a key before it
// is told the address, so where either is not known they are taken to be the same.
func (p place) serves(origin string) bool {
	return p.Origin == "" || origin == "" || p.Origin == origin
}

// entries are all that the keyring may hold of this host.
func (p place) entries() []string {
	if p.Entry == "" || slices.Contains(p.Left, p.Entry) {
		return slices.Clone(p.Left)
	}
	return append(slices.Clone(p.Left), p.Entry)
}

func readPlace(stateDir string) (place, error) {
	path := filepath.Join(stateDir, placeName)
	content, err := readFile(path, openPrivate)
	if errors.Is(err, os.ErrNotExist) {
		return place{}, nil
	}
	if err != nil {
		return place{}, err
	}
	var p place
	if err := json.Unmarshal(content, &p); err != nil {
		return place{}, lostf("%s, which says where the host key is, is damaged; sign in again", path)
	}
	return p, nil
}

func (p place) write(stateDir string) error {
	content, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("writing down where the host key is: %w", err)
	}
	return replace(stateDir, placeName, append(content, '\n'))
}
