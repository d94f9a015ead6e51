package tunnel

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
)

// forwardConnection joins a renter's connection with the container's port. Like the relay at the
// other end, it closes both as soon as one of them has ended.
func forwardConnection(ctx context.Context, stream net.Conn, target netip.AddrPort) {
	dialer := net.Dialer{Timeout: dialTimeout}
	container, err := dialer.DialContext(ctx, "tcp", target.String())
	if err != nil {
		return
	}
	var upload sync.WaitGroup
	upload.Go(func() {
		_, _ = io.Copy(container, stream)
		container.Close()
	})
	_, _ = io.Copy(stream, container)
	stream.Close()
	container.Close()
	upload.Wait()
}
