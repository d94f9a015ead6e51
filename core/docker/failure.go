package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"

	"github.com/docker/docker/client"

	"github.com/distributedcompute/host-agent/core/rental"
)

// engineGone reports whether a call failed because the engine is away or went away under it.
func engineGone(err error) bool {
	return client.IsErrConnectionFailed(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNREFUSED)
}

// failed gives the error of a call its form: the caller's own end as it is, an engine that is away as a
// *rental.Failure, and the rest with what was being done. ctx is the caller's, without the call's deadline.
func failed(ctx context.Context, doing string, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case engineGone(err):
		return rental.Failf(rental.CodeDockerUnavailable, "Docker went away while %s.", doing)
	case errors.Is(err, context.DeadlineExceeded):
		return rental.Failf(rental.CodeDockerUnavailable, "Docker did not answer while %s.", doing)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}

// startFailure says why a container did not start. Only the engine's text tells the reasons apart, and it
// names paths of the host, so it goes to the log alone.
func startFailure(ctx context.Context, err error) error {
	text := err.Error()
	switch {
	case ctx.Err() != nil || engineGone(err) || errors.Is(err, context.DeadlineExceeded):
		return failed(ctx, "starting the container", err)
	case strings.Contains(text, driverMissing):
		return rental.Failf(rental.CodeGPUUnavailable,
			"Docker cannot hand out GPUs on this host: install the NVIDIA Container Toolkit and restart Docker.")
	case refusesGPUs(text):
		return rental.Failf(rental.CodeGPUUnavailable, "The NVIDIA Container Toolkit of this host could not hand out the GPU.")
	case missesProgram(text):
		return rental.Failf(rental.CodeContainerFailed, "The container's command is not in its image.")
	case strings.Contains(text, "unable to find user"), strings.Contains(text, "no matching entries"):
		return rental.Failf(rental.CodeContainerFailed, "The user that the image names is not in it.")
	case strings.Contains(text, "permission denied"):
		return rental.Failf(rental.CodeContainerFailed, "The container's command may not be executed.")
	default:
		return rental.Failf(rental.CodeContainerFailed, "Docker could not start the container; the host's log has the reason.")
	}
}

const driverMissing = "could not select device driver"

// refusesGPUs reports whether an engine's text says that GPUs are not to be had in this way: it has no such driver, NVIDIA's
// hook failed, the hook is not to be called as the host's toolkit is set to descriptions, or nothing describes the GPU.
func refusesGPUs(text string) bool {
	return slices.ContainsFunc([]string{
		driverMissing, "nvidia-container-cli", "nvidia-container-runtime", "NVIDIA Container Runtime Hook",
		"CDI device injection failed", "unresolvable CDI devices",
	}, func(part string) bool { return strings.Contains(text, part) })
}

// missesProgram reports whether an engine's text says that there is no such program in the image.
func missesProgram(text string) bool {
	return strings.Contains(text, "executable file not found") || strings.Contains(text, "no such file or directory")
}

// createFailure says why a container could not be made of an image.
func createFailure(ctx context.Context, err error) error {
	if strings.Contains(strings.ToLower(err.Error()), "no command specified") {
		return rental.Failf(rental.CodeContainerFailed, "The image names no program to run: order it with a command.")
	}
	return failed(ctx, "creating the container", err)
}

// networkFailure says why a network could not be made. Engines run out of address ranges, and only their
// text says so: "could not find an available, non-overlapping IPv4 address pool", or, from Docker 27 on,
// "all predefined address pools have been fully subnetted".
func networkFailure(ctx context.Context, err error) error {
	if text := err.Error(); overlaps(err) || strings.Contains(text, "address pools") {
		return rental.Failf(rental.CodeInsufficient, "Docker on this host has no address range left for another network.")
	}
	return failed(ctx, "creating a network", err)
}

// overlaps reports whether an engine did not make a network because its range meets another's: "Pool overlaps with other
// one on this address space", "conflicts with network …: networks have overlapping IPv4".
func overlaps(err error) bool { return strings.Contains(err.Error(), "overlap") }

// isUnavailable reports whether err says that the engine is away.
func isUnavailable(err error) bool { return hasCode(err, rental.CodeDockerUnavailable) }

// hasCode reports whether err is a failure of a kind.
func hasCode(err error, code rental.Code) bool {
	failure, ok := errors.AsType[*rental.Failure](err)
	return ok && failure.Code == code
}

func goneFailure() *rental.Failure {
	return rental.Failf(rental.CodeNotFound, "The container is gone.")
}
