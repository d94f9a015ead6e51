package docker

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"testing"
)

// answer is what an engine says to a call.
type answer struct {
	status int
	body   any
}

var versionPrefix = regexp.MustCompile(`^/v[0-9.]+`)

// engineThatAnswers stands in for engines in states that the real one cannot be brought to. It answers by path, and
// with an error where it knows none.
func engineThatAnswers(t *testing.T, answers map[string]answer) *Engine {
	t.Helper()
	return engineAt(t, func(r *http.Request) answer {
		if said, ok := answers[pathOf(r)]; ok {
			return said
		}
		return answer{http.StatusNotFound, map[string]string{"message": "no such thing"}}
	})
}

// pathOf is what a call is about, whatever version of the API it is of.
func pathOf(r *http.Request) string { return versionPrefix.ReplaceAllString(r.URL.Path, "") }

// engineAt stands in for an engine that answers each call by what it is asked.
func engineAt(t *testing.T, said func(*http.Request) answer) *Engine {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said := said(r)
		w.Header().Set("Api-Version", "1.47")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(said.status)
		if err := json.NewEncoder(w).Encode(said.body); err != nil {
			t.Errorf("answering %s: %v", r.URL.Path, err)
		}
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	e, err := New(Options{Host: "unix://" + socket, OwnerKey: make([]byte, 16), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}
