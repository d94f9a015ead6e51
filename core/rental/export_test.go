package rental

import (
	"errors"
	"os"
	"sync"
)

// Faults decides over a disk's writes, by the name of the act and a moment of it: "before",
// "torn" (a part has been written) or "after". Once it has returned an error it is to go on so.
type Faults func(act, moment string) error

// OpenFaulty opens a book on a disk with faults. After cutPower the disk holds what was synced,
// and of the rest nothing.
func OpenFaulty(opts Options, faults Faults) (b *Book, cutPower func() error, err error) {
	dir, err := openDirectory(opts.Dir)
	if err != nil {
		return nil, nil, err
	}
	d := &faultyDisk{disk: dir, faults: faults, synced: map[string]int64{}}
	b, err = open(opts, d)
	return b, func() error { return d.cutPower(dir) }, err
}

type faultyDisk struct {
	disk
	faults Faults

	mu     sync.Mutex
	synced map[string]int64 // size of each file that is on the medium
}

func (f *faultyDisk) cutPower(dir directory) error {
	for name, size := range f.synced {
		file, err := dir.root.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (f *faultyDisk) sync(name string) error {
	data, err := f.read(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced[name] = int64(len(data))
	return err
}

func (f *faultyDisk) around(act string, torn, whole func() error) error {
	if err := f.faults(act, "before"); err != nil {
		return err
	}
	if err := f.faults(act, "torn"); err != nil {
		return errors.Join(err, torn())
	}
	if err := whole(); err != nil {
		return err
	}
	return f.faults(act, "after")
}

func (f *faultyDisk) replace(name string, data []byte) error {
	return f.around("replace",
		func() error {
			return f.disk.(directory).root.WriteFile(name+freshSuffix, data[:len(data)/2], 0o600)
		},
		func() error { return errors.Join(f.disk.replace(name, data), f.sync(name)) })
}

func (f *faultyDisk) extend(name string, data []byte, wait bool) error {
	act := "note"
	if wait {
		act = "sync"
	}
	return f.around(act,
		func() error { return f.disk.extend(name, data[:len(data)/2], false) },
		func() error {
			if err := f.disk.extend(name, data, wait); err != nil || !wait {
				return err
			}
			return f.sync(name)
		})
}

func (f *faultyDisk) remove(name string) error {
	return f.around("remove", func() error { return nil }, func() error { return f.disk.remove(name) })
}

// DecodeFile reads the bytes of a record; clean means that every line is intact.
func DecodeFile(data []byte) (id ID, state State, clean bool, err error) {
	h, r, clean, err := decodeFile(data)
	return h.ID, r.State, clean, err
}

// FileName is where a rental's record is.
var FileName = fileName
