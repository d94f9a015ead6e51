package backend

import (
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distributedcompute/host-agent/core/secret"
)

// quiet is a backend that nobody can reach.
func quiet() *Backend {
	return &Backend{
		server:     &http.Server{},
		nodes:      map[string]*node{},
		keys:       map[string]*hostKey{},
		enrolments: map[[sha256.Size]byte]*enrolment{},
		bans:       map[string]string{},
	}
}

// goodKey reports whether a host key is, without using it.
func (b *Backend) goodKey(key secret.String) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.check(b.find(key.Reveal())) == nil
}

func TestOldKeyOutlivesALostAnswerFor10Minutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := quiet()
		older := b.IssueKey()
		rotate := func() (newer secret.String) {
			t.Helper()
			request := httptest.NewRequest(http.MethodPost, "/", nil)
			request.Header.Set("Authorization", "Bearer "+older.Reveal())
			request.SetPathValue("node", b.find(older.Reveal()).node.id)
			answer := httptest.NewRecorder()
			b.rotate(answer, request)
			var got struct {
				Key secret.String `json:"host_api_key"`
			}
			if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil || answer.Code != http.StatusCreated {
				t.Fatalf("rotating is answered %d, %v", answer.Code, err)
			}
			return got.Key
		}
		rotate()
		time.Sleep(overlap - time.Minute)
		newer := rotate()
		if !b.goodKey(older) || !b.goodKey(newer) {
			t.Error("not both keys are good")
		}
		time.Sleep(time.Minute + time.Second)
		if b.goodKey(older) || !b.goodKey(newer) {
			t.Error("asking again has prolonged the old key's time, or ended the new one's")
		}
	})
}

// A key may go between the upgrade and the place among the connections.
func TestNoConnectionWithAKeyThatHasGone(t *testing.T) {
	b := quiet()
	key := b.find(b.IssueKey().Reveal())
	key.revoked = true
	if b.join(&session{node: key.node, key: key}) || key.node.session != nil {
		t.Error("it joined")
	}
}
