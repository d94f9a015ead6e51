package backend

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// The public ports that are assigned. They lie below the ports that systems give to outgoing
// connections, so that nothing takes one between its choice and its use.
const (
	FirstPublicPort = 20000
	LastPublicPort  = 29999
)

// PublicPorts assigns a public port to each port of a container. They are free on loopback, where
// the sandbox's relay listens, and are assigned once.
func (b *Backend) PublicPorts(container ...protocol.PortKey) (protocol.PortMapping, error) {
	mapping := protocol.PortMapping{}
	for _, key := range container {
		port, err := b.publicPort()
		if err != nil {
			return nil, err
		}
		mapping[key] = port
	}
	return mapping, nil
}

func (b *Backend) publicPort() (uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range 1000 {
		port := uint16(FirstPublicPort + rand.IntN(LastPublicPort-FirstPublicPort+1))
		if !b.ports[port] && free(port) {
			b.ports[port] = true
			return port, nil
		}
	}
	return 0, errors.New("no free public port was found on 127.0.0.1")
}

// free reports whether a port can be taken for TCP and for UDP.
func free(port uint16) bool {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer listener.Close()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}
