package agent

import (
	"context"
	"time"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/preflight"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Parts are what an agent is joined from. All are required but where it says otherwise.
type Parts struct {
	Rentals Rentals
	Engine  Engine
	Relay   Relay
	Link    Link
	Meter   Meter
	// Survey looks at the whole machine; diskPath is where rentals' data goes ("" while unknown).
	Survey func(ctx context.Context, diskPath string) hardware.Survey
	// Preflight judges the versions of what runs rentals on the machine of the survey; nil: they are not judged.
	Preflight func(ctx context.Context, survey hardware.Survey) (preflight.Report, error)
	// SpeedTest measures the network; nil where no server is configured.
	SpeedTest func(ctx context.Context) (hardware.Network, error)
	Memory    Memory
	// Audit is the record of what was asked and done; nil: none is kept.
	Audit Audit
	// GPUs looks after those that rentals have given back; nil where nothing does.
	GPUs GPUs
	// Account is whose host this is; nil where signing in is not this agent's business.
	Account Account
}

// Account is this host's standing with the marketplace; *account.Account is one.
type Account interface {
	// Run goes on with sign-ins and keeps the key from expiring until ctx ends; changed is called, and
	// must return quickly, after each change of Info.
	Run(ctx context.Context, changed func()) error
	Info() account.Info
	// SignIn returns once a person can be sent to sign in, or with the one that is under way.
	SignIn(ctx context.Context, how account.Method) (account.SigningIn, error)
	CancelSignIn()
	SignOut(ctx context.Context) (account.SignedOut, error)
	RotateKey(ctx context.Context) error
}

// Rentals is the book of rentals; *rental.Book is one.
type Rentals interface {
	Run(ctx context.Context, notify func(rental.Status)) error
	Accept(spec rental.Spec) (rental.Status, error)
	End(id rental.ID, why *rental.Failure, grace time.Duration) error
	Settle(id rental.ID, sequence int64) error
	// Heard tells that the backend has been heard, and with it of what should be here: what is left
	// over from nobody's rental may be removed.
	Heard()
	Statuses() []rental.Status
	// Ended are the settled rentals that have ended since, oldest first.
	Ended(since time.Time) []rental.Status
	Lookup(id rental.ID) (rental.Status, bool)
	// Known counts the rentals there is a record of, settled ones too.
	Known() int
}

// Engine is what the agent asks of the container engine beyond what rentals need.
type Engine interface {
	// Run watches the engine until ctx ends; changed is called, and must return quickly, after
	// each change of Info.
	Run(ctx context.Context, changed func()) error
	Info() rental.EngineInfo
	// Logs returns the newest output of a rental's container, control characters escaped.
	Logs(ctx context.Context, containerID string, tail int, since time.Time) (text string, truncated bool, err error)
	// Images lists the images that were pulled for rentals; PruneImages removes those that are neither in use nor
	// to be kept.
	Images(ctx context.Context) (rental.ImageCache, error)
	PruneImages(ctx context.Context) (rental.PrunedImages, error)
}

// GPUs is the desk that lends GPUs; *lending.Desk is one.
type GPUs interface {
	// Run looks at withheld GPUs until ctx ends; changed is called, and must return quickly, after each change
	// of Troubles.
	Run(ctx context.Context, changed func()) error
	// Troubles are what the host's owner should know of GPUs, oldest first.
	Troubles() []rental.GPUTrouble
}

// Relay is what the agent asks of the tunnel relay beyond what rentals need.
type Relay interface {
	Run(ctx context.Context, changed func()) error
	// Use connects with these terms from now on; the same terms again change nothing.
	Use(terms rental.Terms)
	Info() rental.RelayInfo
}

// Link is the connection to the backend.
type Link interface {
	// Run keeps a session alive until ctx ends. register and heartbeat are asked for what to say;
	// changed is called after each change of Health. On the way out it sends what is queued,
	// within a bound, and closes the connection.
	Run(ctx context.Context, register func() protocol.Register, heartbeat func() protocol.Heartbeat, changed func()) error
	// Commands are the checked messages of the backend, in order. Closed after Run.
	Commands() <-chan protocol.Incoming
	// Answer, PostInstance and PostNode queue without waiting. States of a rental, in order, and of
	// progress and node states the latest wait for a connection; an answer goes over the one that its
	// command came by, or nowhere.
	Answer(to protocol.Incoming, result protocol.CommandResult)
	PostInstance(status protocol.InstanceStatus)
	PostNode(status protocol.NodeStatus)
	// Reregister asks for another register and sends it on the running connection: what it said of
	// this host has changed. Without a connection there is nothing to do.
	Reregister()
	// HangUp ends a connection, whose key is given up. Without one there is nothing to do.
	HangUp()
	// Retry makes a link that waits for its next try make it now: what kept it is over.
	Retry()
	// SetInterval changes the heartbeat's pace.
	SetInterval(d time.Duration)
	Health() LinkHealth
}

// LinkHealth is the state of the connection to the backend.
type LinkHealth = protocol.LinkHealth

// Meter reads the machine's moving values.
type Meter interface {
	Run(ctx context.Context) error
	// Use tells the meter the path whose disk counts, and which GPUs in what order.
	Use(survey hardware.Survey)
	Sample() hardware.Sample
}

// Memory is what the agent remembers over restarts.
type Memory interface {
	Load() (Remembered, error)
	Save(Remembered) error
}

// Remembered is kept on disk between runs.
type Remembered struct {
	NodeID   string             `json:"node_id,omitempty"`
	Owner    Wish               `json:"owner"`              // what the host's owner wants
	Backend  Wish               `json:"backend"`            // what the backend wants; counts while the owner wants nothing else
	Terms    *RememberedTerms   `json:"relay,omitempty"`    // so that public ports answer again while the backend is down
	Proposal *protocol.Offer    `json:"proposal,omitempty"` // what the backend asked to be offered
	Network  *hardware.Network  `json:"network,omitempty"`
	Earned   *protocol.Earnings `json:"earnings,omitempty"`
	Lapse    string             `json:"lapse,omitempty"` // why an earlier file could not be read; "" once the owner has said what he wants
}

// RememberedTerms is rental.Terms in a form that goes to the 0600 state file, its token included.
type RememberedTerms struct {
	Address    string `json:"address"`
	Token      string `json:"token"`
	ServerName string `json:"server_name,omitempty"`
	CAPEM      string `json:"ca_pem,omitempty"`
}

// Wish is what someone wants of this node.
type Wish struct {
	State  protocol.NodeState `json:"state"`
	Reason string             `json:"reason,omitempty"` // whose wish: user or backend; "" while nobody wants anything but online
	Until  time.Time          `json:"until,omitzero"`   // when a pause ends by itself
	EndAt  time.Time          `json:"end_at,omitzero"`  // when the rentals still there while draining are ended
}
