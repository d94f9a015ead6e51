package tunnel

import "time"

// pingEvery keeps a relay content that counts heartbeats, and finds a dead connection within twice
// that time.
const pingEvery = 20 * time.Second

// waiter waits for the answer to a ping, which proves that the relay has dealt with all before it.
type waiter struct {
	ping   int
	closed chan struct{}
}

// ping asks the relay for an answer, and returns the ping's number.
func (k *keeper) ping() int {
	k.pings++
	k.session.ping()
	return k.pings
}

// checkPulse pings the relay, and gives the session up if the last check is not answered yet.
func (k *keeper) checkPulse() {
	switch {
	case k.session == nil:
	case k.pongs < k.pulse:
		k.session.fail(errSilent)
	default:
		k.pulse = k.ping()
	}
}

func (k *keeper) ponged() {
	k.pongs++
	for len(k.waiting) > 0 && k.waiting[0].ping <= k.pongs {
		close(k.waiting[0].closed)
		k.waiting = k.waiting[1:]
	}
}
