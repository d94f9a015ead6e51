package protocol

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/distributedcompute/host-agent/core/secret"
)

// shape reads one value within its bounds. A nil raw is an absent value and always a fault, which
// says what would have been taken.
type shape[T any] func(raw json.RawMessage) (T, *fault)

// leaf makes the shape of a single value. show puts what was got into the fault.
func leaf[T any](takes string, show func(json.RawMessage) string, parse func(json.RawMessage) (T, bool)) shape[T] {
	return func(raw json.RawMessage) (T, *fault) {
		if len(raw) > 0 {
			if value, ok := parse(raw); ok {
				return value, nil
			}
		}
		var zero T
		return zero, &fault{InvalidRequest, "", "takes " + takes + ", got " + show(raw)}
	}
}

// where narrows a text by a rule.
func where(takes string, rule func(string) bool) shape[string] {
	return leaf(takes, shown, func(raw json.RawMessage) (string, bool) {
		s, ok := parseText(raw)
		return s, ok && rule(s)
	})
}

func parseText(raw json.RawMessage) (s string, ok bool) {
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return s, !strings.ContainsRune(s, 0)
}

func chars(low, high int) string {
	if low > 0 {
		return fmt.Sprintf("text of %d to %d characters without NUL", low, high)
	}
	return fmt.Sprintf("text of at most %d characters without NUL", high)
}

func between(s string, low, high int) bool {
	n := utf8.RuneCountInString(s)
	return n >= low && n <= high
}

// text is any text without NUL.
func text(low, high int) shape[string] {
	return where(chars(low, high), func(s string) bool { return between(s, low, high) })
}

// private is text that no fault may show: secrets, and what a renter runs.
func private(low, high int) shape[string] {
	return leaf(chars(low, high), kind, func(raw json.RawMessage) (string, bool) {
		s, ok := parseText(raw)
		return s, ok && between(s, low, high)
	})
}

func secretText(high int) shape[secret.String] {
	return convert(private(0, high), secret.New)
}

// label is one short line that people will read: nothing in it moves the cursor.
func label(high int) shape[string] {
	return where(fmt.Sprintf("one line of at most %d characters", high), func(s string) bool {
		return between(s, 0, high) && !strings.ContainsFunc(s, unicode.IsControl)
	})
}

// prose is text of several lines that people will read.
func prose(high int) shape[string] {
	return where(fmt.Sprintf("text of at most %d characters without control characters", high), func(s string) bool {
		return between(s, 0, high) && !strings.ContainsFunc(s, func(r rune) bool {
			return unicode.IsControl(r) && r != '\n' && r != '\t'
		})
	})
}

func oneOf[S ~string](words ...S) shape[S] {
	list := make([]string, len(words))
	for i, word := range words {
		list[i] = string(word)
	}
	return leaf("one of "+strings.Join(list, ", "), shown, func(raw json.RawMessage) (S, bool) {
		s, ok := parseText(raw)
		for _, word := range words {
			if ok && s == string(word) {
				return word, true
			}
		}
		return "", false
	})
}

func convert[A, B any](s shape[A], to func(A) B) shape[B] {
	return func(raw json.RawMessage) (B, *fault) {
		value, f := s(raw)
		if f != nil {
			var zero B
			return zero, f
		}
		return to(value), nil
	}
}

var (
	rentalPattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
	containerPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)
	nodePattern      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$`)
	imagePattern     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,511}$`)
	decimalPattern   = regexp.MustCompile(`^-?[0-9]{1,15}(\.[0-9]{1,12})?$`)
	currencyPattern  = regexp.MustCompile(`^[A-Z]{3,8}$`)
)

func rentalID() shape[string] {
	return where("1 to 63 letters, digits, '_', '.' or '-', starting with a letter or digit", rentalPattern.MatchString)
}

func containerID() shape[string] {
	return where("1 to 128 letters, digits, '_', '.' or '-', starting with a letter or digit", containerPattern.MatchString)
}

func nodeID() shape[string] {
	return where("1 to 128 letters, digits, '_', '.', ':' or '-', starting with a letter or digit", nodePattern.MatchString)
}

func imageName() shape[string] {
	return where(`an image such as "docker.io/library/debian:12" of at most 512 characters`, imagePattern.MatchString)
}

// amount is money: a decimal text, "" where it is not known.
func amount() shape[string] {
	return where(`a decimal number as text, such as "0.42"`, func(s string) bool { return s == "" || decimalPattern.MatchString(s) })
}

// price is money that someone pays: never negative.
func price() shape[string] {
	return where(`a decimal number as text, at least 0, such as "0.42"`, func(s string) bool {
		return s == "" || decimalPattern.MatchString(s) && s[0] != '-'
	})
}

func currency() shape[string] {
	return where(`a currency such as "USD"`, func(s string) bool { return s == "" || currencyPattern.MatchString(s) })
}

func day() shape[string] {
	return where(`a day such as "2026-11-20"`, func(s string) bool {
		_, err := time.Parse(time.DateOnly, s)
		return err == nil
	})
}

// webAddress is something a browser will be asked to open.
func webAddress() shape[string] {
	return where("an https address of at most 2048 characters", func(s string) bool {
		if s == "" {
			return true
		}
		u, err := url.Parse(s)
		return err == nil && len(s) <= 2048 && u.Scheme == "https" && u.Hostname() != "" && u.User == nil
	})
}

func hostPort() shape[string] {
	return where(`a host and port such as "relay.example.com:7000"`, func(s string) bool {
		host, port, err := net.SplitHostPort(s)
		if err != nil || host == "" || len(s) > 300 || strings.ContainsAny(s, " \t\r\n/@") {
			return false
		}
		n, err := strconv.ParseUint(port, 10, 16)
		return err == nil && n > 0
	})
}

func boolean() shape[bool] {
	return leaf("true or false", shown, func(raw json.RawMessage) (bool, bool) {
		return string(raw) == "true", string(raw) == "true" || string(raw) == "false"
	})
}

func whole[N int | int64 | uint16](low, high N) shape[N] {
	return leaf(fmt.Sprintf("a whole number from %d to %d", low, high), shown, func(raw json.RawMessage) (N, bool) {
		n, ok := parseWhole(raw)
		return N(n), ok && n >= int64(low) && n <= int64(high)
	})
}

// parseWhole takes 5.0 for 5: many a backend writes all its numbers so.
func parseWhole(raw json.RawMessage) (int64, bool) {
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, true
	}
	n, ok := parseNumber(raw)
	return int64(n), ok && n == math.Trunc(n) && math.Abs(n) <= maxInteger
}

func counter() shape[uint64] {
	return leaf("a whole number, at least 0", shown, func(raw json.RawMessage) (uint64, bool) {
		n, err := strconv.ParseUint(string(raw), 10, 64)
		return n, err == nil
	})
}

func number(low, high float64) shape[float64] {
	return leaf(fmt.Sprintf("a number from %g to %g", low, high), shown, func(raw json.RawMessage) (float64, bool) {
		n, ok := parseNumber(raw)
		return n, ok && n >= low && n <= high
	})
}

func above(low, high float64) shape[float64] {
	return leaf(fmt.Sprintf("a number above %g up to %g", low, high), shown, func(raw json.RawMessage) (float64, bool) {
		n, ok := parseNumber(raw)
		return n, ok && n > low && n <= high
	})
}

func parseNumber(raw json.RawMessage) (float64, bool) {
	n, err := strconv.ParseFloat(string(raw), 64)
	return n, err == nil && raw[0] != '"' && !math.IsInf(n, 0)
}

// instant is a moment, in UTC.
func instant() shape[time.Time] {
	return leaf(`a time such as "2026-11-20T10:00:00Z"`, shown, parseTime)
}

// future is a moment that orders something; the years before 2000 are the mark of an unset value,
// which must not pass as "no limit".
func future() shape[time.Time] {
	return leaf(`a time such as "2026-11-20T10:00:00Z", after the year 2000`, shown, func(raw json.RawMessage) (time.Time, bool) {
		t, ok := parseTime(raw)
		return t, ok && t.Year() >= 2000
	})
}

func parseTime(raw json.RawMessage) (time.Time, bool) {
	s, ok := parseText(raw)
	if !ok {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, s)
	t = t.UTC()
	return t, err == nil && t.Year() >= 1 && t.Year() <= 9999
}

func bytesSize() shape[Size] {
	return leaf(sizeTakes, shown, func(raw json.RawMessage) (Size, bool) {
		var s Size
		err := s.UnmarshalJSON(raw)
		return s, err == nil && s > 0
	})
}

// list reads at most high values. An empty list reads as nil.
func list[T any](high int, of shape[T]) shape[[]T] {
	return func(raw json.RawMessage) ([]T, *fault) {
		takes := fmt.Sprintf("takes a list of at most %d", high)
		var elements []json.RawMessage
		if kind(raw) != "a list" || json.Unmarshal(raw, &elements) != nil {
			return nil, &fault{InvalidRequest, "", takes + ", got " + kind(raw)}
		}
		if len(elements) > high {
			return nil, &fault{InvalidRequest, "", fmt.Sprintf("%s, got %d", takes, len(elements))}
		}
		var values []T
		for i, element := range elements {
			value, f := of(element)
			if f != nil {
				return nil, f.under("[" + strconv.Itoa(i) + "]")
			}
			values = append(values, value)
		}
		return values, nil
	}
}

// distinct narrows a list to one without repetitions.
func distinct[T comparable](of shape[[]T]) shape[[]T] {
	return func(raw json.RawMessage) ([]T, *fault) {
		values, f := of(raw)
		seen := make(map[T]bool, len(values))
		for i, value := range values {
			if seen[value] {
				return nil, &fault{InvalidRequest, "[" + strconv.Itoa(i) + "]", fmt.Sprintf("takes a value once, got %v again", value)}
			}
			seen[value] = true
		}
		return values, f
	}
}

// nullable lets null stand for what could not be measured.
func nullable[T any](of shape[T]) shape[*T] {
	return func(raw json.RawMessage) (*T, *fault) {
		if string(raw) == "null" {
			return nil, nil
		}
		value, f := of(raw)
		return &value, f
	}
}

// nested reads an object.
func nested[T any](read func(*object) T) shape[T] {
	return func(raw json.RawMessage) (T, *fault) {
		o, f := readObject(raw)
		if f != nil {
			var zero T
			return zero, f
		}
		value := read(o)
		return value, o.fault
	}
}
