package protocol

import (
	"fmt"
	"io"
	"log/slog"
)

// Messages that hold secrets, a renter's environment among them, print and log as their names. Where the
// secret is a secret.String it keeps itself, whatever the verb.

// String implements fmt.Stringer.
func (r Relay) String() string { return "relay " + r.Address }

// String implements fmt.Stringer.
func (m StartInstance) String() string { return "start_instance " + m.RentalID }

// Format implements fmt.Formatter: no verb shows more than String.
func (m StartInstance) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, m.String()) }

// LogValue implements slog.LogValuer.
func (m StartInstance) LogValue() slog.Value {
	return slog.GroupValue(slog.String("rental", m.RentalID), slog.String("image", m.Image))
}

// LogValue implements slog.LogValuer.
func (in Incoming) LogValue() slog.Value {
	if in.Data == nil {
		return slog.GroupValue()
	}
	return slog.GroupValue(slog.String("event", in.Data.Event()), slog.String("id", in.ID))
}
