package docker

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/rental"
)

func TestImagesThatReachForTheHostAreForbidden(t *testing.T) {
	many := make([]string, maxVolumes+1)
	for i := range many {
		many[i] = fmt.Sprintf("/data/%d", i)
	}
	for name, brought := range map[string]luggage{
		"a handle of the runtime":     {WorkingDir: "/proc/self/fd/8"},
		"without the first slash":     {WorkingDir: "proc/self/fd/8"},
		"more slashes":                {WorkingDir: "//proc///self/fd/8"},
		"by way of dots":              {WorkingDir: "/srv/../proc/self/fd/8"},
		"above the root":              {WorkingDir: "../../proc/self/fd/8"},
		"through it and out":          {WorkingDir: "/proc/self/root/../../app"},
		"with a dot":                  {WorkingDir: "/./proc/."},
		"/proc itself":                {WorkingDir: "/proc"},
		"/sys":                        {WorkingDir: "/sys/fs/cgroup"},
		"/dev":                        {WorkingDir: "/dev/fd/7"},
		"NUL":                         {WorkingDir: "/app\x00"},
		"a line break":                {WorkingDir: "/app\n/x"},
		"too long":                    {WorkingDir: "/" + strings.Repeat("a", maxPathSize)},
		"volume in /proc":             {Volumes: []string{"/data", "/proc/sys"}},
		"volume over /sys":            {Volumes: []string{"/sys"}},
		"volume in /dev, by dots":     {Volumes: []string{"/a/../dev/nvidia0"}},
		"volume at the root":          {Volumes: []string{"/"}},
		"volume at the root, by dots": {Volumes: []string{"/a/.."}},
		"volume nowhere":              {Volumes: []string{""}},
		"volume of the host":          {Volumes: []string{"/etc:/host"}},
		"too many volumes":            {Volumes: many},
		"Windows":                     {OS: "windows", Architecture: "amd64"},
		"another processor":           {OS: "linux", Architecture: "arm64"},
		"a 32-bit processor":          {OS: "linux", Architecture: "386"},
	} {
		t.Run(name, func(t *testing.T) {
			failure := checkImage(brought, "amd64")
			if failure == nil || failure.Code != rental.CodeImageForbidden || failure.Message == "" {
				t.Errorf("%v, want a failure image_forbidden", failure)
			}
			_, err := newPlan(least(), testImage, brought, "dc-net-test", facts{Architecture: "amd64"}, testSeal)
			if got, ok := errors.AsType[*rental.Failure](err); !ok || got.Code != rental.CodeImageForbidden {
				t.Errorf("a plan came of it: %v", err)
			}
		})
	}
}

func TestUsualImagesAreTaken(t *testing.T) {
	for name, brought := range map[string]luggage{
		"says nothing":                  {},
		"ordinary":                      {OS: "linux", Architecture: "amd64", WorkingDir: "/workspace", Volumes: []string{"/data", "/var/lib/x"}},
		"odd but inside":                {WorkingDir: "app/../srv/./x", Volumes: []string{"data/"}},
		"names that only begin like it": {WorkingDir: "/process", Volumes: []string{"/device", "/system", "/opt/proc"}},
	} {
		if failure := checkImage(brought, "amd64"); failure != nil {
			t.Errorf("%s: %v", name, failure)
		}
	}
}

func TestArchitecturesInTheWordsOfImages(t *testing.T) {
	for machine, want := range map[string]string{
		"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "riscv64": "riscv64", "amd64": "amd64", "": "",
	} {
		if got := architectureOf(machine); got != want {
			t.Errorf("architectureOf(%q) = %q, want %q", machine, got, want)
		}
	}
}
