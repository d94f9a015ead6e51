package agent

import (
	"context"
	"slices"
	"time"

	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// engineMoment is how long the first survey waits for the engine to tell where its data is.
const engineMoment = 20 * time.Millisecond

// How long after a survey whose GPUs did not all answer the next one is made: at boot the driver may
// not be loaded yet, and a driver in trouble may recover. The pause doubles.
const (
	resurveyFirst = 30 * time.Second
	resurveyMost  = 5 * time.Minute
)

// engineLife tells one life of the container engine from the next, and where its data is.
type engineLife struct {
	dataRoot string
	since    time.Time
}

func lifeOf(info rental.EngineInfo) engineLife { return engineLife{info.DataRoot, info.Since} }

// look surveys the machine, away from the loop, unless that has been done with the engine as it is.
func (l *loop) look() {
	l.lanes.do("survey", func() job {
		last := l.survey
		if last != nil && !l.resurvey && lifeOf(l.parts.Engine.Info()) == l.surveyed {
			return nil
		}
		l.resurvey = false
		return func(ctx context.Context) func() {
			select {
			case <-l.engineUp:
			case <-time.After(engineMoment):
			}
			engine := lifeOf(l.parts.Engine.Info())
			survey := l.parts.Survey(ctx, engine.dataRoot)
			if last != nil && len(survey.GPUs) == 0 && silent(&survey) {
				survey = withGPUsOf(survey, last)
			}
			l.parts.Meter.Use(survey)
			return func() { l.seen(survey, engine) }
		}
	})
}

// seen takes a survey into the picture. One that was made for the GPUs' sake and finds them as they
// were is no news.
func (l *loop) seen(survey hardware.Survey, engine engineLife) {
	if l.survey == nil || engine != l.surveyed || !sameGPUs(&survey, l.survey) {
		l.survey, l.surveyed = &survey, engine
		l.reoffer()
	}
	if incomplete(&survey) {
		l.resurveyIn = min(max(2*l.resurveyIn, resurveyFirst), resurveyMost)
		l.resurveyAt = time.Now().Add(l.resurveyIn)
	} else {
		l.resurveyIn, l.resurveyAt = 0, time.Time{}
	}
	l.lookAgain()
	l.lookAtVersions()
}

// lookAgain surveys once more when the engine has come, or come back, since: its data may be on
// another disk, and who repairs a machine restarts it.
func (l *loop) lookAgain() {
	if l.survey != nil && l.parts.Engine.Info().Available {
		l.look()
	}
}

// lookForGPUs surveys once more when it is time to see whether the GPUs that did not answer do now.
func (l *loop) lookForGPUs(now time.Time) {
	if l.resurveyAt.IsZero() || now.Before(l.resurveyAt) || l.leaving != "" {
		return
	}
	l.resurveyAt, l.resurvey = time.Time{}, true
	l.look()
}

// silent tells that the GPUs' driver did not answer: which GPUs there are, the survey does not know.
func silent(survey *hardware.Survey) bool {
	return hasGap(survey, "driver_hangs", "driver_not_loaded", "driver_mismatch", "driver_failed")
}

// incomplete tells that a later survey may find more GPUs.
func incomplete(survey *hardware.Survey) bool { return silent(survey) || hasGap(survey, "gpu_lost") }

func hasGap(survey *hardware.Survey, codes ...string) bool {
	return slices.ContainsFunc(survey.Gaps, func(gap hardware.Gap) bool { return slices.Contains(codes, gap.Code) })
}

// withGPUsOf keeps the GPUs that an earlier survey found: a driver that is silent for a while takes
// none out of the machine, and rentals may be using them.
func withGPUsOf(survey hardware.Survey, earlier *hardware.Survey) hardware.Survey {
	survey.GPUs, survey.DriverVersion, survey.CUDAVersion = earlier.GPUs, earlier.DriverVersion, earlier.CUDAVersion
	return survey
}

// sameGPUs compares which GPUs there are and what is wrong, not what moves.
func sameGPUs(a, b *hardware.Survey) bool {
	return slices.Equal(a.Gaps, b.Gaps) && slices.EqualFunc(a.GPUs, b.GPUs, func(a, b hardware.GPU) bool {
		return a.Index == b.Index && a.UUID == b.UUID
	})
}
