package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/distributedcompute/host-agent/sandbox/workload/report"
)

// opened serves all doors on loopback until the test ends.
func opened(t *testing.T) doors {
	t.Helper()
	open, err := openDoors(t.Context(), "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- open.serve(ctx, "open sesame") }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serving ended with: %v", err)
		}
	})
	return open
}

func TestReport(t *testing.T) {
	t.Setenv("NVIDIA_VISIBLE_DEVICES", "GPU-1234")
	t.Setenv("RENTER_TOKEN", "do-not-show-me")
	url := "http://" + opened(t).web.Addr().String()

	var got report.Rental
	if err := json.Unmarshal([]byte(get(t, url+"/json")), &got); err != nil {
		t.Fatal(err)
	}
	if got.GPUsVisible != "GPU-1234" || got.Hostname == "" || got.ShmBytes <= 0 || len(got.Capabilities) == 0 {
		t.Errorf("report is incomplete: %+v", got)
	}
	if !slices.Contains(got.Environment, "RENTER_TOKEN") {
		t.Errorf("environment %q lacks RENTER_TOKEN", got.Environment)
	}
	page := get(t, url+"/")
	for _, want := range []string{"GPU-1234", "RENTER_TOKEN", got.Hostname} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(page+get(t, url+"/json"), "do-not-show-me") {
		t.Error("a value of the environment is shown")
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestEchoOverUDP(t *testing.T) {
	conn, err := net.Dial("udp", opened(t).echo.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("knock")); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 16)
	n, err := conn.Read(buffer)
	if err != nil || string(buffer[:n]) != "knock" {
		t.Errorf("got %q, %v, want the datagram back", buffer[:n], err)
	}
}

func TestShell(t *testing.T) {
	address := opened(t).shell.Addr().String()
	if _, err := dialShell(address, "wrong"); err == nil {
		t.Fatal("a wrong password opened the shell")
	}
	client, err := dialShell(address, "open sesame")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.Output("echo hello from outside")
	if err != nil || string(out) != "hello from outside\n" {
		t.Errorf("command gave %q, %v", out, err)
	}
	session, err = client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	_, err = session.Output("exit 7")
	if exit, ok := errors.AsType[*ssh.ExitError](err); !ok || exit.ExitStatus() != 7 {
		t.Errorf("exit 7 gave %v", err)
	}
}

func dialShell(address, password string) (*ssh.Client, error) {
	return ssh.Dial("tcp", address, &ssh.ClientConfig{
		User:            "root",
		Auth:            []ssh.AuthMethod{ssh.Password(password)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // the key is new with every start
	})
}

func TestExecute(t *testing.T) {
	for _, tt := range []struct {
		line string
		out  string
		code int
		done bool
	}{
		{"", "", 0, false},
		{"echo a  b", "a  b\n", 0, false},
		{"help", shellHelp + "\n", 0, false},
		{"exit", "", 0, true},
		{"exit 3", "", 3, true},
		{"rm -rf /", "rm: not found; " + shellHelp + "\n", 127, false},
	} {
		var out bytes.Buffer
		code, done := execute(t.Context(), &out, tt.line)
		if code != tt.code || done != tt.done || out.String() != tt.out {
			t.Errorf("%q gave %q, %d, %v", tt.line, out.String(), code, done)
		}
	}
}

func TestNumber(t *testing.T) {
	for text, want := range map[string]int64{
		"max": 0, "-1": 0, "": 0, "9223372036854771712": 0, "67108864": 67108864,
	} {
		if got := number(text); got != want {
			t.Errorf("number(%q) = %d, want %d", text, got, want)
		}
	}
}

func TestRatio(t *testing.T) {
	for _, tt := range []struct {
		quota, period string
		want          float64
	}{
		{"150000", "100000", 1.5}, {"max", "100000", 0}, {"-1", "100000", 0}, {"50000", "", 0},
	} {
		if got := ratio(tt.quota, tt.period); got != tt.want {
			t.Errorf("ratio(%q, %q) = %v, want %v", tt.quota, tt.period, got, tt.want)
		}
	}
}

func TestCapabilities(t *testing.T) {
	for mask, want := range map[string][]string{
		"0000000000000000": {},
		"not a mask":       {},
		"0000000000000401": {"CHOWN", "NET_BIND_SERVICE"},
		"0000018000000000": {"BPF", "CHECKPOINT_RESTORE"},
		"8000000000000000": {"CAP_63"},
	} {
		if diff := cmp.Diff(want, capabilities(mask)); diff != "" {
			t.Errorf("capabilities(%q): %s", mask, diff)
		}
	}
}
