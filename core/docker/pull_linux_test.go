package docker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/sandbox/registry"
)

func ignore(rental.Progress) {}

func TestPullTellsHowFarItIs(t *testing.T) {
	e := newEngine(t)
	ref := grown(t, "progress", 100, 6<<20)
	store.LimitRate(4 << 20)
	t.Cleanup(func() { store.LimitRate(0) })
	var told []rental.Progress
	pulled, err := e.Pull(t.Context(), ref, nil, func(p rental.Progress) { told = append(told, p) })
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(pulled.ID, "sha256:") || !strings.HasPrefix(pulled.Digest, "sha256:") {
		t.Errorf("pulled %+v", pulled)
	}
	if len(told) < 3 {
		t.Fatalf("progress was told %d times in some 1.5 s: %+v", len(told), told)
	}
	for i := 1; i < len(told); i++ {
		if told[i].Phase != "pulling" || told[i].Current < told[i-1].Current {
			t.Errorf("progress went from %+v to %+v", told[i-1], told[i])
		}
	}
	if last := told[len(told)-1]; last.Current != last.Total || last.Total < 6<<20 {
		t.Errorf("progress ended at %+v", last)
	}
}

func TestCachedImageIsAskedForEachTime(t *testing.T) {
	e := newEngine(t)
	ref := pushed(t, "public")
	first := pull(t, e, ref)
	asked, loaded := store.Count("/v2/public/manifests/"), store.Count("/v2/public/blobs/")
	if again := pull(t, e, ref); again != first {
		t.Errorf("pulled %+v, before %+v", again, first)
	}
	if store.Count("/v2/public/manifests/") == asked {
		t.Error("a cached image was given without asking the registry")
	}
	if store.Count("/v2/public/blobs/") != loaded {
		t.Error("a cached image was downloaded again")
	}
}

func TestMovedTagIsDownloadedAnew(t *testing.T) {
	ref := pushed(t, "moved", "VERSION=1")
	first := pull(t, newEngine(t), ref)
	pushed(t, "moved", "VERSION=2")
	e := newEngine(t) // one that has not asked for the image yet
	second := pull(t, e, ref)
	if second.ID == first.ID || second.Digest == first.Digest {
		t.Errorf("pulled %+v again after the tag had moved", second)
	}
	if again := pull(t, e, ref); again != second {
		t.Errorf("pulled %+v, before %+v", again, second)
	}
}

func TestPrivateImageNeedsEachRentersOwnCredentials(t *testing.T) {
	e := newEngine(t)
	ref := pushed(t, "private")
	store.Protect("private", "renter", "correct horse")
	right := &rental.RegistryAuth{Username: "renter", Password: secret.New("correct horse")}
	wrong := &rental.RegistryAuth{Username: "renter", Password: secret.New("battery staple")}
	for name, auth := range map[string]*rental.RegistryAuth{"none": nil, "wrong": wrong} {
		t.Run("not cached, "+name, func(t *testing.T) {
			_, err := e.Pull(t.Context(), ref, auth, ignore)
			wantFailure(t, err, rental.CodeImageUnauthorized)
		})
	}
	first, err := e.Pull(t.Context(), ref, right, ignore)
	if err != nil {
		t.Fatal(err)
	}
	for name, auth := range map[string]*rental.RegistryAuth{"none": nil, "wrong": wrong} {
		t.Run("cached, "+name, func(t *testing.T) {
			_, err := e.Pull(t.Context(), ref, auth, ignore)
			wantFailure(t, err, rental.CodeImageUnauthorized)
		})
	}
	again, err := e.Pull(t.Context(), ref, right, ignore)
	if err != nil || again != first {
		t.Errorf("cached, right: %+v, %v; want %+v", again, err, first)
	}
}

func TestPullFailures(t *testing.T) {
	e := newEngine(t)
	e.SetRetry(10 * time.Millisecond)
	cli(t, "tag", pull(t, e, image).ID, store.Addr()+"/hosts-own:1") // on this host, but from no registry
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	proc := pushedWith(t, "proc", func(c *imageConfig) { c.WorkingDir = "/proc/self/fd/8" })
	for name, test := range map[string]struct {
		ref  string
		code rental.Code
	}{
		"no such repository":      {store.Addr() + "/missing:1", rental.CodeImageNotFound},
		"no such tag":             {store.Addr() + "/workload:2", rental.CodeImageNotFound},
		"no such digest":          {store.Addr() + "/workload@sha256:" + strings.Repeat("0", 64), rental.CodeImageNotFound},
		"not a reference":         {"NOT a reference", rental.CodeInvalid},
		"no registry there":       {closed.Addr().String() + "/workload:1", rental.CodePullFailed},
		"not from the registry":   {store.Addr() + "/hosts-own:1", rental.CodeImageNotFound},
		"works in a kernel's dir": {proc, rental.CodeImageForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e.Pull(t.Context(), test.ref, nil, ignore)
			wantFailure(t, err, test.code)
		})
	}
}

func TestPullByDigest(t *testing.T) {
	e := newEngine(t)
	tagged := pull(t, e, image)
	digested := pull(t, e, strings.TrimSuffix(image, ":1")+"@"+tagged.Digest)
	if digested != tagged {
		t.Errorf("by digest %+v, by tag %+v", digested, tagged)
	}
}

func TestStalledPullIsGivenUp(t *testing.T) {
	release := make(chan struct{})
	hung := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			<-release
		}
	}))
	defer hung.Close()
	defer close(release)
	e := newEngine(t)
	e.SetStall(300 * time.Millisecond)
	e.SetRetry(10 * time.Millisecond)
	began := time.Now()
	_, err := e.Pull(t.Context(), strings.TrimPrefix(hung.URL, "http://")+"/hung:1", nil, ignore)
	wantFailure(t, err, rental.CodePullFailed)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("giving up took %s", took)
	}
}

func TestRentalsShareADownload(t *testing.T) {
	e := newEngine(t)
	ref := grown(t, "shared", 200, 4<<20)
	before := len(store.Requests())
	store.LimitRate(3 << 20)
	t.Cleanup(func() { store.LimitRate(0) })
	leaving, leave := context.WithCancel(t.Context())
	defer leave()
	var pulls sync.WaitGroup
	errs := make([]error, 3)
	told := make([]int, 3)
	for i, ctx := range []context.Context{leaving, t.Context(), t.Context()} {
		pulls.Go(func() {
			_, errs[i] = e.Pull(ctx, ref, nil, func(rental.Progress) {
				if told[i]++; i == 0 {
					leave() // whoever came first may go; the others go on
				}
			})
		})
	}
	pulls.Wait()
	if !errors.Is(errs[0], context.Canceled) || errs[1] != nil || errs[2] != nil {
		t.Errorf("errors %v", errs)
	}
	if told[1] < 1 || told[2] < 1 {
		t.Errorf("progress was told %v times", told)
	}
	blobs := make(map[string]int)
	for _, request := range store.Requests()[before:] {
		if strings.HasPrefix(request, "GET /v2/shared/blobs/") {
			blobs[request]++
		}
	}
	for request, times := range blobs {
		if times > 1 {
			t.Errorf("%s was made %d times", request, times)
		}
	}
}

func TestLastToLeaveEndsTheDownload(t *testing.T) {
	e := newEngine(t)
	ref := grown(t, "left", 300, 4<<20)
	store.LimitRate(1 << 20)
	t.Cleanup(func() { store.LimitRate(0) })
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	returned := false
	_, err := e.Pull(ctx, ref, nil, func(rental.Progress) {
		if returned {
			t.Error("progress was told after Pull had returned")
		}
		leave()
	})
	returned = true
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Pull: %v", err)
	}
	if cli(t, "images", "-q", ref) != "" {
		t.Error("the download went on to its end")
	}
	store.LimitRate(0)
	pull(t, e, ref) // and can be begun anew
}

// TestRegistryTrouble has the registry itself fail: what it answers decides how the pull ends, not what the engine makes
// of it.
func TestRegistryTrouble(t *testing.T) {
	e := newEngine(t)
	e.SetRetry(10 * time.Millisecond)
	for i, tt := range []struct {
		name  string
		fault registry.Fault
		want  rental.Code // "": success
	}{
		{"forbidden", registry.Fault{Status: http.StatusForbidden}, rental.CodeImageUnauthorized},
		{"two answers of 503", registry.Fault{Status: http.StatusServiceUnavailable, Times: 2}, ""},
		{"always 500", registry.Fault{Status: http.StatusInternalServerError}, rental.CodePullFailed},
		{"limited for a while", registry.Fault{Status: http.StatusTooManyRequests, RetryAfter: "1", Times: 1}, ""},
		{"a layer is gone", registry.Fault{Part: "blobs", Status: http.StatusNotFound}, rental.CodePullFailed},
		{"a layer is corrupt", registry.Fault{Part: "blobs", Corrupt: true}, rental.CodePullFailed},
		{"a layer is corrupt once", registry.Fault{Part: "blobs", Corrupt: true, Times: 1}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := fmt.Sprintf("trouble-%d", i)
			ref := pushed(t, name, "TROUBLE="+name)
			store.Break(name, tt.fault)
			_, err := e.Pull(t.Context(), ref, nil, ignore)
			if tt.want != "" {
				wantFailure(t, err, tt.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRegistryLimitsLongerThanThePullMayTake(t *testing.T) {
	ref := pushed(t, "limited")
	store.Break("limited", registry.Fault{Status: http.StatusTooManyRequests, RetryAfter: "3600"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := newEngine(t).Pull(ctx, ref, nil, ignore)
	wantFailure(t, err, rental.CodePullFailed)
	if ctx.Err() != nil {
		t.Error("it waited to the end for what could not come in time")
	}
}

func TestStalledDownloadGoesOn(t *testing.T) {
	e := newEngine(t)
	e.SetStall(2 * time.Second)
	e.SetRetry(10 * time.Millisecond)
	ref := grown(t, "stalls", 400, 1<<20)
	store.Break("stalls", registry.Fault{Part: "blobs", Stall: true, Times: 3}) // all that the engine begins with
	pull(t, e, ref)
	e.SetStall(500 * time.Millisecond)
	store.Break("stalls", registry.Fault{Part: "blobs", Stall: true})
	_, err := e.Pull(t.Context(), grown(t, "stalls", 500, 1<<20), nil, ignore)
	wantFailure(t, err, rental.CodePullFailed)
}
