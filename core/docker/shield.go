package docker

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/shield"
)

const (
	// shieldTries are made in a row before rentals are cut off, shieldRetry apart.
	shieldTries = 2
	shieldRetry = time.Second
	// handsWithin bounds one look at the packet filter, or one change of it: rentals are cut off within 30 s of when it
	// begins to hang. For a start, hands in a container have twice that.
	handsWithin = 10 * time.Second
	// chooseWithin bounds the first attempt to reach the packet filter, for which an image may have to be made.
	chooseWithin = 20 * time.Second
	// blindFor is how long rentals go on that were behind the shield, while the engine does not let it be looked at. Nobody
	// has seen it gone, and an engine that is busy, just back or without room on its disk is no reason to end them.
	blindFor = 2 * time.Minute
)

// Shielding says how rentals are kept off the host's LAN.
type Shielding struct {
	Policy shield.Policy
	// AllowUnshielded starts rentals also where they cannot be kept off it.
	AllowUnshielded bool
	// Program is the file of distributed-agent-shield, for an engine whose packet filter this process may not change.
	Program string
}

// hands put the shield up where containers run.
type hands interface {
	raise(ctx context.Context, policy shield.Policy) (shield.Standing, error)
	observe(ctx context.Context) (shield.Standing, error)
	lower(ctx context.Context) error
}

// ownHands are this process's.
type ownHands struct {
	busy chan struct{} // capacity 1: a call is under way
}

func newOwnHands() ownHands { return ownHands{make(chan struct{}, 1)} }

func (o ownHands) raise(ctx context.Context, policy shield.Policy) (shield.Standing, error) {
	return unhung(ctx, o, func(ctx context.Context) (shield.Standing, error) {
		return shield.Raise(ctx, shield.Direct{}, policy)
	})
}

func (o ownHands) observe(ctx context.Context) (shield.Standing, error) {
	return unhung(ctx, o, func(ctx context.Context) (shield.Standing, error) { return shield.Observe(ctx, shield.Direct{}) })
}

func (o ownHands) lower(ctx context.Context) error {
	_, err := unhung(ctx, o, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, shield.Lower(ctx, shield.Direct{})
	})
	return err
}

// guard keeps the shield up. A nil guard keeps none, for whoever wants rentals without.
type guard struct {
	Shielding
	own   ownHands
	again chan struct{} // capacity 1: the shield is to be looked at now

	mu      sync.Mutex // one at a time is at the packet filter
	hands   hands      // guarded by mu; nil until chosen
	how     string     // guarded by mu; what hands are called
	up      shield.Standing
	failed  bool // guarded by mu; the last attempt to have the shield stand
	turned  turnedAway
	stood   time.Time // guarded by mu; when the shield was last seen to stand
	seen    lookedAt  // guarded by mu
	rival   rivalry   // guarded by mu
	changed func()    // guarded by mu; nil without Run

	handsWithin time.Duration // the constant, unless a test shortens it
}

// unseen is why it could not be found out whether the shield stands.
type unseen struct{ error }

func (u *unseen) Unwrap() error { return u.error }

func newGuard(with *Shielding) *guard {
	if with == nil {
		return nil
	}
	return &guard{
		Shielding: *with, own: newOwnHands(), again: make(chan struct{}, 1), turned: newTurnedAway(), handsWithin: handsWithin,
	}
}

// ask lets keepShield look now.
func (g *guard) ask() {
	if g == nil {
		return
	}
	select {
	case g.again <- struct{}{}:
	default:
	}
}

// reconsider lets the hands be chosen anew: another engine may run in another place.
func (g *guard) reconsider() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hands = nil
}

// shielded returns nil once the shield stands, put up now if need be, or once the owner does without it. Every start
// of a container goes through here.
func (e *Engine) shielded(ctx context.Context) error {
	if e.guard == nil {
		return nil
	}
	err := e.ensureShield(ctx, true)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case isUnavailable(err):
		return err
	case e.guard.AllowUnshielded:
		e.log.Warn("starting a rental that may reach the LAN, as the owner allows", "because", err)
		return nil
	}
	e.log.Warn("no rental is started without the shield", "because", err)
	return rental.Failf(rental.CodeIsolation, "The host's LAN cannot be kept from rentals at present.")
}

// ensureShield looks at the shield and puts it up unless it stands as it was put up. For a start there is
// more time. What comes of it is in Info.
func (e *Engine) ensureShield(ctx context.Context, start bool) error {
	g := e.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	known, err := e.knownFacts(ctx)
	if err == nil {
		err = e.raiseShield(ctx, known, start)
	}
	if err == nil && known.Unshieldable != "" {
		err = unshieldable(known)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	g.failed, g.seen.at = err != nil, time.Now()
	if err == nil {
		g.stood = g.seen.at
	}
	if e.tellShield(g.info(known, err)) && g.changed != nil {
		g.changed()
	}
	return err
}

// raiseShield is ensureShield for who holds e.guard.mu.
func (e *Engine) raiseShield(ctx context.Context, known facts, start bool) error {
	g := e.guard
	if known.Unshieldable != "" && !g.AllowUnshielded {
		return unshieldable(known)
	}
	if g.hands == nil {
		if err := e.chooseHands(ctx, known); err != nil {
			return &unseen{err}
		}
	}
	within := g.handsWithin
	if _, watched := g.hands.(watcher); start && !watched {
		within *= 2
	}
	looking, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if g.untouched(looking) {
		return nil
	}
	there, err := g.look(looking)
	if err != nil || g.up.Same(there) {
		return err
	}
	if g.rival.found(g.up, there, time.Now()) {
		e.log.Warn("somebody else, such as another agent with other settings, keeps a shield of another kind in the place of ours; "+
			"it is put up again less often", "every", shieldEvery)
	}
	lost := g.up.Mark != ""
	if err := g.raise(ctx, within); err != nil {
		return err
	}
	if lost {
		e.log.Warn("the shield was missing or changed and is up again", "by", g.how)
	} else {
		e.log.Info("the shield is up", "by", g.how)
	}
	return nil
}

// look looks in full at what stands. g.mu is held.
func (g *guard) look(ctx context.Context) (shield.Standing, error) {
	var before uint32
	w, watched := g.hands.(watcher)
	if watched {
		var err error
		if before, err = w.generation(ctx); err != nil {
			return shield.Standing{}, err
		}
	}
	there, err := g.hands.observe(ctx)
	if watched && (err != nil || !g.up.Same(there)) {
		if after, failed := w.generation(ctx); failed == nil && after != before { // what was read may be half of each
			before = after
			there, err = g.hands.observe(ctx)
		}
	}
	if err != nil {
		return shield.Standing{}, err
	}
	now := time.Now()
	g.turned.add(there.Blocked)
	g.seen.counted = now
	if g.up.Same(there) {
		g.rival.calm(now)
		if watched {
			g.seen.generation, g.seen.verified = before, now
		}
	}
	return there, nil
}

// raise puts the shield up. A change of it by anyone between then and the next look is for that one to see. g.mu is held.
func (g *guard) raise(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	up, err := g.hands.raise(ctx, g.Policy)
	if _, watched := g.hands.(watcher); watched && err != nil && ctx.Err() == nil {
		up, err = g.hands.raise(ctx, g.Policy) // somebody may have changed it while it was read back
	}
	g.up, g.seen.verified = up, time.Time{}
	if err != nil {
		return err
	}
	g.rival.raised = time.Now()
	g.turned.restart()
	return nil
}

// unshieldable is why no table of rules keeps rentals of this kind of engine off the LAN for certain.
func unshieldable(known facts) error {
	return problemf("Install Docker Engine itself, not Docker Desktop or a rootless one: https://docs.docker.com/engine/install/. Or set isolation.allow_unshielded, if nothing on your network would mind.",
		"%s does not let rentals be kept off this host's LAN for certain.", known.Unshieldable)
}

// chooseHands finds out who can change the packet filter that the engine's containers are behind. The caller holds e.guard.mu.
func (e *Engine) chooseHands(ctx context.Context, known facts) error {
	g := e.guard
	g.seen.verified = time.Time{}
	ctx, cancel := context.WithTimeout(ctx, chooseWithin)
	defer cancel()
	here, err := e.engineIsHere(ctx)
	if err != nil {
		return err
	}
	if here {
		_, err := g.own.observe(ctx)
		if err == nil {
			g.hands, g.how = g.own, "direct"
			return nil
		}
		if !errors.Is(err, syscall.EPERM) {
			e.log.Warn("the packet filter cannot be reached directly", "because", err)
		}
	}
	through, err := e.borrowHands(ctx, g.Program, known)
	if err != nil {
		return err
	}
	g.hands, g.how = through, "container"
	return nil
}

// engineIsHere reports whether the engine makes its bridges where this process runs, and not in a virtual machine or
// in another network namespace.
func (e *Engine) engineIsHere(ctx context.Context) (bool, error) {
	name, err := e.someNetwork(ctx)
	if err != nil {
		return false, err
	}
	if name == "" {
		if err := e.stock(ctx); err != nil {
			return false, err
		}
		if name, err = e.someNetwork(ctx); err != nil {
			return false, err
		}
	}
	_, err = net.InterfaceByName(bridgeName(name))
	return err == nil, nil
}

// someNetwork is the name of a network of this agent, "" where there is none.
func (e *Engine) someNetwork(ctx context.Context) (string, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	found, err := e.api().NetworkList(call, network.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelManaged))})
	if err != nil {
		return "", failed(ctx, "listing networks", err)
	}
	for _, n := range found {
		if e.seal.holds(n.Labels[labelOwner], kindNetwork, n.Name) {
			return n.Name, nil
		}
	}
	return "", nil
}

// keepShield looks at the shield again and again until ctx ends, also while the engine is away, and while rentals run
// asks every second whether anything was changed. Where the shield cannot be had, rentals that run are ended.
func (e *Engine) keepShield(ctx context.Context, changed func()) {
	g := e.guard
	if g == nil {
		return
	}
	g.mu.Lock()
	g.changed = changed
	g.mu.Unlock()
	next := time.NewTimer(g.pace())
	defer next.Stop()
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-g.again:
			asked = true
		}
		switch {
		case !e.Info().Available && !g.chosen(): // it is asked again when the engine is there
		case !asked && g.still(ctx):
		default:
			e.insistOnShield(ctx)
		}
		next.Reset(g.pace())
	}
}

func (g *guard) chosen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hands != nil
}

// insistOnShield tries a few times to have the shield stand, and otherwise cuts rentals off.
func (e *Engine) insistOnShield(ctx context.Context) {
	var err error
	for try := range shieldTries {
		if try > 0 && pause(ctx, shieldRetry) != nil {
			return
		}
		if err = e.ensureShield(ctx, false); err == nil || ctx.Err() != nil {
			return
		}
		if _, hopeless := errors.AsType[*problem](err); hopeless {
			break
		}
	}
	if e.guard.AllowUnshielded || isUnavailable(err) {
		return // an engine that is away starts nothing, and cannot end anything either
	}
	if _, blind := errors.AsType[*unseen](err); blind && e.guard.stoodWithin(blindFor) {
		e.log.Warn("the shield cannot be looked at; rentals go on for now", "because", err)
		return
	}
	e.log.Error("the shield cannot be had; rentals are ended", "because", err)
	if err := e.cutOff(ctx); err != nil {
		e.log.Error("ending rentals that lost their shield", "error", err)
		e.guard.ask()
	}
}

// stoodWithin reports whether the shield has been seen to stand not longer ago than d.
func (g *guard) stoodWithin(d time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Since(g.stood) < d
}

// cutOff ends every rental that runs, all at once.
func (e *Engine) cutOff(ctx context.Context) error {
	held, err := e.Holdings(ctx)
	if err != nil {
		return err
	}
	var ending sync.WaitGroup
	failures := make([]error, len(held))
	for i, h := range held {
		if !h.Running {
			continue
		}
		e.verdicts.set(h.ContainerID, rental.Failf(rental.CodeIsolation, "The host's LAN could no longer be kept from the rental, so it was ended."))
		ending.Go(func() { failures[i] = e.Stop(ctx, h.ContainerID, 0) })
	}
	ending.Wait()
	return errors.Join(failures...)
}

// lowerShield takes the shield down when this agent leaves no rental behind.
func (e *Engine) lowerShield(ctx context.Context) {
	g := e.guard
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hands == nil || g.up.Mark == "" {
		return
	}
	call, cancel := bounded(ctx)
	defer cancel()
	left, err := e.api().ContainerList(call, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelManaged))})
	if err != nil || len(left) > 0 {
		return // a table that nobody needs does no harm
	}
	if err := g.hands.lower(ctx); err != nil {
		e.log.Warn("the shield stays up", "because", err)
		return
	}
	g.up, g.seen.verified = shield.Standing{}, time.Time{}
}

// info is what is told of the shield; g.mu is held.
func (g *guard) info(known facts, err error) rental.ShieldInfo {
	info := rental.ShieldInfo{State: rental.ShieldOn, How: g.how, Waived: g.AllowUnshielded}
	info.Blocked, info.ByRental = g.turned.today(time.Now())
	if err == nil {
		return info
	}
	info.State = rental.ShieldMissing
	info.Problem = "The host's LAN cannot be kept from rentals: the packet filter could not be changed."
	info.Fix = "The agent tries again by itself; its log says why. Running it as root always works with an engine on this machine."
	if errors.Is(err, errNoProgram) {
		info.Problem = "The host's LAN cannot be kept from rentals: this agent may not change the packet filter itself, and its program for that, distributed-agent-shield, is missing."
		info.Fix = "Put distributed-agent-shield beside this program, name it in isolation.program, or run the agent as root."
	}
	if found, ok := errors.AsType[*problem](err); ok {
		info.Problem, info.Fix = found.text, found.fix
	}
	if known.Unshieldable != "" {
		info.State = rental.ShieldOff
	}
	return info
}

// tellShield publishes what is known of the shield, and reports whether it differs.
func (e *Engine) tellShield(info rental.ShieldInfo) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.info.Shield
	if info.Since = before.Since; before.State != info.State {
		info.Since = time.Now()
	}
	e.info.Shield = info
	return !before.Equal(info)
}

// knows has what packets of a rental are counted for it.
func (g *guard) knows(there container.InspectResponse, id rental.ID) {
	if g == nil {
		return
	}
	addr, ok := addressOf(there)
	if !ok {
		return
	}
	g.mu.Lock()
	first := len(g.turned.owners) == 0
	g.turned.owners[addr] = id
	g.mu.Unlock()
	if first {
		g.ask() // from now on it is watched closely
	}
}

// forgets a rental that is gone.
func (g *guard) forgets(id rental.ID) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.turned.owners, func(_ netip.Addr, owner rental.ID) bool { return owner == id })
	delete(g.turned.byRental, id)
}

// addressOf is a container's address on its own network.
func addressOf(there container.InspectResponse) (netip.Addr, bool) {
	end := there.NetworkSettings.Networks[string(there.HostConfig.NetworkMode)]
	if end == nil {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(end.IPAddress)
	return addr, err == nil
}

// turnedAway adds up what the shield has turned away, over tables that are put up anew.
type turnedAway struct {
	seen     map[netip.Addr]uint64 // by the table that stands
	owners   map[netip.Addr]rental.ID
	byRental map[rental.ID]uint64
	day      string
	blocked  uint64 // today
}

func newTurnedAway() turnedAway {
	return turnedAway{seen: map[netip.Addr]uint64{}, owners: map[netip.Addr]rental.ID{}, byRental: map[rental.ID]uint64{}}
}

// add takes in the counters of the table that stands.
func (t *turnedAway) add(counters map[netip.Addr]uint64) {
	t.turn(time.Now())
	for addr, now := range counters {
		before := t.seen[addr]
		if now < before { // somebody has put up another table
			before = 0
		}
		t.seen[addr] = now
		t.blocked += now - before
		if id, ok := t.owners[addr]; ok && now > before {
			t.byRental[id] += now - before
		}
	}
}

// restart is for a table that was put up anew: it counts from zero.
func (t *turnedAway) restart() { clear(t.seen) }

// turn begins a new day.
func (t *turnedAway) turn(now time.Time) {
	if day := now.Format(time.DateOnly); day != t.day {
		t.day, t.blocked = day, 0
	}
}

// today is how much was turned away on this day, and of each rental since it began.
func (t *turnedAway) today(now time.Time) (uint64, map[rental.ID]uint64) {
	t.turn(now)
	if len(t.byRental) == 0 {
		return t.blocked, nil
	}
	return t.blocked, maps.Clone(t.byRental)
}

// unshieldableEngine names the kind of engine whose containers reach the LAN through a process of the user's own, by
// which no rule for forwarded packets holds; "" for one that forwards them.
func unshieldableEngine(said system.Info) string {
	switch {
	case strings.HasPrefix(said.OperatingSystem, "Docker Desktop"):
		return "Docker Desktop"
	case slices.Contains(said.SecurityOptions, "name=rootless"):
		return "Rootless Docker"
	}
	return ""
}

// remapped reports whether the engine maps containers' users, which a container in the host's network must be spared.
func remapped(said system.Info) bool { return slices.Contains(said.SecurityOptions, "name=userns") }
