// Package backend keeps one authenticated WebSocket session with the backend alive: it registers,
// sends heartbeats, takes commands in and brings answers and statuses out, over lost connections,
// restarts of the backend and hostile frames.
//
// [Link] is the whole of it. What is to be sent is queued and never waits for the network; what
// arrives is checked by the protocol package before anyone sees it. docs/protocol.md is the contract.
package backend
