package agent

import (
	"math"
	"math/big"
	"regexp"
	"slices"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// decimal is how prices are written: no sign, no exponent.
var decimal = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,9})?$`)

// offerOf is the most this machine rents out: what the owner allows, as far as it is there. What
// could not be measured is not offered, but for a disk whose size the owner names. engine
// is as it was when last available: its virtual machine, where it runs in one, may be smaller.
func offerOf(survey *hardware.Survey, engine rental.EngineInfo, own OfferLimits) protocol.Offer {
	offer := protocol.Offer{GPUIndices: []int{}, MinPricePerGPUHour: own.MinPricePerGPUHour, Currency: own.Currency}
	if survey == nil {
		return offer
	}
	gpus := survey.GPUs
	if silent(survey) {
		gpus = nil // no container could get one
	}
	for _, gpu := range gpus {
		if own.GPUs == nil || slices.Contains(own.GPUs, gpu.Index) {
			offer.GPUIndices = append(offer.GPUIndices, gpu.Index)
		}
	}
	system := survey.System
	if n := system.CPUThreads; n != nil {
		threads := float64(least(*n, engine.CPUs))
		offer.CPUCores = limit(own.CPUs, threads, max(threads-1, threads/2))
	}
	if n := system.RAMTotalMB; n != nil {
		total := least(*n, engine.MemoryBytes>>20)
		reserve := min(max(2048, total/10), total/2)
		offer.RAMMB = limit(own.RAMMB, total, total-reserve)
	}
	if n, total := system.DiskAvailableGB, system.DiskTotalGB; n != nil && total != nil {
		// Also the owner's own figure ends where rentals would be stopped.
		spare := max(0, *n<<30-rental.DiskReserve(own.DiskReserveBytes, *total<<30)) >> 30
		offer.DiskGB = limit(own.DiskGB, spare, spare)
	} else {
		offer.DiskGB = own.DiskGB // it may be a virtual machine's, which its owner knows
	}
	return offer
}

// least of what the machine has and what the engine says it has; 0: it has not said.
func least[T int | int64](machine, engine T) T {
	if engine > 0 {
		return min(machine, engine)
	}
	return machine
}

// limit takes the owner's own figure up to what there is, or the default where he gave none.
func limit[T int64 | float64](own, there, byDefault T) T {
	if own > 0 {
		return min(own, there)
	}
	return byDefault
}

// propose applies what the backend would like to be offered, as far as it stays within what the
// owner offers. What the proposal leaves out stays as the owner has it.
func propose(own protocol.Offer, wanted *protocol.Offer) protocol.Offer {
	if wanted == nil {
		return own
	}
	offer := own
	if wanted.GPUIndices != nil {
		offer.GPUIndices = []int{}
		for _, index := range own.GPUIndices {
			if slices.Contains(wanted.GPUIndices, index) {
				offer.GPUIndices = append(offer.GPUIndices, index)
			}
		}
	}
	if wanted.CPUCores > 0 && !math.IsInf(wanted.CPUCores, 0) {
		offer.CPUCores = min(own.CPUCores, wanted.CPUCores)
	}
	if wanted.RAMMB > 0 {
		offer.RAMMB = min(own.RAMMB, wanted.RAMMB)
	}
	if wanted.DiskGB > 0 {
		offer.DiskGB = min(own.DiskGB, wanted.DiskGB)
	}
	if wanted.Currency == own.Currency && decimal.MatchString(wanted.MinPricePerGPUHour) &&
		price(wanted.MinPricePerGPUHour).Cmp(price(own.MinPricePerGPUHour)) > 0 {
		offer.MinPricePerGPUHour = wanted.MinPricePerGPUHour
	}
	return offer
}

// price reads a checked decimal exactly: money is never a float.
func price(s string) *big.Rat {
	r, _ := new(big.Rat).SetString(s)
	return r
}

func sameOffer(a, b protocol.Offer) bool {
	return slices.Equal(a.GPUIndices, b.GPUIndices) && a.CPUCores == b.CPUCores && a.RAMMB == b.RAMMB && a.DiskGB == b.DiskGB &&
		a.MinPricePerGPUHour == b.MinPricePerGPUHour && a.Currency == b.Currency
}
