package docker

import (
	"sync"

	"github.com/distributedcompute/host-agent/core/rental"
)

// verdicts are the reasons for which the host has ended containers.
type verdicts struct {
	mu   sync.Mutex
	said map[string]*rental.Failure // guarded by mu; by container id
}

func (v *verdicts) set(containerID string, failure *rental.Failure) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.said == nil {
		v.said = make(map[string]*rental.Failure)
	}
	if v.said[containerID] == nil { // what came first is the cause
		v.said[containerID] = failure
	}
}

func (v *verdicts) of(containerID string) *rental.Failure {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.said[containerID]
}

func (v *verdicts) forget(containerID string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.said, containerID)
}
