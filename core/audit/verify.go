package audit

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Summary is what a record that holds has.
type Summary struct {
	Entries int   `json:"entries"`
	First   int64 `json:"first"` // numbers of the first and the last line; 0 where there is none
	Last    int64 `json:"last"`
	Torn    int   `json:"torn"`    // lines that a power cut has torn
	Dropped int   `json:"dropped"` // things that were not recorded
}

// Broken is what is wrong with a record, and where.
type Broken struct {
	File string `json:"file"` // "" where it is not in a file
	Line int    `json:"line"` // from 1; 0 where it is not in a line
	Why  string `json:"why"`
}

// Error implements error.
func (b *Broken) Error() string {
	switch {
	case b.File == "":
		return b.Why
	case b.Line == 0:
		return b.File + ": " + b.Why
	}
	return fmt.Sprintf("%s:%d: %s", b.File, b.Line, b.Why)
}

// What is found broken is looked at so often, with a pause between.
const (
	tries   = 5
	settles = 10 * time.Millisecond
)

// ErrNone says that there is no record.
var ErrNone = errors.New("there is no audit record")

// Verify checks the whole record of a directory: that no line was altered, removed, moved or added, and that the
// tail was not cut off. An error is *Broken where the record does not hold. An agent may be writing meanwhile.
func Verify(dir string) (Summary, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Summary{}, ErrNone
	}
	if err != nil {
		return Summary{}, fmt.Errorf("opening the state directory: %w", err)
	}
	defer root.Close()
	for try := 1; ; try++ {
		h, headErr := readHead(root)
		summary, err := verify(root, h, headErr)
		if err == nil || errors.Is(err, ErrNone) || try == tries {
			return summary, err
		}
		time.Sleep(settles) // files change their names when a new one begins: what was read across that says nothing
	}
}

func verify(dir *os.Root, h head, headErr error) (Summary, error) {
	var s Summary
	c := chain{head: h}
	for _, age := range ages(dir) {
		number := 0
		for line, err := range rawLines(dir, fileName(age)) {
			number++
			if err == nil && line[len(line)-1] != '\n' && age == 0 {
				break // it is being written, or was torn by a power cut; the head says if it counts
			}
			e := Entry{}
			if err == nil {
				e, err = readLine(line)
			}
			if err == nil {
				err = c.next(e)
			}
			if err != nil {
				return s, &Broken{fileName(age), number, err.Error()}
			}
			s.note(e)
		}
	}
	switch {
	case s.Entries == 0 && errors.Is(headErr, fs.ErrNotExist):
		return s, ErrNone
	case errors.Is(headErr, fs.ErrNotExist):
		return s, &Broken{headName, 0, "it is missing, so that the end cannot be checked"}
	case headErr != nil:
		return s, &Broken{headName, 0, headErr.Error()}
	case !c.headSeen && h.Seq > 0:
		last := 0
		for range rawLines(dir, logName) {
			last++
		}
		return s, &Broken{logName, last + 1, fmt.Sprintf("the record ends here at %d and has had %d lines at least: its end was cut off", s.Last, h.Seq)}
	}
	return s, c.beginning()
}

func (s *Summary) note(e Entry) {
	s.Entries++
	s.First, s.Last = cmp.Or(s.First, e.Seq), e.Seq
	switch e.Kind {
	case KindTorn:
		s.Torn++
	case KindDropped:
		var d dropped
		if json.Unmarshal(e.Data, &d) == nil {
			s.Dropped += d.Count
		}
	}
}

// chain follows lines one after the other.
type chain struct {
	head     head
	headSeen bool
	first    Entry
	last     Entry
	starts   []forgotten // where the record may begin
}

// next takes a line, or says what is wrong with it.
func (c *chain) next(e Entry) error {
	switch {
	case c.first.Seq == 0:
		c.first = e
	case e.Seq != c.last.Seq+1:
		return fmt.Errorf("it is number %d and follows number %d: lines were removed or moved", e.Seq, c.last.Seq)
	case e.Prev != c.last.Sum:
		return errors.New("it does not follow the line before it: lines were altered, removed or moved")
	}
	if e.Seq == c.head.Seq {
		if c.headSeen = e.Sum == c.head.Sum; !c.headSeen {
			return fmt.Errorf("it is not the line that %s names: the record was written anew", headName)
		}
	}
	switch e.Kind {
	case KindForgotten:
		var start forgotten
		if json.Unmarshal(e.Data, &start) == nil {
			c.starts = append(c.starts, start)
		}
	case KindDamaged:
		return errors.New("lines, or the head, were missing when the agent started here")
	}
	c.last = e
	return nil
}

// beginning says whether the record begins where it may: at its first line, or where a line says that it does.
func (c *chain) beginning() error {
	if c.first.Seq == 0 || c.first.Seq == 1 && c.first.Prev == "" || slices.Contains(c.starts, forgotten{c.first.Seq, c.first.Prev}) {
		return nil
	}
	return &Broken{Why: fmt.Sprintf("the record begins at line number %d, and no line says so: what came before was removed", c.first.Seq)}
}

// Entries yields what can be read of a record, oldest first, whether it holds or not.
func Entries(dir string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		root, err := os.OpenRoot(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("opening the state directory: %w", err))
			return
		}
		defer root.Close()
		for _, age := range ages(root) {
			for line, err := range rawLines(root, fileName(age)) {
				if err != nil {
					yield(Entry{}, err)
					return
				}
				if e, err := readLine(line); err == nil && !yield(e, nil) {
					return
				}
			}
		}
	}
}

// ages are those of the files there are, oldest first.
func ages(dir *os.Root) []int {
	list, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil
	}
	var found []int
	for _, file := range list {
		if file.Name() == logName {
			found = append(found, 0)
		} else if number, ok := strings.CutPrefix(file.Name(), logName+"."); ok {
			if age, err := strconv.Atoi(number); err == nil && age > 0 && strconv.Itoa(age) == number {
				found = append(found, age)
			}
		}
	}
	slices.Sort(found)
	slices.Reverse(found)
	return found
}

var errTooLong = errors.New("it is longer than a line may be")

// rawLines yields the lines of a file with their newlines; the last may have none. A file that is not there has none.
func rawLines(dir *os.Root, name string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		file, err := openRegular(dir, name, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(nil, err)
			return
		}
		defer file.Close()
		reader := bufio.NewReaderSize(file, longestLine)
		for {
			line, err := reader.ReadSlice('\n')
			if errors.Is(err, bufio.ErrBufferFull) {
				yield(nil, errTooLong)
				return
			}
			if len(line) > 0 && !yield(line, nil) || errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}
