// Package engine runs a private, real Docker Engine for the demo and the tests: its own dockerd
// with its own data, socket and network namespace, so that nothing of the machine it runs on is
// touched and nothing is left behind. A stand-in for NVIDIA's hook replaces the graphics cards that
// a test machine does not have; everything else is the engine that hosts run.
//
// The engine is the one that the machine has installed, or, where the environment's ENGINE_DIR names a directory that
// a package of Docker's was unpacked into, that one, with the machine's runc.
//
// A program that uses it wraps its work in [Isolated], a test package its TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(engine.Isolated(m.Run)) }
package engine

import "os"

// Options say how a private engine is set up.
type Options struct {
	// Dir takes all of the engine's files and must be empty or absent; it is removed by Stop.
	// "" is a fresh one in memory, below /run. Its path is bounded to 60 bytes, because sockets live in it.
	Dir string
	// LiveRestore keeps containers running while the engine is away.
	LiveRestore bool
	// FakeNVIDIA installs the stand-in for the NVIDIA container toolkit.
	FakeNVIDIA bool
	// Storage gives the engine's data a file system of its own, "ext4" or "btrfs", in a file in Dir.
	// "" leaves it on Dir's.
	Storage string
	// StorageBytes is how large that file system is; 0: 1 GiB. Its file takes what is written to it.
	StorageBytes int64
	// Beside is set where another private engine runs already: this one gets a network namespace of its own
	// then, since it would flush the other's firewall, and nothing but its API is reached from outside.
	Beside bool
	// Log takes the engine's log; nil is a file in Dir.
	Log *os.File
}

// HookCall is one container start with GPUs, as the stand-in for NVIDIA's hook saw it.
type HookCall struct {
	ContainerID string   `json:"container_id"`
	Devices     []string `json:"devices"` // the identifiers asked for, in order
	Env         []string `json:"env"`     // the whole environment of the container, "NAME=value"
}

// CDIModeRefusal is what NVIDIA's hook says on a host whose toolkit is set to descriptions of devices (CDI).
const CDIModeRefusal = "invoking the NVIDIA Container Runtime Hook directly (e.g. specifying the docker --gpus flag) is not supported. " +
	"Please use the NVIDIA Container Runtime (e.g. specify the --runtime=nvidia flag) instead"
