package docker_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/distributedcompute/host-agent/core/rental"
)

// reachable are the calls that a rental's program may make, of all that the workload tries, with what the kernel has to say to
// arguments that are not meant to do anything. Every other answer is EPERM, but for clone3, which is said to be missing.
var reachable = map[string]string{
	"getpid": "ok", "gettid": "ok", "epoll_create1": "EINVAL", "process_vm_readv": "ok",
	"unix socket": "ok", "internet socket": "ok", "IPv6 socket": "ok", "route socket": "ok", "a child": "ok",
}

func TestSystemCallsOfARental(t *testing.T) {
	e := newEngine(t)
	var got map[string]string
	if err := json.Unmarshal(visit(t, rent(t, e, spec("calls")), "/calls"), &got); err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for name := range got {
		want[name] = "EPERM"
	}
	for name, answer := range reachable {
		want[name] = answer
	}
	want["clone3"] = "ENOSYS"
	if diff := cmp.Diff(want, got); diff != "" || len(got) < 40 {
		t.Errorf("answers to %d calls (-want +got):\n%s", len(got), diff)
	}
	t.Logf("%d calls refused, %d answered", len(got)-len(reachable), len(reachable))
}

// What an image asks for is looked at as soon as it is here. An agent of before may have let it pass, so that it is looked
// at again when the container is made, is tested on plans.
func TestHostileImagesMakeNoContainer(t *testing.T) {
	e := newEngine(t)
	before := cli(t, "ps", "-aq") + cli(t, "volume", "ls", "-q")
	for name, change := range map[string]func(*imageConfig){
		"workdir-fd":   func(c *imageConfig) { c.WorkingDir = "/proc/self/fd/8" },
		"workdir-dots": func(c *imageConfig) { c.WorkingDir = "srv/../../dev/fd" },
		"volume-proc":  func(c *imageConfig) { c.Volumes = map[string]struct{}{"/proc/x": {}} },
		"volumes-many": func(c *imageConfig) {
			c.Volumes = make(map[string]struct{})
			for i := range 33 {
				c.Volumes[fmt.Sprintf("/v/%d", i)] = struct{}{}
			}
		},
	} {
		s := spec(rental.ID(name))
		s.Image = pushedWith(t, name, change)
		_, err := e.Pull(t.Context(), s.Image, nil, func(rental.Progress) {})
		wantFailure(t, err, rental.CodeImageForbidden)
	}
	if after := cli(t, "ps", "-aq") + cli(t, "volume", "ls", "-q"); after != before {
		t.Errorf("containers and volumes went from %q to %q", before, after)
	}
}

// What an image has in the places of ours does not become the container's.
func TestImagesCannotSpeakForUs(t *testing.T) {
	e := newEngine(t)
	s := spec("speaks")
	s.Image = pushedWith(t, "speaks", func(c *imageConfig) {
		c.Labels = map[string]string{
			"distributedcompute.rental": "other", "distributedcompute.owner": strings.Repeat("a", 64), "distributedcompute.managed": "0",
			"distributedcompute.anything": "x", "title": "kept",
		}
		c.Healthcheck = &v1.HealthConfig{Test: []string{"CMD", "/guest", "-exit=0"}}
		c.OnBuild = []string{"RUN evil"}
		c.WorkingDir = "/work/here"
	})
	c := rent(t, e, s)
	var config struct {
		Labels      map[string]string
		OnBuild     []string
		Healthcheck struct{ Test []string }
		WorkingDir  string
	}
	if err := json.Unmarshal([]byte(cli(t, "inspect", "-f", "{{json .Config}}", c.ID)), &config); err != nil {
		t.Fatal(err)
	}
	if l := config.Labels; l["distributedcompute.rental"] != "speaks" || l["distributedcompute.managed"] != "1" ||
		l["distributedcompute.anything"] != "" || l["title"] != "kept" {
		t.Errorf("labels %v", l)
	}
	if !slices.Equal(config.Healthcheck.Test, []string{"NONE"}) || config.WorkingDir != "/work/here" {
		t.Errorf("configuration %+v", config)
	}
	if holdings, err := e.Holdings(t.Context()); err != nil ||
		!slices.ContainsFunc(holdings, func(h rental.Holding) bool { return h.ID == "speaks" && h.ContainerID == c.ID }) {
		t.Errorf("holdings %v, %v", holdings, err)
	}
}
