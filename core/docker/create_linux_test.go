package docker

import (
	"net/http"
	"testing"

	"github.com/docker/docker/api/types/system"
)

// A call that was given up may have the engine busy with the container still: its name is taken, but it is not there.
func TestCreateIsTriedAgainWhileTheEngineIsAtIt(t *testing.T) {
	e := engineThatAnswers(t, map[string]answer{
		"/_ping":                            {http.StatusOK, nil},
		"/info":                             {http.StatusOK, fitSystem},
		"/images/" + testImage.ID + "/json": {http.StatusOK, map[string]string{"Id": testImage.ID}},
		"/networks":                         {http.StatusOK, []any{}},
		"/networks/create":                  {http.StatusCreated, map[string]string{"Id": "n"}},
		"/containers/create":                {http.StatusConflict, map[string]string{"message": "the container name is already in use"}},
	})
	if id, err := e.Create(t.Context(), least(), testImage); !isUnavailable(err) {
		t.Errorf("created %q, %v; want docker_unavailable", id, err)
	}
}

var fitSystem = system.Info{
	MemoryLimit: true, CPUCfsQuota: true, PidsLimit: true, SecurityOptions: []string{"name=seccomp,profile=builtin"},
	Driver: "overlay2", DriverStatus: [][2]string{{"Backing Filesystem", "extfs"}}, // which needs no trial
}
