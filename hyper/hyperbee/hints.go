package hyperbee

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/replicate"
)

// A reader far from the log waits once for each node on the way to what it
// wants. With hints it says what that is, and a peer answers at once with the
// numbers of all blocks that lead there (hyperbee 2, lib/extension.js). Nothing
// is trusted: the blocks are fetched, proven and read as without it.

const (
	hintName   = "hyperbee"
	hintBlocks = 128               // in one answer
	hintWork   = 2048 + hintBlocks // blocks that one question may make us read, and one answer fetch
	hintEvery  = 2048              // blocks of a range after which it asks again
	hintSlots  = 8                 // answers that are fetched at once
)

// A hint is a message of the extension: one of its parts, or more.
type hint struct {
	cache    []uint64 // numbers of blocks to fetch
	get      *getHint
	iterator *iteratorHint
}

type getHint struct {
	version uint64
	key     []byte
}

type iteratorHint struct {
	version          uint64
	gte, gt, lte, lt []byte
	limit            uint64 // 0 is none
	reverse          bool
	checkpoint       []uint64 // block, level and position of each node on the way
}

func appendNumber(b []byte, tag byte, v uint64) []byte {
	return binary.AppendUvarint(append(b, tag), v)
}

func appendNumbers(b []byte, tag byte, list []uint64) []byte {
	if len(list) == 0 {
		return b
	}
	var packed []byte
	for _, v := range list {
		packed = binary.AppendUvarint(packed, v)
	}
	return appendField(b, tag, packed)
}

func (h *hint) append(b []byte) []byte {
	if len(h.cache) > 0 {
		from, to := h.cache[0], h.cache[0]+1
		for _, seq := range h.cache {
			from, to = min(from, seq), max(to, seq+1)
		}
		body := appendNumber(appendNumber(nil, 1<<3, from), 2<<3, to)
		b = appendField(b, tag1, appendNumbers(body, tag3, h.cache))
	}
	if g := h.get; g != nil {
		b = appendField(b, tag2, appendField(appendNumber(nil, 1<<3, g.version), tag2, g.key))
	}
	if it := h.iterator; it != nil {
		body := appendNumber(nil, 1<<3, it.version)
		for i, key := range [][]byte{it.gte, it.gt, it.lte, it.lt} {
			if key != nil {
				body = appendField(body, byte(i+2)<<3|2, key)
			}
		}
		body = appendNumber(body, 6<<3, it.limit)
		reverse := uint64(0)
		if it.reverse {
			reverse = 1
		}
		body = appendNumber(body, 7<<3, reverse)
		b = appendField(b, tag3, appendNumbers(body, 8<<3|2, it.checkpoint))
	}
	return b
}

// numbers reads up to hintWork packed numbers.
func numbers(b []byte) (list []uint64, err error) {
	for len(b) > 0 {
		var v uint64
		if v, b, err = number(b); err != nil {
			return nil, err
		}
		if len(list) == hintWork {
			return nil, errors.New("it has too many numbers")
		}
		list = append(list, v)
	}
	return list, nil
}

// message is the hint as it is sent: hypercore puts a length before what its
// extensions send.
func (h *hint) message() []byte { return compact.AppendBuffer(nil, h.append(nil)) }

// readMessage reads what message returns. It aliases the input.
func readMessage(b []byte) (hint, error) {
	d := compact.NewDecoder(b)
	body := d.Buffer(len(b))
	if err := d.Err(); err != nil {
		return hint{}, err
	}
	return readHint(body)
}

// readHint reads a hint. It aliases the input.
func readHint(b []byte) (h hint, err error) {
	err = fields(b, func(tag, _ uint64, body []byte) error {
		switch tag {
		case tag1:
			return fields(body, func(tag, _ uint64, body []byte) (err error) {
				if tag == tag3 {
					h.cache, err = numbers(body)
				}
				return err
			})
		case tag2:
			h.get = &getHint{}
			return fields(body, func(tag, v uint64, body []byte) error {
				switch tag {
				case 1 << 3:
					h.get.version = v
				case tag2:
					h.get.key = body
				}
				return nil
			})
		case tag3:
			it := &iteratorHint{}
			h.iterator = it
			return fields(body, func(tag, v uint64, body []byte) (err error) {
				switch tag {
				case 1 << 3:
					it.version = v
				case tag2:
					it.gte = body
				case tag3:
					it.gt = body
				case 4<<3 | 2:
					it.lte = body
				case 5<<3 | 2:
					it.lt = body
				case 6 << 3:
					it.limit = v
				case 7 << 3:
					it.reverse = v > 0
				case 8<<3 | 2:
					it.checkpoint, err = numbers(body)
				}
				return err
			})
		}
		return nil
	})
	return h, err
}

// hints are the exchange with the peers of one replicator.
type hints struct {
	r     *replicate.Replicator
	slots chan struct{}
	fetch func(blocks []uint64)

	mu     sync.Mutex
	asking int // guarded by mu: readers that have asked and go on
}

// Hint exchanges hints with the peers of the log's replicator, until stop is
// called: peers are asked which blocks lead to what is read here, and answered
// when they ask. It saves readers round trips and is never needed. Peers that
// don't know it take no notice.
//
// Trees that are opened with a Store do it by themselves.
func (t *Tree) Hint(r *replicate.Replicator) (stop func(), err error) {
	if r == nil {
		return nil, errors.New("hint: there is no replicator")
	}
	ctx, cancel := context.WithCancel(context.Background())
	var fetching sync.WaitGroup
	h := &hints{r: r, slots: make(chan struct{}, hintSlots)}
	h.fetch = func(blocks []uint64) {
		select {
		case h.slots <- struct{}{}:
		default:
			return
		}
		fetching.Go(func() {
			defer func() { <-h.slots }()
			var ranges []hypercore.DownloadRange
			length := t.s.log.Length()
			for _, seq := range blocks {
				if seq < length && !t.s.log.Has(seq) {
					ranges = append(ranges, hypercore.DownloadRange{From: seq, To: seq + 1})
				}
			}
			_ = t.s.log.Download(ctx, ranges...) // who needs a block asks for it, too
		})
	}
	live := &Tree{s: t.s}
	var mu sync.Mutex // no fetch begins once stop is called
	stopped := false
	err = r.Extension(hintName, func(m replicate.Message) {
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			live.answer(ctx, h, m.Payload, m.Reply)
		}
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("hint: %w", err)
	}
	t.s.hints.Store(h)
	return func() {
		t.s.hints.CompareAndSwap(h, nil)
		_ = r.Extension(hintName, nil) // the name is fine, as it was before
		cancel()
		mu.Lock()
		stopped = true
		mu.Unlock()
		fetching.Wait()
	}, nil
}

// hintWith does Hint once the store has a replicator.
func (t *Tree) hintWith(store Store) (stop func(), err error) {
	var unhint func()
	forget, err := store.OnReplicator(t.s.log.Key(), func(r *replicate.Replicator) {
		unhint, _ = t.Hint(r) // the name is fine
	})
	if err != nil {
		return nil, err
	}
	return func() {
		forget()
		if unhint != nil {
			unhint()
		}
	}, nil
}

// answer does what a message asks for. What makes no sense is left alone, as
// hyperbee does.
func (t *Tree) answer(ctx context.Context, h *hints, payload []byte, reply func([]byte) error) {
	m, err := readMessage(payload)
	if err != nil {
		return
	}
	if len(m.cache) > 0 {
		h.mu.Lock()
		asking := h.asking > 0
		h.mu.Unlock()
		if asking { // who was not asked can't make us fetch
			h.fetch(m.cache)
		}
	}
	if m.get != nil {
		t.lead(ctx, m.get.version, reply, func(v *view) error {
			_, err := v.find(ctx, m.get.key)
			return err
		})
	}
	if it := m.iterator; it != nil {
		t.lead(ctx, it.version, reply, func(v *view) error { return it.walk(ctx, v) })
	}
}

var errWork = errors.New("enough")

// lead sends the numbers of the blocks that a walk over a version reads.
func (t *Tree) lead(ctx context.Context, version uint64, reply func([]byte) error, walk func(*view) error) {
	head := t.s.log.Head()
	if version == 0 || version > head.Length {
		return
	}
	var blocks []uint64
	seen := map[uint64]bool{}
	t.s.cache.turn(head.Fork)
	v := view{s: t.s, log: t.s.log, cache: t.s.cache, fork: head.Fork, version: version}
	v.told = func(seq uint64) {
		if !seen[seq] {
			seen[seq] = true
			blocks = append(blocks, seq)
		}
	}
	_ = walk(&v) // it ends where blocks are not here; those before are of use
	for len(blocks) > 0 {
		n := min(hintBlocks, len(blocks))
		if reply((&hint{cache: blocks[:n]}).message()) != nil {
			return
		}
		blocks = blocks[n:]
	}
}

// walk goes where the asking iterator will.
func (it *iteratorHint) walk(ctx context.Context, v *view) error {
	told, work := v.told, 0
	v.told = func(seq uint64) {
		told(seq)
		work++
	}
	low, high := RangeOptions{Gt: it.gt, Gte: it.gte, Lt: it.lt, Lte: it.lte}.bounds(nil)
	if it.reverse {
		low, high = high, low
	}
	c := cursor{v: *v, down: it.reverse, first: low, last: high}
	if len(it.checkpoint) > 0 {
		if err := c.resume(ctx, it.checkpoint); err != nil {
			return err
		}
	} else if err := c.open(ctx); err != nil {
		return err
	}
	for n := uint64(0); it.limit == 0 || n < it.limit; n++ {
		if b, err := c.next(ctx); b == nil || err != nil {
			return err
		}
		if work >= hintWork {
			return errWork
		}
	}
	return nil
}

// resume puts the cursor where a checkpoint says: three numbers a node.
func (c *cursor) resume(ctx context.Context, checkpoint []uint64) error {
	if len(checkpoint) > 3*maxDepth {
		return errDeep
	}
	c.first = bound{}
	for ; len(checkpoint) >= 3; checkpoint = checkpoint[3:] {
		if checkpoint[0] == 0 || checkpoint[0] >= c.v.version {
			return errors.New("a checkpoint is of another version")
		}
		if err := c.enter(ctx, place{checkpoint[0], checkpoint[1]}); err != nil {
			return err
		}
		s := &c.stack[len(c.stack)-1]
		s.i = int(min(checkpoint[2], uint64(2*s.n.nkeys+1)))
	}
	return nil
}

// asks makes a reader of what is not here send a question each time that it has
// to wait, if there is one then.
func (a *ahead) asks(h *hints, question func() (hint, bool)) {
	a.ask = func() {
		m, ok := question()
		if !ok {
			return
		}
		if a.asked == nil {
			h.mu.Lock()
			h.asking++
			h.mu.Unlock()
			a.asked = func() {
				h.mu.Lock()
				h.asking--
				h.mu.Unlock()
			}
		}
		_, _ = h.r.Broadcast(hintName, m.message()) // a peer that is gone can't help
	}
}

// hintGet asks once for the way to a key.
func (v *view) hintGet(key []byte) {
	if h := v.s.hints.Load(); h != nil && v.ahead != nil {
		v.ahead.askGet(h, getHint{v.version, key})
	}
}

func (a *ahead) askGet(h *hints, get getHint) {
	asked := false
	a.asks(h, func() (hint, bool) {
		first := !asked
		asked = true
		return hint{get: &get}, first
	})
}

// hint asks for the way of a range, and again when it has gone far.
func (c *cursor) hint(limit int) {
	h := c.v.s.hints.Load()
	if h == nil || c.v.ahead == nil {
		return
	}
	next := 0
	c.v.ahead.asks(h, func() (hint, bool) {
		if c.passed < next {
			return hint{}, false
		}
		next = c.passed + hintEvery
		it := &iteratorHint{version: c.v.version, reverse: c.down}
		if limit > 0 {
			it.limit = uint64(max(1, limit-c.passed))
		}
		first, last := c.first, c.last
		if c.prev != nil {
			first = bound{key: bytes.Clone(c.prev)}
		}
		if c.down {
			first, last = last, first
		}
		it.gt, it.gte = first.split()
		it.lt, it.lte = last.split()
		return hint{iterator: it}, true
	})
}

// split returns the bound as one of the two kinds.
func (b bound) split() (exclusive, inclusive []byte) {
	if b.inclusive {
		return nil, b.key
	}
	return b.key, nil
}
