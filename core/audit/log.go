package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/distributedcompute/host-agent/core/durable"
)

// Options are what a Log needs.
type Options struct {
	Dir string // the state directory; it has to be there
	Log *slog.Logger
	// MaxFileBytes and Files bound the record. Zero: 8 MiB, 4.
	MaxFileBytes int64
	Files        int
}

const (
	queued     = 1024 // notes that may wait for the medium
	retryAfter = time.Second
)

// Log appends to the record of a directory. There is one at a time.
type Log struct {
	options Options
	tick    chan struct{} // capacity 1: "look into the queue"

	mu    sync.Mutex
	queue []Entry // without place in the chain
	lost  int     // notes that found no place in the queue, or none on the medium

	// The rest is the goroutine's of Run.
	dir  *os.Root
	file *os.File
	size int64
	last head
}

// Open prepares a log. It opens nothing; what was noted is written by Run.
func Open(o Options) *Log {
	if o.MaxFileBytes == 0 {
		o.MaxFileBytes = 8 << 20
	}
	if o.Files == 0 {
		o.Files = 4
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Log{options: o, tick: make(chan struct{}, 1)}
}

// Note records something that has happened now; data is written as JSON, and may be nil. It never waits. What comes
// faster than the medium takes it is counted, and the count recorded.
func (l *Log) Note(kind, rental string, data any) {
	e := Entry{At: time.Now().UTC(), Kind: kind, Rental: rental}
	if data != nil {
		content, err := json.Marshal(data)
		if err != nil || len(content) > longestLine/2 {
			content, _ = json.Marshal(map[string]string{"unrecorded": "the data cannot be written down"})
		}
		e.Data = content
	}
	l.mu.Lock()
	if len(l.queue) < queued {
		l.queue = append(l.queue, e)
	} else {
		l.lost++
	}
	l.mu.Unlock()
	select {
	case l.tick <- struct{}{}:
	default:
	}
}

// Run writes what is noted until ctx ends, and then what is left. An error of the medium is no reason to return: it is
// logged, what could not be written is counted, and the next note is tried again.
func (l *Log) Run(ctx context.Context) error {
	defer l.close()
	broken := ""
	for {
		over := ctx.Err() != nil // before the flush: what was noted while the last one went on is written too
		err := l.flush()
		switch text := fmt.Sprint(err); {
		case err == nil:
			broken = ""
		case text != broken:
			broken = text
			l.options.Log.Warn("the audit record cannot be written", "error", err)
		}
		if over {
			return nil
		}
		var again <-chan time.Time
		if err != nil {
			again = time.After(retryAfter)
		}
		select {
		case <-l.tick:
		case <-again:
		case <-ctx.Done():
		}
	}
}

func (l *Log) close() {
	if l.file != nil {
		_ = l.file.Close() // each flush has synced it
	}
	if l.dir != nil {
		_ = l.dir.Close()
	}
}

// flush writes what waits. What cannot be written stays lost, but counted.
func (l *Log) flush() error {
	if err := l.begin(); err != nil {
		return err // the queue fills up meanwhile, and counts what it cannot hold
	}
	entries, lost := l.take()
	if lost > 0 {
		entries = append(entries, l.own(KindDropped, dropped{lost}))
	}
	if len(entries) == 0 {
		return nil
	}
	for i, e := range entries {
		if err := l.append(e); err != nil {
			l.giveUp(len(entries)-i, lost)
			return errors.Join(err, l.seal())
		}
	}
	return l.seal()
}

func (l *Log) take() (entries []Entry, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries, lost = l.queue, l.lost
	l.queue, l.lost = nil, 0
	return entries, lost
}

// giveUp counts entries that were not written; the last of them may be the count of earlier ones.
func (l *Log) giveUp(entries, counted int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost += entries + counted
	if counted > 0 {
		l.lost--
	}
}

func (l *Log) own(kind string, data any) Entry {
	content, _ := json.Marshal(data) // of our own types, which can be
	return Entry{At: time.Now().UTC(), Kind: kind, Data: content}
}

// append writes one entry behind the last. Where that fails nothing of it is left.
func (l *Log) append(e Entry) error {
	if l.file == nil {
		return errors.New("the audit record is not open")
	}
	if l.size >= l.options.MaxFileBytes {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	e.Seq, e.Prev = l.last.Seq+1, l.last.Sum
	line, err := e.line()
	if err != nil {
		return err
	}
	if len(line) > longestLine {
		return errors.New("an entry is longer than a line may be")
	}
	if _, err := l.file.Write(line); err != nil {
		// Half of a line must not stay in the way of the next.
		if cut := l.file.Truncate(l.size); cut != nil {
			l.file.Close()
			l.file = nil // the next flush begins anew, and sets the half aside
		}
		return fmt.Errorf("writing the audit record: %w", err)
	}
	l.size += int64(len(line))
	l.last = head{e.Seq, e.Sum}
	return nil
}

// seal brings the lines to the medium and then names the last in the head.
func (l *Log) seal() error {
	if l.file == nil {
		return nil
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("writing the audit record: %w", err)
	}
	content, err := json.Marshal(l.last)
	if err == nil {
		err = durable.Replace(l.dir, headName, append(content, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing the audit record's head: %w", err)
	}
	return nil
}

// begin opens the record where it is not open, behind whatever the last agent has left.
func (l *Log) begin() error {
	if l.file != nil {
		return nil
	}
	if l.dir == nil {
		dir, err := os.OpenRoot(l.options.Dir)
		if err != nil {
			return fmt.Errorf("opening the audit record: %w", err)
		}
		l.dir = dir
	}
	left, err := l.recover()
	if err != nil {
		return fmt.Errorf("opening the audit record: %w", err)
	}
	file, err := openRegular(l.dir, logName, os.O_WRONLY|os.O_CREATE|os.O_APPEND)
	if err != nil {
		return fmt.Errorf("opening the audit record: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return fmt.Errorf("opening the audit record: %w", err)
	}
	l.file, l.size = file, info.Size()
	for _, e := range left {
		if err := l.append(e); err != nil {
			return err
		}
	}
	return l.seal()
}

// recover finds the end of the record and what there is to say of it. A torn line is cut off and kept aside. Where the
// head names a later line than there is, the chain goes on behind that one: the gap stays to be seen.
func (l *Log) recover() (say []Entry, err error) {
	h, headErr := readHead(l.dir)
	found, half, kept, err := l.end()
	if errors.Is(err, errTooLong) { // somebody has written into it; it is kept, for what it may be worth
		if err := l.dir.Rename(logName, unreadableName); err != nil {
			return nil, err
		}
		found, half, kept, err = l.end()
	}
	if err != nil {
		return nil, err
	}
	if len(half) > 0 {
		if err := l.setAside(half, kept); err != nil {
			return nil, err
		}
		say = append(say, l.own(KindTorn, torn{len(half), sum(half)}))
	}
	l.last = found
	switch {
	case headErr != nil && found.Seq > 0:
		say = append(say, l.own(KindDamaged, damaged{Found: found.Seq}))
	case headErr == nil && (h.Seq > found.Seq || h.Seq == found.Seq && h.Sum != found.Sum):
		l.last = h
		say = append(say, l.own(KindDamaged, damaged{Found: found.Seq, Head: h.Seq}))
	}
	return say, nil
}

// end reads the newest file that has lines: its last line, the half of a line behind that, and how many bytes come
// before the half.
func (l *Log) end() (last head, half []byte, kept int64, err error) {
	for age := range l.options.Files {
		if _, err := l.dir.Lstat(fileName(age)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var read int64
		for line, err := range rawLines(l.dir, fileName(age)) {
			if err != nil && age == 0 {
				return last, nil, 0, err
			} else if err != nil {
				break
			}
			if line[len(line)-1] != '\n' {
				if age == 0 {
					half = line
				}
				break
			}
			read += int64(len(line))
			// What is altered is Verify's to tell; the chain goes on behind it.
			if e, _ := readLine(line); e.Seq > 0 {
				last = head{e.Seq, e.Sum}
			}
		}
		if age == 0 {
			kept = read
		}
		if last.Seq > 0 {
			break
		}
	}
	return last, half, kept, nil
}

// setAside cuts the half of a line off the log, and keeps it elsewhere.
func (l *Log) setAside(half []byte, kept int64) error {
	if err := durable.Replace(l.dir, tornName, half); err != nil {
		return err
	}
	file, err := openRegular(l.dir, logName, os.O_WRONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(kept); err != nil {
		return err
	}
	return file.Sync()
}

// rotate begins a new file, and forgets the oldest where there are too many.
func (l *Log) rotate() error {
	if err := l.file.Sync(); err != nil {
		return err
	}
	oldest := l.options.Files - 1
	if _, err := l.dir.Lstat(fileName(oldest)); err == nil {
		if err := l.forget(oldest); err != nil {
			return err
		}
	}
	// Some systems rename no file that is open. After an error the next flush begins anew.
	err := l.file.Close()
	l.file = nil
	for age := oldest - 1; age >= 0 && err == nil; age-- {
		if err = l.dir.Rename(fileName(age), fileName(age+1)); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		l.file, err = openRegular(l.dir, logName, os.O_WRONLY|os.O_CREATE|os.O_APPEND)
	}
	if err != nil {
		return fmt.Errorf("rotating the audit record: %w", err)
	}
	l.size = 0
	return nil
}

// forget removes the oldest file, once the record says where it begins from then on.
func (l *Log) forget(oldest int) error {
	var first Entry
	for age := oldest - 1; age >= 0 && first.Seq == 0; age-- {
		for line, err := range rawLines(l.dir, fileName(age)) {
			if err == nil {
				first, _ = readLine(line)
			}
			break
		}
	}
	size := l.options.MaxFileBytes
	l.options.MaxFileBytes = 1 << 62 // this one line still goes into the old file
	err := l.append(l.own(KindForgotten, forgotten{first.Seq, first.Prev}))
	l.options.MaxFileBytes = size
	if err != nil {
		return err
	}
	if err := l.seal(); err != nil {
		return err
	}
	if err := l.dir.Remove(fileName(oldest)); err != nil {
		return fmt.Errorf("forgetting the oldest of the audit record: %w", err)
	}
	return nil
}
