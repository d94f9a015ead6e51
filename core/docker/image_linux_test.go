package docker_test

import (
	"testing"

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

func pushImage(t *testing.T, name string, built v1.Image) string {
	t.Helper()
	ref, err := store.Push(t.Context(), name+":1", built)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}
