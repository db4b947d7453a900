package dhtrpc

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// A node is one of the network that is in the table.
type node struct {
	id   ID
	addr netip.AddrPort
	net  network
	to   netip.AddrPort // our address as it told, if it did

	// Ticks: when to was counted, when it came into the table, when it was last
	// asked or heard, and when it was last heard.
	sampled, added, pinged, seen int

	hinted     bool // as being down
	prev, next *node
}

func newNode(addr netip.AddrPort) *node {
	return &node{id: NodeID(addr), addr: addr, net: networkOf(addr.Addr())}
}

// order is the nodes by when they were last heard, the oldest first.
type order struct {
	oldest, latest *node
	length         int
}

func (o *order) has(n *node) bool { return n.prev != nil || n.next != nil || o.oldest == n }

// add puts a node behind all others.
func (o *order) add(n *node) {
	o.remove(n)
	n.prev = o.latest
	if o.latest == nil {
		o.oldest = n
	} else {
		o.latest.next = n
	}
	o.latest = n
	o.length++
}

func (o *order) remove(n *node) {
	if !o.has(n) {
		return
	}
	if n.prev == nil {
		o.oldest = n.next
	} else {
		n.prev.next = n.next
	}
	if n.next == nil {
		o.latest = n.prev
	} else {
		n.next.prev = n.prev
	}
	n.prev, n.next = nil, nil
	o.length--
}

// maxPerNet is how many nodes of one IPv4 network of 256 addresses a row of a
// table may hold, and the closest of a query, so that who owns one such network
// can't have more than half. Private networks and this machine are excepted:
// all of a small network is in one there.
const maxPerNet = K / 2

// A network is the first bytes of the address of one that is bounded so; zero
// is none.
type network uint32

func networkOf(a netip.Addr) network {
	if !a.Is4() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return 0
	}
	ip := a.As4()
	return network(binary.BigEndian.Uint32(ip[:]) >> 8)
}

// A table is the nodes that a node knows, in rows by how many bits of their id
// are those of its own (Kademlia). A row has at most K, so there is room for
// many near and few far.
type table struct {
	id   ID
	size int
	rows [][]*node // each in no order; those behind the last are empty
}

// row is the number of the row for an id: the bits that it has in common.
func (t *table) row(id ID) int {
	for i := range id {
		if x := id[i] ^ t.id[i]; x != 0 {
			return 8*i + bits.LeadingZeros8(x)
		}
	}
	return 8*len(id) - 1
}

func (t *table) rowOf(id ID) []*node {
	if i := t.row(id); i < len(t.rows) {
		return t.rows[i]
	}
	return nil
}

func (t *table) get(id ID) *node {
	for _, n := range t.rowOf(id) {
		if n.id == id {
			return n
		}
	}
	return nil
}

// crowd returns the nodes of which one would have to go before this one may
// come: none if there is room for it.
func (t *table) crowd(id ID, addr netip.Addr) []*node {
	row := t.rowOf(id)
	if net := networkOf(addr); net != 0 {
		var near []*node
		for _, n := range row {
			if n.net == net {
				near = append(near, n)
			}
		}
		if len(near) >= maxPerNet {
			return near
		}
	}
	if len(row) >= K {
		return row
	}
	return nil
}

// add puts a node into the table if there is room and it is not there.
func (t *table) add(n *node) bool {
	if n.id == t.id || t.get(n.id) != nil || t.crowd(n.id, n.addr.Addr()) != nil {
		return false
	}
	i := t.row(n.id)
	for len(t.rows) <= i {
		t.rows = append(t.rows, nil)
	}
	t.rows[i] = append(t.rows[i], n)
	t.size++
	return true
}

func (t *table) remove(n *node) {
	i := t.row(n.id)
	if j := slices.Index(t.rowOf(n.id), n); j >= 0 {
		t.rows[i] = slices.Delete(t.rows[i], j, j+1)
		t.size--
	}
}

// pick returns the i-th node.
func (t *table) pick(i int) *node {
	for _, row := range t.rows {
		if i < len(row) {
			return row[i]
		}
		i -= len(row)
	}
	return nil
}

// closest returns the k nodes that are closest to an id, the closest first, with
// at most maxPerNet of one network.
func (t *table) closest(id ID, k int) []*node {
	// The nodes of the id's row are closer than any other, then those of all the
	// rows above, then those of each row below.
	var out, group []*node
	take := func(rows ...[]*node) {
		if len(out) >= k {
			return
		}
		group = group[:0]
		for _, row := range rows {
			group = append(group, row...)
		}
		slices.SortFunc(group, func(a, b *node) int { return closer(id, a.id, b.id) })
		for _, n := range group {
			same := 0
			for _, o := range out {
				if n.net != 0 && o.net == n.net {
					same++
				}
			}
			if same < maxPerNet && len(out) < k {
				out = append(out, n)
			}
		}
	}
	own := t.row(id)
	take(t.rowOf(id))
	if own+1 < len(t.rows) {
		take(t.rows[own+1:]...)
	}
	for i := min(own, len(t.rows)) - 1; i >= 0; i-- {
		take(t.rows[i])
	}
	return out
}

// closer compares the distances of a and b from an id.
func closer(id, a, b ID) int {
	for i := 0; i < len(id); i += 8 {
		x, y := binary.BigEndian.Uint64(a[i:]), binary.BigEndian.Uint64(b[i:])
		if x != y {
			mine := binary.BigEndian.Uint64(id[i:])
			return cmp.Compare(x^mine, y^mine)
		}
	}
	return 0
}
