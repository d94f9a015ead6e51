package tunnel

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/fatedier/frp/pkg/util/util"
	"github.com/fatedier/golib/crypto"

	"github.com/distributedcompute/host-agent/core/secret"
)

// salted sets the salt of frp's control cipher: the library leaves that to each program's start.
var salted = sync.OnceFunc(func() { crypto.DefaultSalt = "frp" })

// encipher wraps the control stream. That is for the server's sake: what protects it is TLS.
func encipher(control io.ReadWriter, token secret.String) (io.ReadWriter, error) {
	salted()
	key := []byte(token.Reveal())
	writer, err := crypto.NewWriter(control, key)
	if err != nil {
		return nil, fmt.Errorf("enciphering the control stream: %w", err)
	}
	return struct {
		io.Reader
		io.Writer
	}{crypto.NewReader(control, key), writer}, nil
}

// sign proves knowledge of the token, as every message does that could ask for such a proof.
func sign(token secret.String) (key string, timestamp int64) {
	timestamp = time.Now().Unix()
	return util.GetAuthKey(token.Reveal(), timestamp), timestamp
}
