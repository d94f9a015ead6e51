package rental

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/durable"
)

// A rental's file is a heading line and record lines, the last of which holds. Every line is a
// CRC-32C in eight hex digits, a space and a JSON object; a line that was cut short by a crash, or
// has rotted, is told by its sum and the line before it holds. Later versions keep this framing.

// formatVersion is raised when an older agent could no longer make sense of a file.
const formatVersion = 1

// errNewer marks a file that a newer agent has written.
var errNewer = errors.New("written by a newer version of the agent")

// heading is the first line: what was ordered.
type heading struct {
	Version    int       `json:"version"`
	ID         ID        `json:"id"`
	AcceptedAt time.Time `json:"accepted_at"`
	SpecSum    string    `json:"spec_sum"` // SHA-256 of the order; outlives the renter's secrets in it
	Private    bool      `json:"private"`  // the order came with a password for the registry, which is not kept
	Spec       Spec      `json:"spec"`
}

// record is how far a rental has come.
type record struct {
	State       State     `json:"state"`
	Sequence    int64     `json:"sequence"` // of the last status told before this line was written
	Reserved    int64     `json:"reserved"` // highest sequence that may have been told since
	ImageID     string    `json:"image_id,omitempty"`
	ImageDigest string    `json:"image_digest,omitempty"`
	ContainerID string    `json:"container_id,omitempty"`
	Addresses   []Address `json:"addresses,omitempty"`
	ExitCode    *int      `json:"exit_code,omitempty"`
	Failure     *Failure  `json:"failure,omitempty"`
	Ending      *ending   `json:"ending,omitempty"` // set once it is decided that the rental ends
	At          time.Time `json:"at"`
	StartedAt   time.Time `json:"started_at,omitzero"`
	Lasting     bool      `json:"lasting,omitempty"` // it has been up, or the engine has stopped it: worth waiting for without end
	EndedAt     time.Time `json:"ended_at,omitzero"` // of the container; set before the rental is final
	Seen        time.Time `json:"seen,omitzero"`     // when the container was last known to run; see lastSeen
	SettledAt   time.Time `json:"settled_at,omitzero"`
}

// lastSeen is when the container is known to have run, the latest of what is on record.
func (r record) lastSeen() time.Time {
	seen := r.StartedAt
	if r.Seen.After(seen) {
		seen = r.Seen
	}
	if r.State == Running && r.At.After(seen) {
		seen = r.At
	}
	return seen
}

// ending is how a rental is to end.
type ending struct {
	State   State         `json:"state"` // Stopped or Failed
	Failure *Failure      `json:"failure,omitempty"`
	Grace   time.Duration `json:"grace_ns"`
}

var sums = crc32.MakeTable(crc32.Castagnoli)

func encodeLine(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(body, sums), body), nil
}

func decodeLine(line []byte, v any) error {
	sum, body, ok := bytes.Cut(line, []byte(" "))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(body, sums)) {
		return errors.New("checksum does not match")
	}
	return json.Unmarshal(body, v)
}

func encodeFile(h heading, r record) ([]byte, error) {
	head, err := encodeLine(h)
	if err != nil {
		return nil, err
	}
	last, err := encodeLine(r)
	return append(head, last...), err
}

// decodeFile reads a rental's file. clean is false when a line had to be passed over. With an error it
// returns what is intact: a heading that has an ID, a record that has a state.
func decodeFile(data []byte) (h heading, r record, clean bool, err error) {
	first, rest, _ := bytes.Cut(data, []byte("\n"))
	if h, err = decodeHeading(first); errors.Is(err, errNewer) {
		return h, r, false, err
	}
	r, clean = decodeRecords(rest)
	if err == nil && r.State == "" {
		err = errors.New("reading the records: none is intact")
	}
	return h, r, clean && err == nil, err
}

func decodeHeading(line []byte) (heading, error) {
	var version struct{ Version int }
	if err := decodeLine(line, &version); err != nil {
		return heading{}, fmt.Errorf("reading the heading: %w", err)
	}
	if version.Version > formatVersion {
		return heading{}, errNewer
	}
	var h heading
	if err := decodeLine(line, &h); err != nil {
		return heading{}, fmt.Errorf("reading the heading: %w", err)
	}
	return h, nil
}

// decodeRecords returns the last record that is intact, the zero one if none is.
func decodeRecords(lines []byte) (last record, clean bool) {
	lines, clean = bytes.CutSuffix(lines, []byte("\n"))
	for line := range bytes.SplitSeq(lines, []byte("\n")) {
		var next record
		if decodeLine(line, &next) != nil || !next.plausible() {
			clean = false
			continue
		}
		last = next
	}
	return last, clean
}

func (r record) plausible() bool {
	if r.Sequence < 1 || r.Reserved < r.Sequence {
		return false
	}
	switch r.State {
	case Accepted, Pulling, Creating, Stopped, Failed:
		return true
	case Starting, Tunnelling, Running:
		return r.ContainerID != ""
	case Stopping:
		return r.Ending != nil
	}
	return false
}

// specSum tells orders apart. The registry's password is no part of it: it may be renewed. Nor is the name that
// the system has given a GPU's device: it may change with a restart.
func specSum(s Spec) (string, error) {
	s.GPUs = slices.Clone(s.GPUs)
	for i := range s.GPUs {
		s.GPUs[i].Render = ""
	}
	body, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encoding the spec: %w", err)
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:]), nil
}

const (
	fileSuffix    = ".rental"
	freshSuffix   = durable.Suffix
	corruptSuffix = ".corrupt"
)

// fileName is safe on file systems that fold case, and on Windows, where "nul" is a device.
func fileName(id ID) string { return hex.EncodeToString([]byte(id)) + fileSuffix }

// fileID is the ID whose file has this name.
func fileID(name string) (ID, bool) {
	stem, ok := strings.CutSuffix(name, fileSuffix)
	raw, err := hex.DecodeString(stem)
	if !ok || err != nil || strings.ToLower(stem) != stem {
		return "", false
	}
	id, err := ParseID(string(raw))
	return id, err == nil
}
