package registry

import (
	"io"
	"net/http"
	"strings"
	"time"

	upstream "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// resumed answers requests for a part of a blob. Engines go on with an interrupted download by
// "bytes=N-", which the upstream registry does not understand.
func resumed(blobs upstream.BlobHandler, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !isDownload(req) || req.Header.Get("Range") == "" {
			next.ServeHTTP(w, req)
			return
		}
		content, err := open(req, blobs)
		if err != nil {
			next.ServeHTTP(w, req) // it knows how to refuse
			return
		}
		defer content.Close()
		seeker, ok := content.(io.ReadSeeker)
		if !ok {
			next.ServeHTTP(w, req)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, req, "", time.Time{}, seeker)
	})
}

// isDownload tells a download of a blob from all else.
func isDownload(req *http.Request) bool {
	return req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/sha256:")
}

func open(req *http.Request, blobs upstream.BlobHandler) (io.ReadCloser, error) {
	_, digest, _ := strings.Cut(req.URL.Path, "/blobs/")
	hash, err := v1.NewHash(digest)
	if err != nil {
		return nil, err
	}
	return blobs.Get(req.Context(), repositoryOf(req.URL.Path), hash)
}
