// Package hardware tells what this machine has and how busy it is.
//
// A survey ([Take]) looks once and in full; a [Meter] reads the few values of a heartbeat over
// and over at little cost. What cannot be measured is nil, with a [Gap] that says what to do about
// it, never an error or a zero. A [SpeedTest] measures the network where the operator says.
package hardware
