package docker

import (
	"errors"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/rental"
)

const goodStatus = "Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t00000000a00404fb\nCapEff:\t00000000a00404fb\n" +
	"CapBnd:\t00000000a00404fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"

func TestStatusOfAProcess(t *testing.T) {
	for change, good := range map[[2]string]bool{
		{"Name", "Name"}: true,
		{"CapEff:\t00000000a00404fb", "CapEff:\t0000000000000000"}:    true, // the image's user is not root
		{"Seccomp:\t2", "Seccomp:\t0"}:                                false,
		{"Seccomp:\t2", "Seccomp:\t1"}:                                false,
		{"NoNewPrivs:\t1", "NoNewPrivs:\t0"}:                          false,
		{"CapEff:\t00000000a00404fb", "CapEff:\t00000000a80425fb"}:    false, // Docker's own set
		{"CapBnd:\t00000000a00404fb", "CapBnd:\t000001ffffffffff"}:    false,
		{"CapAmb:\t0000000000000000", "CapAmb:\t0000000000200000"}:    false,
		{"CapPrm:\t00000000a00404fb\n", ""}:                           false,
		{"CapInh:\t0000000000000000", "CapInh:\tnothing of a number"}: false,
	} {
		status := strings.Replace(goodStatus, change[0], change[1], 1)
		if err := checkStatus(status); (err == nil) != good {
			t.Errorf("%q: %v", change, err)
		}
	}
	if len(kernelCapabilities) != len(capabilities) {
		t.Error("a capability has no number")
	}
	for _, name := range capabilities {
		if _, ok := kernelCapabilities[name]; !ok {
			t.Errorf("%s has no number", name)
		}
	}
}

func TestDevicesOfAControlGroup(t *testing.T) {
	const usual = "c *:* m\nb *:* m\nc 1:3 rwm\nc 1:5 rwm\nc 1:7 rwm\nc 1:8 rwm\nc 1:9 rwm\nc 5:0 rwm\nc 5:1 rwm\nc 5:2 rwm\nc 136:* rwm\nc 10:200 rwm\n"
	one := []rental.GPU{{UUID: testGPU}}
	for name, test := range map[string]struct {
		more string
		gpus []rental.GPU
		good bool
	}{
		"usual":                 {"", nil, true},
		"everything":            {"a *:* rwm\n", nil, false},
		"a disk":                {"b 8:0 rwm\n", one, false},
		"the kernel's memory":   {"c 1:1 r\n", nil, false},
		"the kernel's log":      {"c 1:11 rw\n", nil, false},
		"a GPU nobody rented":   {"c 195:0 rw\n", nil, false},
		"the rented GPU":        {"c 195:1 rw\nc 195:255 rw\nc 195:254 rw\nc 509:0 rw\n", one, true},
		"a second GPU":          {"c 195:1 rw\nc 195:0 rw\nc 195:255 rw\n", one, false},
		"all GPUs":              {"c 195:* rw\n", one, false},
		"an AMD GPU":            {"c 226:128 rw\nc 511:0 rw\n", []rental.GPU{{Vendor: rental.AMD, Render: "renderD128"}}, true},
		"nothing of a device":   {"what\n", nil, false},
		"terminals, but theirs": {"c 4:1 rwm\n", nil, false},
	} {
		err := checkDevices(usual+test.more, test.gpus)
		if (err == nil) != test.good {
			t.Errorf("%s: %v", name, err)
		}
		if found, ok := errors.AsType[*deviation](err); ok && !found.devices && name != "nothing of a device" {
			t.Errorf("%s: %v is not said to concern devices", name, err)
		}
	}
}
