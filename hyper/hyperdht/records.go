package hyperdht

import (
	"bytes"
	"net/netip"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/noise"
)

const (
	// maxRecords is how many peers a node tells about a topic at a time.
	maxRecords = 20
	// maxRecordRelays is how many relay addresses of a peer are kept.
	maxRecordRelays = 3
	// maxBumpDrift is how far into the future a bump may be.
	maxBumpDrift = time.Minute
	// codeFull is our own: there is no room for more from that address.
	codeFull = 32
)

// An answer is what a node replies to a command. Its zero value is silence,
// which is what nonsense gets.
type answer struct {
	ok    bool // there is an answer
	code  int
	value []byte
	plain bool // without token and closer nodes
}

// records are what a node keeps for others (lib/persistent.js). Its methods
// may be called by any goroutine; time comes in with the calls.
type records struct {
	mu         sync.Mutex
	rnd        *random
	topics     topics
	forwards   *cache[forward]
	bumps      *cache[uint64]
	refreshes  *cache[refresh]
	mutables   *cache[[]byte]
	immutables *cache[[]byte]
}

// A forward is a peer that has announced itself: where it is, to pass on
// messages for it, and its record.
type forward struct {
	relay  netip.AddrPort
	record []byte
}

// A refresh is an announcement that whoever knows the preimage of a hash may
// repeat without signing again.
type refresh struct {
	target [32]byte
	record []byte
	self   bool
}

func newRecords(maxCount, maxBytes int, age time.Duration, rnd *random) *records {
	long := age
	if long == 0 {
		long = 48 * time.Hour
		age = DefaultMaxAge
	}
	// Half of the bytes are for values, half for the rest.
	some := bounds{maxCount, maxBytes / 16, max(maxCount/16, 1), age}
	values := bounds{max(maxCount/2, 1), maxBytes / 4 / 2, max(maxCount/32, 1), long}
	r := &records{
		rnd:        rnd,
		topics:     topics{bounds: some},
		forwards:   newCache(some, func(f forward) int { return len(f.record) }),
		bumps:      newCache(some, func(uint64) int { return 8 }),
		refreshes:  newCache(some, func(f refresh) int { return len(f.record) }),
		mutables:   newCache(values, func(b []byte) int { return len(b) }),
		immutables: newCache(values, func(b []byte) int { return len(b) }),
	}
	r.mutables.touch, r.immutables.touch = true, true
	return r
}

// forward returns where the peer of a target is.
func (r *records) forward(now time.Time, target [32]byte) (forward, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.forwards.get(now, target)
}

// lookup answers LOOKUP. The record of a server of this node, or nil, is told
// along.
func (r *records) lookup(now time.Time, target [32]byte, own []byte) answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.topics.get(now, target, maxRecords, r.rnd)
	bump, _ := r.bumps.get(now, target)
	if f, ok := r.forwards.get(now, target); ok && own == nil {
		own = f.record
	}
	if own != nil && len(list) < maxRecords {
		list = append(list, own)
	}
	if len(list) == 0 {
		return answer{ok: true}
	}
	return answer{ok: true, value: appendLookup(nil, list, bump)}
}

// findPeer answers FIND_PEER.
func (r *records) findPeer(now time.Time, target [32]byte, own []byte) answer {
	if own != nil {
		return answer{ok: true, value: own}
	}
	f, _ := r.forward(now, target)
	return answer{ok: true, value: f.record}
}

// announce answers ANNOUNCE to the node of an id.
func (r *records) announce(now time.Time, target, token, id [32]byte, from netip.AddrPort, value []byte) answer {
	m, err := readAnnounce(value)
	if err != nil {
		return answer{}
	}
	if m.peer == nil {
		if m.refresh == nil {
			return answer{}
		}
		return r.refresh(now, *m.refresh, from)
	}
	if m.signature == nil || !verify(m.peer.key, announceSignable(nsAnnounce, target, token, id, *m.peer, m.refresh), m.signature) {
		return answer{}
	}
	peer := *m.peer
	peer.relays = peer.relays[:min(len(peer.relays), maxRecordRelays)]
	f := refresh{target: target, record: peer.append(nil), self: target == Target(peer.key)}

	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.storeLocked(now, f, from) {
		return answer{ok: true, code: codeFull, plain: true}
	}
	if !f.self {
		current, _ := r.bumps.get(now, target)
		if m.bump > current && m.bump <= uint64(now.Add(maxBumpDrift).UnixMilli()) {
			r.bumps.set(now, target, m.bump, from.Addr())
		}
	}
	if m.refresh != nil {
		r.refreshes.set(now, *m.refresh, f, from.Addr())
	}
	return answer{ok: true, plain: true}
}

// storeLocked keeps a record: that of a peer at its own target as a forward.
func (r *records) storeLocked(now time.Time, f refresh, from netip.AddrPort) bool {
	key := [32]byte(f.record[:32])
	if !f.self {
		return r.topics.add(now, f.target, announced{key, f.record, from.Addr()})
	}
	r.topics.remove(f.target, key)
	return r.forwards.set(now, f.target, forward{from, f.record}, from.Addr())
}

// refresh repeats the announcement whose hash the token is the preimage of,
// and takes the token as the hash of the next.
func (r *records) refresh(now time.Time, token [32]byte, from netip.AddrPort) answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	active := hash(token[:])
	f, ok := r.refreshes.get(now, active)
	if !ok || !r.storeLocked(now, f, from) {
		return answer{}
	}
	r.refreshes.remove(active)
	r.refreshes.set(now, token, f, from.Addr())
	return answer{ok: true, plain: true}
}

// unannounce answers UNANNOUNCE.
func (r *records) unannounce(target, token, id [32]byte, value []byte) answer {
	m, err := readAnnounce(value)
	if err != nil || m.peer == nil || m.signature == nil {
		return answer{}
	}
	if !verify(m.peer.key, announceSignable(nsUnannounce, target, token, id, *m.peer, m.refresh), m.signature) {
		return answer{}
	}
	r.forget(target, m.peer.key)
	return answer{ok: true, plain: true}
}

// forget drops the announcement of a key at a target.
func (r *records) forget(target [32]byte, key noise.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if target == Target(key) {
		r.forwards.remove(target)
	}
	r.topics.remove(target, key)
}

// mutableGet answers MUTABLE_GET, whose value is the least sequence number.
func (r *records) mutableGet(now time.Time, target [32]byte, value []byte) answer {
	d := compact.NewDecoder(value)
	seq := d.Uint()
	if d.Err() != nil {
		return answer{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	stored, _ := r.mutables.get(now, target)
	if stored != nil {
		if m, err := readMutableResponse(stored); err != nil || m.seq < seq {
			stored = nil
		}
	}
	return answer{ok: true, value: stored}
}

// mutablePut answers MUTABLE_PUT.
func (r *records) mutablePut(now time.Time, target [32]byte, from netip.AddrPort, value []byte) answer {
	m, err := readMutableRequest(value)
	if err != nil || target != Target(m.key) || m.value == nil || !verifyMutable(m.key, m) {
		return answer{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if stored, ok := r.mutables.get(now, target); ok {
		old, err := readMutableResponse(stored)
		if err == nil && old.seq == m.seq && !bytes.Equal(old.value, m.value) {
			return answer{ok: true, code: codeSeqReused}
		}
		if err == nil && m.seq < old.seq {
			return answer{ok: true, code: codeSeqTooLow}
		}
	}
	if !r.mutables.set(now, target, m.appendResponse(nil), from.Addr()) {
		return answer{ok: true, code: codeFull}
	}
	return answer{ok: true}
}

// immutableGet answers IMMUTABLE_GET.
func (r *records) immutableGet(now time.Time, target [32]byte) answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, _ := r.immutables.get(now, target)
	return answer{ok: true, value: v}
}

// immutablePut answers IMMUTABLE_PUT.
func (r *records) immutablePut(now time.Time, target [32]byte, from netip.AddrPort, value []byte) answer {
	if hash(value) != target {
		return answer{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.immutables.set(now, target, bytes.Clone(value), from.Addr()) {
		return answer{ok: true, code: codeFull}
	}
	return answer{ok: true}
}

// sweep drops what is too old.
func (r *records) sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.topics.expire(now)
	r.forwards.expire(now)
	r.bumps.expire(now)
	r.refreshes.expire(now)
	r.mutables.expire(now)
	r.immutables.expire(now)
}

// counts returns how much there is.
func (r *records) counts() (announced, values, forwards int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.topics.len(), r.mutables.len() + r.immutables.len(), r.forwards.len()
}

// announceSignable is what is signed for ANNOUNCE and UNANNOUNCE at a node.
func announceSignable(ns, target, token, id [32]byte, peer peerRecord, refresh *[32]byte) []byte {
	var r []byte
	if refresh != nil {
		r = refresh[:]
	}
	h := hash(target[:], id[:], token[:], peer.append(nil), r)
	return append(ns[:], h[:]...)
}

// mutableSignable is what is signed for a mutable value.
func mutableSignable(seq uint64, value []byte) []byte {
	h := hash(compact.AppendOptionalBuffer(compact.AppendUint(nil, seq), value))
	return append(nsMutablePut[:len(nsMutablePut):len(nsMutablePut)], h[:]...)
}

func verifyMutable(key noise.Key, m mutableMsg) bool {
	return verify(key, mutableSignable(m.seq, m.value), &m.signature)
}
