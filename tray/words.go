package tray

import (
	"fmt"
	"math/big"
	"path"
	"strings"
	"time"
	"unicode"
)

// Titles are cut: a menu is as wide as its longest.
const (
	titleLength   = 90
	tooltipLength = 110 // Windows has room for 127 characters
)

// clean takes from words that came from elsewhere what cannot be seen: some of it changes how the rest reads,
// as what turns the direction of writing.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, text)
}

// cleanLines is clean for a text of several lines.
func cleanLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = clean(line)
	}
	return strings.Join(lines, "\n")
}

// clip makes a title of words that came from elsewhere.
func clip(text string, most int) string {
	runes := []rune(clean(text))
	if len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return string(runes)
}

// plural counts: "1 rental", "2 rentals".
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// clock writes a moment as a person nearby says it.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.Year() == now.Year() && t.YearDay() == now.YearDay() {
		return t.Format("15:04")
	}
	return t.Format("2 January, 15:04")
}

func money(amount, currency string) string { return strings.TrimSpace(amount + " " + currency) }

// worth reports whether a decimal amount is known and not zero.
func worth(amount string) bool {
	value, ok := new(big.Rat).SetString(amount)
	return ok && value.Sign() != 0
}

// shortImage is an image without its registry and digest.
func shortImage(image string) string {
	name, _, _ := strings.Cut(image, "@")
	return path.Base(name)
}

// sentence makes one of an error's text.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	runes := []rune(text)
	runes[0] = unicode.ToUpper(runes[0])
	if last := runes[len(runes)-1]; !strings.ContainsRune(".!?…", last) {
		runes = append(runes, '.')
	}
	return string(runes)
}
