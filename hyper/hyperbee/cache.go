package hyperbee

import (
	"math"
	"sync"
)

// A Cache keeps decoded blocks of the trees that share it (Options.Cache), those
// used last, up to a number of bytes. Of those that were not used for a while it
// keeps what a search needs, without the value, until they are not used for
// another while. Its methods may be called by any goroutine.
type Cache struct {
	max int

	mu    sync.RWMutex
	ring  []*block // all of them; hand goes round, and removes what was not used since it last came by
	hand  int
	bytes int
}

// NewCache returns a cache for so many bytes.
func NewCache(bytes int) *Cache { return &Cache{max: bytes} }

// Forget frees all that is kept, and the memory that it took.
func (c *Cache) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.ring {
		if len(b.of.blocks) > 0 {
			b.of.blocks = make(map[uint64]*block)
		}
	}
	c.ring, c.hand, c.bytes = nil, 0, 0
}

// A cache is what a Cache has of one fork of one log.
type cache struct {
	*Cache
	fork   uint64            // guarded by mu
	blocks map[uint64]*block // guarded by mu
}

func (c *Cache) newLog() *cache { return &cache{Cache: c, blocks: make(map[uint64]*block)} }

// over is the fork of a log of which nothing is kept any more.
const over = math.MaxUint64

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
		for _, b := range c.blocks {
			c.remove(b)
		}
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
func (c *Cache) fits(n uint64) bool {
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
			s.of, s.at = e.of, e.at
			c.ring[s.at], s.of.blocks[s.seq] = s, s
			c.bytes += s.cost() - e.cost()
			c.hand++
			continue
		}
		c.remove(e)
	}
	b.of, b.at = c, len(c.ring)
	c.ring = append(c.ring, b)
	c.blocks[b.seq] = b
}

// remove takes a block away that is there. c.mu is held.
func (c *Cache) remove(b *block) {
	last := len(c.ring) - 1
	c.ring[b.at] = c.ring[last]
	c.ring[b.at].at = b.at
	c.ring[last] = nil
	c.ring = c.ring[:last]
	delete(b.of.blocks, b.seq)
	c.bytes -= b.cost()
}
