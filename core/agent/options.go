package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Options are what the host's owner has settled. The zero value offers the whole machine but a reserve.
type Options struct {
	Agent  protocol.Agent // StartedAt zero: now
	NodeID string         // used until the backend has given one
	// KeySource tells in words where the host key comes from, where there is no Account to say so; shown,
	// and nothing else.
	KeySource string
	Offer     OfferLimits
	Limits    Limits
	Relay     *rental.Terms // the owner's own relay wins over the backend's; nil: the backend's
	// StopGrace is what a container gets to end by itself when the owner ends it. Default 30 s.
	StopGrace time.Duration
	Log       *slog.Logger // nil: silent

	// AllowOldEngine takes rentals whatever the versions of engine, driver and kernel; everybody is told.
	AllowOldEngine bool
}

// OfferLimits is the most that may be rented out. Zero values mean the default.
type OfferLimits struct {
	GPUs               []int   // indices; nil: all, empty: none
	CPUs               float64 // threads; default: all but one
	RAMMB              int64   // MiB; default: all but max(2 GiB, 10 %)
	DiskGB             int64   // GiB; default: what is available but the reserve
	DiskReserveBytes   int64   // of the disk, never offered; default: max(20 GiB, 10 %)
	MinPricePerGPUHour string  // decimal; default: none
	Currency           string  // default: USD
}

// Limits bound every single order, whatever the machine could bear. Zero values mean the default.
type Limits struct {
	Rentals  int   // at once; default 24, engines run out of networks at about 30
	Pids     int64 // processes of a rental; default 4096
	Ports    int   // of a rental; default 32
	ShmBytes int64 // most shared memory of a rental; default: as much as its RAM
	// Registries are those that images may come from.
	Registries rental.Registries
}

// withDefaults fills in what was left open and refuses what makes no sense.
func (o Options) withDefaults() (Options, error) {
	offer := &o.Offer
	if offer.CPUs < 0 || offer.RAMMB < 0 || offer.DiskGB < 0 || offer.DiskReserveBytes < 0 {
		return o, errors.New("offer: CPUs, RAM and disk take numbers from 0")
	}
	if offer.MinPricePerGPUHour == "" {
		offer.MinPricePerGPUHour = "0"
	}
	if !decimal.MatchString(offer.MinPricePerGPUHour) {
		return o, fmt.Errorf("offer: minimum price %q: takes a decimal number such as 0.35", offer.MinPricePerGPUHour)
	}
	fill(&offer.Currency, "USD")
	fill(&o.Limits.Rentals, 24)
	fill(&o.Limits.Pids, 4096)
	fill(&o.Limits.Ports, 32)
	fill(&o.StopGrace, 30*time.Second)
	if o.Agent.StartedAt.IsZero() {
		o.Agent.StartedAt = time.Now().UTC()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check reports which required part is missing.
func (p Parts) check() error {
	missing := map[string]bool{
		"Rentals": p.Rentals == nil, "Engine": p.Engine == nil, "Relay": p.Relay == nil, "Link": p.Link == nil,
		"Meter": p.Meter == nil, "Survey": p.Survey == nil, "Memory": p.Memory == nil,
	}
	for name, absent := range missing {
		if absent {
			return fmt.Errorf("joining the agent: part %s is missing", name)
		}
	}
	return nil
}
