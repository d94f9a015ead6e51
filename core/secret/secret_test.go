package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/secret"
)

func TestNothingPrintsASecret(t *testing.T) {
	const value = "sk-canary-4711"
	s := secret.New(value)
	holder := struct {
		Key    secret.String
		Nested *secret.String
		hidden secret.String
	}{s, &s, s}

	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("signing on", "key", s, "holder", holder)
	marshalled, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	printed := map[string]string{
		"%v":   fmt.Sprintf("%v", s),
		"%s":   fmt.Sprintf("%s", s),
		"%q":   fmt.Sprintf("%q", s),
		"%x":   fmt.Sprintf("%x", s),
		"%d":   fmt.Sprintf("%d %d", s, holder),
		"%+v":  fmt.Sprintf("%+v", holder),
		"%#v":  fmt.Sprintf("%#v", holder),
		"err":  fmt.Errorf("using %v: %w", s, fmt.Errorf("%v", holder)).Error(),
		"json": string(marshalled),
		"slog": logged.String(),
	}
	for how, text := range printed {
		if strings.Contains(text, value) || strings.Contains(text, fmt.Sprintf("%x", value)) {
			t.Errorf("%s shows the secret: %s", how, text)
		}
	}
	if got := fmt.Sprintf("%v %v", s, holder.hidden); got != "[redacted] [redacted]" {
		t.Errorf("printed %q", got)
	}
	if s.Reveal() != value {
		t.Errorf("Reveal() = %q, want %q", s.Reveal(), value)
	}
}

func TestUnmarshal(t *testing.T) {
	var got struct{ Key secret.String }
	if err := json.Unmarshal([]byte(`{"Key":"abc"}`), &got); err != nil {
		t.Fatal(err)
	}
	if got.Key.Reveal() != "abc" || got.Key.Empty() {
		t.Errorf("decoded %q", got.Key.Reveal())
	}
	if !(secret.String{}).Empty() {
		t.Error("the zero value is not empty")
	}
}
