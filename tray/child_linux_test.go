package tray

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
)

// The desktop's tray is one for each process, so every test has a process of its own: this test binary
// again, which runs the tray beside an agent and a desk that its parent directs.

const childEnv = "TRAY_TEST_CHILD" // JSON of childSetup

type childSetup struct {
	Options Options
	Quiet   bool // the person wants no notifications
}

// direction is a line from parent to child.
type direction struct {
	Status *agent.Status   `json:"status,omitempty"` // the agent's next picture; starts it where it has gone
	Gone   bool            `json:"gone,omitempty"`   // the agent goes
	Fail   map[string]bool `json:"fail,omitempty"`   // calls that fail from now on
	Quiet  bool            `json:"quiet,omitempty"`  // the person switches notifications off elsewhere
	Login  bool            `json:"login,omitempty"`  // the person switches the start at login on elsewhere
	Leave  bool            `json:"leave,omitempty"`  // ends the context of Run
}

// report is a line from child to parent.
type report struct {
	Call string   `json:"call"` // of which method; "Run" with its error when it has returned
	With []string `json:"with,omitempty"`
}

func TestMain(m *testing.M) {
	if setup := os.Getenv(childEnv); setup != "" {
		os.Exit(child(setup))
	}
	os.Exit(m.Run())
}

func child(text string) int {
	var setup childSetup
	if err := json.Unmarshal([]byte(text), &setup); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, leave := context.WithCancel(context.Background())
	p := &puppet{notify: !setup.Quiet, changed: make(chan struct{}, 1), out: json.NewEncoder(os.Stdout)}
	go func() {
		lines := json.NewDecoder(bufio.NewReader(os.Stdin))
		for {
			var d direction
			if lines.Decode(&d) != nil || d.Leave { // the parent ends with its child
				leave()
				return
			}
			p.direct(d)
		}
	}()
	setup.Options.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := Run(ctx, p, p, setup.Options)
	words := []string{"nil"}
	if err != nil {
		words = []string{err.Error(), fmt.Sprint(errors.Is(err, ErrNoScreen))}
	}
	p.tell("Run", words...)
	return 0
}

// puppet is host and desk in the child.
type puppet struct {
	mu      sync.Mutex
	begun   bool          // there has been a direction
	status  *agent.Status // nil: no agent
	fail    map[string]bool
	notify  bool
	login   bool
	changed chan struct{}
	out     *json.Encoder
}

func (p *puppet) direct(d direction) {
	p.mu.Lock()
	p.begun = true
	if d.Status != nil || d.Gone {
		p.status = d.Status
	}
	if d.Fail != nil {
		p.fail = d.Fail
	}
	p.notify = p.notify && !d.Quiet
	p.login = p.login || d.Login
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *puppet) tell(call string, with ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Encode(report{call, with})
	if p.fail[call] {
		return errors.New("it is a test of failure")
	}
	return nil
}

func (p *puppet) now() (status *agent.Status, begun bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status, p.begun
}

func (p *puppet) Watch(ctx context.Context) iter.Seq2[agent.Status, error] {
	return func(yield func(agent.Status, error) bool) {
		p.tell("Watch")
		for first := true; ; first = false {
			switch status, begun := p.now(); {
			case !begun: // an agent that is slow to answer
			case status == nil && first:
				yield(agent.Status{}, errors.New("no agent is running"))
				return
			case status == nil || !yield(*status, nil):
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-p.changed:
			}
		}
	}
}

func (p *puppet) Pause(_ context.Context, until time.Time) error {
	if until.IsZero() {
		return p.tell("Pause", "")
	}
	return p.tell("Pause", until.Format(time.RFC3339))
}
func (p *puppet) Resume(context.Context) error { return p.tell("Resume") }
func (p *puppet) Drain(_ context.Context, deadline time.Time) error {
	return p.tell("Drain", fmt.Sprint(deadline.IsZero()))
}
func (p *puppet) EndRental(_ context.Context, id string) error { return p.tell("EndRental", id) }
func (p *puppet) Retry(context.Context) error                  { return p.tell("Retry") }
func (p *puppet) Quit(_ context.Context, how agent.How) error  { return p.tell("Quit", string(how)) }
func (p *puppet) CancelSignIn(context.Context) error           { return p.tell("CancelSignIn") }

func (p *puppet) SignIn(_ context.Context, method account.Method) (account.SigningIn, error) {
	return account.SigningIn{URL: "https://id.example.com/device", UserCode: "BCDF-GHJK"}, p.tell("SignIn", string(method))
}

func (p *puppet) SignOut(context.Context) (account.SignedOut, error) {
	return account.SignedOut{Why: "the marketplace cannot be reached", Source: "file /etc/key"}, p.tell("SignOut")
}

func (p *puppet) OpenURL(_ context.Context, url string) error   { return p.tell("OpenURL", url) }
func (p *puppet) OpenFile(_ context.Context, file string) error { return p.tell("OpenFile", file) }
func (p *puppet) Copy(_ context.Context, text string) error     { return p.tell("Copy", text) }
func (p *puppet) StartAgent(context.Context) error              { return p.tell("StartAgent") }

func (p *puppet) Notify(_ context.Context, n Note) error {
	return p.tell("Notify", n.Key, n.Title, n.Body)
}

func (p *puppet) Autostart(context.Context) (bool, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.login, "", nil
}

func (p *puppet) SetAutostart(_ context.Context, on bool) error {
	p.mu.Lock()
	p.login = on
	p.mu.Unlock()
	return p.tell("SetAutostart", fmt.Sprint(on))
}

func (p *puppet) Notifications() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.notify
}

func (p *puppet) SetNotifications(on bool) error {
	p.mu.Lock()
	p.notify = on
	p.mu.Unlock()
	return p.tell("SetNotifications", fmt.Sprint(on))
}
