package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"

	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	leastAPI = "1.41" // Docker 20.10

	pingEvery     = 30 * time.Second // while the stream of events is open, which is the real watch
	settlesWithin = time.Second      // some engines announce a new configuration before they use it
	firstRetry    = 250 * time.Millisecond
	longestRetry  = 5 * time.Second
	tidyUpWithin  = 10 * time.Second
)

// Info is what the engine last said of itself. Before Run has looked it is not available and has no problem.
func (e *Engine) Info() rental.EngineInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	info := e.info
	info.Runtimes = slices.Clone(info.Runtimes)
	return info
}

// Run watches the engine until ctx ends. changed is called after each change of Info. An open stream of
// events shows that the engine is there; while it is away Run looks for it again and again.
func (e *Engine) Run(ctx context.Context, changed func()) error {
	defer e.tidyUp()
	var keeping sync.WaitGroup
	defer keeping.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	keeping.Go(func() { e.keepShield(ctx, changed) })
	keeping.Go(func() { e.watchDisks(ctx, changed) })
	retry := firstRetry
	for {
		err := e.look(ctx, changed)
		if err == nil {
			retry = firstRetry
			err = e.watch(ctx, changed)
		}
		if ctx.Err() != nil {
			return nil
		}
		e.lost(ctx, err, changed)
		if pause(ctx, retry) != nil {
			return nil
		}
		retry = min(2*retry, longestRetry)
		if err := e.connect(); err != nil {
			return err
		}
	}
}

// tidyUp leaves no unused network behind.
func (e *Engine) tidyUp() {
	ctx, cancel := context.WithTimeout(context.Background(), tidyUpWithin)
	defer cancel()
	e.networks.release(e.networks.takeSpare())
	if err := e.sweepNetworks(ctx); err != nil && !isUnavailable(err) { // an engine that is away is known
		e.log.Warn("networks left for the next start", "error", err)
	}
	e.lowerShield(ctx)
}

// look asks the engine about itself.
func (e *Engine) look(ctx context.Context, changed func()) error {
	call, cancel := bounded(ctx)
	defer cancel()
	ping, err := e.api().Ping(call)
	if err != nil {
		return err
	}
	if versions.LessThan(ping.APIVersion, leastAPI) {
		return problemf("Update Docker Engine to version 28 or newer: https://docs.docker.com/engine/install/",
			"Docker Engine speaks API version %s, and %s is the oldest this agent can use.", ping.APIVersion, leastAPI)
	}
	said, err := e.api().Info(call)
	if err != nil {
		return err
	}
	if unfit := unfitness(said); unfit != nil {
		e.facts.Store(nil) // those of an earlier configuration hold no more
		return unfit
	}
	known := factsOf(said)
	e.facts.Store(&known)
	e.guard.reconsider()
	e.expectQuota(said)
	e.gpus.forget()
	e.tell(infoOf(said, ping.APIVersion), changed)
	e.guard.ask() // not before it is told: while the engine is away nobody looks
	e.disks.ask()
	return nil
}

// knownFacts are those that Run has seen, or asked for now.
func (e *Engine) knownFacts(ctx context.Context) (facts, error) {
	if known := e.facts.Load(); known != nil {
		return *known, nil
	}
	call, cancel := bounded(ctx)
	defer cancel()
	said, err := e.api().Info(call)
	if err != nil {
		return facts{}, failed(ctx, "asking about the engine", err)
	}
	if unfit := unfitness(said); unfit != nil {
		return facts{}, rental.Failf(rental.CodeDockerUnavailable, "%s", unfit.text)
	}
	known := factsOf(said)
	e.facts.Store(&known)
	return known, nil
}

// watch keeps the stream of events open, and a network in stock. It returns when the engine goes away.
func (e *Engine) watch(ctx context.Context, changed func()) error {
	var trial sync.WaitGroup
	defer trial.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	trial.Go(func() { e.tryQuota(ctx) })
	trial.Go(func() { e.keepShelf(ctx) })
	// Of the daemon alone: what containers do is waited for, and must not wake this loop.
	said, gone := e.api().Events(ctx, events.ListOptions{
		Filters: filters.NewArgs(filters.Arg("type", string(events.DaemonEventType))),
	})
	if err := e.sweepNetworks(ctx); err != nil {
		e.log.Warn("sweeping networks", "error", err)
	}
	e.networks.ask()
	alive := time.NewTicker(pingEvery)
	defer alive.Stop()
	var settled <-chan time.Time
	for {
		var err error
		select {
		case err = <-gone:
			return errors.Join(errStreamEnded, err)
		case <-said: // it reads its configuration again
			settled = time.After(settlesWithin)
		case <-settled:
			err = e.look(ctx, changed)
		case <-alive.C:
			err = e.ping(ctx)
		case <-e.networks.refill:
			if err := e.stock(ctx); err != nil {
				e.log.Warn("keeping a network in stock", "error", err)
			}
		}
		if err != nil {
			return err
		}
	}
}

var errStreamEnded = errors.New("the engine has closed the stream of events")

func (e *Engine) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := e.api().Ping(ctx)
	return err
}

// lost tells that the engine is not available, and why.
func (e *Engine) lost(ctx context.Context, err error, changed func()) {
	found, ok := errors.AsType[*problem](err)
	if !ok {
		found = e.diagnose(ctx, err)
	}
	e.tell(rental.EngineInfo{Problem: found.text, Fix: found.fix}, changed)
}

// tell publishes info if it differs from what is known.
func (e *Engine) tell(info rental.EngineInfo, changed func()) {
	e.mu.Lock()
	before := e.info
	info.Since, info.Shield = before.Since, before.Shield
	info.DiskLow, info.DiskReserveBytes = before.DiskLow, before.DiskReserveBytes
	same := reflect.DeepEqual(before, info)
	if !same {
		if before.Available != info.Available {
			info.Since = time.Time{}
			if info.Available {
				info.Since = time.Now()
			}
		}
		e.info = info
	}
	e.mu.Unlock()
	if !same {
		changed()
	}
}

// tellDisk publishes whether the host has less than its reserve.
func (e *Engine) tellDisk(low bool, reserve int64, changed func()) {
	e.mu.Lock()
	same := e.info.DiskLow == low && e.info.DiskReserveBytes == reserve
	e.info.DiskLow, e.info.DiskReserveBytes = low, reserve
	e.mu.Unlock()
	if !same {
		changed()
	}
}

// problem is why the engine cannot be used, and what to do about it.
type problem struct{ text, fix string }

func (p *problem) Error() string { return p.text }

func problemf(fix, format string, args ...any) *problem {
	return &problem{text: fmt.Sprintf(format, args...), fix: fix}
}

// diagnose finds out why a call failed. The client's errors no longer say, so it knocks itself.
func (e *Engine) diagnose(ctx context.Context, err error) *problem {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	conn, dialErr := e.api().Dialer()(ctx)
	if dialErr == nil {
		_ = conn.Close()
	}
	address := e.api().DaemonHost()
	switch {
	case dialErr == nil && errors.Is(err, context.DeadlineExceeded):
		return problemf("Look at the engine's log; restarting Docker helps as a rule.", "Docker does not answer.")
	case dialErr == nil:
		return problemf("It should be back in a moment.", "Docker is restarting.")
	case errors.Is(dialErr, fs.ErrPermission):
		return problemf(howToPermit, "This user may not use Docker: no permission for %s.", address)
	case errors.Is(dialErr, fs.ErrNotExist) && !installed():
		return problemf(howToInstall, "Docker is not installed.")
	case errors.Is(dialErr, fs.ErrNotExist), errors.Is(dialErr, syscall.ECONNREFUSED):
		return problemf(howToStart, "Docker is not running: nothing answers at %s.", address)
	default:
		return problemf(howToStart, "Docker cannot be reached at %s.", address)
	}
}

// installed reports whether a Docker program is on this machine.
func installed() bool {
	return slices.ContainsFunc([]string{"dockerd", "docker", "/usr/sbin/dockerd", "/usr/bin/dockerd", "/usr/local/bin/docker"},
		func(name string) bool {
			_, err := exec.LookPath(name)
			return err == nil
		})
}

// unfitness is why an engine cannot hold rentals; nil when it can.
func unfitness(said system.Info) *problem {
	if missing := missingLimits(said); missing != "" {
		return problemf("Run the engine as root on a Linux kernel with control groups: https://docs.docker.com/engine/install/troubleshoot/",
			"Docker Engine cannot limit the %s of containers on this system.", missing)
	}
	if seccompProfile(said) == "" {
		return problemf("Run the engine on a Linux kernel with seccomp: https://docs.docker.com/engine/security/seccomp/",
			"Docker Engine cannot filter the system calls of containers on this system.")
	}
	return nil
}

// seccompProfile is what the engine filters system calls by unless told otherwise: "default" or "builtin" is its
// own, a path the host's, "unconfined" none. It is "" when the engine cannot filter.
func seccompProfile(said system.Info) string {
	for _, option := range said.SecurityOptions {
		if profile, ok := strings.CutPrefix(option, "name=seccomp,profile="); ok {
			return profile
		}
	}
	return ""
}

// missingLimits names a limit that the engine could only ignore; "" when all are there.
func missingLimits(said system.Info) string {
	switch {
	case !said.MemoryLimit:
		return "memory"
	case !said.CPUCfsQuota:
		return "CPU time"
	case !said.PidsLimit:
		return "number of processes"
	}
	return ""
}

func factsOf(said system.Info) facts {
	return facts{
		AppArmor:     slices.ContainsFunc(said.SecurityOptions, func(o string) bool { return strings.HasPrefix(o, "name=apparmor") }),
		LiveRestore:  said.LiveRestoreEnabled,
		Unshieldable: unshieldableEngine(said),
		Remapped:     remapped(said),
		NoSwapLimit:  !said.SwapLimit,
		Architecture: architectureOf(said.Architecture),
		OffersCDI:    len(said.CDISpecDirs) > 0 || describesGPUs(said),
	}
}

func infoOf(said system.Info, apiVersion string) rental.EngineInfo {
	info := rental.EngineInfo{
		Available:     true,
		Version:       said.ServerVersion,
		APIVersion:    apiVersion,
		StorageDriver: said.Driver,
		DataRoot:      said.DockerRootDir,
		Rootless:      slices.Contains(said.SecurityOptions, "name=rootless"),
		CDI:           len(said.CDISpecDirs) > 0,
		CPUs:          said.NCPU,
		MemoryBytes:   said.MemTotal,
	}
	for name := range said.Runtimes {
		info.Runtimes = append(info.Runtimes, name)
	}
	slices.Sort(info.Runtimes)
	info.GPUReady = gpuReady(said)
	return info
}

// gpuReady reports whether the engine can hand out NVIDIA GPUs, as far as it can be told from outside. Its API
// does not list device drivers, so this goes by the signs of a toolkit set up as NVIDIA documents it:
// the runtime it registers, its hook in the place of packages, or GPUs among the devices that are described to the engine.
// A hook that was installed after the engine was started is taken for working, though it is not yet.
func gpuReady(said system.Info) bool {
	if _, ok := said.Runtimes["nvidia"]; ok || describesGPUs(said) {
		return true
	}
	_, err := exec.LookPath("/usr/bin/nvidia-container-runtime-hook")
	return err == nil
}

// describesGPUs reports whether the engine knows NVIDIA's GPUs by their description; engines before 28.2 do not say.
func describesGPUs(said system.Info) bool {
	return slices.ContainsFunc(said.DiscoveredDevices, func(d system.DeviceInfo) bool { return strings.HasPrefix(d.ID, cdiKind) })
}
