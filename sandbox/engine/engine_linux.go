package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxDir      = 60 // bytes; a socket's path may have 107, and containerd puts some 40 behind ours
	startWithin = 30 * time.Second
	endWithin   = 30 * time.Second
)

// systemContainerd is used by every dockerd that finds it, in place of one of its own.
const systemContainerd = "/run/containerd/containerd.sock"

// Engine is a running private Docker Engine. Its methods are not for concurrent use, except Host.
type Engine struct {
	options Options
	dir     string
	cgroup  string
	program string
	http    *http.Client

	daemon *exec.Cmd
	ended  chan struct{} // closed when daemon is gone
	wait   sync.WaitGroup
}

// Start starts an engine and returns when it answers.
func Start(ctx context.Context, options Options) (*Engine, error) {
	e := &Engine{options: options, cgroup: os.Getenv(cgroupVariable)}
	if e.cgroup == "" {
		e.cgroup = cgroupParent(os.Getpid())
	}
	if options.Beside {
		e.cgroup += "/beside"
	}
	if _, err := os.Stat(systemContainerd); err == nil {
		return nil, errors.New("this machine's own containerd is in the way of a private Docker Engine: start it inside engine.Isolated")
	}
	var err error
	if e.program, err = lookUp("dockerd"); err != nil {
		return nil, err
	}
	if _, err = lookUp("iptables"); err != nil {
		return nil, err
	}
	if e.dir, err = makeDir(options.Dir); err != nil {
		return nil, err
	}
	e.http = Client(e.Host())
	if err := e.prepare(ctx); err != nil {
		return nil, errors.Join(err, unmountBelow(e.dir), os.RemoveAll(e.dir))
	}
	if err := e.launch(ctx); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	return e, nil
}

// programsVariable names a directory with another Docker Engine's package unpacked in it, which is then the one that
// is started. What it does not hold, runc first of all, is the machine's.
const programsVariable = "ENGINE_DIR"

// searchPath holds the directories of system programs too, which not every user has in PATH.
func searchPath() string {
	path := os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin"
	if dir := os.Getenv(programsVariable); dir != "" {
		path = filepath.Join(dir, "usr/sbin") + ":" + filepath.Join(dir, "usr/bin") + ":" + path
	}
	return path
}

// lookUp finds a program the engine needs.
func lookUp(name string) (string, error) {
	for _, dir := range filepath.SplitList(searchPath()) {
		if path := filepath.Join(dir, name); isExecutable(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s not found: run `make setup`", name)
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func makeDir(dir string) (string, error) {
	if dir == "" {
		made, err := os.MkdirTemp("/run", "dc-engine-")
		if err != nil {
			return "", fmt.Errorf("making the engine's directory: %w", err)
		}
		return made, nil
	}
	if len(dir) > maxDir {
		return "", fmt.Errorf("the engine's directory %s is longer than %d bytes: sockets in it could not be reached", dir, maxDir)
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return "", fmt.Errorf("the engine's directory %s is not empty", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making the engine's directory: %w", err)
	}
	return dir, nil
}

// path of a file of the engine.
func (e *Engine) path(name string) string { return filepath.Join(e.dir, name) }

// Host is the address of the engine's API, "unix:///…/docker.sock".
func (e *Engine) Host() string { return "unix://" + e.path("docker.sock") }

// Pid is the process id of dockerd, 0 while it is not running.
func (e *Engine) Pid() int {
	if !e.running() {
		return 0
	}
	return e.daemon.Process.Pid
}

// prepare writes what dockerd reads when it starts.
func (e *Engine) prepare(ctx context.Context) error {
	if e.options.Storage != "" {
		if err := mountStorage(ctx, e.options.Storage, cmp.Or(e.options.StorageBytes, storageSize), e.path("storage"), e.path("data")); err != nil {
			return err
		}
	}
	if err := e.configure(e.options.LiveRestore); err != nil {
		return err
	}
	if err := os.Mkdir(e.path("bin"), 0o755); err != nil {
		return fmt.Errorf("making the hook's directory: %w", err)
	}
	if !e.options.FakeNVIDIA {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	if err := os.Symlink(self, e.path("bin/"+hookName)); err != nil {
		return fmt.Errorf("installing the hook: %w", err)
	}
	return nil
}

// configure writes the configuration file; without one of its own dockerd would take the machine's.
func (e *Engine) configure(liveRestore bool) error {
	settings := map[string]any{"live-restore": liveRestore}
	if e.options.FakeNVIDIA { // as the toolkit's own set-up does; the hook does not need it
		settings["runtimes"] = map[string]any{"nvidia": map[string]string{"path": "runc"}}
	}
	config, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	if err := os.WriteFile(e.path("daemon.json"), config, 0o600); err != nil {
		return fmt.Errorf("configuring the engine: %w", err)
	}
	return nil
}

// launch starts dockerd and waits until it answers.
func (e *Engine) launch(ctx context.Context) error {
	log := e.options.Log
	if log == nil {
		// A file, not a pipe: containers' shims inherit it and outlive dockerd.
		file, err := os.OpenFile(e.path("docker.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("opening the engine's log: %w", err)
		}
		defer file.Close()
		log = file
	}
	cmd := exec.Command(e.program,
		"--config-file", e.path("daemon.json"),
		"--data-root", e.path("data"),
		"--exec-root", e.path("x"),
		"--pidfile", e.path("docker.pid"),
		"--host", e.Host(),
		"--cgroup-parent", e.cgroup,
		"--exec-opt", "native.cgroupdriver=cgroupfs",
		"--log-level", "warn",
	)
	cmd.Env = append(os.Environ(),
		"PATH="+e.path("bin")+":"+searchPath(),
		hookLogVariable+"="+e.path("hook.jsonl"),
		noRaceSleep, // for the hook
	)
	cmd.Stdout, cmd.Stderr = log, log
	if driver := storageDrivers[e.options.Storage]; driver != "" {
		cmd.Args = append(cmd.Args, "--storage-driver", driver)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // an interrupt from the terminal is not for dockerd
	if e.options.Beside {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting dockerd: %w", err)
	}
	ended := make(chan struct{})
	e.daemon, e.ended = cmd, ended
	e.wait.Go(func() {
		defer close(ended)
		_ = cmd.Wait() // how it ended is in its log
	})
	return e.answering(ctx)
}

// answering waits until the engine's API answers.
func (e *Engine) answering(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	poll := time.NewTicker(25 * time.Millisecond)
	defer poll.Stop()
	for {
		if e.call(ctx, http.MethodGet, "/_ping", nil) == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-e.ended:
			return fmt.Errorf("dockerd ended while it was starting%s", e.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("waiting for dockerd: %w%s", ctx.Err(), e.lastWords())
		}
	}
}

// lastWords is the end of the log, as the end of an error message.
func (e *Engine) lastWords() string {
	log, err := os.ReadFile(e.path("docker.log"))
	if err != nil || len(log) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return ":\n" + strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// call makes a request to the engine's API and decodes the answer into result, if that is not nil.
func (e *Engine) call(ctx context.Context, method, path string, result any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, nil)
	if err != nil {
		return err
	}
	response, err := e.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, path, response.Status)
	}
	if result == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(result)
}

func (e *Engine) running() bool {
	if e.daemon == nil {
		return false
	}
	select {
	case <-e.ended:
		return false
	default:
		return true
	}
}

// SetLiveRestore changes Options.LiveRestore while the engine runs.
func (e *Engine) SetLiveRestore(ctx context.Context, on bool) error {
	e.options.LiveRestore = on
	if err := e.configure(on); err != nil {
		return err
	}
	if err := e.daemon.Process.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("asking dockerd to read its configuration: %w", err)
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		var info struct{ LiveRestoreEnabled bool }
		if err := e.call(ctx, http.MethodGet, "/info", &info); err != nil {
			return fmt.Errorf("asking dockerd for its configuration: %w", err)
		}
		if info.LiveRestoreEnabled == on {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Restart ends dockerd the way a service manager does and starts it again; after [Engine.Kill] or
// [Engine.Down] it only starts it.
func (e *Engine) Restart(ctx context.Context) error {
	if err := e.Down(); err != nil {
		return err
	}
	return e.launch(ctx)
}

// Down ends dockerd the way a service manager does. Containers end with it unless LiveRestore is set.
func (e *Engine) Down() error {
	if !e.running() {
		return nil
	}
	return e.end(syscall.SIGTERM)
}

// Kill ends dockerd alone, on the spot. Containers run on.
func (e *Engine) Kill() error {
	if !e.running() {
		return nil
	}
	return e.end(syscall.SIGKILL)
}

// end sends dockerd a signal and waits until it is gone.
func (e *Engine) end(signal os.Signal) error {
	if err := e.daemon.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending dockerd: %w", err)
	}
	late := time.NewTimer(endWithin)
	defer late.Stop()
	select {
	case <-e.ended:
		return nil
	case <-late.C:
		_ = e.daemon.Process.Kill()
		<-e.ended
		return fmt.Errorf("dockerd did not end within %s after %v and was killed", endWithin, signal)
	}
}

// Stop ends the containers and the engine and removes all its files. Stopping twice does nothing more.
func (e *Engine) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*endWithin)
	defer cancel()
	var err error
	if e.daemon != nil && !e.running() {
		err = e.launch(ctx) // only dockerd knows the containers it has left behind
	}
	if e.running() {
		err = errors.Join(err, e.clear(ctx), e.end(syscall.SIGTERM))
	}
	e.wait.Wait()
	e.daemon = nil
	e.http.CloseIdleConnections()
	return errors.Join(err, killEngineParts(e.dir), unmountBelow(e.dir), removeCgroups(e.cgroup), removeAll(e.dir))
}

// clear removes all containers at once, without asking their programs.
func (e *Engine) clear(ctx context.Context) error {
	var containers []struct{ ID string }
	if err := e.call(ctx, http.MethodGet, "/containers/json?all=1", &containers); err != nil {
		return fmt.Errorf("listing the engine's containers: %w", err)
	}
	failures := make([]error, len(containers))
	var wg sync.WaitGroup
	for i, c := range containers {
		wg.Go(func() { failures[i] = e.call(ctx, http.MethodDelete, "/containers/"+c.ID+"?force=1&v=1", nil) })
	}
	wg.Wait()
	return errors.Join(failures...)
}

// removeAll is os.RemoveAll for a tree that programs on their way out may still write to.
func removeAll(dir string) error {
	var err error
	for range 3 {
		if err = os.RemoveAll(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("removing the engine's files: %w", err)
}
