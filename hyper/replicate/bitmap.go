package replicate

import (
	"maps"
	"math/bits"

	"github.com/cloudbevy/bevy/hyper/runs"
)

// A bitmap is a set of blocks, as a peer tells of them: a prefix, and pages of
// bits beyond. What a peer says is bounded: beyond maxPages it is forgotten,
// which means that nothing is asked of it there.
type bitmap struct {
	prefix uint64 // blocks below it are in the set
	pages  map[uint64]*page
}

const (
	pageBits = 1 << 15
	maxPages = 1 << 12
)

type page [pageBits / 64]uint64

// full stands for a page with all bits set. It must not be changed.
var full = func() *page {
	p := new(page)
	for i := range p {
		p[i] = ^uint64(0)
	}
	return p
}()

func (b *bitmap) has(i uint64) bool {
	if i < b.prefix {
		return true
	}
	p := b.pages[i/pageBits]
	return p != nil && p[i%pageBits/64]&(1<<(i%64)) != 0
}

// hasAll reports whether all of a range is in the set.
func (b *bitmap) hasAll(r runs.Range) bool { return b.next(r.Start, false) >= r.End }

// next returns the first block from i on that is in the set, or, if in is false,
// that is not. It is noBlock when none is.
func (b *bitmap) next(i uint64, in bool) uint64 {
	if i < b.prefix {
		if in {
			return i
		}
		i = b.prefix
	}
	if !in {
		for {
			p := b.pages[i/pageBits]
			if p == nil {
				return i
			}
			if p != full {
				if j := p.find(i%pageBits, false); j < pageBits {
					return i - i%pageBits + j
				}
			}
			i += pageBits - i%pageBits
		}
	}
	if p := b.pages[i/pageBits]; p != nil {
		if j := p.find(i%pageBits, true); j < pageBits {
			return i - i%pageBits + j
		}
	}
	// Pages are few: look for the next one among them.
	number, best := i/pageBits, uint64(noBlock)
	for n, p := range b.pages {
		if n > number && n < best/pageBits {
			if j := p.find(0, true); j < pageBits {
				best = n*pageBits + j
			}
		}
	}
	return best
}

// find returns the first bit from i on that is set, or is not, or pageBits.
func (p *page) find(i uint64, set bool) uint64 {
	for w := i / 64; w < uint64(len(p)); w++ {
		word := p[w]
		if !set {
			word = ^word
		}
		if w == i/64 {
			word &= ^uint64(0) << (i % 64)
		}
		if word != 0 {
			return w*64 + uint64(bits.TrailingZeros64(word))
		}
	}
	return pageBits
}

// set puts a range into the set, or takes it out.
func (b *bitmap) set(r runs.Range, in bool) {
	if r.Len() == 0 {
		return
	}
	if in && r.Start <= b.prefix {
		b.grow(r.End)
		return
	}
	if !in && r.Start < b.prefix {
		rest := runs.Range{Start: r.End, End: b.prefix}
		b.prefix = r.Start
		b.set(rest, true)
	}
	if !in && r.Len()/pageBits > uint64(len(b.pages)) {
		for n := range b.pages {
			b.setIn(n, runs.Range{Start: n * pageBits, End: (n + 1) * pageBits}.Intersect(r), false)
		}
		return
	}
	for n := r.Start / pageBits; n <= (r.End-1)/pageBits; n++ {
		if in && b.pages[n] == nil && len(b.pages) >= maxPages {
			return
		}
		b.setIn(n, runs.Range{Start: n * pageBits, End: (n + 1) * pageBits}.Intersect(r), in)
	}
}

// grow makes the prefix go up to end at least, and forgets pages below it.
func (b *bitmap) grow(end uint64) {
	before := b.prefix / pageBits
	b.prefix = b.next(max(b.prefix, end), false)
	if n := b.prefix / pageBits; n != before {
		maps.DeleteFunc(b.pages, func(i uint64, _ *page) bool { return i < n })
	}
}

// setIn sets bits of one page.
func (b *bitmap) setIn(n uint64, r runs.Range, in bool) {
	p := b.pages[n]
	switch {
	case r.Len() == 0 || p == nil && !in || p == full && in:
		return
	case r.Len() == pageBits && !in:
		delete(b.pages, n)
		return
	case r.Len() == pageBits:
		b.put(n, full)
		return
	}
	p = b.own(n)
	for i := r.Start; i < r.End; {
		k := min(64-i%64, r.End-i)
		mask := ^uint64(0) >> (64 - k) << (i % 64)
		if w := &p[i%pageBits/64]; in {
			*w |= mask
		} else {
			*w &^= mask
		}
		i += k
	}
}

// own returns a page that may be changed.
func (b *bitmap) own(n uint64) *page {
	p := b.pages[n]
	if p == nil || p == full {
		fresh := new(page)
		if p == full {
			*fresh = *full
		}
		p = fresh
		b.put(n, p)
	}
	return p
}

func (b *bitmap) put(n uint64, p *page) {
	if b.pages == nil {
		b.pages = map[uint64]*page{}
	}
	b.pages[n] = p
}

// setWords sets all bits from start on, a multiple of 32, to those of the words.
func (b *bitmap) setWords(start uint64, words []uint32) {
	if start < b.prefix {
		// The words are the truth for what they cover.
		cover := runs.Range{Start: start, End: start + 32*uint64(len(words))}
		b.set(cover, false)
	}
	for i, w := range words {
		at := start + 32*uint64(i)
		n := at / pageBits
		p := b.pages[n]
		if p == nil && (w == 0 || len(b.pages) >= maxPages) {
			continue
		}
		word := &b.own(n)[at%pageBits/64]
		shift := at % 64
		*word = *word&^(uint64(^uint32(0))<<shift) | uint64(w)<<shift
	}
}
