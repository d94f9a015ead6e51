package lending

import (
	"fmt"
	"slices"
	"strings"

	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// note is how a GPU was when it was lent.
type note struct {
	State hardware.GPUState `json:"state"`
	// Unexplained is the memory in use that no process held, in bytes; nil where that could not be told.
	Unexplained *int64 `json:"unexplained,omitempty"`
	LogRecord   *int64 `json:"log_record,omitempty"` // of the system's log, the newest then
}

// cause is what is wrong with a GPU.
type cause string

const (
	lost     cause = "lost"
	undone   cause = "undone"  // an instance that is no more
	divided  cause = "divided" // a whole GPU that is instances by now
	fault    cause = "fault"
	busy     cause = "busy"
	memory   cause = "memory"
	settings cause = "settings"
	silent   cause = "silent"
)

// finding is one such thing, in words.
type finding struct {
	cause        cause
	message, fix string
	untilRestart bool // no later look can tell that it is over
}

// passes tells that waiting may help.
func (f finding) passes() bool { return f.cause == busy || f.cause == memory || f.cause == silent }

// passed tells that the GPU is another one by now: nothing is wrong, but the survey is old.
func (f finding) passed() bool { return f.cause == undone || f.cause == divided }

// Memory that is in use without a process is allowed to grow by this much, or this part of all there is: what
// the driver itself needs varies.
const (
	memorySlack     = 64 << 20
	memorySlackPart = 50
)

// judge says what is wrong with a GPU, the gravest first; nil: nothing. before is nil where it is not known how
// the GPU was: then only what is wrong in itself counts.
func (d *Desk) judge(gpu rental.GPU, before *note, now hardware.GPUState) *finding {
	name := nameOf(gpu)
	switch {
	case now.Lost && gpu.Parent != "":
		return &finding{undone, name + " is gone: the GPU has been divided anew.", "Nothing: what it is divided into now is offered instead.", false}
	case now.Lost:
		return &finding{lost, name + " does not answer: it has fallen off the bus.", "Restart the machine; if it happens again, check the card's power cables and slot.", false}
	case now.Divided:
		return &finding{divided, name + " has been divided into instances, which take its place.", "Nothing: they are offered instead.", false}
	}
	for _, look := range []func() *finding{
		func() *finding { return judgeErrors(name, before, now) },
		func() *finding { return d.judgeProcesses(name, now) },
		func() *finding { return judgeMemory(name, before, now) },
		func() *finding { return judgeSettings(name, before, now) },
		func() *finding { return d.judgeLog(name, before, now) }, // last, since reading it takes some milliseconds
	} {
		if found := look(); found != nil {
			return found
		}
	}
	return nil
}

const fixFault = "Restart the machine; if it happens again, have the card checked."

func judgeErrors(name string, before *note, now hardware.GPUState) *finding {
	if before == nil || before.State.ECCErrors == nil || now.ECCErrors == nil || *now.ECCErrors <= *before.State.ECCErrors {
		return nil
	}
	n := *now.ECCErrors - *before.State.ECCErrors
	return &finding{fault, fmt.Sprintf("%s has had %d uncorrectable memory errors since it was rented.", name, n), fixFault, false}
}

// judgeLog looks for errors that the driver has written to the system's log.
func (d *Desk) judgeLog(name string, before *note, now hardware.GPUState) *finding {
	if before == nil || before.LogRecord == nil || now.Bus == "" {
		return nil
	}
	errors, _, err := d.machine.Xids(*before.LogRecord)
	if err != nil {
		d.log.Debug("reading the system's log", "error", err)
		return nil
	}
	at := slices.IndexFunc(errors, func(x hardware.Xid) bool { return !x.OfProgram() && x.On(now.Bus) })
	if at < 0 {
		return nil
	}
	return &finding{fault, fmt.Sprintf("%s has reported a fault since it was rented (Xid %d).", name, errors[at].Number), fixFault, true}
}

// judgeProcesses looks for programs that compute. Those that draw as well are the desktop's.
func (d *Desk) judgeProcesses(name string, now hardware.GPUState) *finding {
	for _, p := range computing(now.Compute, now.Graphics) {
		if d.machine.Alive(p.PID) {
			return &finding{busy, fmt.Sprintf("%s is in use: process %d, which is no rental's, computes on it.", name, p.PID), "End that process; the GPU is offered again by itself then.", false}
		}
	}
	return nil
}

func computing(compute, graphics []hardware.Process) []hardware.Process {
	return slices.DeleteFunc(slices.Clone(compute), func(p hardware.Process) bool {
		return slices.ContainsFunc(graphics, func(g hardware.Process) bool { return g.PID == p.PID })
	})
}

func judgeMemory(name string, before *note, now hardware.GPUState) *finding {
	if before == nil || before.Unexplained == nil {
		return nil
	}
	slack := int64(memorySlack)
	if now.Memory != nil {
		slack = max(slack, *now.Memory/memorySlackPart)
	}
	is := unexplained(now)
	if is == nil || *is <= *before.Unexplained+slack {
		return nil
	}
	return &finding{
		memory,
		fmt.Sprintf("%s has %d MiB of memory in use that no process holds, %d MiB more than before the rental.", name, *is>>20, (*is-*before.Unexplained)>>20),
		"Reset it with sudo nvidia-smi --gpu-reset, or restart the machine; the GPU is offered again by itself then.", false,
	}
}

// unexplained is the memory in use that no process holds. A desktop takes and gives back memory of its own, so
// that nothing can be said where it is not known who draws, or how much each has.
func unexplained(s hardware.GPUState) *int64 {
	if s.MemoryUsed == nil || s.Compute == nil || s.Graphics == nil {
		return nil
	}
	left := *s.MemoryUsed
	for _, p := range slices.Concat(computing(s.Compute, s.Graphics), s.Graphics) {
		if p.Memory == nil {
			return nil
		}
		left -= *p.Memory
	}
	return &left
}

func judgeSettings(name string, before *note, now hardware.GPUState) *finding {
	if before == nil {
		return nil
	}
	changed := before.State.Settings.Differ(now.Settings)
	if len(changed) == 0 {
		return nil
	}
	return &finding{
		settings, fmt.Sprintf("%s is not set as before the rental: %s.", name, strings.Join(changed, ", ")),
		"Set it back (nvidia-smi shows and sets it), or restart the machine; the GPU is offered again by itself then.", false,
	}
}

func nameOf(gpu rental.GPU) string { return fmt.Sprintf("GPU %d", gpu.Index) }

// asked is a GPU as questions about it need it.
func asked(gpus []rental.GPU) []hardware.GPU {
	list := make([]hardware.GPU, len(gpus))
	for i, gpu := range gpus {
		list[i] = hardware.GPU{UUID: gpu.UUID, Parent: gpu.Parent, Render: gpu.Render}
	}
	return list
}
