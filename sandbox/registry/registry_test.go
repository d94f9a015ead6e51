package registry

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func start(t *testing.T) *Registry {
	t.Helper()
	r, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func push(t *testing.T, r *Registry, image string, size int64) (ref string, img v1.Image) {
	t.Helper()
	img, err := random.Image(size, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref, err = r.Push(t.Context(), image, img)
	if err != nil {
		t.Fatal(err)
	}
	return ref, img
}

// pull reads an image with every layer, checking all digests.
func pull(t *testing.T, ref string, auth authn.Authenticator) error {
	t.Helper()
	tag, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(tag, remote.WithAuth(auth), remote.WithContext(t.Context()))
	if err != nil {
		return err
	}
	return validate.Image(img)
}

func TestPushedImageCanBePulled(t *testing.T) {
	r := start(t)
	ref, _ := push(t, r, "team/thing:1", 10_000)
	if want := r.Addr() + "/team/thing:1"; ref != want {
		t.Errorf("ref = %s, want %s", ref, want)
	}
	before := r.Count("GET /v2/team/thing/blobs/")
	if err := pull(t, ref, authn.Anonymous); err != nil {
		t.Fatal(err)
	}
	if got := r.Count("GET /v2/team/thing/blobs/") - before; got < 3 {
		t.Errorf("recorded %d blob requests, want a config and two layers at least", got)
	}
}

func TestProtect(t *testing.T) {
	r := start(t)
	r.Protect("team/secret", "ada", "lovelace")
	private, _ := push(t, r, "team/secret:1", 100)
	public, _ := push(t, r, "team/open:1", 100)
	for _, tt := range []struct {
		name, ref string
		auth      authn.Authenticator
		ok        bool
	}{
		{"private with login", private, &authn.Basic{Username: "ada", Password: "lovelace"}, true},
		{"private with wrong password", private, &authn.Basic{Username: "ada", Password: "byron"}, false},
		{"private without login", private, authn.Anonymous, false},
		{"public without login", public, authn.Anonymous, true},
		{"public with some login", public, &authn.Basic{Username: "ada", Password: "byron"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := pull(t, tt.ref, tt.auth); (err == nil) != tt.ok {
				t.Errorf("pulling: %v, want success %v", err, tt.ok)
			}
		})
	}
	t.Run("bare request", func(t *testing.T) {
		response, err := http.Get("http://" + r.Addr() + "/v2/team/secret/manifests/1")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized || response.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("answered %d with %v, want 401 and a challenge", response.StatusCode, response.Header)
		}
	})
}

// TestTokenByForm asks for a token as containerd's client does, and pulls with it.
func TestTokenByForm(t *testing.T) {
	r := start(t)
	r.Protect("team/secret", "ada", "lovelace")
	push(t, r, "team/secret:1", 100)
	for password, want := range map[string]int{"lovelace": http.StatusOK, "byron": http.StatusUnauthorized} {
		response, err := http.PostForm("http://"+r.Addr()+tokenPath, url.Values{
			"grant_type": {"password"}, "service": {"sandbox"}, "client_id": {"containerd-client"},
			"scope": {"repository:team/secret:pull"}, "username": {"ada"}, "password": {password},
		})
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			AccessToken string `json:"access_token"`
		}
		err = json.NewDecoder(response.Body).Decode(&answer)
		_ = response.Body.Close()
		if err != nil || answer.AccessToken == "" {
			t.Fatalf("password %s: answered %s without an access token: %v", password, response.Status, err)
		}
		header := http.Header{"Authorization": {"Bearer " + answer.AccessToken}}
		if got, _ := get(t, "http://"+r.Addr()+"/v2/team/secret/manifests/1", header); got.StatusCode != want {
			t.Errorf("password %s: the manifest was answered %s, want %d", password, got.Status, want)
		}
	}
}

// get fetches a page with its whole body.
func get(t *testing.T, address string, header http.Header) (*http.Response, []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, body
}

func TestDownloadsCanBeResumed(t *testing.T) {
	r := start(t)
	_, img := push(t, r, "team/thing:1", 10_000)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	blob := "http://" + r.Addr() + "/v2/team/thing/blobs/" + digest.String()
	_, whole := get(t, blob, nil)
	size := len(whole)
	for _, tt := range []struct {
		ask  string
		code int
		want []byte
	}{
		{"bytes=100-", http.StatusPartialContent, whole[100:]},
		{"bytes=0-99", http.StatusPartialContent, whole[:100]},
		{"bytes=-7", http.StatusPartialContent, whole[size-7:]},
		{"bytes=9999999-", http.StatusRequestedRangeNotSatisfiable, nil},
	} {
		response, got := get(t, blob, http.Header{"Range": {tt.ask}})
		if response.StatusCode != tt.code || tt.want != nil && !bytes.Equal(got, tt.want) {
			t.Errorf("%s: answered %s with %d bytes, want %d with %d", tt.ask, response.Status, len(got), tt.code, len(tt.want))
		}
	}
	r.Protect("team/thing", "ada", "lovelace")
	if response, _ := get(t, blob, http.Header{"Range": {"bytes=100-"}}); response.StatusCode != http.StatusUnauthorized {
		t.Errorf("a private blob's part was answered %s", response.Status)
	}
}

func TestLimitRate(t *testing.T) {
	r := start(t)
	ref, _ := push(t, r, "slow:1", 100_000)
	r.LimitRate(400_000)
	begin := time.Now()
	if err := pull(t, ref, authn.Anonymous); err != nil {
		t.Fatal(err)
	}
	// 200 kB, twice read by the check, less what the limiter lets through at once.
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("pulled in %v, too fast for the line", took)
	}
}

func TestBreak(t *testing.T) {
	r := start(t)
	_, img := push(t, r, "team/thing:1", 10_000)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	manifest := "http://" + r.Addr() + "/v2/team/thing/manifests/1"
	blob := "http://" + r.Addr() + "/v2/team/thing/blobs/" + digest.String()
	_, whole := get(t, blob, nil)

	r.Break("team/thing", Fault{Part: "manifests", Status: http.StatusTooManyRequests, RetryAfter: "7", Times: 1})
	if response, _ := get(t, blob, nil); response.StatusCode != http.StatusOK {
		t.Errorf("a blob was answered %s while manifests are limited", response.Status)
	}
	if response, _ := get(t, manifest, nil); response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") != "7" {
		t.Errorf("a manifest was answered %s, %v", response.Status, response.Header)
	}
	if response, _ := get(t, manifest, nil); response.StatusCode != http.StatusOK {
		t.Errorf("after the fault: %s", response.Status)
	}
	r.Break("team/thing", Fault{Corrupt: true})
	if _, body := get(t, blob, nil); len(body) != len(whole) || bytes.Equal(body, whole) {
		t.Errorf("a corrupt blob has %d bytes, of %d", len(body), len(whole))
	}
	r.Break("team/thing", Fault{Cut: true})
	response, err := http.Get(blob)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err == nil || len(body) == 0 || len(body) >= len(whole) {
		t.Errorf("a cut blob gave %d bytes, %v", len(body), err)
	}
	r.Mend("team/thing")
	if _, body := get(t, blob, nil); !bytes.Equal(body, whole) {
		t.Error("a mended registry gives another blob")
	}
}
