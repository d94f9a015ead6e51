package rental

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDeviceNodes(t *testing.T) {
	for name, test := range map[string]struct {
		gpu  GPU
		want []string
		bad  bool
	}{
		"NVIDIA":            {gpu: GPU{UUID: "GPU-a"}},
		"AMD":               {gpu: GPU{UUID: "GPU-a", Vendor: AMD, Render: "renderD128"}, want: []string{"/dev/kfd", "/dev/dri/renderD128"}},
		"no render node":    {gpu: GPU{Vendor: AMD}, bad: true},
		"out of /dev/dri":   {gpu: GPU{Vendor: AMD, Render: "../mem"}, bad: true},
		"a path":            {gpu: GPU{Vendor: AMD, Render: "/dev/dri/renderD128"}, bad: true},
		"the display":       {gpu: GPU{Vendor: AMD, Render: "card0"}, bad: true},
		"two lines":         {gpu: GPU{Vendor: AMD, Render: "renderD128\n"}, bad: true},
		"nobody's":          {gpu: GPU{Vendor: "intel", Render: "renderD128"}, bad: true},
		"NVIDIA in letters": {gpu: GPU{Vendor: "nvidia"}, bad: true}, // one way to say it
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.gpu.DeviceNodes()
			if diff := cmp.Diff(test.want, got); diff != "" || (err != nil) != test.bad {
				t.Errorf("error %v, nodes (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestOverlaps(t *testing.T) {
	whole, other := GPU{UUID: "GPU-a"}, GPU{UUID: "GPU-b"}
	first, second := GPU{UUID: "MIG-1", Parent: "GPU-a"}, GPU{UUID: "MIG-2", Parent: "GPU-a"}
	for name, test := range map[string]struct {
		a, b GPU
		want bool
	}{
		"itself":                {whole, whole, true},
		"another":               {whole, other, false},
		"an instance of it":     {whole, first, true},
		"an instance of none":   {other, first, false},
		"the same instance":     {first, first, true},
		"two instances":         {first, second, false},
		"under another number":  {whole, GPU{Index: 7, UUID: "GPU-a"}, true},
		"one number, two cards": {whole, GPU{UUID: "GPU-c"}, false},
	} {
		if got, back := test.a.Overlaps(test.b), test.b.Overlaps(test.a); got != test.want || back != test.want {
			t.Errorf("%s: %v and %v, want %v", name, got, back, test.want)
		}
	}
}

// A record of an agent that knew whole NVIDIA GPUs only is read, and the same order is known by it.
func TestOldGPURecord(t *testing.T) {
	const old = `{"id":"r-1","image":"docker.io/library/debian:12","gpus":[{"index":1,"uuid":"GPU-b"}],"memory_bytes":1,"cpus":1,"pids_limit":1}`
	var spec Spec
	if err := json.Unmarshal([]byte(old), &spec); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]GPU{{Index: 1, UUID: "GPU-b"}}, spec.GPUs); diff != "" {
		t.Errorf("GPUs (-want +got):\n%s", diff)
	}
	if again, err := json.Marshal(spec); err != nil || string(again) != old {
		t.Errorf("written again: %s, %v; want %s", again, err, old)
	}
}

// The system may name a GPU's device anew, which makes no other order of it.
func TestSumIgnoresDeviceNames(t *testing.T) {
	sum := func(gpu GPU) string {
		t.Helper()
		sum, err := specSum(Spec{ID: "r-1", GPUs: []GPU{gpu}})
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	spec := GPU{UUID: "GPU-a", Vendor: AMD, Render: "renderD128"}
	renamed, other := spec, spec
	renamed.Render, other.UUID = "renderD129", "GPU-b"
	if sum(spec) != sum(renamed) || sum(spec) == sum(other) || spec.Render != "renderD128" {
		t.Errorf("sums %s, %s and %s, want the first two alike and the third another", sum(spec), sum(renamed), sum(other))
	}
}
