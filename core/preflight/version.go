package preflight

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// version is an upstream version and what a builder has added to it.
type version struct {
	numbers []int
	pre     []int  // of a release candidate, nil: a release
	suffix  string // what is left, such as "+dfsg1" or "-130-generic"
}

const longestVersion = 100 // characters

// shape is a number of parts with a release candidate and a builder's words.
var shape = regexp.MustCompile(`^v?([0-9]{1,9}(?:\.[0-9]{1,9}){0,5})(?:[-~.]?(?:rc|beta|alpha)[-.]?([0-9]{0,9}))?(.*)$`)

// parse reads a version as programs print it. It is not ok where that begins with no number.
func parse(text string) (v version, ok bool) {
	text = strings.TrimSpace(text)
	if len(text) > longestVersion {
		return version{}, false
	}
	found := shape.FindStringSubmatchIndex(text)
	if found == nil {
		return version{}, false
	}
	for part := range strings.SplitSeq(text[found[2]:found[3]], ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return version{}, false
		}
		v.numbers = append(v.numbers, n)
	}
	if found[4] >= 0 {
		n, _ := strconv.Atoi(text[found[4]:found[5]]) // "rc" alone is the first
		v.pre = []int{n}
	}
	v.suffix = text[found[6]:found[7]]
	// What a number runs into is none of its parts: "6.18.x".
	if v.suffix != "" && !strings.ContainsRune("+-~_ ", rune(v.suffix[0])) && !strings.HasPrefix(v.suffix, ".") {
		return version{}, false
	}
	if strings.ContainsFunc(v.suffix, func(r rune) bool { return r < ' ' || r > '~' }) {
		return version{}, false
	}
	return v, true
}

// compare orders upstream versions; what a builder has added does not count. Missing numbers are zero, and a
// release candidate comes before its release.
func (v version) compare(other version) int {
	for i := range max(len(v.numbers), len(other.numbers)) {
		if order := cmp.Compare(at(v.numbers, i), at(other.numbers, i)); order != 0 {
			return order
		}
	}
	switch {
	case v.pre == nil && other.pre == nil:
		return 0
	case v.pre == nil:
		return 1
	case other.pre == nil:
		return -1
	}
	return slices.Compare(v.pre, other.pre)
}

// branch is what the first n numbers name.
func (v version) branch(n int) version {
	named := make([]int, n)
	copy(named, v.numbers)
	return version{numbers: named}
}

func at(numbers []int, i int) int {
	if i < len(numbers) {
		return numbers[i]
	}
	return 0
}

// compareDebian orders versions as dpkg does: epoch, upstream version, revision; in each, text and numbers
// in turn, where "~" comes before everything, even the end.
func compareDebian(a, b string) int {
	epochA, upstreamA, revisionA := splitDebian(a)
	epochB, upstreamB, revisionB := splitDebian(b)
	return cmp.Or(cmp.Compare(epochA, epochB), compareParts(upstreamA, upstreamB), compareParts(revisionA, revisionB))
}

func splitDebian(text string) (epoch int, upstream, revision string) {
	upstream = strings.TrimSpace(text)
	if before, after, found := strings.Cut(upstream, ":"); found {
		if n, err := strconv.Atoi(before); err == nil {
			epoch, upstream = n, after
		}
	}
	if dash := strings.LastIndexByte(upstream, '-'); dash >= 0 {
		upstream, revision = upstream[:dash], upstream[dash+1:]
	}
	return epoch, upstream, revision
}

func compareParts(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !digit(a[0]) || b != "" && !digit(b[0]) {
			if order := cmp.Compare(weight(a), weight(b)); order != 0 {
				return order
			}
			a, b = a[1:], b[1:] // both are there: an end weighs as a digit does, and neither letter does
		}
		var left, right string
		left, a = leadingNumber(a)
		right, b = leadingNumber(b)
		if order := cmp.Or(cmp.Compare(len(left), len(right)), cmp.Compare(left, right)); order != 0 {
			return order
		}
	}
	return 0
}

// weight is where a character stands among those that are no digits: "~", then the end or a digit, then
// letters, then all others.
func weight(s string) int {
	switch {
	case s == "" || digit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case s[0] >= 'a' && s[0] <= 'z' || s[0] >= 'A' && s[0] <= 'Z':
		return int(s[0])
	}
	return int(s[0]) + 256
}

// leadingNumber cuts the digits off, without zeros in front.
func leadingNumber(s string) (number, rest string) {
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(s)
	}
	return strings.TrimLeft(s[:end], "0"), s[end:]
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
