package relay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const frps = "github.com/fatedier/frp"

// Program finds the frps program: the one that is named, else $FRPS, else build/frps of the module
// around the working directory, else one that is built from the module's own frp dependency and
// kept in the user's cache directory.
func Program(ctx context.Context, named string) (string, error) {
	if named == "" {
		named = os.Getenv("FRPS")
	}
	if named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", fmt.Errorf("finding frps: %w", err)
		}
		return path, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	built := filepath.Join(root, "build", executable("frps"))
	if _, err := os.Stat(built); err == nil {
		return built, nil
	}
	return buildOnce(ctx, root)
}

// buildOnce builds frps unless this version of it is there. Two that build at once do no harm:
// each writes its own file, and the last to finish names it.
func buildOnce(ctx context.Context, root string) (string, error) {
	version, err := goTool(ctx, root, "list", "-m", "-f", "{{.Version}}", frps)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding cache directory: %w", err)
	}
	dir := filepath.Join(cache, "distributedcompute-sandbox")
	program := filepath.Join(dir, executable("frps-"+strings.TrimSpace(version)))
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	work := filepath.Join(dir, fmt.Sprintf("building-%d", os.Getpid()))
	if err := os.MkdirAll(work, 0o700); err != nil {
		return "", fmt.Errorf("making cache directory: %w", err)
	}
	defer os.RemoveAll(work)
	fresh := filepath.Join(work, filepath.Base(program))
	if _, err := goTool(ctx, root, "build", "-tags", "noweb", "-o", fresh, frps+"/cmd/frps"); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, program); err != nil {
		return "", fmt.Errorf("keeping frps: %w", err)
	}
	return program, nil
}

func goTool(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			stderr = exit.Stderr
		}
		return "", fmt.Errorf("running go %s: %w: %s", args[0], err, strings.TrimSpace(string(stderr)))
	}
	return string(out), nil
}

// moduleRoot is the nearest directory with a go.mod, from the working directory upwards.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding working directory: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("finding frps: %s is in no Go module to build it from; name the program in $FRPS", start)
		}
	}
}

func executable(name string) string {
	if runtime.GOOS == "windows" {
		return name + ".exe"
	}
	return name
}
