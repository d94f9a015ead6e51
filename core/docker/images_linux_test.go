package docker_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/secret"
)

// engineThatKeeps is one of the shared daemon with a state directory of its own.
func engineThatKeeps(t *testing.T, options docker.ImageOptions) *docker.Engine {
	t.Helper()
	if options.StateDir == "" {
		options.StateDir = t.TempDir()
	}
	return engineWith(t, docker.Options{Host: daemon.Host(), OwnerKey: []byte(ownerKey), Images: options})
}

// present reports whether the daemon has an image.
func present(t *testing.T, id string) bool {
	t.Helper()
	return slices.Contains(strings.Fields(cli(t, "images", "--all", "--quiet", "--no-trunc")), id)
}

// references are those of the images an engine lists, used last first.
func references(t *testing.T, e *docker.Engine) []string {
	t.Helper()
	cache, err := e.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, image := range cache.Images {
		refs = append(refs, strings.TrimPrefix(image.Reference, store.Addr()+"/"))
	}
	return refs
}

func tend(t *testing.T, e *docker.Engine) {
	t.Helper()
	if err := e.TendImages(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestPrivateImageGoesWithItsRental(t *testing.T) {
	e := engineThatKeeps(t, docker.ImageOptions{})
	s := spec("private-goes")
	s.Image = pushed(t, "private-goes", "PRIVATE=1")
	store.Protect("private-goes", "renter", "correct horse")
	pulled, err := e.Pull(t.Context(), s.Image, &rental.RegistryAuth{Username: "renter", Password: secret.New("correct horse")}, ignore)
	if err != nil {
		t.Fatal(err)
	}
	tend(t, e)
	if !present(t, pulled.ID) {
		t.Fatal("the image was removed on its way to its container")
	}
	if _, err := e.Create(t.Context(), s, pulled); err != nil {
		t.Fatal(err)
	}
	tend(t, e)
	cache, err := e.Images(t.Context())
	if err != nil || len(cache.Images) != 1 || !cache.Images[0].InUse || !cache.Images[0].Private || cache.Images[0].Digest != pulled.Digest {
		t.Errorf("images: %+v, %v", cache, err)
	}
	if err := e.Remove(t.Context(), s.ID, ""); err != nil {
		t.Fatal(err)
	}
	tend(t, e)
	if present(t, pulled.ID) || len(references(t, e)) > 0 {
		t.Error("the private image has outlived its rental")
	}
}

func TestCacheKeepsToItsCap(t *testing.T) {
	host := pull(t, newEngine(t), pushed(t, "cap-hosts", "CAP=hosts")) // nobody remembers that it was pulled for a rental
	named := store.Addr() + "/cap-kept"
	e := engineThatKeeps(t, docker.ImageOptions{CacheBytes: 1, Keep: []string{named}})
	kept := pull(t, e, pushed(t, "cap-kept", "CAP=kept"))
	old := pull(t, e, pushed(t, "cap-old", "CAP=old"))
	tagged := pull(t, e, pushed(t, "cap-tagged", "CAP=tagged"))
	cli(t, "tag", tagged.ID, "owners-own:1")
	t.Cleanup(func() { cli(t, "rmi", "owners-own:1") })
	used := spec("cap-used")
	used.Image = pushed(t, "cap-used", "CAP=used")
	create(t, e, used)
	e.Unhold()
	tend(t, e)
	for name, want := range map[string]struct {
		id    string
		there bool
	}{"kept": {kept.ID, true}, "old": {old.ID, false}, "named by the owner": {tagged.ID, true}, "not the agent's": {host.ID, true}} {
		if got := present(t, want.id); got != want.there {
			t.Errorf("the image that is %s is there: %t", name, got)
		}
	}
	if got := references(t, e); !slices.Equal(got, []string{"cap-used:1", "cap-kept:1"}) {
		t.Errorf("images: %q", got)
	}
}

func TestImagesUsedLastStay(t *testing.T) {
	state := t.TempDir()
	e := engineThatKeeps(t, docker.ImageOptions{StateDir: state})
	var ids []string
	refs := []string{grown(t, "lru-a", 601, 64<<10), grown(t, "lru-b", 602, 64<<10), grown(t, "lru-c", 603, 64<<10)}
	for _, ref := range append(refs, refs[0]) { // the first is used again
		ids = append(ids, pull(t, e, ref).ID)
	}
	tend(t, e) // which notes it on disk
	cache, err := e.Images(t.Context())
	if err != nil || len(cache.Images) != 3 {
		t.Fatalf("images: %+v, %v", cache, err)
	}
	size := cache.Images[0].SizeBytes
	e = engineThatKeeps(t, docker.ImageOptions{StateDir: state, CacheBytes: 2 * size}) // as after a restart
	if got := references(t, e); !slices.Equal(got, []string{"lru-a:1", "lru-c:1", "lru-b:1"}) {
		t.Errorf("after a restart: %q", got)
	}
	tend(t, e)
	if !present(t, ids[1]) {
		t.Error("a restart has lost the hold on an image without a container yet")
	}
	e.Unhold()
	tend(t, e)
	if !present(t, ids[0]) || present(t, ids[1]) || !present(t, ids[2]) {
		t.Errorf("left of the images: %q", references(t, e))
	}
	cli(t, "rmi", ids[2]) // by its owner, while nobody looked
	if got := references(t, e); !slices.Equal(got, []string{"lru-a:1"}) {
		t.Errorf("after the owner has removed one: %q", got)
	}
	if err := os.WriteFile(filepath.Join(state, "images.json"), []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	e = engineThatKeeps(t, docker.ImageOptions{StateDir: state, CacheBytes: 1})
	tend(t, e)
	if !present(t, ids[0]) {
		t.Error("an image was removed that nothing says is the agent's")
	}
}

func TestPruneImages(t *testing.T) {
	kept := store.Addr() + "/prune-kept:1"
	e := engineThatKeeps(t, docker.ImageOptions{Keep: []string{kept}})
	pull(t, e, pushed(t, "prune-kept", "PRUNE=kept"))
	gone := pull(t, e, grown(t, "prune-gone", 700, 2<<20))
	used := spec("prune-used")
	used.Image = pushed(t, "prune-used", "PRUNE=used")
	create(t, e, used)
	e.Unhold()
	pruned, err := e.PruneImages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(pruned.Images) != 1 || pruned.Images[0].Digest != gone.Digest || pruned.FreedBytes < 2<<20 || present(t, gone.ID) {
		t.Errorf("pruned %+v", pruned)
	}
	if got := references(t, e); !slices.Equal(got, []string{"prune-used:1", "prune-kept:1"}) {
		t.Errorf("left: %q", got)
	}
}

func TestImageIsWeighedBeforeItIsPulled(t *testing.T) {
	const reserve = 100 << 20
	e := engineThatKeeps(t, docker.ImageOptions{Reserve: reserve})
	workload := pull(t, newEngine(t), image) // its layers are there, and need no room
	first := pull(t, e, grown(t, "weigh-first", 801, 64<<10))
	e.Unhold()
	large := grown(t, "weigh-large", 802, 2<<20)
	asked := store.Count("GET /v2/weigh-large/blobs/")
	e.SetFree(func() int64 { return reserve + 1<<20 })
	_, err := e.Pull(t.Context(), large, nil, ignore)
	wantFailure(t, err, rental.CodeImageTooLarge)
	if err == nil || !strings.Contains(err.Error(), "about 6.") && !strings.Contains(err.Error(), "about 7.") || !strings.Contains(err.Error(), "has 1.0 MiB for it") {
		t.Errorf("the sentence names no two sizes: %v", err)
	}
	if store.Count("GET /v2/weigh-large/blobs/") > asked+1 { // the configuration names the layers
		t.Error("layers were downloaded for an image that has no room")
	}
	if present(t, first.ID) {
		t.Error("no room was made")
	}

	e.SetFree(func() int64 { return reserve + 20<<20 })
	pull(t, e, large)

	e = engineThatKeeps(t, docker.ImageOptions{Reserve: reserve})
	making := pull(t, e, grown(t, "weigh-making", 803, 64<<10))
	e.Unhold()
	e.SetFree(func() int64 {
		if present(t, making.ID) {
			return reserve
		}
		return reserve + 100<<20
	})
	pull(t, e, grown(t, "weigh-fits", 804, 2<<20))
	if present(t, making.ID) || !present(t, workload.ID) {
		t.Error("room was made in another way than by the agent's own image")
	}
}

func TestMirror(t *testing.T) {
	e := engineThatKeeps(t, docker.ImageOptions{Mirror: store.Addr()})
	e.SetRetry(time.Millisecond)
	built := pushed(t, "library/mirrored", "MIRRORED=1") // Docker Hub itself cannot be reached from here
	got := pull(t, e, "mirrored:1")
	if want := pull(t, newEngine(t), built); got != want {
		t.Errorf("from the mirror %+v, want %+v", got, want)
	}
	if got := references(t, e); !slices.Equal(got, []string{"docker.io/library/mirrored:1"}) {
		t.Errorf("images: %q", got)
	}
	before := store.Count("/library/mirrored/")
	_, err := e.Pull(t.Context(), "mirrored:1", &rental.RegistryAuth{Username: "renter", Password: secret.New("theirs")}, ignore)
	wantFailure(t, err, rental.CodePullFailed)
	if store.Count("/library/mirrored/") != before {
		t.Error("the mirror was asked for an image that was ordered with credentials")
	}
}

func TestOwnersListsHoldForPulls(t *testing.T) {
	e := engineThatKeeps(t, docker.ImageOptions{Registries: rental.Registries{Deny: []string{store.Addr() + "/denied"}}})
	ref := pushed(t, "denied/image")
	before := store.Count("/v2/denied/image/")
	_, err := e.Pull(t.Context(), ref, nil, ignore)
	wantFailure(t, err, rental.CodeImageForbidden)
	if store.Count("/v2/denied/image/") != before {
		t.Error("the registry was asked all the same")
	}
}

// TestRegistryThatLeadsAstray has a registry send the agent on to where it must not go.
func TestRegistryThatLeadsAstray(t *testing.T) {
	for _, to := range []string{
		"https://169.254.169.254/latest", "https://192.168.1.1/", "https://[fd00::1]/", "https://[::ffff:10.0.0.1]:5000/v2",
		"http://1.1.1.1/", "http://169.254.169.254/latest",
	} {
		t.Run(to, func(t *testing.T) {
			astray := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v2/" {
					http.Redirect(w, r, to, http.StatusTemporaryRedirect)
				}
			}))
			defer astray.Close()
			e := newEngine(t)
			e.SetRetry(time.Millisecond)
			_, err := e.Pull(t.Context(), strings.TrimPrefix(astray.URL, "http://")+"/a:1", nil, ignore)
			wantFailure(t, err, rental.CodePullFailed)
		})
	}
}

func TestManifestIsBounded(t *testing.T) {
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusMethodNotAllowed)
		default:
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			for chunk := []byte(strings.Repeat(" ", 1<<20)); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}
	}))
	defer endless.Close()
	_, err := newEngine(t).Pull(t.Context(), strings.TrimPrefix(endless.URL, "http://")+"/a:1", nil, ignore)
	wantFailure(t, err, rental.CodePullFailed)
	if err == nil || !strings.Contains(err.Error(), "more than 4 MiB") {
		t.Errorf("error %v", err)
	}
}
