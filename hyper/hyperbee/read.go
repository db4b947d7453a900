package hyperbee

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A view is a version of the tree while it is read. It may be copied.
type view struct {
	s       *shared
	log     *hypercore.Log
	cache   *cache
	fork    uint64
	version uint64
	ahead   *ahead // fetches what may be read next; nil if everything is here
	group   bool   // much will be read: also take what the store has next to a block
	// For who answers the hints of peers: only what is here is read, and told of.
	told func(seq uint64)
}

// view begins to read. end must be called when that is over.
func (t *Tree) view(ctx context.Context) (view, error) {
	if err := ctx.Err(); err != nil {
		return view{}, err
	}
	if t.isClosed() {
		return view{}, ErrClosed
	}
	v := view{s: t.s, log: t.s.log, cache: t.s.cache}
	if t.pin != nil {
		v.log, v.version, v.fork = t.pin.log, t.version, t.pin.fork
		if !v.cache.turn(v.fork) {
			v.cache = t.pin.ownCache(v.fork, t.s.o.Cache)
		}
	} else {
		if err := t.learn(ctx); err != nil {
			return view{}, err
		}
		head := v.log.Head()
		v.version, v.fork = max(1, head.Length), head.Fork
		v.cache.turn(v.fork) // false: the log was truncated just now, as the next read will tell
	}
	if v.log.Contiguous() < v.version {
		v.ahead = newAhead(ctx, t.s.log)
	}
	return v, nil
}

// ownCache is for a snapshot of a fork that is no more.
func (p *pin) ownCache(fork uint64, in *Cache) *cache {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cache == nil {
		p.cache = in.newLog()
		p.cache.turn(fork)
	}
	return p.cache
}

func (v *view) end() {
	if v.ahead != nil {
		v.ahead.end()
	}
}

// block returns a block of the log, decoded.
func (v *view) block(ctx context.Context, seq uint64) (*block, error) {
	return v.read(ctx, seq, false)
}

// read is block; a brief one may be without its value.
func (v *view) read(ctx context.Context, seq uint64, brief bool) (*block, error) {
	if v.told != nil {
		if !v.log.Has(seq) {
			return nil, hypercore.ErrNotFound
		}
		v.told(seq)
	}
	if b := v.cache.get(v.fork, seq, brief); b != nil {
		return b, nil
	}
	if v.ahead != nil && v.ahead.ask != nil && !v.s.log.Has(seq) {
		v.ahead.ask()
	}
	if err := v.same(); err != nil {
		return nil, err
	}
	raw, err := v.log.Get(ctx, seq)
	if err := v.same(); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	b, err := decode(seq, raw)
	if err != nil {
		return nil, v.invalid(seq, err)
	}
	v.cache.add(v.fork, b)
	if v.group && v.ahead == nil && v.cache.fits(v.version) {
		v.addGroup(ctx, seq)
	}
	return b, nil
}

// groupBlocks are how many blocks the store reads at once, whichever is asked for.
const groupBlocks = 64

// addGroup keeps the blocks that the store has read along with one. A walk over
// entries that were put in no order would have it read them again for each.
func (v *view) addGroup(ctx context.Context, seq uint64) {
	from := seq &^ (groupBlocks - 1)
	for s := max(1, from); s < min(from+groupBlocks, v.version); s++ {
		if s == seq || v.cache.get(v.fork, s, false) != nil || !v.log.Has(s) {
			continue
		}
		raw, err := v.log.Get(ctx, s)
		if err != nil || v.same() != nil {
			return // who needs it gets the error
		}
		if b, err := decode(s, raw); err == nil {
			v.cache.add(v.fork, b)
		}
	}
}

// same fails once the log is of another fork: its blocks are of another tree.
func (v *view) same() error {
	if v.log.Head().Fork != v.fork {
		return fmt.Errorf("read log %s: %w meanwhile", v.log.Key(), ErrTruncated)
	}
	return nil
}

// invalid says which block of which log makes no sense.
func (v *view) invalid(seq uint64, err error) error {
	return fmt.Errorf("%w: block %d of log %s: %w", ErrInvalid, seq, v.log.Key(), err)
}

// node reads a node at a depth of the tree.
func (v *view) node(ctx context.Context, at place, depth int, n *node) error {
	if depth >= maxDepth {
		return v.invalid(at.seq, errDeep)
	}
	b, err := v.read(ctx, at.seq, true)
	if err != nil {
		return err
	}
	if err := b.node(at.level, depth == 0, n); err != nil {
		return v.invalid(at.seq, err)
	}
	if v.ahead != nil {
		v.ahead.want(n)
	}
	return nil
}

// root returns where the tree's root is, if it has one.
func (v *view) root() (place, bool) {
	return place{seq: v.version - 1}, v.version > 1
}

// key returns the key of a block's entry. It must not be changed.
func (v *view) key(ctx context.Context, seq uint64) ([]byte, error) {
	b, err := v.read(ctx, seq, true)
	if err != nil {
		return nil, err
	}
	return b.key, nil
}

// search looks for a key among n in their order. It returns its place, or that of
// the first one after it: the child which may lead to the key.
func search(n int, key []byte, at func(i int) ([]byte, error)) (i int, found bool, err error) {
	lo, hi := 0, n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		k, err := at(mid)
		if err != nil {
			return 0, false, err
		}
		switch c := bytes.Compare(key, k); {
		case c == 0:
			return mid, true, nil
		case c < 0:
			hi = mid
		default:
			lo = mid + 1
		}
	}
	return lo, false, nil
}

// search looks for a key in a node.
func (v *view) search(ctx context.Context, n *node, key []byte) (i int, found bool, err error) {
	return search(n.nkeys, key, func(i int) ([]byte, error) { return v.key(ctx, n.keys[i]) })
}

// find returns the block with the entry of a key, or nil.
func (v *view) find(ctx context.Context, key []byte) (*block, error) {
	at, ok := v.root()
	if !ok {
		return nil, nil
	}
	var n node
	for depth := 0; ; depth++ {
		if err := v.node(ctx, at, depth, &n); err != nil {
			return nil, err
		}
		i, found, err := v.search(ctx, &n, key)
		if err != nil {
			return nil, err
		}
		if found {
			return v.block(ctx, n.keys[i])
		}
		if n.nchildren == 0 {
			return nil, nil
		}
		at = n.children[i]
	}
}

// entry returns the entry of a block, under its key without the prefix.
func (b *block) entry(prefix []byte) Entry {
	return newEntry(b.seq, b.key[len(prefix):], b.value)
}

// newEntry makes an entry that shares no memory.
func newEntry(seq uint64, key, value []byte) Entry {
	own := make([]byte, len(key)+len(value))
	copy(own, key)
	copy(own[len(key):], value)
	e := Entry{Seq: seq, Key: own[:len(key):len(key)]}
	if value != nil {
		e.Value = own[len(key):]
	}
	return e
}

// Get returns the entry of a key, or ErrNotFound.
func (t *Tree) Get(ctx context.Context, key []byte) (Entry, error) {
	if len(t.prefix) > 0 {
		key = joined(t.prefix, key)
	}
	for tries := 0; ; tries++ {
		e, err := t.get(ctx, key)
		switch {
		case err == nil || err == ErrNotFound:
			return e, err
		case errors.Is(err, ErrTruncated) && t.pin == nil && tries < 3:
			// The present is another one by now.
		default:
			return Entry{}, fmt.Errorf("get: %w", err)
		}
	}
}

func (t *Tree) get(ctx context.Context, key []byte) (Entry, error) {
	v, err := t.view(ctx)
	if err != nil {
		return Entry{}, err
	}
	defer v.end()
	v.hintGet(key)
	b, err := v.find(ctx, key)
	if err != nil {
		return Entry{}, err
	}
	if b == nil {
		return Entry{}, ErrNotFound
	}
	return b.entry(t.prefix), nil
}

// maxAhead bounds how many nodes a reader fetches the neighbours of at once.
const maxAhead = 16

// ahead fetches, in the background, the blocks that reading will want next: the
// keys and children of nodes that were come by. A search in a node would
// otherwise wait for one key after the other.
type ahead struct {
	log   *hypercore.Log
	fetch func(ranges ...hypercore.DownloadRange)
	ask   func() // asks peers what else will be wanted; nil if nobody can be asked
	asked func() // called at the end, if somebody was asked
	stop  context.CancelFunc
	slots chan struct{}
	wg    sync.WaitGroup
}

func newAhead(ctx context.Context, log *hypercore.Log) *ahead {
	ctx, cancel := context.WithCancel(ctx)
	return &ahead{
		log:   log,
		slots: make(chan struct{}, maxAhead),
		stop:  cancel,
		fetch: func(ranges ...hypercore.DownloadRange) {
			// Who needs a block asks for it again, and gets the error.
			_ = log.Download(ctx, ranges...)
		},
	}
}

// want fetches what a node speaks of. It does nothing when enough is on its way.
func (a *ahead) want(n *node) {
	var ranges []hypercore.DownloadRange
	add := func(seq uint64) {
		if !a.log.Has(seq) {
			ranges = append(ranges, hypercore.DownloadRange{From: seq, To: seq + 1})
		}
	}
	for _, seq := range n.keys[:n.nkeys] {
		add(seq)
	}
	for _, c := range n.children[:n.nchildren] {
		add(c.seq)
	}
	if len(ranges) > 1 { // one will be asked for anyway
		a.start(ranges...)
	}
}

// start fetches ranges, unless enough is on its way.
func (a *ahead) start(ranges ...hypercore.DownloadRange) {
	select {
	case a.slots <- struct{}{}:
	default:
		return
	}
	a.wg.Go(func() {
		defer func() { <-a.slots }()
		a.fetch(ranges...)
	})
}

func (a *ahead) end() {
	a.stop()
	a.wg.Wait()
	if a.asked != nil {
		a.asked()
	}
}

var errDeep = fmt.Errorf("its tree is deeper than %d nodes", maxDepth)
