package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// writeStatus shows the whole picture, one thing a line.
func writeStatus(w io.Writer, s agent.Status, now time.Time) error {
	var b bytes.Buffer
	t := newTable(&b)
	for _, line := range facts(s, now) {
		t.row(line...)
	}
	t.flush()
	if s.Hardware != nil && len(s.Hardware.GPUs) > 0 {
		b.WriteByte('\n')
		writeGPUs(&b, s)
	}
	if len(s.Rentals) > 0 {
		b.WriteByte('\n')
		writeRentals(&b, s.Rentals, now)
	}
	if len(s.Problems) > 0 {
		b.WriteString("\nProblems:\n")
	}
	for _, p := range s.Problems {
		fmt.Fprintf(&b, "  %s\n", plain(p.Message))
		if p.Fix != "" {
			fmt.Fprintf(&b, "    → %s\n", plain(p.Fix))
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// facts are the lines that every host has.
func facts(s agent.Status, now time.Time) [][]string {
	lines := [][]string{
		{"agent", fmt.Sprintf("%s on %s/%s, pid %d, up %s", s.Agent.Version, s.Agent.OS, s.Agent.Arch, s.PID, span(now.Sub(s.Agent.StartedAt)))},
		{"node", describeNode(s, now)},
		{"backend", describeBackend(s.Backend, now)},
		{"account", describeAccount(s.Account, now)},
		{"key", cmp.Or(s.KeySource, none)},
		{"docker", describeEngine(s.Engine)},
		{"shield", describeShield(s.Engine.Shield)},
		{"relay", describeRelay(s.Relay)},
	}
	if s.Hardware != nil {
		lines = append(lines, []string{"machine", describeSystem(s.Hardware.System)}, []string{"memory", describeRoom(s.Hardware.System)})
		lines = append(lines, missingGPUs(*s.Hardware)...)
	}
	if s.Network != nil {
		lines = append(lines, []string{"network", describeNetwork(*s.Network) + ", measured " + clock(s.Network.MeasuredAt, now)})
	}
	if s.Hardware != nil {
		lines = append(lines, []string{"offer", describeOffer(s.Offer)})
		if s.Proposal != nil {
			lines = append(lines, []string{"", "→ narrowed as the backend asked; to offer all you allow, run: distributed-agent resume"})
		}
		lines = append(lines, []string{"load", describeLoad(s.Sample)})
	}
	if words := describeEarnings(s.Earnings); words != "" {
		lines = append(lines, []string{"earnings", words})
	}
	for _, n := range s.Notices {
		lines = append(lines, []string{"notice", clock(n.At, now) + " " + measured(cmp.Or(n.Title, none), cmp.Or(n.Body, none), cmp.Or(n.URL, none))})
	}
	return lines
}

// describeAccount says whose host this is.
func describeAccount(a account.Info, now time.Time) string {
	words := "not signed in"
	switch {
	case a.SigningIn != nil:
		words = "waiting until " + clock(a.SigningIn.ExpiresAt, now) + " for a sign-in at " + a.SigningIn.URL
		if a.SigningIn.UserCode != "" {
			words += " with the code " + a.SigningIn.UserCode
		}
	case a.SignedIn && a.Owner != "":
		words = "signed in as " + a.Owner
	case a.SignedIn:
		words = "signed in by a host key"
	case a.CanSignIn:
		words += "; to sign in, run: distributed-agent sign-in"
	}
	if a.Problem != "" {
		words += "; " + a.Problem
	}
	return words
}

// describeEarnings says what is known, "" where that is nothing.
func describeEarnings(e *protocol.Earnings) string {
	if e == nil {
		return ""
	}
	var words []string
	for _, sum := range []struct{ amount, words string }{
		{e.RatePerHour, " an hour now"}, {e.Today, " today"}, {e.Month, " this month"}, {e.Total, " in all"}, {e.Unpaid, " unpaid"},
	} {
		if sum.amount != "" {
			words = append(words, sum.amount+sum.words)
		}
	}
	if e.NextPayoutAt != nil {
		words = append(words, "next payout "+e.NextPayoutAt.Local().Format("2 January"))
	}
	if len(words) > 0 && e.Currency != "" {
		words[0] = e.Currency + " " + words[0]
	}
	return strings.Join(words, ", ")
}

func describeNode(s agent.Status, now time.Time) string {
	words := cmp.Or(s.NodeID, "not registered yet") + ", " + string(cmp.Or(s.Node.State, protocol.Online))
	if s.Node.Reason != "" {
		words += " (by " + s.Node.Reason + ")"
	}
	if !s.Node.Until.IsZero() {
		words += " until " + clock(s.Node.Until, now)
	}
	if !s.Node.EndAt.IsZero() {
		words += ", rentals end at " + clock(s.Node.EndAt, now)
	}
	return words + ", " + describeIntake(s)
}

// describeIntake says whether a rental could come now.
func describeIntake(s agent.Status) string {
	switch {
	case s.Leaving:
		return "quitting"
	case s.Accepting && s.Unheard != "":
		return "ready for rentals, but none can come: " + s.Unheard
	case s.Accepting:
		return "takes rentals"
	}
	return "takes no rentals: " + cmp.Or(s.Why, "not ready yet")
}

func describeBackend(link agent.LinkHealth, now time.Time) string {
	url := cmp.Or(link.URL, none)
	switch {
	case link.Registered:
		return url + ", registered since " + clock(link.Since, now)
	case link.NeedsSignIn:
		return url + ", needs sign-in"
	case link.Connected:
		return url + ", connected, not registered yet"
	case link.NextTry.After(now):
		return url + ", not connected, next try in " + span(link.NextTry.Sub(now))
	}
	return url + ", not connected"
}

func describeEngine(e rental.EngineInfo) string {
	if !e.Available {
		return "not available"
	}
	words := []string{e.Version, "API " + e.APIVersion, e.StorageDriver}
	if e.Rootless {
		words = append(words, "rootless")
	}
	if e.GPUReady {
		words = append(words, "GPUs ready")
	}
	return strings.Join(words, ", ")
}

// describeShield leaves out the word that the line begins with.
func describeShield(s rental.ShieldInfo) string {
	words := strings.TrimPrefix(s.String(), "Shield ")
	if s.How == "container" {
		words += ", by a container"
	}
	return words
}

func describeRelay(r rental.RelayInfo) string {
	switch {
	case r.Address == "":
		return "none named yet"
	case r.Connected:
		return r.Address + ", connected, " + plural(r.Routes, "route")
	}
	return r.Address + ", not connected"
}

func describeSystem(s hardware.System) string {
	system := s.OS
	if s.OSVersion != nil {
		system = *s.OSVersion
	}
	return measured(show(s.CPUModel, "%s"), count(s.CPUCores, "core"), count(s.CPUThreads, "thread"), system)
}

func describeRoom(s hardware.System) string {
	return fmt.Sprintf("%s (%s free), disk %s (%s free)",
		mebibytes(s.RAMTotalMB), mebibytes(s.RAMAvailableMB), show(s.DiskTotalGB, "%d GiB"), show(s.DiskAvailableGB, "%d GiB"))
}

// missingGPUs says why there is no GPU and what helps. A host may well do without, so it is no problem.
func missingGPUs(survey hardware.Survey) [][]string {
	var lines [][]string
	for _, gap := range survey.Gaps {
		if gap.Code == "no_gpu" {
			lines = append(lines, []string{"gpus", gap.Message}, []string{"", "→ " + gap.Fix})
		}
	}
	return lines
}

func describeOffer(o protocol.Offer) string {
	gpus := "no GPU"
	if len(o.GPUIndices) > 0 {
		gpus = "GPU " + strings.Trim(strings.ReplaceAll(fmt.Sprint(o.GPUIndices), " ", ","), "[]")
	}
	threads := fmt.Sprintf("%g CPU threads", o.CPUCores)
	if o.CPUCores == 1 {
		threads = "1 CPU thread"
	}
	return fmt.Sprintf("%s, %s, %s memory, %d GiB disk, from %s %s per GPU and hour",
		gpus, threads, mebibytes(&o.RAMMB), o.DiskGB, o.MinPricePerGPUHour, o.Currency)
}

func describeLoad(m hardware.Sample) string {
	memory := none
	if m.RAMUsageMB != nil {
		memory = "memory " + mebibytes(m.RAMUsageMB)
	}
	return cmp.Or(measured(
		show(m.CPUUtilization, "CPU %.0f %%"), show(m.CPUTempC, "CPU %.0f °C"), memory, show(m.DiskUsageGB, "disk %d GiB")), none)
}

func writeGPUs(w io.Writer, s agent.Status) {
	t := newTable(w)
	t.row("GPU", "MODEL", "MEMORY", "LOAD", "TEMP", "POWER", "FAN")
	for i, gpu := range s.Hardware.GPUs {
		t.row(
			fmt.Sprint(gpu.Index), describeModel(gpu, s),
			mebibytes(at(s.Sample.GPUMemoryUsedMB, i))+" of "+mebibytes(gpu.VRAMTotalMB),
			show(at(s.Sample.GPUUtilization, i), "%.0f %%"), show(at(s.Sample.GPUTempC, i), "%.0f °C"),
			show(at(s.Sample.GPUPowerW, i), "%.0f W"), show(at(s.Sample.GPUFanPercent, i), "%.0f %%"),
		)
	}
	t.flush()
}

// describeModel says of a GPU that is not offered so; why stands among the problems.
func describeModel(gpu hardware.GPU, s agent.Status) string {
	for _, t := range s.GPUTroubles {
		if t.Withheld && t.GPU.UUID == gpu.UUID {
			return gpu.Model + " (withheld)"
		}
	}
	return gpu.Model
}

// at gives a reading that a sample taken before the survey may not have.
func at[T any](values []*T, i int) *T {
	if i >= len(values) {
		return nil
	}
	return values[i]
}

// writeRentals lists rentals, with a line more for each public address.
func writeRentals(w io.Writer, rentals []rental.Status, now time.Time) error {
	t := newTable(w)
	t.row("RENTAL", "STATE", "FOR", "GPUS", "IMAGE", "PORTS")
	for _, r := range rentals {
		ports := describePorts(r)
		t.row(string(r.ID), describeState(r), lasted(r, now), describeGPUs(r.Spec.GPUs), r.Spec.Image, ports[0])
		for _, port := range ports[1:] {
			t.row("", "", "", "", "", port)
		}
	}
	return t.flush()
}

func describeState(r rental.Status) string {
	if r.Unreachable {
		return string(r.State) + ", unreachable"
	}
	return string(r.State)
}

func describeGPUs(gpus []rental.GPU) string {
	indices := make([]string, len(gpus))
	for i, gpu := range gpus {
		indices[i] = fmt.Sprint(gpu.Index)
	}
	return cmp.Or(strings.Join(indices, ","), none)
}

// describePorts says where a rental answers, or why not yet.
func describePorts(r rental.Status) []string {
	switch {
	case r.Failure != nil:
		return []string{r.Failure.Message}
	case r.Progress != nil && !r.State.Final():
		return []string{progressBar(*r.Progress, barWidth)}
	case len(r.Addresses) == 0:
		return []string{cmp.Or(r.Trouble, none)}
	}
	var lines []string
	for _, a := range r.Addresses {
		lines = append(lines, a.Port.String()+" → "+a.Public)
	}
	return lines
}

// lasted is how long a container has run.
func lasted(r rental.Status, now time.Time) string {
	switch {
	case r.StartedAt.IsZero():
		return none
	case r.EndedAt.IsZero():
		return span(now.Sub(r.StartedAt))
	}
	return span(r.EndedAt.Sub(r.StartedAt))
}

const barWidth = 20

// progressBar draws how far a step is: "[######......] 45 % of 1.2 GiB".
func progressBar(p rental.Progress, width int) string {
	if p.Total <= 0 {
		return inBytes(p.Current)
	}
	share := min(max(float64(p.Current)/float64(p.Total), 0), 1)
	full := int(share * float64(width))
	return fmt.Sprintf("[%s%s] %3.0f %% of %s", strings.Repeat("#", full), strings.Repeat(".", width-full), share*100, inBytes(p.Total))
}
