package registry

import (
	"net/http"
	"strings"
)

// Fault is what goes wrong with requests for one repository. Registries of the real world do each of these.
type Fault struct {
	Part       string // "manifests" or "blobs"; "": both
	Times      int    // how many requests it befalls; 0: all
	Status     int    // the answer instead of the right one; 0: the right one, spoilt as below
	RetryAfter string // header of that answer; "": none
	Stall      bool   // the answer stops in the middle and the connection stays open
	Cut        bool   // the answer stops in the middle and the connection ends
	Corrupt    bool   // a byte of the answer is another
}

// Break has requests for a repository go wrong in this way, and in no other, from now on.
func (r *Registry) Break(repository string, fault Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.faults == nil {
		r.faults = make(map[string]*Fault)
	}
	r.faults[repository] = &fault
}

// Mend has requests for a repository go right again.
func (r *Registry) Mend(repository string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.faults, repository)
}

// befalling is the fault that a request meets, which it uses up; nil: none.
func (r *Registry) befalling(req *http.Request) *Fault {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return nil
	}
	repository := repositoryOf(req.URL.Path)
	r.mu.Lock()
	defer r.mu.Unlock()
	fault, ok := r.faults[repository]
	if !ok || repository == "" || fault.Part != "" && !strings.Contains(req.URL.Path, "/"+fault.Part+"/") {
		return nil
	}
	now := *fault
	if fault.Times > 0 {
		if fault.Times--; fault.Times == 0 {
			delete(r.faults, repository)
		}
	}
	return &now
}

// broken lets the faults that were set befall requests.
func (r *Registry) broken(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		fault := r.befalling(req)
		switch {
		case fault == nil:
			next.ServeHTTP(w, req)
		case fault.Status != 0:
			if fault.RetryAfter != "" {
				w.Header().Set("Retry-After", fault.RetryAfter)
			}
			// Not JSON: proxies before registries answer so, too.
			http.Error(w, "the sandbox says "+http.StatusText(fault.Status), fault.Status)
		default:
			next.ServeHTTP(&spoilt{ResponseWriter: w, req: req, fault: fault}, req)
		}
	})
}

// goodBytes of an answer come before it is spoilt.
const goodBytes = 64

// spoilt spoils the body of an answer.
type spoilt struct {
	http.ResponseWriter
	req   *http.Request
	fault *Fault
	sent  int
}

// Unwrap lets a http.ResponseController find the connection.
func (w *spoilt) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *spoilt) Write(p []byte) (int, error) {
	before := w.sent
	w.sent += len(p)
	switch {
	case w.sent <= goodBytes:
		return w.ResponseWriter.Write(p)
	case w.fault.Corrupt:
		other := append([]byte(nil), p...)
		if at := goodBytes - before; at >= 0 {
			other[min(at, len(other)-1)] ^= 1
		}
		return w.ResponseWriter.Write(other)
	}
	n, err := w.ResponseWriter.Write(p[:max(0, goodBytes-before)])
	_ = http.NewResponseController(w.ResponseWriter).Flush()
	if err == nil && w.fault.Stall {
		<-w.req.Context().Done() // the server's end ends it, too
	}
	if err == nil {
		panic(http.ErrAbortHandler)
	}
	return n, err
}
