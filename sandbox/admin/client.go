package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

// Client talks to the sandbox that serves a socket. Its errors are sentences for the person who asked.
type Client struct {
	http   *http.Client
	socket string
	up     string
}

// NewClient makes a client; it connects with the first call. up is the command line that starts a
// sandbox, for people who forgot to.
func NewClient(socket, up string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}, socket, up}
}

// Nodes lists the hosts.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	return call[[]Node](ctx, c, http.MethodGet, "/nodes")
}

// Earnings lists what the hosts have earned.
func (c *Client) Earnings(ctx context.Context) ([]Earnings, error) {
	return call[[]Earnings](ctx, c, http.MethodGet, "/earnings")
}

// Rentals lists the rentals.
func (c *Client) Rentals(ctx context.Context) ([]Rental, error) {
	return call[[]Rental](ctx, c, http.MethodGet, "/rentals")
}

// Rental looks one up.
func (c *Client) Rental(ctx context.Context, id string) (Rental, error) {
	return call[Rental](ctx, c, http.MethodGet, "/rentals/"+url.PathEscape(id))
}

// Rent orders a rental and gives its statuses until it runs or has ended. An error is the last thing given.
func (c *Client) Rent(ctx context.Context, order market.Rent) iter.Seq2[protocol.InstanceStatus, error] {
	return c.follow(ctx, "/rentals", order)
}

// Stop ends a rental and gives its statuses from then on, up to the final one. An error is the last thing given.
func (c *Client) Stop(ctx context.Context, rental string) iter.Seq2[protocol.InstanceStatus, error] {
	return c.follow(ctx, "/rentals/"+url.PathEscape(rental)+"/stop", struct{}{})
}

// Logs fetches a rental's newest output; tail 0 is as much as the host gives by itself.
func (c *Client) Logs(ctx context.Context, rental string, tail int) (protocol.Logs, error) {
	path := "/rentals/" + url.PathEscape(rental) + "/logs"
	if tail > 0 {
		path += "?tail=" + strconv.Itoa(tail)
	}
	return call[protocol.Logs](ctx, c, http.MethodGet, path)
}

// Drain asks the host to take no new rentals, and to end those it has if stopInstances is set.
func (c *Client) Drain(ctx context.Context, stopInstances bool) error {
	_, err := call[protocol.CommandResult](ctx, c, http.MethodPost, "/drain?stop_instances="+strconv.FormatBool(stopInstances))
	return err
}

// Resume undoes Drain.
func (c *Client) Resume(ctx context.Context) error {
	_, err := call[protocol.CommandResult](ctx, c, http.MethodPost, "/resume")
	return err
}

// Notice sends the host a message for its owner.
func (c *Client) Notice(ctx context.Context, notice protocol.Notice) error {
	values := url.Values{"title": {notice.Title}, "body": {notice.Body}, "url": {notice.URL}, "severity": {notice.Severity}}
	_, err := call[protocol.CommandResult](ctx, c, http.MethodPost, "/notice?"+values.Encode())
	return err
}

// SpeedTest has the host measure its network.
func (c *Client) SpeedTest(ctx context.Context) (protocol.Network, error) {
	return call[protocol.Network](ctx, c, http.MethodPost, "/speedtest")
}

// Cut breaks the hosts' connections: abruptly for code 0, else with a WebSocket close code.
func (c *Client) Cut(ctx context.Context, code int) error {
	path := "/cut"
	if code != 0 {
		path += "?code=" + strconv.Itoa(code)
	}
	_, err := call[struct{}](ctx, c, http.MethodPost, path)
	return err
}

// Expire makes every host key unknown.
func (c *Client) Expire(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/expire")
	return err
}

// Restore undoes Expire.
func (c *Client) Restore(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/restore")
	return err
}

// EnrolmentToken makes a token by which as many hosts as uses enrol, within that time.
func (c *Client) EnrolmentToken(ctx context.Context, uses int, within time.Duration) (secret.String, error) {
	query := url.Values{"uses": {strconv.Itoa(uses)}, "within": {within.String()}}
	made, err := call[EnrolmentToken](ctx, c, http.MethodPost, "/enrolment-tokens?"+query.Encode())
	return secret.New(made.Token), err
}

func call[T any](ctx context.Context, c *Client, method, path string) (value T, err error) {
	body, err := c.do(ctx, method, path, nil)
	if err != nil {
		return value, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&value); err != nil {
		return value, fmt.Errorf("reading the sandbox's answer: %w", err)
	}
	return value, nil
}

func (c *Client) follow(ctx context.Context, path string, order any) iter.Seq2[protocol.InstanceStatus, error] {
	return func(yield func(protocol.InstanceStatus, error) bool) {
		text, err := json.Marshal(order)
		if err != nil {
			yield(protocol.InstanceStatus{}, fmt.Errorf("writing the order: %w", err))
			return
		}
		body, err := c.do(ctx, http.MethodPost, path, text)
		if err != nil {
			yield(protocol.InstanceStatus{}, err)
			return
		}
		defer body.Close()
		lines := json.NewDecoder(body)
		for {
			var status protocol.InstanceStatus
			err := lines.Decode(&status)
			if errors.Is(err, io.EOF) || !yield(status, err) || err != nil {
				return
			}
		}
	}
}

// do sends a request and returns the body of a success.
func (c *Client) do(ctx context.Context, method, path string, body []byte) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://sandbox"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
			return nil, fmt.Errorf("no sandbox answers on %s: start one with `%s`", c.socket, c.up)
		}
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer response.Body.Close()
	var refusal failure
	if err := json.NewDecoder(response.Body).Decode(&refusal); err != nil || refusal.Message == "" {
		return nil, fmt.Errorf("the sandbox answered %s", response.Status)
	}
	return nil, errors.New(refusal.Message)
}
