package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/term"
)

const shellHelp = "commands: report, hostname, echo TEXT, exit [CODE], help"

// serveShell serves SSH with a few commands of its own: the image holds no shell.
func serveShell(ctx context.Context, listener net.Listener, password string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	signer, err := gossh.NewSignerFromKey(key)
	if err != nil {
		return err
	}
	server := &ssh.Server{
		Handler:     session,
		HostSigners: []ssh.Signer{signer},
		PasswordHandler: func(_ ssh.Context, given string) bool {
			return subtle.ConstantTimeCompare([]byte(given), []byte(password)) == 1
		},
	}
	// A server that is closed before it serves would serve on: its listener has to go too.
	defer context.AfterFunc(ctx, func() { _, _ = server.Close(), listener.Close() })()
	fmt.Println("serving ssh on", listener.Addr())
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

func session(s ssh.Session) {
	fmt.Printf("ssh %s as %s: %q\n", s.RemoteAddr(), s.User(), s.RawCommand())
	if s.RawCommand() != "" {
		code, _ := execute(s.Context(), s, s.RawCommand())
		_ = s.Exit(code)
		return
	}
	terminal := term.NewTerminal(s, "guest$ ")
	fmt.Fprintln(terminal, shellHelp)
	for {
		line, err := terminal.ReadLine()
		if err != nil {
			_ = s.Exit(0)
			return
		}
		if code, done := execute(s.Context(), terminal, line); done {
			_ = s.Exit(code)
			return
		}
	}
}

// execute runs one command line; done asks for the session's end.
func execute(ctx context.Context, out io.Writer, line string) (code int, done bool) {
	command, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch command {
	case "":
	case "help":
		fmt.Fprintln(out, shellHelp)
	case "report":
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(look(ctx))
	case "hostname":
		hostname, _ := os.Hostname()
		fmt.Fprintln(out, hostname)
	case "echo":
		fmt.Fprintln(out, rest)
	case "exit":
		code, _ := strconv.Atoi(rest)
		return code, true
	default:
		fmt.Fprintf(out, "%s: not found; %s\n", command, shellHelp)
		return 127, false
	}
	return 0, false
}
