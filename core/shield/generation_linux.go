package shield

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Generation implements Watcher.
func (Direct) Generation(ctx context.Context) (uint32, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, fmt.Errorf("reaching the packet filter: %w", err)
	}
	defer conn.Close()
	if err := endWith(ctx, conn); err != nil {
		return 0, err
	}
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   genericHeader[:],
	})
	if err != nil {
		return 0, fmt.Errorf("asking for the packet filter's generation: %w", err)
	}
	for _, reply := range replies {
		if generation, ok := generationIn(reply.Data); ok {
			return generation, nil
		}
	}
	return 0, errors.New("asking for the packet filter's generation: the answer has none")
}

// genericHeader is struct nfgenmsg of no family in particular: family, version, and a resource in two bytes.
var genericHeader = [4]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}

func generationIn(reply []byte) (uint32, bool) {
	if len(reply) < len(genericHeader) {
		return 0, false
	}
	attributes, err := netlink.NewAttributeDecoder(reply[len(genericHeader):])
	if err != nil {
		return 0, false
	}
	attributes.ByteOrder = binary.BigEndian
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_GEN_ID {
			generation := attributes.Uint32()
			return generation, attributes.Err() == nil
		}
	}
	return 0, false
}

// Blocked implements Watcher.
func (Direct) Blocked(ctx context.Context) (map[netip.Addr]uint64, error) {
	conn, err := reach(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.CloseLasting()
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: Table}
	elements, err := conn.GetSetElements(&nftables.Set{Table: table, Name: blockedSet})
	if err != nil {
		return nil, fmt.Errorf("reading what the shield has turned away: %w", err)
	}
	return counts(elements), nil
}

// reach opens a connection to the packet filter that answers until ctx's deadline.
func reach(ctx context.Context) (*nftables.Conn, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(conn *netlink.Conn) error { return endWith(ctx, conn) }))
	if err != nil {
		return nil, fmt.Errorf("reaching the packet filter: %w", err)
	}
	return conn, nil
}

func endWith(ctx context.Context, conn *netlink.Conn) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("bounding a talk with the packet filter: %w", err)
	}
	return nil
}
