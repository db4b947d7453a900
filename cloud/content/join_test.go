package content

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

func TestJoinedContentsAreTheirBytesAndNothingIsStoredAgain(t *testing.T) {
	ctx := t.Context()
	s := newStore(t, Options{})
	hold := s.Hold()
	defer hold.Release()
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	same := random(3 << 20)
	for _, parts := range [][][]byte{
		{random(10), random(20)},
		{random(0), random(0)},
		{random(100_000), random(0), random(7)},
		{random(5 << 20), random(5 << 20), random(1)},
		{same, same, same, same},
		{make([]byte, 2<<20), make([]byte, 2<<20)},
	} {
		var refs []Ref
		for _, p := range parts {
			ref, err := hold.Put(ctx, p)
			must(t, err)
			refs = append(refs, ref)
		}
		all := bytes.Join(parts, nil)
		before := s.own.log.ByteLength()
		w := hold.NewWriter(ctx, WriteOptions{})
		var seen bytes.Buffer
		for _, r := range refs {
			must(t, w.AppendRef(r, &seen))
		}
		must(t, w.Close())
		name := fmt.Sprintf("%d parts of %d bytes", len(parts), len(all))
		if stored := s.own.log.ByteLength() - before; stored > 1000+uint64(len(all))/200 {
			t.Errorf("%s: %d bytes were stored", name, stored)
		}
		if got := w.Ref(); got.Size != int64(len(all)) || got.Hash != hashOf(all) {
			t.Errorf("%s: it has %d bytes, or another hash", name, got.Size)
		}
		if !bytes.Equal(seen.Bytes(), all) {
			t.Errorf("%s: other bytes were seen", name)
		}
		r, err := s.NewReader(ctx, w.Ref())
		must(t, err)
		got, err := io.ReadAll(r)
		must(t, err)
		if !bytes.Equal(got, all) {
			t.Errorf("%s: other bytes are read", name)
		}
		if _, err := s.Verify(ctx, w.Ref()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is written around it is there, too.
	ref, err := hold.Put(ctx, same)
	must(t, err)
	w := hold.NewWriter(ctx, WriteOptions{})
	_, err = w.Write([]byte("before"))
	must(t, err)
	must(t, w.AppendRef(ref, nil))
	_, err = w.Write([]byte("behind"))
	must(t, err)
	must(t, w.Close())
	if got, want := w.Ref().Hash, hashOf(append(append([]byte("before"), same...), "behind"...)); got != want {
		t.Error("what is written around a joined content makes another hash")
	}
}
