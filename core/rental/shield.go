package rental

import (
	"fmt"
	"maps"
	"time"
)

// ShieldState says whether rentals are kept off the host's LAN.
type ShieldState string

// The states of the shield. It has none, "", where nobody wants it.
const (
	ShieldAwaited ShieldState = "awaited" // it has not been looked for yet
	ShieldOn      ShieldState = "on"
	ShieldOff     ShieldState = "off"     // this kind of engine allows none that holds for certain
	ShieldMissing ShieldState = "missing" // it could not be put up
)

// ShieldInfo is the state of what keeps rentals off the host's LAN.
type ShieldInfo struct {
	State    ShieldState   `json:"state,omitempty"`
	How      string        `json:"how,omitempty"`       // "direct", or "container" where another's hands are needed
	Problem  string        `json:"problem,omitempty"`   // one sentence while it is not on
	Fix      string        `json:"fix,omitempty"`       // what to do about it
	Waived   bool          `json:"waived,omitempty"`    // the owner takes rentals without it, where it cannot be had
	Blocked  uint64        `json:"blocked"`             // packets of rentals that were turned away today
	ByRental map[ID]uint64 `json:"by_rental,omitempty"` // the same of each rental that is here, since it began
	Since    time.Time     `json:"since,omitzero"`      // of this state
}

// Refuses reports whether no rental can be started for want of the shield.
func (s ShieldInfo) Refuses() bool { return s.Problem != "" && !s.Waived }

// Equal reports whether both say the same.
func (s ShieldInfo) Equal(other ShieldInfo) bool {
	same := maps.Equal(s.ByRental, other.ByRental) && s.Since.Equal(other.Since)
	return same && s.State == other.State && s.How == other.How && s.Problem == other.Problem && s.Fix == other.Fix &&
		s.Waived == other.Waived && s.Blocked == other.Blocked
}

// String is what owners are shown, in one line.
func (s ShieldInfo) String() string {
	switch {
	case s.State == ShieldOn:
		return fmt.Sprintf("Shield on · %d blocked today", s.Blocked)
	case s.Problem != "" && s.Waived:
		return "Shield " + string(s.State) + " · rentals may reach your network"
	case s.Problem != "":
		return "Shield " + string(s.State) + " · no rentals"
	}
	return "Shield not up yet"
}
