package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Everything that goes into the audit record is made in this file. No secret does: of an order the values of its
// variables and the registry's password are left out even of the digest, which would give short ones away.

// Audit is the record of what this host was asked and did; *audit.Log is one.
type Audit interface {
	// Run writes what is noted until ctx ends, and then what is left.
	Run(ctx context.Context) error
	// Note records something that has happened now. It never waits.
	Note(kind, rental string, data any)
}

// The kinds of lines in the record.
const (
	noteStarted  = "agent_started"
	noteQuit     = "agent_quit"
	noteAsked    = "asked"    // by the backend
	noteAnswered = "answered" // to the backend
	noteRental   = "rental"   // what became of one
	noteOwner    = "owner"    // what the host's owner did
)

// noAudit is the record of an agent without one.
type noAudit struct{}

func (noAudit) Note(string, string, any) {}

func (noAudit) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// asked records a message of the backend. Its account of the earnings asks for nothing.
func (l *loop) asked(in protocol.Incoming) {
	type asked struct {
		Event  string `json:"event"`
		ID     string `json:"id,omitempty"`
		Image  string `json:"image,omitempty"`
		Digest string `json:"sha256"` // of the data without its secrets
	}
	if _, told := in.Data.(*protocol.Earnings); told {
		return
	}
	note := asked{Event: in.Data.Event(), ID: shown(in.ID, 200), Digest: digest(in.Data)}
	if order, ok := in.Data.(*protocol.StartInstance); ok {
		note.Image = shown(order.Image, 500)
	}
	l.parts.Audit.Note(noteAsked, rentalOf(in.Data), note)
}

// answered records what a message was answered with.
func (l *loop) answered(in protocol.Incoming, result protocol.CommandResult) {
	type answered struct {
		Event string             `json:"event"`
		ID    string             `json:"id"`
		OK    bool               `json:"ok"`
		Code  protocol.ErrorCode `json:"code,omitempty"`
	}
	note := answered{Event: in.Data.Event(), ID: shown(in.ID, 200), OK: result.OK}
	if result.Error != nil {
		note.Code = result.Error.Code
	}
	l.parts.Audit.Note(noteAnswered, rentalOf(in.Data), note)
}

// became records a state that a rental has come to. How far a pull is, is no state.
func (l *loop) became(s rental.Status) {
	type became struct {
		State       rental.State `json:"state"`
		Sequence    int64        `json:"sequence"`
		ContainerID string       `json:"container_id,omitempty"`
		ImageDigest string       `json:"image_digest,omitempty"`
		ExitCode    *int         `json:"exit_code,omitempty"`
		Code        rental.Code  `json:"code,omitempty"` // why it ended
		StartedAt   time.Time    `json:"started_at,omitzero"`
		EndedAt     time.Time    `json:"ended_at,omitzero"`
	}
	if l.audited[s.ID] == s.State {
		return
	}
	l.audited[s.ID] = s.State
	if s.State.Final() {
		delete(l.audited, s.ID)
	}
	note := became{
		State: s.State, Sequence: s.Sequence, ContainerID: s.ContainerID, ImageDigest: s.ImageDigest,
		ExitCode: s.ExitCode, StartedAt: s.StartedAt, EndedAt: s.EndedAt,
	}
	if s.Failure != nil {
		note.Code = s.Failure.Code
	}
	l.parts.Audit.Note(noteRental, string(s.ID), note)
}

// ownersAct records what the host's owner did; until is zero where it has no time.
func (a *Agent) ownersAct(act, rental string, until time.Time) {
	type owner struct {
		Act   string    `json:"act"`
		Until time.Time `json:"until,omitzero"`
	}
	a.parts.Audit.Note(noteOwner, rental, owner{act, plain(until)})
}

func (l *loop) started() {
	type started struct {
		Version string `json:"version"`
		PID     int    `json:"pid"`
		NodeID  string `json:"node_id,omitempty"`
	}
	s := l.board.latest.Load()
	l.parts.Audit.Note(noteStarted, "", started{s.Agent.Version, s.PID, s.NodeID})
}

// quitted records how the agent left; what it says last stands at the record's end.
func (l *loop) quitted(err error) {
	type quit struct {
		How     How  `json:"how"`
		Rentals int  `json:"rentals"` // that go on
		OK      bool `json:"ok"`
	}
	l.parts.Audit.Note(noteQuit, "", quit{l.leaving, l.live(), err == nil || errors.Is(err, context.Canceled)})
}

// rentalOf is the rental that a message names, safe to print; "" where it names none.
func rentalOf(message protocol.Message) string {
	id := ""
	switch m := message.(type) {
	case *protocol.StartInstance:
		id = m.RentalID
	case *protocol.StopInstance:
		id = m.RentalID
	case *protocol.GetLogs:
		id = m.RentalID
	case *protocol.StatusReceived:
		id = m.RentalID
	}
	return shown(id, 80)
}

// digest is the SHA-256 sum of a message's JSON without its secrets: what is of type secret marshals redacted, and
// variables keep their names alone.
func digest(message protocol.Message) string {
	if order, ok := message.(*protocol.StartInstance); ok {
		public := *order
		public.EnvVars = map[string]string{}
		for name := range order.EnvVars {
			public.EnvVars[name] = ""
		}
		message = &public
	}
	content, err := json.Marshal(message)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
