package hardware

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/showwin/speedtest-go/speedtest"
)

// SpeedTestOptions say against which server to measure, and within which bounds.
type SpeedTestOptions struct {
	// Server is the upload address of a server that speaks Ookla's HTTP calls, for instance
	// https://speed.example.com/speedtest/upload.php. The word speedtest.net in its place asks that
	// site for a public server nearby; nothing else ever contacts it.
	Server   string
	MaxBytes int64         // both directions together; default 250 MB
	Duration time.Duration // of one direction at most; default 15 s
}

const (
	publicServers  = "speedtest.net"
	defaultBytes   = 250e6
	requestBytes   = 2e6 // about what the library asks for at a time
	leastBytes     = 2 * speedTestLines * requestBytes
	pings          = 10
	betweenPings   = 200 * time.Millisecond
	betweenTicks   = 20 * time.Millisecond
	listWithin     = 20 * time.Second
	pingBytes      = 1e6
	listBytes      = 16e6
	speedTestLines = 4
)

var errNothingMoved = errors.New("it lets nothing through")

// SpeedTest measures the network. It uses nothing until it is asked to.
type SpeedTest struct {
	options SpeedTestOptions
	server  *url.URL // nil: one of the public servers
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	roots   *x509.CertPool // nil: the system's
	running sync.Mutex
}

// NewSpeedTest checks the options.
func NewSpeedTest(o SpeedTestOptions) (*SpeedTest, error) {
	o.MaxBytes = cmp.Or(o.MaxBytes, defaultBytes)
	o.Duration = cmp.Or(o.Duration, 15*time.Second)
	if o.MaxBytes < leastBytes {
		return nil, fmt.Errorf("a speed test needs at least %d MB, and is allowed %d bytes", int(leastBytes/1e6), o.MaxBytes)
	}
	if o.Duration < time.Second {
		return nil, fmt.Errorf("a speed test needs at least 1s a direction, and is allowed %v", o.Duration)
	}
	s := &SpeedTest{options: o, dial: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}
	if o.Server == publicServers {
		return s, nil
	}
	server, err := parseServer(o.Server)
	if err != nil {
		return nil, err
	}
	s.server = server
	return s, nil
}

func parseServer(text string) (*url.URL, error) {
	const example = "; it should look like https://speed.example.com/speedtest/upload.php"
	server, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("the speed test's server is not a URL" + example)
	case server.Scheme != "http" && server.Scheme != "https":
		return nil, fmt.Errorf("the speed test's server %q is not an http or https URL"+example, server.Redacted())
	case server.Hostname() == "":
		return nil, fmt.Errorf("the speed test's server %q names no host"+example, server.Redacted())
	case server.User != nil, server.RawQuery != "", server.Fragment != "":
		return nil, fmt.Errorf("the speed test's server %q holds a user, a query or a fragment"+example, server.Redacted())
	case strings.Trim(server.Path, "/") == "", strings.HasSuffix(server.Path, "/"):
		return nil, fmt.Errorf("the speed test's server %q does not name what takes the upload"+example, server.Redacted())
	}
	return server, nil
}

// Measure takes up to twice the duration and some seconds. When ctx ends it returns at once and
// nothing is sent or received any more. A direction that could not be measured is nil; it is an
// error when none could.
func (s *SpeedTest) Measure(ctx context.Context) (Network, error) {
	if !s.running.TryLock() {
		return Network{}, errors.New("a speed test is running already")
	}
	defer s.running.Unlock()
	transport := s.newTransport()
	defer transport.CloseIdleConnections()

	server, err := s.pick(ctx, transport)
	if err != nil {
		return Network{}, err
	}
	result := Network{Server: server.Host, MeasuredAt: time.Now().UTC()}
	if err := ping(ctx, transport, server, &result); err != nil {
		return Network{}, err
	}
	down := s.load(ctx, transport, server, s.options.MaxBytes/2, (*speedtest.Server).DownloadTestContext)
	if ctx.Err() != nil {
		return Network{}, interrupted(ctx)
	}
	up := s.load(ctx, transport, server, s.options.MaxBytes-s.options.MaxBytes/2+down.left(), (*speedtest.Server).UploadTestContext)
	if ctx.Err() != nil {
		return Network{}, interrupted(ctx)
	}
	result.DownloadMbps, result.UploadMbps = down.mbps(), up.mbps()
	if result.DownloadMbps == nil && result.UploadMbps == nil {
		return Network{}, fmt.Errorf("measuring the network against %s: %w", server.Host, cmp.Or(down.failure(), up.failure(), errNothingMoved))
	}
	return result, nil
}

func interrupted(ctx context.Context) error {
	return fmt.Errorf("measuring the network: %w", context.Cause(ctx))
}

// newTransport makes one connection a request: HTTP/2 would put all on one. A proxy would be what
// is measured, so none is used.
func (s *SpeedTest) newTransport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:           s.dial,
		TLSClientConfig:       &tls.Config{RootCAs: s.roots},
		Protocols:             protocols,
		MaxIdleConnsPerHost:   speedTestLines,
		DisableCompression:    true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 10 * time.Second,
		ReadBufferSize:        64 << 10,
		WriteBufferSize:       64 << 10,
	}
}

// pick is the configured server, or the public one that answers fastest of those nearby.
func (s *SpeedTest) pick(ctx context.Context, transport http.RoundTripper) (*url.URL, error) {
	if s.server != nil {
		return s.server, nil
	}
	lane := newLane(ctx, transport, nil, listWithin, listBytes)
	defer lane.end()
	list, err := newClient(lane, s.options.Duration).FetchServerListContext(lane.over)
	if err != nil {
		return nil, fmt.Errorf("asking speedtest.net for its servers: %w", err)
	}
	found, err := list.FindServer(nil)
	if err != nil {
		return nil, fmt.Errorf("asking speedtest.net for its servers: %w", err)
	}
	return parseServer(found[0].URL)
}

// ping fills in the median latency, and how much one differs from the next.
func ping(ctx context.Context, transport http.RoundTripper, server *url.URL, result *Network) error {
	lane := newLane(ctx, transport, server, listWithin, pingBytes)
	defer lane.end()
	target := &speedtest.Server{URL: server.String(), Context: newClient(lane, listWithin)}
	nanoseconds, err := target.HTTPPing(lane.over, pings, betweenPings, nil)
	switch {
	case ctx.Err() != nil:
		return interrupted(ctx)
	case lane.failure() != nil && len(nanoseconds) < pings/2:
		return fmt.Errorf("measuring the network against %s: %w", server.Host, lane.failure())
	case err != nil || len(nanoseconds) == 0:
		return fmt.Errorf("measuring the network against %s: %w", server.Host, errNoAnswer)
	}
	var differences float64
	for i := range nanoseconds[1:] {
		differences += math.Abs(float64(nanoseconds[i+1] - nanoseconds[i]))
	}
	if n := len(nanoseconds); n > 1 {
		result.JitterMS = new(differences / float64(n-1) / 1e6)
	}
	slices.Sort(nanoseconds)
	result.LatencyMS = new(float64(nanoseconds[len(nanoseconds)/2]) / 1e6)
	return nil
}

// load keeps the server busy in one direction until time, bytes or ctx are over, or the rate is
// steady. The library cannot be stopped before its time; so it is left behind, its requests held
// back by the lane, until that has passed and it ends by itself.
func (s *SpeedTest) load(ctx context.Context, transport http.RoundTripper, server *url.URL, budget int64,
	test func(*speedtest.Server, context.Context) error,
) *lane {
	lane := newLane(ctx, transport, server, s.options.Duration, budget)
	lane.holds = true // else the library would try again and again
	lane.expected = requestBytes
	target := &speedtest.Server{URL: server.String(), Context: newClient(lane, s.options.Duration)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = test(target, context.WithoutCancel(ctx)) // never fails: the lane knows better
	}()
	select {
	case <-ended:
	case <-lane.over.Done():
	}
	lane.end()
	return lane
}

// newClient is speedtest.New without what that does to http.DefaultClient.
func newClient(lane *lane, duration time.Duration) *speedtest.Speedtest {
	client := &speedtest.Speedtest{Manager: speedtest.NewDataManager()}
	speedtest.WithDoer(&http.Client{})(client) // the configuration replaces this one's transport
	speedtest.WithUserConfig(&speedtest.UserConfig{MaxConnections: speedTestLines})(client)
	speedtest.WithDoer(&http.Client{Transport: lane})(client)
	client.SetCaptureTime(duration)
	client.SetRateCaptureFrequency(betweenTicks)
	client.SetCallbackDownload(lane.tick)
	client.SetCallbackUpload(lane.tick)
	return client
}

// When speedtest-go is linked in, it makes itself the transport of http.DefaultClient, so that all
// who use that would send its User-Agent. This undoes it, before anyone can.
func init() {
	if _, taken := http.DefaultClient.Transport.(*speedtest.Speedtest); taken {
		http.DefaultClient.Transport = nil
	}
}
