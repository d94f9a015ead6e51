package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/rental"
)

// The texts are the engine's, versions 20.10 to 28.
func TestStartFailureSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]rental.Code{
		`could not select device driver "nvidia" with capabilities: [[gpu compute utility]]`:                                                                              rental.CodeGPUUnavailable,
		`OCI runtime create failed: error during container init: error running hook #0: exit status 1, stderr: nvidia-container-cli: device error: GPU-1: unknown device`: rental.CodeGPUUnavailable,
		`OCI runtime create failed: runc create failed: exec: "python": executable file not found in $PATH: unknown`:                                                      rental.CodeContainerFailed,
		`unable to find user app: no matching entries in passwd file`:                                                                                                     rental.CodeContainerFailed,
		`exec /run.sh: permission denied`:                                       rental.CodeContainerFailed,
		`something that nobody has seen before in /var/lib/docker/overlay2/abc`: rental.CodeContainerFailed,
	} {
		failure, ok := errors.AsType[*rental.Failure](startFailure(t.Context(), errors.New(text)))
		if !ok || failure.Code != want {
			t.Errorf("%s: %v, want %s", text, failure, want)
		}
		if strings.Contains(failure.Message, "/var/") {
			t.Errorf("%s names a path of the host", failure.Message)
		}
	}
}

func TestFailed(t *testing.T) {
	ended, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	if err := failed(ended, "calling", io.EOF); !errors.Is(err, why) {
		t.Errorf("with an ended context: %v, want its cause", err)
	}
	for name, cause := range map[string]error{
		"cut off": fmt.Errorf("reading: %w", io.ErrUnexpectedEOF), "hanging": context.DeadlineExceeded, "closed": io.EOF,
	} {
		if err := failed(t.Context(), "calling", cause); !isUnavailable(err) {
			t.Errorf("%s: %v, want docker_unavailable", name, err)
		}
	}
	if err := failed(t.Context(), "calling", why); !errors.Is(err, why) || err.Error() != "calling: why" {
		t.Errorf("another error: %v", err)
	}
}

func TestEndOfAContainerInAnOutage(t *testing.T) {
	at := time.Now()
	tests := []struct {
		name          string
		end           end
		outage, kept  bool
		engineStopped bool
	}{
		{"own exit", end{code: 143}, false, false, false},
		{"ended with the engine", end{code: 143}, true, false, true},
		{"ended cleanly with the engine", end{code: 0}, true, false, true},
		{"asked by Stop, then the engine went", end{code: 143, asked: true}, true, false, false},
		{"out of memory", end{code: 137, oomKilled: true}, true, false, false},
		{"kept: own exit", end{code: 1}, true, true, false},
		{"kept: unknown code", end{code: 255}, true, true, true},
		{"kept: killed", end{code: 137}, true, true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.end.started, test.end.last = at.Add(-time.Millisecond), at
			want := rental.Exit{
				Code: test.end.code, OOMKilled: test.end.oomKilled, StartedAt: test.end.started, At: at,
				EngineStopped: test.engineStopped, Noticed: test.end.code == unknown,
			}
			if diff := cmp.Diff(want, test.end.exit(test.outage, test.kept)); diff != "" {
				t.Errorf("exit (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPullFailureReasons has the engine say in words what the registry has not said: all that counts of them is a disk
// that is full.
func TestPullFailureReasons(t *testing.T) {
	for text, want := range map[string]rental.Code{
		"write /var/lib/docker/tmp/GetImageBlob1: no space left on device": rental.CodeImageTooLarge,
		"unknown: ":      rental.CodePullFailed,
		"unexpected EOF": rental.CodePullFailed,
	} {
		failure := pullFailureOf(t, errors.New(text))
		if failure.Code != want {
			t.Errorf("%s: %v, want %s", text, failure, want)
		}
	}
}

// pullFailureOf is what pullFailure makes of an error for some image.
func pullFailureOf(t *testing.T, err error) *rental.Failure {
	t.Helper()
	e := quietEngine(t)
	failure, ok := errors.AsType[*rental.Failure](e.pullFailure(t.Context(), named(t, "acme/secret:1"), err))
	if !ok {
		t.Fatalf("%v gave no failure", err)
	}
	return failure
}

func quietEngine(t *testing.T) *Engine {
	t.Helper()
	e, err := New(Options{Host: "unix:///nowhere.sock", OwnerKey: make([]byte, 16), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func named(t *testing.T, ref string) reference.Named {
	t.Helper()
	parsed, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestNewRefusesWhatIsNotSafe(t *testing.T) {
	for name, options := range map[string]Options{
		"a network address": {Host: "tcp://10.0.0.1:2375", OwnerKey: make([]byte, 16)},
		"a short key":       {OwnerKey: make([]byte, 15)},
	} {
		if _, err := New(options); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNetworkFailureNamesTheExhaustion(t *testing.T) {
	for text, want := range map[string]rental.Code{
		"could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network": rental.CodeInsufficient,
		"all predefined address pools have been fully subnetted":                                                     rental.CodeInsufficient,
		"something else": "",
	} {
		failure, ok := errors.AsType[*rental.Failure](networkFailure(t.Context(), errors.New(text)))
		if ok != (want != "") || ok && failure.Code != want {
			t.Errorf("%s: %v, want %q", text, failure, want)
		}
	}
}
