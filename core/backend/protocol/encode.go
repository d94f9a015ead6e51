package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// envelope is a frame.
type envelope struct {
	Event string `json:"event"`
	ID    string `json:"id,omitempty"`
	Data  any    `json:"data"`
}

// wired are messages that look different on the wire than Go's encoding would have them: lists
// that are never null, secrets that are carried.
type wired interface{ wire() any }

// ErrTooLarge is a frame above MaxFrameBytes.
var ErrTooLarge = errors.New("the frame is too large")

// Encode makes the frame of a message; id "" wants no answer. It is the one place where the
// secrets of a message leave their redacted form. A frame above MaxFrameBytes is ErrTooLarge.
func Encode(id string, m Message) ([]byte, error) {
	frame := envelope{m.Event(), id, m}
	if w, ok := m.(wired); ok {
		frame.Data = w.wire()
	}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(&frame); err != nil {
		return nil, fmt.Errorf("encoding %s: %w", frame.Event, err)
	}
	encoded := bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))
	if len(encoded) > MaxFrameBytes {
		return nil, fmt.Errorf("encoding %s: %w: takes at most %d bytes, got %d", frame.Event, ErrTooLarge, MaxFrameBytes, len(encoded))
	}
	return encoded, nil
}

// listed makes an empty list of none, so that it is never null on the wire.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (m Register) wire() any {
	m.Features = listed(m.Features)
	m.Hardware.GPUs = listed(m.Hardware.GPUs)
	m.Hardware.Warnings = listed(m.Hardware.Warnings)
	if m.Hardware.Docker != nil {
		docker := *m.Hardware.Docker
		docker.Runtimes = listed(docker.Runtimes)
		m.Hardware.Docker = &docker
	}
	m.Offer = m.Offer.listed()
	instances := make([]InstanceStatus, len(m.Instances))
	for i, instance := range m.Instances {
		instance.Ports = listed(instance.Ports)
		instances[i] = instance
	}
	m.Instances = instances
	return m
}

func (m Heartbeat) wire() any {
	m.Metrics.CPUTemp = measured(m.Metrics.CPUTemp)
	m.Metrics.CPUUtilization = measured(m.Metrics.CPUUtilization)
	m.Metrics.GPUTemp = readings(m.Metrics.GPUTemp)
	m.Metrics.GPUUtilization = readings(m.Metrics.GPUUtilization)
	m.Metrics.GPUMemoryUsedMB = listed(m.Metrics.GPUMemoryUsedMB)
	m.Metrics.GPUPowerW = readings(m.Metrics.GPUPowerW)
	m.Metrics.GPUFanPercent = readings(m.Metrics.GPUFanPercent)
	return &m
}

// measured makes null of what is no number: JSON has none such, and one bad sensor must not cost a beat.
func measured(value *float64) *float64 {
	if value == nil || math.IsNaN(*value) || math.IsInf(*value, 0) {
		return nil
	}
	return value
}

func readings(values []*float64) []*float64 {
	numbers := make([]*float64, len(values))
	for i, value := range values {
		numbers[i] = measured(value)
	}
	return numbers
}

func (s InstanceStatus) wire() any {
	s.Ports = listed(s.Ports)
	return &s
}

func (m CommandResult) wire() any {
	if w, ok := m.Result.(wired); ok {
		m.Result = w.wire()
	}
	return &m
}

func (m NodeStatus) wire() any {
	m.Offer = m.Offer.listed()
	return &m
}

func (o Offer) wire() any { return o.listed() }

func (o Offer) listed() Offer {
	o.GPUIndices = listed(o.GPUIndices)
	return o
}

func (m Earnings) wire() any {
	m.History = listed(m.History)
	return m
}

// The wire forms below put the plain secret over the redacted field of the same name.
type (
	wireRegistered struct {
		Registered
		Relay    *wireRelay `json:"relay"`
		Earnings any        `json:"earnings"`
	}
	wireRelay struct {
		Relay
		Token string `json:"token"`
	}
	wireStart struct {
		StartInstance
		RegistryAuth *wireAuth `json:"registry_auth,omitempty"`
	}
	wireAuth struct {
		RegistryAuth
		Password string `json:"password"`
	}
)

func (m Registered) wire() any {
	w := wireRegistered{Registered: m}
	if m.Relay != nil {
		w.Relay = &wireRelay{*m.Relay, m.Relay.Token.Reveal()}
	}
	if m.Earnings != nil {
		w.Earnings = m.Earnings.wire()
	}
	return &w
}

func (m StartInstance) wire() any {
	m.GPUIndices = listed(m.GPUIndices)
	w := wireStart{StartInstance: m}
	if m.RegistryAuth != nil {
		w.RegistryAuth = &wireAuth{*m.RegistryAuth, m.RegistryAuth.Password.Reveal()}
	}
	return &w
}
