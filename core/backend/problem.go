package backend

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/gorilla/websocket"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// setback is why there is no connection (any more): one sentence for a person, and what it means
// for the next try.
type setback struct {
	problem    string
	kind       kind
	retryAfter time.Duration // what the server asked for; 0: nothing
	cause      error         // for the log
}

// Error implements error.
func (s *setback) Error() string { return s.problem }

// Unwrap gives the cause.
func (s *setback) Unwrap() error { return s.cause }

// kind sorts setbacks by what they ask of the next try.
type kind int

const (
	ordinary   kind = iota
	local           // the cause is on this machine: no herd comes back with us
	keyless         // there is no key to sign on with; nothing was dialled
	refused         // the backend itself says that the key is no good
	untrusted       // the server could not prove who it is
	restarting      // close code 1012
	overloaded      // close code 1013
	replaced        // close code 4001: another agent has signed on with the same key
)

// phase is how far a connection got.
type phase string

const (
	connecting phase = "connecting"
	securing   phase = "securing"
	upgrading  phase = "upgrading"
)

// explainDial says why a connection could not be made. server is the backend's host and port, peer
// what was dialled: the same, or a proxy.
func explainDial(err error, at phase, server, peer string) *setback {
	if s, ok := errors.AsType[*setback](err); ok {
		return s
	}
	s := &setback{cause: err}
	if at == securing {
		if problem, ok := explainTLS(err, server); ok {
			s.problem, s.kind = problem, untrusted
			return s
		}
	}
	name := server
	if peer != "" && peer != server {
		name = "The proxy " + peer
	}
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		s.problem = fmt.Sprintf("The name %s cannot be found; check the backend's address and this machine's network.", dns.Name)
	case errors.As(err, &dns):
		s.problem = fmt.Sprintf("The name %s cannot be looked up because DNS does not answer; check this machine's network.", dns.Name)
	case isRefused(err):
		s.problem = name + " refuses connections: the backend is down, or its address or port is wrong."
	case isUnreachable(err):
		s.problem = name + " cannot be reached from here; check this machine's network."
	case errors.As(err, &timeout) && timeout.Timeout():
		s.problem = fmt.Sprintf("%s did not answer in time while %s; the backend is down, or a firewall is in the way.", name, at)
	case isReset(err):
		s.problem = fmt.Sprintf("%s broke the connection off while %s; the backend is restarting, or something is in the way.", name, at)
	default:
		s.problem = fmt.Sprintf("%s failed while %s: %s.", name, at, clean(err.Error()))
	}
	return s
}

// explainTLS says what is wrong with the server's proof of who it is. false: the handshake broke
// off for another reason.
func explainTLS(err error, server string) (string, bool) {
	host, _, _ := net.SplitHostPort(server)
	var (
		unknown  x509.UnknownAuthorityError
		wrong    x509.HostnameError
		invalid  x509.CertificateInvalidError
		insecure x509.InsecureAlgorithmError
		plain    tls.RecordHeaderError
		broken   *net.OpError
		verify   *tls.CertificateVerificationError
	)
	switch {
	case errors.Is(err, errWeakKey):
		return fmt.Sprintf("The certificate of %s has a key that is too short to be trusted; the backend needs a new one.", host), true
	case errors.As(err, &wrong):
		return fmt.Sprintf("The certificate of the server at %s is for another name; check the backend's address.", server), true
	case errors.As(err, &invalid):
		return explainInvalid(invalid, host), true
	case errors.As(err, &insecure), errors.As(err, &unknown) && isSHA1(unknown.Cert):
		return fmt.Sprintf("The certificate of %s is signed with SHA-1, which can be forged; the backend needs a new one.", host), true
	case errors.As(err, &unknown) && unknown.Cert != nil && unknown.Cert.Issuer.String() == unknown.Cert.Subject.String():
		return fmt.Sprintf("The certificate of %s is signed by itself and not trusted; if this backend is private, name its CA file in backend.ca_file (if it is named there, it is the wrong one).", host), true
	case errors.As(err, &unknown):
		return fmt.Sprintf("The certificate of %s is signed by an authority this machine does not trust; if this backend is private, name its CA file in backend.ca_file (if it is named there, it is the wrong one).", host), true
	case errors.As(err, &plain):
		return fmt.Sprintf("The server at %s does not speak TLS; check the port of the backend's address.", server), true
	case errors.As(err, &verify):
		return fmt.Sprintf("The certificate of %s cannot be verified: %s.", host, clean(verify.Err.Error())), true
	case strings.Contains(err.Error(), "protocol version"):
		return fmt.Sprintf("%s speaks only a TLS version that is too old to be safe; it must speak TLS 1.2 or newer.", host), true
	case errors.As(err, &broken) && broken.Op == "remote error": // an alert; crypto/tls has no type for it
		return fmt.Sprintf("%s refuses the TLS connection (%s).", host, clean(broken.Err.Error())), true
	case strings.HasPrefix(err.Error(), "tls: "):
		return fmt.Sprintf("The TLS connection to %s failed: %s.", host, clean(err.Error())), true
	}
	return "", false
}

func isSHA1(cert *x509.Certificate) bool {
	return cert != nil && (cert.SignatureAlgorithm == x509.SHA1WithRSA || cert.SignatureAlgorithm == x509.ECDSAWithSHA1)
}

func explainInvalid(invalid x509.CertificateInvalidError, host string) string {
	switch invalid.Reason {
	case x509.Expired:
		if time.Now().Before(invalid.Cert.NotBefore) {
			return fmt.Sprintf("The certificate of %s is not valid before %s; check this machine's clock.", host, invalid.Cert.NotBefore.Format(time.DateOnly))
		}
		return fmt.Sprintf("The certificate of %s expired on %s; the backend needs a new one, unless this machine's clock is wrong.", host, invalid.Cert.NotAfter.Format(time.DateOnly))
	case x509.CANotAuthorizedForThisName:
		return fmt.Sprintf("The certificate of %s is signed by an authority that may not sign for that name.", host)
	case x509.IncompatibleUsage:
		return fmt.Sprintf("The certificate of %s is not made for servers; the backend needs another one.", host)
	}
	return fmt.Sprintf("The certificate of %s is not valid: %s.", host, clean(invalid.Error()))
}

// explainAnswer says why a server that answered HTTP did not open a WebSocket.
func explainAnswer(answer *http.Response, body []byte, server string, now time.Time) *setback {
	status := answer.StatusCode
	s := &setback{cause: fmt.Errorf("upgrading: HTTP status %d", status)}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		message, own := ownRefusal(body)
		if !own {
			s.problem = fmt.Sprintf("Something between this machine and %s asks for a sign-in of its own (HTTP %d): a captive portal or a proxy.", server, status)
			break
		}
		s.kind = refused
		s.problem = "The backend refuses this host's key; sign in again."
		if message != "" { // the backend's own words say what to do
			s.problem = "The backend refuses this host's key: " + strings.TrimSuffix(message, ".") + "."
		}
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		s.retryAfter = retryAfter(answer.Header.Get("Retry-After"), now)
		s.problem = fmt.Sprintf("The backend is overloaded or being maintained (HTTP %d); the next try waits for it.", status)
	case status >= 300 && status < 400:
		s.problem = fmt.Sprintf("%s points elsewhere (HTTP %d%s), which is not followed: a captive portal, or the backend's address is wrong.", server, status, place(answer))
	case status >= 200 && status < 300:
		s.problem = fmt.Sprintf("%s answers as a web page (HTTP %d), not as a backend: a captive portal, or the backend's address is wrong.", server, status)
	case status == http.StatusNotFound:
		s.problem = fmt.Sprintf("%s has no backend at this path (HTTP 404); check the backend's address.", server)
	case status >= 500:
		s.problem = fmt.Sprintf("The backend is in trouble (HTTP %d); it is tried again.", status)
	default:
		s.problem = fmt.Sprintf("%s does not open a WebSocket (HTTP %d); check the backend's address.", server, status)
	}
	return s
}

// ownRefusal reports whether the body is the backend's own way to refuse a key. Of a long body there
// is only the start, so it is read no further than it has to be.
func ownRefusal(body []byte) (message string, own bool) {
	fields(json.NewDecoder(bytes.NewReader(body)), func(top *json.Decoder, name string) bool {
		if name != "error" {
			return skip(top)
		}
		return fields(top, func(inner *json.Decoder, name string) bool {
			switch name {
			case "code":
				var code string
				if inner.Decode(&code) != nil {
					return false
				}
				own = code != ""
				return true
			case "message":
				return inner.Decode(&message) == nil
			}
			return skip(inner)
		})
	})
	return clean(message), own
}

// fields hands the fields of an object to read, until that reports false, and reports whether it came
// to the object's end.
func fields(decoder *json.Decoder, read func(decoder *json.Decoder, name string) bool) bool {
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return false
	}
	for decoder.More() {
		token, err := decoder.Token()
		name, ok := token.(string)
		if err != nil || !ok || !read(decoder, name) {
			return false
		}
	}
	_, err := decoder.Token()
	return err == nil
}

func skip(decoder *json.Decoder) bool {
	var value json.RawMessage
	return decoder.Decode(&value) == nil
}

// place names the host of a redirect, which is all a person needs of it.
func place(answer *http.Response) string {
	to, err := url.Parse(answer.Header.Get("Location"))
	if err != nil || to.Host == "" {
		return ""
	}
	return " to " + clean(to.Host)
}

// retryAfter reads seconds or a date. What is not one asks for nothing.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// explainLoss says why an open connection ended.
func explainLoss(err error) *setback {
	if s, ok := errors.AsType[*setback](err); ok {
		return s
	}
	s := &setback{cause: err}
	closed, isClose := errors.AsType[*websocket.CloseError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case isClose && closed.Code == websocket.CloseServiceRestart:
		s.kind, s.retryAfter = restarting, wish(closed.Text)
		s.problem = "The backend is restarting."
	case isClose && closed.Code == websocket.CloseTryAgainLater:
		s.kind, s.retryAfter = overloaded, wish(closed.Text)
		s.problem = "The backend is overloaded and asks to come back later."
	case isClose && closed.Code == protocol.CloseReplaced:
		s.kind = replaced
		s.problem = "Another agent has signed on with this host's key; only one can serve a node."
	case isClose && closed.Code == websocket.CloseAbnormalClosure:
		s.problem = "The connection to the backend broke."
	case isClose && closed.Code == websocket.ClosePolicyViolation && clean(closed.Text) == "":
		s.problem = "The backend no longer wants this connection (close code 1008); the next try shows whether it still takes this host's key."
	case isClose:
		s.problem = fmt.Sprintf("The backend closed the connection (%d).", closed.Code)
		if reason := clean(closed.Text); reason != "" {
			s.problem = fmt.Sprintf("The backend closed the connection (%d: %s).", closed.Code, strings.TrimSuffix(reason, "."))
		}
	case isNet && timeout.Timeout():
		s.problem = "The backend fell silent, so the connection was given up."
	default:
		s.problem = "The connection to the backend broke."
	}
	return s
}

// wish reads "retry_after=<seconds>" out of the reason of a close.
func wish(reason string) time.Duration {
	_, value, _ := strings.Cut(reason, "retry_after=")
	seconds, _, _ := strings.Cut(value, " ")
	return retryAfter(seconds, time.Time{})
}

// clean makes text from outside fit for one line of a status page.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > 200 {
		text = string(runes[:200]) + "…"
	}
	return text
}
