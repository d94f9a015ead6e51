package main

import (
	"fmt"
	"time"
)

// parseMoment takes how long from now ("90m"), a time of day that comes next ("18:30"), or a full
// time ("2026-11-23T18:30:00Z").
func parseMoment(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(d), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		if !t.After(now) {
			return time.Time{}, fmt.Errorf("takes a time to come, but %q is in the past", text)
		}
		return t, nil
	}
	if t, err := time.ParseInLocation("15:04", text, now.Location()); err == nil {
		y, m, d := now.Date()
		next := time.Date(y, m, d, t.Hour(), t.Minute(), 0, 0, now.Location())
		if !next.After(now) {
			next = next.AddDate(0, 0, 1)
		}
		return next, nil
	}
	return time.Time{}, fmt.Errorf("takes a duration such as 90m, a time of day such as 18:30, or a time to come such as 2026-01-02T15:04:05Z, got %q", text)
}

// parsePast takes how long ago ("10m") or a full time.
func parsePast(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("takes a duration such as 10m, or a time such as 2026-01-02T15:04:05Z, got %q", text)
}
