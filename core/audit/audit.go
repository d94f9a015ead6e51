// Package audit keeps a record of what a host was asked and what it did, which nobody can alter, shorten or
// reorder without its showing.
//
// Each line of audit.log holds the SHA-256 sum of the line before it and its own. audit.head, written after
// the lines are on the medium, names the last one, so that a tail that was cut off is missed. [Log] appends on a
// goroutine of its own: who notes something never waits. [Verify] checks the whole chain, [Entries] reads it.
//
// The chain is not keyed: whoever may write the files can replace all of them by a new record from its first line
// on, and whoever deletes all of them has none left. Copies of audit.head that are kept elsewhere show that too.
//
// The record is bounded: of four files of 8 MiB the oldest goes when a fifth would begin, after a line that
// says where the record begins from then on.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// The files of a record, in the state directory. Older ones end in .1, .2, …, the oldest in the highest number.
const (
	logName  = "audit.log"
	headName = "audit.head"
	tornName = "audit.torn" // what was left of lines that a power cut has torn; counts for nothing
	// unreadableName is a log that was set aside because no agent has written it so.
	unreadableName = "audit.unreadable"
)

// The kinds of lines that the record makes itself. All others are its users'.
const (
	// KindTorn says that the record ended in the middle of a line, as after a power cut; the half was set aside.
	KindTorn = "record_torn"
	// KindDropped says that so many things were not recorded: too much came at once, or the disk was full.
	KindDropped = "record_dropped"
	// KindForgotten says at which line the record begins from now on: what came before is older than is kept.
	KindForgotten = "record_forgotten"
	// KindDamaged says that lines were missing when the agent started.
	KindDamaged = "record_damaged"
)

// Entry is one line.
type Entry struct {
	Seq    int64           `json:"seq"` // from 1, without gaps
	At     time.Time       `json:"at"`
	Kind   string          `json:"kind"`
	Rental string          `json:"rental,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`
	Prev   string          `json:"prev"` // the sum of the line before, in hex; "" in the first
	Sum    string          `json:"-"`    // of this line; it is the line's last member
}

// head names the last line.
type head struct {
	Seq int64  `json:"seq"`
	Sum string `json:"sum"`
}

// The data of the record's own lines.
type (
	torn struct {
		Bytes  int    `json:"bytes"`
		SHA256 string `json:"sha256"` // of what was set aside
	}
	dropped struct {
		Count int `json:"count"`
	}
	forgotten struct {
		From int64  `json:"from"` // the first line that is kept
		Prev string `json:"prev"` // its prev
	}
	damaged struct {
		Found int64 `json:"found"` // the last line that was there
		Head  int64 `json:"head"`  // that there should have been; 0: the head was gone too
	}
)

const (
	longestLine = 64 << 10 // bytes, with the newline
	sumLength   = 2 * sha256.Size
)

var sumMember = []byte(`,"sum":"`)

// line writes an entry down and fills in its sum, which is that of all that stands before its member.
func (e *Entry) line() ([]byte, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding an entry: %w", err)
	}
	body = body[:len(body)-1]
	e.Sum = sum(body)
	return append(append(append(body, sumMember...), e.Sum...), '"', '}', '\n'), nil
}

// readLine reads what line has written, and says what is wrong with anything else.
func readLine(line []byte) (Entry, error) {
	const tail = `"}` + "\n"
	at := len(line) - len(tail) - sumLength - len(sumMember)
	if at < 0 || !bytes.HasSuffix(line, []byte(tail)) || !bytes.HasPrefix(line[at:], sumMember) {
		return Entry{}, errors.New("it is not a whole line of the record")
	}
	var e Entry
	body := line[:at]
	decoder := json.NewDecoder(bytes.NewReader(append(bytes.Clone(body), '}')))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil {
		return Entry{}, errors.New("it cannot be read")
	}
	e.Sum = string(line[at+len(sumMember):][:sumLength])
	if e.Sum != sum(body) {
		return e, errors.New("it was altered: its sum is another")
	}
	return e, nil
}

func sum(content []byte) string {
	s := sha256.Sum256(content)
	return hex.EncodeToString(s[:])
}

// fileName is that of the file which is so many files old.
func fileName(age int) string {
	if age == 0 {
		return logName
	}
	return logName + "." + strconv.Itoa(age)
}

// readHead gives the last line's name; it is not there where no record was begun.
func readHead(dir *os.Root) (h head, err error) {
	content, err := readAll(dir, headName, 4<<10)
	if err != nil {
		return head{}, err
	}
	if err := json.Unmarshal(content, &h); err != nil {
		return head{}, fmt.Errorf("%s cannot be read", headName)
	}
	return h, nil
}

func readAll(dir *os.Root, name string, most int64) ([]byte, error) {
	file, err := openRegular(dir, name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, most))
}

// openRegular opens a file of the record, and nothing that was put in its place.
func openRegular(dir *os.Root, name string, flags int) (*os.File, error) {
	if info, err := dir.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", name)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return dir.OpenFile(name, flags, 0o600)
}
