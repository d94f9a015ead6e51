package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/distributedcompute/host-agent/sandbox/engine"
)

const systemSocket = "unix:///var/run/docker.sock"

// found is the Docker Engine the demo rents with.
type found struct {
	docker  *docker
	version string
	whose   string // "the system's", "private"
	stop    func() error
}

// systemEngine is the machine's own engine, if it answers.
func systemEngine(ctx context.Context) (*found, error) {
	host := os.Getenv("DOCKER_HOST")
	if host == "" {
		host = systemSocket
	}
	d, err := newDocker(host)
	if err != nil {
		return nil, err
	}
	version, err := ask(ctx, d)
	if err != nil {
		return nil, err
	}
	return &found{docker: d, version: version, whose: "the system's", stop: func() error { return nil }}, nil
}

// whyNone says in words why the machine's own engine cannot be used.
func whyNone(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return "No Docker Engine runs here"
	case errors.Is(err, fs.ErrPermission):
		return "This user may not use the Docker Engine here"
	}
	return fmt.Sprintf("No Docker Engine can be used here (%v)", err)
}

// privateEngine starts one that ends with the demo. Its firewall rules would stay behind anywhere
// but in a network namespace of the demo's own.
func privateEngine(ctx context.Context) (_ *found, err error) {
	// On the disk, so that there is disk to rent out, by a path short enough for sockets.
	dir, err := os.MkdirTemp("/var/tmp", "dc-engine-")
	if err != nil {
		return nil, fmt.Errorf("making the engine's directory: %w", err)
	}
	private, err := engine.Start(ctx, engine.Options{Dir: dir})
	if err != nil {
		_ = os.Remove(dir)
		return nil, fmt.Errorf("starting a private Docker Engine: %w", err)
	}
	f := &found{whose: "private", stop: private.Stop}
	if f.docker, err = newDocker(private.Host()); err == nil {
		f.version, err = ask(ctx, f.docker)
	}
	if err != nil {
		_ = private.Stop() // what went wrong first is what counts
		return nil, err
	}
	return f, nil
}

func ask(ctx context.Context, d *docker) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return d.version(ctx)
}
