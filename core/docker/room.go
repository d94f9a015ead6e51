package docker

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/docker/api/types/image"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	// A compressed layer is on the disk as it came while it is unpacked to about twice its size; one that is not
	// compressed is there twice.
	unpackedCompressed = 3
	unpackedPlain      = 2

	mostCompared = 200 // images on the engine that are looked at for layers in common
)

// fits makes sure that an image has room before it is downloaded, and makes room where it has not. Where the
// engine's disk is not seen from here the engine finds out by itself.
func (e *Engine) fits(ctx context.Context, q inquiry) error {
	free, err := e.freeForImages(ctx)
	if err != nil {
		return nil
	}
	known, err := e.knownFacts(ctx)
	if err != nil {
		return err
	}
	platform := v1.Platform{OS: "linux", Architecture: known.Architecture}
	manifest, err := q.weigh(ctx, platform)
	if err != nil {
		return err
	}
	if _, want := weightOf(manifest, 0); free >= want {
		return nil
	}
	config, err := q.configuration(ctx, platform)
	if err != nil {
		return err
	}
	shared, err := e.sharedLayers(ctx, config)
	if err != nil {
		return err
	}
	download, want := weightOf(manifest, shared)
	if free >= want {
		return nil
	}
	if err := e.makeRoom(ctx, want); err != nil {
		return err
	}
	if free, err = e.freeForImages(ctx); err == nil && free < want {
		return rental.Failf(rental.CodeImageTooLarge, "Image %s needs about %s of disk (%s to download), and this host has %s for it.",
			q.asked, sizeText(want), sizeText(download), sizeText(max(0, free)))
	}
	return nil
}

// weightOf is how many bytes the layers of an image are to download, and how many of the disk that takes. The first
// few are here already.
func weightOf(manifest *v1.Manifest, here int) (download, disk int64) {
	for _, layer := range manifest.Layers[min(here, len(manifest.Layers)):] {
		size := max(0, layer.Size)
		factor := int64(unpackedPlain)
		if kind := string(layer.MediaType); strings.HasSuffix(kind, "gzip") || strings.HasSuffix(kind, "zstd") {
			factor = unpackedCompressed
		}
		download += size
		disk += factor * size
		if download < 0 || disk < 0 || size > 1<<50 {
			return 1 << 50, 1 << 60 // whatever it says, nothing has room for it
		}
	}
	return download, disk
}

// sharedLayers is how many of an image's first layers the engine has already, of another image.
func (e *Engine) sharedLayers(ctx context.Context, config *v1.ConfigFile) (int, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	images, err := e.api().ImageList(call, image.ListOptions{})
	if err != nil {
		return 0, failed(ctx, "listing images", err)
	}
	shared := 0
	for _, other := range images[:min(len(images), mostCompared)] {
		found, err := e.api().ImageInspect(call, other.ID)
		if err != nil {
			continue // it may be gone by now
		}
		same := 0
		for same < min(len(config.RootFS.DiffIDs), len(found.RootFS.Layers)) && config.RootFS.DiffIDs[same].String() == found.RootFS.Layers[same] {
			same++
		}
		shared = max(shared, same)
	}
	return shared, nil
}

// freeForImages is how much of the engine's disk images may take, beyond its reserve.
func (e *Engine) freeForImages(ctx context.Context) (int64, error) {
	root := e.Info().DataRoot
	if root == "" {
		call, cancel := bounded(ctx)
		defer cancel()
		said, err := e.api().Info(call)
		if err != nil {
			return 0, failed(ctx, "asking about the engine", err)
		}
		root = said.DockerRootDir
	}
	now, err := e.space(root)
	if err != nil {
		return 0, err
	}
	return now.free - rental.DiskReserve(e.diskReserve, now.total), nil
}

// space is how much of a disk there is.
type space struct{ free, total int64 } // bytes

// sizeText writes a number of bytes for people.
func sizeText(bytes int64) string {
	if bytes >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}
