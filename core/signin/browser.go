package signin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	callbackPath = "/callback"
	donePath     = "/done"
)

// Browser signs in with a browser on this machine: the authorization code flow with PKCE, coming
// back to a port on 127.0.0.1. It gives show the address to open, waits up to ten minutes, and
// returns with the host key; the browser's last page then says the same. show is called once and
// must return at once. The end of ctx ends the sign-in.
func (c *Client) Browser(ctx context.Context, h Host, show func(Prompt)) (Credential, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// An address, not "localhost", which providers compare with its port and which may be another
	// machine's name.
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return Credential{}, say(err, "No port on 127.0.0.1 can be opened for the browser to come back to (%s).", clean(err.Error()))
	}
	defer listener.Close()
	p, err := c.discover(ctx)
	if err != nil {
		return Credential{}, err
	}
	r := &returning{
		provider: p, issuer: c.issuer, hostname: h.Hostname, log: c.log,
		host: listener.Addr().String(), state: random(), ticket: random(),
		came: make(chan answer, 1), finished: make(chan struct{}), seen: make(chan struct{}),
	}
	p.RedirectURL = "http://" + r.host + callbackPath
	nonce, verifier := random(), oauth2.GenerateVerifier()

	site := r.site(listener, c.times)
	var serving sync.WaitGroup
	serving.Go(site.run)
	defer serving.Wait()
	defer site.stop()

	late := time.NewTimer(c.times.person)
	defer late.Stop()
	show(Prompt{
		URL:       p.AuthCodeURL(r.state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier)),
		ExpiresAt: time.Now().Add(c.times.person),
	})
	select {
	case <-ctx.Done():
		return Credential{}, say(ctx.Err(), "The sign-in was cancelled.")
	case <-late.C:
		return Credential{}, say(context.DeadlineExceeded, "Nobody finished signing in within %.0f minutes; start again. If the browser showed an error page, the marketplace does not know this sign-in's redirect address (http://127.0.0.1%s on any port): tell the marketplace.", c.times.person.Minutes(), callbackPath)
	case a := <-r.came:
		finishing, done := context.WithTimeout(ctx, c.times.finish)
		defer done()
		r.credential, r.err = c.finish(finishing, p, h, a, nonce, verifier)
	}
	close(r.finished)
	select {
	case <-r.seen:
	case <-time.After(c.times.farewell): // the tab was closed
	}
	return r.credential, r.err
}

// finish turns what the browser brought into a host key.
func (c *Client) finish(ctx context.Context, p *provider, h Host, a answer, nonce, verifier string) (Credential, error) {
	switch a.refusal {
	case "":
	case "access_denied":
		return Credential{}, say(nil, "Signing in was declined in the browser (%s); start again if that was a mistake.", told(a.refusal, a.description))
	default:
		return Credential{}, say(nil, "%s did not sign anybody in (%s); %s.", p.who, told(a.refusal, a.description), remedy(a.refusal))
	}
	// Once only: a code that is shown twice voids what it gave.
	token, err := p.Exchange(p.with(ctx), a.code, oauth2.VerifierOption(verifier))
	if err != nil {
		return Credential{}, p.refused(err)
	}
	return c.enter(ctx, p, h, token, nonce)
}

// enter checks who signed in and registers the host, by the deadline of ctx. The tokens go no further.
func (c *Client) enter(ctx context.Context, p *provider, h Host, token *oauth2.Token, nonce string) (Credential, error) {
	id, err := p.accept(ctx, token, nonce)
	if err != nil {
		return Credential{}, err
	}
	registering, stop := c.outlast(ctx)
	defer stop()
	got, err := c.register(registering, h, id.token)
	if err != nil {
		return Credential{}, err
	}
	if got.Owner == "" {
		got.Owner = id.email
	}
	return got, nil
}

// outlast is ctx for the registration: the key before is void as soon as the API has the request, so whoever
// gives up then gets the new one all the same, if it comes soon.
func (c *Client) outlast(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, _ := ctx.Deadline() // there is one, see timing.finish
	longer, stop := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	given := context.AfterFunc(ctx, func() {
		_ = pause(longer, c.times.farewell)
		stop()
	})
	return longer, func() { given(); stop() }
}

// random makes what nobody can guess: 32 bytes.
func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// answer is what the browser brings back from the provider: a code, or why there is none.
type answer struct {
	code, refusal, description string
}

// returning is the place a browser returns to. Every program of this machine, and every web page a
// browser here shows, can reach it too; so nothing but the provider's answer to this sign-in has any
// effect on it.
type returning struct {
	provider         *provider
	issuer, hostname string
	log              *slog.Logger
	host             string // this place's address, as a browser names it
	state, ticket    string

	taken    atomic.Bool
	came     chan answer   // holds the one answer that counts
	finished chan struct{} // closed when credential and err are set
	seen     chan struct{} // closed when the last page was asked for
	once     sync.Once

	credential Credential
	err        error
}

// ServeHTTP implements http.Handler.
func (r *returning) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	protect(w.Header())
	switch {
	case req.Host != r.host: // another site's name that was made to point here
		http.Error(w, "This address does not belong to this sign-in.", http.StatusBadRequest)
	case req.URL.Path != callbackPath && req.URL.Path != donePath:
		http.NotFound(w, req)
	case req.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "This address takes only GET.", http.StatusMethodNotAllowed)
	case req.URL.Path == callbackPath:
		r.callback(w, req)
	default:
		r.done(w, req)
	}
}

func (r *returning) callback(w http.ResponseWriter, req *http.Request) {
	a, err := r.read(req.URL.RawQuery)
	if err != nil {
		r.log.Debug("taking no notice of a request to the sign-in's port", "because", err)
		render(w, http.StatusBadRequest, page{Title: "This is not the answer to a sign-in", Text: "Nothing was changed: " + err.Error() + ". If you are signing in, go on in the tab where you began."})
		return
	}
	if !r.taken.CompareAndSwap(false, true) {
		render(w, http.StatusConflict, page{Title: "Already answered", Text: "This sign-in has been answered in another tab. You can close this one."})
		return
	}
	if g, ok := req.Context().Value(guestKey{}).(*guest); ok {
		g.stay()
	}
	r.came <- a
	// The browser waits for what really happened; that also takes the code out of its address bar.
	select {
	case <-r.finished:
		http.Redirect(w, req, donePath+"?ticket="+r.ticket, http.StatusSeeOther)
	case <-req.Context().Done():
	}
}

// read takes a query for the provider's answer only with the state that nobody else knows.
func (r *returning) read(rawQuery string) (answer, error) {
	q, err := parseOnce(rawQuery)
	if err != nil {
		return answer{}, err
	}
	iss, named := q["iss"]
	a := answer{code: q["code"], refusal: q["error"], description: q["error_description"]}
	switch {
	case !equal(q["state"], r.state):
		return answer{}, errors.New("it does not belong to this sign-in")
	case named && iss != r.issuer, !named && r.provider.saysIt:
		return answer{}, errors.New("it does not come from the marketplace's sign-in")
	case (a.code == "") == (a.refusal == ""):
		return answer{}, errors.New("it holds neither a code nor a reason, or both")
	}
	return a, nil
}

// done shows what came of the sign-in, to the browser that brought it.
func (r *returning) done(w http.ResponseWriter, req *http.Request) {
	q, err := parseOnce(req.URL.RawQuery)
	if err != nil || !equal(q["ticket"], r.ticket) {
		http.NotFound(w, req)
		return
	}
	<-r.finished // closed: nobody has the ticket before
	if r.err != nil {
		render(w, http.StatusOK, page{Title: "Signing in did not work", Text: r.err.Error()})
	} else {
		render(w, http.StatusOK, page{Title: "You are signed in", Good: true, Host: r.hostname, Owner: r.credential.Owner, Text: "You can close this tab."})
	}
	r.once.Do(func() { close(r.seen) })
}
