package engine

import (
	"context"
	"net"
	"net/http"
	"strings"
)

// Client speaks to the engine at an address such as "unix:///…/docker.sock", each time on a new connection, so that
// it outlives the engine's restarts. The host in a request's URL does not matter.
func Client(host string) *http.Client {
	path := strings.TrimPrefix(host, "unix://")
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}
}
