package protocol

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// PortMapping maps "22" or "53/udp" (container side) to a public port. Decoding checks both sides.
type PortMapping map[PortKey]uint16

// PortKey is the container side of a port mapping.
type PortKey struct {
	Port     uint16
	Protocol string // "tcp" or "udp"
}

const maxPorts = 64

// String gives "22" or "53/udp".
func (k PortKey) String() string {
	if k.Protocol == "udp" {
		return strconv.Itoa(int(k.Port)) + "/udp"
	}
	return strconv.Itoa(int(k.Port))
}

// MarshalText implements encoding.TextMarshaler.
func (k PortKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads "22", "22/tcp" or "53/udp".
func (k *PortKey) UnmarshalText(text []byte) error {
	port, protocol, named := strings.Cut(string(text), "/")
	if !named {
		protocol = "tcp"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '0' || protocol != "tcp" && protocol != "udp" {
		return fmt.Errorf(`container port %.40q: takes 1 to 65535, with "/udp" for UDP`, text)
	}
	*k = PortKey{Port: uint16(n), Protocol: protocol}
	return nil
}

// readPorts reads a port_mapping in which no port is meant twice on either side.
func readPorts(raw json.RawMessage) (PortMapping, *fault) {
	o, f := readObject(raw)
	if f != nil {
		return nil, f
	}
	if len(o.names) > maxPorts {
		return nil, &fault{InvalidRequest, "", fmt.Sprintf("takes at most %d ports, got %d", maxPorts, len(o.names))}
	}
	type end struct {
		port     uint16
		protocol string
	}
	var mapping PortMapping
	taken := map[end]PortKey{}
	for _, name := range o.names {
		var key PortKey
		if key.UnmarshalText([]byte(name)) != nil {
			return nil, &fault{InvalidRequest, short(name), `takes a container port from 1 to 65535 as its name, with "/udp" for UDP`}
		}
		public := need(o, name, whole[uint16](1, 65535))
		if o.fault != nil {
			return nil, o.fault
		}
		if _, twice := mapping[key]; twice {
			return nil, &fault{InvalidRequest, short(name), "takes a container port once, got it twice"}
		}
		if other, twice := taken[end{public, key.Protocol}]; twice {
			return nil, &fault{InvalidRequest, short(name), fmt.Sprintf("takes a public port of its own, got %d, which is that of %s", public, other)}
		}
		if mapping == nil {
			mapping = PortMapping{}
		}
		mapping[key], taken[end{public, key.Protocol}] = public, key
	}
	return mapping, nil
}
