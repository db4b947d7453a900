package hypercore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A model is what a log should be: a slice.
type model struct {
	blocks [][]byte
	held   []bool
	fork   uint64
}

func (m *model) clone() model {
	return model{append([][]byte(nil), m.blocks...), append([]bool(nil), m.held...), m.fork}
}

func randomBlock(rng *rand.Rand) []byte {
	size := rng.IntN(60)
	switch rng.IntN(12) {
	case 0:
		size = 900 + rng.IntN(300) // about where blocks leave their page
	case 1:
		size = 16<<10 - 20 + rng.IntN(40) // about where they leave the database
	case 2:
		size = 0
	}
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// check compares the log with the model.
func (m *model) check(t *testing.T, l *Log) {
	t.Helper()
	ctx := context.Background()
	if got, want := l.Length(), uint64(len(m.blocks)); got != want {
		t.Fatalf("length %d, want %d", got, want)
	}
	if l.Fork() != m.fork {
		t.Fatalf("fork %d, want %d", l.Fork(), m.fork)
	}
	var all []byte
	contiguous := uint64(0)
	for i, block := range m.blocks {
		got, err := l.Get(ctx, uint64(i))
		if m.held[i] {
			if err != nil || !bytes.Equal(got, block) {
				t.Fatalf("block %d: %d bytes, %v, want %d bytes", i, len(got), err, len(block))
			}
			if contiguous == uint64(i) {
				contiguous++
			}
		} else if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrTruncated) {
			t.Fatalf("block %d, which was cleared: %v, %v", i, got, err)
		}
		if l.Has(uint64(i)) != m.held[i] {
			t.Fatalf("has %d: %v, want %v", i, l.Has(uint64(i)), m.held[i])
		}
		all = append(all, block...)
	}
	if l.Contiguous() != contiguous {
		t.Fatalf("contiguous %d, want %d", l.Contiguous(), contiguous)
	}
	if l.ByteLength() != uint64(len(all)) {
		t.Fatalf("byte length %d, want %d", l.ByteLength(), len(all))
	}
	if contiguous == uint64(len(m.blocks)) {
		got, err := io.ReadAll(l.NewReader(ctx))
		if err != nil || !bytes.Equal(got, all) {
			t.Fatalf("the bytes of the log differ: %d, %v, want %d", len(got), err, len(all))
		}
	}
	for p, err := range l.Audit(ctx) {
		t.Fatalf("audit: %v, %v", p, err)
	}
}

// memFS is a disk in memory. With the race detector, that of pebble overwrites
// what it is given to write, which others may be reading: it gets copies.
type memFS struct{ vfs.FS }

func (m memFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := m.FS.Create(name, c)
	return memFile{f}, err
}

type memFile struct{ vfs.File }

func (f memFile) Write(p []byte) (int, error) { return f.File.Write(bytes.Clone(p)) }

// modelStore is a store that can be closed and opened again.
type modelStore struct {
	open func() (storage.Engine, error)
	s    *storage.Store
}

func (m *modelStore) reopen(t *testing.T) {
	t.Helper()
	if m.s != nil {
		if err := m.s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	e, err := m.open()
	if err != nil {
		t.Fatal(err)
	}
	// A tiny cache: pages come and go.
	if m.s, err = storage.Open(e, storage.Options{CacheBytes: 20 << 10}); err != nil {
		t.Fatal(err)
	}
}

// TestLogEqualsSlice makes random changes to a log and to a slice: append,
// truncate, clear, snapshots, drafts, closing and opening again, encrypted and
// not, on disk and in memory.
func TestLogEqualsSlice(t *testing.T) {
	seeds := uint64(12)
	if os.Getenv("BEVY_LONG") != "" {
		seeds = 1500
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testLogEqualsSlice(t, seed) })
	}
}

func testLogEqualsSlice(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 11))
	ctx := context.Background()
	st := &modelStore{}
	if seed%3 == 0 {
		e := storage.NewMemory()
		st.open = func() (storage.Engine, error) { return e, nil }
	} else {
		st.open = storage.Disk{Dir: "store", FS: memFS{vfs.NewMem()}}.Open
	}
	st.reopen(t)
	kp := keyPairN(byte(seed))
	o := Options{KeyPair: &kp, Compat: seed%5 == 0}
	if seed%2 == 0 {
		o.Session.EncryptionKey = &[32]byte{byte(seed)}
	}
	open := func() *Log {
		l, err := Open(st.s, o)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	m := &model{}
	type snap struct {
		l *Log
		m model
	}
	var snaps []snap
	var draft *Log
	var dm model
	base, stale := 0, false // of the draft
	closeSnaps := func() {
		for _, s := range snaps {
			if err := s.l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		snaps = nil
	}
	appendTo := func(l *Log, m *model) {
		var blocks [][]byte
		n := 1
		if rng.IntN(3) == 0 {
			n = rng.IntN(150)
		}
		for range n {
			blocks = append(blocks, randomBlock(rng))
		}
		length, err := l.AppendWith(ctx, AppendOptions{Durability: Durability(rng.IntN(2))}, blocks...)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			m.blocks, m.held = append(m.blocks, b), append(m.held, true)
		}
		if length != uint64(len(m.blocks)) {
			t.Fatalf("append returns length %d, want %d", length, len(m.blocks))
		}
	}
	for step := range 60 {
		switch k := rng.IntN(20); {
		case k < 8:
			appendTo(l, m)
		case k < 10:
			n := rng.IntN(len(m.blocks) + 1)
			if rng.IntN(2) == 0 {
				n = max(0, len(m.blocks)-rng.IntN(5))
			}
			err := l.Truncate(ctx, uint64(n), TruncateOptions{})
			if errors.Is(err, merkle.ErrNoNode) && !m.held[n-1] {
				continue // among pages that were cleared
			}
			if err != nil {
				t.Fatal(err)
			}
			stale = stale || n < base
			m.blocks, m.held, m.fork = m.blocks[:n:n], m.held[:n:n], m.fork+1
		case k < 12:
			if len(m.blocks) == 0 {
				continue
			}
			from := rng.IntN(len(m.blocks))
			to := from + 1
			if rng.IntN(2) == 0 {
				to = from + rng.IntN(len(m.blocks)-from+10)
			}
			if _, err := l.Clear(ctx, uint64(from), uint64(to)); err != nil {
				t.Fatal(err)
			}
			m.held = append([]bool(nil), m.held...)
			for i := from; i < min(to, len(m.held)); i++ {
				m.held[i] = false
			}
		case k < 14:
			n := uint64(len(m.blocks))
			if rng.IntN(2) == 0 {
				n = rng.Uint64N(n + 1)
			}
			s, err := l.Checkout(n)
			if errors.Is(err, merkle.ErrNoNode) && !m.held[n-1] {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			c := m.clone()
			snaps = append(snaps, snap{s, model{c.blocks[:n:n], c.held[:n:n], c.fork}})
		case k < 15 && len(snaps) > 0:
			closeSnaps()
		case k < 17:
			closeSnaps()
			if draft != nil {
				if err := draft.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if seed%3 != 0 {
				st.reopen(t)
			}
			l = open()
			if draft != nil {
				var err error
				if draft, err = l.Draft(ctx, "d"); err != nil {
					t.Fatal(err)
				}
			}
		case draft == nil:
			var err error
			if draft, err = l.Draft(ctx, "d"); err != nil {
				t.Fatal(err)
			}
			dm, base, stale = m.clone(), len(m.blocks), false
		case stale:
			// Unless the very same blocks were appended again.
			same := len(m.blocks) >= base
			for i := 0; same && i < base; i++ {
				same = bytes.Equal(m.blocks[i], dm.blocks[i])
			}
			if _, err := draft.Append(ctx, nil, nil); !errors.Is(err, ErrConflict) && !same {
				t.Fatalf("append to a draft of what is no more: %v", err)
			}
			if _, err := l.CommitDraft(ctx, draft, AppendOptions{}); !same && !errors.Is(err, ErrConflict) {
				t.Fatalf("commit of a draft of what is no more: %v", err)
			} else if err == nil {
				return // the model does not follow here
			}
			if err := draft.Discard(ctx); err != nil {
				t.Fatal(err)
			}
			draft = nil
		case k == 18:
			appendTo(draft, &dm)
			if rng.IntN(4) == 0 {
				n := rng.IntN(len(dm.blocks) + 1)
				err := draft.Truncate(ctx, uint64(n), TruncateOptions{})
				if errors.Is(err, ErrConflict) || errors.Is(err, merkle.ErrNoNode) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				dm.blocks, dm.held, base = dm.blocks[:n:n], dm.held[:n:n], min(base, n)
			}
		case k == 19:
			// It works when nothing was appended to the log since.
			before := uint64(len(m.blocks))
			n, err := l.CommitDraft(ctx, draft, AppendOptions{})
			if before == uint64(base) && err != nil {
				t.Fatal(err)
			}
			if err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, merkle.ErrNoNode) {
				t.Fatal(err)
			}
			if err == nil && n != uint64(len(dm.blocks)) {
				t.Fatalf("commit draft: length %d, want %d", n, len(dm.blocks))
			}
			if err == nil {
				for i := before; i < n; i++ {
					m.blocks, m.held = append(m.blocks, dm.blocks[i]), append(m.held, true)
				}
			}
			if err := draft.Discard(ctx); err != nil {
				t.Fatal(err)
			}
			draft = nil
		}
		if step%10 == 9 {
			m.check(t, l)
			for _, s := range snaps {
				s.m.check(t, s.l)
			}
		}
	}
	m.check(t, l)
	closeSnaps()
	if draft != nil {
		if err := draft.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if seed%3 != 0 {
		st.reopen(t)
		l = open()
		m.check(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.s.Close(); err != nil {
		t.Fatal(err)
	}
}
