package workload_test

import (
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/distributedcompute/host-agent/sandbox/registry"
	"github.com/distributedcompute/host-agent/sandbox/workload"
)

func TestImage(t *testing.T) {
	built, err := workload.Image(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	images, err := registry.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	ref, err := images.Push(t.Context(), workload.Name, built)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Image(tag, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(pulled); err != nil {
		t.Error(err)
	}
	layers, err := pulled.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, layer := range layers {
		n, err := layer.Size()
		if err != nil {
			t.Fatal(err)
		}
		size += n
	}
	if len(layers) < 3 || size < 3<<20 {
		t.Errorf("%d layers of %d bytes together, want 3 of 3 MiB at least, to watch a pull", len(layers), size)
	}
	config, err := pulled.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(config.Config.Entrypoint, []string{"/guest"}) || config.OS != "linux" {
		t.Errorf("entrypoint %q on %q, want /guest on linux", config.Config.Entrypoint, config.OS)
	}
	if !slices.Contains(config.Config.Env, "NVIDIA_VISIBLE_DEVICES=all") {
		t.Errorf("environment %q does not ask for all GPUs as CUDA images do", config.Config.Env)
	}
}

func TestGrowMakesAnotherImage(t *testing.T) {
	base, err := workload.Image(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again, err := workload.Image(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	grown, err := workload.Grow(base, 77, 1000)
	if err != nil {
		t.Fatal(err)
	}
	digest := func(img interface{ RawManifest() ([]byte, error) }) string {
		manifest, err := img.RawManifest()
		if err != nil {
			t.Fatal(err)
		}
		return string(manifest)
	}
	if digest(base) != digest(again) {
		t.Error("the same source gave two different images")
	}
	if digest(base) == digest(grown) {
		t.Error("growing changed nothing")
	}
}
