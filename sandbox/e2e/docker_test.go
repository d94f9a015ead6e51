//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/distributedcompute/host-agent/sandbox/engine"
)

// docker asks the engine itself, past the agent, over plain HTTP.
type docker struct{ client *http.Client }

func dialDocker(host string) docker { return docker{engine.Client(host)} }

// dockerContainer is what tests want to know of a container.
type dockerContainer struct {
	ID    string `json:"Id"`
	State struct {
		Running   bool
		Pid       int
		StartedAt string
	}
	HostConfig struct {
		Memory, NanoCpus, ShmSize int64
		PidsLimit                 *int64
		Privileged                bool
		Binds                     []string
	}
}

func (d docker) call(method, path string, into any) error {
	request, err := http.NewRequest(method, "http://docker/v1.41"+path, nil)
	if err != nil {
		return err
	}
	response, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 400 && response.StatusCode != http.StatusNotFound {
		return fmt.Errorf("%s %s: %s", method, path, response.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(into)
}

// containers lists the ids of all containers, running or not.
func (d docker) containers() ([]string, error) {
	var list []struct {
		ID string `json:"Id"`
	}
	err := d.call("GET", "/containers/json?all=1", &list)
	ids := make([]string, len(list))
	for i, c := range list {
		ids[i] = c.ID
	}
	return ids, err
}

// networks lists the ids of all networks that are not Docker's own.
func (d docker) networks() ([]string, error) {
	var list []struct {
		ID   string `json:"Id"`
		Name string
	}
	err := d.call("GET", "/networks", &list)
	var ids []string
	for _, n := range list {
		if n.Name != "bridge" && n.Name != "host" && n.Name != "none" {
			ids = append(ids, n.ID)
		}
	}
	return ids, err
}

func (d docker) inspect(id string) (dockerContainer, error) {
	var c dockerContainer
	err := d.call("GET", "/containers/"+id+"/json", &c)
	return c, err
}

// removeAll clears the engine of containers and networks.
func (d docker) removeAll() error {
	ids, err := d.containers()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := d.call("DELETE", "/containers/"+id+"?force=1&v=1", nil); err != nil {
			return err
		}
	}
	ids, err = d.networks()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := d.call("DELETE", "/networks/"+id, nil); err != nil {
			return err
		}
	}
	return nil
}
