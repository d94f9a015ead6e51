//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/sandbox/market"
)

const (
	decoyCount = 5
	decoyText  = "the owner's own"
)

// decoy is one thing on the engine that is not the agent's.
type decoy struct {
	kind, name string
	path       string // where the engine tells of it
	file       string // on this machine, which holds decoyText; "": none
	pid        int    // of a container's program; its file is to be found by it
	before     string
}

// setDecoys puts things of the owner's on the engine: five of each kind. One of each carries the labels of a rental that
// runs, and one container has a name like those of rentals.
func (p *place) setDecoys(ctx context.Context) ([]*decoy, error) {
	_, running, err := p.rent(ctx, market.Rent{ID: "pattern", CPUs: 0.1, RAMBytes: 64 << 20, DiskBytes: 32 << 20})
	if err != nil {
		return nil, err
	}
	pattern, err := p.docker.inspect(ctx, running.ContainerID)
	if err != nil {
		return nil, err
	}
	var network struct{ Labels map[string]string }
	if err := p.docker.do(ctx, http.MethodGet, "/networks/"+pattern.HostConfig.NetworkMode, nil, &network); err != nil {
		return nil, err
	}
	made, failures := make([][]*decoy, decoyCount), make([]error, decoyCount)
	var making sync.WaitGroup
	for i := range decoyCount {
		name := fmt.Sprintf("decoy-%d", i)
		labels, netLabels, containerName := map[string]string{"owner": "me"}, map[string]string{"owner": "me"}, name
		switch i {
		case 0:
			labels, netLabels = pattern.Config.Labels, network.Labels
		case 1: // like a rental's, as far as the end
			containerName = strings.TrimPrefix(pattern.Name, "/") + "-2"
		}
		making.Go(func() { made[i], failures[i] = p.decoysOf(ctx, name, containerName, labels, netLabels) })
	}
	making.Wait()
	if err := errors.Join(failures...); err != nil {
		return nil, fmt.Errorf("setting decoys: %w", err)
	}
	decoys := slices.Concat(made...)
	if err := p.end(ctx, "pattern"); err != nil {
		return nil, err
	}
	for _, d := range decoys {
		if d.before, err = p.stateOf(ctx, d); err != nil {
			return nil, err
		}
	}
	return decoys, nil
}

// decoysOf makes one of each kind.
func (p *place) decoysOf(ctx context.Context, name, containerName string, labels, netLabels map[string]string) ([]*decoy, error) {
	layer, err := p.decoyLayer(name)
	if err != nil {
		return nil, err
	}
	query := url.Values{"fromSrc": {"-"}, "repo": {"owners/" + name}, "tag": {"1"}, "changes": {`ENTRYPOINT ["/guest"]`}}
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		query.Add("changes", fmt.Sprintf("LABEL %q=%q", label, labels[label]))
	}
	if err := p.docker.do(ctx, http.MethodPost, "/images/create?"+query.Encode(), layer, nil); err != nil {
		return nil, err
	}
	if err := p.docker.do(ctx, http.MethodPost, "/networks/create", map[string]any{"Name": name, "Labels": netLabels}, nil); err != nil {
		return nil, err
	}
	var volume struct{ Mountpoint string }
	if err := p.docker.do(ctx, http.MethodPost, "/volumes/create", map[string]any{"Name": name, "Labels": labels}, &volume); err != nil {
		return nil, err
	}
	file := filepath.Join(volume.Mountpoint, "file")
	if err := os.WriteFile(file, []byte(decoyText), 0o600); err != nil {
		return nil, err
	}
	var container made
	if err := p.docker.do(ctx, http.MethodPost, "/containers/create?name="+containerName, map[string]any{
		"Image": "owners/" + name + ":1", "Labels": labels, "Cmd": []string{"-write", "/file", "-text", decoyText},
		"HostConfig": map[string]any{"NetworkMode": name, "Binds": []string{name + ":/volume"}},
	}, &container); err != nil {
		return nil, err
	}
	if err := p.docker.do(ctx, http.MethodPost, "/containers/"+container.ID+"/start", nil, nil); err != nil {
		return nil, err
	}
	there, err := p.docker.inspect(ctx, container.ID)
	if err != nil {
		return nil, err
	}
	return []*decoy{
		{kind: "container", name: containerName, path: "/containers/" + container.ID + "/json", file: fmt.Sprintf("/proc/%d/root/file", there.State.Pid), pid: there.State.Pid},
		{kind: "network", name: name, path: "/networks/" + name},
		{kind: "volume", name: name, path: "/volumes/" + name, file: file},
		{kind: "image", name: name, path: "/images/owners/" + name + ":1/json"},
	}, nil
}

// decoyLayer is an image's only one, the same for no two images.
func (p *place) decoyLayer(name string) (*bytes.Reader, error) {
	guest, err := os.ReadFile(p.guest)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	for _, file := range []struct {
		name string
		text []byte
	}{{"guest", guest}, {"name", []byte(name)}} {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file.name, Mode: 0o755, Size: int64(len(file.text))}); err != nil {
			return nil, err
		}
		if _, err := archive.Write(file.text); err != nil {
			return nil, err
		}
	}
	return bytes.NewReader(layer.Bytes()), archive.Close()
}

// stateOf is all that can be told of a decoy: what the engine says, when its program was started, and what is in its file.
func (p *place) stateOf(ctx context.Context, d *decoy) (string, error) {
	var said any
	if err := p.docker.do(ctx, http.MethodGet, d.path, nil, &said); err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(pruned(said), "", " ")
	if err != nil {
		return "", err
	}
	state := string(text)
	if d.pid != 0 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.pid))
		if err != nil {
			return "", err
		}
		fields := strings.Fields(string(stat))
		state += "\nstarted at tick " + fields[21]
	}
	if d.file != "" {
		content, err := os.ReadFile(d.file)
		if err != nil {
			return "", err
		}
		info, err := os.Stat(d.file)
		if err != nil {
			return "", err
		}
		state += fmt.Sprintf("\n%s, %s: %s", info.Mode(), info.ModTime(), content)
	}
	return state, nil
}

// pruned leaves out what is empty: an engine that has been restarted writes an empty list for none.
func pruned(said any) any {
	switch value := said.(type) {
	case map[string]any:
		for name, part := range value {
			if value[name] = pruned(part); value[name] == nil {
				delete(value, name)
			}
		}
		if len(value) == 0 {
			return nil
		}
	case []any:
		for i, part := range value {
			value[i] = pruned(part)
		}
		if len(value) == 0 {
			return nil
		}
	}
	return said
}

// decoysTouched compares the decoys with what they were.
func (p *place) decoysTouched(ctx context.Context, decoys []*decoy) (verdict, error) {
	v := verdict{name: "decoys touched", of: len(decoys)}
	for _, d := range decoys {
		after, err := p.stateOf(ctx, d)
		if err != nil {
			v.got++
			v.fail("%s %s: %v", d.kind, d.name, err)
			continue
		}
		if diff := cmp.Diff(d.before, after); diff != "" {
			v.got++
			v.fail("%s %s differs (-before +after):\n%s", d.kind, d.name, diff)
		}
	}
	return v, nil
}
