// Package speedtest is a server for network speed tests on loopback. It answers the HTTP calls of
// Ookla's servers, which speed-test clients share: latency.txt, random{N}x{N}.jpg to download, and
// upload.php to post to.
package speedtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	folder  = "/speedtest/"
	maxSide = 4000 // pixels; the largest picture there is
)

// Server answers speed tests until Close.
type Server struct {
	http    *http.Server
	address string
	served  sync.WaitGroup
	block   []byte // random bytes, which no one on the way can compress
	down    atomic.Int64
	up      atomic.Int64
}

// Start listens on a free port of 127.0.0.1.
func Start(ctx context.Context) (*Server, error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for speed tests: %w", err)
	}
	s := &Server{address: listener.Addr().String(), block: make([]byte, 256<<10)}
	_, _ = rand.NewChaCha8([32]byte{}).Read(s.block) // never fails
	s.http = &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	s.served.Go(func() { _ = s.http.Serve(listener) })
	return s, nil
}

// Close ends running tests and the server.
func (s *Server) Close() error {
	err := s.http.Close()
	s.served.Wait()
	return err
}

// URL is the server's address the way clients are told it: that of upload.php.
func (s *Server) URL() string { return "http://" + s.address + folder + "upload.php" }

// Transferred is how many bytes clients have downloaded and uploaded so far.
func (s *Server) Transferred() (down, up int64) { return s.down.Load(), s.up.Load() }

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+folder+"latency.txt", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "test=test\n")
	})
	mux.HandleFunc("GET "+folder+"upload.php", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "size=500") // what older clients look for before they trust a server
	})
	mux.HandleFunc("POST "+folder+"upload.php", s.upload)
	mux.HandleFunc("GET "+folder+"{picture}", s.download)
	return mux
}

func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, countingReader{r.Body, &s.up})
	if err != nil {
		return // the client has given up; there is no one to answer
	}
	fmt.Fprintf(w, "size=%d", n)
}

func (s *Server) download(w http.ResponseWriter, r *http.Request) {
	side, err := sideOf(path.Base(r.URL.Path))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	left := 2 * side * side // about what such a picture takes
	w.Header().Set("Content-Type", "image/jpeg")
	w.Header().Set("Content-Length", strconv.Itoa(left))
	for left > 0 {
		n, err := w.Write(s.block[:min(left, len(s.block))])
		s.down.Add(int64(n))
		if err != nil {
			return
		}
		left -= n
	}
}

// sideOf reads the length of a picture's sides in pixels from "random350x350.jpg".
func sideOf(picture string) (int, error) {
	sides, ok := strings.CutPrefix(picture, "random")
	sides, ok2 := strings.CutSuffix(sides, ".jpg")
	width, height, ok3 := strings.Cut(sides, "x")
	side, err := strconv.Atoi(width)
	if !ok || !ok2 || !ok3 || err != nil || width != height || side < 1 || side > maxSide {
		return 0, errors.New("not the name of a picture")
	}
	return side, nil
}

// countingReader counts bytes as they come, so that a test that is cut off counts too.
type countingReader struct {
	io.Reader
	count *atomic.Int64
}

func (r countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.count.Add(int64(n))
	return n, err
}
