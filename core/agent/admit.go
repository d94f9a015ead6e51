package agent

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"slices"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Whatever is smaller is no machine to run anything on; engines refuse it too.
const (
	leastMemory = 6 << 20
	leastCPUs   = 0.01
)

// admit says whether a new rental may be taken on: nil, or the refusal. It looks at the host, its
// owner's limits and the order only.
func admit(host *Status, limits Limits, order rental.Spec, now time.Time) *protocol.Error {
	if !order.ExpiresAt.IsZero() && !order.ExpiresAt.After(now) {
		return refuse(protocol.Expired, "expires_at is in the past (%s, it is %s on this host)", order.ExpiresAt.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if refusal := closed(host); refusal != nil {
		return refusal
	}
	if refusal := admitPrice(host.Offer, order); refusal != nil {
		return refusal
	}
	rentals := slices.DeleteFunc(slices.Clone(host.Rentals), func(s rental.Status) bool { return s.State.Final() })
	if len(rentals) >= limits.Rentals {
		return refuse(protocol.InsufficientResources, "rentals: this host runs %d at once at most and 0 are free", limits.Rentals)
	}
	if refusal := admitGPUs(host, rentals, order); refusal != nil {
		return refusal
	}
	if refusal := admitShares(host, order); refusal != nil {
		return refusal
	}
	return admitPorts(rentals, order)
}

// closed says why no new rental can be taken at all, whatever it asks for; nil while the host is open.
func closed(host *Status) *protocol.Error {
	switch {
	case host.Leaving:
		return refuse(protocol.NotAccepting, "the agent on this host is shutting down")
	case host.Node.State != protocol.Online && host.Node.Reason == byBackend:
		return refuse(protocol.NotAccepting, "this node is %s as the backend asked; send resume_node first", host.Node.State)
	case host.Node.State != protocol.Online:
		return refuse(protocol.NotAccepting, "this node is %s by its owner", host.Node.State)
	case host.Unwritable != "":
		return refuse(protocol.InsufficientResources, "%s", stateFull(host.Unwritable))
	case host.Hardware == nil:
		return refuse(protocol.NotAccepting, "this host is still looking at its hardware; try again in a second")
	case !host.Engine.Available && host.Engine.Problem == "":
		return refuse(protocol.DockerUnavailable, "this host is still looking for Docker; try again in a second")
	case !host.Engine.Available:
		return refuse(protocol.DockerUnavailable, "Docker is not available on this host")
	case host.Engine.Shield.Refuses():
		return refuse(protocol.NotAccepting, "this host cannot keep rentals off its own network at present")
	case host.VersionsAwaited:
		return refuse(protocol.NotAccepting, "this host is still looking at its versions; try again in a second")
	case host.Versions != nil && !host.VersionsWaived && !host.Versions.Fit():
		return refuse(protocol.NotAccepting, "this host's versions have known escapes: %s", host.Versions)
	case host.Engine.DiskLow:
		return refuse(protocol.InsufficientResources, "disk: this host has less free space than the %s it keeps for itself", mebibytes(host.Engine.DiskReserveBytes))
	}
	return nil
}

// notAccepting says to the host's owner why no new rental is taken; "" while some are.
func notAccepting(host *Status) string {
	refusal := closed(host)
	switch {
	case refusal == nil:
		return exhausted(host)
	case !host.Leaving && host.Node.State != protocol.Online && host.Node.Reason == byBackend:
		return "the backend has taken this node out of service, and takes it back itself"
	}
	return refusal.Message
}

// unheard says why the backend cannot order anything here at present; "" while it can.
func unheard(link LinkHealth) string {
	switch {
	case link.NeedsSignIn && link.Refused == "":
		return "this host is not signed in"
	case link.NeedsSignIn:
		return "the backend does not take this host's key"
	case link.Replaced:
		return "another agent serves this node with the same key"
	case !link.Connected:
		return "the backend is not connected"
	}
	return ""
}

// exhausted says why an open host can take nothing more; "" while it can.
func exhausted(host *Status) string {
	left := unrented(host)
	switch {
	case len(host.Offer.GPUIndices) > 0 && len(left.GPUIndices) == 0:
		return "all offered GPUs are rented"
	case left.CPUs < leastCPUs:
		return "all offered CPUs are rented"
	case left.MemoryBytes < leastMemory:
		return "all offered RAM is rented"
	case noDisk(host, left):
		return "no disk space is left to rent out"
	}
	return ""
}

// shares are parts of the offer.
type shares struct {
	GPUIndices  []int
	CPUs        float64
	MemoryBytes int64
	DiskBytes   int64
}

// unrented is what of the offer no rental has.
func unrented(host *Status) shares {
	left := shares{
		GPUIndices:  slices.Clone(host.Offer.GPUIndices),
		CPUs:        host.Offer.CPUCores,
		MemoryBytes: host.Offer.RAMMB << 20,
		DiskBytes:   host.Offer.DiskGB << 30,
	}
	here := gpusOf(host)
	for _, r := range host.Rentals {
		if r.State.Final() {
			continue
		}
		left.GPUIndices = slices.DeleteFunc(left.GPUIndices, func(index int) bool {
			at := slices.IndexFunc(here, func(gpu rental.GPU) bool { return gpu.Index == index })
			return at >= 0 && clashes(r, here[at]) || slices.ContainsFunc(r.Spec.GPUs, func(gpu rental.GPU) bool { return gpu.Index == index })
		})
		left.CPUs -= r.Spec.CPUs
		left.MemoryBytes -= r.Spec.MemoryBytes
		left.DiskBytes -= cmp.Or(r.Spec.DiskBytes, rental.UnnamedDisk)
	}
	return left
}

// noDisk says that no disk is left. One that could not be measured is not offered, and not guarded:
// an engine in a virtual machine keeps its data where the host does not see it.
func noDisk(host *Status, left shares) bool {
	measured := host.Hardware != nil && host.Hardware.System.DiskAvailableGB != nil
	return left.DiskBytes <= 0 && (measured || host.Offer.DiskGB > 0)
}

// admitPrice holds the owner's minimum, which is for GPUs: a rental without one is not bound by it.
func admitPrice(offer protocol.Offer, order rental.Spec) *protocol.Error {
	least := price(offer.MinPricePerGPUHour)
	if len(order.GPUs) == 0 || least.Sign() == 0 {
		return nil
	}
	if order.PricePerHour == "" {
		return refuse(protocol.NotAccepting, "price_per_hour is missing: this host asks for at least %s %s per GPU and hour", offer.MinPricePerGPUHour, offer.Currency)
	}
	least.Mul(least, big.NewRat(int64(len(order.GPUs)), 1))
	if price(order.PricePerHour).Cmp(least) < 0 {
		return refuse(protocol.NotAccepting, "price_per_hour %s is below this host's minimum of %s %s per GPU and hour", order.PricePerHour, offer.MinPricePerGPUHour, offer.Currency)
	}
	return nil
}

func admitGPUs(host *Status, rentals []rental.Status, order rental.Spec) *protocol.Error {
	if !host.Engine.GPUReady && slices.ContainsFunc(order.GPUs, func(gpu rental.GPU) bool { return gpu.Vendor == rental.NVIDIA }) {
		return refuse(protocol.GPUUnavailable, "Docker on this host cannot hand out GPUs; the NVIDIA Container Toolkit is missing or not set up")
	}
	for _, gpu := range order.GPUs {
		if t := withholds(host.GPUTroubles, gpu); t != nil {
			return refuse(protocol.GPUUnavailable, "%s", t.Message)
		}
		if !slices.Contains(host.Offer.GPUIndices, gpu.Index) {
			return refuse(protocol.GPUUnavailable, "GPU %d is not offered (offered: %v)", gpu.Index, host.Offer.GPUIndices)
		}
		if slices.ContainsFunc(rentals, func(r rental.Status) bool { return clashes(r, gpu) }) {
			return refuse(protocol.GPUUnavailable, "GPU %d is rented already", gpu.Index)
		}
		if slices.ContainsFunc(order.GPUs, func(other rental.GPU) bool { return other.Index != gpu.Index && other.Overlaps(gpu) }) {
			return refuse(protocol.GPUUnavailable, "GPU %d is part of another one that is ordered", gpu.Index)
		}
	}
	return nil
}

// admitShares compares what is asked with what is left. Shared memory needs no row of its own: it
// is charged to the rental's RAM.
func admitShares(host *Status, order rental.Spec) *protocol.Error {
	const rounding = 1e-9 // of sums of decimal CPU shares
	left := unrented(host)
	if order.CPUs > left.CPUs+rounding {
		return refuse(protocol.InsufficientResources, "cpu_cores: asked %g, free %g", order.CPUs, math.Floor(max(0, left.CPUs)*1000+rounding)/1000)
	}
	if order.MemoryBytes > left.MemoryBytes {
		return refuse(protocol.InsufficientResources, "ram_limit: asked %s, free %s", mebibytes(order.MemoryBytes), mebibytes(left.MemoryBytes))
	}
	if order.DiskBytes > 0 && order.DiskBytes > left.DiskBytes {
		return refuse(protocol.InsufficientResources, "disk_limit: asked %s, free %s", mebibytes(order.DiskBytes), mebibytes(left.DiskBytes))
	}
	if noDisk(host, left) {
		return refuse(protocol.InsufficientResources, "disk: asked no certain size, free %s", mebibytes(left.DiskBytes))
	}
	return nil
}

// admitPorts keeps two rentals of this host off one public port; what other hosts use only the relay knows.
func admitPorts(rentals []rental.Status, order rental.Spec) *protocol.Error {
	for _, r := range rentals {
		for _, taken := range r.Spec.Ports {
			for _, port := range order.Ports {
				if port.Public == taken.Public && port.Protocol == taken.Protocol {
					return refuse(protocol.PortUnavailable, "public port %d/%s is used by another rental of this host", port.Public, port.Protocol)
				}
			}
		}
	}
	return nil
}

// mebibytes rounds up what is left over, so that "asked" never looks smaller than it was.
func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", (max(0, n)+1<<20-1)>>20) }

func refuse(code protocol.ErrorCode, format string, args ...any) *protocol.Error {
	return &protocol.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
