package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"github.com/distributedcompute/host-agent/core/durable"
	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	shelfFile = "images.json" // in the state directory

	tendEvery   = 5 * time.Minute
	tendAfter   = 2 * time.Second  // what may have changed something
	removeImage = 5 * time.Minute  // many files are slow to go
	heldFor     = 10 * time.Minute // from the pull of an image to its container at most
	cacheShare  = 4                // of what is offered of the disk, one part in so many
)

// ImageOptions say which images an Engine takes and how many it keeps.
type ImageOptions struct {
	Registries rental.Registries
	Mirror     string   // registry with copies of Docker Hub's images, "host" or "host:port"; "": none
	CacheBytes int64    // most of what no rental uses; 0: a quarter of what is offered of the disk
	Offered    int64    // bytes of the disk that the owner offers; 0: all but a reserve
	Reserve    int64    // bytes of the disk that are never taken; 0: decided from the disk
	Keep       []string // references that are not removed for want of space; without a tag all of them
	StateDir   string   // where it is remembered which images are the agent's; "": not over restarts
}

// shelf knows the images that were pulled for rentals. Only those are ever removed: what else the engine has is its
// owner's. The engine does not know when an image was used last, so that is kept here.
type shelf struct {
	options ImageOptions
	due     chan struct{}

	removal sync.Mutex // held while an image is removed, and while one is laid a hand on

	mu     sync.Mutex
	images map[string]shelved // guarded by mu; by the name it was pulled by, with its digest
	holds  []*hold            // guarded by mu
	saved  string             // guarded by mu; what the file says
}

// shelved is one image.
type shelved struct {
	ID        string    `json:"id,omitempty"` // "" until it has been seen on the engine
	Reference string    `json:"reference"`    // as it was ordered last
	Size      int64     `json:"size,omitempty"`
	LastUsed  time.Time `json:"last_used"`
	Private   bool      `json:"private,omitempty"` // nobody has had it without credentials
}

// hold keeps an image from removal until its container is there.
type hold struct {
	names []string
	id    string // "" until it is known
	until time.Time
}

func newShelf(options ImageOptions) (*shelf, error) {
	s := &shelf{options: options, due: make(chan struct{}, 1), images: make(map[string]shelved)}
	if options.StateDir == "" {
		return s, nil
	}
	root, err := os.OpenRoot(options.StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("opening the state directory: %w", err)
	}
	defer root.Close()
	content, err := root.ReadFile(shelfFile)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("reading which images are the agent's: %w", err)
	}
	s.saved = string(content)
	if json.Unmarshal(content, &s.images) != nil || s.images == nil {
		s.images = make(map[string]shelved) // nothing is known to be ours, so nothing is removed
	}
	for name, known := range s.images { // a rental may have been between its pull and its container
		s.holds = append(s.holds, &hold{names: []string{name}, id: known.ID, until: known.LastUsed.Add(heldFor)})
	}
	return s, nil
}

// ask has the shelf tended soon.
func (s *shelf) ask() {
	select {
	case s.due <- struct{}{}:
	default:
	}
}

// hold keeps what may be under one of these names from removal. It waits for a removal that is under way.
func (s *shelf) hold(sources []source) *hold {
	h := &hold{until: time.Now().Add(24 * time.Hour)} // a pull has its own end
	for _, from := range sources {
		h.names = append(h.names, from.exact.String())
	}
	s.removal.Lock()
	defer s.removal.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = append(s.holds, h)
	return h
}

func (s *shelf) release(h *hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = slices.DeleteFunc(s.holds, func(other *hold) bool { return other == h })
}

// took notes that an order was given an image.
func (s *shelf) took(h *hold, id string, order order) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	h.id, h.until = id, now.Add(heldFor)
	for _, name := range h.names {
		known, ours := s.images[name]
		if !ours {
			continue
		}
		known.Reference, known.LastUsed = order.asked.String(), now
		if known.ID == "" {
			known.ID = id
		}
		if order.auth == nil {
			known.Private = false // the registry gives it to everybody
		}
		s.images[name] = known
	}
}

// settled lets go of an image whose container is there and holds it now.
func (s *shelf) settled(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := slices.IndexFunc(s.holds, func(h *hold) bool { return h.id == id }); at >= 0 {
		s.holds = slices.Delete(s.holds, at, at+1)
	}
}

// held reports whether an order is on its way to an image.
func (s *shelf) held(name, id string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = slices.DeleteFunc(s.holds, func(h *hold) bool { return h.until.Before(now) })
	return slices.ContainsFunc(s.holds, func(h *hold) bool {
		return id != "" && h.id == id || slices.Contains(h.names, name)
	})
}

// expect notes on disk, before the engine begins, that an image which will be there is the agent's.
func (s *shelf) expect(order order, from source, now time.Time) error {
	s.mu.Lock()
	s.images[from.exact.String()] = shelved{Reference: order.asked.String(), LastUsed: now, Private: order.auth != nil}
	s.mu.Unlock()
	return s.save()
}

// save writes the file where it has changed.
func (s *shelf) save() error {
	if s.options.StateDir == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	content, err := json.MarshalIndent(s.images, "", "  ")
	if err != nil || string(content) == s.saved {
		return err
	}
	root, err := os.OpenRoot(s.options.StateDir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := durable.Replace(root, shelfFile, content); err != nil {
		return err
	}
	s.saved = string(content)
	return nil
}

// kept reports whether the owner's list has an image.
func (s *shelf) kept(ref string) bool {
	named, err := reference.ParseNormalizedNamed(ref)
	return err == nil && slices.ContainsFunc(s.options.Keep, func(entry string) bool {
		wanted, err := reference.ParseNormalizedNamed(entry)
		return err == nil && wanted.Name() == named.Name() && (reference.IsNameOnly(wanted) || wanted.String() == named.String())
	})
}

// standing is an image of the shelf as it is on the engine now.
type standing struct {
	name string
	shelved
	inUse bool
}

func (s *shelf) cached(of standing) rental.CachedImage {
	_, digest, _ := strings.Cut(of.name, "@")
	return rental.CachedImage{
		Reference: of.Reference, Digest: digest, SizeBytes: of.Size, LastUsed: of.LastUsed,
		InUse: of.inUse, Kept: s.kept(of.Reference), Private: of.Private,
	}
}

// standings compares the shelf with the engine: what is gone from there, or has been given a name by its owner, is no
// business of the shelf's any more. The image used last comes first.
func (e *Engine) standings(ctx context.Context) ([]standing, error) {
	used, err := e.usedImages(ctx)
	if err != nil {
		return nil, err
	}
	e.shelf.mu.Lock()
	names := make([]string, 0, len(e.shelf.images))
	for name := range e.shelf.images {
		names = append(names, name)
	}
	e.shelf.mu.Unlock()
	var all []standing
	for _, name := range names {
		there, err := e.standingOf(ctx, name, used)
		if err != nil {
			return nil, err
		}
		if there != nil {
			all = append(all, *there)
		}
	}
	slices.SortFunc(all, func(a, b standing) int { return cmp.Or(b.LastUsed.Compare(a.LastUsed), cmp.Compare(a.name, b.name)) })
	return all, nil
}

// usedImages are those of all containers, whoever made them.
func (e *Engine) usedImages(ctx context.Context) (map[string]bool, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	found, err := e.api().ContainerList(call, container.ListOptions{All: true})
	if err != nil {
		return nil, failed(ctx, "listing containers", err)
	}
	used := make(map[string]bool, len(found))
	for _, c := range found {
		used[c.ImageID] = true
	}
	return used, nil
}

// standingOf looks at one image; nil: it is on the shelf no more, or not there yet.
func (e *Engine) standingOf(ctx context.Context, name string, used map[string]bool) (*standing, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	found, err := e.api().ImageInspect(call, name)
	gone := cerrdefs.IsNotFound(err)
	if err != nil && !gone {
		return nil, failed(ctx, "looking at an image", err)
	}
	now := time.Now()
	onItsWay := e.shelf.held(name, found.ID, now)
	e.shelf.mu.Lock()
	defer e.shelf.mu.Unlock()
	known, ok := e.shelf.images[name]
	switch {
	case !ok, gone && onItsWay:
		return nil, nil
	case gone, len(found.RepoTags) > 0:
		delete(e.shelf.images, name)
		return nil, nil
	}
	known.ID, known.Size = found.ID, found.Size
	if used[found.ID] {
		known.LastUsed = now
	}
	e.shelf.images[name] = known
	return &standing{name, known, used[found.ID] || onItsWay}, nil
}

// keepShelf tends the shelf until ctx ends.
func (e *Engine) keepShelf(ctx context.Context) {
	ticker := time.NewTicker(tendEvery)
	defer ticker.Stop()
	for {
		if err := e.tendImages(ctx); err != nil && ctx.Err() == nil {
			e.log.Warn("looking after images", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-e.shelf.due:
			if pause(ctx, tendAfter) != nil { // a rental that starts comes first
				return
			}
		case <-ticker.C:
		}
	}
}

// tendImages removes private images whose rental has ended, and of the others those used least lately until
// what is left keeps to the cap.
func (e *Engine) tendImages(ctx context.Context) error {
	all, err := e.standings(ctx)
	if err != nil {
		return err
	}
	limit, sized := e.cacheCap(ctx)
	unused := int64(0)
	for _, of := range all {
		if !of.inUse {
			unused += of.Size
		}
	}
	for _, of := range slices.Backward(all) {
		over := sized && unused > limit && !e.shelf.kept(of.Reference)
		if of.inUse || !of.Private && !over {
			continue
		}
		gone, err := e.removeCached(ctx, of)
		if err != nil {
			return err
		}
		if gone {
			unused -= of.Size
			e.log.Info("image removed", "image", of.Reference, "private", of.Private)
		}
	}
	return e.shelf.save()
}

// cacheCap is the most that images without a rental may have of the disk; false: it cannot be told.
func (e *Engine) cacheCap(ctx context.Context) (int64, bool) {
	switch o := e.shelf.options; {
	case o.CacheBytes > 0:
		return o.CacheBytes, true
	case o.Offered > 0:
		return o.Offered / cacheShare, true
	}
	free, err := e.freeForImages(ctx)
	if err != nil {
		return 0, false // the disk is not one that is seen from here
	}
	return max(0, free) / cacheShare, true
}

// removeCached removes an image that nobody uses; false: somebody does now.
func (e *Engine) removeCached(ctx context.Context, of standing) (bool, error) {
	e.shelf.removal.Lock()
	defer e.shelf.removal.Unlock()
	if e.shelf.held(of.name, of.ID, time.Now()) {
		return false, nil
	}
	call, cancel := context.WithTimeout(ctx, removeImage)
	defer cancel()
	// By its name: should the image have got another one meanwhile, only ours goes. And without force: the engine
	// keeps what a container uses.
	_, err := e.api().ImageRemove(call, of.name, image.RemoveOptions{PruneChildren: true})
	switch {
	case cerrdefs.IsConflict(err):
		return false, nil
	case err != nil && !cerrdefs.IsNotFound(err):
		return false, failed(ctx, "removing an image", err)
	}
	e.shelf.mu.Lock()
	delete(e.shelf.images, of.name)
	e.shelf.mu.Unlock()
	return true, nil
}

// makeRoom removes images that no rental uses, those used least lately first, until free bytes are there for
// images. It is no error when there are too few of them.
func (e *Engine) makeRoom(ctx context.Context, want int64) error {
	all, err := e.standings(ctx)
	if err != nil {
		return err
	}
	for _, of := range slices.Backward(all) {
		if free, err := e.freeForImages(ctx); err != nil || free >= want {
			break
		}
		if of.inUse || e.shelf.kept(of.Reference) {
			continue
		}
		if gone, err := e.removeCached(ctx, of); err != nil {
			return err
		} else if gone {
			e.log.Info("image removed for another", "image", of.Reference)
		}
	}
	return e.shelf.save()
}

// Images lists the images that were pulled for rentals and are still here.
func (e *Engine) Images(ctx context.Context) (rental.ImageCache, error) {
	all, err := e.standings(ctx)
	if err != nil {
		return rental.ImageCache{}, err
	}
	cache := rental.ImageCache{Images: make([]rental.CachedImage, len(all))}
	for i, of := range all {
		cache.Images[i] = e.shelf.cached(of)
	}
	cache.CapBytes, _ = e.cacheCap(ctx)
	return cache, nil
}

// PruneImages removes all images that were pulled for rentals but those in use and those that the owner keeps.
func (e *Engine) PruneImages(ctx context.Context) (rental.PrunedImages, error) {
	pruned := rental.PrunedImages{Images: []rental.CachedImage{}}
	before, err := e.imagesSize(ctx)
	if err != nil {
		return pruned, err
	}
	all, err := e.standings(ctx)
	if err != nil {
		return pruned, err
	}
	for _, of := range all {
		if of.inUse || e.shelf.kept(of.Reference) && !of.Private {
			continue
		}
		gone, err := e.removeCached(ctx, of)
		if err != nil {
			return pruned, err
		}
		if gone {
			pruned.Images = append(pruned.Images, e.shelf.cached(of))
		}
	}
	if err := e.shelf.save(); err != nil {
		e.log.Warn("noting which images are the agent's", "error", err) // those that are gone are found out to be
	}
	after, err := e.imagesSize(ctx)
	pruned.FreedBytes = max(0, before-after)
	return pruned, err
}

// imagesSize is what all layers have of the disk, each counted once.
func (e *Engine) imagesSize(ctx context.Context) (int64, error) {
	call, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	usage, err := e.api().DiskUsage(call, types.DiskUsageOptions{Types: []types.DiskUsageObject{types.ImageObject}})
	if err != nil {
		return 0, failed(ctx, "counting what images take", err)
	}
	return usage.LayersSize, nil
}
