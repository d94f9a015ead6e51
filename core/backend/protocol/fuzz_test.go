package protocol

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func seedFrames(f *testing.F) {
	for _, example := range examples() {
		frame, err := Encode(example.id, example.m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
	}
	for _, refusal := range refusals {
		if len(refusal.frame) < 4<<10 {
			f.Add([]byte(refusal.frame))
		}
	}
}

// checkDecoder holds for any frame: a refusal is a *DecodeError that can be answered, and what
// passes says the same when it is sent again.
func checkDecoder(t *testing.T, frame []byte, decode func([]byte) (Incoming, error)) Message {
	in, err := decode(frame)
	if err != nil {
		refusal, ok := errors.AsType[*DecodeError](err)
		if !ok || refusal.Err == nil || refusal.Err.Code == "" || refusal.Err.Message == "" {
			t.Fatalf("refused with %#v", err)
		}
		if _, err := Encode(refusal.ID, CommandResult{Error: refusal.Err}); err != nil {
			t.Fatalf("the refusal cannot be answered: %v", err)
		}
		return nil
	}
	again, err := Encode(in.ID, in.Data)
	if err != nil {
		if len(frame) > MaxFrameBytes/8 {
			return in.Data // escapes may have made it too large
		}
		t.Fatalf("encoding what was decoded: %v", err)
	}
	back, err := decode(again)
	if err != nil {
		t.Fatalf("decoding %s: %v", again, err)
	}
	if result, ok := in.Data.(*CommandResult); ok {
		canonical(t, result)
		canonical(t, back.Data.(*CommandResult))
	}
	in.Dropped = nil // it was not encoded
	if !reflect.DeepEqual(in, back) {
		t.Fatalf("first %#v\nthen  %#v\nframe %s", in.Data, back.Data, again)
	}
	return in.Data
}

// canonical turns a raw result into Go values: its text may be spaced and escaped in other ways.
func canonical(t *testing.T, result *CommandResult) {
	raw, ok := result.Result.(json.RawMessage)
	if !ok {
		return
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil && !strings.Contains(err.Error(), "cannot unmarshal number") {
		t.Fatal(err)
	}
	result.Result = value
}

func FuzzDecode(f *testing.F) {
	seedFrames(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if start, ok := checkDecoder(t, frame, Decode).(*StartInstance); ok {
			checkStart(t, start)
		}
	})
}

func FuzzDecodeFromAgent(f *testing.F) {
	seedFrames(f)
	f.Fuzz(func(t *testing.T, frame []byte) { checkDecoder(t, frame, DecodeFromAgent) })
}

// checkStart holds for every order that passes, whatever it was made from.
func checkStart(t *testing.T, m *StartInstance) {
	if !rentalPattern.MatchString(m.RentalID) || m.Image == "" || len(m.Image) > 512 || strings.ContainsAny(m.Image, " \x00\n\t;|&$`'\"\\") {
		t.Errorf("rental %q image %q", m.RentalID, m.Image)
	}
	if m.RAMLimit <= 0 || m.RAMLimit > MaxSize || m.DiskLimit < 0 || m.DiskLimit > MaxSize || m.ShmSize < 0 || m.ShmSize > MaxSize {
		t.Errorf("sizes %d %d %d", m.RAMLimit, m.DiskLimit, m.ShmSize)
	}
	if !(m.CPUCores > 0 && m.CPUCores <= 1024) || len(m.Command) > 128 || len(m.EnvVars) > 256 || len(m.PortMapping) > maxPorts {
		t.Errorf("%v cores, %d arguments, %d variables, %d ports", m.CPUCores, len(m.Command), len(m.EnvVars), len(m.PortMapping))
	}
	gpus := map[int]bool{}
	for _, index := range m.GPUIndices {
		if index < 0 || index > 63 || gpus[index] {
			t.Errorf("gpu_indices %v", m.GPUIndices)
		}
		gpus[index] = true
	}
	total := 0
	for name, value := range m.EnvVars {
		total += len(name) + len(value)
		if !envPattern.MatchString(name) || strings.Contains(value, "\x00") {
			t.Errorf("variable %q", name)
		}
	}
	if total > maxTextBytes {
		t.Errorf("%d bytes of environment", total)
	}
	for _, arg := range m.Command {
		if strings.Contains(arg, "\x00") {
			t.Errorf("argument %q", arg)
		}
	}
	public := map[string]bool{}
	for key, port := range m.PortMapping {
		end := PortKey{port, key.Protocol}.String()
		if key.Port == 0 || port == 0 || key.Protocol != "tcp" && key.Protocol != "udp" || public[end] {
			t.Errorf("port_mapping %v", m.PortMapping)
		}
		public[end] = true
	}
	if !m.ExpiresAt.IsZero() && m.ExpiresAt.Year() < 2000 {
		t.Errorf("expires_at %v", m.ExpiresAt)
	}
}
