package backend

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
)

// route is the proxy on the way to the backend; nil where there is none.
func (d *dialer) route() (*url.URL, error) {
	if d.proxy == nil {
		return nil, nil
	}
	proxy, err := d.proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: d.url.Host}})
	switch {
	case err != nil: // which may quote a password
		return nil, &setback{problem: "The proxy of this machine's environment has no valid address; check HTTPS_PROXY."}
	case proxy == nil || proxy.Scheme == "http" || proxy.Scheme == "https" || proxy.Scheme == "socks5":
		return proxy, nil
	}
	return nil, &setback{problem: fmt.Sprintf("The proxy of this machine's environment is of an unknown kind (%s); HTTPS_PROXY takes http, https or socks5.", clean(proxy.Scheme))}
}

// proxyAddress is where an HTTP proxy listens.
func proxyAddress(proxy *url.URL) string {
	port := proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[proxy.Scheme]
	}
	return net.JoinHostPort(proxy.Hostname(), port)
}

// through asks the HTTP proxy at the end of conn for a connection to address, within the time of ctx.
func (d *dialer) through(ctx context.Context, conn net.Conn, proxy *url.URL, address string) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // fails only on a closed connection, which the request notices
	}
	if proxy.Scheme == "https" {
		secured := tls.Client(conn, secureConfig(proxy.Hostname(), d.proxyRoots))
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("securing the way to it: %w", err)
		}
		conn = secured
	}
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := request.Write(conn); err != nil {
		return nil, fmt.Errorf("asking for %s: %w", address, err)
	}
	// The reader can go with what it holds: the backend says nothing before the TLS handshake begins.
	answer, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", address, err)
	}
	if answer.StatusCode/100 != 2 {
		return nil, explainProxy(answer.StatusCode, proxyAddress(proxy), address)
	}
	return conn, nil
}

// explainProxy says why a proxy does not connect.
func explainProxy(status int, proxy, address string) *setback {
	s := &setback{cause: fmt.Errorf("connecting through a proxy: HTTP status %d", status)}
	s.problem = fmt.Sprintf("The proxy %s does not connect to %s (HTTP %d); check the proxy and the backend's address.", proxy, address, status)
	if status == http.StatusProxyAuthRequired {
		s.problem = fmt.Sprintf("The proxy %s wants a sign-in; name a user and password that it takes in HTTPS_PROXY, as in http://user:password@host:port.", proxy)
	}
	return s
}
