package docker

import (
	"testing"

	"github.com/docker/docker/api/types/system"
)

// What containers can have is what the engine has, not the machine around its virtual machine.
func TestInfoTellsTheEnginesOwnSize(t *testing.T) {
	info := infoOf(system.Info{NCPU: 4, MemTotal: 8 << 30}, "1.51")
	if info.CPUs != 4 || info.MemoryBytes != 8<<30 {
		t.Errorf("got %d CPUs and %d bytes", info.CPUs, info.MemoryBytes)
	}
}
