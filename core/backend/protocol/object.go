package protocol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// reader makes a message of its data; what is wrong with the data it leaves in the object's fault.
type reader func(*object) Message

// fault is what is wrong with a field.
type fault struct {
	code ErrorCode
	path string // "port_mapping.22", "gpu_indices[1]"
	text string // "takes …, got …"
}

// Error implements error.
func (f *fault) Error() string { return f.path + ": " + f.text }

// under puts the fault below a field or element of what holds it.
func (f *fault) under(parent string) *fault {
	path := parent + "." + f.path
	switch {
	case f.path == "":
		path = parent
	case f.path[0] == '[':
		path = parent + f.path
	}
	return &fault{f.code, path, f.text}
}

// orAt names the place of a fault that has none yet.
func (f *fault) orAt(path string) *fault {
	if f.path != "" {
		return f
	}
	return f.under(path)
}

// object is a JSON object being read field by field. The first fault found stays.
type object struct {
	names   []string // in the order of the text
	fields  map[string]json.RawMessage
	known   map[string]bool // asked for by whoever reads
	fault   *fault
	dropped *fault // of a field that can be done without
}

// readObject splits a valid JSON value that must be an object without repeated names: which of
// two values counts would be anyone's guess. The path of its fault is "" where raw is no object.
func readObject(raw json.RawMessage) (*object, *fault) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, &fault{InvalidRequest, "", "takes an object, got " + kind(raw)}
	}
	o := &object{fields: map[string]json.RawMessage{}, known: map[string]bool{}}
	for decoder.More() {
		token, err := decoder.Token()
		name, ok := token.(string)
		var value json.RawMessage
		if err != nil || !ok || decoder.Decode(&value) != nil {
			return nil, &fault{InvalidRequest, "", "takes a valid object"}
		}
		if _, twice := o.fields[name]; twice {
			return nil, &fault{InvalidRequest, short(name), "takes one value, got it twice"}
		}
		o.names = append(o.names, name)
		o.fields[name] = value
	}
	return o, nil
}

// take gives the value of a field; null is the same as absent.
func (o *object) take(name string) (json.RawMessage, bool) {
	if o.known != nil {
		o.known[name] = true
	}
	raw, ok := o.fields[name]
	if !ok || string(raw) == "null" {
		return nil, false
	}
	return raw, true
}

func (o *object) fail(f *fault) {
	if o.fault == nil {
		o.fault = f
	}
}

// refuseUnknown refuses by name every field nobody asked for, the forbidden ones first. It outranks
// other faults: a renter who asked for what he cannot have is told so before anything else.
func (o *object) refuseUnknown(of string) {
	var unknown *fault
	for _, name := range o.names {
		if o.known[name] {
			continue
		}
		if forbidden(name) {
			o.fault = &fault{ForbiddenOption, short(name), "is refused whatever its value: it could lead out of the container"}
			return
		}
		if unknown == nil {
			unknown = &fault{InvalidRequest, short(name), "is not a field of " + of}
		}
	}
	if unknown != nil {
		o.fault = unknown
	}
}

// forbidden reports whether a field of that name could be used to leave the container.
func forbidden(name string) bool {
	switch strings.ToLower(name) {
	case "privileged", "volumes", "mounts", "binds", "devices", "cap_add", "security_opt", "network_mode",
		"pid_mode", "ipc_mode", "userns_mode", "runtime", "gpus", "sysctls", "extra_hosts":
		return true
	}
	return false
}

// get reads an optional field: absent gives the zero value.
func get[T any](o *object, name string, s shape[T]) T {
	value, _ := lookup(o, name, s)
	return value
}

// getOr reads an optional field that has a default.
func getOr[T any](o *object, name string, s shape[T], otherwise T) T {
	if value, ok := lookup(o, name, s); ok {
		return value
	}
	return otherwise
}

// getPtr reads an optional field whose absence means something of its own.
func getPtr[T any](o *object, name string, s shape[T]) *T {
	if value, ok := lookup(o, name, s); ok {
		return &value
	}
	return nil
}

// spare reads an optional field that the rest can do without: a malformed one is left out.
func spare[T any](o *object, name string, s shape[T]) *T {
	raw, ok := o.take(name)
	if !ok {
		return nil
	}
	value, f := s(raw)
	if f != nil {
		o.dropped = f.under(name)
		return nil
	}
	return &value
}

// need reads a required field.
func need[T any](o *object, name string, s shape[T]) T {
	value, ok := lookup(o, name, s)
	if _, present := o.take(name); !ok && !present {
		_, f := s(nil)
		o.fail(f.under(name))
	}
	return value
}

func lookup[T any](o *object, name string, s shape[T]) (value T, ok bool) {
	raw, ok := o.take(name)
	if !ok {
		return value, false
	}
	value, f := s(raw)
	if f != nil {
		o.fail(f.under(name))
		var zero T
		return zero, false
	}
	return value, true
}

// short bounds a name that came from outside, and cuts what follows a '=': "PASSWORD=…" is a
// mistake people make.
func short(name string) string {
	name, _, _ = strings.Cut(name, "=")
	quoted := fmt.Sprintf("%.64q", name)
	if plain := quoted[1 : len(quoted)-1]; plain != "" && plain == name {
		return plain
	}
	return quoted
}

// kind says what a value is without showing it.
func kind(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "nothing"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "text"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "a number"
}

// shown quotes a short value and names the kind of a long one. Never for what may be secret.
func shown(raw json.RawMessage) string {
	switch kind(raw) {
	case "text":
		var s string
		_ = json.Unmarshal(raw, &s) // checked to be valid with the frame
		return fmt.Sprintf("%.40q", s)
	case "a number", "true or false":
		return fmt.Sprintf("%.40s", raw)
	}
	return kind(raw)
}
