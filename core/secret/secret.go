// Package secret holds values that must never reach a log, an error text or a status page.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted is what every printed form of a secret shows.
const redacted = "[redacted]"

// String is a secret text: a key, a token, a password. It prints, logs and marshals as
// "[redacted]"; only Reveal gives the value, so every use of it can be found by name. Compare secrets
// with Equal.
type String struct {
	// A pointer, because fmt prints unexported fields of other structs without asking their methods.
	value *string
}

// New wraps a secret text.
func New(value string) String {
	if value == "" {
		return String{}
	}
	return String{&value}
}

// Reveal returns the secret itself. Call it only where the value leaves for the place it is meant for.
func (s String) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Equal reports whether two secrets are the same text.
func (s String) Equal(other String) bool { return s.Reveal() == other.Reveal() }

// Empty reports whether there is no secret.
func (s String) Empty() bool { return s.value == nil }

// String implements fmt.Stringer.
func (s String) String() string {
	if s.Empty() {
		return ""
	}
	return redacted
}

// Format implements fmt.Formatter: no verb shows more than String.
func (s String) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, s.String()) }

// LogValue implements slog.LogValuer.
func (s String) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler: JSON and YAML show the redacted form.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *String) UnmarshalText(text []byte) error {
	*s = New(string(text))
	return nil
}
