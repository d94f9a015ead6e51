package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// diskFull is the code the program exits with when it may write no more.
const diskFull = 28

// filling is what the program writes before it serves, as renters' programs do that fill a disk.
type filling struct {
	paths  string // separated by commas; "": nothing
	text   string // that each file begins with
	mb     int    // of bytes that do not compress, in each
	rate   int    // MiB a second, 0: as fast as it goes
	files  int    // empty ones beside each path
	unlink bool   // remove the files, and keep them open
}

// write does so. What it must keep open, it returns.
func (f filling) write() ([]*os.File, error) {
	var open []*os.File
	for path := range strings.SplitSeq(f.paths, ",") {
		if path == "" {
			continue
		}
		file, err := f.fill(path)
		if err != nil {
			return open, err
		}
		open = append(open, file)
	}
	return open, nil
}

func (f filling) fill(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if f.unlink {
		if err := os.Remove(path); err != nil {
			return file, err
		}
	}
	if _, err := file.WriteString(f.text); err != nil {
		return file, err
	}
	block := make([]byte, 1<<20)
	_, _ = rand.Read(block) // never fails
	began := time.Now()
	for n := range f.mb {
		if f.rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(f.rate))))
		}
		if _, err := file.Write(block); err != nil {
			return file, err
		}
	}
	for n := range f.files {
		empty, err := os.Create(fmt.Sprintf("%s.%d", path, n))
		if err != nil {
			return file, err
		}
		if err := empty.Close(); err != nil {
			return file, err
		}
	}
	return file, file.Sync()
}

// exitWhenFull ends the program with a code of its own where a limit of the disk has stopped it.
func exitWhenFull(err error) {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		fmt.Println("no more space:", err)
		os.Exit(diskFull)
	}
}
