package hardware

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/showwin/speedtest-go/speedtest"
)

// lane is the way of one part of a speed test to the network: it lets requests through to one
// server, for so long, and for so many bytes; and counts those.
type lane struct {
	next   http.RoundTripper
	server *url.URL // nil: any
	holds  bool     // once over, requests wait until their sender gives up, rather than fail
	over   context.Context
	end    context.CancelFunc

	mu        sync.Mutex
	budget    int64 // bytes not promised to a request
	expected  int64 // size of the next answer, as far as is known
	succeeded int
	failed    int
	lastError error
	begun     time.Time
	latest    mark
	progress  []mark // the latest at each tick
}

// mark is how many bytes had moved at one moment.
type mark struct {
	at    time.Time
	bytes int64
}

const (
	mostFailures  = 10
	afterFailure  = 100 * time.Millisecond
	moreOfAnswers = 64 << 10
)

var (
	errOtherHost = errors.New("the server sent the speed test elsewhere")
	errNoAnswer  = errors.New("it does not answer in time")
)

func newLane(ctx context.Context, next http.RoundTripper, server *url.URL, within time.Duration, budget int64) *lane {
	l := &lane{next: next, server: server, budget: budget, begun: time.Now()}
	l.over, l.end = context.WithTimeout(ctx, within)
	return l
}

// RoundTrip implements http.RoundTripper.
func (l *lane) RoundTrip(request *http.Request) (*http.Response, error) {
	promised, ok := l.promiseFor(request)
	if !ok {
		if l.holds {
			<-request.Context().Done()
		}
		return nil, context.Canceled
	}
	ctx, cancel := context.WithCancel(request.Context())
	unhook := context.AfterFunc(l.over, cancel)
	release := func() { unhook(); cancel() }

	response, err := l.send(request.Clone(ctx))
	if err != nil {
		release()
		if request.Context().Err() == nil && l.over.Err() == nil { // else it was cut off
			l.fail(err)
		}
		return nil, err
	}
	l.succeed(response.ContentLength)
	response.Body = &answer{lane: l, body: response.Body, promised: promised, release: release}
	return response, nil
}

func (l *lane) send(request *http.Request) (*http.Response, error) {
	if l.server != nil && (request.URL.Host != l.server.Host || request.URL.Scheme != l.server.Scheme) {
		return nil, errOtherHost
	}
	request.Header.Set("User-Agent", "distributed-agent")
	if request.Body != nil {
		request.Body = &offer{lane: l, body: request.Body}
	}
	response, err := l.next.RoundTrip(request)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return nil, errNoAnswer
	}
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("it answers %q to %s", response.Status, request.URL.Path)
	}
	return response, nil
}

// fail slows down a client that tries again at once, and ends the lane if that is in vain.
func (l *lane) fail(err error) {
	l.mu.Lock()
	l.lastError = err
	l.failed++
	enough := l.failed >= mostFailures
	l.mu.Unlock()
	if enough {
		l.end()
	}
	pause := time.NewTimer(afterFailure)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-l.over.Done():
	}
}

func (l *lane) succeed(answer int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.succeeded++
	if answer > 0 {
		l.expected = answer
	}
}

func (l *lane) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastError
}

// promiseFor sets bytes aside for a request: those of its body, which are gone with it, or else
// those promised to its answer. It is not ok once the lane is over.
func (l *lane) promiseFor(request *http.Request) (toAnswer int64, ok bool) {
	if request.ContentLength > 0 {
		return 0, l.promise(request.ContentLength)
	}
	l.mu.Lock()
	toAnswer = l.expected
	l.mu.Unlock()
	return toAnswer, l.promise(toAnswer)
}

// promise ends the lane if there are not that many bytes left.
func (l *lane) promise(bytes int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.budget < bytes {
		l.end()
	}
	if l.over.Err() != nil {
		return false
	}
	l.budget -= bytes
	return true
}

// giveBack takes back what an answer did not need; of one that was cut off, the rest is on its way.
func (l *lane) giveBack(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over.Err() == nil {
		l.budget += bytes
	}
}

// left is what was never promised.
func (l *lane) left() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.budget
}

// count notes bytes that have moved, until the lane is over.
func (l *lane) count(bytes int) {
	if bytes == 0 || l.over.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.latest = mark{time.Now(), l.latest.bytes + int64(bytes)}
}

// tick is called steadily by the library. That it takes the lock which each request has taken
// before also puts in order what the library shares between the two without one.
func (l *lane) tick(speedtest.ByteRate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.progress); l.latest.bytes > 0 && (n == 0 || l.progress[n-1] != l.latest) {
		l.progress = append(l.progress, l.latest)
	}
}

// mbps leaves out the first fifth of the time, in which connections open and pick up speed and
// what is sent only fills buffers. It is nil if nothing has moved, or only into refusals.
func (l *lane) mbps() *float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	elapsed := l.latest.at.Sub(l.begun)
	if elapsed <= 0 || l.succeeded == 0 && l.failed > 0 {
		return nil
	}
	from := mark{at: l.begun}
	for _, m := range l.progress {
		if since := l.latest.at.Sub(m.at); since <= elapsed*4/5 {
			if since >= elapsed/2 { // not so after a long silence
				from = m
			}
			break
		}
	}
	return new(float64(l.latest.bytes-from.bytes) * 8 / 1e6 / l.latest.at.Sub(from.at).Seconds())
}

// offer is the body of a request.
type offer struct {
	lane *lane
	body io.ReadCloser
}

// Read fills p, as the library gives a kilobyte at a time.
func (o *offer) Read(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = o.body.Read(p[n:])
		n += more
	}
	o.lane.count(n)
	return n, err
}

func (o *offer) Close() error { return o.body.Close() }

// answer is the body of a response. Of one that is longer than was promised, the rest is promised
// bit by bit.
type answer struct {
	lane     *lane
	body     io.ReadCloser
	promised int64
	release  func()
}

func (a *answer) Read(p []byte) (int, error) {
	if a.promised == 0 {
		if !a.lane.promise(moreOfAnswers) {
			return 0, a.lane.over.Err()
		}
		a.promised = moreOfAnswers
	}
	n, err := a.body.Read(p[:min(int64(len(p)), a.promised)])
	a.promised -= int64(n)
	a.lane.count(n)
	return n, err
}

func (a *answer) Close() error {
	a.lane.giveBack(a.promised)
	a.promised = 0
	err := a.body.Close()
	a.release()
	return err
}
