package shield

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// Direct are the hands of a process that may change the packet filter of its network namespace (CAP_NET_ADMIN).
type Direct struct{}

// Apply implements Hands.
func (Direct) Apply(ctx context.Context, policy Policy) (Picture, error) {
	if err := policy.check(); err != nil {
		return Picture{}, fmt.Errorf("putting up the shield: %w", err)
	}
	conn, err := reach(ctx)
	if err != nil {
		return Picture{}, err
	}
	defer conn.CloseLasting()
	want, err := build(conn, policy)
	if err != nil {
		return Picture{}, fmt.Errorf("describing the shield: %w", err)
	}
	if err := conn.Flush(); err != nil {
		return Picture{}, fmt.Errorf("putting up the shield: %w", err)
	}
	there, rules, err := read(conn)
	switch {
	case err != nil:
		return Picture{}, err
	case rules != want:
		return Picture{}, fmt.Errorf("putting up the shield: %d rules stand where %d were made", rules, want)
	}
	return there, nil
}

// Look implements Hands.
func (Direct) Look(ctx context.Context) (Picture, error) {
	conn, err := reach(ctx)
	if err != nil {
		return Picture{}, err
	}
	defer conn.CloseLasting()
	there, _, err := read(conn)
	return there, err
}

// Remove implements Hands.
func (Direct) Remove(ctx context.Context) error {
	conn, err := reach(ctx)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: Table})
	if err := conn.Flush(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("taking the shield down: %w", err)
	}
	return nil
}

// read gives what stands, and how many rules that are.
func read(conn *nftables.Conn) (Picture, int, error) {
	table, err := conn.ListTableOfFamily(Table, nftables.TableFamilyINet)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && table == nil:
		return Picture{}, 0, nil
	case err != nil:
		return Picture{}, 0, fmt.Errorf("looking for the shield: %w", err)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "table %d\n", table.Flags) // a dormant table is one that filters nothing
	rules, err := readChains(conn, table, sum)
	if err != nil {
		return Picture{}, 0, err
	}
	blocked, err := readSets(conn, table, sum)
	if err != nil {
		return Picture{}, 0, err
	}
	return Picture{Mark: hex.EncodeToString(sum.Sum(nil)[:16]), Blocked: blocked}, rules, nil
}

func readChains(conn *nftables.Conn, table *nftables.Table, sum hash.Hash) (int, error) {
	chains, err := conn.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return 0, fmt.Errorf("reading the shield's chains: %w", err)
	}
	chains = slices.DeleteFunc(chains, func(c *nftables.Chain) bool { return c.Table.Name != table.Name })
	slices.SortFunc(chains, func(a, b *nftables.Chain) int { return strings.Compare(a.Name, b.Name) })
	total := 0
	for _, c := range chains {
		shape, err := json.Marshal([]any{c.Name, c.Type, c.Hooknum, c.Priority, c.Policy})
		if err != nil {
			return 0, fmt.Errorf("describing a chain: %w", err)
		}
		fmt.Fprintf(sum, "chain %s\n", shape)
		rules, err := conn.GetRules(table, c)
		if err != nil {
			return 0, fmt.Errorf("reading the shield's rules: %w", err)
		}
		total += len(rules)
		for _, r := range rules {
			for _, e := range r.Exprs {
				text, err := json.Marshal(e)
				if err != nil {
					return 0, fmt.Errorf("describing a rule: %w", err)
				}
				fmt.Fprintf(sum, "%T%s;", e, text)
			}
			fmt.Fprintln(sum)
		}
	}
	return total, nil
}

// readSets adds the sets to sum, without what is in those that packets fill, and returns the counts among these.
func readSets(conn *nftables.Conn, table *nftables.Table, sum hash.Hash) (map[netip.Addr]uint64, error) {
	sets, err := conn.GetSets(table)
	if err != nil {
		return nil, fmt.Errorf("reading the shield's sets: %w", err)
	}
	slices.SortFunc(sets, func(a, b *nftables.Set) int { return strings.Compare(a.Name, b.Name) })
	var blocked map[netip.Addr]uint64
	for _, s := range sets {
		fmt.Fprintf(sum, "set %s %t %t %d %s\n", s.Name, s.Interval, s.Dynamic, s.Size, s.KeyType.Name)
		if s.Dynamic && s.Name != blockedSet {
			continue
		}
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return nil, fmt.Errorf("reading the shield's sets: %w", err)
		}
		if s.Name == blockedSet {
			blocked = counts(elements)
			continue
		}
		for _, e := range elements {
			fmt.Fprintf(sum, "%x %t\n", e.Key, e.IntervalEnd)
		}
	}
	return blocked, nil
}

func counts(elements []nftables.SetElement) map[netip.Addr]uint64 {
	blocked := make(map[netip.Addr]uint64, len(elements))
	for _, e := range elements {
		if addr, ok := netip.AddrFromSlice(e.Key); ok && e.Counter != nil {
			blocked[addr] = e.Counter.Packets
		}
	}
	return blocked
}
