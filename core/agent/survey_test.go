package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// without is the test's machine while some GPU does not answer, for the reason that code names.
func without(code string, gpus ...hardware.GPU) hardware.Survey {
	s := testSurvey()
	s.GPUs = append([]hardware.GPU{}, gpus...)
	s.Gaps = []hardware.Gap{{Code: code, Message: "It does not answer.", Fix: "Restart."}}
	return s
}

// A driver that comes late, as at boot, or a card that is back is found without anyone's help.
func TestGPUsThatDoNotAnswerAreLookedForAgain(t *testing.T) {
	one := testSurvey().GPUs[:1]
	for code, found := range map[string][]hardware.GPU{
		"driver_hangs": nil, "driver_not_loaded": nil, "driver_mismatch": nil, "driver_failed": nil, "gpu_lost": one,
	} {
		t.Run(code, func(t *testing.T) {
			onRig(t, func(t *testing.T, m *rig) {
				began := time.Now()
				var at []time.Duration
				m.survey = func(context.Context, string) hardware.Survey {
					at = append(at, time.Since(began).Round(time.Second))
					if len(at) < 7 {
						return without(code, found...)
					}
					return testSurvey()
				}
				s := m.boot()
				pass(16 * time.Minute)
				if r, n := s.link.lastRegister(); n != 1 || len(r.Hardware.GPUs) != len(found) {
					t.Errorf("meanwhile: %d registers, the last with GPUs %+v", n, r.Hardware.GPUs)
				}
				pass(24 * time.Hour)
				if diff := cmp.Diff([]int{0, 1}, s.Status().Offer.GPUIndices); diff != "" {
					t.Errorf("GPUs offered (-want +got):\n%s", diff)
				}
				if r, n := s.link.lastRegister(); n != 2 || len(r.Hardware.GPUs) != 2 || len(r.Hardware.Warnings) != 0 {
					t.Errorf("afterwards: %d registers, the last with %+v", n, r.Hardware)
				}
				want := []time.Duration{
					0, 30 * time.Second, 90 * time.Second, 210 * time.Second, 450 * time.Second, 750 * time.Second, 1050 * time.Second,
				}
				if diff := cmp.Diff(want, at); diff != "" {
					t.Errorf("surveys (-want +got):\n%s", diff)
				}
				s.leave()
			})
		})
	}
}

// What cannot mend itself is not asked for again.
func TestMissingGPUIsNoReasonToLookAgain(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		surveys := 0
		m.survey = func(context.Context, string) hardware.Survey {
			surveys++
			return without("no_gpu")
		}
		s := m.boot()
		pass(24 * time.Hour)
		if surveys != 1 {
			t.Errorf("surveyed %d times", surveys)
		}
		s.leave()
	})
}

// A driver that is silent when Docker comes back takes no GPU out of the machine: a rental may be
// using it. New ones do not get it.
func TestSilentDriverKeepsTheGPUs(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		var machine atomic.Pointer[hardware.Survey]
		machine.Store(new(testSurvey()))
		m.survey = func(context.Context, string) hardware.Survey { return *machine.Load() }
		restart := func() {
			m.engine.become(func(i *rental.EngineInfo) { i.Since = time.Now() })
			pass(6 * time.Second)
		}
		s := m.boot()
		machine.Store(new(without("driver_hangs")))
		restart()
		status := s.Status()
		if beat, _ := s.link.latestBeat(); len(status.Hardware.GPUs) != 2 || len(beat.Metrics.GPUTemp) != 2 {
			t.Errorf("GPUs %+v, the heartbeat's %v", status.Hardware.GPUs, beat.Metrics.GPUTemp)
		}
		if len(status.Offer.GPUIndices) != 0 || len(status.Problems) != 1 || status.Problems[0].Code != "driver_hangs" {
			t.Errorf("offer %+v, problems %+v", status.Offer, status.Problems)
		}
		machine.Store(new(testSurvey()))
		pass(resurveyFirst)
		if status := s.Status(); len(status.Offer.GPUIndices) != 2 || len(status.Problems) != 0 {
			t.Errorf("afterwards: offer %+v, problems %+v", status.Offer, status.Problems)
		}

		// A card that the driver itself misses is gone.
		machine.Store(new(without("gpu_lost", testSurvey().GPUs[1])))
		restart()
		if diff := cmp.Diff([]int{1}, s.Status().Offer.GPUIndices); diff != "" {
			t.Errorf("GPUs offered (-want +got):\n%s", diff)
		}
		s.leave()
	})
}
