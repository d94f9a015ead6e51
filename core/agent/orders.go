package agent

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Most that an order may carry where the protocol takes more.
const (
	maxNameChars = 256
	maxAuthChars = 8 << 10 // some registries hand out tokens of several KiB as passwords
)

// readOrder is the trust boundary's inner half: it makes a checked spec of what the backend ordered,
// or says which field is wrong and what it takes. [protocol.Decode] has held the order to the
// contract; here is what it takes this host to know. gpus are those of this machine. No message
// repeats a value that may be the renter's secret.
func readOrder(order *protocol.StartInstance, gpus []rental.GPU, limits Limits) (rental.Spec, *protocol.Error) {
	var spec rental.Spec
	for _, step := range []func(*rental.Spec) *protocol.Error{
		func(s *rental.Spec) *protocol.Error { return readNames(s, order, limits) },
		func(s *rental.Spec) *protocol.Error { return readCommand(s, order.Command) },
		func(s *rental.Spec) *protocol.Error { return readVariables(s, order.EnvVars) },
		func(s *rental.Spec) *protocol.Error { return readGPUs(s, order.GPUIndices, gpus) },
		func(s *rental.Spec) *protocol.Error { return readShares(s, order, limits) },
		func(s *rental.Spec) *protocol.Error { return readPorts(s, order.PortMapping, limits) },
		func(s *rental.Spec) *protocol.Error { return readAuth(s, order.RegistryAuth) },
		func(s *rental.Spec) *protocol.Error { return readTerms(s, order) },
	} {
		if refusal := step(&spec); refusal != nil {
			return rental.Spec{}, refusal
		}
	}
	return spec, nil
}

func readNames(spec *rental.Spec, order *protocol.StartInstance, limits Limits) *protocol.Error {
	id, err := rental.ParseID(order.RentalID)
	if err != nil {
		return invalid("rental_id takes 1 to 63 letters, digits, '_', '.' or '-', starting with a letter or digit")
	}
	image, refusal := readImage(order.Image, limits)
	if refusal != nil {
		return refusal
	}
	spec.ID, spec.Image = id, image
	return nil
}

func readCommand(spec *rental.Spec, command []string) *protocol.Error {
	if len(command) > 0 && command[0] == "" {
		return invalid("command starts with an empty argument; it takes a program and its arguments")
	}
	spec.Command = slices.Clone(command)
	return nil
}

func readVariables(spec *rental.Spec, variables map[string]string) *protocol.Error {
	for name := range variables {
		if len(name) > maxNameChars {
			return invalid("env_vars: name %.40q takes at most %d characters", name, maxNameChars)
		}
		if rental.ReservedVariable(name) {
			return refuse(protocol.ForbiddenOption, "env_vars: %s may not be set; GPUs are chosen with gpu_indices", name)
		}
	}
	spec.Env = maps.Clone(variables)
	return nil
}

// readGPUs turns indices, which people use, into UUIDs, which stay with the card.
func readGPUs(spec *rental.Spec, indices []int, gpus []rental.GPU) *protocol.Error {
	for _, index := range indices {
		at := slices.IndexFunc(gpus, func(gpu rental.GPU) bool { return gpu.Index == index })
		if at < 0 || gpus[at].UUID == "" {
			return refuse(protocol.GPUUnavailable, "this machine has no usable GPU %d (it has %d)", index, len(gpus))
		}
		spec.GPUs = append(spec.GPUs, gpus[at])
	}
	slices.SortFunc(spec.GPUs, func(a, b rental.GPU) int { return cmp.Compare(a.Index, b.Index) })
	return nil
}

func readShares(spec *rental.Spec, order *protocol.StartInstance, limits Limits) *protocol.Error {
	if order.RAMLimit < leastMemory {
		return invalid("ram_limit takes at least %d bytes, has %d", leastMemory, int64(order.RAMLimit))
	}
	if !(order.CPUCores >= leastCPUs) || math.IsInf(order.CPUCores, 1) { // NaN is refused, too
		return invalid("cpu_cores takes at least %g, has %g", leastCPUs, order.CPUCores)
	}
	if order.ShmSize > order.RAMLimit {
		return invalid("shm_size (%d bytes) is part of ram_limit (%d bytes) and takes no more than that", int64(order.ShmSize), int64(order.RAMLimit))
	}
	if most := protocol.Size(limits.ShmBytes); most > 0 && order.ShmSize > most {
		return refuse(protocol.InsufficientResources, "shm_size: asked %s, this host allows %s", mebibytes(int64(order.ShmSize)), mebibytes(limits.ShmBytes))
	}
	spec.MemoryBytes, spec.CPUs = int64(order.RAMLimit), order.CPUCores
	spec.DiskBytes, spec.ShmBytes = int64(order.DiskLimit), int64(order.ShmSize)
	spec.PidsLimit = limits.Pids
	return nil
}

func readPorts(spec *rental.Spec, mapping protocol.PortMapping, limits Limits) *protocol.Error {
	if len(mapping) > limits.Ports {
		return invalid("port_mapping takes at most %d ports on this host, has %d", limits.Ports, len(mapping))
	}
	for key, port := range mapping {
		spec.Ports = append(spec.Ports, rental.Port{Container: key.Port, Protocol: rental.Protocol(key.Protocol), Public: port})
	}
	slices.SortFunc(spec.Ports, func(a, b rental.Port) int {
		return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.Protocol, b.Protocol))
	})
	return nil
}

func readAuth(spec *rental.Spec, auth *protocol.RegistryAuth) *protocol.Error {
	if auth == nil {
		return nil
	}
	for field, value := range map[string]string{"username": auth.Username, "password": auth.Password.Reveal()} {
		if len(value) > maxAuthChars || strings.ContainsFunc(value, isControl) {
			return invalid("registry_auth.%s takes at most %d characters, none of them a control character", field, maxAuthChars)
		}
	}
	spec.Registry = &rental.RegistryAuth{Username: auth.Username, Password: auth.Password}
	return nil
}

func readTerms(spec *rental.Spec, order *protocol.StartInstance) *protocol.Error {
	if order.PricePerHour != "" && !decimal.MatchString(order.PricePerHour) {
		return invalid("price_per_hour takes a decimal number such as \"0.42\", has %.40q", order.PricePerHour)
	}
	spec.PricePerHour = order.PricePerHour
	if !order.ExpiresAt.IsZero() {
		spec.ExpiresAt = order.ExpiresAt.UTC()
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func invalid(format string, args ...any) *protocol.Error {
	return refuse(protocol.InvalidRequest, format, args...)
}
