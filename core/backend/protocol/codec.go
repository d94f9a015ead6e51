package protocol

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// Limits of a frame.
const (
	MaxFrameBytes = 256 << 10
	MaxDepth      = 16
	MaxIDChars    = 128
)

// Incoming is one checked message.
type Incoming struct {
	ID   string  // "" wants no answer
	Data Message // by pointer: *StartInstance, *Registered, …
	// Connection numbers the connection it came over. Ids are unique on one only, so the answer
	// belongs there and nowhere else.
	Connection uint64
	// Dropped is what was wrong with a part that Data goes without; nil: nothing.
	Dropped *Error
}

// DecodeError says why a frame was refused. ID is that of the frame where it could be read, so
// that the refusal can be answered.
type DecodeError struct {
	ID    string
	Event string
	Err   *Error
}

// Error implements error.
func (e *DecodeError) Error() string { return e.Err.Message }

// Unwrap gives the code and sentence to answer with.
func (e *DecodeError) Unwrap() error { return e.Err }

// Decode reads one frame of the backend. What it returns is within every bound of the contract,
// defaults filled in; every error is a *DecodeError.
func Decode(frame []byte) (Incoming, error) { return decode(frame, backendMessage) }

// DecodeFromAgent reads one frame of the agent, for the backend's side. The Result of a
// CommandResult is a json.RawMessage.
func DecodeFromAgent(frame []byte) (Incoming, error) { return decode(frame, agentMessage) }

// decode checks the frame as a whole, then its envelope, then what the event makes of its data.
func decode(frame []byte, messages func(event string) reader) (Incoming, error) {
	if f := checkFrame(frame); f != nil {
		return refuse("", "", f)
	}
	envelope, f := readObject(frame)
	if f != nil {
		return refuse("", "", f.orAt("frame"))
	}
	id := get(envelope, "id", text(0, MaxIDChars))
	event := need(envelope, "event", text(1, 64))
	switch {
	case envelope.fault != nil:
		return refuse(id, event, envelope.fault)
	case !within(frame, MaxDepth):
		return refuse(id, event, &fault{InvalidRequest, "frame", fmt.Sprintf("takes at most %d levels of nesting", MaxDepth)})
	}
	read := messages(event)
	if read == nil {
		return refuse(id, event, &fault{UnknownEvent, "event", fmt.Sprintf("%.64q is not known here", event)})
	}
	data := &object{fields: map[string]json.RawMessage{}}
	if raw, ok := envelope.take("data"); ok {
		if data, f = readObject(raw); f != nil {
			return refuse(id, event, f.orAt("data"))
		}
	}
	m := read(data)
	if data.fault != nil {
		return refuse(id, event, data.fault)
	}
	in := Incoming{ID: id, Data: m}
	if f := data.dropped; f != nil {
		in.Dropped = &Error{Code: f.code, Message: f.Error()}
	}
	return in, nil
}

func refuse(id, event string, f *fault) (Incoming, error) {
	return Incoming{}, &DecodeError{ID: id, Event: event, Err: &Error{Code: f.code, Message: f.Error()}}
}

func checkFrame(frame []byte) *fault {
	switch {
	case len(frame) > MaxFrameBytes:
		return &fault{InvalidRequest, "frame", fmt.Sprintf("takes at most %d bytes, got %d", MaxFrameBytes, len(frame))}
	case !utf8.Valid(frame):
		return &fault{InvalidRequest, "frame", "takes valid UTF-8"}
	case !json.Valid(frame):
		return &fault{InvalidRequest, "frame", "takes one JSON object"}
	}
	return nil
}

// within reports whether valid JSON nests at most depth deep, in one pass without recursion.
func within(frame []byte, depth int) bool {
	level, quoted := 0, false
	for i := 0; i < len(frame); i++ {
		switch c := frame[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if level++; level > depth {
				return false
			}
		case c == '}' || c == ']':
			level--
		}
	}
	return true
}
