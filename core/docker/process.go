package docker

import (
	"sync"
	"time"
)

// processes are the first processes of containers, by which it can be seen that they run while the engine is away.
// Where they are not to be seen, as with an engine in a virtual machine, there are none.
type processes struct {
	mu    sync.Mutex
	known map[string]process // guarded by mu; by container
}

// process tells a process from a later one with the same number.
type process struct {
	pid     int
	started uint64 // in ticks since boot
}

func (p *processes) note(containerID string, pid int) {
	found, ok := processOf(pid)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !ok {
		delete(p.known, containerID)
		return
	}
	if p.known == nil {
		p.known = make(map[string]process)
	}
	p.known[containerID] = found
}

func (p *processes) forget(containerID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, containerID)
}

// runs reports whether a container's process has been seen to run just now.
func (p *processes) runs(containerID string) bool {
	p.mu.Lock()
	known, ok := p.known[containerID]
	p.mu.Unlock()
	if !ok {
		return false
	}
	now, ok := processOf(known.pid)
	return ok && now == known
}

// startedBeforeBoot reports that a container started before the machine did, and ended after: the engine was told of
// that end by nobody.
func startedBeforeBoot(started, ended time.Time) bool {
	boot, ok := bootTime()
	return ok && started.Before(boot) && !ended.Before(boot)
}
