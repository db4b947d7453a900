package bridge

import (
	"container/list"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// A cache keeps answers, the last used ones.
type cache struct {
	room  int // bytes
	clock clock.Clock

	mu    sync.Mutex // guards the fields below
	items map[cacheKey]*list.Element
	order list.List // of *cached, the last used first
	bytes int
	used  bool // since the timer was set
	timer clock.Timer
}

// A cacheKey says what an answer is to.
type cacheKey struct {
	id, revision, path string
	code               coding
}

type cached struct {
	key  cacheKey
	item *answer
}

// cacheIdle is how long answers are kept that nobody asks for.
const cacheIdle = time.Minute

func newCache(room int, c clock.Clock) *cache {
	return &cache{room: room, clock: c, items: map[cacheKey]*list.Element{}}
}

// largest is the size up to which one answer is kept.
func (c *cache) largest() int { return c.room / 16 }

func (c *cache) get(key cacheKey) *answer {
	if key.id == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used = true
	e := c.items[key]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).item
}

func (c *cache) put(key cacheKey, a *answer) {
	if key.id == "" || a.cost() > c.largest() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(c.items[key])
	c.items[key] = c.order.PushFront(&cached{key, a})
	c.bytes += cost(key, a)
	for c.bytes > c.room {
		c.dropLocked(c.order.Back())
	}
	if c.used = true; c.timer == nil {
		c.timer = c.clock.AfterFunc(cacheIdle, c.idle)
	}
}

func (c *cache) dropLocked(e *list.Element) {
	if e == nil {
		return
	}
	item := c.order.Remove(e).(*cached)
	delete(c.items, item.key)
	c.bytes -= cost(item.key, item.item)
}

// idle forgets everything if nobody asked for anything.
func (c *cache) idle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used {
		c.used = false
		c.timer = c.clock.AfterFunc(cacheIdle, c.idle)
		return
	}
	c.timer, c.bytes = nil, 0
	clear(c.items)
	c.order.Init()
}

// cost is about how much memory an answer takes.
func cost(key cacheKey, a *answer) int {
	return 256 + len(key.path) + len(key.id) + len(key.revision) + a.cost()
}
