package hyperbee

import "sync"

// A cache keeps decoded blocks of one fork of a log, those used last, up to a
// number of bytes. Of those that were not used for a while it keeps what a search
// needs, without the value, until they are not used for another while.
type cache struct {
	max int

	mu     sync.RWMutex
	fork   uint64
	blocks map[uint64]*block
	ring   []*block // all of them; hand goes round, and removes what was not used since it last came by
	hand   int
	bytes  int
}

func newCache(max int) *cache {
	return &cache{max: max, blocks: make(map[uint64]*block)}
}

// turn makes the cache one of a fork, and reports false if it is that of a later
// one already.
func (c *cache) turn(fork uint64) bool {
	c.mu.RLock()
	have := c.fork
	c.mu.RUnlock()
	if have >= fork {
		return have == fork
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fork < fork {
		c.fork = fork
		clear(c.blocks)
		clear(c.ring)
		c.ring, c.hand, c.bytes = c.ring[:0], 0, 0
	}
	return c.fork == fork
}

// get returns a block, or nil. A brief one may be without its value.
func (c *cache) get(fork, seq uint64, brief bool) *block {
	c.mu.RLock()
	b := c.blocks[seq]
	same := c.fork == fork
	c.mu.RUnlock()
	if b == nil || !same || b.brief && !brief {
		return nil
	}
	if !b.used.Load() { // no write to shared memory where none is needed
		b.used.Store(true)
	}
	return b
}

// fits tells whether so many blocks, as large as those there are, can be kept
// all at once.
func (c *cache) fits(n uint64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if len(c.ring) == 0 {
		return false
	}
	return n <= uint64(c.max)/uint64(c.bytes/len(c.ring))
}

// add keeps a block. One that is large beside the cache is not worth what it
// would push out.
func (c *cache) add(fork uint64, b *block) {
	size := b.cost()
	if size > c.max/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fork != fork {
		return
	}
	if old := c.blocks[b.seq]; old != nil {
		if !old.brief {
			return
		}
		c.remove(old)
	}
	c.bytes += size
	for c.bytes > c.max {
		if c.hand >= len(c.ring) {
			c.hand = 0
		}
		e := c.ring[c.hand]
		if e.used.Swap(false) {
			c.hand++
			continue
		}
		if s := e.without(); s != nil {
			s.at = e.at
			c.ring[s.at], c.blocks[s.seq] = s, s
			c.bytes += s.cost() - e.cost()
			c.hand++
			continue
		}
		c.remove(e)
	}
	b.at = len(c.ring)
	c.ring = append(c.ring, b)
	c.blocks[b.seq] = b
}

// remove takes a block away that is there. c.mu is held.
func (c *cache) remove(b *block) {
	last := len(c.ring) - 1
	c.ring[b.at] = c.ring[last]
	c.ring[b.at].at = b.at
	c.ring[last] = nil
	c.ring = c.ring[:last]
	delete(c.blocks, b.seq)
	c.bytes -= b.cost()
}
