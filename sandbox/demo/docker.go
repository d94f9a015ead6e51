package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// docker is as much of the Docker Engine's API as it takes to look over the agent's shoulder, and
// to take away what it would leave.
type docker struct {
	host string // "unix:///…"
	http *http.Client
}

// errGone says that the engine does not have what was asked for.
var errGone = errors.New("it is not there")

func newDocker(host string) (*docker, error) {
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return nil, fmt.Errorf("DOCKER_HOST=%s: the demo reaches a Docker Engine on this machine alone, by unix://", host)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &docker{host, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}, nil
}

// version asks the engine for its version, and so whether it answers.
func (d *docker) version(ctx context.Context) (string, error) {
	var answer struct{ Version string }
	err := d.call(ctx, http.MethodGet, "/version", &answer)
	return answer.Version, err
}

// networksOf gives the ids of a container's networks.
func (d *docker) networksOf(ctx context.Context, container string) ([]string, error) {
	var answer struct {
		NetworkSettings struct {
			Networks map[string]struct{ NetworkID string }
		}
	}
	if err := d.call(ctx, http.MethodGet, "/containers/"+url.PathEscape(container)+"/json", &answer); err != nil {
		return nil, err
	}
	var ids []string
	for _, network := range answer.NetworkSettings.Networks {
		ids = append(ids, network.NetworkID)
	}
	return ids, nil
}

// gone reports whether the engine has no such thing, "/containers/<id>/json" or "/networks/<id>".
func (d *docker) gone(ctx context.Context, path string) (bool, error) {
	err := d.call(ctx, http.MethodGet, path, nil)
	if errors.Is(err, errGone) {
		return true, nil
	}
	return false, err
}

// clear removes every image of a registry, and the containers that were made of them.
func (d *docker) clear(ctx context.Context, registry string) error {
	var images []struct {
		ID                    string `json:"Id"`
		RepoTags, RepoDigests []string
	}
	if err := d.call(ctx, http.MethodGet, "/images/json", &images); err != nil {
		return fmt.Errorf("listing images: %w", err)
	}
	var failures []error
	for _, image := range images {
		if !strings.HasPrefix(strings.Join(append(image.RepoTags, image.RepoDigests...), " "), registry+"/") {
			continue
		}
		failures = append(failures,
			d.clearContainers(ctx, image.ID),
			ignoreGone(d.call(ctx, http.MethodDelete, "/images/"+image.ID+"?force=1", nil)))
	}
	return errors.Join(failures...)
}

func (d *docker) clearContainers(ctx context.Context, image string) error {
	var containers []struct {
		ID string `json:"Id"`
	}
	filters := url.QueryEscape(fmt.Sprintf(`{"ancestor":[%q]}`, image))
	if err := d.call(ctx, http.MethodGet, "/containers/json?all=1&filters="+filters, &containers); err != nil {
		return fmt.Errorf("listing containers: %w", err)
	}
	var failures []error
	for _, container := range containers {
		networks, err := d.networksOf(ctx, container.ID)
		failures = append(failures, ignoreGone(err),
			ignoreGone(d.call(ctx, http.MethodDelete, "/containers/"+container.ID+"?force=1&v=1", nil)))
		for _, network := range networks {
			failures = append(failures, ignoreGone(d.call(ctx, http.MethodDelete, "/networks/"+network, nil)))
		}
	}
	return errors.Join(failures...)
}

func ignoreGone(err error) error {
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// call makes a request and decodes the answer into result, if that is not nil.
func (d *docker) call(ctx context.Context, method, path string, result any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, nil)
	if err != nil {
		return err
	}
	response, err := d.http.Do(request)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			return inner.Err // the made-up URL around it tells nobody anything
		}
		return err
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotFound:
		return errGone
	case response.StatusCode >= 300:
		var refusal struct{ Message string }
		_ = json.NewDecoder(response.Body).Decode(&refusal)
		return fmt.Errorf("docker answered %s: %s", response.Status, refusal.Message)
	case result == nil:
		return nil
	}
	return json.NewDecoder(response.Body).Decode(result)
}
