package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/distributedcompute/host-agent/sandbox/admin"
)

// place is where a marketplace is, and how a person reaches it.
type place struct {
	program string // this one, as it was called: "build/sandbox"
	dir     string // known once flags have been read
}

func (p *place) client() *admin.Client {
	return admin.NewClient(p.socket(), p.command("up"))
}

func (p *place) socket() string { return filepath.Join(p.dir, "sandbox.sock") }

// command is what to type for a command of this program to be about this marketplace.
func (p *place) command(words string) string {
	if p.dir == defaultDir() {
		return p.program + " " + words
	}
	return fmt.Sprintf("%s %s --dir '%s'", p.program, words, p.dir)
}

// agent is what to type for the host agent: the program beside this one, where it has been built.
func (p *place) agent() string {
	const name = "distributed-agent"
	beside := p.program[:len(p.program)-len(filepath.Base(p.program))] + name
	if _, err := os.Stat(beside); err != nil || beside == name {
		return name
	}
	return beside
}

func defaultDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "."
	}
	return filepath.Join(cache, "distributedcompute-sandbox", "up")
}
