package identity_test

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/sandbox/ca"
	"github.com/distributedcompute/host-agent/sandbox/identity"
)

// The library reports every refusal through slog's default.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// application is a client of a provider as an agent is one: it listens for the redirect.
type application struct {
	*identity.Provider
	t         *testing.T
	authority *ca.CA
	http      *http.Client // follows no redirect
	redirect  string
	calls     chan url.Values // what came to the redirect
	verifier  string
}

func start(t *testing.T, options identity.Options) *application {
	t.Helper()
	authority, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	options.CA = authority
	p, err := identity.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	calls := make(chan url.Values, 10)
	callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/callback" {
			http.NotFound(w, r)
			return
		}
		calls <- r.URL.Query()
		_, _ = io.WriteString(w, "back at the agent")
	}))
	t.Cleanup(callback.Close)
	return &application{
		Provider: p, t: t, authority: authority,
		http: &http.Client{
			Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		redirect: callback.URL + "/callback",
		calls:    calls,
		verifier: rand.Text() + rand.Text(),
	}
}

// ask is an authorization request that is good.
func (a *application) ask() url.Values {
	challenge := sha256.Sum256([]byte(a.verifier))
	return url.Values{
		"response_type":         {"code"},
		"client_id":             {a.ClientID()},
		"redirect_uri":          {a.redirect},
		"scope":                 {"openid profile email host:enroll"},
		"state":                 {"state-of-the-test"},
		"nonce":                 {"nonce-of-the-test"},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(challenge[:])},
		"code_challenge_method": {"S256"},
	}
}

func (a *application) address(ask url.Values) string {
	return a.Issuer() + "/oauth/authorize?" + ask.Encode()
}

// called is the only call that has come to the redirect, nil if none has.
func (a *application) called() url.Values {
	a.t.Helper()
	if len(a.calls) > 1 {
		a.t.Fatal("the redirect was called more than once")
	}
	select {
	case call := <-a.calls:
		return call
	default:
		return nil
	}
}

// code signs in and consents.
func (a *application) code(ask url.Values) string {
	a.t.Helper()
	page, err := a.Visit(a.t.Context(), a.address(ask), a.Users()[0], true)
	if err != nil {
		a.t.Fatal(err)
	}
	call := a.called()
	if call.Get("code") == "" || call.Get("state") != ask.Get("state") {
		a.t.Fatalf("the redirect got %v, the person %s", call, page)
	}
	return call.Get("code")
}

// tokens is the answer to a token request: status and the fields of its JSON.
type tokens struct {
	Status      int
	AccessToken string `json:"access_token"`
	IDToken     string `json:"id_token"`
	Refresh     string `json:"refresh_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
	Scope       string `json:"scope"`
	Error       string `json:"error"`
}

func (a *application) redeem(form url.Values) (got tokens) {
	a.t.Helper()
	got.Status = a.post("/oauth/token", form, &got)
	return got
}

// exchange is a token request that is good for a code.
func (a *application) exchange(code string) url.Values {
	return url.Values{
		"grant_type": {"authorization_code"}, "client_id": {a.ClientID()}, "redirect_uri": {a.redirect},
		"code": {code}, "code_verifier": {a.verifier},
	}
}

// signIn goes all the way.
func (a *application) signIn() tokens {
	a.t.Helper()
	got := a.redeem(a.exchange(a.code(a.ask())))
	if got.Status != http.StatusOK {
		a.t.Fatalf("redeeming a code: %+v", got)
	}
	return got
}

func (a *application) post(path string, form url.Values, into any) (status int) {
	a.t.Helper()
	request, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, a.Issuer()+path, strings.NewReader(form.Encode()))
	if err != nil {
		a.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return a.do(request, into)
}

func (a *application) get(address, bearer string, into any) (status int) {
	a.t.Helper()
	request, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, address, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	return a.do(request, into)
}

// do fills into with the answer's JSON, or with its text where into is a *string.
func (a *application) do(request *http.Request, into any) (status int) {
	a.t.Helper()
	response, err := a.http.Do(request)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if text, ok := into.(*string); ok {
		*text = response.Header.Get("Location") + string(body)
	} else if into != nil && len(body) > 0 {
		if err := json.Unmarshal(body, into); err != nil {
			a.t.Fatalf("%s answered %s: %v", request.URL, body, err)
		}
	}
	return response.StatusCode
}
