//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"golang.org/x/sys/unix"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/market"
	"github.com/distributedcompute/host-agent/sandbox/workload"
)

// beatWithin is how far apart two heartbeats may be, in paces. On a machine that others keep busy too, more is allowed.
const beatWithin = 3

// What the rental is held to into which bombs go.
const (
	bombPids        = 256 // of the owner's settings
	bombMemory      = 192 << 20
	bombDisk        = 48 << 20
	bombFiles       = 100_000
	bombInodes      = 400_000
	bombLogMB       = 120
	logBound        = 40 << 20 // three files of 10 MiB and what is being written
	bombConnections = 3000
	maxConnections  = 2000 // of the agent's settings, by default
)

// bomb is one way of taking more than was rented.
type bomb struct {
	name string
	set  func(ctx context.Context, running protocol.InstanceStatus) (answer string, err error)
	// held looks at the rental and the host after that; it says what is wrong, "" where the bomb was contained.
	held func(ctx context.Context, running protocol.InstanceStatus, answer string) (string, error)
	kind bombs
}

// bombs is a choice of them.
type bombs int

const (
	lightBombs bombs = 1 << iota
	slowBombs        // fill much, or open much
	diskBombs        // take as long as the pace at which disks are looked at
	allBombs   = lightBombs | slowBombs | diskBombs
)

// contained sets off bombs in rentals, one after the other: each has to be held at the rental's limit, or end it, while the host
// keeps its reserve, another rental answers, and the agent's heartbeats stay on time.
func (p *place) contained(ctx context.Context, which bombs) (v verdict, err error) {
	v = verdict{name: "contained"}
	image, err := p.volumeImage(ctx)
	if err != nil {
		return v, err
	}
	_, bystander, err := p.rent(ctx, market.Rent{ID: "bystander", CPUs: 0.2, RAMBytes: 96 << 20, DiskBytes: 32 << 20, Ports: []string{"8080"}})
	if err != nil {
		return v, err
	}
	began := time.Now()
	for _, b := range p.allOf() {
		if b.kind&which == 0 {
			continue
		}
		v.of++
		wrong, took, err := p.setOff(ctx, b, image, bystander)
		switch {
		case err != nil:
			return v, fmt.Errorf("%s: %w", b.name, err)
		case wrong != "":
			v.fail("%s: %s", b.name, wrong)
		default:
			v.got++
			v.note("%s: held, after %s", b.name, took.Round(100*time.Millisecond))
		}
	}
	v.want = v.of
	most := beatWithin * pace * time.Second
	if which == lightBombs {
		most *= 5
	}
	gap := p.beatGap(began)
	v.note("heartbeats at most %s apart, at a pace of %d s", gap.Round(10*time.Millisecond), pace)
	if gap > most {
		v.fail("heartbeats came %s apart, at a pace of %d s", gap, pace)
	}
	return v, p.end(ctx, "bystander")
}

// volumeImage is the workload with a volume of its own, /volume, as images of databases have.
func (p *place) volumeImage(ctx context.Context) (string, error) {
	program, err := os.ReadFile(p.guest)
	if err != nil {
		return "", err
	}
	img, err := workload.Pack(program)
	if err != nil {
		return "", err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	config = config.DeepCopy()
	config.Config.Volumes = map[string]struct{}{"/volume": {}}
	var with v1.Image
	if with, err = mutate.ConfigFile(img, config); err != nil {
		return "", err
	}
	return p.Registry.Push(ctx, "sandbox/volume:1", with)
}

// setOff rents, sets a bomb off in the rental and looks at what became of it; took is how long that was.
func (p *place) setOff(ctx context.Context, b bomb, image string, bystander protocol.InstanceStatus) (wrong string, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	id := "bomb-" + strings.ReplaceAll(b.name, " ", "-")
	_, running, err := p.rent(ctx, market.Rent{
		ID: id, Image: image, CPUs: 0.6, RAMBytes: bombMemory, ShmBytes: 16 << 20, DiskBytes: bombDisk, Ports: []string{"8080"},
	})
	if err != nil {
		return "", 0, err
	}
	began := time.Now()
	// The other rental is asked all the while.
	watch, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	silent := ""
	watching.Go(func() {
		for watch.Err() == nil {
			var ignored string
			if err := p.page(watch, bystander, "/json", &ignored); err != nil && watch.Err() == nil {
				silent = err.Error()
			}
			select {
			case <-time.After(200 * time.Millisecond):
			case <-watch.Done():
			}
		}
	})
	answer, err := b.set(ctx, running)
	if err == nil {
		wrong, err = b.held(ctx, running, answer)
	}
	stop()
	watching.Wait()
	took = time.Since(began)
	if err != nil {
		err = p.withLogs(ctx, id, err)
	}
	switch {
	case wrong != "":
		wrong += " (the program says: " + answer + ")"
	case silent != "":
		wrong = "the other rental does not answer: " + silent
	}
	if rental, _ := p.Backend.Rental(id); !rental.Latest().Final() {
		err = errors.Join(err, p.end(ctx, id))
	}
	return wrong, took, err
}

// allOf the bombs.
func (p *place) allOf() []bomb {
	// ask sets one off by the rental's program. A program that was ended for it answers nothing.
	ask := func(kind string, n int, at string) func(context.Context, protocol.InstanceStatus) (string, error) {
		return func(ctx context.Context, running protocol.InstanceStatus) (string, error) {
			var answer string
			query := url.Values{"kind": {kind}, "n": {fmt.Sprint(n)}, "at": {at}}
			if err := p.page(ctx, running, "/bomb?"+query.Encode(), &answer); err != nil {
				return "nothing: " + err.Error(), nil
			}
			return answer, nil
		}
	}
	stopped := func(most int) func(context.Context, protocol.InstanceStatus, string) (string, error) {
		return func(_ context.Context, running protocol.InstanceStatus, answer string) (string, error) {
			var got int
			if _, err := fmt.Sscanf(answer, "%d until", &got); err != nil || got < 10 || got > most {
				return fmt.Sprintf("was not stopped at %d", most), nil
			}
			return p.stillRuns(running), nil
		}
	}
	return []bomb{
		{"fork", ask("fork", 10*bombPids, ""), func(ctx context.Context, running protocol.InstanceStatus, answer string) (string, error) {
			if !strings.HasPrefix(answer, "nothing: ") {
				return stopped(bombPids)(ctx, running, answer)
			}
			// A program that may start no thread any more can end by that itself.
			return p.endsWith(protocol.ContainerFailed)(ctx, running, answer)
		}, lightBombs},
		{"memory", func(ctx context.Context, running protocol.InstanceStatus) (string, error) {
			var answer string
			if err := p.page(ctx, running, "/allocate?mb=1024", &answer); err != nil {
				return "nothing: " + err.Error(), nil
			}
			return answer, nil
		}, p.endsWith(protocol.ContainerFailed), lightBombs},
		{"file descriptors", ask("files", bombFiles, ""), stopped(bombFiles - 1), lightBombs},
		{"connections", ask("connections", bombConnections, fmt.Sprintf("%s:%d", internet, echoPort)), stopped(maxConnections), slowBombs},
		{"logs", ask("log", bombLogMB, ""), p.logsBounded, slowBombs},
		{"disk in the root file system", ask("disk", 1024, "/fill"), p.diskHeld(bombDisk >> 20), diskBombs},
		{"disk in a volume", ask("disk", 1024, "/volume/fill"), p.endsWith(protocol.DiskLimitExceeded), diskBombs},
		{"inodes", ask("inodes", bombInodes, "/many"), p.diskHeld(bombInodes - 1), diskBombs},
	}
}

// stillRuns says what is wrong where a rental does not run any more.
func (p *place) stillRuns(running protocol.InstanceStatus) string {
	rental, _ := p.Backend.Rental(running.RentalID)
	if now := rental.Latest(); now.State != "running" {
		return fmt.Sprintf("it is %s: %v", now.State, now.Error)
	}
	return ""
}

// endsWith requires that the rental ends with a code, and that the host has kept its reserve.
func (p *place) endsWith(code protocol.ErrorCode) func(context.Context, protocol.InstanceStatus, string) (string, error) {
	return func(ctx context.Context, running protocol.InstanceStatus, _ string) (string, error) {
		ended, err := p.ended(ctx, running.RentalID)
		switch {
		case err != nil:
			return err.Error(), nil
		case ended.Error == nil || ended.Error.Code != code:
			return fmt.Sprintf("it is %s with %v, not with %s", ended.State, ended.Error, code), nil
		}
		return p.reserve(ctx)
	}
}

// ended waits for a rental's final status.
func (p *place) ended(ctx context.Context, id string) (protocol.InstanceStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last protocol.InstanceStatus
	for report := range p.Backend.Reports(ctx, id) {
		if last = report.Status; last.Final() {
			return last, nil
		}
	}
	return last, fmt.Errorf("it has not ended, but is %s", last.State)
}

// root is where the engine keeps its data.
func (p *place) root(ctx context.Context) (string, error) {
	var info struct{ DockerRootDir string }
	err := p.docker.do(ctx, http.MethodGet, "/info", nil, &info)
	return info.DockerRootDir, err
}

// reserve looks whether the host has kept what it keeps for itself, of space and of inodes.
func (p *place) reserve(ctx context.Context) (string, error) {
	root, err := p.root(ctx)
	if err != nil {
		return "", err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(root, &disk); err != nil {
		return "", fmt.Errorf("measuring the engine's storage: %w", err)
	}
	if free := int64(disk.Bavail) * disk.Bsize; free < reserveBytes {
		return fmt.Sprintf("the host has %d bytes left, less than its reserve", free), nil
	}
	if disk.Ffree < disk.Files/20 {
		return fmt.Sprintf("the host has %d of %d inodes left", disk.Ffree, disk.Files), nil
	}
	return "", nil
}

// diskHeld requires that the rental ends for it, or, where the storage itself holds it to its disk, that the bomb was stopped
// at most at so many of what it counts, and the rental runs on. Either way the host keeps its reserve, of inodes too.
func (p *place) diskHeld(most int) func(context.Context, protocol.InstanceStatus, string) (string, error) {
	return func(ctx context.Context, running protocol.InstanceStatus, answer string) (string, error) {
		there, err := p.docker.inspect(ctx, running.ContainerID)
		if err != nil || there.HostConfig.StorageOpt["size"] == "" {
			return p.endsWith(protocol.DiskLimitExceeded)(ctx, running, answer)
		}
		var got int
		_, err = fmt.Sscanf(answer, "%d until", &got)
		switch {
		case strings.HasPrefix(answer, "nothing: "): // what the storage does not count, the agent does
			return p.endsWith(protocol.DiskLimitExceeded)(ctx, running, answer)
		case err != nil || got > most || !strings.HasSuffix(answer, unix.EDQUOT.Error()) && !strings.HasSuffix(answer, unix.ENOSPC.Error()):
			return fmt.Sprintf("was not stopped at %d by its disk", most), nil
		}
		if wrong := p.stillRuns(running); wrong != "" {
			return wrong, nil
		}
		return p.reserve(ctx)
	}
}

// logsBounded requires that what the rental has printed takes little on the host.
func (p *place) logsBounded(ctx context.Context, running protocol.InstanceStatus, answer string) (string, error) {
	if !strings.HasPrefix(answer, fmt.Sprintf("%d and", bombLogMB)) {
		return "it could not print", nil
	}
	root, err := p.root(ctx)
	if err != nil {
		return "", err
	}
	size := int64(0)
	err = filepath.WalkDir(filepath.Join(root, "containers", running.ContainerID), func(_ string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			size += info.Size()
		}
		return nil // a file that was rotated away meanwhile
	})
	if err != nil {
		return "", fmt.Errorf("measuring logs: %w", err)
	}
	if size > logBound {
		return fmt.Sprintf("%d MiB of output take %d bytes", bombLogMB, size), nil
	}
	return p.stillRuns(running), nil
}

// beatGap is the longest time between two heartbeats since a moment.
func (p *place) beatGap(since time.Time) time.Duration {
	node, _ := p.Backend.Node(p.node)
	longest, last := time.Duration(0), since
	for _, beat := range append(node.Heartbeats, time.Now()) {
		if beat.After(since) {
			longest, last = max(longest, beat.Sub(last)), beat
		}
	}
	return longest
}
