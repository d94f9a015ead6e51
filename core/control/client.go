package control

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

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Client speaks to the agent of a state directory. Errors are ErrNotRunning where nobody listens
// and *Refusal where the agent would not.
type Client struct {
	version string
	http    *http.Client
}

// NewClient makes a client that says it is version. It connects anew for every call, so it may
// outlive agents.
func NewClient(stateDir, version string) *Client {
	return &Client{version: version, http: &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, stateDir) },
		DisableKeepAlives: true,
	}}}
}

// Identity asks who listens; it is answered also while the agent is still starting.
func (c *Client) Identity(ctx context.Context) (Identity, error) {
	return call[Identity](ctx, c, verbTimeout, http.MethodGet, "agent", nil)
}

// Status asks for the picture of this moment.
func (c *Client) Status(ctx context.Context) (agent.Status, error) {
	return call[agent.Status](ctx, c, verbTimeout, http.MethodGet, "status", nil)
}

// Watch yields the picture at once and after each change, until ctx ends or the agent has gone. An
// error comes last.
func (c *Client) Watch(ctx context.Context) iter.Seq2[agent.Status, error] {
	return func(yield func(agent.Status, error) bool) {
		response, err := c.do(ctx, http.MethodGet, "watch", nil)
		if err != nil {
			yield(agent.Status{}, err)
			return
		}
		defer response.Body.Close()
		lines := json.NewDecoder(response.Body)
		for {
			var status agent.Status
			err := lines.Decode(&status)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || ctx.Err() != nil {
				return // gone, quickly or slowly
			}
			if !yield(status, err) || err != nil {
				return
			}
		}
	}
}

// Pause takes no new rentals until the time is there; zero: until Resume.
func (c *Client) Pause(ctx context.Context, until time.Time) error {
	return c.post(ctx, "pause", pauseRequest{until})
}

// Resume ends a pause or a drain.
func (c *Client) Resume(ctx context.Context) error { return c.post(ctx, "resume", nil) }

// Drain takes no new rentals and pauses when the last has ended; at the deadline it ends them. Zero:
// no deadline.
func (c *Client) Drain(ctx context.Context, deadline time.Time) error {
	return c.post(ctx, "drain", drainRequest{deadline})
}

// SignIn begins to sign this host in, "" in the agent's way, and says where a person goes on; one that is
// under way already is told again. What comes of it shows in the status.
func (c *Client) SignIn(ctx context.Context, how account.Method) (account.SigningIn, error) {
	return call[account.SigningIn](ctx, c, accountTimeout, http.MethodPost, "sign-in", signInRequest{how})
}

// CancelSignIn ends a sign-in that is under way.
func (c *Client) CancelSignIn(ctx context.Context) error { return c.post(ctx, "sign-in/cancel", nil) }

// SignOut gives the host key back and forgets it. Rentals run on.
func (c *Client) SignOut(ctx context.Context) (account.SignedOut, error) {
	return call[account.SignedOut](ctx, c, accountTimeout, http.MethodPost, "sign-out", nil)
}

// RotateKey exchanges the host key for a new one.
func (c *Client) RotateKey(ctx context.Context) error {
	_, err := call[any](ctx, c, accountTimeout, http.MethodPost, "rotate-key", nil)
	return err
}

// Retry makes the agent try at once to reach the backend, where it waits for its next try.
func (c *Client) Retry(ctx context.Context) error { return c.post(ctx, "retry", nil) }

// Quit makes the agent leave. It returns when the agent has understood, not when it has gone.
func (c *Client) Quit(ctx context.Context, how agent.How) error {
	return c.post(ctx, "quit", quitRequest{how})
}

// EndRental ends one rental.
func (c *Client) EndRental(ctx context.Context, id string) error {
	return c.post(ctx, "rentals/"+url.PathEscape(id)+"/end", nil)
}

// Logs gives the newest output of a rental: at most tail lines (0: the agent's choice), none older
// than since (zero: any).
func (c *Client) Logs(ctx context.Context, id string, tail int, since time.Time) (Logs, error) {
	query := url.Values{}
	if tail != 0 {
		query.Set("tail", strconv.Itoa(tail))
	}
	if !since.IsZero() {
		query.Set("since", since.Format(time.RFC3339Nano))
	}
	return call[Logs](ctx, c, logsTimeout, http.MethodGet, "rentals/"+url.PathEscape(id)+"/logs?"+query.Encode(), nil)
}

// SpeedTest measures the network; it takes a while.
func (c *Client) SpeedTest(ctx context.Context) (hardware.Network, error) {
	return call[hardware.Network](ctx, c, testTimeout, http.MethodPost, "speedtest", nil)
}

// Images lists the images that were pulled for rentals and are still there.
func (c *Client) Images(ctx context.Context) (rental.ImageCache, error) {
	return call[rental.ImageCache](ctx, c, verbTimeout, http.MethodGet, "images", nil)
}

// PruneImages removes those of them that are neither in use nor kept; it may take a while.
func (c *Client) PruneImages(ctx context.Context) (rental.PrunedImages, error) {
	return call[rental.PrunedImages](ctx, c, pruneTimeout, http.MethodPost, "images/prune", nil)
}

func (c *Client) post(ctx context.Context, path string, body any) error {
	_, err := call[any](ctx, c, verbTimeout, http.MethodPost, path, body)
	return err
}

func call[T any](ctx context.Context, c *Client, timeout time.Duration, method, path string, body any) (T, error) {
	var result T
	// The agent's own bound runs out first and says more.
	ctx, cancel := context.WithTimeout(ctx, furnishedIn+timeout+writeTimeout)
	defer cancel()
	response, err := c.do(ctx, method, path, body)
	if err != nil {
		return result, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswerBytes)).Decode(&result); err != nil {
		return result, fmt.Errorf("understanding the agent's answer: %w", err)
	}
	return result, nil
}

// do sends a request and turns every answer that is no success into an error.
func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	if body == nil {
		content = nil
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+hostName+"/v1/"+path, bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	request.Header.Set(versionHeader, c.version)
	response, err := c.http.Do(request)
	if err != nil {
		return nil, unwrapDial(err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	var refusal Refusal
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswerBytes)).Decode(&refusal); err != nil || refusal.Message == "" {
		return nil, fmt.Errorf("asking the agent (version %q): answered %s", response.Header.Get(versionHeader), response.Status)
	}
	return nil, &refusal
}

// unwrapDial drops the request's address, which is the same for all and says nothing to a person.
func unwrapDial(err error) error {
	if errors.Is(err, ErrNotRunning) {
		return ErrNotRunning
	}
	if outer, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("asking the agent: %w", outer.Err)
	}
	return err
}
