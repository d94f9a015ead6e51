package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
)

func TestLogs(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		m.engine.logs = func(ctx context.Context, tail int) (string, bool, error) {
			return fmt.Sprintf("%d lines", tail), true, nil
		}
		s := m.boot()
		s.mustOK(order("r-1"))
		for tail, want := range map[int]string{0: "200 lines", 7: "7 lines", 9000: "5000 lines", -3: "1 lines"} {
			got := s.mustOK(&protocol.GetLogs{RentalID: "r-1", Tail: tail}).Result
			if diff := cmp.Diff(protocol.Logs{Text: want, Truncated: true}, got); diff != "" {
				t.Errorf("tail %d (-want +got):\n%s", tail, diff)
			}
		}
		text, truncated, err := s.Logs(t.Context(), "r-1", 5, time.Time{})
		if text != "5 lines" || !truncated || err != nil {
			t.Errorf("the owner got %q, %v, %v", text, truncated, err)
		}

		// More at once than the host reads are refused, and those it reads hold up nothing.
		m.engine.logs = func(ctx context.Context, tail int) (string, bool, error) {
			<-ctx.Done()
			return "", false, ctx.Err()
		}
		for i := range logsAtOnce {
			s.send(fmt.Sprintf("logs%d", i), &protocol.GetLogs{RentalID: "r-1"})
		}
		s.mustRefuse(protocol.Conflict, &protocol.GetLogs{RentalID: "r-1"})
		s.mustOK(with(order("r-2"), func(o *protocol.StartInstance) { o.PortMapping = nil }))
		pass(logsAtOnce * logsBound)
		for i := range logsAtOnce {
			answers := s.link.answersTo(fmt.Sprintf("logs%d", i))
			if len(answers) != 1 || answers[0].Error == nil || answers[0].Error.Code != protocol.Timeout {
				t.Errorf("logs%d: %+v", i, answers)
			}
		}
		s.leave()
	})
}

func TestLogsFitAFrame(t *testing.T) {
	for name, text := range map[string]string{
		"plain":    strings.Repeat("x", 1<<20),
		"escaped":  strings.Repeat("<\"\\>", 1<<18),
		"wide":     strings.Repeat("漢字", 1<<18),
		"newlines": strings.Repeat("\n", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			got := fit(text)
			encoded, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if len(encoded) > maxLogsEncoded || len(got) > maxLogsBytes || len(encoded) < maxLogsEncoded/3 {
				t.Errorf("%d bytes, %d encoded", len(got), len(encoded))
			}
			if !utf8.ValidString(got) || !strings.HasSuffix(text, got) {
				t.Error("not the newest part of the text")
			}
		})
	}
	if got := fit("short"); got != "short" {
		t.Errorf("fit changed a short text into %q", got)
	}
}

func TestSpeedTest(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		measured := hardware.Network{DownloadMbps: new(940.5), Server: "speed.example.com"}
		test := func(ctx context.Context) (hardware.Network, error) {
			select {
			case <-time.After(20 * time.Second):
				return measured, nil
			case <-ctx.Done():
				return hardware.Network{}, ctx.Err()
			}
		}
		m.parts = func(p *Parts) { p.SpeedTest = test }
		s := m.boot()
		s.send("speed", &protocol.RunSpeedtest{})
		s.mustRefuse(protocol.Conflict, &protocol.RunSpeedtest{})
		pass(21 * time.Second)
		if diff := cmp.Diff([]protocol.CommandResult{{OK: true, Result: protocol.Network(measured)}}, s.link.answersTo("speed")); diff != "" {
			t.Errorf("run_speedtest (-want +got):\n%s", diff)
		}

		// A rental ends the test, and none begins while it runs.
		s.send("cut", &protocol.RunSpeedtest{})
		s.mustOK(order("r-1"))
		if answers := s.link.answersTo("cut"); len(answers) != 1 || answers[0].Error == nil || answers[0].Error.Code != protocol.Conflict {
			t.Errorf("a test cut short by a rental: %+v", answers)
		}
		s.mustRefuse(protocol.Conflict, &protocol.RunSpeedtest{})
		if _, err := s.SpeedTest(t.Context()); err == nil {
			t.Error("the owner's test ran beside a rental")
		}
		s.mustOK(&protocol.StopInstance{RentalID: "r-1"})
		if got, err := s.SpeedTest(t.Context()); err != nil || got.Server != measured.Server {
			t.Errorf("the owner's test: %+v, %v", got, err)
		}
		s.leave()

		again := m.boot()
		if r, _ := again.link.lastRegister(); r.Network == nil || *r.Network.DownloadMbps != 940.5 {
			t.Errorf("the next register says %+v", r.Network)
		}
		again.leave()
	})
}

func TestSpeedTestOvertime(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		m.parts = func(p *Parts) {
			p.SpeedTest = func(ctx context.Context) (hardware.Network, error) {
				<-ctx.Done()
				return hardware.Network{}, ctx.Err()
			}
		}
		s := m.boot()
		s.send("speed", &protocol.RunSpeedtest{})
		pass(speedTestBound + time.Second)
		if a := s.link.answersTo("speed"); len(a) != 1 || a[0].Error == nil || a[0].Error.Code != protocol.Timeout {
			t.Errorf("answers: %+v", a)
		}
		s.leave()
	})
}
