// Package core is the map of the agent's parts. It holds no code of its own but the test of the
// import rules.
//
//	agent      decides: admits orders, allocates GPUs, keeps the one picture of the host
//	rental     the life of a rental and its ledger on disk
//	docker     rental.Engine on the Docker Engine API; policy.go is the host's safety
//	tunnel     rental.Relay on the frp client
//	backend    the WSS link; backend/protocol is the wire contract
//	hardware   what this machine has, and how busy it is
//	control    the local socket that CLI and tray use
//	config     agent.yaml, .env, environment, flags, directories
//	keyring    the host key at rest
//	secret     text that prints redacted
//
// docs/architecture.md tells how they are joined and why.
package core
