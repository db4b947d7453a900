package content

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

// twoStores are the stores of two devices that have all of each other's logs.
func twoStores(t testing.TB, o Options) (a, b *Store) {
	t.Helper()
	la, lb := newLog(t, 1), newLog(t, 2)
	a, b = New(o), New(o)
	must(t, a.Own(la))
	must(t, a.Add(lb, 0))
	must(t, b.Own(lb))
	must(t, b.Add(la, 0))
	return a, b
}

func (s *Store) ownBytes() uint64 { return s.own.log.ByteLength() }

// With BEVY_LONG the file has 64 MiB.
func TestOneByteChangedInAnothersFileStoresLittle(t *testing.T) {
	size := 12 << 20
	if os.Getenv("BEVY_LONG") != "" {
		size = 64 << 20
	}
	a, b := twoStores(t, Options{})
	data := randomBytes(1, size)
	base := write(t, a, Ref{}, data)
	if n := a.ownBytes(); n > uint64(size+size/500) {
		t.Errorf("%d bytes are stored for a content of %d", n, size)
	}
	data[size/3]++
	ref := write(t, b, base, data)
	if n := b.ownBytes(); n > 256<<10 {
		t.Errorf("a changed byte stored %d bytes", n)
	}
	wantContent(t, b, ref, data)
}

func TestBytesPutInOrTakenOutStoreLittle(t *testing.T) {
	const size = 2 << 20
	a, b := twoStores(t, Options{ChunkSize: 4 << 10})
	data := randomBytes(1, size)
	base := write(t, a, Ref{}, data)
	data = append(append(bytes.Clone(data[:size/2]), "inserted"...), data[size/2:size-10_000]...)
	ref := write(t, b, base, data)
	wantContent(t, b, ref, data)
	wantContent(t, a, ref, data)
	if n := b.ownBytes(); n > 40<<10 {
		t.Errorf("bytes inserted and bytes removed stored %d bytes", n)
	}
	before := a.ownBytes()
	again := write(t, a, base, randomBytes(1, size))
	if again != base || a.ownBytes() != before {
		t.Errorf("the same content was stored again: %d bytes", a.ownBytes()-before)
	}
}

// synthetic is a content of any size without memory, with a few bytes changed.
type synthetic struct {
	size, pos int64
	changed   map[int64]byte
	rng       rand.PCG
	word      [8]byte
}

func (s *synthetic) Read(p []byte) (n int, err error) {
	if s.pos == s.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.size-s.pos)]
	for i := range p {
		if s.pos%8 == 0 {
			x := s.rng.Uint64()
			for j := range s.word {
				s.word[j] = byte(x >> (8 * j))
			}
		}
		p[i] = s.word[s.pos%8] + s.changed[s.pos]
		s.pos++
	}
	return len(p), nil
}

// With BEVY_LONG the file has 10 GiB.
func TestOneByteChangedInAHugeFileStoresLittle(t *testing.T) {
	size := int64(4 << 20)
	o := Options{ChunkSize: 512} // as many chunks as 512 MiB have of the usual size
	if os.Getenv("BEVY_LONG") != "" {
		size, o = 10<<30, Options{}
	}
	a, b := twoStores(t, o)
	if size > 1<<30 { // not in memory
		a, b = New(o), New(o)
		la, lb := diskLog(t, 1), diskLog(t, 2)
		must(t, errors.Join(a.Own(la), a.Add(lb, 0), b.Own(lb), b.Add(la, 0)))
	}
	put := func(s *Store, base Ref, r io.Reader) Ref {
		t.Helper()
		h := s.Hold()
		defer h.Release()
		w := h.NewWriter(t.Context(), WriteOptions{Base: base})
		_, err := w.ReadFrom(r)
		must(t, err)
		must(t, w.Close())
		return w.Ref()
	}
	base := put(a, Ref{}, &synthetic{size: size})
	ref := put(b, base, &synthetic{size: size, changed: map[int64]byte{size / 7: 1}})
	if ref.Same(base) || ref.Size != size {
		t.Fatalf("got %+v over %+v", ref, base)
	}
	if n := b.ownBytes(); n > 256<<10 || n > uint64(size/100) {
		t.Errorf("a changed byte of %d stored %d bytes", size, n)
	}
	t.Logf("%d bytes for a changed one of %d", b.ownBytes(), size)
}

// Another device's word that a chunk is the same bytes is not taken, and what is not
// here is stored, so that it can't be lost with the other device.
func TestOnlyWhatIsHereAndTheSameIsShared(t *testing.T) {
	a, b := twoStores(t, Options{ChunkSize: 256})
	data := randomBytes(1, 100_000)
	base := write(t, a, Ref{}, data)
	// A lie: the same hashes, other blocks.
	lie, err := a.own.log.Append(t.Context(), randomBytes(2, 100))
	must(t, err)
	n, err := a.node(t.Context(), pointer{log: base.log, index: base.index, size: base.Size}, int(base.depth))
	must(t, err)
	for base.depth > 1 {
		base.depth--
		base.index, base.Size = n.pointers[0].index, n.pointers[0].size
		n, err = a.node(t.Context(), n.pointers[0], int(base.depth))
		must(t, err)
	}
	data = data[:base.Size]
	for i := range n.pointers {
		n.pointers[i].index = lie - 1
	}
	length, err := a.own.log.Append(t.Context(), appendNode(nil, 1, n.pointers))
	must(t, err)
	base.index = length - 1
	ref := write(t, b, base, data)
	wantContent(t, b, ref, data)
	if got := b.ownBytes(); got < uint64(len(data)) {
		t.Errorf("%d bytes of %d are stored, although those there are others", got, len(data))
	}

	base = write(t, a, Ref{}, randomBytes(3, 100_000))
	_, err = b.Clear(t.Context(), base) // both have the same log here
	must(t, err)
	before := b.ownBytes()
	write(t, b, base, randomBytes(3, 100_000))
	if got := b.ownBytes() - before; got < 100_000 {
		t.Errorf("%d bytes of %d are stored, although nothing was here", got, 100_000)
	}
}

func TestContentsGrowWhileTheyAreRead(t *testing.T) {
	s := newStore(t, Options{ChunkSize: 256})
	h := s.Hold()
	defer h.Release()
	w := h.NewWriter(t.Context(), WriteOptions{})
	data := randomBytes(1, 60_000)
	if ref, err := w.Flush(); err != nil || ref != Empty() {
		t.Errorf("nothing is %+v (%v)", ref, err)
	}
	for i := 0; i < len(data); {
		n := min(1+i/3, len(data)-i)
		_, err := w.Write(data[i : i+n])
		must(t, err)
		i += n
		ref, err := w.Flush()
		must(t, err)
		wantContent(t, s, ref, data[:i])
		if ref.Hash != hashOf(data[:i]) {
			t.Errorf("the first %d bytes have the hash %x", i, ref.Hash)
		}
	}
	must(t, w.Close())
	wantContent(t, s, w.Ref(), data)
	if again := write(t, newStore(t, Options{ChunkSize: 256}), Ref{}, data); again.depth != w.Ref().depth || !again.Same(w.Ref()) {
		t.Errorf("flushing made another content: %+v, not %+v", w.Ref(), again)
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, errEnded) {
		t.Errorf("write after close: %v", err)
	}
}

func TestManySmallContentsArePutTogether(t *testing.T) {
	s := newStore(t, Options{})
	h := s.Hold()
	defer h.Release()
	var data [][]byte
	for i := range 3000 {
		data = append(data, []byte(fmt.Sprint("content ", i)))
	}
	data = append(data, nil, randomBytes(1, 300_000), []byte("last"))
	refs, err := h.PutAll(t.Context(), data...)
	must(t, err)
	for i, ref := range refs {
		wantContent(t, s, ref, data[i])
	}
	if _, err := New(Options{}).Hold().Put(t.Context(), []byte("x")); !errors.Is(err, ErrReadOnly) {
		t.Errorf("put without a log: %v", err)
	}
	// What a writer writes in one block is the same.
	if ref := write(t, s, refs[0], data[0]); ref != refs[0] {
		t.Errorf("got %+v, want %+v", ref, refs[0])
	}
}

// A log counts up to a block, also when it has more.
func TestWhatIsBeyondALimitIsNotThere(t *testing.T) {
	a := newStore(t, Options{})
	first, second := write(t, a, Ref{}, []byte("first")), write(t, a, Ref{}, []byte("second"))
	b := New(Options{})
	must(t, b.Add(a.own.log, 1))
	wantContent(t, b, first, []byte("first"))
	if _, err := b.Get(t.Context(), second, 10); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want %v", err, ErrNotFound)
	}
	if n, err := b.Missing(t.Context(), second); n != 6 || err != nil {
		t.Errorf("%d bytes are missing (%v), want 6", n, err)
	}
	if err := b.Download(t.Context(), second); !errors.Is(err, ErrNotFound) {
		t.Errorf("download: got %v, want %v", err, ErrNotFound)
	}
	if err := b.Add(a.own.log, 0); err == nil {
		t.Error("a log was added twice")
	}
	if err := a.Own(newLog(t, 3)); err == nil {
		t.Error("there are two logs to write")
	}
}

// Chunks that are on their way to the disk are not stored again, either.
func TestWhatRepeatsIsStoredOnce(t *testing.T) {
	log := newLog(t, 1)
	s := New(Options{ChunkSize: 256})
	must(t, s.Own(log))
	part := randomBytes(9, 300_000) // less than is appended at once
	data := bytes.Repeat(part, 20)
	ref := write(t, s, Ref{}, data)
	wantContent(t, s, ref, data)
	if got := log.ByteLength(); got > 1_500_000 {
		t.Errorf("%d bytes of which %d are different took %d", len(data), len(part), got)
	}
}
