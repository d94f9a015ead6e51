package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Visit goes through the pages behind an address as a person does with a browser: signs in as who
// says, then allows or denies. It returns the page at which that ends: the application's own, or one
// that does not go on.
func (p *Provider) Visit(ctx context.Context, address string, who User, allow bool) (string, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots}, DisableKeepAlives: true}
	browser := &http.Client{Jar: jar, Transport: transport, Timeout: 30 * time.Second}
	decision := "deny"
	if allow {
		decision = "allow"
	}
	fields := url.Values{"email": {who.Email}, "password": {who.Password.Reveal()}, "decision": {decision}}

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", fmt.Errorf("visiting a sign-in: %w", err)
	}
	const pages = 4 // a device's: code, sign-in, consent, end
	for range pages {
		response, err := browser.Do(request)
		if err != nil {
			return "", fmt.Errorf("visiting a sign-in: %w", err)
		}
		text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
		_ = response.Body.Close()
		if err != nil {
			return "", fmt.Errorf("visiting a sign-in: %w", err)
		}
		content := string(text)
		action := formAction.FindStringSubmatch(content)
		if action == nil || strings.Contains(content, `role="alert"`) {
			return content, nil
		}
		for _, input := range formValue.FindAllStringSubmatch(content, -1) {
			if !fields.Has(input[1]) {
				fields.Set(input[1], html.UnescapeString(input[2]))
			}
		}
		to, err := response.Request.URL.Parse(action[1])
		if err != nil {
			return "", fmt.Errorf("visiting a sign-in: %w", err)
		}
		request, err = http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(fields.Encode()))
		if err != nil {
			return "", fmt.Errorf("visiting a sign-in: %w", err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return "", errors.New("visiting a sign-in: it does not come to an end")
}

var (
	formAction = regexp.MustCompile(`<form method="post" action="([^"]+)">`)
	formValue  = regexp.MustCompile(`<input [^>]*name="([a-z_]+)"[^>]* value="([^"]*)"`)
)
