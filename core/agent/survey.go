package agent

import (
	"context"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

// engineMoment is how long the first survey waits for the engine to tell where its data is.
const engineMoment = 20 * time.Millisecond

// engineLife tells one life of the container engine from the next, and where its data is.
type engineLife struct {
	dataRoot string
	since    time.Time
}

func lifeOf(info rental.EngineInfo) engineLife { return engineLife{info.DataRoot, info.Since} }

// look surveys the machine, away from the loop, unless that has been done with the engine as it is.
func (l *loop) look() {
	l.lanes.do("survey", func() job {
		if l.survey != nil && lifeOf(l.parts.Engine.Info()) == l.surveyed {
			return nil
		}
		return func(ctx context.Context) func() {
			select {
			case <-l.engineUp:
			case <-time.After(engineMoment):
			}
			engine := lifeOf(l.parts.Engine.Info())
			survey := l.parts.Survey(ctx, engine.dataRoot)
			l.parts.Meter.Use(survey)
			return func() {
				l.survey, l.surveyed = &survey, engine
				l.reoffer()
				l.lookAgain()
			}
		}
	})
}

// lookAgain surveys once more when the engine has come, or come back, since: its data may be on
// another disk, and who repairs a machine restarts it.
func (l *loop) lookAgain() {
	if l.survey != nil && l.parts.Engine.Info().Available {
		l.look()
	}
}
