//go:build unix

package main

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"distributed-agent": main})
}

// TestScripts runs the command line as a person does; testdata/script is its specification.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			// A short path: the control socket lives below it.
			home, err := os.MkdirTemp("", "da")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(home) })
			env.Setenv("HOME", home)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else each command takes a second to exit
			env.Setenv("DISTRIBUTED_AGENT_CONFIG", home+"/agent.yaml")
			env.Setenv("DISTRIBUTED_AGENT_STATE_DIR", home+"/state")
			return os.WriteFile(home+"/agent.yaml", nil, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":        exitsWith,
			"engine":      saysVersions,
			"marketplace": refusesKeys,
			"mode":        hasMode,
			"until":       keepsTrying,
		},
	})
}

// exitsWith is "code N COMMAND…": the command exits with N.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND…")
	}
	code := "0"
	err := ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = strconv.Itoa(exit.ExitCode())
	} else {
		ts.Check(err)
	}
	if code != args[0] {
		ts.Fatalf("%v exits with %s, want %s", args[1:], code, args[0])
	}
}

// hasMode is "mode 0600 FILE".
func hasMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode OCTAL FILE")
	}
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	info, err := os.Lstat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := info.Mode().Perm(); got != os.FileMode(want) {
		ts.Fatalf("%s has mode %o, want %o", args[1], got, want)
	}
}

// keepsTrying is "until REGEXP COMMAND…": the command succeeds and prints what matches, sooner or later.
func keepsTrying(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP COMMAND…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		if ts.Exec(args[1], args[2:]...) == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("%v never printed %s", args[1:], args[0])
}

// refusesKeys is "marketplace KEY": a server that takes KEY alone, and is busy then. Its address is
// $MARKETPLACE, its certificate $MARKETPLACE_CA.
func refusesKeys(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: marketplace KEY")
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer "+args[0] {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"error": {"code": "unauthorized", "message": "This key is not known."}}`)
	}))
	ts.Defer(server.Close)
	ca := ts.MkAbs("marketplace.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	ts.Check(os.WriteFile(ca, pem.EncodeToMemory(block), 0o600))
	ts.Setenv("MARKETPLACE", "wss"+strings.TrimPrefix(server.URL, "https"))
	ts.Setenv("MARKETPLACE_CA", ca)
}

// saysVersions is "engine DOCKER CONTAINERD RUNC": an engine in a virtual machine of its own with these versions, at
// $ENGINE. It stands in for engines that this machine does not have, and can do nothing but say what it is.
func saysVersions(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: engine DOCKER CONTAINERD RUNC")
	}
	const kernel, system = "6.18.44", "Docker Desktop"
	answers := map[string]any{
		"version": map[string]any{
			"Version": args[0], "ApiVersion": "1.51", "KernelVersion": kernel, "Platform": map[string]any{"Name": system},
			"Components": []map[string]any{{"Name": "containerd", "Version": args[1]}, {"Name": "runc", "Version": args[2]}},
		},
		"info": map[string]any{
			"ServerVersion": args[0], "KernelVersion": kernel, "OperatingSystem": system, "Driver": "overlay2", "NCPU": 2,
			"MemoryLimit": true, "CpuCfsQuota": true, "PidsLimit": true, "SecurityOptions": []string{"name=seccomp,profile=builtin"},
		},
		"_ping": nil,
	}
	dir, err := os.MkdirTemp("", "de") // a short path, for the socket
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("unix", dir+"/s")
	ts.Check(err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said, ok := answers[path.Base(r.URL.Path)]
		w.Header().Set("Api-Version", "1.51")
		w.Header().Set("Content-Type", "application/json")
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		json.NewEncoder(w).Encode(said)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	ts.Defer(func() {
		server.Close()
		<-served
	})
	ts.Setenv("ENGINE", "unix://"+dir+"/s")
}
