package tunnel

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
)

// forwardConnection joins a renter's connection with the container's port. Like the relay at the
// other end, it closes both as soon as one of them has ended. The end of the session, which closes
// the stream, has to close the container's side too: a write to a container that does not read, and
// a read from one that is silent, would never notice.
func forwardConnection(ctx context.Context, stream net.Conn, target netip.AddrPort) {
	dialer := net.Dialer{Timeout: dialTimeout}
	container, err := dialer.DialContext(ctx, "tcp", target.String())
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { container.Close() })()
	var upload sync.WaitGroup
	upload.Go(func() {
		_, _ = io.Copy(container, stream)
		container.Close()
		stream.Close() // the download may be waiting for a renter who has left
	})
	_, _ = io.Copy(stream, container)
	stream.Close()
	container.Close()
	upload.Wait()
}
