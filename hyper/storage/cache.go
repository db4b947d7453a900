package storage

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// A pageKey names a page of a store.
type pageKey struct {
	log    ID
	level  int
	number uint64
}

// A pageCache keeps the pages that were used last, up to a number of bytes. It
// is shared by all logs of a store, and is written through: a page in it is
// always what is stored.
type pageCache struct {
	limit int

	mu    sync.Mutex
	pages map[pageKey]*list.Element // of *cached
	order list.List                 // latest first
	bytes int

	// A page that was read while it was being changed must not get in. changes
	// counts the changes of all pages whose keys share a slot.
	changes [256]atomic.Uint64
}

type cached struct {
	key  pageKey
	page *page // nil where none is stored
	size int
}

func newPageCache(limit int) *pageCache {
	return &pageCache{limit: limit, pages: map[pageKey]*list.Element{}}
}

func (c *pageCache) slot(k pageKey) *atomic.Uint64 {
	h := (uint64(k.log)*31+uint64(k.level))*0x9e3779b97f4a7c15 + k.number
	return &c.changes[(h^h>>32)%uint64(len(c.changes))]
}

// get returns a page, which is nil if none is stored. ok is false when that is not
// known.
func (c *pageCache) get(k pageKey) (p *page, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.pages[k]
	if e == nil {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).page, true
}

// putRead adds a page that was read after the slot showed seen, unless the page
// was changed since; nil if there was none. It returns the page to use.
func (c *pageCache) putRead(k pageKey, p *page, seen uint64) *page {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.pages[k]; e != nil {
		return e.Value.(*cached).page
	}
	if c.slot(k).Load() == seen {
		c.putLocked(k, p)
	}
	return p
}

// absentMemory is about what it takes to know that there is no page.
const absentMemory = 160

func (c *pageCache) putLocked(k pageKey, p *page) {
	e := &cached{k, p, absentMemory}
	if p != nil {
		e.size = p.memory()
	}
	c.pages[k] = c.order.PushFront(e)
	c.bytes += e.size
	c.evictLocked()
}

func (c *pageCache) evictLocked() {
	for c.bytes > c.limit && c.order.Len() > 1 {
		c.removeLocked(c.order.Back())
	}
}

func (c *pageCache) removeLocked(e *list.Element) {
	it := c.order.Remove(e).(*cached)
	delete(c.pages, it.key)
	c.bytes -= it.size
}

// committed brings the cache up to a change that is stored now. fresh means
// that the page did not exist before.
func (c *pageCache) committed(ch *pageChange, fresh bool) {
	k := pageKey{ch.log, ch.level, ch.number}
	c.slot(k).Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.pages[k]
	if e != nil && e.Value.(*cached).page == nil {
		c.removeLocked(e)
		e, fresh = nil, true
	}
	switch {
	case ch.drop, ch.whole:
		if e != nil {
			c.removeLocked(e)
		}
		if !ch.drop {
			c.putLocked(k, ch.with)
		}
	case e != nil:
		it := e.Value.(*cached)
		ch.apply(it.page)
		size := it.page.memory()
		c.bytes += size - it.size
		it.size = size
		c.order.MoveToFront(e)
		c.evictLocked()
	case fresh:
		p := &page{level: ch.level, number: ch.number}
		ch.apply(p)
		c.putLocked(k, p)
	}
}

// dropRange forgets the pages from <= number < to of a level of a log.
func (c *pageCache) dropRange(log ID, level int, from, to uint64) {
	for i := range c.changes {
		c.changes[i].Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if to-from < uint64(len(c.pages)) {
		for n := from; n < to; n++ {
			if e := c.pages[pageKey{log, level, n}]; e != nil {
				c.removeLocked(e)
			}
		}
		return
	}
	for k, e := range c.pages {
		if k.log == log && k.level == level && k.number >= from && k.number < to {
			c.removeLocked(e)
		}
	}
}
