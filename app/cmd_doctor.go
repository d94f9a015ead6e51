package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/control"
	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/preflight"
	"github.com/distributedcompute/host-agent/core/rental"
)

// errUnfit is what doctor exits with once it has said why.
var errUnfit = errors.New("this machine is not fit for rentals yet; what helps is named above")

// examinedWithin bounds an examination without an agent: a driver may hang, and an engine may not answer.
const examinedWithin = time.Minute

func (c *cli) doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine is fit for rentals, and say what helps where it is not",
		Long: `doctor checks Docker, the versions of all that keeps a rental in its container, disk, GPUs and, where an
agent is running, its connections. It changes nothing. It exits with 0 where the machine is fit, else with 1.`,
		Args: cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			status, running, err := c.examine(ctx, cfg)
			if err != nil {
				return err
			}
			found := diagnose(status, running)
			if asJSON {
				err = c.printJSON(found)
			} else {
				err = c.printDiagnosis(found)
			}
			if err == nil && !found.Fit {
				return errUnfit
			}
			return err
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.addSettingFlags(cmd)
	return cmd
}

// examine asks the running agent what it knows. Without one, or while it does not know yet, it looks for itself.
func (c *cli) examine(ctx context.Context, cfg *config.Config) (status agent.Status, running bool, err error) {
	status, err = control.NewClient(cfg.StateDir, buildVersion().Version).Status(ctx)
	switch {
	case err == nil && status.Hardware != nil && (status.Versions != nil || !status.Engine.Available):
		return status, true, nil
	case err != nil && !errors.Is(err, control.ErrNotRunning):
		return status, true, err
	}
	running = err == nil
	ctx, cancel := context.WithTimeout(ctx, examinedWithin)
	defer cancel()
	// It makes nothing, so that the mark it would put on things is of no account.
	engine, err := docker.New(docker.Options{Host: cfg.DockerHost, OwnerKey: make([]byte, 16), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return status, running, err
	}
	status.Engine = engine.Look(ctx)
	survey := hardware.Take(ctx, hardware.Options{DiskPath: status.Engine.DataRoot, Log: slog.New(slog.DiscardHandler)})
	status.Hardware = &survey
	if !status.Engine.Available {
		return status, running, nil
	}
	judge, err := judgeVersions(engine)
	if err != nil {
		return status, running, err
	}
	report, err := judge(ctx, survey)
	if err != nil {
		return status, running, err
	}
	status.Versions = &report
	return status, running, nil
}

// diagnosis is what doctor says; its JSON is what doctor --json prints.
type diagnosis struct {
	Fit          bool              `json:"fit"`
	AgentRunning bool              `json:"agent_running"`
	Findings     []finding         `json:"findings"`
	Versions     *preflight.Report `json:"versions"` // null where there is no engine
}

// finding is one thing that was looked at. Its verdict is ok, warning or bad, or a component's own.
type finding struct {
	Name    string `json:"name"`
	Verdict string `json:"verdict"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

const (
	good    = "ok"
	warning = "warning"
	bad     = "bad"
)

// diagnose draws findings from a picture of the host.
func diagnose(s agent.Status, running bool) diagnosis {
	d := diagnosis{AgentRunning: running, Versions: s.Versions}
	d.note(engineFinding(s))
	if shield := s.Engine.Shield; running && s.Engine.Available && shield.State != "" && shield.State != rental.ShieldAwaited {
		d.note(shieldFinding(shield))
	}
	if v := s.Versions; v != nil {
		for _, component := range v.Components {
			d.note(componentFinding(component))
		}
		for _, n := range v.Notes {
			d.note(finding{"settings", warning, n.Message, n.Fix})
		}
		if v.Stale {
			d.note(finding{"table", warning, "What is known of unsafe versions ends on " + v.TableDate + ".", "Install the newest version of the agent."})
		}
	}
	for _, f := range machineFindings(s) {
		d.note(f)
	}
	if running {
		d.note(backendFinding(s.Backend))
		d.note(relayFinding(s))
	}
	d.Fit = true
	for _, f := range d.Findings {
		d.Fit = d.Fit && (f.Verdict == good || f.Verdict == warning || f.Verdict == string(preflight.Absent))
	}
	return d
}

func (d *diagnosis) note(f finding) { d.Findings = append(d.Findings, f) }

func engineFinding(s agent.Status) finding {
	if e := s.Engine; !e.Available {
		return finding{"engine", bad, cmp.Or(e.Problem, "Docker does not answer yet."), e.Fix}
	}
	return finding{"engine", good, "answers: " + describeEngine(s.Engine), ""}
}

func shieldFinding(shield rental.ShieldInfo) finding {
	f := finding{"shield", good, describeShield(shield), ""}
	if shield.Problem != "" {
		f.Verdict, f.Message, f.Fix = warning, f.Message+". "+shield.Problem, shield.Fix
	}
	if shield.Refuses() {
		f.Verdict = bad
	}
	return f
}

func componentFinding(c preflight.Component) finding {
	words := cmp.Or(c.Version, none)
	if c.PackageVersion != "" {
		words += ", package " + c.Package + " " + c.PackageVersion
	}
	if c.Verdict == preflight.Absent {
		words = "not on this machine, or of no concern to it"
	}
	if c.Reason != "" {
		words += ". " + c.Reason
	}
	return finding{c.Name, string(c.Verdict), words, c.Fix}
}

// machineFindings are about disk and GPUs, and what else the survey could not do.
func machineFindings(s agent.Status) []finding {
	if s.Hardware == nil {
		return nil
	}
	var list []finding
	disk := finding{"disk", good, describeRoom(s.Hardware.System), ""}
	if free := s.Hardware.System.DiskAvailableGB; free != nil && *free < 1 {
		disk.Verdict, disk.Fix = bad, "Free space where Docker keeps its data."
	}
	if s.Engine.DiskLow {
		disk.Verdict = bad
		disk.Message += fmt.Sprintf(", less than the %s that this host keeps for itself", inBytes(s.Engine.DiskReserveBytes))
		disk.Fix = "Free space where Docker keeps its data, or lower limits.disk_reserve."
	}
	list = append(list, disk)
	gpus := finding{"gpus", good, plural(len(s.Hardware.GPUs), "GPU"), ""}
	if hasNVIDIA(s.Hardware.GPUs) && s.Engine.Available && !s.Engine.GPUReady {
		gpus = finding{"gpus", bad, "Docker cannot hand out this machine's GPUs.", "Install the NVIDIA Container Toolkit, run sudo nvidia-ctk runtime configure --runtime=docker, and restart Docker."}
	}
	list = append(list, gpus)
	for _, t := range s.GPUTroubles {
		list = append(list, finding{"gpus", warning, t.Message, t.Fix})
	}
	for _, gap := range s.Hardware.Gaps {
		list = append(list, finding{"hardware", warning, gap.Message, gap.Fix})
	}
	return list
}

func backendFinding(link agent.LinkHealth) finding {
	words := describeBackend(link, time.Now())
	if link.Connected && link.Problem == "" {
		return finding{"backend", good, words, ""}
	}
	if link.Problem != "" {
		words += ". " + link.Problem
	}
	return finding{"backend", bad, words, "See: distributed-agent status"}
}

func relayFinding(s agent.Status) finding {
	words := describeRelay(s.Relay)
	switch {
	case s.Relay.Address == "":
		return finding{"relay", warning, words, "The marketplace names it once this host has registered."}
	case s.Relay.Connected:
		return finding{"relay", good, words, ""}
	}
	return finding{"relay", bad, words + ". " + s.Relay.Problem, "The agent keeps trying."}
}

func (c *cli) printDiagnosis(d diagnosis) error {
	var b bytes.Buffer
	for _, f := range d.Findings {
		fmt.Fprintf(&b, "%-8s %-15s %s\n", f.Verdict, f.Name, plain(f.Message))
		if f.Fix != "" && f.Verdict != good {
			fmt.Fprintf(&b, "%24s → %s\n", "", plain(f.Fix))
		}
	}
	if d.Fit {
		fmt.Fprintf(&b, "\nThis machine is fit for rentals.\n")
	}
	_, err := c.out.Write(b.Bytes())
	return err
}
