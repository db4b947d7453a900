package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cloudbevy/bevy/hyper/merkle"
)

// A Log reads what is kept of one log, as it is now or was in a snapshot. It
// holds nothing open; it is a value to be made where it is needed.
type Log struct {
	id    ID
	r     Reader
	pages *pageCache
}

var _ merkle.Nodes = Log{}

// Log returns the log with that number.
func (s *Store) Log(id ID) Log { return s.live(id) }

func (s *Store) live(id ID) Log { return Log{id, s.engine, s.pages} }

// A StoreSnapshot reads a store as it was at one moment. It must be closed.
type StoreSnapshot struct {
	snapshot Snapshot
	pages    *pageCache
}

// snapshotCache is the memory for pages of one snapshot, in bytes.
const snapshotCache = 1 << 20

// Snapshot returns a view of this moment. The space of what is deleted is given
// back only when it is closed.
func (s *Store) Snapshot() (*StoreSnapshot, error) {
	sn, err := s.engine.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return &StoreSnapshot{sn, newPageCache(snapshotCache)}, nil
}

// Log returns the log with that number at the snapshot's moment.
func (s *StoreSnapshot) Log(id ID) Log { return Log{id, s.snapshot, s.pages} }

// Close ends the snapshot. It may be called once.
func (s *StoreSnapshot) Close() error { return s.snapshot.Close() }

// ID returns the log's number.
func (l Log) ID() ID { return l.id }

// page returns a page, or ErrNotFound. It must not be changed.
func (l Log) page(level int, number uint64) (*page, error) {
	k := pageKey{l.id, level, number}
	p, ok := l.pages.get(k)
	if !ok {
		seen := l.pages.slot(k).Load()
		var err error
		if p, err = l.readPage(level, number); err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		p = l.pages.putRead(k, p, seen)
	}
	if p == nil {
		return nil, ErrNotFound
	}
	return p, nil
}

func (l Log) readPage(level int, number uint64) (*page, error) {
	value, err := l.r.Get(pageKeyOf(l.id, level, number))
	if err != nil {
		return nil, err
	}
	p := &page{level: level, number: number}
	if err := p.decode(value); err != nil {
		return nil, err
	}
	return p, nil
}

// A noNode is the number of a tree node that is not kept. It is an error of its
// own since asking for such nodes is common, and formatting takes longer.
type noNode uint64

func (n noNode) Error() string { return fmt.Sprintf("node %d: %v", uint64(n), merkle.ErrNoNode) }
func (n noNode) Unwrap() error { return merkle.ErrNoNode }

// Node returns a tree node, or an error that wraps merkle.ErrNoNode when it is
// not kept.
func (l Log) Node(index uint64) (merkle.Node, error) {
	level, number, local := pageOf(index)
	if level > maxLevel {
		return merkle.Node{}, noNode(index)
	}
	p, err := l.page(level, number)
	if errors.Is(err, ErrNotFound) {
		return merkle.Node{}, noNode(index)
	}
	if err != nil {
		return merkle.Node{}, fmt.Errorf("read node %d: %w", index, err)
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if !p.known.has(local) {
		return merkle.Node{}, noNode(index)
	}
	return p.node(local), nil
}

// Block returns a block, owned by the caller, or ErrNotFound.
func (l Log) Block(index uint64) ([]byte, error) { return l.BlockIn(index, nil) }

// BlockIn is Block, but a large block may lie in buf, if that has room for it and
// a little more.
func (l Log) BlockIn(index uint64, buf []byte) ([]byte, error) {
	p, err := l.page(0, index/pageBlocks)
	for try := 0; err == nil; try++ {
		kind, data := p.block(int(index % pageBlocks))
		if kind == blockInline {
			return data, nil
		}
		if kind == blockNone {
			err = ErrNotFound
			break
		}
		if data, err = l.r.Blob(numberKey(l.id, logBlock, index), buf); err == nil {
			return data, nil
		}
		if !errors.Is(err, ErrNotFound) {
			break
		}
		if try == 3 {
			err = fmt.Errorf("%w: its blob is missing", ErrCorrupt)
			break
		}
		// It may have been removed since the page was read. The cache hears of that
		// later than the engine.
		p, err = l.readPage(0, index/pageBlocks)
	}
	return nil, fmt.Errorf("read block %d: %w", index, err)
}

// block returns a copy of a block that is in the page.
func (p *page) block(slot int) (blockKind, []byte) {
	p.mu.RLock()
	kind := p.kinds[slot]
	var data []byte
	if kind == blockInline {
		data = p.blocks[slot]
	}
	p.mu.RUnlock()
	if kind != blockInline {
		return kind, nil
	}
	// In one allocation, and not nil when empty.
	return kind, append(make([]byte, 0, len(data)), data...)
}

// Auth returns what the log is.
func (l Log) Auth() (Auth, error) {
	value, err := l.r.Get(logKey(l.id, logAuth))
	if err != nil {
		return Auth{}, fmt.Errorf("read auth: %w", err)
	}
	return decodeAuth(value)
}

// Head returns the log's head; the zero Head when nothing was signed yet.
func (l Log) Head() (Head, error) {
	value, err := l.r.Get(logKey(l.id, logHead))
	if errors.Is(err, ErrNotFound) {
		return Head{}, nil
	}
	if err != nil {
		return Head{}, fmt.Errorf("read head: %w", err)
	}
	return decodeHead(value)
}

// Runs returns the runs of blocks held, but for the tail, in order.
func (l Log) Runs() ([]Range, error) {
	var out []Range
	bad := false
	err := l.r.Scan(logKey(l.id, logRun), end(logKey(l.id, logRun)), func(key, value []byte) bool {
		end, n := binary.Uvarint(value)
		if len(key) < 8 || n != len(value) {
			bad = true
			return false
		}
		out = append(out, Range{Start: binary.BigEndian.Uint64(key[len(key)-8:]), End: end})
		return true
	})
	if err == nil && bad {
		err = ErrCorrupt
	}
	if err != nil {
		return nil, fmt.Errorf("read runs: %w", err)
	}
	return out, nil
}

// UserData returns a value by name, or ErrNotFound.
func (l Log) UserData(name string) ([]byte, error) {
	value, err := l.r.Get(append(logKey(l.id, logUser), name...))
	if err != nil {
		return nil, fmt.Errorf("read user data %q: %w", name, err)
	}
	return value, nil
}

// UserDataNames returns the names of all user data, in order.
func (l Log) UserDataNames() ([]string, error) {
	var out []string
	prefix := logKey(l.id, logUser)
	err := l.r.Scan(prefix, end(prefix), func(key, _ []byte) bool {
		out = append(out, string(key[len(prefix):]))
		return true
	})
	return out, err
}

// Drafts returns the log's drafts, in the order of their names.
func (l Log) Drafts() ([]Draft, error) {
	var out []Draft
	bad := false
	prefix := logKey(l.id, logDraft)
	err := l.r.Scan(prefix, end(prefix), func(key, value []byte) bool {
		d := Draft{Name: string(key[len(prefix):])}
		ok := len(value) > 0 && value[0] == recordVersion
		if ok {
			var id uint64
			b := value[1:]
			if id, b, ok = uvarint(b); ok {
				d.ID = ID(id)
				if d.Base, b, ok = uvarint(b); ok {
					d.Fork, b, ok = uvarint(b)
					ok = ok && copy(d.Hash[:], b) == merkle.HashSize
				}
			}
		}
		bad = bad || !ok
		out = append(out, d)
		return ok
	})
	if err == nil && bad {
		err = ErrCorrupt
	}
	if err != nil {
		return nil, fmt.Errorf("read drafts: %w", err)
	}
	return out, nil
}

// recordVersion begins every record of a log.
const recordVersion = 1

func encodeAuth(a *Auth) []byte {
	b := append([]byte{recordVersion}, a.Key[:]...)
	for _, part := range [][]byte{a.Manifest, a.PublicKey, a.Seed, a.Frozen} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}

func decodeAuth(b []byte) (a Auth, err error) {
	if len(b) < 33 || b[0] != recordVersion {
		return a, fmt.Errorf("auth record: %w", versionError(b))
	}
	copy(a.Key[:], b[1:])
	b = b[33:]
	for _, part := range []*[]byte{&a.Manifest, &a.PublicKey, &a.Seed, &a.Frozen} {
		n, rest, ok := uvarint(b)
		if !ok || n > uint64(len(rest)) {
			return Auth{}, fmt.Errorf("auth record: %w", ErrCorrupt)
		}
		if n > 0 {
			*part = slices.Clone(rest[:n])
		}
		b = rest[n:]
	}
	if len(b) > 0 {
		return Auth{}, fmt.Errorf("auth record: %w", ErrCorrupt)
	}
	return a, nil
}

func appendHead(b []byte, h *Head) []byte {
	b = append(b, recordVersion)
	for _, n := range []uint64{h.Fork, h.Length, h.Tail.Start, h.Tail.End} {
		b = binary.AppendUvarint(b, n)
	}
	b = append(b, h.TreeHash[:]...)
	b = binary.AppendUvarint(b, uint64(len(h.Signature)))
	return append(b, h.Signature...)
}

func decodeHead(b []byte) (h Head, err error) {
	if len(b) < 1 || b[0] != recordVersion {
		return h, fmt.Errorf("head record: %w", versionError(b))
	}
	b = b[1:]
	ok := true
	for _, n := range []*uint64{&h.Fork, &h.Length, &h.Tail.Start, &h.Tail.End} {
		if *n, b, ok = uvarint(b); !ok {
			return Head{}, fmt.Errorf("head record: %w", ErrCorrupt)
		}
	}
	if len(b) < merkle.HashSize {
		return Head{}, fmt.Errorf("head record: %w", ErrCorrupt)
	}
	b = b[copy(h.TreeHash[:], b):]
	n, b, ok := uvarint(b)
	if !ok || n != uint64(len(b)) {
		return Head{}, fmt.Errorf("head record: %w", ErrCorrupt)
	}
	if n > 0 {
		h.Signature = slices.Clone(b)
	}
	return h, nil
}

func versionError(b []byte) error {
	if len(b) > 0 && b[0] > recordVersion {
		return ErrVersion
	}
	return ErrCorrupt
}
