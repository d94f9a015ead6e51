package docker

import (
	"archive/tar"
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/distributedcompute/host-agent/core/shield"
)

const (
	shieldName     = "distributedcompute/shield"
	shieldPath     = "/distributed-agent-shield" // in its image
	shieldMemory   = 64 << 20
	shieldPids     = 16
	largestProgram = 64 << 20
	maxStanding    = 4 << 20 // of what the program prints, in bytes

	labelShield = "distributedcompute.shield" // keyed hash of the container's name
	kindShield  = "shield"
)

// borrowedHands are those of a container of our own in the engine's network. It lives for one look or one change, runs
// nothing but our program, and may nothing but change the packet filter.
type borrowedHands struct {
	engine   *Engine
	program  string // file
	remapped bool
}

func (b borrowedHands) raise(ctx context.Context, policy shield.Policy) (shield.Standing, error) {
	text, err := json.Marshal(policy)
	if err != nil {
		return shield.Standing{}, fmt.Errorf("encoding the shield's policy: %w", err)
	}
	return b.run(ctx, "raise", string(text))
}

func (b borrowedHands) observe(ctx context.Context) (shield.Standing, error) {
	stands, err := b.run(ctx, "observe")
	if err != nil {
		return stands, &unseen{err}
	}
	return stands, nil
}

func (b borrowedHands) lower(ctx context.Context) error {
	_, err := b.run(ctx, "lower")
	return err
}

var errNoProgram = errors.New("distributed-agent-shield is not there: put it beside this program, or name it in isolation.program")

// borrowHands are hands in a container, of which earlier ones are removed.
func (e *Engine) borrowHands(ctx context.Context, program string, known facts) (hands, error) {
	if program == "" {
		return nil, errNoProgram
	}
	if _, err := os.Stat(program); err != nil {
		return nil, errNoProgram
	}
	if err := e.sweepErrands(ctx, labelShield, kindShield); err != nil {
		return nil, err
	}
	through := borrowedHands{e, program, known.Remapped}
	_, err := through.image(ctx) // made now, as a look has little time
	return through, err
}

// run runs the program once and reads what it prints.
func (b borrowedHands) run(ctx context.Context, args ...string) (stands shield.Standing, err error) {
	e := b.engine
	image, err := b.image(ctx)
	if err != nil {
		return stands, err
	}
	name := "dcshield-" + strings.ToLower(cryptorand.Text()[:12])
	made, err := e.api().ContainerCreate(ctx, &container.Config{
		Image: image, User: "0:0", Entrypoint: []string{shieldPath}, Cmd: args,
		Labels: map[string]string{labelShield: e.seal.of(kindShield, name)},
	}, b.limits(), nil, nil, name)
	if err != nil {
		return stands, failed(ctx, "making a container for the shield", err)
	}
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyUpWithin)
		defer cancel()
		err = errors.Join(err, e.discard(after, made.ID, kindShield))
	}()
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	results, errs := e.api().ContainerWait(waiting, made.ID, container.WaitConditionNextExit)
	if err := e.api().ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		stop()
		select { // the client's goroutine ends when one of its channels has been read
		case <-results:
		case <-errs:
		}
		return stands, failed(ctx, "starting a container for the shield", err)
	}
	var code int64
	select {
	case result := <-results:
		code = result.StatusCode
	case err := <-errs:
		return stands, failed(ctx, "waiting for the shield's container", err)
	}
	said, complaint, err := e.printed(ctx, made.ID)
	switch {
	case err != nil:
		return stands, err
	case code != 0:
		return stands, fmt.Errorf("the shield's container ended with exit code %d: %.300s", code, strings.TrimSpace(complaint))
	}
	if err := json.Unmarshal(said, &stands); err != nil {
		return stands, fmt.Errorf("reading what the shield's container said: %w", err)
	}
	return stands, nil
}

func (b borrowedHands) limits() *container.HostConfig {
	host := &container.HostConfig{
		Runtime: runtimeName, NetworkMode: "host", IpcMode: container.IPCModePrivate,
		CapDrop: []string{"ALL"}, CapAdd: []string{"NET_ADMIN"},
		SecurityOpt: []string{"no-new-privileges:true"}, ReadonlyRootfs: true,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		LogConfig:     container.LogConfig{Type: "local"},
		Resources:     container.Resources{Memory: shieldMemory, MemorySwap: shieldMemory, PidsLimit: new(int64(shieldPids))},
	}
	if b.remapped { // a mapped root has no say in the host's network
		host.UsernsMode = "host"
	}
	return host
}

// printed is what a container of ours that has ended has written to its output and to its error output.
func (e *Engine) printed(ctx context.Context, containerID string) ([]byte, string, error) {
	stream, err := e.api().ContainerLogs(ctx, containerID, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return nil, "", failed(ctx, "reading what the shield's container said", err)
	}
	defer stream.Close()
	var said, complaint bytes.Buffer
	if _, err := stdcopy.StdCopy(&said, &complaint, io.LimitReader(stream, maxStanding)); err != nil {
		return nil, "", failed(ctx, "reading what the shield's container said", err)
	}
	return said.Bytes(), complaint.String(), nil
}

// image makes sure that the engine has the program's image and returns its id. It is known by its content: an image of
// that name which holds anything else is not run.
func (b borrowedHands) image(ctx context.Context) (string, error) {
	program, err := readProgram(b.program)
	if err != nil {
		return "", err
	}
	layer, err := archive(time.Time{}, file{strings.TrimPrefix(shieldPath, "/"), 0o555, program})
	if err != nil {
		return "", err
	}
	content := "sha256:" + sha256Text(layer)
	name := shieldName + ":" + content[len("sha256:"):][:16]
	id, err := b.find(ctx, name, content)
	if err == nil || !cerrdefs.IsNotFound(err) {
		return id, err
	}
	if err := b.load(ctx, name, content, layer); err != nil {
		return "", err
	}
	return b.find(ctx, name, content)
}

// find looks for the image of that name and content.
func (b borrowedHands) find(ctx context.Context, name, content string) (string, error) {
	there, err := b.engine.api().ImageInspect(ctx, name)
	switch {
	case cerrdefs.IsNotFound(err):
		return "", err
	case err != nil:
		return "", failed(ctx, "looking for the shield's image", err)
	case !slices.Equal(there.RootFS.Layers, []string{content}):
		return "", fmt.Errorf("the image %s is not the one this agent has made", name)
	}
	return there.ID, nil
}

// load hands the image to the engine; nothing is pulled.
func (b borrowedHands) load(ctx context.Context, name, content string, layer []byte) error {
	known, err := b.engine.knownFacts(ctx)
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": known.Architecture, "os": "linux", "created": time.Unix(0, 0).UTC(),
		"config": map[string]any{"Entrypoint": []string{shieldPath}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{content}},
	})
	if err != nil {
		return fmt.Errorf("describing the shield's image: %w", err)
	}
	configName := sha256Text(config) + ".json"
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return fmt.Errorf("describing the shield's image: %w", err)
	}
	image, err := archive(time.Unix(0, 0), file{configName, 0o444, config}, file{"layer.tar", 0o444, layer}, file{"manifest.json", 0o444, manifest})
	if err != nil {
		return err
	}
	said, err := b.engine.api().ImageLoad(ctx, bytes.NewReader(image))
	if err != nil {
		return failed(ctx, "loading the shield's image", err)
	}
	defer said.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(said.Body, maxStanding)); err != nil {
		return failed(ctx, "loading the shield's image", err)
	}
	return nil
}

func readProgram(name string) ([]byte, error) {
	opened, err := os.Open(name)
	if err != nil {
		return nil, errNoProgram
	}
	defer opened.Close()
	program, err := io.ReadAll(io.LimitReader(opened, largestProgram+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading distributed-agent-shield: %w", err)
	case len(program) > largestProgram:
		return nil, errors.New("what is in the place of distributed-agent-shield is too large to be it")
	case !bytes.HasPrefix(program, []byte("\x7fELF")):
		return nil, errors.New("what is in the place of distributed-agent-shield is no program for Linux")
	}
	return program, nil
}

// file is one of an archive.
type file struct {
	name    string
	mode    int64
	content []byte
}

func archive(at time.Time, files ...file) ([]byte, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.content)), ModTime: at}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("packing the shield's image: %w", err)
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, fmt.Errorf("packing the shield's image: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("packing the shield's image: %w", err)
	}
	return packed.Bytes(), nil
}

func sha256Text(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
