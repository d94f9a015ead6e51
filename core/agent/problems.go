package agent

import (
	"fmt"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// harmless gaps are told to the backend and by the survey, but nothing is lost by them.
var harmless = map[string]bool{
	"no_gpu": true, "no_cpu_sensor": true, "os_unknown": true, "gpu_incomplete": true, "driver_version_unknown": true,
}

// problems are what of a picture needs a person, or is being retried, the gravest first.
func problems(s *Status) []Problem {
	list := []Problem{}
	list = append(list, linkProblems(s)...)
	list = append(list, engineProblems(s)...)
	if s.Engine.Available && s.Engine.DiskLow {
		list = append(list, Problem{
			Code:    "disk_low",
			Message: "The disk with Docker's data has less free space than the " + mebibytes(s.Engine.DiskReserveBytes) + " that this host keeps for itself.",
			Fix:     "Free space on it, or lower limits.disk_reserve. Until then no new rentals are taken; at half of the reserve the rental that has written the most is ended.",
		})
	}
	if s.Unwritable != "" {
		list = append(list, Problem{
			Code:    "state_not_kept",
			Message: "The agent's state directory is full or cannot be written: " + s.Unwritable + ".",
			Fix:     "Free space on it, or let the agent's user write to it. Until then no new rentals are taken and a pause would not survive a restart; the agent tries again by itself.",
		})
	}
	list = append(list, shieldProblems(s)...)
	relayDown := s.Relay.Problem != "" && !s.Relay.Connected
	if relay := s.Relay; relayDown {
		list = append(list, Problem{"relay_unreachable", relay.Problem, "The agent keeps trying; until then rentals run but are not reached from outside."})
	}
	list = append(list, hardwareProblems(s)...)
	list = append(list, gpuProblems(s)...)
	for _, r := range s.Rentals {
		if r.Trouble != "" && !r.State.Final() && !(relayDown && r.Unreachable) { // one problem, however many it concerns
			list = append(list, Problem{"rental_trouble", fmt.Sprintf("Rental %s: %s", r.ID, r.Trouble), "The agent keeps trying."})
		}
	}
	return append(list, versionProblems(s)...)
}

func linkProblems(s *Status) []Problem {
	link := s.Backend
	switch {
	case link.NeedsSignIn:
		message := link.Problem
		if message == "" {
			message = "The backend no longer accepts this host's key."
		}
		return []Problem{{"sign_in_needed", message, signInFix(s.Account)}}
	case link.Refused == protocol.HostSuspended:
		return []Problem{{link.Refused, link.Problem, "Your dashboard says more. The agent asks again from time to time; rentals run on meanwhile."}}
	case link.Refused == protocol.UpgradeRequired:
		return []Problem{{link.Refused, link.Problem, "Install the newest version of the agent. Rentals run on meanwhile."}}
	case link.Refused == protocol.ClockSkew:
		return []Problem{{link.Refused, link.Problem, "Set this machine's clock, best by letting the system keep it. Rentals run on meanwhile."}}
	case link.Replaced:
		return []Problem{{"key_used_twice", link.Problem, "Stop the other agent, or give each of the two a host key of its own; this one signs on again from time to time."}}
	case !link.Connected && link.Problem != "":
		return []Problem{{"backend_unreachable", link.Problem, "The agent keeps trying; rentals run on meanwhile."}}
	case link.Problem != "":
		return []Problem{{"registration_unusable", link.Problem, "Update the agent, or tell the backend's operator."}}
	}
	return nil
}

// signInFix says how the marketplace gets to know this host: by signing in where that makes a key that
// counts, else by a key put where the agent has found the old one.
func signInFix(a account.Info) string {
	const setup = "distributed-agent setup --api-key-stdin < key.txt"
	switch {
	case a.CanSignIn && a.KeySource == "":
		return "Sign in from the tray, or run: distributed-agent sign-in."
	case a.CanSignIn && a.KeyID != "":
		return "Sign in again from the tray, or run: distributed-agent sign-in. Rentals run on meanwhile."
	case a.KeySource == "":
		return "Get a new host key from your dashboard. Store it with: " + setup + ". Rentals run on meanwhile."
	}
	return "Get a new host key from your dashboard. This agent's is " + a.KeySource + ": put the new one there, or where setup has stored it run: " + setup + ". Rentals run on meanwhile."
}

func engineProblems(s *Status) []Problem {
	switch e := s.Engine; {
	case !e.Available && e.Problem != "":
		return []Problem{{"docker_unavailable", e.Problem, e.Fix}}
	case e.Available && !e.GPUReady && hasGPU(s, nvidia):
		return []Problem{{"gpu_not_ready", "Docker cannot hand out this machine's GPUs.", "Install the NVIDIA Container Toolkit, run sudo nvidia-ctk runtime configure --runtime=docker, and restart Docker."}}
	}
	return nil
}

// shieldProblems are about rentals that could reach the host's network, or that are not taken because they could.
func shieldProblems(s *Status) []Problem {
	shield := s.Engine.Shield
	switch {
	case !s.Engine.Available || shield.Problem == "":
		return nil
	case shield.Waived:
		return []Problem{{"unshielded", "Rentals can reach your network, as isolation.allow_unshielded allows. " + shield.Problem, shield.Fix}}
	}
	return []Problem{{"shield_" + string(shield.State), shield.Problem, shield.Fix}}
}

func hardwareProblems(s *Status) []Problem {
	if s.Hardware == nil {
		return nil
	}
	var list []Problem
	for _, gap := range s.Hardware.Gaps {
		named := gap.Code == "disk_unknown" && s.Offer.DiskGB > 0 // by the owner, which is the remedy
		if !harmless[gap.Code] && !named {
			list = append(list, Problem{gap.Code, gap.Message, gap.Fix})
		}
	}
	return list
}

// memoryProblem is about a state file that could not be read.
func memoryProblem(lapse string) Problem {
	return Problem{
		Code:    "state_not_kept",
		Message: fmt.Sprintf("What this agent should remember could not be read: %s.", lapse),
		Fix:     "The node is paused, because you may have paused it before: run distributed-agent resume when it may take rentals. Rentals that are there run on.",
	}
}
