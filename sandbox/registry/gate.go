package registry

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// tokenPath is where clients get their tokens. Private and public repositories can live beside each
// other only with tokens: an engine that is asked for a password by the registry as a whole never
// tries without one.
const tokenPath = "/token"

type login struct{ username, password string }

// gate lets only those into a private repository who have its login.
type gate struct {
	realm string // URL of the token service
	key   []byte

	mu      sync.Mutex
	private map[string]login // by repository
}

func newGate(realm string) *gate {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	return &gate{realm: realm, key: key, private: map[string]login{}}
}

func (g *gate) protect(repository string, who login) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.private[repository] = who
}

func (g *gate) login(repository string) (login, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	who, ok := g.private[repository]
	return who, ok
}

func (g *gate) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.Path == tokenPath:
			g.issue(w, req)
		case g.admits(req):
			next.ServeHTTP(w, req)
		default:
			g.refuse(w, repositoryOf(req.URL.Path))
		}
	})
}

// admits reports whether a request may pass. The version check of the registry as a whole needs a
// token too, of whomever: it is where clients learn that there is a token service.
func (g *gate) admits(req *http.Request) bool {
	token, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	repository := repositoryOf(req.URL.Path)
	if repository == "" {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.private) == 0 || token != ""
	}
	_, private := g.login(repository)
	return !private || hmac.Equal([]byte(token), []byte(g.token(repository)))
}

// issue gives a token for the repository in "scope=repository:name:pull". Who signs on wrongly, or
// not at all, gets one that opens no private repository. The Docker client asks by GET and reads
// "token"; containerd's, given a password, by an OAuth 2.0 form and reads "access_token".
func (g *gate) issue(w http.ResponseWriter, req *http.Request) {
	req.Body = http.MaxBytesReader(w, req.Body, 64<<10)
	repository := ""
	if scope := strings.Split(req.FormValue("scope"), ":"); len(scope) == 3 {
		repository = scope[1]
	}
	token := "anonymous"
	if who, private := g.login(repository); private && who == loginOf(req) {
		token = g.token(repository)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"token": token, "access_token": token})
}

func loginOf(req *http.Request) login {
	if req.PostFormValue("grant_type") == "password" {
		return login{req.PostFormValue("username"), req.PostFormValue("password")}
	}
	username, password, _ := req.BasicAuth()
	return login{username, password}
}

func (g *gate) refuse(w http.ResponseWriter, repository string) {
	challenge := fmt.Sprintf("Bearer realm=%q,service=%q", g.realm, "sandbox")
	if repository != "" {
		challenge += fmt.Sprintf(",scope=%q", "repository:"+repository+":pull")
	}
	w.Header().Set("WWW-Authenticate", challenge)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
}

func (g *gate) token(repository string) string {
	sum := hmac.New(sha256.New, g.key)
	sum.Write([]byte(repository))
	return hex.EncodeToString(sum.Sum(nil))
}

// repositoryOf gives "a/b" for "/v2/a/b/manifests/tag", "" for what belongs to no repository.
func repositoryOf(path string) string {
	path = strings.TrimPrefix(path, "/v2/")
	for _, part := range []string{"/manifests/", "/blobs/", "/tags/"} {
		if i := strings.LastIndex(path, part); i > 0 {
			return path[:i]
		}
	}
	return ""
}
