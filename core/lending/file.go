package lending

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/distributedcompute/host-agent/core/durable"
	"github.com/distributedcompute/host-agent/core/rental"
)

// The file a desk keeps in the state directory, and what it becomes when it is damaged.
const (
	fileName    = "gpus.json"
	fileDamaged = fileName + ".damaged"
	fileVersion = 1
	mostFile    = 1 << 20
)

var errDamaged = errors.New("damaged")

// kept is the file's content.
type kept struct {
	Version  int                 `json:"version"`
	Loans    map[rental.ID]*loan `json:"loans"`
	Troubles []trouble           `json:"troubles"`
}

type file struct{ root *os.Root }

// load reads what was saved last. A file that makes no sense is set aside, and the error is errDamaged.
func (f file) load() (kept, error) {
	opened, err := f.root.Open(fileName)
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}, nil
	}
	if err != nil {
		return kept{}, err
	}
	text, err := io.ReadAll(io.LimitReader(opened, mostFile))
	if err := errors.Join(err, opened.Close()); err != nil {
		return kept{}, err
	}
	var k kept
	if err = json.Unmarshal(text, &k); err == nil {
		err = k.check()
	}
	if err != nil {
		return kept{}, errors.Join(fmt.Errorf("%w: %w", errDamaged, err), f.root.Rename(fileName, fileDamaged))
	}
	return k, nil
}

func (k kept) check() error {
	if k.Version != fileVersion {
		return fmt.Errorf("version %d, not %d", k.Version, fileVersion)
	}
	for id, l := range k.Loans {
		if _, err := rental.ParseID(string(id)); err != nil || l == nil {
			return fmt.Errorf("loan %.80q is none", string(id))
		}
	}
	return nil
}

func (k kept) encode() ([]byte, error) {
	text, err := json.MarshalIndent(k, "", "  ")
	return append(text, '\n'), err
}

func (f file) save(text []byte) error { return durable.Replace(f.root, fileName, text) }
