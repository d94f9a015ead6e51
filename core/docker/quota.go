package docker

import (
	"archive/tar"
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/system"
)

const (
	quotaTried   = 16 << 20 // bytes, the size that is tried
	quotaWithin  = 4 << 20  // what has to fit in it
	quotaBeyond  = 32 << 20 // what must not
	quotaTrial   = time.Minute
	quotaAwaited = 10 * time.Second // how long a rental that is to be made waits for a trial that is under way

	probePrefix = "dcprobe-" // no rental's container has such a name
	probeImage  = "distributedcompute/quota-probe:1"
	labelProbe  = "distributedcompute.probe" // keyed hash of the container's name
	kindProbe   = "trial of the storage"
)

// quota knows on which storage the engine holds a container to the size that was asked for. Engines do not say
// so: some refuse the option, some ignore it. So it is tried, once for each storage, with a container that never runs.
type quota struct {
	mu      sync.Mutex
	proven  map[storageID]bool // guarded by mu; of those that have been tried
	current storageID          // guarded by mu
	trial   chan struct{}      // guarded by mu; closed when the trial of current is over, nil when there is none
}

// storageID tells one storage from another.
type storageID struct{ engine, root, driver string }

func storageOf(said system.Info) storageID {
	return storageID{said.ID, said.DockerRootDir, said.Driver}
}

// expect announces a trial of a storage, unless it has been tried. Whoever asks meanwhile waits for it.
func (q *quota) expect(of storageID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, tried := q.proven[of]; tried || q.trial != nil && q.current == of {
		q.current = of
		return
	}
	q.end()
	q.current, q.trial = of, make(chan struct{})
}

// rule settles a storage without a trial.
func (q *quota) rule(of storageID, holds bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.proven == nil {
		q.proven = make(map[storageID]bool)
	}
	q.proven[of] = holds
	if of == q.current {
		q.end()
	}
}

// end lets go of who waits for a trial; q.mu is held.
func (q *quota) end() {
	if q.trial != nil {
		close(q.trial)
		q.trial = nil
	}
}

// giveUp ends a trial that came to no result; the engine's next life is another chance.
func (q *quota) giveUp() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.end()
}

// pending is the storage that is to be tried.
func (q *quota) pending() (storageID, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.current, q.trial != nil
}

// holds reports whether containers are held to a size. It waits for a trial that is under way.
func (q *quota) holds(ctx context.Context) bool {
	q.mu.Lock()
	trial := q.trial
	q.mu.Unlock()
	if trial != nil {
		late := time.NewTimer(quotaAwaited)
		defer late.Stop()
		select {
		case <-trial:
		case <-late.C:
		case <-ctx.Done():
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.proven[q.current]
}

// quotaImpossible reports that an engine says itself that it cannot hold a container to a size: overlay2 does
// so on XFS alone. That spares most hosts the trial.
func quotaImpossible(said system.Info) bool {
	backing := driverStatus(said, "Backing Filesystem")
	return strings.HasPrefix(said.Driver, "overlay") && backing != "" && backing != "xfs"
}

func driverStatus(said system.Info, name string) string {
	for _, pair := range said.DriverStatus {
		if pair[0] == name {
			return pair[1]
		}
	}
	return ""
}

// expectQuota takes note of the storage of an engine.
func (e *Engine) expectQuota(said system.Info) {
	e.quota.expect(storageOf(said))
	if quotaImpossible(said) {
		e.quota.rule(storageOf(said), false)
	}
}

// tryQuota makes the trial that is pending.
func (e *Engine) tryQuota(ctx context.Context) {
	of, pending := e.quota.pending()
	if !pending {
		return
	}
	defer e.quota.giveUp()
	call, cancel := context.WithTimeout(ctx, quotaTrial)
	defer cancel()
	holds, err := e.probeQuota(call)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		e.log.Warn("trying whether the storage holds containers to a size; the agent watches them itself", "error", err)
	default:
		e.log.Info("storage tried", "driver", of.driver, "holds_containers_to_a_size", holds)
		e.quota.rule(of, holds)
	}
}

// probeQuota writes more into a container than it may have. The container is never started: the engine itself
// unpacks an archive into it, on the storage that its programs would write to.
func (e *Engine) probeQuota(ctx context.Context) (holds bool, err error) {
	if err := e.sweepProbes(ctx); err != nil {
		return false, err
	}
	defer func() {
		// The caller's end must not leave anything behind.
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyUpWithin)
		defer cancel()
		err = errors.Join(err, e.sweepProbes(after))
	}()
	if err := e.importProbe(ctx); err != nil {
		return false, err
	}
	name := probePrefix + strings.ToLower(cryptorand.Text()[:12])
	made, err := e.api().ContainerCreate(ctx, &container.Config{
		Image: probeImage, Cmd: []string{"/never"},
		Labels: map[string]string{labelProbe: e.seal.of(kindProbe, name)},
	}, &container.HostConfig{
		NetworkMode: "none", Runtime: runtimeName, CapDrop: []string{"ALL"},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		StorageOpt:    map[string]string{"size": strconv.Itoa(quotaTried)},
	}, nil, nil, name)
	switch {
	case err != nil && (ctx.Err() != nil || engineGone(err)):
		return false, failed(ctx, "making a container to try the storage with", err)
	case err != nil:
		e.log.Debug("storage cannot hold containers to a size", "error", err)
		return false, nil
	}
	if err := e.unpack(ctx, made.ID, "within", quotaWithin); err != nil {
		return false, fmt.Errorf("writing less than the size that is tried: %w", err)
	}
	switch err := e.unpack(ctx, made.ID, "beyond", quotaBeyond); {
	case err == nil:
		return false, nil
	case saysFull(err):
		return true, nil
	default:
		return false, fmt.Errorf("writing more than the size that is tried: %w", err)
	}
}

// saysFull reports whether an engine ran into the end of a disk. Only its text says so.
func saysFull(err error) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "no space left on device") || strings.Contains(text, "quota exceeded")
}

// importProbe makes an image with next to nothing in it.
func (e *Engine) importProbe(ctx context.Context) error {
	archive, err := filler("empty", 0)
	if err != nil {
		return err
	}
	said, err := e.api().ImageImport(ctx, image.ImportSource{Source: archive, SourceName: "-"}, probeImage, image.ImportOptions{})
	if err != nil {
		return failed(ctx, "importing an image to try the storage with", err)
	}
	defer said.Close()
	if _, err := io.Copy(io.Discard, said); err != nil {
		return failed(ctx, "importing an image to try the storage with", err)
	}
	return nil
}

// unpack has the engine write a file of bytes that do not compress into a container.
func (e *Engine) unpack(ctx context.Context, containerID, name string, size int64) error {
	archive, err := filler(name, size)
	if err != nil {
		return err
	}
	return e.api().CopyToContainer(ctx, containerID, "/", archive, container.CopyToContainerOptions{})
}

// filler is an archive with one file of noise, whose size is a multiple of 512.
func filler(name string, size int64) (io.Reader, error) {
	var frame bytes.Buffer
	w := tar.NewWriter(&frame)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size}); err != nil {
		return nil, fmt.Errorf("packing what is written to try the storage: %w", err)
	}
	noise := io.LimitReader(rand.NewChaCha8([32]byte{}), size)
	end := bytes.NewReader(make([]byte, 1024)) // two empty blocks
	return io.MultiReader(&frame, noise, end), nil
}

// sweepProbes removes what a trial has made, also one that was cut off.
func (e *Engine) sweepProbes(ctx context.Context) error {
	if err := e.sweepErrands(ctx, labelProbe, kindProbe); err != nil {
		return err
	}
	if _, err := e.api().ImageRemove(ctx, probeImage, image.RemoveOptions{}); err != nil && !cerrdefs.IsNotFound(err) {
		return failed(ctx, "removing the image that the storage was tried with", err)
	}
	return nil
}
