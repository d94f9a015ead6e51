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
	code       string        // the backend's own, where it refuses this host
	retryAfter time.Duration // what the server asked for; 0: nothing
	settle     time.Duration // for which another key may still be on its way here
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
	locked          // there may be a key, and it cannot be read now; nothing was dialled
	refused         // the backend itself says that the key is no good
	barred          // the backend takes the key and not this host: suspended, or too old
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
	code, message := ownRefusal(body)
	own := code != ""
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		if !own {
			s.problem = fmt.Sprintf("Something between this machine and %s asks for a sign-in of its own (HTTP %d): a captive portal or a proxy.", server, status)
			break
		}
		s.refuse(status, code, message)
	case status == http.StatusUpgradeRequired && own:
		s.kind, s.code = barred, protocol.UpgradeRequired
		s.problem = withWords("The backend no longer takes this version of the agent; update it.", "The backend no longer takes this version of the agent: ", message)
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

// refuse is for the backend's own word that this host may not come in.
func (s *setback) refuse(status int, code, message string) {
	s.code = code
	switch {
	case status == http.StatusForbidden && code == protocol.HostSuspended:
		s.kind = barred
		s.problem = withWords("The marketplace has suspended this host.", "The marketplace has suspended this host: ", message)
	case code == protocol.ClockSkew:
		s.kind = untrusted
		s.problem = withWords("The backend finds this machine's clock wrong; set it.", "The backend finds this machine's clock wrong: ", message)
	default:
		s.kind = refused
		s.problem = withWords("The backend refuses this host's key; sign in again.", "The backend refuses this host's key: ", message)
	}
}

// withWords prefers the backend's own words, which say what to do.
func withWords(without, before, words string) string {
	if words == "" {
		return without
	}
	return before + sentence(words)
}

// sentence ends text with one full stop.
func sentence(text string) string { return strings.TrimSuffix(clean(text), ".") + "." }

// ownRefusal gives the code and the words with which the backend itself refuses a host; no code says that
// the body is somebody else's. Of a long body there is only the start, so it is read no further than it
// has to be.
func ownRefusal(body []byte) (code, message string) {
	fields(json.NewDecoder(bytes.NewReader(body)), func(top *json.Decoder, name string) bool {
		if name != "error" {
			return skip(top)
		}
		return fields(top, func(inner *json.Decoder, name string) bool {
			switch name {
			case "code":
				return inner.Decode(&code) == nil
			case "message":
				return inner.Decode(&message) == nil
			}
			return skip(inner)
		})
	})
	return clean(code), clean(message)
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
	case errors.Is(err, errLeft):
		s.problem = "This host has hung up."
	case isClose && closed.Code == websocket.CloseServiceRestart:
		s.kind, s.retryAfter = restarting, wish(closed.Text)
		s.problem = "The backend is restarting."
	case isClose && closed.Code == websocket.CloseTryAgainLater:
		s.kind, s.retryAfter = overloaded, wish(closed.Text)
		s.problem = "The backend is overloaded and asks to come back later."
	case isClose && closed.Code == protocol.CloseReplaced:
		s.kind = replaced
		s.problem = "Another agent has signed on with this host's key; only one can serve a node."
	case isClose && closed.Code == protocol.CloseSignedOut:
		// A key is void as soon as the marketplace has given the next one, which this host has yet to keep.
		s.kind, s.code, s.settle = refused, protocol.Unauthorized, time.Second
		s.problem = "The backend has ended this connection because the host's key is no longer good; sign in again."
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
