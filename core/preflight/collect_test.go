package preflight

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadDpkg(t *testing.T) {
	const list = `Package: docker.io
Status: install ok installed
Maintainer: Debian
Version: 20.10.24+dfsg1-1+deb12u1+b6
Description: Linux container runtime
 Version: 99

Package: runc
Status: deinstall ok config-files
Version: 1.1.5+ds1-1

Package: bash
Status: install ok installed
Version: 5.2

Package: containerd
Status: hold ok installed
Version: 1.6.20~ds1-1+deb12u3`
	got := readDpkg(strings.NewReader(list), []string{"docker.io", "runc", "containerd", "docker-ce"})
	want := map[string]string{"docker.io": "20.10.24+dfsg1-1+deb12u1+b6", "containerd": "1.6.20~ds1-1+deb12u3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReadRPM(t *testing.T) {
	got := readRPM("package docker.io is not installed\nmoby-engine 27.3.1-2.fc43\nrunc 1.3.3-1.fc43\nbash 5.2-1\n", []string{"moby-engine", "runc", "docker.io"})
	if diff := cmp.Diff(map[string]string{"moby-engine": "27.3.1-2.fc43", "runc": "1.3.3-1.fc43"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestReadBlocks(t *testing.T) {
	got := readBlocks(strings.NewReader("# install esp6 /bin/false\ninstall algif-aead /bin/false\nblacklist rxrpc\ninstall esp4 /sbin/modprobe --ignore-install esp4\ninstall rxrpc /usr/bin/true\n"))
	if diff := cmp.Diff([]string{"algif_aead", "rxrpc"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestReadModules(t *testing.T) {
	const dep = "kernel/crypto/algif_aead.ko.xz: kernel/crypto/af_alg.ko.xz\nkernel/net/ipv4/esp4.ko:\nkernel/net/rxrpc/rxrpc.ko.zst: kernel/x.ko\n"
	got := readModules(strings.NewReader(dep), []string{"algif_aead", "esp4", "esp6", "rxrpc"})
	if diff := cmp.Diff([]string{"algif_aead", "esp4", "rxrpc"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestReadSettings(t *testing.T) {
	const file = `#accept-nvidia-visible-devices-envvar-when-unprivileged = true
accept-nvidia-visible-devices-envvar-when-unprivileged = false # ours
[nvidia-container-cli]
no-cgroups = true
#root = "/run/nvidia/driver"
[nvidia-container-runtime.modes.cdi]
default-kind = "nvidia.com/gpu"
`
	want := map[string]string{
		"accept-nvidia-visible-devices-envvar-when-unprivileged": "false",
		"nvidia-container-cli.no-cgroups":                        "true",
		"nvidia-container-runtime.modes.cdi.default-kind":        "nvidia.com/gpu",
	}
	if diff := cmp.Diff(want, readSettings(strings.NewReader(file))); diff != "" {
		t.Error(diff)
	}
}

func TestKernelBase(t *testing.T) {
	for _, tt := range []struct{ signature, banner, want string }{
		{"Ubuntu 5.15.0-130.140-generic 5.15.167\n", "", "5.15.167"},
		{"", "Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org) (gcc-12) #1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)\n", "6.1.76"},
		{"", "Linux version 6.18.44-fc (builder@here) #1 SMP", ""},
		{"Ubuntu", "x Debian ", ""},
	} {
		if got := kernelBase(tt.signature, tt.banner); got != tt.want {
			t.Errorf("%q %q: %q, want %q", tt.signature, tt.banner, got, tt.want)
		}
	}
}

func TestToolkitVersion(t *testing.T) {
	if got := toolkitVersion("NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80a9b9d0db00d9b1d73c0128c8962c55f4d\n"); got != "1.17.8" {
		t.Errorf("%q", got)
	}
	if got := toolkitVersion("command not found"); got != "" {
		t.Errorf("%q", got)
	}
}

// TestCollectInVM: what is installed here says nothing of an engine in a virtual machine of its own.
func TestCollectInVM(t *testing.T) {
	engine := Engine{Components: map[string]string{Docker: "29.5.1", Containerd: "v2.2.5", Runc: "1.3.6"}, Kernel: "6.12.72-linuxkit", System: "Docker Desktop"}
	host := Collect(t.Context(), table(t), engine, Drivers{GPUs: true, Version: "581.15"})
	want := Host{
		Versions: map[string]string{Docker: "29.5.1", Containerd: "v2.2.5", Runc: "1.3.6", Kernel: "6.12.72-linuxkit"},
		Desktop:  true, GPUs: true,
	}
	if diff := cmp.Diff(want, host); diff != "" {
		t.Error(diff)
	}
	engine.System = "Alpine Linux"
	if host := Collect(t.Context(), table(t), engine, Drivers{}); host.Versions[Kernel] != engine.Kernel || host.Packages != nil {
		t.Errorf("of another kernel: %+v", host)
	}
}
