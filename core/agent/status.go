package agent

import (
	"time"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Status is the one picture of the host: what tray, CLI and backend are told. A Status is never
// changed after it has been published. Its JSON is what `status --json` prints.
type Status struct {
	Agent     protocol.Agent `json:"agent"`
	PID       int            `json:"pid"`
	NodeID    string         `json:"node_id,omitempty"`
	KeySource string         `json:"key_source,omitempty"` // where the host key comes from, in words
	Account   account.Info   `json:"account"`
	Node      Wish           `json:"node"`
	Accepting bool           `json:"accepting"`
	Why       string         `json:"not_accepting_because,omitempty"`
	// Unheard says why no rental can come though the host accepts them: it cannot be asked.
	Unheard     string              `json:"unheard_because,omitempty"`
	Leaving     bool                `json:"leaving"`                            // the agent is on its way out
	Unwritable  string              `json:"state_unwritable_because,omitempty"` // of the agent's state directory; "" while it can be written
	Backend     LinkHealth          `json:"backend"`
	Engine      rental.EngineInfo   `json:"docker"`
	Relay       rental.RelayInfo    `json:"relay"`
	Hardware    *hardware.Survey    `json:"hardware"` // null until the first survey is done
	Network     *hardware.Network   `json:"network"`
	Sample      hardware.Sample     `json:"metrics"`                // as fresh as the asking
	GPUTroubles []rental.GPUTrouble `json:"gpu_troubles,omitempty"` // oldest first
	Offer       protocol.Offer      `json:"offer"`
	Proposal    *protocol.Offer     `json:"proposal,omitempty"` // what the backend asked to be offered, while that narrows the offer
	Rentals     []rental.Status     `json:"rentals"`            // those not settled yet, oldest first; of those that have ended the newest 100
	Ended       []rental.Status     `json:"ended"`              // the newest of the last day that are settled, oldest first
	Earnings    *protocol.Earnings  `json:"earnings"`
	Notices     []Notice            `json:"notices"` // the latest of the backend, newest last
	Problems    []Problem           `json:"problems"`
	At          time.Time           `json:"at"`

	Versioning
}

// Problem is something that needs a person or is being retried: what is wrong and what to do.
type Problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

// Notice is a message of the backend for the host's owner.
type Notice struct {
	protocol.Notice
	At time.Time `json:"at"`
}

// How says what becomes of the rentals when the agent quits.
type How string

// The three ways to quit.
const (
	LeaveRentals  How = "leave"  // containers run on; the next agent adopts them
	AfterRentals  How = "after"  // take no new ones, quit when the last has ended
	EndingRentals How = "ending" // end them gracefully, then quit
)
