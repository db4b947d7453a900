package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/cloudbevy/bevy/hyper/runs"
)

// Missing returns how many bytes of contents are not held here. While the nodes of
// one are not here, that is all of what is below them. What several contents share
// counts once for each.
func (s *Store) Missing(ctx context.Context, refs ...Ref) (bytes int64, err error) {
	for _, r := range refs {
		err := s.walk(ctx, r, func(p pointer, depth int) error {
			if s.has(p) {
				return nil
			}
			bytes += p.size
			return errSkip
		})
		if err != nil {
			return 0, fmt.Errorf("missing parts of a content: %w", err)
		}
	}
	return bytes, nil
}

// Download brings contents here whole, and returns when all of them are held and
// on the disk.
func (s *Store) Download(ctx context.Context, refs ...Ref) error {
	fail := func(err error) error { return fmt.Errorf("download contents: %w", err) }
	// The roots of all at once, then each content's nodes, then chunks of many.
	var roots, chunks []pointer
	for _, r := range refs {
		if err := r.check(); err != nil {
			return fail(err)
		}
		if r.Size > 0 {
			roots = append(roots, r.root())
		}
	}
	if err := s.download(ctx, false, roots); err != nil {
		return fail(err)
	}
	for _, r := range refs {
		if r.depth == 0 {
			continue
		}
		w := walk{s: s, visit: func(p pointer, depth int) error {
			if depth > 0 || s.has(p) {
				return nil
			}
			chunks = append(chunks, p)
			if len(chunks) < maxWant {
				return nil
			}
			err := s.download(ctx, false, chunks)
			chunks = chunks[:0]
			return err
		}, enter: func(n *node, depth int) error {
			if depth == 1 {
				return nil
			}
			return s.download(ctx, false, n.pointers) // all at once, not one by one
		}}
		if err := w.ref(ctx, r); err != nil {
			return fail(err)
		}
	}
	if err := s.download(ctx, false, chunks); err != nil {
		return fail(err)
	}
	return nil
}

// maxWant is how many chunks are asked for at once.
const maxWant = 4096

// Clear frees the blocks of contents here, also those that they share with others,
// and returns how many bytes that were. They can be had again from peers: who has
// made sure that these have them may call it.
func (s *Store) Clear(ctx context.Context, refs ...Ref) (freed int64, err error) {
	return s.ClearChecked(ctx, nil, refs...)
}

// bytes returns how many bytes are held of a range.
func (src *source) bytes(r runs.Range) (n int64) {
	for i := r.Start; i < r.End; i++ {
		held, ok := src.log.NextHeld(i)
		if !ok || held.Start >= r.End {
			break
		}
		for i = held.Start; i < min(held.End, r.End); i++ {
			if node, err := src.log.Node(2 * i); err == nil { // the block's own
				n += int64(node.Size)
			}
		}
		i--
	}
	return n
}

// clear frees what is held of a range.
func (src *source) clear(ctx context.Context, r runs.Range) (freed int64, err error) {
	if freed = src.bytes(r); freed == 0 {
		return 0, nil
	}
	if _, err := src.log.Clear(ctx, r.Start, r.End); err != nil {
		return 0, err
	}
	return freed, nil
}

// A marker collects the blocks of contents.
type marker struct {
	walk
	sets    map[LogID]*runs.Set
	unknown int // nodes
}

func (s *Store) marker() *marker {
	m := &marker{walk: walk{s: s}, sets: map[LogID]*runs.Set{}}
	m.visit = func(p pointer, depth int) error {
		set := m.sets[p.log]
		if set == nil {
			set = new(runs.Set)
			m.sets[p.log] = set
		}
		set.Add(runs.Range{Start: p.index, End: p.index + 1})
		if depth > 0 && !s.has(p) {
			m.unknown++
			return errSkip
		}
		return nil
	}
	m.broken = func(error) error {
		m.unknown++
		return nil
	}
	return m
}

// A Swept says what a sweep did.
type Swept struct {
	Blocks, Bytes uint64 // freed
	Kept          uint64 // blocks that contents to keep are made of, here or not
	// Unknown is how many nodes of contents to keep are not here or make no sense.
	// What is below them is kept only if something else that is kept has it too.
	Unknown int
}

// A sweep is one that is going on.
type sweep struct {
	late []Ref // kept by holds since it began
}

// Sweep frees all blocks here that none of the contents in keep uses, no [Hold]
// keeps, and that were there when it began. An error in keep ends it, with nothing
// freed.
//
// A device that wrote a content with chunks of another's log holds these itself, so
// that contents whose nodes are not here are not lost when their chunks are freed
// here.
func (s *Store) Sweep(ctx context.Context, keep iter.Seq2[Ref, error]) (Swept, error) {
	return s.sweepOf(ctx, keep, (*source).clear)
}

// Sweepable says what Sweep would free, and frees nothing.
func (s *Store) Sweepable(ctx context.Context, keep iter.Seq2[Ref, error]) (Swept, error) {
	return s.sweepOf(ctx, keep, func(src *source, _ context.Context, r runs.Range) (int64, error) { return src.bytes(r), nil })
}

func (s *Store) sweepOf(ctx context.Context, keep iter.Seq2[Ref, error], clear func(*source, context.Context, runs.Range) (int64, error)) (Swept, error) {
	fail := func(err error) (Swept, error) { return Swept{}, fmt.Errorf("sweep contents: %w", err) }
	s.mu.Lock()
	if s.sweep != nil {
		s.mu.Unlock()
		return fail(errors.New("another sweep is going on"))
	}
	sw := &sweep{}
	s.sweep = sw
	// What comes from peers from now on is left alone, too.
	garbage := map[*source]runs.Set{}
	for _, src := range s.logs {
		limit := src.log.Length()
		for h := range s.holds {
			if src == s.own {
				limit = min(limit, h.start)
			}
		}
		garbage[src] = src.held(limit)
	}
	for h := range s.holds {
		sw.late = append(sw.late, h.refs...)
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.sweep = nil
		s.mu.Unlock()
	}()

	var out Swept
	m := s.marker()
	for r, err := range keep {
		if err == nil && !r.IsZero() {
			err = m.ref(ctx, r)
		}
		if err != nil {
			return fail(err)
		}
	}
	marked := 0 // of what holds keep
	finish := func() error {
		s.mu.Lock()
		late := sw.late[marked:]
		marked = len(sw.late)
		s.mu.Unlock()
		for _, r := range late {
			if err := m.ref(ctx, r); err != nil {
				return err
			}
		}
		return nil
	}
	for src, garbage := range garbage {
		var list []runs.Range
		for r := range garbage.All() {
			list = append(list, r)
		}
		for part := range slices.Chunk(list, clearsAtOnce) {
			// While these are cleared nothing old can be named anew.
			s.clearing.Lock()
			err := finish()
			for _, r := range part {
				for r := range m.unmarked(src.id, r) {
					if err != nil {
						break
					}
					var bytes int64
					bytes, err = clear(src, ctx, r)
					out.Blocks += r.Len()
					out.Bytes += uint64(bytes)
				}
			}
			s.clearing.Unlock()
			if err != nil {
				return out, fmt.Errorf("sweep contents: %w", err)
			}
		}
	}
	if err := finish(); err != nil {
		return fail(err)
	}
	out.Unknown = m.unknown
	for _, set := range m.sets {
		for r := range set.All() {
			out.Kept += r.Len()
		}
	}
	return out, nil
}

// clearsAtOnce is how many runs of blocks are cleared while who writes has to wait.
const clearsAtOnce = 64

// unmarked returns what of a range of a log's blocks is not marked.
func (m *marker) unmarked(log LogID, r runs.Range) iter.Seq[runs.Range] {
	return func(yield func(runs.Range) bool) {
		kept := m.sets[log]
		for i := r.Start; i < r.End; {
			next := runs.Range{Start: r.End, End: r.End}
			if kept != nil {
				if n, ok := kept.Next(i); ok && n.Start < r.End {
					next = n
				}
			}
			if i < next.Start && !yield(runs.Range{Start: i, End: next.Start}) {
				return
			}
			i = next.End
		}
	}
}

// held returns what is held of the first blocks of a log.
func (src *source) held(limit uint64) (set runs.Set) {
	for i := uint64(0); i < limit; {
		r, ok := src.log.NextHeld(i)
		if !ok || r.Start >= limit {
			break
		}
		set.Add(runs.Range{Start: r.Start, End: min(r.End, limit)})
		i = r.End
	}
	return set
}

// Verify reads what is held of a content and checks that it is what the Ref says:
// that nodes make sense, that every chunk has its hash, and so has the whole if all
// of it is held. It returns how many bytes are not held.
func (s *Store) Verify(ctx context.Context, r Ref) (missing int64, err error) {
	whole := sha256.New()
	w := walk{s: s, visit: func(p pointer, depth int) error {
		if !s.has(p) {
			missing += p.size
			return errSkip
		}
		if depth == int(r.depth) && depth > 0 {
			return nil // the root's node has no hash; walk reads it
		}
		b, err := s.block(ctx, p)
		if err != nil {
			return err
		}
		if hashOf(b) != p.hash || depth == 0 && int64(len(b)) != p.size {
			return fmt.Errorf("%w: block %d of content log %x… is not what it should be", ErrInvalid, p.index, p.log)
		}
		if depth == 0 && r.depth > 0 {
			whole.Write(b)
		}
		return nil
	}}
	err = w.ref(ctx, r)
	// Of one that repeats large parts of itself, these were read once.
	if err == nil && missing == 0 && r.depth > 0 && !w.repeat && Hash(whole.Sum(nil)) != r.Hash {
		err = fmt.Errorf("%w: the whole has another hash", ErrInvalid)
	}
	if err != nil {
		err = fmt.Errorf("verify content: %w", err)
	}
	return missing, err
}
