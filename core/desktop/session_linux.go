package desktop

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Available returns nil where this process belongs to a desktop session: an icon can be shown and
// pages can be opened. Else it says in one sentence what is missing.
func Available() error {
	if err := busReachable(); err != nil {
		return err
	}
	return display()
}

// CanOpen returns nil where OpenURL and OpenFile have a screen to open something on, else what
// they would say: ErrRoot, or that there is no screen.
func CanOpen() error {
	if asRoot() {
		return ErrRoot
	}
	return display()
}

func asRoot() bool { return os.Geteuid() == 0 }

func display() error {
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return errors.New("there is no screen: neither DISPLAY nor WAYLAND_DISPLAY is set")
	}
	return nil
}

// busReachable finds out whether there is a session bus before a library asks for one: where there
// is none, they start one of their own, and it stays behind.
func busReachable() error {
	address := os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	if address == "" {
		path := filepath.Join("/run/user", strconv.Itoa(os.Geteuid()), "bus")
		if err := knock(path); err != nil {
			return fmt.Errorf("there is no desktop session: DBUS_SESSION_BUS_ADDRESS is not set, and nothing answers at %s", path)
		}
		return nil
	}
	for one := range strings.SplitSeq(address, ";") {
		if knock(socketOf(one)) == nil {
			return nil
		}
	}
	return fmt.Errorf("there is no desktop session: nothing answers at DBUS_SESSION_BUS_ADDRESS (%s)", address)
}

// socketOf gives the socket of a D-Bus address as package net writes it, "" for another transport.
func socketOf(address string) string {
	settings, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return ""
	}
	for setting := range strings.SplitSeq(settings, ",") {
		key, value, _ := strings.Cut(setting, "=")
		value, err := url.PathUnescape(value)
		switch {
		case err != nil:
		case key == "path":
			return value
		case key == "abstract":
			return "@" + value
		}
	}
	return ""
}

// answerWithin bounds how long a bus may take to answer: some systems start it on the first knock.
const answerWithin = 2 * time.Second

// knock asks how to sign in and hangs up at the answer: whoever only takes connections would keep a library
// waiting for ever. A transport that is not a socket of this machine is taken on trust.
func knock(socket string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.DialTimeout("unix", socket, answerWithin)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("\x00AUTH\r\n")); err != nil {
		return err
	}
	_, err = bufio.NewReader(conn).ReadString('\n')
	return err
}
