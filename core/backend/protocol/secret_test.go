package protocol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/secret"
)

// TestSecretsStayHome: a secret of a message is in the frame that carries it, and in no printed,
// logged or otherwise marshalled form.
func TestSecretsStayHome(t *testing.T) {
	const canary = "canary-4711"
	relay := Relay{Address: "relay:7000", Token: secret.New(canary)}
	start := StartInstance{
		RentalID: "r-1", Image: "debian", EnvVars: map[string]string{"TOKEN": canary},
		RegistryAuth: &RegistryAuth{Username: "u", Password: secret.New(canary)},
	}
	for name, value := range map[string]any{
		"relay": relay, "*relay": &relay, "registered": Registered{Relay: &relay}, "*registered": &Registered{Relay: &relay},
		"auth": *start.RegistryAuth, "start": start, "*start": &start, "incoming": Incoming{ID: "1", Data: &start},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
				slog.New(handler).Info("received", "message", value)
			}
			printed := fmt.Sprintf("%v %+v %s %#v %d %q", value, value, value, value, value, value)
			if strings.Contains(log.String(), canary) || strings.Contains(printed, canary) {
				t.Errorf("the secret leaked:\n%s\n%s", log.String(), printed)
			}
		})
	}
	for _, value := range []any{relay, Registered{Relay: &relay}, *start.RegistryAuth} {
		if marshalled, _ := json.Marshal(value); bytes.Contains(marshalled, []byte(canary)) {
			t.Errorf("json.Marshal leaked: %s", marshalled)
		}
	}
	for _, m := range []Message{&Registered{Relay: &relay}, Registered{Relay: &relay}, &start, start} {
		frame, err := Encode("", m)
		if err != nil || !bytes.Contains(frame, []byte(canary)) {
			t.Errorf("%T does not carry its secret: %s %v", m, frame, err)
		}
	}
}
