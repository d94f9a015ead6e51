package engine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// hookName is the program dockerd looks for in its PATH, once, when it starts: finding it is what
// makes it accept requests for NVIDIA devices.
const hookName = "nvidia-container-runtime-hook"

// hookLogVariable, in the engine's environment, names the file hook calls are recorded in.
const hookLogVariable = "DISTRIBUTEDCOMPUTE_SANDBOX_HOOK_LOG"

// hookMain stands for the hook of the NVIDIA container toolkit, and so for the graphics cards this
// machine does not have: instead of mounting devices and driver libraries it records what was asked
// for and leaves an nvidia-smi in the container that lists just the granted GPUs. The engine calls it
// the way it calls the real one, so what reaches it is what would reach the hardware.
func hookMain() int {
	if len(os.Args) != 2 || os.Args[1] != "prestart" {
		return 0 // the real hook has nothing to do in other phases
	}
	if text, err := os.ReadFile(refusalBeside(os.Getenv(hookLogVariable))); err == nil {
		fmt.Fprintln(os.Stderr, string(text))
		return 1
	}
	if err := grant(os.Stdin, os.Getenv(hookLogVariable)); err != nil {
		fmt.Fprintln(os.Stderr, hookName+": "+err.Error())
		return 1
	}
	return 0
}

// grant reads the state of a container that is about to start, as runtimes give it to hooks.
func grant(stdin io.Reader, log string) error {
	var state struct{ ID, Bundle string }
	if err := json.NewDecoder(stdin).Decode(&state); err != nil {
		return fmt.Errorf("reading the container's state: %w", err)
	}
	raw, err := os.ReadFile(filepath.Join(state.Bundle, "config.json"))
	if err != nil {
		return fmt.Errorf("reading the container's configuration: %w", err)
	}
	var config struct {
		Process struct{ Env []string }
		Root    struct{ Path string }
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return fmt.Errorf("reading the container's configuration: %w", err)
	}
	call := HookCall{ContainerID: state.ID, Env: config.Process.Env, Devices: visibleDevices(config.Process.Env)}
	if len(call.Devices) > 0 {
		root := config.Root.Path
		if !filepath.IsAbs(root) {
			root = filepath.Join(state.Bundle, root)
		}
		if err := plantSMI(root, call.Devices); err != nil {
			return fmt.Errorf("leaving nvidia-smi in the container: %w", err)
		}
	}
	return record(log, call)
}

// visibleDevices reads the request like the real hook: the last setting of the variable counts.
func visibleDevices(env []string) []string {
	var visible string
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, "NVIDIA_VISIBLE_DEVICES="); ok {
			visible = value
		}
	}
	if slices.Contains([]string{"", "void", "none"}, visible) {
		return nil
	}
	return strings.Split(visible, ",")
}

// plantSMI puts a program at usr/bin/nvidia-smi of the container that prints its GPUs as "nvidia-smi -L" does.
func plantSMI(rootfs string, devices []string) error {
	var list strings.Builder
	for i, device := range devices {
		fmt.Fprintf(&list, "GPU %d: Sandbox GPU (UUID: %s)\n", i, device)
	}
	program, err := printer(list.String())
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(rootfs) // the image decides what lies in there: do not follow it out
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll("usr/bin", 0o755); err != nil {
		return err
	}
	if err := root.WriteFile("usr/bin/nvidia-smi", program, 0o755); err != nil {
		return err
	}
	return root.Chmod("usr/bin/nvidia-smi", 0o755)
}

// record appends call to the log. One short write keeps lines of concurrent hooks apart.
func record(log string, call HookCall) error {
	line, err := json.Marshal(call)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// refusalBeside is the file that has the hook refuse GPUs, beside its log.
func refusalBeside(log string) string { return filepath.Join(filepath.Dir(log), "hook.refusal") }

// RefuseGPUs has the hook fail with a text of NVIDIA's instead of handing out GPUs; with "" it hands them out again.
func (e *Engine) RefuseGPUs(text string) error {
	file := refusalBeside(e.path("hook.jsonl"))
	if text == "" {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("having the hook hand out GPUs: %w", err)
		}
		return nil
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("having the hook refuse GPUs: %w", err)
	}
	return nil
}

// HookCalls lists the container starts with GPUs so far, oldest first.
func (e *Engine) HookCalls() ([]HookCall, error) {
	raw, err := os.ReadFile(e.path("hook.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the hook's record: %w", err)
	}
	var calls []HookCall
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		var call HookCall
		if err := json.Unmarshal(lines.Bytes(), &call); err != nil {
			return nil, fmt.Errorf("reading the hook's record: %w", err)
		}
		calls = append(calls, call)
	}
	return calls, nil
}
