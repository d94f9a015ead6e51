package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/fatedier/frp/pkg/msg"
	"github.com/fatedier/frp/pkg/util/version"
	"github.com/hashicorp/yamux"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/secret"
)

const (
	loginTimeout = 10 * time.Second
	writeTimeout = 10 * time.Second
	// pooled is how many streams the relay holds ready, so that a renter's first byte does not
	// wait for one to be made.
	pooled = 1
	// mostStreams bounds the renters' connections, those that are still being offered among them,
	// and so what a relay gone wild could make this host hold.
	mostStreams = 8192
	// mostConnections bounds the TCP connections of one rental, and so what its renter can make this
	// host hold and take from the others.
	mostConnections = 256
)

// session is one login with the relay. Its first stream carries control messages, each other
// stream one connection of a renter, or all datagrams of a UDP route.
type session struct {
	mux     *yamux.Session
	control net.Conn      // the first stream
	cipher  io.ReadWriter // control, enciphered; written to by the loop alone
	id      string
	token   secret.String
	ended   context.Context // its cause tells why
	end     context.CancelCauseFunc
	streams sync.WaitGroup // those that serve has started; they end soon after the session

	mu     sync.Mutex        // guards routes
	routes map[string]*route // by name; only what is fixed of each is read
}

// refusal is the relay's answer to a login that it does not accept.
type refusal struct{ text string }

func (r *refusal) Error() string { return "login refused: " + r.text }

var (
	errNoAnswer = errors.New("no answer to the login")
	errLost     = errors.New("session lost")
	errSilent   = fmt.Errorf("%w: no answer to a ping", errLost)
)

// open connects and logs in.
func open(ctx context.Context, terms rental.Terms, id string) (*session, error) {
	mux, err := dial(ctx, terms)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { mux.Close() })()
	s, err := login(mux, terms, id)
	if err != nil {
		mux.Close()
		return nil, err
	}
	return s, nil
}

func login(mux *yamux.Session, terms rental.Terms, id string) (*session, error) {
	control, err := mux.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	_ = control.SetDeadline(time.Now().Add(loginTimeout))
	key, now := sign(terms.Token)
	answer := msg.LoginResp{}
	err = exchange(control, &msg.Login{
		Version:      version.Full(),
		Os:           runtime.GOOS,
		Arch:         runtime.GOARCH,
		PrivilegeKey: key,
		Timestamp:    now,
		RunID:        id,
		PoolCount:    pooled,
	}, &answer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	if answer.Error != "" {
		return nil, &refusal{answer.Error}
	}
	_ = control.SetDeadline(time.Time{})
	cipher, err := encipher(control, terms.Token)
	if err != nil {
		return nil, err
	}
	ended, end := context.WithCancelCause(context.Background())
	return &session{
		mux:     mux,
		control: control,
		cipher:  cipher,
		id:      answer.RunID,
		token:   terms.Token,
		ended:   ended,
		end:     end,
		routes:  make(map[string]*route),
	}, nil
}

// exchange sends a stream's first message and waits for the first that comes back.
func exchange(stream net.Conn, first, answer msg.Message) error {
	if err := msg.WriteMsg(stream, first); err != nil {
		return err
	}
	return msg.ReadMsgInto(stream, answer)
}

// fail ends the session because of err.
func (s *session) fail(err error) {
	s.end(err)
	s.mux.Close()
}

// serve reports the relay's answers and carries renters' connections until the session ends, and
// returns why it did.
func (s *session) serve(ctx context.Context, report func(event)) error {
	slots := make(chan struct{}, mostStreams)
	defer context.AfterFunc(ctx, func() { s.fail(context.Cause(ctx)) })()
	for {
		m, err := msg.ReadMsg(s.cipher)
		if err != nil {
			s.fail(fmt.Errorf("%w: reading: %w", errLost, err))
			return context.Cause(s.ended)
		}
		switch m := m.(type) {
		case *msg.ReqWorkConn:
			select {
			case slots <- struct{}{}:
				s.streams.Go(func() {
					s.offer()
					<-slots
				})
			default:
			}
		case *msg.NewProxyResp, *msg.Pong:
			report(m)
		}
	}
}

// offer gives the relay a stream, waits until it is wanted for a route, and carries its traffic.
func (s *session) offer() {
	stream, err := s.mux.Open()
	if err != nil {
		return
	}
	defer stream.Close()
	key, now := sign(s.token)
	wanted := msg.StartWorkConn{}
	err = exchange(stream, &msg.NewWorkConn{RunID: s.id, PrivilegeKey: key, Timestamp: now}, &wanted)
	if err != nil || wanted.Error != "" {
		return
	}
	s.mu.Lock()
	route := s.routes[wanted.ProxyName]
	s.mu.Unlock()
	switch {
	case route == nil:
	case route.Port.Protocol == rental.UDP:
		forwardDatagrams(s.ended, stream, route.Target)
	default:
		select {
		case route.slots <- struct{}{}:
			forwardConnection(s.ended, stream, route.Target)
			<-route.slots
		default: // one of the others has to end first
		}
	}
}

// register asks the relay for a route. Renters may come through it before the answer is here.
func (s *session) register(r *route) {
	s.mu.Lock()
	s.routes[r.name] = r
	s.mu.Unlock()
	s.send(&msg.NewProxy{ProxyName: r.name, ProxyType: string(r.Port.Protocol), RemotePort: int(r.Port.Public)})
}

// unregister has the relay close a route. Connections that renters have open go on until the
// container ends them.
func (s *session) unregister(r *route) {
	s.mu.Lock()
	delete(s.routes, r.name)
	s.mu.Unlock()
	s.send(&msg.CloseProxy{ProxyName: r.name})
}

func (s *session) ping() {
	key, now := sign(s.token)
	s.send(&msg.Ping{PrivilegeKey: key, Timestamp: now})
}

func (s *session) send(m msg.Message) {
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err := msg.WriteMsg(s.cipher, m); err != nil {
		s.fail(fmt.Errorf("%w: writing: %w", errLost, err))
	}
}
