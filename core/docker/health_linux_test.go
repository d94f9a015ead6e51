package docker

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/system"
)

// The options are those of engines 20.10 to 28, rootless ones and Docker Desktop.
func TestRentalsAreNeverWithoutSeccomp(t *testing.T) {
	for name, test := range map[string]struct {
		options []string
		fit     bool
	}{
		"20.10":           {[]string{"name=apparmor", "name=seccomp,profile=default"}, true},
		"28":              {[]string{"name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"}, true},
		"rootless":        {[]string{"name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"}, true},
		"the host's own":  {[]string{"name=seccomp,profile=/etc/docker/seccomp.json"}, true},
		"Docker Desktop":  {[]string{"name=seccomp,profile=unconfined", "name=cgroupns"}, true},
		"without seccomp": {[]string{"name=apparmor", "name=cgroupns"}, false},
		"nothing":         {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			said := system.Info{MemoryLimit: true, CPUCfsQuota: true, PidsLimit: true, SecurityOptions: test.options}
			unfit := unfitness(said)
			if (unfit == nil) != test.fit {
				t.Errorf("problem %v, fit %t", unfit, test.fit)
			}
			if unfit != nil && (!strings.Contains(unfit.text, "system calls") || unfit.fix == "") {
				t.Errorf("problem %q, fix %q", unfit.text, unfit.fix)
			}
			if options := securityOptions(factsOf(said).AppArmor); !slices.Contains(options, seccompOption+systemCallFilter()) {
				t.Errorf("security options %q do not hold our own filter", options)
			}
		})
	}
}

// TestUnfitEngineIsRefused stands in for an engine that this machine cannot have: one whose kernel has no seccomp.
func TestUnfitEngineIsRefused(t *testing.T) {
	e := engineThatAnswers(t, map[string]answer{
		"/_ping": {http.StatusOK, nil},
		"/info":  {http.StatusOK, system.Info{MemoryLimit: true, CPUCfsQuota: true, PidsLimit: true}},
	})
	if _, err := e.knownFacts(t.Context()); !isUnavailable(err) {
		t.Errorf("facts: %v, want docker_unavailable", err)
	}
	err := e.look(t.Context(), func() {})
	if _, ok := errors.AsType[*problem](err); !ok {
		t.Errorf("look: %v, want a problem", err)
	}
	if e.Info().Available {
		t.Error("the engine is available")
	}
}

// A look that is asked for before the engine is told to be there would be passed over.
func TestShieldIsLookedAtOnceTheEngineIsThere(t *testing.T) {
	e := engineThatAnswers(t, map[string]answer{"/_ping": {http.StatusOK, nil}, "/info": {http.StatusOK, fitSystem}})
	e.guard = newGuard(&Shielding{})
	asked := func() bool {
		select {
		case <-e.guard.again:
			return true
		default:
			return false
		}
	}
	if err := e.look(t.Context(), func() { asked() }); err != nil {
		t.Fatal(err)
	}
	if !e.Info().Available || !asked() {
		t.Errorf("info %+v, and nobody looks at the shield", e.Info())
	}
}

func TestSignsOfGPUs(t *testing.T) {
	packaged := gpuReady(system.Info{}) // the machine that tests run on may have the toolkit
	for name, test := range map[string]struct {
		said  system.Info
		ready bool
	}{
		"the toolkit's runtime":   {system.Info{Runtimes: map[string]system.RuntimeWithStatus{"nvidia": {}}}, true},
		"described GPUs":          {system.Info{DiscoveredDevices: []system.DeviceInfo{{Source: "cdi", ID: "nvidia.com/gpu=" + testGPU}}}, true},
		"other described devices": {system.Info{DiscoveredDevices: []system.DeviceInfo{{Source: "cdi", ID: "example.com/net=1"}}}, packaged},
		"a place for them":        {system.Info{CDISpecDirs: []string{"/etc/cdi"}}, packaged},
	} {
		if got := gpuReady(test.said); got != test.ready {
			t.Errorf("%s: ready %t", name, got)
		}
	}
}
