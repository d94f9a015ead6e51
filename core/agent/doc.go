// Package agent decides: it accepts or refuses what the backend orders, allocates GPUs, keeps the
// one picture of the host, and starts and stops every part in order.
//
// [Agent.Run] is a single loop (loop.go) that owns all host state; everyone else sends it messages
// (event.go, intake.go) or reads the [Status] it published last (board.go). admit.go asks "may I?",
// orders.go and image.go ask "what exactly?": nothing from the wire reaches a rental without
// passing both. What is slow runs in lanes.go, away from the loop and in order where order matters.
// wishes.go holds what owner and backend want of the node, crew.go the parts and the order in which
// they leave, wire.go every translation into the backend's words.
package agent
