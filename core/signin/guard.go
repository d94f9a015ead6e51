package signin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// maxAnswer bounds what is read of any answer, after decompression.
const maxAnswer = 1 << 20

// maxAddress bounds an address that is handed to a browser, in bytes.
const maxAddress = 8 << 10

var (
	errLongAnswer = errors.New("the answer is longer than 1 MiB")
	errNoAnswer   = errors.New("the answer holds nothing")
)

// http makes the client for one flow, with nothing outliving flow. It follows no redirects: they
// would carry a token or a code to where nobody has checked the address.
func (c *Client) http(flow context.Context, transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     &guard{client: c, flow: flow, transport: transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// guard stands before the network. It lets no request go out in the clear, and reads answers whole,
// within bounds of size and time. The OpenID libraries need that: of their requests some know no
// context, and of their answers some have no bound and are never closed.
type guard struct {
	client    *Client
	flow      context.Context
	transport http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.client.checkScheme(req.URL); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(req.Context(), g.client.times.request)
	defer cancel()
	defer context.AfterFunc(g.flow, cancel)()
	req = req.Clone(ctx)
	req.Header.Set("User-Agent", "distributed-agent/"+g.client.version)
	res, err := g.transport.RoundTrip(req)
	if err != nil {
		return nil, errors.Join(g.flow.Err(), err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, errors.Join(g.flow.Err(), err)
	}
	if len(body) > maxAnswer {
		return nil, errLongAnswer
	}
	if string(bytes.TrimSpace(body)) == "null" { // golang.org/x/oauth2 falls over it
		return nil, errNoAnswer
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

// checkScheme lets https pass, and http to this machine where that is allowed.
func (c *Client) checkScheme(u *url.URL) error {
	switch {
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return errors.New("not an https:// address")
	case !c.insecure:
		return errors.New("not an https:// address, and without TLS anybody on the way could read and change what is sent")
	case !loopback(u.Hostname()):
		return errors.New("not an https:// address, and http:// is for this machine only")
	}
	return nil
}

// checkAddress says what is wrong with an address that the provider has named. It may end in a
// browser.
func (c *Client) checkAddress(what, raw string) error {
	if raw == "" {
		return fmt.Errorf("%s is missing", what)
	}
	u, err := url.Parse(raw)
	switch {
	case len(raw) > maxAddress:
		return fmt.Errorf("%s is longer than %d characters", what, maxAddress)
	case err != nil || !visible(raw, 1, maxAddress) || u.Host == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("%s %q is not a plain web address", what, clean(raw))
	}
	if err := c.checkScheme(u); err != nil {
		return fmt.Errorf("%s %s: %w", what, clean(raw), err)
	}
	return nil
}

// checkBase is checkAddress for an address that others are derived from.
func (c *Client) checkBase(what, raw string) error {
	if err := c.checkAddress(what, raw); err != nil {
		return err
	}
	if strings.ContainsAny(raw, "?#") {
		return fmt.Errorf("%s %s must not hold a query", what, raw)
	}
	return nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// problem is an error that is told to a person: one sentence.
type problem struct {
	sentence string
	cause    error // for errors.Is; may be nil
}

// Error implements error.
func (p *problem) Error() string { return p.sentence }

// Unwrap gives the cause.
func (p *problem) Unwrap() error { return p.cause }

func say(cause error, format string, args ...any) error {
	return &problem{fmt.Sprintf(format, args...), cause}
}

// explain says why somebody was not reached. who begins the sentence and names the address.
func explain(err error, who string) error {
	var (
		dns      *net.DNSError
		timeout  net.Error
		unknown  x509.UnknownAuthorityError
		wrong    x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		plain    tls.RecordHeaderError
		location *url.Error
	)
	switch {
	case errors.Is(err, errLongAnswer):
		return say(err, "%s answers with more than 1 MiB, which is not what was asked for; check the address.", who)
	case errors.Is(err, errNoAnswer):
		return say(err, "%s answers with nothing; tell the marketplace.", who)
	case errors.Is(err, context.DeadlineExceeded):
		return say(err, "%s did not answer in time; try again, and check this machine's network.", who)
	case errors.Is(err, context.Canceled):
		return say(err, "This was cancelled.")
	case errors.As(err, &dns) && dns.IsNotFound:
		return say(err, "%s cannot be found; check the address and this machine's network.", who)
	case errors.As(err, &unknown):
		return say(err, "%s shows a certificate of an authority this machine does not trust; if this marketplace is private, name its CA file (if it is named, it is the wrong one).", who)
	case errors.As(err, &wrong):
		return say(err, "%s shows a certificate for another name; check the address.", who)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return say(err, "%s shows a certificate that is not valid today; check this machine's clock.", who)
	case errors.As(err, &verify):
		return say(err, "%s shows a certificate that cannot be verified: %s.", who, clean(verify.Err.Error()))
	case errors.As(err, &plain):
		return say(err, "%s does not speak TLS; check the address and its port.", who)
	case errors.As(err, &timeout) && timeout.Timeout():
		return say(err, "%s did not answer in time; try again, and check this machine's network.", who)
	case errors.As(err, &location):
		err = location.Err // the address is in who
	}
	return say(err, "%s cannot be reached: %s.", who, strings.TrimSuffix(clean(err.Error()), "."))
}

// lasting reports an error of the network that another try would only repeat.
func lasting(err error) bool {
	_, distrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return distrusted || errors.Is(err, errLongAnswer) || errors.Is(err, errNoAnswer)
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// visible reports whether text is min to max characters of ASCII without spaces.
func visible(text string, least, most int) bool {
	return len(text) >= least && len(text) <= most &&
		!strings.ContainsFunc(text, func(r rune) bool { return r < '!' || r > '~' })
}

// clean makes text from outside fit for one line: 200 characters that print.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > 200 {
		text = string(runes[:199]) + "…"
	}
	return text
}
