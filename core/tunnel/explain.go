package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/distributedcompute/host-agent/core/rental"
)

// isRefusal reports whether the relay was reached, but it or its certificate was the obstacle.
func isRefusal(err error) bool {
	_, refused := errors.AsType[*refusal](err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return refused || untrusted || errors.Is(err, errAuthorities)
}

// explain puts the end of a session, or of an attempt to get one, into a sentence for a person.
func explain(err error, terms rental.Terms) string {
	relay := terms.Address
	if refused, ok := errors.AsType[*refusal](err); ok {
		// The server sends text alone; this is its text for a token that is not its own.
		if strings.Contains(refused.text, "token in login doesn't match") {
			return fmt.Sprintf("The relay %s refuses the token of this host; the backend has to hand out a new one.", relay)
		}
		return fmt.Sprintf("The relay %s refuses this host: %s.", relay, quoted(refused.text))
	}
	if untrusted, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Sprintf("The certificate of the relay %s cannot be trusted: %s; nothing was sent to it.", relay, flaw(untrusted.Err, serverName(terms)))
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Sprintf("What answers at %s does not speak TLS, so it cannot be the relay.", relay)
	}
	switch {
	case errors.Is(err, errAuthorities):
		return fmt.Sprintf("The relay %s cannot be verified: %v.", relay, err)
	case errors.Is(err, errNoAnswer):
		return fmt.Sprintf("The relay %s does not answer the login; is it an frp server?", relay)
	case errors.Is(err, errLost):
		return fmt.Sprintf("The connection to the relay %s was lost; connecting again.", relay)
	}
	return fmt.Sprintf("The relay %s cannot be reached: %s.", relay, reason(err))
}

// flaw says what is wrong with a certificate.
func flaw(err error, name string) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "no authority this host trusts has signed it"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "it is not made out for " + name
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "it has expired or is not valid yet"
	}
	return err.Error()
}

// reason is why a connection could not be made.
func reason(err error) string {
	if unknown, ok := errors.AsType[*net.DNSError](err); ok && unknown.IsNotFound {
		return "the name " + unknown.Name + " is unknown"
	}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return strings.TrimSuffix(number.Error(), ".") // some systems end theirs like a sentence
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, io.EOF):
		return "it closed the connection"
	}
	return err.Error()
}

// refusedRoute puts the relay's refusal of a route into a sentence. The server sends text alone, so
// its kinds are told apart by the words of frps; with other words they are shown as they are.
func refusedRoute(port rental.Port, text, relay string) *rental.Failure {
	has := func(words string) bool { return strings.Contains(text, words) }
	switch {
	case has("port already used"), has("port unavailable"):
		return rental.Failf(rental.CodePortUnavailable, "Public port %d is taken on the relay %s; asking for it again.", port.Public, relay)
	case has("port not allowed"):
		return rental.Failf(rental.CodePortUnavailable, "The relay %s does not allow public port %d.", relay, port.Public)
	case has("max_ports_per_client"):
		return rental.Failf(rental.CodePortUnavailable, "The relay %s allows this host no more ports, so public port %d stays closed.", relay, port.Public)
	case has("already exists"), has("already in use"):
		return rental.Failf(rental.CodePortUnavailable, "The relay %s still holds public port %d for an earlier connection of this host; asking for it again.", relay, port.Public)
	}
	return rental.Failf(rental.CodeTunnelFailed, "The relay %s refuses public port %d: %s.", relay, port.Public, quoted(text))
}

// quoted makes foreign text fit to be shown: short and without control characters.
func quoted(text string) string {
	shown := []rune(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text))
	return strconv.Quote(string(shown[:min(len(shown), 200)]))
}
