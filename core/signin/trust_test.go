package signin

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// alone runs a test again in a process of its own, because a process reads the system's authorities
// once. It reports whether this is that process.
func alone(t *testing.T, environ ...string) bool {
	t.Helper()
	const mark = "SIGNIN_TEST_ALONE"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(append(os.Environ(), mark+"="+t.Name()), environ...)
	out, err := again.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// TestPublicProviderOfAPrivateMarketplace: a marketplace with authorities of its own is trusted for them
// alone; its sign-in may have a certificate of the system's, too.
func TestPublicProviderOfAPrivateMarketplace(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		t.Skip("the system's authorities cannot be replaced for a test")
	}
	public := open(t, script{}) // with the certificate that all of net/http/httptest's servers have
	file := filepath.Join(t.TempDir(), "system.pem")
	if err := os.WriteFile(file, public.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	if !alone(t, "SSL_CERT_FILE="+file, "SSL_CERT_DIR="+t.TempDir()) {
		return
	}
	private, authority := privateAPI(t)
	for name, test := range map[string]struct {
		issuer, api string
		authorities []byte
		want        string // of the error; "": none
	}{
		"private API, public provider": {public.URL, private, authority, ""},
		"both public":                  {public.URL, public.URL, nil, ""},
		"API of the system's":          {public.URL, public.URL, authority, "authority this machine does not trust"},
	} {
		t.Run(name, func(t *testing.T) {
			c := public.client(t, func(o *Options) { o.Issuer, o.API, o.CAPEM = test.issuer, test.api, test.authorities })
			r := public.signIn(t, c, nil)
			if (r.err == nil) != (test.want == "") || r.err != nil && !strings.Contains(r.err.Error(), test.want) {
				t.Errorf("got %v, want %q", r.err, test.want)
			}
		})
	}
}

// privateAPI is a hosts API with a certificate that only its own authority vouches for.
func privateAPI(t *testing.T) (address string, authority []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(registers))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
