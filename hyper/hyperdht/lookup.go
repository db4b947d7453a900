package hyperdht

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// A Peer is who has announced itself.
type Peer struct {
	Key            noise.Key
	RelayAddresses []netip.AddrPort
}

// A Found is what one node knows about a topic.
type Found struct {
	// From is the node, To is what it sees of us, and Token what it gave us.
	From, To netip.AddrPort
	Token    *[32]byte
	Peers    []Peer
	// Bump is when somebody last asked for attention, in milliseconds since 1970.
	Bump uint64
}

// LookupOptions say how to look. The zero value is right.
type LookupOptions struct {
	// Found gets what nodes answer, as it comes, one call at a time.
	Found func(Found)
	// Nodes are where to begin, such as those of an earlier lookup.
	Nodes []netip.AddrPort
}

// Lookup asks the nodes closest to a topic who has announced itself there. It
// returns the closest nodes when all have answered, after the last Found.
func (d *DHT) Lookup(ctx context.Context, topic [32]byte, o LookupOptions) ([]netip.AddrPort, error) {
	replies, err := d.lookup(ctx, topic, o, nil)
	if err != nil {
		return nil, fmt.Errorf("look up %x: %w", topic, err)
	}
	return addrsOfReplies(replies), nil
}

// lookup asks for a topic and returns the answers of the closest nodes. Each
// gets every answer.
func (d *DHT) lookup(ctx context.Context, topic [32]byte, o LookupOptions, each func(dhtrpc.Reply, []peerRecord)) ([]dhtrpc.Reply, error) {
	q := d.node.Query(ctx, topic, dhtrpc.QueryOptions{Call: dhtrpc.Call{Command: cmdLookup}, Nodes: o.Nodes})
	for r, err := range q.All() {
		if err != nil {
			return nil, err
		}
		if r.Code != 0 || r.Value == nil {
			continue
		}
		peers, bump, err := readLookup(r.Value)
		if err != nil {
			continue
		}
		if each != nil {
			each(r, peers)
		}
		if o.Found != nil {
			f := Found{From: r.From.Addr, To: r.To, Token: (*[32]byte)(r.Token), Bump: bump}
			for _, p := range peers {
				f.Peers = append(f.Peers, Peer{p.key, p.relays})
			}
			o.Found(f)
		}
	}
	return q.Closest(), nil
}

func addrsOfReplies(l []dhtrpc.Reply) (out []netip.AddrPort) {
	for _, r := range l {
		out = append(out, r.From.Addr)
	}
	return out
}

// AnnounceOptions say how to announce. The zero value is right.
type AnnounceOptions struct {
	LookupOptions
	// RelayAddresses are where the peer is found quickest, at most three: those
	// of its server.
	RelayAddresses []netip.AddrPort
	// Bump is the time to ask for attention with, in milliseconds since 1970.
	Bump uint64
	// Clear takes back what was announced at nodes that are no longer close.
	Clear bool
	// Sign signs for a key that is not here.
	Sign Signer
}

// Announce looks up a topic and has the closest nodes know that keys is there.
// It fails if none of them took it.
func (d *DHT) Announce(ctx context.Context, topic [32]byte, keys noise.KeyPair, o AnnounceOptions) ([]netip.AddrPort, error) {
	if o.Sign == nil {
		o.Sign = signWith(keys)
	}
	replies, err := d.clear(ctx, topic, keys.Public, o, !o.Clear)
	if err == nil {
		peer := peerRecord{keys.Public, only4(o.RelayAddresses)}
		err = commit(replies, func(r dhtrpc.Reply) error { return d.leave(ctx, topic, r, peer, o.Bump, false, o.Sign) })
	}
	if err != nil {
		return nil, fmt.Errorf("announce %x: %w", topic, err)
	}
	return addrsOfReplies(replies), nil
}

// Unannounce takes an announcement back from all nodes that have it. What they
// know of others goes to Found on the way.
func (d *DHT) Unannounce(ctx context.Context, topic [32]byte, keys noise.KeyPair, o AnnounceOptions) error {
	if o.Sign == nil {
		o.Sign = signWith(keys)
	}
	if _, err := d.clear(ctx, topic, keys.Public, o, false); err != nil {
		return fmt.Errorf("unannounce %x: %w", topic, err)
	}
	return nil
}

// clear looks up a topic, and unless keep is set takes back what nodes know
// about a key there.
func (d *DHT) clear(ctx context.Context, topic [32]byte, key noise.Key, o AnnounceOptions, keep bool) ([]dhtrpc.Reply, error) {
	if keep {
		return d.lookup(ctx, topic, o.LookupOptions, nil)
	}
	d.records.forget(topic, key)
	var back sync.WaitGroup
	defer back.Wait()
	return d.lookup(ctx, topic, o.LookupOptions, func(r dhtrpc.Reply, peers []peerRecord) {
		known := len(peers) >= maxRecords // it may know of more than it tells
		for _, p := range peers {
			known = known || p.key == key
		}
		if known {
			back.Go(func() {
				d.leave(ctx, topic, r, peerRecord{key: key}, 0, true, o.Sign) // it forgets by itself, too
			})
		}
	})
}

// commit calls f for the closest nodes of a query at once. It fails if all of
// these do.
func commit(replies []dhtrpc.Reply, f func(dhtrpc.Reply) error) error {
	errs := make([]error, len(replies))
	var all sync.WaitGroup
	for i, r := range replies {
		all.Go(func() { errs[i] = f(r) })
	}
	all.Wait()
	for _, err := range errs {
		if err == nil {
			return nil
		}
	}
	if len(errs) > 0 {
		return errs[0]
	}
	return dhtrpc.ErrTooFew
}

// FindPeer returns what nodes know of a peer that listens. It fails with
// [ErrNotFound] if that is nothing.
func (d *DHT) FindPeer(ctx context.Context, key noise.Key) (Found, error) {
	q := d.node.Query(ctx, Target(key), dhtrpc.QueryOptions{Call: dhtrpc.Call{Command: cmdFindPeer}})
	for r, err := range q.All() {
		if err != nil {
			return Found{}, fmt.Errorf("find peer %s: %w", key, err)
		}
		if r.Code != 0 || r.Value == nil {
			continue
		}
		if p, err := readPeer(r.Value); err == nil && p.key == key {
			return Found{From: r.From.Addr, To: r.To, Token: (*[32]byte)(r.Token), Peers: []Peer{{p.key, p.relays}}}, nil
		}
	}
	return Found{}, fmt.Errorf("find peer %s: %w", key, ErrNotFound)
}

// ImmutablePut stores a value under its hash, which it returns.
func (d *DHT) ImmutablePut(ctx context.Context, value []byte) ([32]byte, error) {
	target := hash(value)
	err := d.put(ctx, target, cmdImmutableGet, nil, cmdImmutablePut, value)
	if err != nil {
		return target, fmt.Errorf("put value: %w", err)
	}
	return target, nil
}

// put asks with one command and leaves a value at the closest nodes with
// another.
func (d *DHT) put(ctx context.Context, target [32]byte, get uint64, ask []byte, put uint64, value []byte) error {
	code := uint64(0)
	q := d.node.Query(ctx, target, dhtrpc.QueryOptions{Call: dhtrpc.Call{Command: get, Value: ask}})
	if err := q.Wait(); err != nil {
		return err
	}
	id := dhtrpc.ID(target)
	var mu sync.Mutex
	err := commit(q.Closest(), func(r dhtrpc.Reply) error {
		reply, err := d.node.Do(ctx, r.From.Addr, dhtrpc.Call{Command: put, Target: &id, Token: r.Token, Value: value}, dhtrpc.CallOptions{})
		if err == nil && reply.Code != 0 {
			err = fmt.Errorf("%v answered with error %d", r.From.Addr, reply.Code)
			mu.Lock()
			code = max(code, reply.Code)
			mu.Unlock()
		}
		return err
	})
	switch {
	case err != nil && code == codeSeqReused:
		return ErrSeqReused
	case err != nil && code == codeSeqTooLow:
		return ErrSeqTooLow
	}
	return err
}

// ImmutableGet returns the value of a hash, or [ErrNotFound].
func (d *DHT) ImmutableGet(ctx context.Context, target [32]byte) ([]byte, error) {
	q := d.node.Query(ctx, target, dhtrpc.QueryOptions{Call: dhtrpc.Call{Command: cmdImmutableGet}})
	for r, err := range q.All() {
		if err != nil {
			return nil, fmt.Errorf("get value %x: %w", target, err)
		}
		if r.Code == 0 && r.Value != nil && hash(r.Value) == target {
			return r.Value, nil
		}
	}
	return nil, fmt.Errorf("get value %x: %w", target, ErrNotFound)
}

// A Mutable is a value that its owner signed and may replace.
type Mutable struct {
	Seq       uint64
	Value     []byte
	Signature [64]byte
	// From is a node that has it.
	From netip.AddrPort
}

// MutablePut stores a value under a key. Nodes keep the one of the highest seq,
// and one of a seq. It fails with [ErrSeqReused] or [ErrSeqTooLow] if all nodes
// have others.
func (d *DHT) MutablePut(ctx context.Context, keys noise.KeyPair, seq uint64, value []byte) error {
	if !keys.CanProve() {
		return fmt.Errorf("put value of %s: there is no secret key", keys.Public)
	}
	m := mutableMsg{key: keys.Public, seq: seq, value: value}
	copy(m.signature[:], keys.Sign(mutableSignable(seq, value)))
	if err := d.putMutable(ctx, &m); err != nil {
		return fmt.Errorf("put value of %s: %w", keys.Public, err)
	}
	return nil
}

func (d *DHT) putMutable(ctx context.Context, m *mutableMsg) error {
	if len(m.value) == 0 {
		return errors.New("it is empty")
	}
	return d.put(ctx, Target(m.key), cmdMutableGet, compact.AppendUint(nil, 0), cmdMutablePut, m.appendRequest(nil))
}

// MutableOptions say what to get.
type MutableOptions struct {
	// Seq is the least sequence number that will do.
	Seq uint64
	// First takes the first value that is valid, not the latest of all nodes.
	First bool
	// Refresh puts what was found to the closest nodes again.
	Refresh bool
}

// MutableGet returns the value of a key, or [ErrNotFound].
func (d *DHT) MutableGet(ctx context.Context, key noise.Key, o MutableOptions) (Mutable, error) {
	var best Mutable
	q := d.node.Query(ctx, Target(key), dhtrpc.QueryOptions{
		Call: dhtrpc.Call{Command: cmdMutableGet, Value: compact.AppendUint(nil, o.Seq)},
	})
	for r, err := range q.All() {
		if err != nil {
			return best, fmt.Errorf("get value of %s: %w", key, err)
		}
		if r.Code != 0 || r.Value == nil {
			continue
		}
		m, err := readMutableResponse(r.Value)
		if err != nil || m.seq < o.Seq || best.Value != nil && m.seq <= best.Seq || !verifyMutable(key, m) {
			continue
		}
		best = Mutable{m.seq, bytes.Clone(m.value), m.signature, r.From.Addr}
		if o.First {
			break
		}
	}
	if best.Value == nil {
		return best, fmt.Errorf("get value of %s: %w", key, ErrNotFound)
	}
	if o.Refresh {
		d.putMutable(ctx, &mutableMsg{key, best.Seq, best.Value, best.Signature}) // it was found in any case
	}
	return best, nil
}
