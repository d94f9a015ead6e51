package docker_test

import (
	"context"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	dockerimage "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/distributedcompute/host-agent/sandbox/workload"
)

type imageConfig = v1.Config

// pushed puts the workload with more environment into the registry.
func pushed(t *testing.T, name string, env ...string) string {
	t.Helper()
	return pushedWith(t, name, func(c *imageConfig) { c.Env = append(c.Env, env...) })
}

// pushedWith puts the workload with a changed configuration into the registry.
func pushedWith(t *testing.T, name string, change func(*imageConfig)) string {
	t.Helper()
	config, err := guest.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	change(&config.Config)
	built, err := mutate.Config(guest, config.Config)
	if err != nil {
		t.Fatal(err)
	}
	return pushImage(t, name, built)
}

// grown puts the workload with a layer of random bytes into the registry.
func grown(t *testing.T, name string, seed uint64, size int) string {
	t.Helper()
	built, err := workload.Grow(guest, seed, size)
	if err != nil {
		t.Fatal(err)
	}
	return pushImage(t, name, built)
}

// pushImage puts an image into the registry. When the test ends it is gone from the daemon, if it has been pulled.
func pushImage(t *testing.T, name string, built v1.Image) string {
	t.Helper()
	ref, err := store.Push(t.Context(), name+":1", built)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := built.Digest()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { forget(t, store.Addr()+"/"+name+"@"+digest.String()) })
	return ref
}

// forget removes an image from the daemon, where it is there.
func forget(t *testing.T, ref string) {
	t.Helper()
	api, err := client.NewClientWithOpts(client.WithHost(daemon.Host()), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	_, err = api.ImageRemove(context.Background(), ref, dockerimage.RemoveOptions{PruneChildren: true})
	if err != nil && !cerrdefs.IsNotFound(err) {
		t.Errorf("removing what was pulled: %v", err)
	}
}
