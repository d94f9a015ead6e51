package docker

import "testing"

func TestSpareNetworkOutlivesAFailedLook(t *testing.T) {
	e := quietEngine(t) // it is not there
	e.networks.keep("dc-net-spare")
	if name, err := e.takeNetwork(t.Context()); !isUnavailable(err) {
		t.Fatalf("took %q, %v; want docker_unavailable", name, err)
	}
	if kept := e.networks.kept(); !kept["dc-net-spare"] {
		t.Errorf("kept from the sweep are %v", kept)
	}
	if name := e.networks.takeSpare(); name != "dc-net-spare" {
		t.Errorf("the stock holds %q", name)
	}
}
