// Package docker runs rentals on a Docker Engine. It is the only package that knows Docker.
//
// What a renter's container may do is decided in one pure function, [newPlan] in policy.go; nothing
// else in the agent makes a container. Everything made carries labels with a keyed hash, so that
// neither a renter's image nor the host's own containers can pass for the agent's.
package docker
