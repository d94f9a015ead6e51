package backend

import "time"

// timing is every duration of the link that does not come from the contract's messages.
type timing struct {
	connect time.Duration // name resolution and TCP
	tls     time.Duration
	upgrade time.Duration
	dial    time.Duration // all of the above

	look time.Duration // in a pause, whether the machine has slept

	ping     time.Duration // ±10 %
	silence  time.Duration // without any frame: the connection is dead
	write    time.Duration // one frame
	flush    time.Duration // what is queued, on the way out
	farewell time.Duration // the closing handshake

	healthy time.Duration // a registered connection of this age forgives the failures before it
	lasting time.Duration // the same for a backend that does not answer register
	keep    time.Duration // final statuses nobody has confirmed
}

// contractTiming is what docs/protocol.md promises. A dead peer is noticed 30 s after its last
// frame: the latest ping goes out after 22 s and has 8 s to be answered.
func contractTiming() timing {
	return timing{
		connect: 10 * time.Second,
		tls:     10 * time.Second,
		upgrade: 10 * time.Second,
		dial:    20 * time.Second,

		look: 5 * time.Second,

		ping:     20 * time.Second,
		silence:  30 * time.Second,
		write:    10 * time.Second,
		flush:    2 * time.Second,
		farewell: time.Second,

		healthy: time.Minute,
		lasting: 10 * time.Minute,
		keep:    7 * 24 * time.Hour,
	}
}
