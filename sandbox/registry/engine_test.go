package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/sandbox/engine"
)

func TestMain(m *testing.M) { os.Exit(engine.Isolated(m.Run)) }

// TestDockerEnginePulls has a real engine pull: it, not our own client, decides what a registry has to do.
func TestDockerEnginePulls(t *testing.T) {
	docker, err := engine.Start(t.Context(), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := docker.Stop(); err != nil {
			t.Error(err)
		}
	})
	r := start(t)
	r.Protect("team/secret", "ada", "lovelace")
	public, _ := push(t, r, "team/open:1", 400_000)
	private, _ := push(t, r, "team/secret:1", 100)
	r.LimitRate(2_000_000)

	for _, tt := range []struct {
		name, ref, username, password string
		wantProgress                  bool
		wantErr                       string // "": success
	}{
		{name: "public", ref: public, wantProgress: true},
		{name: "private with login", ref: private, username: "ada", password: "lovelace"},
		{name: "private with wrong password", ref: private, username: "ada", password: "byron", wantErr: "unauthorized"},
		{name: "private without login", ref: private, wantErr: "unauthorized"},
		{name: "not there", ref: r.Addr() + "/team/nothing:1", wantErr: "not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			progress, err := enginePull(t.Context(), docker.Host(), tt.ref, tt.username, tt.password)
			if tt.wantErr == "" && err != nil || tt.wantErr != "" && (err == nil || !strings.Contains(strings.ToLower(err.Error()), tt.wantErr)) {
				t.Errorf("pulling: %v, want %q", err, tt.wantErr)
			}
			if tt.wantProgress && progress < 3 {
				t.Errorf("progress was told %d times, want to see it move", progress)
			}
		})
	}
}

// enginePull asks an engine to pull, and counts how often it told of bytes that had come.
func enginePull(ctx context.Context, host, ref, username, password string) (progress int, err error) {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(host, "unix://"))
		},
		DisableKeepAlives: true,
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker/images/create?fromImage="+url.QueryEscape(ref), nil)
	if err != nil {
		return 0, err
	}
	if username != "" {
		auth, err := json.Marshal(map[string]string{"username": username, "password": password})
		if err != nil {
			return 0, err
		}
		request.Header.Set("X-Registry-Auth", base64.URLEncoding.EncodeToString(auth))
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		return 0, fmt.Errorf("%s: %s", response.Status, body)
	}
	for lines := json.NewDecoder(response.Body); ; {
		var line struct {
			Status         string
			Error          string
			ProgressDetail struct{ Current int64 }
		}
		switch err := lines.Decode(&line); {
		case errors.Is(err, io.EOF):
			return progress, nil
		case err != nil:
			return progress, err
		case line.Error != "":
			return progress, errors.New(line.Error)
		case line.Status == "Downloading" && line.ProgressDetail.Current > 0:
			progress++
		}
	}
}
