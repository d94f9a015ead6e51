// Package admin lets a person drive a sandbox marketplace that runs in another process: HTTP over a
// Unix socket that only its owner can reach, and the client of it.
package admin

import (
	"fmt"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/backend"
)

// Node is a host as the marketplace sees it.
type Node struct {
	ID            string    `json:"id"`
	Connected     bool      `json:"connected"`
	Registered    bool      `json:"registered"`
	Status        string    `json:"status"` // online, paused, draining; "" before the first heartbeat
	Accepting     bool      `json:"accepting"`
	Instances     int       `json:"instances"`
	Agent         string    `json:"agent"` // "1.0.0 linux/amd64"; "" before registration
	GPUs          []string  `json:"gpus"`
	CPUs          float64   `json:"cpus"` // on offer
	RAMMB         int64     `json:"ram_mb"`
	Heartbeats    int       `json:"heartbeats"`
	LastHeartbeat time.Time `json:"last_heartbeat,omitzero"`
}

// Rental is a rental as the marketplace sees it.
type Rental struct {
	ID        string    `json:"id"`
	Node      string    `json:"node"`
	Image     string    `json:"image"`
	State     string    `json:"state"` // "" before the first status, "refused" where the host did not take the order
	Addresses []string  `json:"addresses"`
	Problem   string    `json:"problem,omitempty"`
	At        time.Time `json:"at,omitzero"` // of the latest status
}

// Earnings is what a host has earned.
type Earnings struct {
	Node string `json:"node"`
	protocol.Earnings
}

// EnrolmentToken is a token as it goes over the socket, which is its owner's alone.
type EnrolmentToken struct {
	Token string `json:"token"`
}

func viewNode(n backend.Node) Node {
	view := Node{ID: n.ID, Connected: n.Connected, Registered: n.Registered, Heartbeats: len(n.Heartbeats)}
	if len(n.Heartbeats) > 0 {
		view.LastHeartbeat = n.Heartbeats[len(n.Heartbeats)-1]
		view.Status = string(n.Heartbeat.Status)
		view.Accepting, view.Instances = n.Heartbeat.Accepting, n.Heartbeat.Instances
	}
	if n.Register != nil {
		agent := n.Register.Agent
		view.Agent = agent.Version + " " + agent.OS + "/" + agent.Arch
		view.CPUs, view.RAMMB = n.Register.Offer.CPUCores, n.Register.Offer.RAMMB
		for _, gpu := range n.Register.Hardware.GPUs {
			view.GPUs = append(view.GPUs, gpu.Model)
		}
	}
	return view
}

func viewRental(r backend.Rental) Rental {
	latest := r.Latest()
	view := Rental{ID: r.ID, Node: r.Node, State: latest.State, At: latest.At}
	if r.Order != nil {
		view.Image = r.Order.Image
	}
	if r.Refusal != nil {
		view.State, view.Problem = "refused", r.Refusal.Message
	}
	for _, port := range latest.Ports {
		view.Addresses = append(view.Addresses, port.PublicAddress)
	}
	switch {
	case latest.Error != nil:
		view.Problem = latest.Error.Message
	case latest.Final() && latest.ExitCode != nil:
		view.Problem = fmt.Sprintf("exit code %d", *latest.ExitCode)
	}
	return view
}
