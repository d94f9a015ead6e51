package protocol

import "log/slog"

// Messages that hold secrets, a renter's environment among them, print and log as their names:
// fmt shows the fields of a nested struct whatever their own methods say when a verb does not fit.

// String implements fmt.Stringer.
func (r Relay) String() string { return "relay " + r.Address }

// String implements fmt.Stringer.
func (m StartInstance) String() string { return "start_instance " + m.RentalID }

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
