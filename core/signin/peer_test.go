package signin

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// peer starts a provider that somebody else wrote, and returns its issuer.
func peer(t *testing.T) string {
	t.Helper()
	missing := t.Skip
	if os.Getenv("CI") == "true" {
		missing = t.Fatal
	}
	dir := os.Getenv("OIDC_PROVIDER_DIR")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); dir == "" || err != nil {
		missing("needs the npm package oidc-provider in $OIDC_PROVIDER_DIR; `make test` puts it there (Debian packages nodejs and npm)")
	}
	program, err := os.Open("testdata/oidc-provider/server.mjs")
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	node := exec.CommandContext(t.Context(), "node", "--input-type=module", "-")
	node.Dir, node.Stdin, node.Stderr = dir, program, t.Output()
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); errors.Is(err, exec.ErrNotFound) {
		missing("needs node (Debian package nodejs)")
	} else if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() {
		running.Wait()
		_ = node.Wait() // it was killed
	})
	issuer := make(chan string, 1)
	running.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var line struct{ Issuer string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Issuer != "" {
				issuer <- line.Issuer
			}
		}
		close(issuer)
	})
	select {
	case found := <-issuer:
		if found == "" {
			t.Fatal("the provider ended before it listened")
		}
		return found
	case <-time.After(time.Minute):
		t.Fatal("the provider does not listen")
	}
	return ""
}

// join makes a client for the peer, and a hosts API that takes nothing but the peer's access tokens
// and does not say whose host it is.
func join(t *testing.T, issuer string) (*market, *Client) {
	t.Helper()
	keys := oidc.NewRemoteKeySet(t.Context(), issuer+"/jwks")
	m := open(t, script{hosts: func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		payload, err := keys.VerifySignature(r.Context(), token)
		var claims struct {
			Issuer   string `json:"iss"`
			ClientID string `json:"client_id"`
			Scope    string `json:"scope"`
		}
		header, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
		if err != nil || !strings.Contains(string(header), `"typ":"at+jwt"`) || json.Unmarshal(payload, &claims) != nil ||
			claims.Issuer != issuer || claims.ClientID != clientID || !slices.Contains(strings.Fields(claims.Scope), "host:enroll") {
			refuses(401, "unauthorized", fmt.Sprintf("Token %s %s: %v", header, payload, err))(w, r)
			return
		}
		answer := credential()
		delete(answer, "owner")
		answerJSON(w, http.StatusCreated, answer)
	}})
	return m, m.client(t, func(o *Options) { o.Issuer, o.AllowInsecureLoopback = issuer, true })
}

var (
	formAction = regexp.MustCompile(`<form [^>]*action="([^"]+)"`)
	hidden     = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)"`)
	abortLink  = regexp.MustCompile(`href="([^"]+/abort)"`)
)

// person signs in at the peer: goes to an address, fills in every form there is, and ends at a page
// without one.
func person(ctx context.Context, address string, declines bool) (visited, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return visited{}, err
	}
	browser := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	page, err := visit(ctx, browser, address)
	for range 10 {
		action := formAction.FindStringSubmatch(page.text)
		if err != nil || action == nil {
			return page, err
		}
		if abort := abortLink.FindStringSubmatch(page.text); declines && abort != nil {
			var there *url.URL
			if there, err = page.url.Parse(html.UnescapeString(abort[1])); err != nil {
				return page, err
			}
			return visit(ctx, browser, there.String())
		}
		form := url.Values{}
		for _, field := range hidden.FindAllStringSubmatch(page.text, -1) {
			form.Set(field[1], html.UnescapeString(field[2]))
		}
		if strings.Contains(page.text, `name="login"`) {
			form.Set("login", "ada")
			form.Set("password", "lovelace")
		}
		last := declines && strings.Contains(page.text, `name="abort"`)
		if last {
			form.Set("abort", "yes")
		}
		page, err = submit(ctx, browser, page.url, html.UnescapeString(action[1]), form)
		if last {
			return page, err
		}
	}
	return page, errors.New("there is no end to the forms")
}

func submit(ctx context.Context, browser *http.Client, at *url.URL, action string, form url.Values) (visited, error) {
	there, err := at.Parse(action)
	if err != nil {
		return visited{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, there.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return visited{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := browser.Do(req)
	if err != nil {
		return visited{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return visited{res.Request.URL, res.StatusCode, res.Header, string(body)}, err
}

func TestPeer(t *testing.T) {
	issuer := peer(t)
	t.Run("browser", func(t *testing.T) {
		m, c := join(t, issuer)
		r := m.signIn(t, c, func(p Prompt) (visited, error) { return person(t.Context(), p.URL, false) })
		if r.err != nil || r.credential.Key.Reveal() != hostKey || r.credential.Owner != "ada@example.com" {
			t.Errorf("got %+v, %v", r.credential, r.err)
		}
		if r.pageErr != nil || r.page.url.Path != "/done" || !strings.Contains(r.page.text, "ada@example.com") {
			t.Errorf("the browser ends at %v: %v\n%s", r.page.url, r.pageErr, r.page.text)
		}
	})
	t.Run("declined", func(t *testing.T) {
		m, c := join(t, issuer)
		r := m.signIn(t, c, func(p Prompt) (visited, error) { return person(t.Context(), p.URL, true) })
		if r.err == nil || !strings.Contains(r.err.Error(), "declined in the browser (access_denied") {
			t.Errorf("got %v", r.err)
		}
		if r.pageErr != nil || !strings.Contains(r.page.text, "did not work") {
			t.Errorf("the browser ends at %v: %v\n%s", r.page.url, r.pageErr, r.page.text)
		}
	})
	t.Run("other redirect address", func(t *testing.T) {
		m, c := join(t, issuer)
		r := m.signIn(t, c, func(p Prompt) (visited, error) {
			page, err := person(t.Context(), strings.Replace(p.URL, "127.0.0.1%3A", "localhost%3A", 1), false)
			if err != nil || page.status != http.StatusBadRequest || !strings.Contains(page.text, "redirect_uri") {
				t.Errorf("the provider takes localhost: %v %+v", err, page)
			}
			return person(t.Context(), p.URL, false) // nothing has come of it
		})
		if r.err != nil || r.pageErr != nil {
			t.Errorf("got %v, %v", r.err, r.pageErr)
		}
	})
	t.Run("unknown client", func(t *testing.T) {
		m, c := join(t, issuer)
		c.clientID, c.times.person = "someone-else", 3*time.Second
		r := m.signIn(t, c, func(p Prompt) (visited, error) { return person(t.Context(), p.URL, false) })
		if r.err == nil || !strings.Contains(r.err.Error(), "Nobody finished") || r.page.status != http.StatusBadRequest {
			t.Errorf("got %v, %+v", r.err, r.page)
		}
	})
	t.Run("no challenge", func(t *testing.T) {
		m, c := join(t, issuer)
		r := m.signIn(t, c, func(p Prompt) (visited, error) {
			u, err := url.Parse(p.URL)
			if err != nil {
				return visited{}, err
			}
			q := u.Query()
			q.Del("code_challenge")
			u.RawQuery = q.Encode()
			return person(t.Context(), u.String(), false)
		})
		if r.err == nil || !strings.Contains(r.err.Error(), "invalid_request") {
			t.Errorf("got %v", r.err)
		}
	})
	t.Run("challenge of another", func(t *testing.T) {
		m, c := join(t, issuer)
		r := m.signIn(t, c, func(p Prompt) (visited, error) {
			u, err := url.Parse(p.URL)
			if err != nil {
				return visited{}, err
			}
			q := u.Query()
			q.Set("code_challenge", strings.Repeat("A", 43))
			u.RawQuery = q.Encode()
			return person(t.Context(), u.String(), false)
		})
		if r.err == nil || !strings.Contains(r.err.Error(), "invalid_grant") {
			t.Errorf("got %v", r.err)
		}
	})
	for name, declines := range map[string]bool{"code": false, "code, declined": true} {
		t.Run(name, func(t *testing.T) {
			_, c := join(t, issuer)
			var driving sync.WaitGroup
			var page visited
			var pageErr error
			got, err := c.Device(t.Context(), someHost(), func(p Prompt) {
				if p.UserCode == "" || !strings.Contains(p.URL, p.UserCode) {
					t.Errorf("it shows %+v", p)
				}
				driving.Go(func() { page, pageErr = person(t.Context(), p.URL, declines) })
			})
			driving.Wait()
			if pageErr != nil {
				t.Errorf("the browser: %v\n%s", pageErr, page.text)
			}
			if !declines && (err != nil || got.Key.Reveal() != hostKey || got.Owner != "ada@example.com") {
				t.Errorf("got %+v, %v", got, err)
			}
			if declines && (err == nil || !strings.Contains(err.Error(), "declined on the other device")) {
				t.Errorf("got %v", err)
			}
		})
	}
}
