package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

func TestGPUFeatures(t *testing.T) {
	for name, tc := range map[string]struct {
		vendors []string
		engine  rental.EngineInfo
		want    []string
	}{
		"none":                {nil, rental.EngineInfo{Available: true, GPUReady: true}, nil},
		"NVIDIA":              {[]string{"nvidia"}, rental.EngineInfo{Available: true, GPUReady: true}, []string{"gpu.nvidia"}},
		"NVIDIA, no toolkit":  {[]string{"nvidia"}, rental.EngineInfo{Available: true}, nil},
		"AMD needs none":      {[]string{"amd"}, rental.EngineInfo{Available: true}, []string{"gpu.amd"}},
		"AMD, no engine":      {[]string{"amd"}, rental.EngineInfo{}, nil},
		"both, one unmanaged": {[]string{"nvidia", "amd"}, rental.EngineInfo{Available: true}, []string{"gpu.amd"}},
	} {
		host := &Status{Hardware: &hardware.Survey{}, Engine: tc.engine}
		for _, vendor := range tc.vendors {
			host.Hardware.GPUs = append(host.Hardware.GPUs, hardware.GPU{Vendor: vendor})
		}
		var got []string
		for _, feature := range features(host) {
			if feature == "gpu.nvidia" || feature == "gpu.amd" {
				got = append(got, feature)
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: features (-want +got):\n%s", name, diff)
		}
	}
}

func TestGPUsAnOrderCanName(t *testing.T) {
	host := &Status{Hardware: &hardware.Survey{GPUs: []hardware.GPU{
		{Index: 0, UUID: "GPU-a", Vendor: "nvidia"},
		{Index: 15, UUID: "MIG-b", Vendor: "nvidia", Parent: "GPU-b"},
		{Index: 2, UUID: "GPU-c", Vendor: "amd", Render: "renderD128"},
	}}}
	want := []rental.GPU{
		{Index: 0, UUID: "GPU-a"},
		{Index: 15, UUID: "MIG-b", Parent: "GPU-b"},
		{Index: 2, UUID: "GPU-c", Vendor: rental.AMD, Render: "renderD128"},
	}
	if diff := cmp.Diff(want, gpusOf(host)); diff != "" {
		t.Errorf("GPUs (-want +got):\n%s", diff)
	}
}
