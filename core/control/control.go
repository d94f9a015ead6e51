// Package control is the local door to a running agent: HTTP over a Unix socket, a named pipe on
// Windows. Screen and command line are its clients, also within the agent's own process, so they
// cannot disagree.
//
// Whoever listens is the agent: [Listen] holds a lock in the state directory, so there is one
// agent for one directory. It is the first act of a host; callers that come before the agent is
// there wait for it. Only the same user, or root, gets in, and no web page does.
package control

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Host is the agent as those outside see and steer it; *agent.Agent is one.
type Host interface {
	Status() agent.Status
	Watch(ctx context.Context) iter.Seq[agent.Status]
	Pause(ctx context.Context, until time.Time) error // zero: until Resume
	Resume(ctx context.Context) error
	Drain(ctx context.Context, deadline time.Time) error // zero: as long as the rentals run
	EndRental(ctx context.Context, id rental.ID) error
	Logs(ctx context.Context, id rental.ID, tail int, since time.Time) (text string, truncated bool, err error)
	SpeedTest(ctx context.Context) (hardware.Network, error)
	Images(ctx context.Context) (rental.ImageCache, error)
	PruneImages(ctx context.Context) (rental.PrunedImages, error) // all that are neither in use nor kept
	// SignIn returns once a person can be sent to sign in; the rest goes on without its caller.
	SignIn(ctx context.Context, how account.Method) (account.SigningIn, error)
	CancelSignIn(ctx context.Context) error
	SignOut(ctx context.Context) (account.SignedOut, error)
	RotateKey(ctx context.Context) error
	Retry() // to reach the backend, at once
	Quit(how agent.How)
}

// Identity says which process listens.
type Identity struct {
	PID       int       `json:"pid"`
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
}

// AlreadyRunning says that another agent has this state directory. Its Identity is zero where it
// did not answer.
type AlreadyRunning struct{ Identity }

// Error implements error.
func (e *AlreadyRunning) Error() string {
	if e.PID == 0 {
		return "an agent is already running, but does not answer"
	}
	return fmt.Sprintf("an agent is already running (pid %d, since %s)", e.PID, e.StartedAt.Local().Format(time.DateTime))
}

// ErrNotRunning says that nobody listens.
var ErrNotRunning = errors.New("no agent is running")

// Refusal is what a running agent says instead of doing what it was asked.
type Refusal struct {
	Code    string `json:"code"` // a stable word, as the backend's error codes
	Message string `json:"message"`
}

// Error implements error.
func (e *Refusal) Error() string { return e.Message }

const (
	// hostName is the only Host a request may carry: a browser led here would send another.
	hostName      = "distributed-agent"
	versionHeader = "Distributed-Agent-Version"

	maxRequestBytes = 4 << 10
	maxAnswerBytes  = 16 << 20 // a status with the longest history, or logs
)

// The bodies of requests.
type (
	pauseRequest struct {
		Until time.Time `json:"until,omitzero"`
	}
	drainRequest struct {
		Deadline time.Time `json:"deadline,omitzero"`
	}
	signInRequest struct {
		Method account.Method `json:"method,omitempty"`
	}
	quitRequest struct {
		How agent.How `json:"how"`
	}
)

// Logs is the newest output of a rental.
type Logs struct {
	Text      string `json:"text"`
	Truncated bool   `json:"truncated"` // there was more
}
