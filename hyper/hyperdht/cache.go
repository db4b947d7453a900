package hyperdht

import (
	"net/netip"
	"time"
)

// bounds say how much a cache may hold. It has two generations: what is new,
// and what was new before. When the new one is full, or two thirds of the age
// have passed, the old one is dropped. So an entry lives for about the age, and
// forgetting costs nothing.
type bounds struct {
	count, bytes int
	perSource    int // entries of one address in a generation; zero is no bound
	age          time.Duration
}

// A cache keeps values by what they are found at, within bounds. Its time is
// that of the calls, which must not go back.
type cache[V any] struct {
	bounds
	touch    bool // what is read stays
	size     func(V) int
	new, old generation[V]
	since    time.Time // when the new generation began
}

type generation[V any] struct {
	entries map[[32]byte]cached[V]
	bytes   int
	sources map[netip.Addr]int
}

type cached[V any] struct {
	value V
	from  netip.Addr
}

func newCache[V any](b bounds, size func(V) int) *cache[V] {
	return &cache[V]{bounds: b, size: size}
}

// get returns what is at k.
func (c *cache[V]) get(now time.Time, k [32]byte) (v V, ok bool) {
	c.expire(now)
	if e, ok := c.new.entries[k]; ok {
		return e.value, true
	}
	e, ok := c.old.entries[k]
	if ok && c.touch {
		c.old.remove(k, c.size)
		c.new.put(k, e, c.size)
	}
	return e.value, ok
}

// set puts v at k for somebody at an address. It reports whether there was room
// for one more of that address.
func (c *cache[V]) set(now time.Time, k [32]byte, v V, from netip.Addr) bool {
	c.expire(now)
	if e, ok := c.new.entries[k]; c.perSource > 0 && !(ok && e.from == from) && c.new.sources[from] >= c.perSource {
		return false
	}
	c.old.remove(k, c.size)
	c.new.remove(k, c.size)
	c.new.put(k, cached[V]{v, from}, c.size)
	if len(c.new.entries) >= c.count || c.new.bytes >= c.bytes {
		c.rotate(now)
	}
	return true
}

func (c *cache[V]) remove(k [32]byte) {
	c.new.remove(k, c.size)
	c.old.remove(k, c.size)
}

func (c *cache[V]) len() int { return len(c.new.entries) + len(c.old.entries) }

// expire drops what is too old.
func (c *cache[V]) expire(now time.Time) {
	if c.since.IsZero() {
		c.since = now
	}
	for half := c.age * 2 / 3; half > 0 && now.Sub(c.since) >= half; {
		next := c.since.Add(half)
		c.rotate(next)
		if c.len() == 0 {
			c.since = now
		}
	}
}

func (c *cache[V]) rotate(now time.Time) {
	c.old, c.new, c.since = c.new, generation[V]{}, now
}

func (g *generation[V]) put(k [32]byte, e cached[V], size func(V) int) {
	if g.entries == nil {
		g.entries, g.sources = map[[32]byte]cached[V]{}, map[netip.Addr]int{}
	}
	g.entries[k] = e
	g.bytes += size(e.value)
	g.sources[e.from]++
}

func (g *generation[V]) remove(k [32]byte, size func(V) int) {
	e, ok := g.entries[k]
	if !ok {
		return
	}
	delete(g.entries, k)
	g.bytes -= size(e.value)
	if g.sources[e.from]--; g.sources[e.from] == 0 {
		delete(g.sources, e.from)
	}
}

// topics keeps the records of many peers at each of many targets. Like a cache
// it has two generations. A record is found by target and key.
type topics struct {
	bounds
	new, old topicGeneration
	since    time.Time
}

type topicGeneration struct {
	at      map[[32]byte]*topic
	count   int
	bytes   int
	sources map[netip.Addr]int
}

// A topic is what is announced at one target: a list, to choose from at random,
// and where in it each key is.
type topic struct {
	list  []announced
	index map[[32]byte]int
}

type announced struct {
	key    [32]byte
	record []byte
	from   netip.Addr
}

func (t *topics) add(now time.Time, target [32]byte, a announced) bool {
	t.expire(now)
	fresh := t.new.find(target, a.key)
	if t.perSource > 0 && (fresh == nil || fresh.from != a.from) && t.new.sources[a.from] >= t.perSource {
		return false
	}
	t.old.remove(target, a.key)
	t.new.remove(target, a.key)
	t.new.add(target, a)
	if t.new.count > t.count || t.new.bytes > t.bytes {
		t.rotate(now)
	}
	return true
}

func (t *topics) remove(target, key [32]byte) {
	t.new.remove(target, key)
	t.old.remove(target, key)
}

// get returns at most n records of a target, chosen at random.
func (t *topics) get(now time.Time, target [32]byte, n int, rnd *random) [][]byte {
	t.expire(now)
	var all []announced
	for _, g := range []*topicGeneration{&t.new, &t.old} {
		if at := g.at[target]; at != nil {
			all = append(all, at.list...)
		}
	}
	n = min(n, len(all))
	out := make([][]byte, n)
	for i := range out {
		j := i + rnd.below(len(all)-i)
		all[i], all[j] = all[j], all[i]
		out[i] = all[i].record
	}
	return out
}

func (t *topics) len() int { return t.new.count + t.old.count }

func (t *topics) expire(now time.Time) {
	if t.since.IsZero() {
		t.since = now
	}
	for half := t.age * 2 / 3; half > 0 && now.Sub(t.since) >= half; {
		t.rotate(t.since.Add(half))
		if t.len() == 0 {
			t.since = now
		}
	}
}

func (t *topics) rotate(now time.Time) {
	t.old, t.new, t.since = t.new, topicGeneration{}, now
}

func (g *topicGeneration) find(target, key [32]byte) *announced {
	at := g.at[target]
	if at == nil {
		return nil
	}
	i, ok := at.index[key]
	if !ok {
		return nil
	}
	return &at.list[i]
}

func (g *topicGeneration) add(target [32]byte, a announced) {
	if g.at == nil {
		g.at, g.sources = map[[32]byte]*topic{}, map[netip.Addr]int{}
	}
	at := g.at[target]
	if at == nil {
		at = &topic{index: map[[32]byte]int{}}
		g.at[target] = at
	}
	at.index[a.key] = len(at.list)
	at.list = append(at.list, a)
	g.count++
	g.bytes += len(a.record)
	g.sources[a.from]++
}

func (g *topicGeneration) remove(target, key [32]byte) {
	at := g.at[target]
	if at == nil {
		return
	}
	i, ok := at.index[key]
	if !ok {
		return
	}
	a, last := at.list[i], len(at.list)-1
	at.list[i] = at.list[last]
	at.index[at.list[i].key] = i
	at.list = at.list[:last]
	delete(at.index, key)
	if last == 0 {
		delete(g.at, target)
	}
	g.count--
	g.bytes -= len(a.record)
	if g.sources[a.from]--; g.sources[a.from] == 0 {
		delete(g.sources, a.from)
	}
}
