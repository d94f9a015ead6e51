//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/distributedcompute/host-agent/sandbox/engine"
)

// docker asks the engine itself, past the agent and its tap.
type docker struct{ client *http.Client }

func dialDocker(host string) docker { return docker{engine.Client(host)} }

// do makes a request; body is sent as it is, if it is a reader, else as JSON, and the answer is decoded into result,
// if that is not nil.
func (d docker) do(ctx context.Context, method, path string, body, result any) error {
	var sent io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case io.Reader:
		sent, kind = b, "application/x-tar"
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://docker/v1.41"+path, sent)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", kind)
	response, err := d.client.Do(request)
	if err != nil {
		return fmt.Errorf("asking the engine: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("reading the engine's answer: %w", err)
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, bytes.TrimSpace(answer))
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer, result)
}

// made is the engine's answer to what was made.
type made struct {
	ID string `json:"Id"`
}

// container is what the parts want to know of one.
type container struct {
	ID     string `json:"Id"`
	Name   string
	Config struct{ Labels map[string]string }
	State  struct {
		Running   bool
		Pid       int
		StartedAt string
	}
	HostConfig struct {
		NetworkMode string
		StorageOpt  map[string]string
	}
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress, Gateway string }
		Ports    map[string][]struct{ HostIP, HostPort string }
	}
}

func (d docker) inspect(ctx context.Context, id string) (container, error) {
	var c container
	err := d.do(ctx, http.MethodGet, "/containers/"+id+"/json", nil, &c)
	return c, err
}
