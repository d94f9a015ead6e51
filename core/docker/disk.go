package docker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"

	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	// diskEvery is how often what rentals have written is counted, diskGlance how often the free space is looked at
	// in between. When it falls fast, the count is not waited for.
	diskEvery  = 10 * time.Second
	diskGlance = time.Second
	diskHurry  = 200 * time.Millisecond // between two glances while the free space falls
	// Counting may take one part in so many of the time, more of it while the free space falls.
	countShare, hurriedShare = 20, 4
	countWithin              = 2 * time.Minute

	// A rental may have a file for so many bytes of its disk, and at least so many files.
	bytesPerFile, leastFiles = 16 << 10, 200_000
	// deepest is how far directories may be nested and still be counted; no program's own are.
	deepest = 128

	// clearsAt is the free space, in percent of the reserve, from which rentals are taken again.
	clearsAt = 105
	// relief is how long the end of a rental may take to make room before another is ended.
	relief = 20 * time.Second
	// worthEnding is the least a rental has to have written for its end to be of use.
	worthEnding = 16 << 20
	// Where the storage limits a rental's own layer, that is looked at as often as heldEvery, for its files and for
	// what to end when the host's disk is full, or at once when there is more than heldAside in volumes.
	heldEvery, heldAside = time.Minute, 16 << 20
)

// diskLimit is how many bytes a rental may write.
func diskLimit(spec rental.Spec) int64 { return cmp.Or(spec.DiskBytes, rental.UnnamedDisk) }

// fileLimit is how many files and directories may be on a disk of that size.
func fileLimit(disk int64) int64 { return max(leastFiles, disk/bytesPerFile) }

// usage is what a rental has written.
type usage struct {
	bytes, files int64
	tooDeep      bool // directories are nested so deep that they were not counted
}

func (u usage) plus(more usage) usage {
	return usage{u.bytes + more.bytes, u.files + more.files, u.tooDeep || more.tooDeep}
}

// excess says what of it is more than was rented; nil: nothing.
func (u usage) excess(limit int64) *rental.Failure {
	switch {
	case limit == 0:
		return nil
	case u.bytes > limit:
		return rental.Failf(rental.CodeDiskLimit, "The rental had written %s to its disk, and %s were rented.", sizeText(u.bytes), sizeText(limit))
	case u.files > fileLimit(limit):
		return rental.Failf(rental.CodeDiskLimit, "The rental had made %d files, and its disk of %s may hold %d.", u.files, sizeText(limit), fileLimit(limit))
	case u.tooDeep:
		return rental.Failf(rental.CodeDiskLimit, "The rental had nested directories deeper than %d, where its use of the disk of %s cannot be counted.", deepest, sizeText(limit))
	}
	return nil
}

// watched is a rental whose disk is counted.
type watched struct {
	id        rental.ID
	container string
	limit     int64    // bytes; 0: that of a container of an earlier version, which is not known
	layer     string   // the directory that the container writes to; "" where only the engine can count it
	held      bool     // the storage holds that layer to its size
	logs      string   // directory
	volumes   []string // directories
	names     []string // of the volumes
	used      usage
	inLayer   usage     // of it, when that was looked at last
	looked    time.Time // then
}

// disks are what the watch of disks is told.
type disks struct {
	started chan struct{} // capacity 1: a container may have been started, or the engine
}

// ask lets Run count anew.
func (d *disks) ask() {
	select {
	case d.started <- struct{}{}:
	default:
	}
}

// diskWatch counts what rentals write, stops those that write more than they have rented, and keeps the
// host's reserve. It belongs to the goroutine of watchDisks.
type diskWatch struct {
	*Engine
	changed func()
	every   time.Duration
	rentals map[string]*watched // by container

	counted  time.Time     // when the last count ended
	cost     time.Duration // of the last count
	free     int64         // then
	falling  bool          // the free space, at the last glance
	relieved time.Time     // when the last rental was ended for the host's sake
}

// watchDisks goes on until ctx ends.
func (e *Engine) watchDisks(ctx context.Context, changed func()) {
	w := &diskWatch{Engine: e, changed: changed, every: cmp.Or(e.diskEvery, diskEvery), rentals: map[string]*watched{}}
	glance := time.NewTimer(0)
	defer glance.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.disks.started:
			w.count(ctx)
		case <-glance.C:
		}
		w.glance(ctx)
		glance.Reset(w.pause())
	}
}

// pause is the time until the next glance.
func (w *diskWatch) pause() time.Duration {
	switch {
	case len(w.rentals) == 0:
		return w.every
	case w.falling:
		return diskHurry
	}
	return min(diskGlance, w.every)
}

// glance looks at the free space, and counts when it is time to, or when a rental may have filled its disk since.
func (w *diskWatch) glance(ctx context.Context) {
	info := w.Info()
	if !info.Available {
		return
	}
	now, err := w.space(info.DataRoot)
	known := err == nil // where the engine's data is not on this machine's disks, nothing can be said
	written := w.free - now.free
	w.falling = known && len(w.rentals) > 0 && written >= w.headroom()/2
	age := time.Since(w.counted)
	if len(w.rentals) > 0 && (age >= max(w.every, countShare*w.cost) || w.falling && age >= hurriedShare*w.cost) {
		w.count(ctx)
	}
	if known {
		w.keepReserve(ctx, now)
	}
}

// headroom is the least that any rental may still write.
func (w *diskWatch) headroom() int64 {
	least := int64(worthEnding)
	for _, r := range w.rentals {
		if r.limit > 0 {
			least = min(least, r.limit-r.used.bytes)
		}
	}
	return max(least, 1<<20)
}

// count finds out what every rental has written.
func (w *diskWatch) count(ctx context.Context) {
	began := time.Now()
	defer func() { w.counted, w.cost = time.Now(), time.Since(began) }()
	if now, err := w.space(w.Info().DataRoot); err == nil {
		w.free = now.free
	}
	call, cancel := context.WithTimeout(ctx, countWithin)
	defer cancel()
	if err := w.list(call); err != nil {
		if ctx.Err() == nil && !isUnavailable(err) {
			w.log.Warn("listing rentals whose disks are to be counted", "error", err)
		}
		return
	}
	if len(w.rentals) == 0 {
		return
	}
	open := openDeleted(slices.Collect(maps.Keys(w.rentals)))
	for _, r := range w.rentals {
		used, err := w.measure(call, r)
		switch {
		case ctx.Err() != nil:
			return
		case cerrdefs.IsNotFound(err):
			continue
		case err != nil:
			w.log.Warn("counting what a rental has written", "rental", r.id, "error", err)
			continue
		}
		r.used = used.plus(open[r.container])
		if failure := r.used.excess(r.limit); failure != nil {
			w.condemn(ctx, r, failure)
		}
	}
}

// list brings the rentals up to date with what runs.
func (w *diskWatch) list(ctx context.Context) error {
	found, err := w.api().ContainerList(ctx, container.ListOptions{
		Filters: filters.NewArgs(filters.Arg("label", labelManaged)), // of those that run
	})
	if err != nil {
		return failed(ctx, "listing containers", err)
	}
	runs := make(map[string]*watched, len(found))
	for _, c := range found {
		id, ours := w.seal.rentalOf(c.Labels, c.HostConfig.NetworkMode, c.Names...)
		if !ours {
			continue
		}
		known, ok := w.rentals[c.ID]
		if !ok {
			if known, ok, err = w.meet(ctx, id, c.ID); err != nil {
				return err
			}
		}
		if ok {
			runs[c.ID] = known
		}
	}
	w.rentals = runs
	return nil
}

// meet finds out where a container writes to, which does not change while it is there.
func (w *diskWatch) meet(ctx context.Context, id rental.ID, containerID string) (*watched, bool, error) {
	there, found, err := w.inspect(ctx, containerID)
	if err != nil || !found {
		return nil, false, err
	}
	r := &watched{
		id: id, container: containerID,
		layer: there.GraphDriver.Data["UpperDir"],
		held:  there.HostConfig.StorageOpt["size"] != "" && w.quota.holds(ctx),
		logs:  logsOf(w.Info().DataRoot, containerID),
	}
	r.limit, _ = strconv.ParseInt(there.Config.Labels[labelDisk], 10, 64)
	for _, m := range there.Mounts {
		if m.Type == mount.TypeVolume {
			r.volumes, r.names = append(r.volumes, m.Source), append(r.names, m.Name)
		}
	}
	return r, true, nil
}

// measure counts what a rental has in its layer, its volumes and its logs: on disk where this program may look, else the
// engine is asked.
func (w *diskWatch) measure(ctx context.Context, r *watched) (usage, error) {
	total, err := countDirs(ctx, fileLimit(r.limit), r.volumes...)
	if err != nil {
		if total, err = w.volumesByEngine(ctx, r.names); err != nil {
			return usage{}, err
		}
	}
	if logs, err := countDirs(ctx, leastFiles, r.logs); err == nil {
		total = total.plus(logs)
	}
	layer, bounded := r.inLayer, r.held && total.bytes < heldAside
	if !bounded || time.Since(r.looked) >= heldEvery {
		if layer, err = countDirs(ctx, fileLimit(r.limit), r.layer); err != nil {
			if layer, err = w.layerByEngine(ctx, r.container); err != nil {
				return usage{}, err
			}
		}
		r.inLayer, r.looked = layer, time.Now()
	}
	if bounded { // the storage turns away what is too much, and that is no reason to end the rental
		layer.bytes = min(layer.bytes, max(0, r.limit-total.bytes))
	}
	return total.plus(layer), nil
}

// layerByEngine asks the engine what a container has written to its layer.
func (w *diskWatch) layerByEngine(ctx context.Context, containerID string) (usage, error) {
	there, _, err := w.api().ContainerInspectWithRaw(ctx, containerID, true)
	switch {
	case err != nil:
		return usage{}, err
	case there.SizeRw == nil:
		return usage{}, errors.New("the engine does not tell what the container has written")
	}
	return usage{bytes: *there.SizeRw}, nil
}

// volumesByEngine asks the engine how large volumes are.
func (w *diskWatch) volumesByEngine(ctx context.Context, names []string) (usage, error) {
	if len(names) == 0 {
		return usage{}, nil
	}
	all, err := w.api().DiskUsage(ctx, types.DiskUsageOptions{Types: []types.DiskUsageObject{types.VolumeObject}})
	if err != nil {
		return usage{}, err
	}
	var sum usage
	for _, v := range all.Volumes {
		if v.UsageData != nil && slices.Contains(names, v.Name) {
			sum.bytes += max(0, v.UsageData.Size)
		}
	}
	return sum, nil
}

// condemn ends a rental at once, for a reason that is told as that of its end.
func (w *diskWatch) condemn(ctx context.Context, r *watched, failure *rental.Failure) {
	w.log.Warn("stopping a rental", "rental", r.id, "code", failure.Code, "because", failure.Message)
	w.verdicts.set(r.container, failure)
	w.stopping.add(r.container) // whose doing the end is, is known
	call, cancel := bounded(ctx)
	defer cancel()
	err := w.api().ContainerKill(call, r.container, "KILL")
	switch {
	case err == nil || cerrdefs.IsNotFound(err) || cerrdefs.IsConflict(err): // it has ended
		delete(w.rentals, r.container)
	default:
		w.log.Warn("stopping a rental; it is tried again", "rental", r.id, "error", err)
	}
}

// keepReserve refuses new rentals while the host has less than its reserve, and ends one when it has less than
// half of that.
func (w *diskWatch) keepReserve(ctx context.Context, now space) {
	reserve := rental.DiskReserve(w.diskReserve, now.total)
	low := now.free < reserve
	if w.Info().DiskLow && now.free < reserve/100*clearsAt {
		low = true
	}
	w.tellDisk(low, reserve, w.changed)
	if now.free >= reserve/2 || time.Since(w.relieved) < relief || len(w.rentals) == 0 {
		return
	}
	if time.Since(w.counted) > diskHurry {
		w.count(ctx)
	}
	most := w.largest()
	if most == nil {
		return
	}
	w.relieved = time.Now()
	w.condemn(ctx, most, rental.Failf(rental.CodeInsufficient,
		"The host's disk was nearly full (%s free): it ended this rental, which had written the most (%s), to keep its reserve.",
		sizeText(now.free), sizeText(most.used.bytes)))
}

// largest is the rental that has written the most, if its end is of use.
func (w *diskWatch) largest() *watched {
	var most *watched
	for _, r := range w.rentals {
		if r.used.bytes >= worthEnding && (most == nil || r.used.bytes > most.used.bytes) {
			most = r
		}
	}
	return most
}
