package main

import (
	"bytes"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/admin"
)

// run runs a command line where no marketplace is, and returns what it printed.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return runIn(t, t.TempDir(), args...)
}

func runIn(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRoot("build/sandbox")
	root.SetArgs(append([]string{"--dir", dir}, args...))
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestCommandsNeedASandbox(t *testing.T) {
	for _, line := range []string{"rent", "stop r-1", "rentals", "logs r-1", "nodes", "earnings", "drain", "resume", "notice Hello there", "speedtest", "cut", "expire", "expire --undo", "enrol"} {
		if _, err := run(t, strings.Fields(line)...); err == nil || !strings.Contains(err.Error(), "`build/sandbox up --dir") {
			t.Errorf("%s: error = %v, want the next step", line, err)
		}
	}
}

func TestWrongFlags(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"rent --ram lots", `--ram "lots": takes a size`},
		{"rent --shm -1", `--shm "-1": takes a size`},
		{"rent --env NAME", "takes NAME=value"},
		{"stop", "accepts 1 arg(s)"},
		{"notice Hello", "accepts 2 arg(s)"},
		{"frobnicate", "unknown command"},
	} {
		if _, err := run(t, strings.Fields(tt.line)...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error = %v, want %q", tt.line, err, tt.want)
		}
	}
}

func statuses(err error, states ...string) iter.Seq2[protocol.InstanceStatus, error] {
	return func(yield func(protocol.InstanceStatus, error) bool) {
		for i, state := range states {
			status := protocol.InstanceStatus{RentalID: "r-1", Sequence: int64(i + 1), State: state}
			switch state {
			case "pulling":
				status.Progress = &protocol.Progress{CurrentBytes: 30, TotalBytes: 60}
			case "failed":
				status.Error = &protocol.Error{Code: protocol.ImageNotFound, Message: "No such image."}
			}
			if !yield(status, nil) {
				return
			}
		}
		if err != nil {
			yield(protocol.InstanceStatus{}, err)
		}
	}
}

func TestFollow(t *testing.T) {
	for _, tt := range []struct {
		name             string
		statuses         iter.Seq2[protocol.InstanceStatus, error]
		out, latest, err string
	}{
		{"to running", statuses(nil, "accepted", "pulling", "pulling", "running"), "r-1  accepted\nr-1  pulling  50 %\nr-1  running\n", "running", ""},
		{"to failure", statuses(nil, "accepted", "failed"), "r-1  accepted\nr-1  failed\n", "failed", ""},
		{"error", statuses(errors.New("no host is connected")), "", "", "no host is connected"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			text := ""
			latest, err := follow(&out, tt.statuses)
			if err != nil {
				text = err.Error()
			}
			if diff := cmp.Diff(tt.out, out.String()); diff != "" || text != tt.err || latest.State != tt.latest {
				t.Errorf("error %q, want %q; latest %q; output %s", text, tt.err, latest.State, diff)
			}
		})
	}
}

func TestEndOf(t *testing.T) {
	for _, tt := range []struct {
		status protocol.InstanceStatus
		want   string
	}{
		{protocol.InstanceStatus{State: "failed", ExitCode: new(1), Error: &protocol.Error{Message: "No such image."}}, "No such image."},
		{protocol.InstanceStatus{State: "failed", ExitCode: new(3)}, "its program ended with exit code 3"},
		{protocol.InstanceStatus{State: "accepted"}, "it is accepted"},
		{protocol.InstanceStatus{}, "nothing was heard of it"},
	} {
		if got := endOf(tt.status); got != tt.want {
			t.Errorf("the end of %+v is told as %q, want %q", tt.status, got, tt.want)
		}
	}
}

func TestPlace(t *testing.T) {
	if got := (&place{program: "build/sandbox", dir: defaultDir()}).command("rent"); got != "build/sandbox rent" {
		t.Errorf("in the default directory: %q", got)
	}
	if got := (&place{program: "./sandbox", dir: "/a b"}).command("stop r-1"); got != "./sandbox stop r-1 --dir '/a b'" {
		t.Errorf("elsewhere: %q", got)
	}
	built := t.TempDir()
	at := &place{program: filepath.Join(built, "sandbox")}
	if got := at.agent(); got != "distributed-agent" {
		t.Errorf("an agent that is not beside the sandbox: %q", got)
	}
	beside := filepath.Join(built, "distributed-agent")
	if err := os.WriteFile(beside, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := at.agent(); got != beside {
		t.Errorf("the agent beside the sandbox: %q, want %q", got, beside)
	}
}

func TestEarningsTable(t *testing.T) {
	payout := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	earned := func(node string, history ...protocol.DayAmount) admin.Earnings {
		return admin.Earnings{Node: node, Earnings: protocol.Earnings{
			Currency: "USD", RatePerHour: "0.10", Today: "0.0042", Month: "1.25", Total: "3.00", Unpaid: "1.25", NextPayoutAt: &payout, History: history,
		}}
	}
	var out bytes.Buffer
	err := printEarnings(&out, []admin.Earnings{earned("n-1"), earned("n-2", protocol.DayAmount{Day: "2026-11-20", Amount: "1.2458"})})
	if err != nil {
		t.Fatal(err)
	}
	want := `NODE  NOW/HOUR  TODAY   MONTH  TOTAL  UNPAID  CURRENCY  NEXT PAYOUT
n-1   0.10      0.0042  1.25   3.00   1.25    USD       2026-12-01
n-2   0.10      0.0042  1.25   3.00   1.25    USD       2026-12-01

NODE  DAY         EARNED
n-2   2026-11-20  1.2458
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestTables(t *testing.T) {
	var out bytes.Buffer
	err := errors.Join(
		printNodes(&out, []admin.Node{{ID: "n-1", Connected: true, Status: "paused", GPUs: []string{"RTX 4090", "RTX 4090"}, CPUs: 14, RAMMB: 28672}}),
		printRentals(&out, []admin.Rental{{ID: "r-1", State: "running", Addresses: []string{"127.0.0.1:20001"}, Image: "thing:1"}, {ID: "r-2"}}),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"n-1", "connected", "paused", "RTX 4090, RTX 4090", "28.0 GiB", "r-1", "127.0.0.1:20001", "r-2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the tables lack %q:\n%s", want, out.String())
		}
	}
}
