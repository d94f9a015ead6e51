package preflight

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	debian = Host{Distribution: "debian", Release: "12"}
	ubuntu = Host{Distribution: "ubuntu", Release: "24.04", Like: "debian"}
	fedora = Host{Distribution: "fedora", Release: "43"}
	gentoo = Host{Distribution: "gentoo"}
)

func (h Host) has(component, version string) Host {
	h.Versions = map[string]string{component: version}
	h.GPUs = component == Toolkit || component == Driver
	return h
}

func (h Host) from(name, version string) Host {
	h.Packages = map[string]string{name: version}
	return h
}

func (h Host) built(base string) Host { h.Base = base; return h }

func (h Host) without(modules ...string) Host { h.Blocked = modules; return h }

func (h Host) virtual() Host { h.Desktop = true; return h }

func table(t *testing.T) *Table {
	t.Helper()
	shipped, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	return shipped
}

func judged(t *testing.T, table *Table, host Host, component string) Component {
	t.Helper()
	report := table.Judge(host, time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC))
	for _, c := range report.Components {
		if c.Name == component {
			return c
		}
	}
	t.Fatalf("%s is not in the report", component)
	return Component{}
}

// TestVerdicts is what the shipped table makes of versions as programs and kernels print them.
func TestVerdicts(t *testing.T) {
	const (
		apt    = "sudo apt-get update && sudo apt-get install --only-upgrade "
		trust  = "unsafe_allow_old_engine"
		makers = "https://docs.docker.com/engine/install/"
		blocks = "/etc/modprobe.d/distributed-agent.conf"
	)
	every := []string{"algif_aead", "esp4", "esp6", "rxrpc"}
	tests := []struct {
		host      Host
		component string
		want      Verdict
		says      string // the reason, or the fix, has it
	}{
		// Docker Engine.
		{debian.has(Docker, "29.5.1"), Docker, OK, "29.6.1"},
		{debian.has(Docker, "29.6.1"), Docker, OK, ""},
		{debian.has(Docker, "29.7.2"), Docker, OK, ""},
		{debian.has(Docker, "30.0.0"), Docker, OK, ""},
		{debian.has(Docker, "v29.5.2"), Docker, OK, ""},
		{debian.has(Docker, "25.0.17"), Docker, OK, ""},
		{debian.has(Docker, "25.0.18"), Docker, OK, ""},
		{debian.has(Docker, "25.0.16"), Docker, Below, "CVE-2026-41567"},
		{debian.has(Docker, "29.5.0"), Docker, Below, "CVE-2026-41567"},
		{debian.has(Docker, "29.5.1-rc.1"), Docker, Below, "CVE-2026-41567"},
		{debian.has(Docker, "29.4.3").from("docker-ce", "5:29.4.3-1~debian.12~bookworm"), Docker, Below, apt + "docker-ce"},
		{fedora.has(Docker, "29.4.3").from("docker-ce", "29.4.3-1.fc43"), Docker, Below, "sudo dnf upgrade docker-ce"},
		{debian.has(Docker, "29.5.1").from("docker-ce", "5:29.5.1-1~debian.12~bookworm"), Docker, OK, ""},
		{debian.has(Docker, "28.5.2"), Docker, Below, makers},
		{debian.has(Docker, "26.0.0"), Docker, Below, ""},
		{debian.has(Docker, "17.03.2-ce"), Docker, Below, ""},
		{debian.has(Docker, "20.10.24+dfsg1"), Docker, Unknown, trust},
		{debian.has(Docker, "20.10.24+dfsg1").from("docker.io", "20.10.24+dfsg1-1+deb12u1+b6"), Docker, Unknown, apt + "docker.io"},
		{debian.has(Docker, "20.10.24"), Docker, Below, ""},
		{ubuntu.has(Docker, "26.1.3").from("docker.io", "26.1.3-0ubuntu1~24.04.1"), Docker, Unknown, "docker.io 26.1.3-0ubuntu1~24.04.1"},
		{ubuntu.has(Docker, "26.1.3-0ubuntu1~24.04.1"), Docker, Unknown, trust},
		{ubuntu.has(Docker, "29.5.3").from("docker.io", "29.5.3-0ubuntu1"), Docker, OK, ""},
		{ubuntu.has(Docker, "28.2.2").from("docker.io", "26.1.3-0ubuntu1~24.04.1"), Docker, Below, makers}, // not what runs
		{fedora.has(Docker, "27.3.1").from("moby-engine", "27.3.1-2.fc43"), Docker, Unknown, "sudo dnf upgrade moby-engine"},
		{gentoo.has(Docker, "28.0.1"), Docker, Below, makers},
		{gentoo.has(Docker, "28.0.1").virtual(), Docker, Below, "Docker Desktop"},
		{debian.has(Docker, "library-import"), Docker, Unknown, "says nothing"},
		{debian.has(Docker, ""), Docker, Unknown, "not known"},
		{debian.has(Docker, "29.5.1\x1b[2J"), Docker, Unknown, ""},
		{debian.has(Docker, "29."+strings.Repeat("9", 200)), Docker, Unknown, ""},
		{debian.has(Docker, "99999999999999999999.1"), Docker, Unknown, ""},
		{debian.has(Docker, "29x"), Docker, Unknown, ""},
		{debian.has(Runc, "1.3.3"), Docker, Absent, ""},

		// containerd.
		{debian.has(Containerd, "1.7.33"), Containerd, OK, "1.7.34"},
		{debian.has(Containerd, "v2.2.7"), Containerd, OK, ""},
		{debian.has(Containerd, "2.4.0"), Containerd, OK, ""},
		{debian.has(Containerd, "2.2.4"), Containerd, Below, "CVE-2026-53488"},
		{debian.has(Containerd, "1.6.39"), Containerd, Below, ""},
		{debian.has(Containerd, "2.3.0-beta.1"), Containerd, Below, ""},
		{debian.has(Containerd, "1.7.29").from("containerd.io", "1.7.29-1~debian.12~bookworm"), Containerd, Below, apt + "containerd.io"},
		{debian.has(Containerd, "1.6.20~ds1").from("containerd", "1.6.20~ds1-1+deb12u3"), Containerd, Unknown, apt + "containerd"},
		{debian.has(Containerd, "269548fa27e0089a8b8278fc4fc781d7f65a939b"), Containerd, Unknown, ""},

		// runc.
		{debian.has(Runc, "1.2.8"), Runc, OK, "CVE-2026-41579"},
		{debian.has(Runc, "1.3.3"), Runc, OK, "1.3.6"},
		{debian.has(Runc, "1.3.6"), Runc, OK, ""},
		{debian.has(Runc, "1.4.0-rc.3"), Runc, OK, ""},
		{debian.has(Runc, "1.4.0-rc.2"), Runc, Below, "CVE-2025-31133"},
		{debian.has(Runc, "1.4.0"), Runc, OK, ""},
		{debian.has(Runc, "1.5.0"), Runc, OK, ""},
		{debian.has(Runc, "1.2.7"), Runc, Below, "CVE-2025-31133"},
		{debian.has(Runc, "1.3.2").from("containerd.io", "2.1.5-1~debian.12~bookworm"), Runc, Below, apt + "containerd.io"},
		{debian.has(Runc, "1.1.11"), Runc, Below, "5 more"},
		{debian.has(Runc, "1.1.5+ds1").from("runc", "1.1.5+ds1-1+deb12u1"), Runc, Unknown, apt + "runc"},
		{debian.has(Runc, "1.1.5+ds1-1+deb12u1"), Runc, Unknown, trust},

		// The toolkit and the driver.
		{ubuntu.has(Toolkit, "1.17.8"), Toolkit, OK, "CVE-2026-24260"},
		{ubuntu.has(Toolkit, "1.19.1"), Toolkit, OK, ""},
		{ubuntu.has(Toolkit, "1.20.0"), Toolkit, OK, ""},
		{ubuntu.has(Toolkit, "1.17.7").from("nvidia-container-toolkit", "1.17.7-1"), Toolkit, Below, apt + "nvidia-container-toolkit"},
		{ubuntu.has(Toolkit, "1.16.1"), Toolkit, Below, "CVE-2025-23266"},
		{ubuntu.has(Toolkit, "1.17.8-rc.1"), Toolkit, Below, ""},
		{ubuntu.has(Toolkit, ""), Toolkit, Unknown, ""},
		{ubuntu.has(Driver, "580.159.03"), Driver, OK, ""},
		{ubuntu.has(Driver, "580.126.09"), Driver, Below, "CVE-2026-24187"},
		{ubuntu.has(Driver, "595.71.05"), Driver, OK, ""},
		{ubuntu.has(Driver, "610.12.01"), Driver, OK, ""},
		{ubuntu.has(Driver, "570.211.01"), Driver, Below, "580.159.03"},
		{ubuntu.has(Driver, "590.48.01"), Driver, Below, ""},
		{ubuntu.has(Driver, "535.309.01"), Driver, OK, ""},
		{ubuntu.has(Driver, "470.256.02"), Driver, Below, "2 more"},

		// The kernel.
		{debian.has(Kernel, "6.18.44-fc"), Kernel, OK, ""},
		{debian.has(Kernel, "6.18.29"), Kernel, OK, ""},
		{debian.has(Kernel, "6.18.28"), Kernel, Below, "CVE-2026-43500"},
		{debian.has(Kernel, "6.18.28").without("rxrpc"), Kernel, OK, "closed"},
		{debian.has(Kernel, "7.0.6"), Kernel, OK, ""},
		{debian.has(Kernel, "7.1"), Kernel, OK, ""},
		{debian.has(Kernel, "7.1.0-rc3"), Kernel, Below, "CVE-2026-43284"},
		{debian.has(Kernel, "7.2.0-rc1"), Kernel, OK, ""},
		{debian.has(Kernel, "6.19.12"), Kernel, Below, "CVE-2026-43284"},
		{debian.has(Kernel, "6.12.87"), Kernel, Below, `printf 'install rxrpc /bin/false\n' | sudo tee ` + blocks},
		{debian.has(Kernel, "6.12.87").without("rxrpc"), Kernel, OK, ""},
		{debian.has(Kernel, "6.12.80").without("rxrpc"), Kernel, Below, "CVE-2026-31431"},
		{debian.has(Kernel, "6.12.80").without(every...), Kernel, OK, "closed"},
		{debian.has(Kernel, "6.12.80").without("algif_aead", "rxrpc", "esp4"), Kernel, Below, `'install esp6 /bin/false\n'`},
		{debian.has(Kernel, "6.1.0-18-amd64").built("6.1.76"), Kernel, Unknown, "sudo apt-get update && sudo apt-get upgrade --with-new-pkgs, and restart"},
		{debian.has(Kernel, "6.1.0-40-amd64").built("6.1.172").without("rxrpc"), Kernel, OK, ""},
		{debian.has(Kernel, "6.1.0-18-amd64"), Kernel, Unknown, trust},
		{ubuntu.has(Kernel, "5.15.0-130-generic").built("5.15.167"), Kernel, Unknown, "sudo apt-get update && sudo apt-get upgrade --with-new-pkgs, and restart"},
		{ubuntu.has(Kernel, "5.15.0-130-generic"), Kernel, Unknown, blocks},
		{ubuntu.has(Kernel, "5.15.0-130-generic").without(every...), Kernel, OK, ""},
		{fedora.has(Kernel, "6.18.30-200.fc43.x86_64"), Kernel, OK, ""},
		{fedora.has(Kernel, "5.14.0-503.el9.x86_64"), Kernel, Unknown, "sudo dnf upgrade kernel"},
		{debian.has(Kernel, "6.6.87.2-microsoft-standard-WSL2"), Kernel, Unknown, ""},
		{debian.has(Kernel, "6.12.72-linuxkit").virtual(), Kernel, Unknown, "Update Docker Desktop"},
		{debian.has(Kernel, "not-a-kernel"), Kernel, Unknown, ""},
		{debian.has(Kernel, "4.19.0"), Kernel, Below, "2 more"},
	}
	if len(tests) < 60 {
		t.Errorf("%d rows", len(tests))
	}
	shipped := table(t)
	for _, tt := range tests {
		name := tt.component + " " + tt.host.Versions[tt.component]
		t.Run(name, func(t *testing.T) {
			got := judged(t, shipped, tt.host, tt.component)
			if got.Verdict != tt.want {
				t.Errorf("%s, want %s: %+v", got.Verdict, tt.want, got)
			}
			if !strings.Contains(got.Reason+"\n"+got.Fix+"\n"+strings.Join(got.Advisories, " "), tt.says) {
				t.Errorf("says nothing of %q: %q, %q", tt.says, got.Reason, got.Fix)
			}
			if unfit := got.Verdict == Below || got.Verdict == Unknown; unfit && (got.Reason == "" || got.Fix == "" || got.Upgrade == "") {
				t.Errorf("no reason, or nothing to do about it: %+v", got)
			}
		})
	}
}

// TestPortedFixes: a distribution's package counts from the version that the table names.
func TestPortedFixes(t *testing.T) {
	ported := table(t)
	ported.Backports = []Backport{{Runc, "debian", "12", "runc", "1.1.5+ds1-1+deb12u4"}}
	for version, want := range map[string]Verdict{
		"1.1.5+ds1-1+deb12u1":  Unknown,
		"1.1.5+ds1-1+deb12u4":  OK,
		"1.1.5+ds1-1+deb12u10": OK,
		"1.1.5+ds1-1":          Unknown,
	} {
		host := debian.has(Runc, "1.1.5+ds1").from("runc", version)
		if got := judged(t, ported, host, Runc); got.Verdict != want {
			t.Errorf("%s: %s, want %s", version, got.Verdict, want)
		}
		host.Release = "11"
		if got := judged(t, ported, host, Runc); got.Verdict != Unknown {
			t.Errorf("%s of another release: %s", version, got.Verdict)
		}
	}
}

func TestFit(t *testing.T) {
	shipped := table(t)
	host := debian.has(Docker, "29.7.2")
	host.Versions[Containerd], host.Versions[Runc], host.Versions[Kernel] = "2.3.4", "1.4.3", "7.1.2"
	day := time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC)
	report := shipped.Judge(host, day)
	if !report.Fit() || report.Stale || report.TableDate != shipped.FactsTo {
		t.Errorf("not fit: %+v", report)
	}
	host.Versions[Runc] = "1.1.5+ds1"
	report = shipped.Judge(host, day.AddDate(0, 3, 0))
	if report.Fit() || !report.Stale || report.String() != "runc 1.1.5+ds1 (unknown)" {
		t.Errorf("fit, or not stale: %s %v", &report, report.Stale)
	}
}

// TestTableHoldsTogether: each floor is above every grave hole that no module closes, and all can be read.
func TestTableHoldsTogether(t *testing.T) {
	shipped := table(t)
	if _, err := time.Parse(dateLayout, shipped.FactsTo); err != nil {
		t.Error(err)
	}
	for _, entry := range shipped.Components {
		var floors []version
		for _, text := range slices.Concat(entry.Floors, entry.Recommended) {
			v, ok := parse(text)
			if !ok {
				t.Fatalf("%s: floor %q cannot be read", entry.Name, text)
			}
			floors = append(floors, v)
			if open := entry.open(v, shipped.Modules()); len(open.grave) > 0 {
				t.Errorf("%s %s has %s", entry.Name, text, open.grave[0].ID)
			}
		}
		if !slices.IsSortedFunc(floors[:len(entry.Floors)], version.compare) {
			t.Errorf("%s: floors do not ascend", entry.Name)
		}
		for _, a := range entry.Advisories {
			if a.ID == "" || a.Why == "" || len(a.Fixed) == 0 {
				t.Errorf("%s: incomplete %+v", entry.Name, a)
			}
			for _, text := range a.Fixed {
				if _, ok := parse(text); !ok {
					t.Errorf("%s: %q cannot be read", a.ID, text)
				}
			}
		}
	}
	for _, b := range shipped.Backports {
		if !slices.Contains(shipped.Packages(), b.Package) {
			t.Errorf("nobody looks for %s", b.Package)
		}
	}
}

func TestNotes(t *testing.T) {
	host := ubuntu.has(Toolkit, "1.19.1")
	codes := func() (list []string) {
		for _, n := range host.notes() {
			list = append(list, n.Code)
		}
		return list
	}
	if got := codes(); got != nil {
		t.Errorf("by the hook: %v", got)
	}
	host.CDI = true
	if got := codes(); !slices.Equal(got, []string{"toolkit_takes_variables"}) {
		t.Errorf("by CDI: %v", got)
	}
	host.Settings = map[string]string{"accept-nvidia-visible-devices-envvar-when-unprivileged": "false", "nvidia-container-cli.no-cgroups": "true"}
	if got := codes(); !slices.Equal(got, []string{"toolkit_no_cgroups"}) {
		t.Errorf("without control groups: %v", got)
	}
}
