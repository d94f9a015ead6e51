package tunnel

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fatedier/frp/pkg/msg"

	"github.com/distributedcompute/host-agent/core/rental"
)

const (
	// The pause before the next attempt to connect doubles from the first value up to the second,
	// or up to the third where the relay was reached and the next attempt can hardly do better.
	redialFirst   = 100 * time.Millisecond
	redialMost    = 2 * time.Second
	redialRefused = 15 * time.Second
	// steady is how long a session must have lasted for the pauses to begin anew.
	steady = 10 * time.Second
)

// keeper is the state of Run. Only Run's goroutine touches it, also through the wishes it carries out.
type keeper struct {
	relay   *Relay
	changed func()

	terms     rental.Terms
	sessionID string // the same for each new connection
	attempts  sync.WaitGroup
	hangUp    context.CancelFunc // ends the attempt or the session under way; nil: there is none
	hungUp    bool               // hangUp was called: of the attempt, only its end counts
	events    chan event         // what becomes of it
	session   *session           // nil while there is none
	since     time.Time          // of session
	problem   string             // why there is none, "" while that is not known
	failures  int                // attempts that failed in a row
	redial    *time.Timer        // the next attempt

	published map[rental.ID]*publication
	routes    map[string]*route // of all publications, by name
	named     int               // names given so far
	retry     *time.Timer       // the next look at refused routes

	pings, pongs int      // sent and answered in this session
	pulse        int      // the ping of the last check
	waiting      []waiter // oldest first
}

// event is what an attempt reports: connected, then *msg.NewProxyResp and *msg.Pong, and ended.
type event any

type (
	connected struct{ session *session }
	ended     struct{ err error }
)

// Run keeps the connection until ctx ends. changed is called, and must return quickly, after each
// change of Info. Run can be called once.
func (r *Relay) Run(ctx context.Context, changed func()) error {
	defer close(r.ended)
	k := &keeper{
		relay:     r,
		changed:   changed,
		sessionID: sessionID(r.dir, r.log),
		events:    make(chan event),
		redial:    stoppedTimer(),
		published: make(map[rental.ID]*publication),
		routes:    make(map[string]*route),
		retry:     stoppedTimer(),
	}
	defer k.drop()
	defer k.attempts.Wait()
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.fresh:
			k.use(ctx)
		case wish := <-r.wishes:
			wish(k)
		case e := <-k.events:
			k.take(e)
		case <-k.redial.C:
			k.connect(ctx)
		case <-k.retry.C:
			k.askAgain()
		case <-ping.C:
			k.checkPulse()
		}
		k.review()
	}
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// use takes up the latest terms.
func (k *keeper) use(ctx context.Context) {
	terms := k.relay.latestTerms()
	if sameTerms(terms, k.terms) {
		return
	}
	k.terms, k.problem, k.failures = terms, "", 0
	if k.hangUp == nil {
		k.connect(ctx)
		return
	}
	k.hangUp()
	k.hungUp = true
	k.drop()
}

func sameTerms(a, b rental.Terms) bool {
	return a.Address == b.Address && a.Token.Equal(b.Token) && a.ServerName == b.ServerName &&
		bytes.Equal(a.CAPEM, b.CAPEM) && a.PublicHost == b.PublicHost
}

// connect starts an attempt: the goroutine that connects and serves the session until it ends.
func (k *keeper) connect(running context.Context) {
	k.redial.Stop()
	if k.terms.Address == "" {
		return
	}
	attempt, hangUp := context.WithCancel(running)
	k.hangUp = hangUp
	terms, id := k.terms, k.sessionID
	report := func(e event) {
		select {
		case k.events <- e:
		case <-running.Done():
		}
	}
	k.attempts.Go(func() {
		s, err := open(attempt, terms, id)
		if err == nil {
			report(connected{s})
			err = s.serve(attempt, report)
			defer s.streams.Wait() // after the report: no stream may keep the next session waiting
		}
		report(ended{err})
	})
}

func (k *keeper) take(e event) {
	if end, ok := e.(ended); ok {
		k.lost(end.err)
		return
	}
	if k.hungUp {
		return
	}
	switch e := e.(type) {
	case connected:
		k.session, k.since, k.problem = e.session, time.Now(), ""
		k.pings, k.pongs, k.pulse = 0, 0, 0
		k.relay.log.Info("relay connected", "relay", k.terms.Address)
		for _, route := range k.routes {
			k.ask(route)
		}
	case *msg.NewProxyResp:
		k.answered(e)
	case *msg.Pong:
		k.ponged()
	}
}

// lost follows the end of a session, or of an attempt to get one, and sees to the next.
func (k *keeper) lost(err error) {
	k.hangUp() // frees its context
	k.hangUp = nil
	if k.hungUp {
		k.hungUp = false
		k.redial.Reset(0)
		return
	}
	if k.session != nil && time.Since(k.since) > steady {
		k.failures = 0
	}
	k.drop()
	problem := explain(err, k.terms)
	if problem != k.problem {
		k.relay.log.Warn("relay unavailable", "problem", problem, "err", err)
	}
	k.problem = problem
	k.redial.Reset(backoff(k.failures, err))
	k.failures++
}

// drop forgets the session, and with it all that was open.
func (k *keeper) drop() {
	k.session = nil
	for _, route := range k.routes {
		route.asked, route.open, route.refused = false, false, nil
	}
	for _, w := range k.waiting {
		close(w.closed)
	}
	k.waiting = nil
}

// backoff is the pause before the next attempt, with up to a quarter of it left to chance, so that
// the clients of a relay that restarted do not come all at once.
func backoff(failures int, err error) time.Duration {
	most := redialMost
	if isRefusal(err) {
		most = redialRefused
	}
	pause := min(redialFirst<<min(failures, 10), most)
	return pause - rand.N(pause/4)
}
