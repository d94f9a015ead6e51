package config

import (
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

func text(field *string, ok func(string) bool) binding {
	return binding{
		set: func(text string) bool {
			if !ok(text) {
				return false
			}
			*field = text
			return true
		},
		show: func() string { return *field },
	}
}

func anything(string) bool { return true }

func matches(pattern string) func(string) bool {
	return func(text string) bool { return regexp.MustCompile(pattern).MatchString(text) }
}

var (
	isNodeID     = matches(`^[A-Za-z0-9_.:-]{0,128}$`)
	isHost       = matches(`^[A-Za-z0-9.:_-]{0,253}$`)
	isDecimal    = matches(`^[0-9]{1,9}(\.[0-9]{1,9})?$`)
	isCurrency   = matches(`^[A-Z]{3}$`)
	isClientID   = matches(`^[!-~]{0,256}$`)
	isScopes     = matches(`^[ -~]{1,512}$`)
	isRegistry   = matches(`^[a-z0-9.-]{1,253}(:[0-9]{1,5})?(/[a-z0-9._/-]{1,200})?$`)
	isImage      = matches(`^[a-z0-9][A-Za-z0-9.:_/@-]{0,254}$`)
	isDockerHost = matches(`^$|^unix:///.+|^npipe:////.+`)
)

// words takes a list of words, "a,b"; "none" and "" are the empty one.
func words(field *[]string, ok func(string) bool) binding {
	return binding{
		set: func(text string) bool {
			if *field = nil; text == "" || text == "none" {
				return true
			}
			for word := range strings.SplitSeq(text, ",") {
				if word = strings.TrimSpace(word); word == "" || !ok(word) {
					return false
				}
				*field = append(*field, word)
			}
			return true
		},
		show: func() string {
			if len(*field) == 0 {
				return "none"
			}
			return strings.Join(*field, ",")
		},
	}
}

func isPrefix(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	_, err := netip.ParsePrefix(text)
	return err == nil
}

// isAddressPool takes a range that the internet does not use and that has room for many small networks.
func isAddressPool(text string) bool {
	if text == "" {
		return true
	}
	pool, err := netip.ParsePrefix(text)
	return err == nil && pool.Addr().Is4() && pool.Addr().IsPrivate() && pool == pool.Masked() && pool.Bits() >= 8 && pool.Bits() <= 24
}

func isMirror(text string) bool { return isHost(text) || isHostPort(text) }

func isHostPort(text string) bool {
	if text == "" {
		return true
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" || !isHost(host) {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func oneOf(field *string, words ...string) binding {
	return text(field, func(text string) bool { return slices.Contains(words, text) })
}

// address takes an absolute URL with one of the schemes. Credentials in it would end up in logs.
func address(field *string, schemes ...string) binding {
	return text(field, func(text string) bool {
		if text == "" {
			return true
		}
		u, err := url.Parse(text)
		return err == nil && slices.Contains(schemes, u.Scheme) && u.Hostname() != "" && u.User == nil && u.Fragment == ""
	})
}

// webAddress takes an address to which paths are added, so nothing may follow its own.
func webAddress(field *string, schemes ...string) binding {
	return text(field, func(text string) bool {
		return !strings.Contains(text, "?") && address(new(string), schemes...).set(text)
	})
}

func speedTestServer(field *string) binding {
	return text(field, func(text string) bool {
		return text == "speedtest.net" || address(new(string), "http", "https").set(text)
	})
}

func boolean(field *bool) binding {
	return binding{
		set: func(text string) bool {
			*field = text == "true"
			return text == "true" || text == "false"
		},
		show: func() string { return strconv.FormatBool(*field) },
	}
}

func whole[T int | int64](field *T, low, high T) binding {
	return binding{
		set: func(text string) bool {
			n, err := strconv.ParseInt(text, 10, 64)
			*field = T(n)
			return err == nil && n >= int64(low) && n <= int64(high)
		},
		show: func() string { return strconv.FormatInt(int64(*field), 10) },
	}
}

func number(field *float64, low, high float64) binding {
	return binding{
		set: func(text string) bool {
			n, err := strconv.ParseFloat(text, 64)
			*field = n
			return err == nil && n >= low && n <= high // false for NaN
		},
		show: func() string { return strconv.FormatFloat(*field, 'g', -1, 64) },
	}
}

// size takes bytes as Docker writes them: "28g" is 28 GiB. An empty text is 0.
func size(field *int64) binding {
	b := sizeWithin(field, 1<<20, 1<<50)
	return binding{
		set: func(text string) bool {
			if text == "" {
				*field = 0
				return true
			}
			return b.set(text)
		},
		show: b.show,
	}
}

func sizeWithin(field *int64, low, high int64) binding {
	return binding{
		set: func(text string) bool {
			n, err := units.RAMInBytes(text)
			*field = n
			return err == nil && n >= low && n <= high
		},
		show: func() string { return showSize(*field) },
	}
}

// showSize writes bytes in the largest unit that divides them, so that it reads back as the same.
func showSize(n int64) string {
	if n == 0 {
		return ""
	}
	letters := []string{"", "k", "m", "g", "t"}
	i := 0
	for i < len(letters)-1 && n%1024 == 0 {
		n /= 1024
		i++
	}
	return strconv.FormatInt(n, 10) + letters[i]
}

func duration(field *time.Duration, low, high time.Duration) binding {
	return binding{
		set: func(text string) bool {
			d, err := time.ParseDuration(text)
			*field = d
			return err == nil && d >= low && d <= high
		},
		show: func() string { return field.String() },
	}
}

func level(field *slog.Level) binding {
	words := []string{"debug", "info", "warn", "error"}
	return binding{
		set: func(text string) bool {
			return slices.Contains(words, text) && field.UnmarshalText([]byte(text)) == nil
		},
		show: func() string { return strings.ToLower(field.String()) },
	}
}

const maxGPUIndex = 63

func gpus(field *GPUs) binding {
	return binding{
		set: func(text string) bool {
			switch text {
			case "all":
				*field = GPUs{All: true}
				return true
			case "none":
				*field = GPUs{}
				return true
			}
			indices := []int{}
			for part := range strings.SplitSeq(text, ",") {
				n, err := strconv.Atoi(strings.TrimSpace(part))
				if err != nil || n < 0 || n > maxGPUIndex || slices.Contains(indices, n) {
					return false
				}
				indices = append(indices, n)
			}
			slices.Sort(indices)
			*field = GPUs{Indices: indices}
			return true
		},
		show: func() string { return field.String() },
	}
}

// String gives "all", "none" or "0,1".
func (g GPUs) String() string {
	switch {
	case g.All:
		return "all"
	case len(g.Indices) == 0:
		return "none"
	}
	parts := make([]string, len(g.Indices))
	for i, n := range g.Indices {
		parts[i] = strconv.Itoa(n)
	}
	return strings.Join(parts, ",")
}
