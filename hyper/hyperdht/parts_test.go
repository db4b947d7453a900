package hyperdht

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/noise"
)

func addrOf(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{24, byte(i >> 16), byte(i >> 8), byte(i)}), uint16(1000+i%1000))
}

// chance is the same every time.
func chance(seed byte) *random { return &random{r: rand.NewChaCha8([32]byte{seed})} }

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestNATIsMadeOutFromWhatNodesSee(t *testing.T) {
	a, a2, a3, a4 := ap("1.1.1.1:1"), ap("1.1.1.1:2"), ap("1.1.1.1:3"), ap("1.1.1.1:4")
	b, b2 := ap("2.2.2.2:1"), ap("2.2.2.2:2")
	for _, test := range []struct {
		name  string
		open  bool
		seen  []netip.AddrPort
		want  Firewall
		addrs []netip.AddrPort
	}{
		{"nobody", false, nil, FirewallUnknown, nil},
		{"two are too few", false, []netip.AddrPort{a, a}, FirewallUnknown, nil},
		{"three agree", false, []netip.AddrPort{a, a, a}, FirewallConsistent, []netip.AddrPort{a}},
		{"one of four does not", false, []netip.AddrPort{a, a2, a, a}, FirewallConsistent, []netip.AddrPort{a, a2}},
		{"all differ", false, []netip.AddrPort{a, a2, a3}, FirewallRandom, []netip.AddrPort{ap("1.1.1.1:0")}},
		{"two of three agree: one more to come", false, []netip.AddrPort{a, a, a2}, FirewallUnknown, nil},
		{"two of four agree", false, []netip.AddrPort{a, a, a2, a3}, FirewallRandom, []netip.AddrPort{ap("1.1.1.1:0")}},
		{"two ways out", false, []netip.AddrPort{a, b, a, b}, FirewallConsistent, []netip.AddrPort{a, b}},
		{"two ways out, one random", false, []netip.AddrPort{a, a, b, b2, a2}, FirewallRandom, []netip.AddrPort{ap("1.1.1.1:0")}},
		{"first random, then consistent", false, []netip.AddrPort{a, a2, a4, a, a}, FirewallConsistent, []netip.AddrPort{a, a2}},
		{"known to be open", true, []netip.AddrPort{a, a2, a3}, FirewallOpen, nil},
	} {
		n := newNAT(test.open)
		for i, addr := range test.seen {
			n.add(addr, addrOf(i))
			n.add(addr, addrOf(i)) // the same node again counts once
		}
		if n.firewall != test.want || fmt.Sprint(n.addrs) != fmt.Sprint(test.addrs) {
			t.Errorf("%s: %v %v, want %v %v", test.name, n.firewall, n.addrs, test.want, test.addrs)
		}
	}
	n := newNAT(false)
	for i := range 3 {
		n.add(a, addrOf(i))
	}
	n.freeze()
	for i := range 5 {
		n.add(addrOf(50+i), addrOf(10+i))
	}
	if n.firewall != FirewallConsistent || len(n.addrs) != 1 {
		t.Errorf("what was told has changed to %v %v", n.firewall, n.addrs)
	}
}

func TestStrategyFollowsBothNATs(t *testing.T) {
	verified := []remoteAddr{{ap("9.9.9.9:9"), true}}
	unverified := []remoteAddr{{ap("9.9.9.9:9"), false}}
	for _, test := range []struct {
		local, remote Firewall
		addrs         []remoteAddr
		want          strategy
	}{
		{FirewallConsistent, FirewallConsistent, verified, strategyConsistent},
		{FirewallConsistent, FirewallConsistent, unverified, strategyConsistent},
		{FirewallOpen, FirewallConsistent, verified, strategyConsistent},
		{FirewallConsistent, FirewallRandom, verified, strategyProbe},
		{FirewallConsistent, FirewallRandom, unverified, strategyNone},
		{FirewallRandom, FirewallConsistent, verified, strategyBirthday},
		{FirewallRandom, FirewallOpen, verified, strategyBirthday},
		{FirewallRandom, FirewallConsistent, unverified, strategyNone},
		{FirewallRandom, FirewallRandom, verified, strategyNone},
		{FirewallUnknown, FirewallConsistent, verified, strategyNone},
		{FirewallConsistent, FirewallConsistent, nil, strategyNone},
	} {
		if p := newPunch(test.local, test.remote, test.addrs, true); p.strategy != test.want {
			t.Errorf("%v against %v, %v: strategy %d, want %d", test.local, test.remote, test.addrs, p.strategy, test.want)
		}
	}
}

// run steps a punch to its end.
func runPunch(p punch) (probes []probe, at []time.Duration, took time.Duration) {
	rnd := chance(2)
	for range 100000 {
		out, wait, done := p.step(rnd)
		for _, b := range out {
			probes, at = append(probes, b), append(at, took)
		}
		if took += wait; done {
			break
		}
	}
	return probes, at, took
}

func TestConsistentPunchTriesTenTimes(t *testing.T) {
	addrs := []remoteAddr{{ap("9.9.9.9:9"), true}, {ap("8.8.8.8:8"), false}}
	for _, initiator := range []bool{true, false} {
		probes, at, took := runPunch(newPunch(FirewallConsistent, FirewallConsistent, addrs, initiator))
		begin := time.Duration(0)
		if !initiator { // it was quick already
			begin = time.Second
		}
		verified := 0
		for i, b := range probes {
			if b.low || b.socket != 0 {
				t.Errorf("probe %+v", b)
			}
			if b.to == addrs[0].addr {
				if want := begin + time.Duration(verified)*time.Second; at[i] != want {
					t.Errorf("probe %d at %v, want %v", verified, at[i], want)
				}
				verified++
			}
		}
		if verified != 10 || len(probes) != 12 || took != begin+10*time.Second {
			t.Errorf("%d probes, %d to the verified address, in %v", len(probes), verified, took)
		}
	}
}

func TestProbesGoToRandomPortsEvery20ms(t *testing.T) {
	target := remoteAddr{ap("9.9.9.9:9"), true}
	probes, at, took := runPunch(newPunch(FirewallConsistent, FirewallRandom, []remoteAddr{target}, true))
	ports := map[uint16]bool{}
	for i, b := range probes {
		if b.socket != 0 || b.low || b.to.Addr() != target.addr.Addr() || b.to.Port() < 1000 || at[i] != time.Duration(i)*20*time.Millisecond {
			t.Fatalf("probe %d is %+v at %v", i, b, at[i])
		}
		ports[b.to.Port()] = true
	}
	if len(probes) != 1750 || took != 35*time.Second || len(ports) < 1700 {
		t.Errorf("%d probes to %d ports in %v", len(probes), len(ports), took)
	}
}

func TestBirthdayOpens256Sockets(t *testing.T) {
	target := remoteAddr{ap("9.9.9.9:9"), true}
	probes, at, took := runPunch(newPunch(FirewallRandom, FirewallConsistent, []remoteAddr{target}, false))
	for i := range 255 { // one there was before
		if b := probes[i]; b.socket != i+1 || !b.low || b.to != target.addr || at[i] != 0 {
			t.Fatalf("opener %d is %+v at %v", i, b, at[i])
		}
	}
	rest := probes[255:]
	for i, b := range rest {
		if b.socket != i%256 || b.low != (i < 256) || at[255+i] != 100*time.Millisecond+time.Duration(i)*20*time.Millisecond {
			t.Fatalf("probe %d is %+v at %v", i, b, at[255+i])
		}
	}
	if len(rest) != 1750 || took != 35100*time.Millisecond {
		t.Errorf("%d probes in %v", len(rest), took)
	}
}

func TestRouterSendsMessagesAlong(t *testing.T) {
	client, relay, second, server := addrOf(1), addrOf(2), addrOf(3), addrOf(4)
	n := []byte("noise")
	for _, test := range []struct {
		name  string
		m     handshakeMsg
		from  netip.AddrPort
		known netip.AddrPort
		want  hop
	}{
		{"from a client to the server", handshakeMsg{mode: fromClient, noise: n}, client, server, hop{to: server, value: handshakeMsg{fromRelay, n, client, none}.append(nil)}},
		{"from a client that names a relay", handshakeMsg{mode: fromClient, noise: n, relay: second}, client, server, hop{to: second, value: handshakeMsg{fromRelay, n, client, none}.append(nil)}},
		{"from a client, to nobody known", handshakeMsg{mode: fromClient, noise: n}, client, none, hop{to: client, reply: true, closer: true}},
		{"from a relay to the server", handshakeMsg{fromRelay, n, client, none}, relay, server, hop{to: server, value: handshakeMsg{fromSecondRelay, n, client, relay}.append(nil)}},
		{"from a relay, to nobody known", handshakeMsg{fromRelay, n, client, none}, relay, none, hop{}},
		{"from the server back", handshakeMsg{fromServer, n, client, none}, server, none, hop{to: client, reply: true, value: handshakeMsg{modeReply, n, server, none}.append(nil)}},
		{"from the server to nobody", handshakeMsg{mode: fromServer, noise: n}, server, none, hop{}},
		{"without a handshake", handshakeMsg{mode: fromClient}, client, server, hop{}},
		{"a reply that nobody asked for", handshakeMsg{mode: modeReply, noise: n, peer: client}, server, server, hop{}},
		{"of no mode", handshakeMsg{mode: 77, noise: n, peer: client}, server, server, hop{}},
	} {
		if got := handshakeHop(test.m, test.from, test.known); fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("handshake %s: %+v, want %+v", test.name, got, test.want)
		}
	}
	for mode, want := range map[int]hop{
		fromClient:      {to: relay, reply: true, value: handshakeMsg{modeReply, n, none, none}.append(nil)},
		fromRelay:       {to: relay, value: handshakeMsg{fromServer, n, client, none}.append(nil)},
		fromSecondRelay: {to: second, value: handshakeMsg{fromServer, n, client, none}.append(nil)},
		fromServer:      {},
	} {
		if got := handshakeReply(handshakeMsg{mode, []byte("asked"), client, second}, relay, n); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("reply to mode %d: %+v, want %+v", mode, got, want)
		}
	}
	for _, test := range []struct {
		name  string
		m     holepunchMsg
		from  netip.AddrPort
		known netip.AddrPort
		want  hop
	}{
		{"from a client to where it says", holepunchMsg{fromClient, 3, n, server}, client, none, hop{to: server, value: holepunchMsg{fromRelay, 3, n, client}.append(nil)}},
		{"from a client to the server", holepunchMsg{fromClient, 3, n, none}, client, server, hop{to: server, value: holepunchMsg{fromRelay, 3, n, client}.append(nil)}},
		{"from a client to nobody", holepunchMsg{fromClient, 3, n, none}, client, none, hop{}},
		{"from the server back", holepunchMsg{fromServer, 0, n, client}, server, none, hop{to: client, reply: true, value: holepunchMsg{modeReply, 0, n, server}.append(nil)}},
		{"from a relay where no server is", holepunchMsg{fromRelay, 3, n, client}, relay, server, hop{}},
	} {
		if got := holepunchHop(test.m, test.from, test.known); fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("hole punching %s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestRelayingIsBoundedBySource(t *testing.T) {
	var m meter
	passed := 0
	for range 3 * relayRate {
		if m.take(epoch, addrOf(1).Addr()) {
			passed++
		}
	}
	if passed != relayRate || !m.take(epoch, addrOf(2).Addr()) || !m.take(epoch.Add(time.Second), addrOf(1).Addr()) {
		t.Errorf("%d messages passed", passed)
	}
	passed = 0
	for i := range 3 * relaySources { // a flood of made up sources
		if m.take(epoch.Add(time.Second), addrOf(i).Addr()) {
			passed++
		}
	}
	if len(m.counts) > relaySources+1 || passed > relaySources+relayRate {
		t.Errorf("%d sources are counted, %d messages passed", len(m.counts), passed)
	}
}

func TestCacheIsBoundedByCountBytesSourceAndAge(t *testing.T) {
	c := newCache(bounds{count: 100, bytes: 1000, perSource: 40, age: time.Minute}, func(b []byte) int { return len(b) })
	k := func(i int) [32]byte { return hash([]byte(fmt.Sprint(i))) }
	for i := range 10000 {
		c.set(epoch, k(i), make([]byte, 20), addrOf(i).Addr())
		if c.len() > 200 || c.new.bytes+c.old.bytes > 2000 {
			t.Fatalf("there are %d entries with %d bytes", c.len(), c.new.bytes+c.old.bytes)
		}
	}
	if _, ok := c.get(epoch, k(9999)); !ok {
		t.Error("the newest entry is gone")
	}
	if _, ok := c.get(epoch, k(1)); ok {
		t.Error("the oldest entry is there")
	}
	if _, ok := c.get(epoch.Add(30*time.Second), k(9999)); !ok {
		t.Error("an entry is gone before its time")
	}
	if _, ok := c.get(epoch.Add(2*time.Minute), k(9999)); ok || c.len() != 0 {
		t.Errorf("%d entries are there after their time", c.len())
	}
	now := epoch.Add(time.Hour)
	refused := 0
	for i := range 60 {
		if !c.set(now, k(i), nil, addrOf(1).Addr()) {
			refused++
		}
	}
	if refused != 20 {
		t.Errorf("%d entries of one source were refused, want 20", refused)
	}
	if !c.set(now, k(1), []byte("new"), addrOf(1).Addr()) {
		t.Error("a source may not replace its own entry")
	}
	c.remove(k(1))
	if _, ok := c.get(now, k(1)); ok {
		t.Error("an entry that was removed is there")
	}
	c.touch = true
	c.set(now, k(2), []byte("read"), addrOf(1).Addr())
	for i := range 10 {
		if _, ok := c.get(now.Add(time.Duration(i)*30*time.Second), k(2)); !ok {
			t.Fatalf("what is read is gone after %d times", i)
		}
	}
}

func TestTopicsTellOfSomeAtRandom(t *testing.T) {
	tp := topics{bounds: bounds{count: 1000, bytes: 1 << 20, perSource: 60, age: time.Minute}}
	rnd := chance(1)
	target := hash([]byte("topic"))
	key := func(i int) [32]byte { return hash([]byte(fmt.Sprint("key", i))) }
	for i := range 50 {
		k := key(i)
		tp.add(epoch, target, announced{k, k[:], addrOf(1).Addr()})
		tp.add(epoch, target, announced{k, k[:], addrOf(1).Addr()}) // again
	}
	if tp.len() != 50 {
		t.Fatalf("there are %d records, want 50", tp.len())
	}
	seen := map[string]bool{}
	for range 50 {
		got := tp.get(epoch, target, 20, rnd)
		once := map[string]bool{}
		for _, r := range got {
			once[string(r)], seen[string(r)] = true, true
		}
		if len(got) != 20 || len(once) != 20 {
			t.Fatalf("got %d records, %d different", len(got), len(once))
		}
	}
	if len(seen) != 50 {
		t.Errorf("%d of 50 were seen", len(seen))
	}
	for i := range 30 {
		tp.remove(target, key(i))
	}
	if got := tp.get(epoch, target, 100, rnd); len(got) != 20 {
		t.Errorf("%d records are left, want 20", len(got))
	}
	for i := range 100 { // a flood by one source
		k := key(1000 + i)
		tp.add(epoch, target, announced{k, k[:], addrOf(7).Addr()})
	}
	if got := tp.get(epoch, target, 1000, rnd); len(got) != 80 {
		t.Errorf("%d records are there, want 20 and 60 of one source", len(got))
	}
	for i := range 5000 { // and by many
		k := key(5000 + i)
		tp.add(epoch, k, announced{k, k[:], addrOf(i).Addr()})
		if tp.len() > 2002 {
			t.Fatalf("there are %d records", tp.len())
		}
	}
	if tp.get(epoch.Add(time.Hour), target, 20, rnd); tp.len() != 0 || len(tp.new.at)+len(tp.old.at)+len(tp.new.sources) != 0 {
		t.Errorf("%d records are there after their time", tp.len())
	}
}

// A keeper is records with a node id, as a node has them.
type keeper struct {
	*records
	id, token [32]byte
	now       time.Time
}

func newKeeper() *keeper {
	return &keeper{newRecords(1000, 1<<20, 0, chance(1)), hash([]byte("id")), hash([]byte("token")), epoch}
}

func (k *keeper) announces(target [32]byte, keys noise.KeyPair, from netip.AddrPort, change func(*announceMsg)) answer {
	m := announceMsg{peer: &peerRecord{key: keys.Public, relays: []netip.AddrPort{addrOf(1), addrOf(2), addrOf(3), addrOf(4)}}}
	if change != nil {
		change(&m)
	}
	m.signature = (*[64]byte)(keys.Sign(announceSignable(nsAnnounce, target, k.token, k.id, *m.peer, m.refresh)))
	return k.announce(k.now, target, k.token, k.id, from, m.append(nil))
}

func (k *keeper) peers(t *testing.T, target [32]byte) ([]peerRecord, uint64) {
	t.Helper()
	a := k.lookup(k.now, target, nil)
	if a.value == nil {
		return nil, 0
	}
	peers, bump, err := readLookup(a.value)
	if err != nil {
		t.Fatal(err)
	}
	return peers, bump
}

func TestRecordsAreSigned(t *testing.T) {
	k := newKeeper()
	keys, topic := noise.NewKeyPair([32]byte{1}), hash([]byte("topic"))
	if a := k.announces(topic, keys, addrOf(9), nil); !a.ok || a.code != 0 {
		t.Fatalf("announce: %+v", a)
	}
	peers, _ := k.peers(t, topic)
	if len(peers) != 1 || peers[0].key != keys.Public || len(peers[0].relays) != maxRecordRelays {
		t.Fatalf("peers are %+v", peers)
	}
	// One byte of anything that is signed makes it worthless.
	m := announceMsg{peer: &peerRecord{key: keys.Public}}
	m.signature = (*[64]byte)(keys.Sign(announceSignable(nsAnnounce, topic, k.token, k.id, *m.peer, nil)))
	other := hash([]byte("other"))
	for what, a := range map[string]answer{
		"for another target": k.announce(k.now, other, k.token, k.id, addrOf(9), m.append(nil)),
		"with another token": k.announce(k.now, topic, other, k.id, addrOf(9), m.append(nil)),
		"to another node":    k.announce(k.now, topic, k.token, other, addrOf(9), m.append(nil)),
		"as an unannounce":   k.unannounce(topic, k.token, k.id, m.append(nil)),
		"cut short":          k.announce(k.now, topic, k.token, k.id, addrOf(9), m.append(nil)[:60]),
		"of nobody":          k.announce(k.now, topic, k.token, k.id, addrOf(9), announceMsg{signature: m.signature}.append(nil)),
	} {
		if a.ok {
			t.Errorf("an announcement %s was taken", what)
		}
	}
	m = announceMsg{peer: &peerRecord{key: keys.Public}}
	m.signature = (*[64]byte)(keys.Sign(announceSignable(nsUnannounce, topic, k.token, k.id, *m.peer, nil)))
	if a := k.unannounce(topic, k.token, k.id, m.append(nil)); !a.ok {
		t.Error("unannounce was not taken")
	}
	if peers, _ := k.peers(t, topic); len(peers) != 0 {
		t.Errorf("peers are %+v", peers)
	}
}

func TestServersAreForwardedTo(t *testing.T) {
	k := newKeeper()
	keys := noise.NewKeyPair([32]byte{1})
	target := Target(keys.Public)
	k.announces(target, keys, addrOf(9), nil)
	if f, ok := k.forward(k.now, target); !ok || f.relay != addrOf(9) {
		t.Fatalf("forward is %+v, %v", f, ok)
	}
	if p, err := readPeer(k.findPeer(k.now, target, nil).value); err != nil || p.key != keys.Public {
		t.Errorf("find peer: %+v, %v", p, err)
	}
	if peers, _ := k.peers(t, target); len(peers) != 1 {
		t.Errorf("lookup: %+v", peers)
	}
	if n, _, forwards := k.counts(); n != 0 || forwards != 1 {
		t.Errorf("%d records and %d forwards", n, forwards)
	}
	k.forget(target, keys.Public)
	if a := k.findPeer(k.now, target, nil); !a.ok || a.value != nil {
		t.Errorf("find peer: %+v", a)
	}
}

func TestBumpsMayNotBeFromTheFuture(t *testing.T) {
	k := newKeeper()
	keys, topic := noise.NewKeyPair([32]byte{1}), hash([]byte("topic"))
	bump := func(d time.Duration) uint64 {
		at := uint64(k.now.Add(d).UnixMilli())
		k.announces(topic, keys, addrOf(9), func(m *announceMsg) { m.bump = at })
		_, got := k.peers(t, topic)
		return got - uint64(k.now.UnixMilli()) + uint64(time.Hour.Milliseconds())
	}
	hour := uint64(time.Hour.Milliseconds())
	for _, test := range []struct {
		d    time.Duration
		want uint64
	}{{-time.Minute, hour - 60000}, {time.Second, hour + 1000}, {-time.Second, hour + 1000}, {2 * time.Minute, hour + 1000}, {time.Minute, hour + 60000}} {
		if got := bump(test.d); got != test.want {
			t.Errorf("bump by %v: %d, want %d", test.d, got, test.want)
		}
	}
}

func TestRefreshRepeatsAnAnnouncementAlongAChain(t *testing.T) {
	k := newKeeper()
	keys, topic := noise.NewKeyPair([32]byte{1}), hash([]byte("topic"))
	// Each is the hash of the next (lib/refresh-chain.js).
	chain := make([][32]byte, 4)
	chain[3] = hash([]byte("secret"))
	for i := 2; i >= 0; i-- {
		chain[i] = hash(chain[i+1][:])
	}
	k.announces(topic, keys, addrOf(9), func(m *announceMsg) { m.refresh = &chain[0] })
	refresh := func(token [32]byte) bool {
		return k.announce(k.now, topic, k.token, k.id, addrOf(9), announceMsg{refresh: &token}.append(nil)).ok
	}
	if refresh(chain[2]) || refresh(chain[0]) {
		t.Error("a token out of turn was taken")
	}
	for i := 1; i < len(chain); i++ {
		k.now = k.now.Add(15 * time.Minute) // it would be gone after 20
		if !refresh(chain[i]) {
			t.Fatalf("token %d was not taken", i)
		}
		if refresh(chain[i]) {
			t.Error("a token was taken twice")
		}
		if peers, _ := k.peers(t, topic); len(peers) != 1 {
			t.Fatalf("after %d refreshes: %+v", i, peers)
		}
	}
	k.now = k.now.Add(time.Hour)
	if peers, _ := k.peers(t, topic); len(peers) != 0 {
		t.Errorf("after its time: %+v", peers)
	}
}

func TestMutableValuesGoForward(t *testing.T) {
	k := newKeeper()
	keys := noise.NewKeyPair([32]byte{1})
	target := Target(keys.Public)
	put := func(seq uint64, value string) int {
		m := mutableMsg{key: keys.Public, seq: seq, value: []byte(value)}
		copy(m.signature[:], keys.Sign(mutableSignable(seq, m.value)))
		a := k.mutablePut(k.now, target, addrOf(9), m.appendRequest(nil))
		if !a.ok {
			return -1
		}
		return a.code
	}
	get := func(seq byte) string {
		m, err := readMutableResponse(k.mutableGet(k.now, target, []byte{seq}).value)
		if err != nil {
			return ""
		}
		return string(m.value)
	}
	if a := k.mutableGet(k.now, target, []byte{0}); !a.ok || a.value != nil {
		t.Errorf("get before put: %+v", a)
	}
	for _, test := range []struct {
		seq   uint64
		value string
		code  int
		then  string
	}{
		{3, "three", 0, "three"}, {3, "three", 0, "three"}, {3, "3", codeSeqReused, "three"}, {2, "two", codeSeqTooLow, "three"},
		{4, "four", 0, "four"}, {5, "", -1, "four"},
	} {
		if got := put(test.seq, test.value); got != test.code || get(0) != test.then {
			t.Errorf("put %q as %d: code %d, want %d; then it is %q", test.value, test.seq, got, test.code, get(0))
		}
	}
	if get(4) != "four" || get(5) != "" {
		t.Error("the least sequence number does not count")
	}
	m := mutableMsg{key: keys.Public, seq: 9, value: []byte("forged")}
	if a := k.mutablePut(k.now, target, addrOf(9), m.appendRequest(nil)); a.ok {
		t.Error("a value without a signature was taken")
	}
	if a := k.immutablePut(k.now, target, addrOf(9), []byte("not its hash")); a.ok {
		t.Error("a value under another hash was taken")
	}
	value := []byte("value")
	if a := k.immutablePut(k.now, hash(value), addrOf(9), value); !a.ok || a.code != 0 {
		t.Errorf("put: %+v", a)
	}
	if a := k.immutableGet(k.now, hash(value)); !bytes.Equal(a.value, value) {
		t.Errorf("get: %+v", a)
	}
}

func TestLocalAddressesAreMatched(t *testing.T) {
	l := func(s ...string) (out []netip.AddrPort) {
		for _, a := range s {
			out = append(out, ap(a))
		}
		return out
	}
	for _, test := range []struct {
		ours, theirs []netip.AddrPort
		want         string
	}{
		{l("192.168.1.2:1"), l("10.0.0.1:1", "192.168.2.9:1", "192.168.1.7:1"), "192.168.1.7:1"},
		{l("192.168.1.2:1"), l("192.9.9.9:1", "192.168.2.9:1"), "192.168.2.9:1"},
		{l("10.1.1.1:1", "192.168.1.2:1"), l("192.9.9.9:1"), "192.9.9.9:1"},
		{l("192.168.1.2:1"), l("10.0.0.1:1"), "invalid AddrPort"},
		{nil, l("10.0.0.1:1"), "invalid AddrPort"},
	} {
		if got := matchAddr(test.ours, test.theirs).String(); got != test.want {
			t.Errorf("match of %v and %v is %s, want %s", test.ours, test.theirs, got, test.want)
		}
	}
	for addr, want := range map[string][2]bool{ // private, reserved
		"8.8.8.8": {}, "10.1.2.3": {true, false}, "100.64.0.1": {true, false}, "127.0.0.1": {true, false}, "172.31.0.1": {true, false},
		"172.32.0.1": {}, "0.1.2.3": {false, true}, "224.0.0.1": {false, true}, "255.255.255.255": {false, true}, "198.18.0.1": {false, true},
	} {
		if a := netip.MustParseAddr(addr); isPrivate(a) != want[0] || isReserved(a) != want[1] {
			t.Errorf("%s: private %v, reserved %v", addr, isPrivate(a), isReserved(a))
		}
	}
}
