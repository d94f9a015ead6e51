package shield

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The sets that packets fill, keyed by the rental's address.
const (
	blockedSet  = "blocked"  // counts what was turned away
	heldSet     = "held"     // connections that are open
	newSet      = "new"      // pace of new connections
	uploadSet   = "upload"   // bytes sent
	downloadSet = "download" // bytes received
)

const (
	dynamicSize = 65535
	ours        = -10 // before the filter rules of anyone else
)

// mailPorts are where spam is handed over: from a home, mail goes out through a provider's port for submission.
var mailPorts = []uint16{25, 465, 587}

// helperPorts belong to protocols for which routers look into the connection and open ports towards the inside:
// a renter must not have holes made in the host's or the home's NAT. FTP, TFTP, NetBIOS, RTSP, H.323, PPTP, SIP, SANE, IRC, Amanda.
var helperPorts = []uint16{21, 69, 137, 554, 1719, 1720, 1723, 5060, 6566, 6667, 10080}

// plan builds the table in one transaction.
type plan struct {
	conn  *nftables.Conn
	table *nftables.Table
	rules int
	sets  uint32
}

// build queues the making of the table, in place of any that is there, and returns how many rules it has.
func build(conn *nftables.Conn, policy Policy) (int, error) {
	name := &nftables.Table{Family: nftables.TableFamilyINet, Name: Table}
	conn.AddTable(name) // so that there is one to delete; nothing of this is seen before the end of the transaction
	conn.DelTable(name)
	p := &plan{conn: conn, table: conn.AddTable(name)}

	deny, err := p.denySet(slices.Concat(Private(), policy.Deny))
	if err != nil {
		return 0, err
	}
	mail, err := p.portSet("mail", mailPorts)
	if err != nil {
		return 0, err
	}
	helpers, err := p.portSet("helpers", helperPorts)
	if err != nil {
		return 0, err
	}
	dynamic := map[string]*nftables.Set{}
	for _, name := range []string{blockedSet, heldSet, newSet, uploadSet, downloadSet} {
		if dynamic[name], err = p.dynamicSet(name); err != nil {
			return 0, err
		}
	}
	p.prerouting()
	from, to := p.chain("from_rental"), p.chain("to_rental")
	forward := p.hook("forward", nftables.ChainHookForward, ours)
	p.rule(forward, fromRental(), jump(from.Name))
	p.rule(forward, toRental(), jump(to.Name))
	p.outbound(from, policy, deny, mail, helpers, dynamic)
	p.inbound(to, policy, dynamic)
	p.input(policy, dynamic)
	p.output(policy, dynamic[downloadSet])
	return p.rules, nil
}

// prerouting keeps neighbours from ports that are published on the host's loopback, which old engines let through.
func (p *plan) prerouting() {
	c := p.hook("prerouting", nftables.ChainHookPrerouting, -300)
	p.rule(c,
		[]expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte("lo\x00")}},
		ipv4(), payload(expr.PayloadBaseNetworkHeader, 16, 1), equals(127), drop())
}

// outbound is what a rental sends to anywhere but this host.
func (p *plan) outbound(c *nftables.Chain, policy Policy, deny, mail, helpers *nftables.Set, dynamic map[string]*nftables.Set) {
	blocked := dynamic[blockedSet]
	p.rule(c, ipv6(), drop())
	if policy.Upload > 0 {
		p.rule(c, ipv4(), source(), over(dynamic[uploadSet], pace(policy.Upload)), drop())
	}
	// Ahead of what is established: a connection may be older than this table, of a moment in which there was none.
	p.rule(c, ipv4(), destination(), in(deny), source(), counted(blocked), reject())
	p.rule(c, toRental(), ipv4(), source(), counted(blocked), reject()) // other rentals, whatever their addresses
	p.rule(c, state(expr.CtStateBitESTABLISHED), accept())
	p.rule(c, state(expr.CtStateBitRELATED), protocol(unix.IPPROTO_ICMP), accept()) // errors of what is established
	p.rule(c, state(expr.CtStateBitINVALID), drop())
	p.rule(c, ipv4(), protocol(unix.IPPROTO_TCP), port(), in(mail), source(), counted(blocked), reset())
	for _, transport := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		p.rule(c, ipv4(), protocol(transport), port(), in(helpers), source(), counted(blocked), reject())
	}
	p.rule(c, ipv4(), source(), over(dynamic[heldSet], &expr.Connlimit{Count: policy.MaxConnections, Flags: expr.NFT_CONNLIMIT_F_INV}),
		source(), counted(blocked), reject())
	p.rule(c, ipv4(), source(), over(dynamic[newSet], &expr.Limit{
		Type: expr.LimitTypePkts, Rate: uint64(policy.PerSecond), Over: true, Unit: expr.LimitTimeSecond, Burst: 5 * policy.PerSecond,
	}), source(), counted(blocked), drop())
}

// inbound is what is forwarded to a rental: answers alone. What is led to it by the relay comes from this host.
func (p *plan) inbound(c *nftables.Chain, policy Policy, dynamic map[string]*nftables.Set) {
	if policy.Download > 0 {
		p.rule(c, ipv4(), destination(), over(dynamic[downloadSet], pace(policy.Download)), drop())
	}
	p.rule(c, state(expr.CtStateBitESTABLISHED), accept())
	p.rule(c, state(expr.CtStateBitRELATED), protocol(unix.IPPROTO_ICMP), accept())
	p.rule(c, drop())
}

// input is what a rental sends to the host itself, by whatever address: answers alone, and nothing on a connection that the
// rental has opened, which may be older than this table.
// What it sends through the relay comes this way and counts as sent.
func (p *plan) input(policy Policy, dynamic map[string]*nftables.Set) {
	blocked := dynamic[blockedSet]
	c := p.hook("input", nftables.ChainHookInput, ours)
	if policy.Upload > 0 {
		p.rule(c, fromRental(), ipv4(), source(), over(dynamic[uploadSet], pace(policy.Upload)), drop())
	}
	p.rule(c, fromRental(), ipv4(), state(expr.CtStateBitESTABLISHED), answers(), accept())
	p.rule(c, fromRental(), ipv4(), source(), counted(blocked), drop())
	p.rule(c, fromRental(), drop())
}

// output is what this host sends to a rental: what comes through the relay counts as received.
func (p *plan) output(policy Policy, received *nftables.Set) {
	if policy.Download == 0 {
		return
	}
	c := p.hook("output", nftables.ChainHookOutput, ours)
	p.rule(c, toRental(), ipv4(), destination(), over(received, pace(policy.Download)), drop())
}

func (p *plan) chain(name string) *nftables.Chain {
	return p.conn.AddChain(&nftables.Chain{Name: name, Table: p.table})
}

func (p *plan) hook(name string, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
	accepting := nftables.ChainPolicyAccept
	return p.conn.AddChain(&nftables.Chain{
		Name: name, Table: p.table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: &priority, Policy: &accepting,
	})
}

func (p *plan) rule(c *nftables.Chain, parts ...[]expr.Any) {
	p.conn.AddRule(&nftables.Rule{Table: p.table, Chain: c, Exprs: slices.Concat(parts...)})
	p.rules++
}

// nextSet numbers the sets of the transaction; the library's own numbers are of one counter that it does not guard.
func (p *plan) nextSet() uint32 {
	p.sets++
	return p.sets
}

func (p *plan) denySet(prefixes []netip.Prefix) (*nftables.Set, error) {
	set := &nftables.Set{ID: p.nextSet(), Table: p.table, Name: "deny", KeyType: nftables.TypeIPAddr, Interval: true}
	var elements []nftables.SetElement
	for _, s := range spans(prefixes) {
		elements = append(elements, nftables.SetElement{Key: binary.BigEndian.AppendUint32(nil, s.first)})
		if s.last != 1<<32-1 { // one that reaches the last address has no end
			elements = append(elements, nftables.SetElement{Key: binary.BigEndian.AppendUint32(nil, s.last+1), IntervalEnd: true})
		}
	}
	return set, p.conn.AddSet(set, elements)
}

func (p *plan) portSet(name string, ports []uint16) (*nftables.Set, error) {
	set := &nftables.Set{ID: p.nextSet(), Table: p.table, Name: name, KeyType: nftables.TypeInetService}
	elements := make([]nftables.SetElement, len(ports))
	for i, port := range ports {
		elements[i].Key = binary.BigEndian.AppendUint16(nil, port)
	}
	return set, p.conn.AddSet(set, elements)
}

func (p *plan) dynamicSet(name string) (*nftables.Set, error) {
	set := &nftables.Set{ID: p.nextSet(), Table: p.table, Name: name, KeyType: nftables.TypeIPAddr, Dynamic: true, Size: dynamicSize}
	return set, p.conn.AddSet(set, nil)
}

// pace holds a rental to bytes a second. What a rental leaves unused of little more than a second may come at once: the
// kernel adds one second's bytes to the burst that is named.
func pace(bytes uint64) *expr.Limit {
	return &expr.Limit{Type: expr.LimitTypePktBytes, Rate: bytes, Over: true, Unit: expr.LimitTimeSecond, Burst: uint32(min(max(bytes/10, 64<<10), 1<<30))}
}

func fromRental() []expr.Any { return named(expr.MetaKeyIIFNAME) }
func toRental() []expr.Any   { return named(expr.MetaKeyOIFNAME) }

// named compares the beginning of an interface's name.
func named(key expr.MetaKey) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(BridgePrefix)}}
}

func ipv4() []expr.Any { return family(unix.NFPROTO_IPV4) }
func ipv6() []expr.Any { return family(unix.NFPROTO_IPV6) }

func family(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equals(number)[0]}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equals(number)[0]}
}

func state(bit uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bit), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// answers are packets towards the end that has opened their connection.
func answers() []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, equals(1)[0]}
}

func source() []expr.Any      { return payload(expr.PayloadBaseNetworkHeader, 12, 4) }
func destination() []expr.Any { return payload(expr.PayloadBaseNetworkHeader, 16, 4) }
func port() []expr.Any        { return payload(expr.PayloadBaseTransportHeader, 2, 2) } // of the destination

func payload(base expr.PayloadBase, offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}}
}

func equals(value ...byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
}

func in(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID}}
}

// over goes on when what the address in the register has used is over its limit.
func over(set *nftables.Set, limit expr.Any) []expr.Any { return dynamic(set, limit) }

// counted counts one more packet of the address in the register.
func counted(set *nftables.Set) []expr.Any { return dynamic(set, &expr.Counter{}) }

func dynamic(set *nftables.Set, each expr.Any) []expr.Any {
	return []expr.Any{&expr.Dynset{SrcRegKey: 1, SetName: set.Name, SetID: set.ID, Operation: unix.NFT_DYNSET_OP_ADD, Exprs: []expr.Any{each}}}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() []expr.Any   { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// reject tells the program at once, where a drop would have it wait.
func reject() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

func reset() []expr.Any { return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }
