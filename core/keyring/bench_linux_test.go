package keyring_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/secret"
)

// What Keep and Find take, in ms. Find is measured of a process that has not looked before, which is what a
// passphrase costs; after that it is remembered.
func BenchmarkKeyring(b *testing.B) {
	s := newSession(b).startBus()
	s.startKeyring(false)
	h := s.host(keyring.Options{Origin: market})
	timed := func(line string) func() time.Duration {
		return func() time.Duration {
			a := h.do(line)
			if a.Err != "" {
				b.Fatal(a.Err)
			}
			return a.Took
		}
	}
	measure(b, timed("keep "+firstKey), timed("find"))
}

func BenchmarkEncryptedFile(b *testing.B) {
	for name, passphrase := range map[string]string{
		"bound": "", "long-passphrase": "a passphrase of twenty-four and more", "short-passphrase": "correct horse",
	} {
		b.Run(name, func(b *testing.B) {
			o := keyring.Options{StateDir: b.TempDir()}
			if passphrase != "" {
				o.PassphraseFile = write(b, filepath.Join(b.TempDir(), "passphrase"), 0o600, passphrase)
			}
			s := filed(b, o)
			measure(b, func() time.Duration {
				begun := time.Now()
				if _, err := s.Keep(b.Context(), secret.New(key)); err != nil {
					b.Fatal(err)
				}
				return time.Since(begun)
			}, func() time.Duration {
				fresh := keyring.New(o)
				keyring.OnMachine(fresh, "one machine")
				begun := time.Now()
				wantKey(b, fresh, key)
				return time.Since(begun)
			})
		})
	}
}

func measure(b *testing.B, keep, find func() time.Duration) {
	b.Helper()
	var keeping, finding time.Duration
	for b.Loop() {
		keeping += keep()
		finding += find()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(keeping.Seconds()*1000/float64(b.N), "ms/keep")
	b.ReportMetric(finding.Seconds()*1000/float64(b.N), "ms/find")
}
