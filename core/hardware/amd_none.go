//go:build !linux

package hardware

// AMD's GPUs are used in containers on Linux only.
func (s *gpuSurvey) addAMD(Options) {}

func readAMD(Options, string) gpuReading { return gpuReading{} }

func inspectAMD(_ Options, gpu GPU) GPUState { return GPUState{UUID: gpu.UUID} }

func tenantsAMD(Options) []Tenancy { return nil }

func restoreAMD(Options, GPU, Settings) error { return nil }
