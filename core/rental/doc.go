// Package rental takes a rental from accepted to settled, whatever happens in between, and
// survives the agent's own death.
//
// A [Book] holds all rentals of the host; each has a life of its own, one goroutine that drives it
// through its states by means of an [Engine] and a [Relay]. What a life is about to do is on disk
// before it is done, so that the next agent can take over where this one was killed. The package
// knows neither Docker nor frp nor the wire.
//
// # How rentals end
//
// Stopped is an end that somebody wanted: the renter's program ended with exit code 0, or
// [Book.End] was called, or the time was up. In the last two cases the final status may carry a
// [Failure] that says why (expired, stopped_by_host). Failed is what broke: a step that did not
// succeed, a program that ended with another exit code or ran out of memory (container_failed), a
// container that is gone, or that went down with the host while no agent was there (interrupted).
// Either is told only when routes, container and network are gone; until then a rental is Stopping,
// however often that must be tried.
//
// A rental that has been up is never failed because engine or relay are away: it is kept in its
// state, with a Trouble, until they are back or the rental ends. A new one is, after a bound.
//
// # The ledger
//
// One file per rental, named after the hexadecimal form of its ID: a heading with the order, then
// a line for each state, the last of which holds. Promises (an order taken on, an end ordered) and
// what must come before an act (the container's id before its start, the end before the removal)
// wait for the medium; the rest a killed agent leaves behind too, and a power cut may undo without
// harm. Sequence numbers are reserved in blocks, so a status needs no write to be told. The final
// write drops the renter's environment and command from the file. A rental whose file is damaged beyond
// its last line cannot be gone on with: what of it is on the engine is removed, and it has failed (interrupted).
package rental
