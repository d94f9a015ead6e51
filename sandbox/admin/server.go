package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/backend"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

// findWithin bounds the wait for a node to be there.
const findWithin = 3 * time.Second

var errNoNode = errors.New("no host is connected: start the agent first")

// Listen opens the Unix socket, whose directory is made if it is not there; it comes before the
// marketplace, which would take the place of a running one's files. A socket that nobody answers on
// is replaced.
func Listen(socket string) (net.Listener, error) {
	if conn, err := net.Dial("unix", socket); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("a sandbox runs already on %s", socket)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, fmt.Errorf("making the socket's directory: %w", err)
	}
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("replacing an old socket: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listening for commands: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("closing the socket to others: %w", err), listener.Close())
	}
	return listener, nil
}

// Serve answers what comes through listener until ctx ends, and closes it.
func Serve(ctx context.Context, m *market.Market, listener net.Listener) error {
	server := &http.Server{Handler: handler(m), ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving commands: %w", err)
	}
	return nil
}

func handler(m *market.Market) http.Handler {
	s := server{m}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nodes", result(s.nodes))
	mux.HandleFunc("GET /earnings", result(s.earnings))
	mux.HandleFunc("GET /rentals", result(s.rentals))
	mux.HandleFunc("POST /rentals", s.rent)
	mux.HandleFunc("GET /rentals/{id}", result(s.view))
	mux.HandleFunc("POST /rentals/{id}/stop", s.stop)
	mux.HandleFunc("GET /rentals/{id}/logs", result(s.logs))
	mux.HandleFunc("POST /drain", result(s.drain))
	mux.HandleFunc("POST /resume", result(s.resume))
	mux.HandleFunc("POST /notice", result(s.notice))
	mux.HandleFunc("POST /speedtest", result(s.speedtest))
	mux.HandleFunc("POST /cut", result(s.cut))
	mux.HandleFunc("POST /expire", result(s.expire))
	mux.HandleFunc("POST /restore", result(s.restore))
	mux.HandleFunc("POST /enrolment-tokens", result(s.enrol))
	return mux
}

type server struct{ market *market.Market }

// result makes a handler of a function whose value is the answer's JSON.
func result[T any](act func(*http.Request) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		value, err := act(r)
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(value)
	}
}

// failure is the body of every answer that is not a success.
type failure struct {
	Message string `json:"message"`
}

func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusConflict)
	_ = json.NewEncoder(w).Encode(failure{err.Error()})
}

func (s server) nodes(*http.Request) ([]Node, error) {
	views := []Node{}
	for _, node := range s.market.Backend.Nodes() {
		views = append(views, viewNode(node))
	}
	return views, nil
}

func (s server) earnings(*http.Request) ([]Earnings, error) {
	views := []Earnings{}
	for _, node := range s.market.Backend.Nodes() {
		views = append(views, Earnings{node.ID, s.market.Backend.Earnings(node.ID)})
	}
	return views, nil
}

func (s server) rentals(*http.Request) ([]Rental, error) {
	views := []Rental{}
	for _, rental := range s.market.Backend.Rentals() {
		views = append(views, viewRental(rental))
	}
	return views, nil
}

// node is the one that is named, or the one that is there.
func (s server) node(r *http.Request, named string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(r.Context(), findWithin, errNoNode)
	defer cancel()
	node, err := s.market.Node(ctx, named)
	if errors.Is(err, errNoNode) {
		err = errNoNode
	}
	return node, err
}

func (s server) rent(w http.ResponseWriter, r *http.Request) {
	var rent market.Rent
	if err := json.NewDecoder(r.Body).Decode(&rent); err != nil {
		refuse(w, fmt.Errorf("reading the order: %w", err))
		return
	}
	var err error
	if rent.Node, err = s.node(r, rent.Node); err != nil {
		refuse(w, err)
		return
	}
	order, err := s.market.Rent(r.Context(), rent)
	if err != nil {
		refuse(w, err)
		return
	}
	s.follow(w, r, order.RentalID, 0, func(status protocol.InstanceStatus) bool { return status.State == "running" })
}

func (s server) stop(w http.ResponseWriter, r *http.Request) {
	rental, err := s.rental(r)
	if err != nil {
		refuse(w, err)
		return
	}
	answer, err := s.market.Backend.StopInstance(r.Context(), rental.Node, protocol.StopInstance{RentalID: rental.ID})
	if err == nil && answer.Error != nil {
		err = answer.Error
	}
	if err != nil {
		refuse(w, err)
		return
	}
	s.follow(w, r, rental.ID, rental.Latest().Sequence, protocol.InstanceStatus.Final)
}

func (s server) view(r *http.Request) (Rental, error) {
	rental, err := s.rental(r)
	return viewRental(rental), err
}

func (s server) rental(r *http.Request) (backend.Rental, error) {
	rental, ok := s.market.Backend.Rental(r.PathValue("id"))
	if !ok {
		return rental, fmt.Errorf("rental %q is not known here", r.PathValue("id"))
	}
	return rental, nil
}

// follow writes the statuses of a rental as they come, a line each, up to the last one wanted. Those
// up to the sequence number told are left out; a final one never is.
func (s server) follow(w http.ResponseWriter, r *http.Request, rental string, told int64, last func(protocol.InstanceStatus) bool) {
	w.Header().Set("Content-Type", "application/jsonl")
	lines, line := json.NewEncoder(w), http.NewResponseController(w)
	for report := range s.market.Backend.Reports(r.Context(), rental) {
		if report.Status.Sequence <= told && !report.Status.Final() {
			continue
		}
		if lines.Encode(report.Status) != nil || line.Flush() != nil || last(report.Status) {
			return
		}
	}
}

func (s server) logs(r *http.Request) (protocol.Logs, error) {
	rental, err := s.rental(r)
	if err != nil {
		return protocol.Logs{}, err
	}
	ask := protocol.GetLogs{RentalID: rental.ID}
	if tail := r.FormValue("tail"); tail != "" {
		if ask.Tail, err = strconv.Atoi(tail); err != nil {
			return protocol.Logs{}, fmt.Errorf("tail %q: takes a number", tail)
		}
	}
	return s.market.Backend.GetLogs(r.Context(), rental.Node, ask)
}

func (s server) drain(r *http.Request) (protocol.CommandResult, error) {
	return s.command(r, protocol.DrainNode{Reason: "asked for by hand", StopInstances: r.FormValue("stop_instances") == "true"})
}

func (s server) resume(r *http.Request) (protocol.CommandResult, error) {
	return s.command(r, protocol.ResumeNode{})
}

func (s server) notice(r *http.Request) (protocol.CommandResult, error) {
	return s.command(r, protocol.Notice{
		Title: r.FormValue("title"), Body: r.FormValue("body"), URL: r.FormValue("url"), Severity: r.FormValue("severity"),
	})
}

func (s server) command(r *http.Request, command protocol.Message) (protocol.CommandResult, error) {
	node, err := s.node(r, r.FormValue("node"))
	if err != nil {
		return protocol.CommandResult{}, err
	}
	answer, err := s.market.Backend.Command(r.Context(), node, command)
	if err == nil && answer.Error != nil {
		err = answer.Error
	}
	return answer, err
}

func (s server) speedtest(r *http.Request) (protocol.Network, error) {
	node, err := s.node(r, r.FormValue("node"))
	if err != nil {
		return protocol.Network{}, err
	}
	return s.market.Backend.RunSpeedtest(r.Context(), node)
}

func (s server) cut(r *http.Request) (struct{}, error) {
	code := 0
	if text := r.FormValue("code"); text != "" {
		var err error
		if code, err = strconv.Atoi(text); err != nil || code < 1000 || code > 4999 {
			return struct{}{}, fmt.Errorf("code %q: takes a WebSocket close code from 1000 to 4999", text)
		}
	}
	s.market.Backend.Cut(code)
	return struct{}{}, nil
}

func (s server) expire(*http.Request) (struct{}, error) {
	s.market.Backend.ExpireAll()
	return struct{}{}, nil
}

func (s server) restore(*http.Request) (struct{}, error) {
	s.market.Backend.RestoreAll()
	return struct{}{}, nil
}

func (s server) enrol(r *http.Request) (EnrolmentToken, error) {
	uses, err := strconv.Atoi(r.FormValue("uses"))
	if err != nil || uses < 1 || uses > 1000 {
		return EnrolmentToken{}, fmt.Errorf("uses %q: takes a number from 1 to 1000", r.FormValue("uses"))
	}
	within, err := time.ParseDuration(r.FormValue("within"))
	if err != nil || within <= 0 {
		return EnrolmentToken{}, fmt.Errorf("within %q: takes a time such as 1h", r.FormValue("within"))
	}
	return EnrolmentToken{s.market.Backend.IssueEnrolmentToken(uses, within).Reveal()}, nil
}
