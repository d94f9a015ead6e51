package tunnel

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/fatedier/frp/pkg/msg"
)

const (
	// flowIdle is how long a renter's socket is kept without traffic.
	flowIdle = 60 * time.Second
	// mostFlows bounds the renters of one route, whose source addresses anyone can invent.
	mostFlows = 1024
	// datagramBytes is the largest answer that fits the relay's message of 10 KiB.
	datagramBytes = 7500
	// streamPing keeps the relay from taking a quiet route for a dead one, which it does after 60 s.
	streamPing = 30 * time.Second
)

// datagrams carries all datagrams of one UDP route over one stream. Each renter has a socket of his
// own towards the container, so that the container's answers find back to him.
type datagrams struct {
	target netip.AddrPort

	writing sync.Mutex // guards stream's writing side
	stream  net.Conn

	mu      sync.Mutex // guards flows
	flows   map[netip.AddrPort]net.Conn
	serving sync.WaitGroup
}

// forwardDatagrams carries a UDP route until its stream ends.
func forwardDatagrams(ctx context.Context, stream net.Conn, target netip.AddrPort) {
	d := &datagrams{target: target, stream: stream, flows: make(map[netip.AddrPort]net.Conn)}
	defer d.serving.Wait()
	defer d.closeFlows()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.serving.Go(func() { d.keepAlive(ctx) })
	for {
		m, err := msg.ReadMsg(stream)
		if err != nil {
			return
		}
		if packet, ok := m.(*msg.UDPPacket); ok && packet.RemoteAddr != nil {
			d.deliver(packet)
		}
	}
}

// deliver passes a renter's datagram to the container.
func (d *datagrams) deliver(packet *msg.UDPPacket) {
	flow := d.flow(packet.RemoteAddr)
	if flow == nil {
		return // lost, as datagrams may be
	}
	_ = flow.SetReadDeadline(time.Now().Add(flowIdle))
	_, _ = flow.Write(packet.Content)
}

// flow is the renter's socket, made when it is not there; nil where none can be had.
func (d *datagrams) flow(renter *net.UDPAddr) net.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	flow, there := d.flows[renter.AddrPort()]
	if there || len(d.flows) >= mostFlows {
		return flow
	}
	flow, err := net.Dial("udp", d.target.String())
	if err != nil {
		return nil
	}
	d.flows[renter.AddrPort()] = flow
	d.serving.Go(func() {
		d.answer(flow, renter)
		d.mu.Lock()
		delete(d.flows, renter.AddrPort())
		d.mu.Unlock()
		flow.Close()
	})
	return flow
}

// answer passes the container's datagrams to the renter until none has come for a while.
func (d *datagrams) answer(flow net.Conn, renter *net.UDPAddr) {
	datagram := make([]byte, datagramBytes+1)
	for {
		n, err := flow.Read(datagram)
		if err != nil {
			return
		}
		if n > datagramBytes {
			continue
		}
		_ = flow.SetReadDeadline(time.Now().Add(flowIdle))
		d.send(&msg.UDPPacket{Content: datagram[:n], RemoteAddr: renter})
	}
}

func (d *datagrams) keepAlive(ctx context.Context) {
	ping := time.NewTicker(streamPing)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ping.C:
			d.send(&msg.Ping{})
		}
	}
}

func (d *datagrams) send(m msg.Message) {
	d.writing.Lock()
	defer d.writing.Unlock()
	_ = d.stream.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err := msg.WriteMsg(d.stream, m); err != nil {
		d.stream.Close() // a message that was cut would garble all that follow
	}
}

func (d *datagrams) closeFlows() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, flow := range d.flows {
		flow.Close()
	}
}
