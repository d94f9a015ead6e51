package docker

import (
	"net/http"
	"testing"

	"github.com/docker/docker/api/types/system"
)

// The containerd image store takes a size and does nothing about it.
func TestSizeThatTheEngineIgnoresIsFound(t *testing.T) {
	answers := map[string]answer{
		"/_ping":                    {http.StatusOK, nil},
		"/containers/json":          {http.StatusOK, []string{}},
		"/images/create":            {http.StatusOK, nil},
		"/containers/create":        {http.StatusCreated, map[string]string{"Id": "probe"}},
		"/containers/probe/archive": {http.StatusOK, nil},
	}
	if holds, err := engineThatAnswers(t, answers).probeQuota(t.Context()); holds || err != nil {
		t.Errorf("an engine that writes everything: %t, %v", holds, err)
	}
	answers["/containers/create"] = answer{http.StatusInternalServerError, map[string]string{"message": "--storage-opt is supported only for overlay over xfs"}}
	if holds, err := engineThatAnswers(t, answers).probeQuota(t.Context()); holds || err != nil {
		t.Errorf("an engine that refuses the option: %t, %v", holds, err)
	}
	answers["/containers/create"] = answer{http.StatusCreated, map[string]string{"Id": "probe"}}
	answers["/containers/probe/archive"] = answer{http.StatusInternalServerError, map[string]string{"message": "no space left on device"}}
	if holds, err := engineThatAnswers(t, answers).probeQuota(t.Context()); holds || err == nil {
		t.Errorf("a disk that is full anyway: %t, %v; want an error", holds, err)
	}
}

func TestQuotaIsRememberedByStorage(t *testing.T) {
	var q quota
	xfs := system.Info{ID: "a", DockerRootDir: "/var/lib/docker", Driver: "overlay2", DriverStatus: [][2]string{{"Backing Filesystem", "xfs"}}}
	q.expect(storageOf(xfs))
	if _, pending := q.pending(); !pending {
		t.Fatal("a storage that nobody has tried needs no trial")
	}
	q.rule(storageOf(xfs), true)
	q.expect(storageOf(xfs)) // the engine's next life
	if _, pending := q.pending(); pending || !q.holds(t.Context()) {
		t.Error("what was tried is not remembered")
	}
	moved := xfs
	moved.DockerRootDir = "/mnt/docker"
	q.expect(storageOf(moved))
	if _, pending := q.pending(); !pending {
		t.Error("another data root is not tried")
	}
	q.giveUp()
	if q.holds(t.Context()) {
		t.Error("a trial without a result counts as one that succeeded")
	}
	for backing, impossible := range map[string]bool{"xfs": false, "extfs": true, "": false} {
		if got := quotaImpossible(system.Info{Driver: "overlay2", DriverStatus: [][2]string{{"Backing Filesystem", backing}}}); got != impossible {
			t.Errorf("overlay2 on %q: impossible %t", backing, got)
		}
	}
}
