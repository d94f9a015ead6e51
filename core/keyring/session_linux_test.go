package keyring_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/secret"
)

// The library takes the bus from the environment and keeps the connection to it, so whoever uses a
// session is a process of its own: this binary in another role.
const roleVariable = "KEYRING_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "host":
		playHost()
	case "fake keyring":
		playFakeKeyring()
	}
}

// nobody is who a session belongs to where root runs the tests: root has no keyring.
const nobody = 65534

// session is the desktop session of a user: a bus of its own and a home of its own.
type session struct {
	t   testing.TB
	dir string
	uid int
	bus *exec.Cmd
	env []string
}

func needs(t testing.TB, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test needs %s; run: apt-get install %s", program, pkg)
	}
	t.Skipf("this test needs %s of the package %s", program, pkg)
}

// newSession makes a home without a bus.
func newSession(t testing.TB) *session {
	t.Helper()
	needs(t, "dbus-daemon", "dbus")
	needs(t, "gnome-keyring-daemon", "gnome-keyring")
	needs(t, "secret-tool", "libsecret-tools")
	dir, err := os.MkdirTemp("", "keyring") // short, for the sockets, and open to nobody, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &session{t: t, dir: dir, uid: os.Getuid()}
	if s.uid == 0 {
		s.uid = nobody
	}
	for _, name := range []string{"state", "run", "data", "data/keyrings"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		s.give(name)
	}
	s.give(".")
	s.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir + "/run", "XDG_DATA_HOME=" + dir + "/data",
		"XDG_CONFIG_HOME=" + dir + "/config", "XDG_CACHE_HOME=" + dir + "/cache",
	}
	return s
}

func (s *session) give(name string) {
	s.t.Helper()
	if err := os.Chown(filepath.Join(s.dir, name), s.uid, -1); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), name, args...)
	cmd.Env, cmd.Dir = slices.Clone(s.env), s.dir
	if s.uid != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.uid), Gid: nobody}}
	}
	return cmd
}

// run returns what a program of the session says.
func (s *session) run(name string, args ...string) string {
	out, err := s.command(name, args...).Output()
	if err != nil && s.t.Context().Err() == nil {
		return ""
	}
	return string(out)
}

// programs are those that run with the session's home, by their process, however they were started.
func (s *session) programs() map[int]string {
	s.t.Helper()
	found := map[int]string{}
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range paths {
		env, _ := os.ReadFile(path) // another user's, or gone
		if !slices.Contains(strings.Split(string(env), "\x00"), "HOME="+s.dir) {
			continue
		}
		name, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "comm"))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			s.t.Fatal(err)
		}
		found[pid] = strings.TrimSpace(string(name))
	}
	return found
}

func (s *session) start(cmd *exec.Cmd) {
	s.t.Helper()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// stop ends a program that start has started, and waits for its end.
func stop(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// startBus gives the session a bus that starts nothing by itself.
func (s *session) startBus() *session {
	s.t.Helper()
	socket := filepath.Join(s.dir, "bus")
	config := write(s.t, filepath.Join(s.dir, "bus.conf"), 0o644, `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=`+socket+`</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
`)
	s.bus = s.command("dbus-daemon", "--config-file="+config, "--nofork")
	s.start(s.bus)
	s.env = append(s.env, "DBUS_SESSION_BUS_ADDRESS=unix:path="+socket)
	s.await("the bus", func() bool { _, err := os.Stat(socket); return err == nil })
	return s
}

func (s *session) await(what string, there func() bool) {
	s.t.Helper()
	for range 200 {
		if there() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	s.t.Fatalf("%s did not come up in 5 s", what)
}

func (s *session) provided() bool {
	return strings.Contains(s.run("dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.DBus", "/",
		"org.freedesktop.DBus.NameHasOwner", "string:org.freedesktop.secrets"), "true")
}

// startKeyring starts the real keyring, open, or locked as it is where nobody has typed the password.
func (s *session) startKeyring(locked bool) *exec.Cmd {
	s.t.Helper()
	args := []string{"--components=secrets", "--foreground"}
	if !locked {
		args = append(args, "--unlock")
	}
	cmd := s.command("gnome-keyring-daemon", args...)
	cmd.Stdin = strings.NewReader("a password")
	s.start(cmd)
	s.await("gnome-keyring-daemon", s.provided)
	return cmd
}

// lookup asks the keyring from outside.
func (s *session) lookup(source keyring.Source) string {
	return s.run("secret-tool", "lookup", "service", "DistributedCompute Host", "username", s.entry(source))
}

func (s *session) entry(source keyring.Source) string {
	_, quoted, _ := strings.Cut(string(source), "entry \"")
	entry, _, _ := strings.Cut(quoted, "\"")
	return entry
}

// entries counts what the keyring holds of all hosts.
func (s *session) entries() int {
	return strings.Count(s.run("secret-tool", "search", "--all", "service", "DistributedCompute Host"), "[/")
}

// actor is this binary in another role, asked by a line and answering with one.
type actor struct {
	t   testing.TB
	cmd *exec.Cmd

	asking sync.Mutex
	in     io.Writer
	out    *bufio.Scanner
}

func (s *session) actor(role string, args ...string) *actor {
	s.t.Helper()
	cmd := s.command(s.binary(), args...)
	cmd.Env = append(cmd.Env, roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.start(cmd)
	return &actor{t: s.t, cmd: cmd, in: in, out: bufio.NewScanner(out)}
}

// binary is a copy of this program where the session's user can run it.
func (s *session) binary() string {
	s.t.Helper()
	path := filepath.Join(s.dir, "program")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		s.t.Fatal(err)
	}
	// A program that another test starts meanwhile would hold the copy open for writing, and so keep it from being run.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return write(s.t, path, 0o755, string(content))
}

func (a *actor) ask(line string) string {
	a.t.Helper()
	a.asking.Lock()
	defer a.asking.Unlock()
	if _, err := fmt.Fprintln(a.in, line); err != nil {
		a.t.Fatal(err)
	}
	if !a.out.Scan() {
		a.t.Fatalf("%q was not answered: the program is gone", line)
	}
	return a.out.Text()
}

// host is a process that has a Store.
type host struct{ *actor }

type answer struct {
	Key, Source, Left, Err string
	None, Unavailable      bool
	Goroutines             int
	Took                   time.Duration
}

func (s *session) host(o keyring.Options) host {
	s.t.Helper()
	if o.StateDir == "" {
		o.StateDir = filepath.Join(s.dir, "state")
	}
	args := []string{o.StateDir, o.Origin}
	if o.Interactive {
		args = append(args, "interactive")
	}
	return host{s.actor("host", args...)}
}

func (h host) do(line string) answer {
	h.t.Helper()
	var a answer
	if err := json.Unmarshal([]byte(h.ask(line)), &a); err != nil {
		h.t.Fatal(err)
	}
	return a
}

// keeps fails the test unless key is kept.
func (h host) keeps(key string) keyring.Source {
	h.t.Helper()
	a := h.do("keep " + key)
	if a.Err != "" {
		h.t.Fatalf("keeping: %s", a.Err)
	}
	return keyring.Source(a.Source)
}

// finds fails the test unless the key is found.
func (h host) finds(key string) keyring.Source {
	h.t.Helper()
	a := h.do("find")
	if a.Key != key || a.Err != "" {
		h.t.Fatalf("got %q from %q (%s), want %q", a.Key, a.Source, a.Err, key)
	}
	return keyring.Source(a.Source)
}

func playHost() {
	o := keyring.Options{StateDir: os.Args[1], Origin: os.Args[2], Interactive: len(os.Args) > 3}
	store := keyring.New(o)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		verb, rest, _ := strings.Cut(lines.Text(), " ")
		ctx := context.Background()
		if rest == "briefly" {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
			defer cancel()
			rest = "dch_test_brief_key"
		}
		var a answer
		var err error
		begun := time.Now()
		switch verb {
		case "find":
			key, source, failed := store.Find(ctx)
			a.Key, a.Source, err = key.Reveal(), string(source), failed
		case "all": // … find at once
			var mu sync.Mutex
			var all sync.WaitGroup
			for range 5 {
				all.Go(func() {
					key, _, failed := store.Find(ctx)
					mu.Lock()
					defer mu.Unlock()
					a.Key, err = a.Key+key.Reveal(), errors.Join(err, failed)
				})
			}
			all.Wait()
		case "keep":
			source, failed := store.Keep(ctx, secret.New(rest))
			a.Source, err = string(source), failed
		case "write": // … nothing any more
			signal.Ignore(syscall.SIGXFSZ)
			err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{})
		case "forget":
			left, failed := store.Forget(ctx)
			a.Left, err = string(left), failed
		}
		a.Took = time.Since(begun)
		if err != nil {
			a.Err, a.None, a.Unavailable = err.Error(), errors.Is(err, keyring.ErrNone), errors.Is(err, keyring.ErrUnavailable)
		}
		a.Goroutines = runtime.NumGoroutine()
		line, err := json.Marshal(a)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
}
