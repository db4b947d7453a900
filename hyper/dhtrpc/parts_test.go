package dhtrpc

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func randomID(r *rand.Rand) (id ID) {
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	return id
}

func TestTableKeepsManyNearAndFewFar(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	tab := &table{id: randomID(r)}
	for i := range 5000 {
		a := addrOf(i)
		tab.add(newNode(a))
	}
	size := 0
	for i, row := range tab.rows {
		size += len(row)
		for _, n := range row {
			if tab.row(n.id) != i {
				t.Fatalf("a node of row %d is in row %d", tab.row(n.id), i)
			}
		}
		if i < 6 && len(row) != K || len(row) > K {
			t.Errorf("row %d has %d nodes", i, len(row))
		}
	}
	if size != tab.size || tab.pick(size-1) == nil || tab.pick(size) != nil {
		t.Errorf("size is %d, want %d", tab.size, size)
	}
}

func TestClosestAreTheClosestOfTheTable(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	tab := &table{id: randomID(r)}
	var all []ID
	for i := range 2000 {
		a := addrOf(i)
		if n := (newNode(a)); tab.add(n) {
			all = append(all, n.id)
		}
	}
	targets := []ID{tab.id, all[3], all[len(all)-1]}
	for range 100 {
		targets = append(targets, randomID(r))
	}
	for _, near := range all[:20] {
		near[31] ^= 1
		targets = append(targets, near)
	}
	for _, target := range targets {
		slices.SortFunc(all, func(a, b ID) int { return closer(target, a, b) })
		var got []ID
		for _, n := range tab.closest(target, K) {
			got = append(got, n.id)
		}
		if !slices.Equal(got, all[:K]) {
			t.Fatalf("the closest to %x are not the closest", target)
		}
	}
	if got := len(tab.closest(tab.id, tab.size)); got != len(all) {
		t.Errorf("all are %d, want %d", got, len(all))
	}
	var empty table
	if got := empty.closest(tab.id, K); len(got) != 0 {
		t.Errorf("the closest of none are %v", got)
	}
}

func TestTableTakesAndRemovesNodes(t *testing.T) {
	tab := new(table)
	a := newNode(addrOf(1))
	if !tab.add(a) || tab.add(a) || tab.add(newNode(a.addr)) || tab.add(&node{id: tab.id}) {
		t.Error("a node may be there once, and this one never")
	}
	if tab.get(a.id) != a || tab.get(NodeID(addrOf(2))) != nil {
		t.Error("a node is not found, or one that is not there is")
	}
	tab.remove(a)
	tab.remove(a)
	if tab.get(a.id) != nil || tab.size != 0 {
		t.Error("a node stays")
	}
}

func TestOneNetworkHasAtMostHalfOfARow(t *testing.T) {
	for first, want := range map[string]int{"24.1.2.0": maxPerNet, "192.168.1.0": K, "127.0.0.0": K, "10.1.1.0": K} {
		tab := new(table)
		ip := netip.MustParseAddr(first).As4()
		for i := range 5000 {
			ip[3] = byte(i)
			a := netip.AddrPortFrom(netip.AddrFrom4(ip), uint16(i+1))
			tab.add(newNode(a))
		}
		if got := len(tab.rows[0]); got != want {
			t.Errorf("%s/24 has %d places of a row, want %d", first, got, want)
		}
		other := addrOf(1)
		for i := 1; tab.row(NodeID(other)) != 0; i++ {
			other = addrOf(i)
		}
		if got := tab.add(newNode(other)); got != (want < K) {
			t.Errorf("beside %s/24 another finds a place: %v", first, got)
		}
	}
}

func TestOrderIsByWhenNodesWereHeard(t *testing.T) {
	var o order
	n := make([]*node, 5)
	for i := range n {
		n[i] = &node{added: i}
		o.add(n[i])
	}
	o.add(n[2])
	o.remove(n[0])
	o.remove(n[0])
	o.remove(n[4])
	o.add(n[0])
	o.remove(n[0])
	var got []int
	for p := o.oldest; p != nil; p = p.next {
		got = append(got, p.added)
	}
	var back []int
	for p := o.latest; p != nil; p = p.prev {
		back = append(back, p.added)
	}
	slices.Reverse(back)
	if want := []int{1, 3, 2}; !slices.Equal(got, want) || !slices.Equal(back, want) || o.length != 3 {
		t.Errorf("got %v and %v of %d, want %v", got, back, o.length, want)
	}
	for _, p := range n {
		o.remove(p)
	}
	if o.oldest != nil || o.latest != nil || o.length != 0 {
		t.Error("not empty")
	}
}

func TestNATIsWhatMostOthersSee(t *testing.T) {
	a, b := addrPort("203.0.113.1:1000"), addrPort("203.0.113.1:2000")
	other := addrPort("198.51.100.1:1000")
	type want struct {
		host string
		port uint16
	}
	none := want{}
	for _, c := range []struct {
		what    string
		samples []netip.AddrPort
		want    want
	}{
		{"nothing", nil, none},
		{"one", []netip.AddrPort{a}, want{"203.0.113.1", 1000}},
		{"two that agree", []netip.AddrPort{a, a}, want{"203.0.113.1", 1000}},
		{"two ports", []netip.AddrPort{a, b}, want{"203.0.113.1", 0}},
		{"two hosts", []netip.AddrPort{a, other}, none},
		{"a liar among four", []netip.AddrPort{a, other, a, a}, want{"203.0.113.1", 1000}},
		{"a liar among three", []netip.AddrPort{a, other, a}, none},
		{"two liars among eight", []netip.AddrPort{a, other, a, a, b, a, a, a}, want{"203.0.113.1", 1000}},
		{"moved", slices.Concat(slices.Repeat([]netip.AddrPort{a}, 40), slices.Repeat([]netip.AddrPort{other}, 14)), want{"198.51.100.1", 1000}},
	} {
		n := new(NAT)
		for _, s := range c.samples {
			n.Add(s)
		}
		got := want{port: n.Port()}
		if n.Host().IsValid() {
			got.host = n.Host().String()
		}
		if got != c.want || n.Size() != min(16, len(c.samples)) {
			t.Errorf("%s: got %+v of %d samples, want %+v", c.what, got, n.Size(), c.want)
		}
	}
}

func TestWindowBoundsWhatIsUnderWay(t *testing.T) {
	now := time.Unix(1000, 0)
	w := window{max: 10}
	w.advance(now)
	for range 10 {
		if w.full() {
			t.Fatal("full too early")
		}
		w.sent()
	}
	if !w.full() {
		t.Fatal("no bound in a slot")
	}
	w.done()
	if w.full() {
		t.Error("an answer makes no room")
	}
	w.sent()
	now = now.Add(windowSlot)
	w.advance(now)
	for range 10 {
		w.sent()
	}
	now = now.Add(windowSlot)
	if w.advance(now); !w.full() {
		t.Error("no bound over all slots")
	}
	now = now.Add(2 * windowSlot)
	if w.advance(now); w.full() || w.total != 10 {
		t.Errorf("%d are under way after the first slot is over, want 10", w.total)
	}
	now = now.Add(time.Hour)
	if w.advance(now); w.total != 0 {
		t.Errorf("%d are under way after an hour", w.total)
	}
}

func TestTimeoutsFollowRoundTrips(t *testing.T) {
	random, err := newDice([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	var s times
	near, far := addrOf(1), addrOf(2)
	if got := s.timeout(near, 1, random); got != firstTimeout {
		t.Errorf("a new node has %v, want %v", got, firstTimeout)
	}
	for range 20 {
		s.measured(near, 10*time.Millisecond)
		s.measured(far, 600*time.Millisecond)
	}
	if got := s.timeout(near, 1, random); got != minTimeout {
		t.Errorf("a near node has %v, want %v", got, minTimeout)
	}
	if got := s.timeout(far, 1, random); got < 600*time.Millisecond || got > 900*time.Millisecond {
		t.Errorf("a node that takes 600ms has %v", got)
	}
	if got := s.timeout(far, 3, random); got < 1800*time.Millisecond || got > 2200*time.Millisecond {
		t.Errorf("the third time it has %v", got)
	}
	if got := s.timeout(far, 100, random); got != maxTimeout {
		t.Errorf("at most it has %v, want %v", got, maxTimeout)
	}
	for i := range 10 * maxTimes {
		s.measured(addrOf(i), time.Second)
	}
	if got := len(s.young) + len(s.old); got > 2*maxTimes {
		t.Errorf("%d are kept", got)
	}
	if _, ok := s.get(addrOf(10*maxTimes - 1)); !ok {
		t.Error("the last one is not kept")
	}
}

func TestTokensAreForOneAddressAndSomeSeconds(t *testing.T) {
	s, other := tokens{[32]byte{1}}, tokens{[32]byte{2}}
	now := time.Unix(1_700_000_000, 0)
	a, b := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	token := s.at(now, 0, a)
	for age, want := range map[time.Duration]bool{0: true, tokenTime: true, 2*tokenTime + time.Second: false, -tokenTime: false} {
		if got := s.valid(now.Add(age), token, a); got != want {
			t.Errorf("after %v it is valid: %v, want %v", age, got, want)
		}
	}
	if s.valid(now, token, b) || other.valid(now, token, a) {
		t.Error("a token is good for others")
	}
}

func TestBudgetBoundsWhatANetworkGets(t *testing.T) {
	b := budget{seed: 5}
	got := 0
	now := time.Duration(0)
	const seconds = 100
	for range seconds {
		for i := range 1000 {
			if b.take(now, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 100) {
				got += 100
			}
		}
		now += time.Second
	}
	if limit := budgetBurst + seconds*budgetRate; got > limit || got < limit-2000 {
		t.Errorf("a network got %d bytes in %d s, want %d", got, seconds, limit)
	}
	others := 0
	for i := range 100 {
		if b.take(now, netip.AddrFrom4([4]byte{198, 51, byte(i), 1}), 100) {
			others++
		}
	}
	if others < 99 {
		t.Errorf("%d of 100 others had an allowance", others)
	}
	if !b.take(now, netip.MustParseAddr("127.0.0.1"), 1<<30) || !b.take(now, netip.MustParseAddr("203.0.113.1"), 0) {
		t.Error("what needs no allowance is refused")
	}
}

func TestHealthTellsWhoIsOffline(t *testing.T) {
	var h health
	responses, lost := 0, 0
	tick := func(r, l int) {
		responses, lost = responses+r, lost+l
		h.update(responses, lost)
	}
	is := func(offline, degraded bool) {
		t.Helper()
		if h.offline != offline || h.degraded != degraded {
			t.Errorf("offline %v, degraded %v, want %v, %v", h.offline, h.degraded, offline, degraded)
		}
	}
	for range 8 {
		tick(10, 0)
	}
	is(false, false)
	tick(0, 10)
	is(false, false)
	tick(0, 3) // too few to tell
	is(false, false)
	tick(0, 10)
	is(true, false)
	tick(1, 9)
	is(false, false)
	for range 4 {
		tick(1, 9)
	}
	is(false, true)
	tick(10, 0)
	is(false, true)
	for range 3 {
		tick(10, 0)
	}
	is(false, false)
	tick(0, 10)
	tick(0, 10)
	is(true, false)
	h.reset(responses, lost)
	is(false, false)
}
