package rentaltest_test

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/rental/rentaltest"
)

func TestEngineInMemory(t *testing.T) {
	const image = "registry.example.com/workload:1"
	synctest.Test(t, func(t *testing.T) {
		engine := rentaltest.NewEngine(image)
		rentaltest.TestEngine(t, rentaltest.Bench{
			Engine:  engine,
			Spec:    rental.Spec{ID: "r-1", Image: image, Ports: []rental.Port{{Container: 80, Protocol: rental.TCP, Public: 10080}}},
			Missing: "registry.example.com/none:1",
			Restart: func() {
				synctest.Wait()
				engine.Restart()
			},
		})
	})
}

func TestRelayInMemory(t *testing.T) {
	target := netip.MustParseAddrPort("127.0.0.1:30000")
	route := func(public uint16) []rental.Route {
		return []rental.Route{{Port: rental.Port{Container: 80, Protocol: rental.TCP, Public: public}, Target: target}}
	}
	rentaltest.TestRelay(t, rentaltest.NewRelay(), route(10080), route(10081))
}
