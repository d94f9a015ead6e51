package registry

import (
	"context"
	"net/http"

	"golang.org/x/time/rate"
)

// slice is how many bytes go out at once on a slow line: small enough for smooth progress.
const slice = 16 << 10

// slowed holds downloads of blobs to the rate that is set; uploads and manifests are not held.
func (r *Registry) slowed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if isDownload(req) {
			w = &slowWriter{ResponseWriter: w, ctx: req.Context(), registry: r}
		}
		next.ServeHTTP(w, req)
	})
}

type slowWriter struct {
	http.ResponseWriter
	ctx      context.Context
	registry *Registry
}

func (w *slowWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), slice)]
		if line := w.registry.currentLine(); line != nil {
			if err := line.WaitN(w.ctx, len(part)); err != nil {
				return written, err
			}
		}
		var n int
		n, err = w.ResponseWriter.Write(part)
		written += n
		p = p[n:]
		// The client is to see each slice now, not when the server's buffer is full.
		_ = http.NewResponseController(w.ResponseWriter).Flush()
	}
	return written, err
}

func (r *Registry) currentLine() *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.line
}
