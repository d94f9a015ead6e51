package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/rental"
)

const maxTail = 5000 // lines of a rental's output

func status(_ context.Context, host Host, _ *http.Request) (any, error) { return host.Status(), nil }

func pause(ctx context.Context, host Host, r *http.Request) (any, error) {
	var request pauseRequest
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	return nil, host.Pause(ctx, request.Until)
}

func resume(ctx context.Context, host Host, _ *http.Request) (any, error) {
	return nil, host.Resume(ctx)
}

func drain(ctx context.Context, host Host, r *http.Request) (any, error) {
	var request drainRequest
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	return nil, host.Drain(ctx, request.Deadline)
}

func signIn(ctx context.Context, host Host, r *http.Request) (any, error) {
	var request signInRequest
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	switch request.Method {
	case "", account.Browser, account.Device:
		return host.SignIn(ctx, request.Method)
	}
	return nil, invalid("method: takes browser, device or nothing")
}

func cancelSignIn(ctx context.Context, host Host, _ *http.Request) (any, error) {
	return nil, host.CancelSignIn(ctx)
}

func signOut(ctx context.Context, host Host, _ *http.Request) (any, error) {
	return host.SignOut(ctx)
}

func rotateKey(ctx context.Context, host Host, _ *http.Request) (any, error) {
	return nil, host.RotateKey(ctx)
}

func retry(_ context.Context, host Host, _ *http.Request) (any, error) {
	host.Retry()
	return nil, nil
}

func quit(_ context.Context, host Host, r *http.Request) (any, error) {
	var request quitRequest
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	switch request.How {
	case agent.LeaveRentals, agent.AfterRentals, agent.EndingRentals:
		host.Quit(request.How)
		return nil, nil
	}
	return nil, invalid("how: takes leave, after or ending")
}

func endRental(ctx context.Context, host Host, r *http.Request) (any, error) {
	id, err := rental.ParseID(r.PathValue("id"))
	if err != nil {
		return nil, invalid(err.Error())
	}
	return nil, host.EndRental(ctx, id)
}

func logs(ctx context.Context, host Host, r *http.Request) (any, error) {
	id, err := rental.ParseID(r.PathValue("id"))
	if err != nil {
		return nil, invalid(err.Error())
	}
	tail, since := 0, time.Time{}
	if text := r.URL.Query().Get("tail"); text != "" {
		if tail, err = strconv.Atoi(text); err != nil || tail < 1 || tail > maxTail {
			return nil, invalid("tail: takes a number from 1 to 5000")
		}
	}
	if text := r.URL.Query().Get("since"); text != "" {
		if since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return nil, invalid("since: takes a time such as 2026-01-02T15:04:05Z")
		}
	}
	text, truncated, err := host.Logs(ctx, id, tail, since)
	return Logs{text, truncated}, err
}

func speedTest(ctx context.Context, host Host, _ *http.Request) (any, error) {
	return host.SpeedTest(ctx)
}

func images(ctx context.Context, host Host, _ *http.Request) (any, error) { return host.Images(ctx) }

func pruneImages(ctx context.Context, host Host, _ *http.Request) (any, error) {
	return host.PruneImages(ctx)
}

func invalid(message string) error {
	return &Refusal{Code: string(rental.CodeInvalid), Message: message}
}

// decode reads a request's body; an empty one is the zero value.
func decode(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return invalid("the request's body: " + err.Error())
	}
	return nil
}
