package desktop_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/desktop"
)

func TestAvailable(t *testing.T) {
	listen := func(name, answer string) {
		t.Helper()
		listener, err := net.Listen("unix", name)
		must(t, err)
		t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				t.Cleanup(func() { conn.Close() })
				conn.Write([]byte(answer))
			}
		}()
	}
	const answer = "REJECTED EXTERNAL\r\n"
	dir := t.TempDir()
	listen(dir+"/a bus", answer)
	listen(dir+"/silent", "")
	silent := "unix:path=" + dir + "/silent"
	abstract := fmt.Sprintf("desktop-test-%d", os.Getpid())
	listen("@"+abstract, answer)
	dead := "unix:path=" + dir + "/dead"
	for _, tt := range []struct {
		bus, display, wayland string
		want                  string
		canOpen               bool
	}{
		{"unix:path=" + dir + "/a%20bus,guid=1", ":0", "", "", true},
		{"unix:abstract=" + abstract, "", "wayland-0", "", true},
		{dead + ";unix:abstract=" + abstract, ":0", "", "", true},
		{"tcp:host=localhost,port=1", ":0", "", "", true}, // taken on trust
		{silent, ":0", "", "there is no desktop session: nothing answers at DBUS_SESSION_BUS_ADDRESS (" + silent + ")", true},
		{dead, ":0", "", "there is no desktop session: nothing answers at DBUS_SESSION_BUS_ADDRESS (" + dead + ")", true},
		{"", ":0", "", fmt.Sprintf("there is no desktop session: DBUS_SESSION_BUS_ADDRESS is not set, and nothing answers at /run/user/%d/bus", os.Getuid()), true},
		{"unix:abstract=" + abstract, "", "", "there is no screen: neither DISPLAY nor WAYLAND_DISPLAY is set", false},
		{dead, "", "", "there is no desktop session: nothing answers at DBUS_SESSION_BUS_ADDRESS (" + dead + ")", false},
	} {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", tt.bus)
		t.Setenv("DISPLAY", tt.display)
		t.Setenv("WAYLAND_DISPLAY", tt.wayland)
		if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); tt.bus == "" && err == nil {
			continue // this user has a session
		}
		got := ""
		if err := desktop.Available(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%+v: got %q", tt, got)
		}
		if err := desktop.CanOpen(); (err == nil) != tt.canOpen {
			t.Errorf("%+v: can open: %v", tt, err)
		}
	}
}

func TestBusIsAvailable(t *testing.T) {
	bus(t)
	t.Setenv("DISPLAY", ":0")
	must(t, desktop.Available())
}

// opener puts a script in xdg-open's place, in front of all other programs, and returns the file in
// which it says what it was asked to open.
func opener(t *testing.T, then string) (told string) {
	t.Helper()
	dir := t.TempDir()
	told = filepath.Join(dir, "told")
	put(t, filepath.Join(dir, "xdg-open"), "#!/bin/sh\necho loud; echo loud >&2\necho \"$#: $1\" >"+told+"\n"+then+"\n", 0o755)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("DISPLAY", ":0")
	return told
}

func TestOpen(t *testing.T) {
	told := opener(t, "")
	address := "https://clerk.example.com/authorize?client_id=a&state=%22x%22&scope=openid+email#top"
	must(t, desktop.OpenURL(t.Context(), address))
	if got := read(t, told); got != "1: "+address+"\n" {
		t.Errorf("opened %q", got)
	}
	file := filepath.Join(t.TempDir(), "50% #1?.log")
	put(t, file, "", 0o600)
	must(t, desktop.OpenFile(t.Context(), file))
	if got := read(t, told); got != "1: "+file+"\n" {
		t.Errorf("opened %q", got)
	}

	must(t, os.Remove(told))
	for _, address := range []string{
		"", "example.com", "file:///etc/passwd", "javascript:alert(1)", "-h", "https:", "https:///x", "ms-settings:about", "https://a b",
		"https://example.com/?q=\"%20--no-sandbox", "https://example.com/\n", `https://example.com\@evil`, "https://example.com/`id`", "http://%zz",
	} {
		if err := desktop.OpenURL(t.Context(), address); err == nil || !strings.HasPrefix(err.Error(), "opening a page: ") {
			t.Errorf("%q: got %v", address, err)
		}
	}
	if err := desktop.OpenFile(t.Context(), filepath.Join(t.TempDir(), "missing.log")); err == nil {
		t.Error("a file that is not there was opened")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := desktop.OpenURL(ctx, "https://example.com"); err == nil {
		t.Error("opened after the end")
	}
	t.Setenv("DISPLAY", "")
	if err := desktop.OpenURL(t.Context(), "https://example.com"); err == nil || !strings.Contains(err.Error(), "there is no screen") {
		t.Errorf("without a screen: got %v", err)
	}
	if _, err := os.Stat(told); err == nil {
		t.Errorf("something was opened: %s", read(t, told))
	}
}

func TestOpenerThatStaysHoldsNobody(t *testing.T) {
	// As xdg-open does for a browser that it is the first to start.
	opener(t, "exec sleep 5")
	began := time.Now()
	must(t, desktop.OpenURL(t.Context(), "https://example.com"))
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the caller waited %v", took)
	}
}

func TestOpenerThatLeavesABrowserIsNotWaitedFor(t *testing.T) {
	opener(t, "sleep 5 &\nexit 4")
	err := desktop.OpenURL(t.Context(), "https://example.com")
	if err == nil || err.Error() != "opening a page in the browser: no program for it could be started: exit status 4" {
		t.Errorf("got %v", err)
	}
}

func TestNoOpener(t *testing.T) {
	t.Setenv("DISPLAY", ":0")
	t.Setenv("PATH", t.TempDir())
	if err := desktop.OpenURL(t.Context(), "https://example.com"); err == nil || !strings.Contains(err.Error(), "xdg-open") {
		t.Errorf("got %v", err)
	}
}

func TestCopy(t *testing.T) {
	xclip := need(t, "xclip", "xclip")
	xvfb := need(t, "Xvfb", "xvfb")
	if err := desktop.Copy(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "xclip") {
		t.Errorf("without a screen: got %v", err)
	}
	number, ours, err := os.Pipe()
	must(t, err)
	defer number.Close()
	server := exec.Command(xvfb, "-displayfd", "3", "-nolisten", "tcp", "-screen", "0", "64x64x24")
	server.ExtraFiles = []*os.File{ours}
	must(t, server.Start())
	defer server.Wait()
	defer server.Process.Kill()
	ours.Close()
	display, err := bufio.NewReader(number).ReadString('\n')
	must(t, err)
	t.Setenv("DISPLAY", ":"+strings.TrimSpace(display))

	text := "ABCD-1234 „ö“\n"
	must(t, desktop.Copy(t.Context(), text))
	if got, err := exec.Command(xclip, "-o", "-selection", "clipboard").Output(); err != nil || string(got) != text {
		t.Errorf("pasted %q, %v", got, err)
	}
}

// notifications is the desktop's side of what is shown.
type notifications struct{ shown chan shown }

type shown struct {
	App, Title, Body string
	Urgency          byte
	Width            int32 // of the picture
}

type picture struct {
	Width, Height, Stride int32
	Alpha                 bool
	Bits, Samples         int32
	Pixels                []byte
}

func (n notifications) Notify(app string, _ uint32, _, title, body string, _ []string, hints map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	one := shown{App: app, Title: title, Body: body}
	hints["urgency"].Store(&one.Urgency)
	var pic picture
	if dbus.Store([]any{hints["image-data"].Value()}, &pic) == nil {
		one.Width = pic.Width
	}
	n.shown <- one
	return 1, nil
}

// bus starts a session bus that knows none of the machine's services, and makes it this test's.
func bus(t *testing.T) (address string) {
	t.Helper()
	program := need(t, "dbus-daemon", "dbus-daemon")
	conf := filepath.Join(t.TempDir(), "session.conf")
	put(t, conf, `<busconfig><type>session</type><keep_umask/><listen>unix:dir=`+t.TempDir()+`</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`, 0o600)
	daemon := exec.Command(program, "--config-file="+conf, "--nofork", "--nopidfile", "--print-address")
	out, err := daemon.StdoutPipe()
	must(t, err)
	must(t, daemon.Start())
	t.Cleanup(func() {
		daemon.Process.Kill()
		daemon.Wait()
	})
	address, err = bufio.NewReader(out).ReadString('\n')
	must(t, err)
	address = strings.TrimSpace(address)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
	return address
}

func TestNotificationsOnABus(t *testing.T) {
	icon, err := os.ReadFile("testdata/icon.png")
	must(t, err)
	n := desktop.NewNotifier(desktop.NotifierOptions{Name: "DistributedCompute", Icon: icon})
	err = n.Notify(t.Context(), desktop.Note{Title: "no bus"})
	if err == nil || !strings.Contains(err.Error(), "showing a notification: there is no desktop session") {
		t.Errorf("without a bus: got %v", err)
	}

	conn, err := dbus.Connect(bus(t))
	must(t, err)
	defer conn.Close()
	// Nobody shows notifications yet, and no other program does it in the bus's place.
	t.Setenv("PATH", t.TempDir())
	if err := n.Notify(t.Context(), desktop.Note{Title: "nobody there"}); err == nil {
		t.Error("nobody shows it, and it is no error")
	}

	server := notifications{make(chan shown, 10)}
	must(t, conn.Export(server, "/org/freedesktop/Notifications", "org.freedesktop.Notifications"))
	_, err = conn.RequestName("org.freedesktop.Notifications", dbus.NameFlagDoNotQueue)
	must(t, err)
	for _, note := range []desktop.Note{
		{Key: "r-1", Title: "Rented", Body: "GPU 0 for <b>2 h</b>, $0.35 an hour"},
		{Key: "r-1", Title: "Rented", Body: "GPU 0 for <b>2 h</b>, $0.35 an hour"},
		{Key: "key", Title: "Signed out", Body: "The key was revoked", Urgent: true},
	} {
		must(t, n.Notify(t.Context(), note))
	}
	got := []shown{<-server.shown, <-server.shown}
	want := []shown{
		{"DistributedCompute", "Rented", "GPU 0 for ‹b›2 h‹/b›, $0.35 an hour", 1, 4},
		{"DistributedCompute", "Signed out", "The key was revoked", 2, 4},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if more := len(server.shown); more > 0 {
		t.Errorf("%d more were shown", more)
	}
}
