package protocol

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes; on the wire a number, or a Docker size string such as "16g".
type Size int64

// MaxSize is the largest Size taken: 1 PiB.
const MaxSize Size = 1 << 50

const sizeTakes = `bytes as a number or a size such as "512m" or "16g", above 0 up to 1 PiB`

var errSize = errors.New("size: takes " + sizeTakes)

// ParseSize reads "1073741824", "512m", "1.5g", "16GiB": units are powers of 1024, as in Docker.
func ParseSize(s string) (Size, error) {
	digits := strings.TrimRight(s, "bBiIkKmMgGtTpP ")
	unit := strings.TrimPrefix(strings.ToLower(s[len(digits):]), " ")
	value, err := strconv.ParseFloat(digits, 64)
	if err != nil || strings.ContainsFunc(digits, func(r rune) bool { return (r < '0' || r > '9') && r != '.' }) {
		return 0, errSize
	}
	shift := map[string]int{
		"": 0, "b": 0,
		"k": 10, "kb": 10, "kib": 10,
		"m": 20, "mb": 20, "mib": 20,
		"g": 30, "gb": 30, "gib": 30,
		"t": 40, "tb": 40, "tib": 40,
		"p": 50, "pb": 50, "pib": 50,
	}
	power, ok := shift[unit]
	bytes := math.Ldexp(value, power)
	if !ok || bytes > float64(MaxSize) {
		return 0, errSize
	}
	return Size(bytes), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Size) UnmarshalJSON(raw []byte) error {
	if string(raw) == "null" {
		return nil
	}
	var text string
	if len(raw) > 0 && raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return errSize
		}
		size, err := ParseSize(text)
		*s = size
		return err
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 0 || n > int64(MaxSize) {
		return errSize
	}
	*s = Size(n)
	return nil
}
