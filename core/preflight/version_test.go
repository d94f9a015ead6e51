package preflight

import "testing"

// The rows with a tilde, an epoch and letters are those of Debian's policy, section 5.6.12.
func TestCompareDebian(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"1.0-1", "1.0-1", 0},
		{"1.0-1", "1.0-2", -1},
		{"1.0-9", "1.0-10", -1},
		{"1.0~rc1-1", "1.0-1", -1},
		{"1.0~~", "1.0~", -1},
		{"1.0~", "1.0", -1},
		{"1.0", "1.0a", -1},
		{"1.0a", "1.0+", -1},
		{"1.0", "1.0-0", 0},
		{"1:1.0-1", "2.0-1", 1},
		{"0:1.0-1", "1.0-1", 0},
		{"5:29.5.1-1~debian.12~bookworm", "5:29.5.1-1~debian.13~trixie", -1},
		{"1.1.5+ds1-1+deb12u1", "1.1.5+ds1-1", 1},
		{"1.1.5+ds1-1+deb12u1", "1.1.5+ds1-1+deb12u2", -1},
		{"1.1.5+ds1-1~bpo11+1", "1.1.5+ds1-1", -1},
		{"26.1.3-0ubuntu1~24.04.1", "26.1.3-0ubuntu1", -1},
		{"26.1.3-0ubuntu1.1", "26.1.3-0ubuntu1", 1},
		{"001.0", "1.0", 0},
		{"1.2.3-a-1", "1.2.3-a-2", -1},
		{"", "0", 0},
		{"", "~", 1},
		{"99999999999999999999999", "99999999999999999999998", 1},
	} {
		if got := compareDebian(tt.a, tt.b); got != tt.want {
			t.Errorf("%q and %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if got := compareDebian(tt.b, tt.a); got != -tt.want {
			t.Errorf("%q and %q: %d, want %d", tt.b, tt.a, got, -tt.want)
		}
	}
}

// FuzzVersions: whatever a program prints, comparing it is safe and does not depend on the order.
func FuzzVersions(f *testing.F) {
	for _, seed := range []string{"1.4.0-rc.3", "20.10.24+dfsg1", "5:29.5.1-1~debian.12", "~~", "", "v1"} {
		f.Add(seed, "1.0~rc1-1")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if compareDebian(a, b) != -compareDebian(b, a) {
			t.Errorf("%q and %q", a, b)
		}
		v, okA := parse(a)
		w, okB := parse(b)
		if okA && okB && v.compare(w) != -w.compare(v) {
			t.Errorf("%q and %q", a, b)
		}
	})
}
