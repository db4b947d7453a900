package content

import (
	"context"
	"errors"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/compact"
)

func keep(refs ...Ref) iter.Seq2[Ref, error] {
	return func(yield func(Ref, error) bool) {
		for _, r := range refs {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// heldBytes are those of all blocks that are held.
func (s *Store) heldBytes() (n uint64) {
	for _, src := range s.sources() {
		set := src.held(src.log.Length())
		for r := range set.All() {
			for i := r.Start; i < r.End; i++ {
				node, err := src.log.Node(2 * i)
				if err != nil {
					panic(err)
				}
				n += node.Size
			}
		}
	}
	return n
}

func TestSweepFreesAllButWhatIsKept(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	a, b := twoStores(t, Options{ChunkSize: 128})
	stores := []*Store{a, b}
	kept := map[Ref][]byte{}
	for round := range 8 {
		all := maps.Clone(kept)
		for range 20 {
			s := stores[r.IntN(2)]
			data := randomBytes(uint64(r.IntN(1000)), r.IntN([]int{10, 100, 20_000}[r.IntN(3)]))
			var base Ref
			if list := slices.Collect(maps.Keys(all)); len(list) > 0 && r.IntN(2) == 0 {
				base = list[r.IntN(len(list))]
				data = append(slices.Clone(all[base]), data...)
				if len(data) > 0 {
					data[r.IntN(len(data))]++
				}
			}
			all[write(t, s, base, data)] = data
		}
		kept = map[Ref][]byte{}
		for ref, data := range all {
			if r.IntN(3) == 0 {
				kept[ref] = data
			}
		}
		s := stores[r.IntN(2)]
		before := s.heldBytes()
		swept, err := s.Sweep(t.Context(), keep(slices.Collect(maps.Keys(kept))...))
		must(t, err)
		if swept.Unknown != 0 || swept.Bytes == 0 || before-s.heldBytes() != swept.Bytes {
			t.Errorf("round %d: swept %+v, and %d bytes are gone", round, swept, before-s.heldBytes())
		}
		for ref, data := range kept {
			wantContent(t, a, ref, data)
			wantContent(t, b, ref, data)
		}
		for ref := range all {
			if _, ok := kept[ref]; !ok && ref.Size > 0 {
				if n, err := s.Missing(t.Context(), ref); err == nil && n == 0 && ref.depth == 0 {
					t.Errorf("round %d: %+v is still here", round, ref)
				}
			}
		}
	}
}

func TestSweepLeavesWhatIsBeingWritten(t *testing.T) {
	s := newStore(t, Options{ChunkSize: 256})
	ctx := t.Context()
	old, base := write(t, s, Ref{}, randomBytes(1, 5000)), write(t, s, Ref{}, randomBytes(2, 50_000))
	h := s.Hold()
	w := h.NewWriter(ctx, WriteOptions{Base: base}) // nothing else keeps the base
	_, err := w.Write(randomBytes(2, 30_000))
	must(t, err)
	early, err := h.Put(ctx, []byte("early"))
	must(t, err)
	var late Ref
	swept, err := s.Sweep(ctx, func(yield func(Ref, error) bool) {
		// While it looks for what to keep, more is written, and its hold is released.
		h := s.Hold()
		late, err = h.Put(ctx, []byte("late"))
		must(t, err)
		h.Keep(old)
		h.Release()
	})
	must(t, err)
	if swept.Bytes != 0 {
		t.Errorf("swept %+v", swept)
	}
	_, err = w.Write(randomBytes(2, 50_000)[30_000:])
	must(t, err)
	must(t, w.Close())
	wantContent(t, s, w.Ref(), randomBytes(2, 50_000))
	wantContent(t, s, early, []byte("early"))
	wantContent(t, s, late, []byte("late"))
	wantContent(t, s, old, randomBytes(1, 5000))
	h.Release()
	// Now all of it goes.
	_, err = s.Sweep(ctx, keep())
	must(t, err)
	if n := s.heldBytes(); n != 0 {
		t.Errorf("%d bytes are left", n)
	}
	if _, err = s.Sweep(ctx, func(yield func(Ref, error) bool) { yield(Ref{}, context.Canceled) }); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
}

func TestClearedContentsAreMissing(t *testing.T) {
	s := newStore(t, Options{ChunkSize: 256})
	ctx := t.Context()
	data := randomBytes(1, 50_000)
	ref := write(t, s, Ref{}, data)
	before := s.heldBytes()
	freed, err := s.Clear(ctx, ref)
	must(t, err)
	if uint64(freed) != before || s.heldBytes() != 0 {
		t.Errorf("%d of %d bytes were freed, %d are left", freed, before, s.heldBytes())
	}
	if n, err := s.Missing(ctx, ref); n != ref.Size || err != nil {
		t.Errorf("%d bytes are missing (%v)", n, err)
	}
	if n, err := s.Verify(ctx, ref); n != ref.Size || err != nil {
		t.Errorf("verify: %d bytes are missing (%v)", n, err)
	}
	if _, err := s.Get(ctx, ref, 1<<20); !errors.Is(err, ErrNotFound) {
		t.Errorf("read: %v", err)
	}
	if err := s.Download(ctx, ref); !errors.Is(err, ErrNotFound) {
		t.Errorf("download: %v", err)
	}
	if ref = write(t, s, ref, data); ref.Size != int64(len(data)) {
		t.Error("it can't be written again")
	}
	wantContent(t, s, ref, data)
}

// A node that names one other a hundred times at each of six levels costs what is
// there, not what it claims.
func TestHugeClaimsCostLittle(t *testing.T) {
	s := newStore(t, Options{})
	ctx := t.Context()
	ref := write(t, s, Ref{}, []byte("x"))
	p := ref.root()
	for depth := 1; depth <= maxDepth; depth++ {
		pointers := slices.Repeat([]pointer{p}, 100)
		length, err := s.own.log.Append(ctx, appendNode(nil, depth, pointers))
		must(t, err)
		p = pointer{log: p.log, index: length - 1, size: p.size * 100, hash: hashOf(nil)}
	}
	huge := Ref{Size: p.size, Hash: p.hash, log: p.log, index: p.index, depth: maxDepth}
	if n, err := s.Missing(ctx, huge); n != 0 || err != nil {
		t.Errorf("%d bytes are missing (%v)", n, err)
	}
	must(t, s.Download(ctx, huge))
	if _, err := s.Verify(ctx, huge); !errors.Is(err, ErrInvalid) {
		t.Errorf("verify: %v", err)
	}
	if swept, err := s.Sweep(ctx, keep(huge)); err != nil || swept.Kept != maxDepth+1 || swept.Blocks != 0 {
		t.Errorf("swept %+v (%v)", swept, err)
	}
	r, err := s.NewReader(ctx, huge)
	must(t, err)
	defer r.Close()
	b := make([]byte, 10)
	if n, err := r.ReadAt(b, huge.Size-7); n != 7 || string(b[:7]) != "xxxxxxx" {
		t.Errorf("read %q (%v)", b[:n], err)
	}
	if _, err := s.Get(ctx, huge, 1<<20); !errors.Is(err, ErrInvalid) {
		t.Errorf("get: %v", err)
	}
	write(t, s, huge, randomBytes(1, 100_000)) // as a base
}

func TestWhatMakesNoSenseIsAnError(t *testing.T) {
	s := newStore(t, Options{ChunkSize: 256})
	ctx := t.Context()
	ref := write(t, s, Ref{}, randomBytes(1, 50_000))
	other := write(t, s, Ref{}, []byte("short"))
	for name, change := range map[string]func(*Ref){
		"too long":          func(r *Ref) { r.Size++ },
		"too deep":          func(r *Ref) { r.depth++ },
		"not deep enough":   func(r *Ref) { r.depth-- },
		"of another block":  func(r *Ref) { r.index = other.index },
		"of no block":       func(r *Ref) { r.index = 1 << 50 },
		"of another hash":   func(r *Ref) { r.Hash[0]++ },
		"of a chunk's size": func(r *Ref) { *r = other; r.Size-- },
	} {
		bad := ref
		change(&bad)
		if got, err := s.Get(ctx, bad, 1<<20); !errors.Is(err, ErrInvalid) && name != "of another hash" {
			t.Errorf("%s: got %d bytes and error %v", name, len(got), err)
		}
		if n, err := s.Verify(ctx, bad); err == nil && n == 0 {
			t.Errorf("%s: nothing is wrong", name)
		}
		_, _ = s.Missing(ctx, bad)
		_, _ = s.Sweep(ctx, keep(bad, ref, other))
		data := randomBytes(9, 3000)
		wantContent(t, s, write(t, s, bad, data), data)
	}
	if _, err := s.NewReader(ctx, Ref{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no content: %v", err)
	}
}

func FuzzReadRef(f *testing.F) {
	f.Add(Empty().AppendTo(nil))
	f.Add(Ref{Size: 1 << 40, Hash: Hash{1}, log: LogID{2}, index: 3, depth: 4}.AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := compact.NewDecoder(b)
		r, err := ReadRef(&d)
		if err != nil {
			return
		}
		if r.IsZero() {
			t.Fatal("no content was read")
		}
		d = compact.NewDecoder(r.AppendTo(nil))
		if again, err := ReadRef(&d); err != nil || again != r || d.Finish() != nil {
			t.Fatalf("%+v comes back as %+v (%v)", r, again, err)
		}
	})
}

func FuzzReadNode(f *testing.F) {
	p := pointer{LogID{1}, 100, 10, Hash{2}}
	q := pointer{LogID{3}, 99, 5, Hash{4}}
	f.Add(appendNode(nil, 1, []pointer{p, q, p}), 1, int64(25))
	f.Fuzz(func(t *testing.T, b []byte, depth int, size int64) {
		depth, size = 1+abs(depth)%maxDepth, max(size, 1)%maxSize
		n, err := readNode(b, depth, size)
		if err != nil {
			return
		}
		if n.ends[len(n.ends)-1] != size {
			t.Fatalf("%d bytes, not %d", n.ends[len(n.ends)-1], size)
		}
		again, err := readNode(appendNode(nil, depth, n.pointers), depth, size)
		if err != nil || !slices.Equal(again.pointers, n.pointers) {
			t.Fatalf("it comes back as %+v (%v)", again, err)
		}
		for _, pos := range []int64{0, size / 2, size - 1} {
			if i, start := n.find(pos); start > pos || pos >= n.ends[i] {
				t.Fatalf("byte %d is in pointer %d from %d to %d", pos, i, start, n.ends[i])
			}
		}
	})
}

func abs(n int) int {
	if n < 0 {
		return -(n + 1)
	}
	return n
}
