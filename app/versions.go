package main

import (
	"context"
	"slices"
	"time"

	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/preflight"
)

// judgeVersions joins what the engine, the survey and this machine say of versions, and holds it against the table.
func judgeVersions(engine *docker.Engine) (func(context.Context, hardware.Survey) (preflight.Report, error), error) {
	table, err := preflight.Shipped()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, survey hardware.Survey) (preflight.Report, error) {
		parts, err := engine.Components(ctx)
		if err != nil {
			return preflight.Report{}, err
		}
		drivers := preflight.Drivers{GPUs: hasNVIDIA(survey.GPUs)}
		if survey.DriverVersion != nil {
			drivers.Version = *survey.DriverVersion
		}
		host := preflight.Collect(ctx, table, preflight.Engine{
			Components: parts.Versions,
			Kernel:     parts.Kernel,
			System:     parts.System,
			CDI:        engine.Info().CDI,
		}, drivers)
		return table.Judge(host, time.Now()), nil
	}, nil
}

// hasNVIDIA reports whether there are GPUs that need NVIDIA's driver and toolkit.
func hasNVIDIA(gpus []hardware.GPU) bool {
	return slices.ContainsFunc(gpus, func(gpu hardware.GPU) bool { return gpu.Vendor == "nvidia" })
}
