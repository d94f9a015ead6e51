package docker

import (
	"errors"
	"fmt"
	"strings"
)

// checkHost accepts local addresses only: an engine that listens on a network port can be used by
// everyone who reaches it, and its containers would not run on this host.
func checkHost(host string) error {
	switch scheme, path, _ := strings.Cut(host, "://"); {
	case host == "":
		return nil
	case scheme == "tcp" || scheme == "http" || scheme == "https" || scheme == "ssh":
		return fmt.Errorf("docker host %q is not on this machine: use unix:///path/of/the/socket or npipe:////./pipe/name", host)
	case scheme != "unix" && scheme != "npipe":
		return fmt.Errorf("docker host %q is not an address: use unix:///path/of/the/socket or npipe:////./pipe/name", host)
	case !strings.HasPrefix(path, "/"):
		return errors.New("docker host " + host + " has no absolute path")
	}
	return nil
}
