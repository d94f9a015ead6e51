// Package workload builds the image that the sandbox rents out: one small static program that says
// what a renter really got (GPUs, CPU, memory, capabilities), so that the host's promises can be
// checked from the renter's side.
package workload

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Name is the repository and tag the sandbox offers the image under.
const Name = "sandbox/workload:latest"

const program = "github.com/distributedcompute/host-agent/sandbox/workload/guest"

// Image builds the program and packs it.
func Image(ctx context.Context) (v1.Image, error) {
	binary, err := Build(ctx)
	if err != nil {
		return nil, err
	}
	return Pack(binary)
}

// Pack makes the image of a program that Build has built. The image is the same, digest and all,
// for the same source and toolchain.
func Pack(program []byte) (v1.Image, error) {
	layer, err := layerOf(file{"guest", 0o755, program})
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("packing image: %w", err)
	}
	for seed := range uint64(3) {
		if img, err = Grow(img, seed, 1<<20); err != nil {
			return nil, err
		}
	}
	return configured(img)
}

// Grow adds a layer of bytes that do not compress, the same for the same seed. It makes a pull
// long enough to be watched, and an image no engine has cached.
func Grow(img v1.Image, seed uint64, size int) (v1.Image, error) {
	key := [32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), byte(seed >> 32)}
	filler := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(filler) // never fails
	layer, err := layerOf(file{fmt.Sprintf("filler/%d", seed), 0o644, filler})
	if err != nil {
		return nil, err
	}
	grown, err := mutate.AppendLayers(img, layer)
	if err != nil {
		return nil, fmt.Errorf("adding a layer: %w", err)
	}
	return grown, nil
}

// configured gives the image the configuration a CUDA image has: its environment asks for every
// GPU of the machine, which the host must not grant.
func configured(img v1.Image) (v1.Image, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading image configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint:   []string{"/guest"},
		ExposedPorts: map[string]struct{}{"22/tcp": {}, "8080/tcp": {}, "9090/udp": {}},
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"NVIDIA_VISIBLE_DEVICES=all",
			"NVIDIA_DRIVER_CAPABILITIES=compute,utility",
		},
		Labels: map[string]string{"org.opencontainers.image.title": "DistributedCompute sandbox workload"},
	}
	img, err = mutate.ConfigFile(img, config)
	if err != nil {
		return nil, fmt.Errorf("configuring image: %w", err)
	}
	return img, nil
}

// Build compiles the program for Linux on this machine's processor. The working directory has to be
// inside the module, where the program's source is.
func Build(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "workload-")
	if err != nil {
		return nil, fmt.Errorf("making a build directory: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	if message, err := cmd.CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, errors.New("building the workload: the go command is not on PATH; install Go")
		}
		return nil, fmt.Errorf("building the workload (run this inside the repository): %w: %s", err, bytes.TrimSpace(message))
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("reading the workload program: %w", err)
	}
	return binary, nil
}

type file struct {
	name    string
	mode    int64
	content []byte
}

func layerOf(f file) (v1.Layer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.content)), ModTime: time.Unix(0, 0)}
	if err := w.WriteHeader(header); err != nil {
		return nil, fmt.Errorf("packing %s: %w", f.name, err)
	}
	if _, err := w.Write(f.content); err != nil {
		return nil, fmt.Errorf("packing %s: %w", f.name, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("packing %s: %w", f.name, err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	}, tarball.WithCompressedCaching)
	if err != nil {
		return nil, fmt.Errorf("packing %s: %w", f.name, err)
	}
	return layer, nil
}
