package docker

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"

	"github.com/distributedcompute/host-agent/core/rental"
)

// cdiHost is an engine that knows descriptions of devices, which the engine of these tests is too old for. What its two
// drivers say when a container is started is set; "" is that they hand the GPU out.
type cdiHost struct {
	mu        sync.Mutex
	hook, cdi string                              // guarded by mu
	noPlaces  bool                                // guarded by mu; it knows no descriptions
	made      map[string]*container.CreateRequest // guarded by mu; by id, also those that are gone
	started   []string                            // guarded by mu; ids
	removed   map[string]bool                     // guarded by mu
}

func (h *cdiHost) set(hook, cdi string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hook, h.cdi = hook, cdi
}

func (h *cdiHost) answer(r *http.Request) answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	path := pathOf(r)
	id, act, _ := strings.Cut(strings.TrimPrefix(path, "/containers/"), "/")
	switch {
	case path == "/_ping":
		return answer{http.StatusOK, nil}
	case path == "/info":
		info := fitSystem
		if !h.noPlaces {
			info.CDISpecDirs = []string{"/etc/cdi"}
		}
		return answer{http.StatusOK, info}
	case strings.HasPrefix(path, "/images/"):
		return answer{http.StatusOK, map[string]string{"Id": testImage.ID}}
	case path == "/networks":
		return answer{http.StatusOK, []any{}}
	case path == "/networks/create":
		return answer{http.StatusCreated, map[string]string{"Id": "n"}}
	case path == "/containers/json":
		return answer{http.StatusOK, []container.Summary{}}
	case path == "/containers/create":
		asked := new(container.CreateRequest)
		if err := json.NewDecoder(r.Body).Decode(asked); err != nil {
			return answer{http.StatusBadRequest, map[string]string{"message": err.Error()}}
		}
		id := r.URL.Query().Get("name")
		h.made[id] = asked
		return answer{http.StatusCreated, map[string]string{"Id": id}}
	case r.Method == http.MethodDelete:
		h.removed[id] = true
		return answer{http.StatusOK, nil}
	case act == "json":
		return answer{http.StatusOK, container.InspectResponse{
			ContainerJSONBase: &container.ContainerJSONBase{ID: id, State: &container.State{}, HostConfig: h.made[id].HostConfig},
			Config:            h.made[id].Config, NetworkSettings: &container.NetworkSettings{},
		}}
	case act == "start":
		h.started = append(h.started, id)
		text := h.hook
		if h.made[id].HostConfig.DeviceRequests[0].Driver == driverCDI {
			text = h.cdi
		}
		if text == "" {
			text = "exec: " + h.made[id].Entrypoint[0] + ": stat: no such file or directory: unknown"
		}
		return answer{http.StatusInternalServerError, map[string]string{"message": text}}
	}
	return answer{http.StatusNotFound, map[string]string{"message": "no such thing"}}
}

const (
	hookMissing = `could not select device driver "nvidia" with capabilities: [[gpu compute utility]]`
	hookRefuses = "OCI runtime create failed: error running hook #0: invoking the NVIDIA Container Runtime Hook directly (e.g. specifying the docker --gpus flag) is not supported"
	hookFails   = "nvidia-container-cli: device error: /dev/nvidia9: no such file or directory"
	undescribed = "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=" + testGPU
	cdiNotKnown = `could not select device driver "cdi" with capabilities: []`
)

func TestWayToTheGPUs(t *testing.T) {
	for name, test := range map[string]struct {
		hook, cdi string
		noPlaces  bool
		driver    string // of the rental's container; "" where none is made
		trials    int
	}{
		"the hook works":        {"", undescribed, false, driverHook, 1},
		"both work":             {"", "", false, driverHook, 1},
		"no hook":               {hookMissing, "", false, driverCDI, 2},
		"toolkit in CDI mode":   {hookRefuses, "", false, driverCDI, 2},
		"hook fails":            {hookFails, "", false, driverCDI, 2},
		"neither":               {hookRefuses, undescribed, false, "", 2},
		"neither, CDI off":      {hookMissing, cdiNotKnown, false, "", 2},
		"an engine without CDI": {"", "", true, driverHook, 0},
		"nor the hook, untried": {hookMissing, "", true, driverHook, 0}, // its start says so
	} {
		t.Run(name, func(t *testing.T) {
			h := &cdiHost{hook: test.hook, cdi: test.cdi, noPlaces: test.noPlaces, made: make(map[string]*container.CreateRequest), removed: make(map[string]bool)}
			e := engineAt(t, h.answer)
			s := least()
			s.Command = []string{"/bin/true"}
			s.GPUs = []rental.GPU{{UUID: testGPU}}
			id, err := e.Create(t.Context(), s, testImage)
			if test.driver == "" {
				if !hasCode(err, rental.CodeGPUUnavailable) {
					t.Errorf("created %q, %v; want gpu_unavailable", id, err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if test.driver != "" {
				want := deviceRequests(s.GPUs, test.driver == driverCDI)[0]
				if got := h.made[id].HostConfig.DeviceRequests[0]; got.Driver != want.Driver || !slices.Equal(got.DeviceIDs, want.DeviceIDs) {
					t.Errorf("asked for %+v, want %+v", got, want)
				}
			}
			h.checkTrials(t, test.trials)
			s.ID = "another"
			if _, err := e.Create(t.Context(), s, testImage); test.driver != "" && err != nil {
				t.Error(err)
			}
			if again := len(h.started); test.driver != "" && again != test.trials {
				t.Errorf("what is known is tried again: %d", again)
			}
		})
	}
}

// checkTrials looks at what was started to find out: nothing of the image's, in no less confinement, and nothing is left.
func (h *cdiHost) checkTrials(t *testing.T, want int) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.started) != want {
		t.Errorf("%d trials, want %d", len(h.started), want)
	}
	for _, id := range h.started {
		made := h.made[id]
		if len(made.Entrypoint) != 1 || len(made.Entrypoint[0]) < 20 || made.Cmd != nil || made.HostConfig.NetworkMode != "none" || *made.HostConfig.Init {
			t.Errorf("a trial runs %v %v on network %s", made.Entrypoint, made.Cmd, made.HostConfig.NetworkMode)
		}
		if made.HostConfig.Memory == 0 || !slices.Contains(made.HostConfig.SecurityOpt, seccompOption+systemCallFilter()) || made.Labels[labelOwner] != "" {
			t.Errorf("a trial is not shut in: %+v", made.HostConfig)
		}
		if !h.removed[id] {
			t.Errorf("a trial is left: %s", id)
		}
	}
}

// A host whose toolkit is set otherwise while the agent runs is asked anew, and back.
func TestWayToTheGPUsIsFoundAnew(t *testing.T) {
	h := &cdiHost{made: make(map[string]*container.CreateRequest), removed: make(map[string]bool)}
	e := engineAt(t, h.answer)
	s := least()
	s.GPUs = []rental.GPU{{UUID: testGPU}}
	drivers := func(id rental.ID) string {
		t.Helper()
		s.ID = id
		made, err := e.Create(t.Context(), s, testImage)
		if err != nil {
			t.Fatal(err)
		}
		return h.made[made].HostConfig.DeviceRequests[0].Driver
	}
	if got := drivers("one"); got != driverHook {
		t.Errorf("driver %s", got)
	}
	h.set(hookRefuses, "")
	if _, err := e.Start(t.Context(), "dc-one"); !hasCode(err, rental.CodeGPUUnavailable) {
		t.Errorf("Start: %v", err)
	}
	if got := drivers("two"); got != driverCDI {
		t.Errorf("driver %s after the toolkit was set to descriptions", got)
	}
	h.set("", cdiNotKnown)
	if err := e.look(t.Context(), func() {}); err != nil { // as when the engine has read its settings again
		t.Fatal(err)
	}
	if got := drivers("three"); got != driverHook {
		t.Errorf("driver %s after it was set back", got)
	}
}

func TestEnginesThatOfferDescriptions(t *testing.T) {
	for name, test := range map[string]struct {
		said   system.Info
		offers bool
	}{
		"20.10":   {system.Info{}, false},
		"26, off": {system.Info{CDISpecDirs: []string{}}, false},
		"26, on":  {system.Info{CDISpecDirs: []string{"/etc/cdi", "/var/run/cdi"}}, true},
		"28.2":    {system.Info{DiscoveredDevices: []system.DeviceInfo{{Source: "cdi", ID: cdiKind + testGPU}}}, true},
	} {
		if got := factsOf(test.said).OffersCDI; got != test.offers {
			t.Errorf("%s: offers %t", name, got)
		}
	}
}
