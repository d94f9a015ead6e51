package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/distributedcompute/host-agent/core/durable"
)

// The file a FileMemory keeps, and what it becomes when it is damaged.
const (
	memoryFile    = "node.json"
	memoryDamaged = memoryFile + ".damaged"
)

const (
	memoryVersion  = 1
	maxMemoryBytes = 1 << 20
)

// FileMemory keeps what the agent remembers in one file of a directory that is the owner's alone.
type FileMemory struct {
	dir    *os.Root
	unread bool // there is a file that could neither be read nor set aside
}

// OpenMemory uses dir, which it makes where it is missing.
func OpenMemory(dir string) (*FileMemory, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the state directory: %w", err)
	}
	return &FileMemory{dir: root}, nil
}

// Close lets go of the directory.
func (m *FileMemory) Close() error { return m.dir.Close() }

// onDisk is the file's form.
type onDisk struct {
	Version int `json:"version"`
	Remembered
}

// Load reads what was saved last; nothing saved is the zero value. A file that cannot be read or
// understood is set aside, so that nothing is lost and the next Save succeeds, and reported; until
// there has been one, each Load reports it.
func (m *FileMemory) Load() (Remembered, error) {
	text, err := m.read()
	if errors.Is(err, fs.ErrNotExist) {
		if _, damaged := m.dir.Lstat(memoryDamaged); damaged == nil {
			return Remembered{}, fmt.Errorf("reading %s: set aside as %s by an earlier start", memoryFile, memoryDamaged)
		}
		return Remembered{}, nil
	}
	doing := "reading"
	var saved onDisk
	if err == nil {
		doing = "understanding"
		err = json.Unmarshal(text, &saved)
	}
	if err == nil && saved.Version != memoryVersion {
		err = fmt.Errorf("version %d, not %d", saved.Version, memoryVersion)
	}
	if err != nil {
		return Remembered{}, errors.Join(fmt.Errorf("%s %s, now set aside as %s: %w", doing, memoryFile, memoryDamaged, err), m.setAside())
	}
	return saved.Remembered, nil
}

// setAside keeps a file from being written over.
func (m *FileMemory) setAside() error {
	err := m.dir.Rename(memoryFile, memoryDamaged)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	m.unread = err != nil
	return err
}

func (m *FileMemory) read() ([]byte, error) {
	file, err := m.dir.Open(memoryFile)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxMemoryBytes)) // what is longer is not ours and will not parse
}

// Save replaces the file as a whole: after a crash there is the old one or the new one.
func (m *FileMemory) Save(r Remembered) error {
	if m.unread {
		if err := m.setAside(); err != nil {
			return fmt.Errorf("setting aside %s, which could not be read: %w", memoryFile, err)
		}
	}
	text, err := json.MarshalIndent(onDisk{memoryVersion, r}, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", memoryFile, err)
	}
	if err := durable.Replace(m.dir, memoryFile, append(text, '\n')); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Join(m.dir.Name(), memoryFile), err)
	}
	return nil
}
