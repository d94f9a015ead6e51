package demo

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/workload/report"
)

// tellHardware says what the host has, as it told the backend.
func (s *story) tellHardware(r *protocol.Register) {
	system := r.Hardware.System
	s.tell.detail("GPUs", "%s", gpus(r.Hardware.GPUs))
	s.tell.detail("CPU", "%s, %s cores, %s threads", orUnknown(system.CPUModel), orUnknown(system.CPUCores), orUnknown(system.CPUThreads))
	s.tell.detail("memory", "%s of %s GiB free", gibOf(system.RAMAvailableMB), gibOf(system.RAMTotalMB))
	s.tell.detail("disk", "%s of %s GiB free", orUnknown(system.DiskAvailableGB), orUnknown(system.DiskTotalGB))
	s.tell.detail("system", "%s, kernel %s", orUnknown(system.OSVersion), orUnknown(system.Kernel))
	for _, w := range r.Hardware.Warnings {
		if w.Code == "old_engine_allowed" {
			s.tell.detail("warning", "%s", w.Message)
		}
	}
	s.tell.detail("on offer", "%g CPU, %s GiB, %d GiB of disk", r.Offer.CPUCores, gib(r.Offer.RAMMB<<20), r.Offer.DiskGB)
}

func gpus(list []protocol.GPU) string {
	if len(list) == 0 {
		return "none"
	}
	models := make([]string, len(list))
	for i, gpu := range list {
		models[i] = gpu.Model
	}
	return strings.Join(models, ", ")
}

func orUnknown[T any](value *T) string {
	if value == nil {
		return "unknown"
	}
	return fmt.Sprint(*value)
}

// gib tells bytes in GiB, with as many of two digits after the point as it takes.
func gib(bytes int64) string {
	return strconv.FormatFloat(math.Round(100*float64(bytes)/(1<<30))/100, 'f', -1, 64)
}

// gibOf is gib of a figure in MiB that may be unknown.
func gibOf(mebibytes *int64) string {
	if mebibytes == nil {
		return "unknown"
	}
	return gib(*mebibytes << 20)
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// tellWay says which states the rental went through, and when.
func (s *story) tellWay() {
	rental, _ := s.market.Backend.Rental(s.order.RentalID)
	var way []string
	state, pulled := "", int64(0)
	for _, report := range rental.History {
		if p := report.Status.Progress; p != nil {
			pulled = max(pulled, p.CurrentBytes)
		}
		if report.Status.State != state {
			state = report.Status.State
			way = append(way, fmt.Sprintf("%s %.2f s", state, report.At.Sub(rental.History[0].At).Seconds()))
		}
	}
	s.tell.detail("its way", "%s", strings.Join(way, " → "))
	s.tell.detail("image", "%s, %.1f MiB pulled", s.order.Image, mib(pulled))
	s.tell.detail("container", "%.12s", s.status.ContainerID)
}

// tellGot says what the renter finds in the rental.
func (s *story) tellGot(got report.Rental) {
	s.tell.detail("host name", "%s", got.Hostname)
	s.tell.detail("GPUs", "%d (the image asked for all; NVIDIA_VISIBLE_DEVICES=%s)", len(got.GPUs), got.GPUsVisible)
	s.tell.detail("limits", "%g CPU, %s GiB, %d processes: as ordered", got.CPUs, gib(got.MemoryBytes), got.PidsLimit)
	s.tell.detail("powers", "%s; no new privileges", strings.Join(got.Capabilities, " "))
}
