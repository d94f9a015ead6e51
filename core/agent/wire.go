package agent

import (
	"slices"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/secret"
)

// Everything that turns the agent's words into the wire's stands in this file.

// registration is what this host says of itself on a new connection.
func registration(s *Status) protocol.Register {
	return protocol.Register{
		Protocol:  protocol.Version,
		NodeID:    nodeID(s),
		Agent:     s.Agent,
		Status:    s.Node.State,
		Accepting: s.Accepting,
		Features:  features(s),
		Hardware:  machine(s),
		Network:   (*protocol.Network)(s.Network),
		Offer:     s.Offer,
		Instances: each(told(s.Rentals), instance),
	}
}

// mostEnded is how many rentals that have ended a picture, and so a register, names. A frame has its
// bound, and a backend that confirms no end would otherwise lock this host out with the orders it has given.
const mostEnded = 100

// told are the rentals for a picture: all that live and, of those that have ended, the newest. The
// others reach the backend in statuses of their own.
func told(rentals []rental.Status) []rental.Status {
	surplus := -mostEnded
	for i := range rentals {
		if rentals[i].State.Final() {
			surplus++
		}
	}
	if surplus <= 0 {
		return rentals
	}
	return slices.DeleteFunc(slices.Clone(rentals), func(s rental.Status) bool {
		if !s.State.Final() || surplus == 0 {
			return false
		}
		surplus--
		return true
	})
}

// beat is one heartbeat. It is made every few seconds for as long as the agent lives.
func beat(s *Status, sample hardware.Sample) protocol.Heartbeat {
	gpus := 0
	if s.Hardware != nil {
		gpus = len(s.Hardware.GPUs)
	}
	running := 0
	for i := range s.Rentals {
		if s.Rentals[i].State == rental.Running {
			running++
		}
	}
	return protocol.Heartbeat{
		NodeID:    nodeID(s),
		Status:    s.Node.State,
		Accepting: s.Accepting,
		Instances: running,
		Metrics: protocol.Metrics{
			CPUTemp:         sample.CPUTempC,
			GPUTemp:         aligned(sample.GPUTempC, gpus),
			GPUUtilization:  aligned(sample.GPUUtilization, gpus),
			RAMUsageMB:      sample.RAMUsageMB,
			DiskUsageGB:     sample.DiskUsageGB,
			CPUUtilization:  sample.CPUUtilization,
			GPUMemoryUsedMB: aligned(sample.GPUMemoryUsedMB, gpus),
			GPUPowerW:       aligned(sample.GPUPowerW, gpus),
			GPUFanPercent:   aligned(sample.GPUFanPercent, gpus),
			NetRxBytes:      sample.NetRxBytes,
			NetTxBytes:      sample.NetTxBytes,
		},
	}
}

// aligned gives an array one value per GPU of the survey: what the meter has not read yet is nil.
func aligned[T any](readings []*T, gpus int) []*T {
	if len(readings) == gpus && readings != nil {
		return readings
	}
	row := make([]*T, gpus)
	copy(row, readings)
	return row
}

func nodeID(s *Status) *string {
	if s.NodeID == "" {
		return nil
	}
	return &s.NodeID
}

func features(s *Status) []string {
	list := []string{"tunnel.frp", "logs"}
	if hasGPU(s, nvidia) && s.Engine.GPUReady {
		list = append(list, "gpu.nvidia")
	}
	if hasGPU(s, amd) && s.Engine.Available {
		list = append(list, "gpu.amd")
	}
	if s.Engine.Available && s.Engine.Shield.State == rental.ShieldOn {
		list = append(list, "isolation.lan")
	}
	return list
}

func machine(s *Status) protocol.Hardware {
	var survey hardware.Survey
	if s.Hardware != nil {
		survey = *s.Hardware
	}
	return protocol.Hardware{
		GPUs:          each(survey.GPUs, gpu),
		DriverVersion: survey.DriverVersion,
		CUDAVersion:   survey.CUDAVersion,
		System:        system(survey.System, s.Agent.OS),
		Docker:        docker(s.Engine),
		Warnings:      each(slices.Concat(survey.Gaps, versionWarnings(s), withheldWarnings(s.GPUTroubles)), func(g hardware.Gap) protocol.Warning { return protocol.Warning(g) }),
	}
}

// gpu leaves out what concerns this host alone.
func gpu(g hardware.GPU) protocol.GPU {
	return protocol.GPU{
		Index: g.Index, UUID: g.UUID, Vendor: g.Vendor, Model: g.Model,
		VRAMTotalMB: g.VRAMTotalMB, VRAMAvailableMB: g.VRAMAvailableMB,
		PCIBusID: g.PCIBusID, PowerLimitW: g.PowerLimitW, ComputeCapability: g.ComputeCapability,
		PCIeGeneration: g.PCIeGeneration, PCIeWidth: g.PCIeWidth,
	}
}

// system leaves out the disk's path: the backend has no use for paths of this host.
func system(s hardware.System, os string) protocol.System {
	if s.OS != "" {
		os = s.OS
	}
	return protocol.System{
		CPUModel: s.CPUModel, CPUCores: s.CPUCores, CPUThreads: s.CPUThreads,
		RAMTotalMB: s.RAMTotalMB, RAMAvailableMB: s.RAMAvailableMB,
		DiskTotalGB: s.DiskTotalGB, DiskAvailableGB: s.DiskAvailableGB,
		OS: os, OSVersion: s.OSVersion, Kernel: s.Kernel, Virtualized: s.Virtualized,
	}
}

func docker(e rental.EngineInfo) *protocol.Docker {
	if !e.Available {
		return nil
	}
	return &protocol.Docker{
		Version: e.Version, APIVersion: e.APIVersion, Runtimes: append([]string{}, e.Runtimes...),
		StorageDriver: e.StorageDriver, Rootless: e.Rootless, CDI: e.CDI,
	}
}

// instance is a rental as the backend sees it. Its trouble stays local: it is being retried.
func instance(s rental.Status) protocol.InstanceStatus {
	return protocol.InstanceStatus{
		RentalID:    string(s.ID),
		Sequence:    s.Sequence,
		State:       string(s.State),
		ContainerID: s.ContainerID,
		ImageDigest: s.ImageDigest,
		Ports: each(s.Addresses, func(a rental.Address) protocol.PublicPort {
			return protocol.PublicPort{ContainerPort: int(a.Port.Container), Protocol: string(a.Port.Protocol), PublicAddress: a.Public}
		}),
		Progress: progress(s.Progress),
		ExitCode: s.ExitCode,
		Error:    wireFailure(s.Failure),
		At:       s.At,
	}
}

func progress(p *rental.Progress) *protocol.Progress {
	if p == nil {
		return nil
	}
	return &protocol.Progress{Phase: p.Phase, CurrentBytes: p.Current, TotalBytes: p.Total}
}

func wireFailure(f *rental.Failure) *protocol.Error {
	if f == nil {
		return nil
	}
	return &protocol.Error{Code: protocol.ErrorCode(f.Code), Message: f.Message}
}

// nodeStatus tells whose wish it is that the node is as it is.
func nodeStatus(node Wish, lastAsked string, offer protocol.Offer) protocol.NodeStatus {
	status := protocol.NodeStatus{Status: node.State, Reason: node.Reason, Offer: offer}
	if status.Reason == "" {
		status.Reason = lastAsked
	}
	if !node.Until.IsZero() {
		status.Until = &node.Until
	}
	return status
}

func sameNodeStatus(a, b protocol.NodeStatus) bool {
	sameUntil := a.Until == b.Until || a.Until != nil && b.Until != nil && a.Until.Equal(*b.Until)
	return a.Status == b.Status && a.Reason == b.Reason && sameUntil && sameOffer(a.Offer, b.Offer)
}

// terms are a relay's as the backend gives them. TLS is not up for negotiation, whatever they say.
func terms(r *RememberedTerms) rental.Terms {
	t := rental.Terms{Address: r.Address, Token: secret.New(r.Token), ServerName: r.ServerName}
	if r.CAPEM != "" {
		t.CAPEM = []byte(r.CAPEM)
	}
	return t
}

// each maps a list; the result is never nil, so that JSON shows an empty list as one.
func each[A, B any](list []A, f func(A) B) []B {
	mapped := make([]B, 0, len(list))
	for _, item := range list {
		mapped = append(mapped, f(item))
	}
	return mapped
}
