package rental

import (
	"fmt"
	"time"
)

// State is where a rental stands. It moves forward only, with one exception: when the engine
// restarted under a running rental, the rental goes back to Starting and on to Running.
//
//	accepted → pulling → creating → starting → tunnelling → running → stopping → stopped
//	    any state but stopped ───────────────────────────────────────────────→ failed
type State string

// The states of a rental; Stopped and Failed are final.
const (
	Accepted   State = "accepted"
	Pulling    State = "pulling"
	Creating   State = "creating"
	Starting   State = "starting"
	Tunnelling State = "tunnelling"
	Running    State = "running"
	Stopping   State = "stopping"
	Stopped    State = "stopped"
	Failed     State = "failed"
)

// Final reports whether nothing can follow s.
func (s State) Final() bool { return s == Stopped || s == Failed }

// Code is a stable word for why something failed; the same words go to the backend.
type Code string

// The codes a rental can fail with.
const (
	CodeInvalid           Code = "invalid_request"
	CodeConflict          Code = "conflict"
	CodeNotFound          Code = "not_found"
	CodeInsufficient      Code = "insufficient_resources"
	CodeGPUUnavailable    Code = "gpu_unavailable"
	CodeImageNotFound     Code = "image_not_found"
	CodeImageUnauthorized Code = "image_unauthorized"
	CodeImageTooLarge     Code = "image_too_large"
	CodeImageForbidden    Code = "image_forbidden"     // by the host's policy or its owner's lists
	CodeDiskLimit         Code = "disk_limit_exceeded" // the rental has written more than was rented
	CodeIsolation         Code = "isolation_failed"    // the host's LAN could not be kept from the rental
	CodePullFailed        Code = "image_pull_failed"
	CodeContainerFailed   Code = "container_failed"
	CodeDockerUnavailable Code = "docker_unavailable"
	CodeTunnelFailed      Code = "tunnel_failed"
	CodePortUnavailable   Code = "port_unavailable"
	CodeTimeout           Code = "timeout"
	CodeExpired           Code = "expired"
	CodeInterrupted       Code = "interrupted"
	CodeStoppedByHost     Code = "stopped_by_host"
	CodeInternal          Code = "internal"
)

// Failure is an error with a code for machines and one sentence for a person. The sentence holds
// no secret and no path of the host.
type Failure struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error implements error.
func (f *Failure) Error() string { return f.Message }

// Failf makes a Failure.
func Failf(code Code, format string, args ...any) *Failure {
	return &Failure{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Progress tells how far a slow step is. Total is 0 while it is not known.
type Progress struct {
	Phase   string `json:"phase"` // "pulling"
	Current int64  `json:"current_bytes"`
	Total   int64  `json:"total_bytes"`
}

// Status is one picture of a rental. A Status is never changed after it has been handed out.
type Status struct {
	ID          ID        `json:"id"`
	Sequence    int64     `json:"sequence"` // grows by one with every status; after a killed agent it skips ahead, never back
	State       State     `json:"state"`
	ContainerID string    `json:"container_id,omitempty"`
	ImageDigest string    `json:"image_digest,omitempty"` // "sha256:…"
	Addresses   []Address `json:"addresses,omitempty"`
	Progress    *Progress `json:"progress,omitempty"`
	ExitCode    *int      `json:"exit_code,omitempty"`
	Failure     *Failure  `json:"failure,omitempty"`
	// Trouble is one sentence about something that is being retried, "" when all is well. Local: never on the wire.
	Trouble string `json:"trouble,omitempty"`
	// Unreachable is set when the trouble is the relay's: the rental runs, and its ports do not answer.
	Unreachable bool      `json:"unreachable,omitempty"`
	At          time.Time `json:"at"`
	StartedAt   time.Time `json:"started_at,omitzero"` // when the container first ran
	EndedAt     time.Time `json:"ended_at,omitzero"`
	Spec        Spec      `json:"spec"` // without Env and Registry, which are the renter's secrets, and Command, which may be long
}
