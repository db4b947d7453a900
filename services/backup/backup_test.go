package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/runs"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// A shelf is a remote in memory that fails when it is told to.
type shelf struct {
	mu    sync.Mutex
	clock clock.Clock
	all   map[string][]byte
	times map[string]time.Time
	left  int // calls that change something before it breaks; -1 is no end
	calls int
	gets  int
	deaf  bool // nothing can be read
}

func newShelf(c clock.Clock) *shelf {
	return &shelf{clock: c, all: map[string][]byte{}, times: map[string]time.Time{}, left: -1}
}

var errBroken = errors.New("the remote is broken")

func (s *shelf) change() error {
	s.calls++
	if s.left == 0 {
		return errBroken
	}
	if s.left > 0 {
		s.left--
	}
	return nil
}

func (s *shelf) Put(_ context.Context, name string, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.change(); err != nil {
		return err
	}
	s.all[name], s.times[name] = bytes.Clone(b), s.clock.Now()
	return nil
}

func (s *shelf) Get(_ context.Context, name string, limit int64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gets++; s.deaf {
		return nil, errBroken
	}
	b, ok := s.all[name]
	if !ok {
		return nil, ErrNotFound
	}
	if int64(len(b)) > limit {
		return nil, errors.New("too large")
	}
	return bytes.Clone(b), nil
}

func (s *shelf) GetRange(ctx context.Context, name string, at, n int64) ([]byte, error) {
	b, err := s.Get(ctx, name, 1<<40)
	if err == nil {
		b = b[min(at, int64(len(b))):min(at+n, int64(len(b)))]
	}
	return b, err
}

func (s *shelf) List(_ context.Context, prefix string) (items []Item, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.all)) {
		if strings.HasPrefix(name, prefix) {
			items = append(items, Item{name, int64(len(s.all[name])), s.times[name]})
		}
	}
	return items, nil
}

func (s *shelf) Delete(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.change(); err != nil {
		return err
	}
	delete(s.all, name)
	return nil
}

// A rig is a store with logs, and a repository of it.
type rig struct {
	t     *testing.T
	clock *clock.Fake
	store *corestore.Store
	logs  []*hypercore.Log
	shelf *shelf
	repo  *Repo
	rand  *rand.Rand
}

func newStore(t *testing.T) *corestore.Store {
	t.Helper()
	s, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func seal(b []byte) ([]byte, error) { return append([]byte("sealed:"), b...), nil }

func unseal(b []byte) ([]byte, bool) { return bytes.CutPrefix(b, []byte("sealed:")) }

func newRig(t *testing.T, seed uint64, logs int) *rig {
	t.Helper()
	r := &rig{t: t, clock: clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)), store: newStore(t), rand: rand.New(rand.NewPCG(seed, 7))}
	r.shelf = newShelf(r.clock)
	for i := range logs {
		l, err := r.store.Get(corestore.LogOptions{Name: fmt.Sprint("log ", i)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		r.logs = append(r.logs, l)
	}
	var err error
	if r.repo, err = Create(t.Context(), r.shelf, "a cloud", seal, Options{Clock: r.clock}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) source() Source {
	s := Source{Store: r.store, Root: []byte(`{"root":true}`), Device: "laptop"}
	for _, l := range r.logs {
		s.Logs = append(s.Logs, l.Key())
	}
	return s
}

func (r *rig) append(log, n, size int) {
	r.t.Helper()
	blocks := make([][]byte, n)
	for i := range blocks {
		blocks[i] = make([]byte, size)
		for j := 0; j < size; j += 97 {
			blocks[i][j] = byte(r.rand.Uint32())
		}
	}
	if _, err := r.logs[log].Append(r.t.Context(), blocks...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) run() Done {
	r.t.Helper()
	r.clock.Advance(time.Minute)
	d, err := r.repo.Run(r.t.Context(), r.source(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// restored restores the newest snapshot by what an owner has, and compares all
// that the store still has.
func (r *rig) restored() *corestore.Store {
	r.t.Helper()
	repo, err := Open(r.t.Context(), r.shelf, unseal, Options{Clock: r.clock})
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := repo.Snapshot(r.t.Context(), "")
	if err != nil {
		r.t.Fatal(err)
	}
	to := newStore(r.t)
	if err := repo.Restore(r.t.Context(), s, to, nil); err != nil {
		r.t.Fatal(err)
	}
	if string(s.Root) != `{"root":true}` {
		r.t.Errorf("root %s", s.Root)
	}
	for i, l := range r.logs {
		if l.Length() > 0 {
			r.equal(i, to, 0, l.Length())
		}
	}
	return to
}

// equal compares blocks of a log with those of another store, where they are held.
func (r *rig) equal(log int, to *corestore.Store, from, end uint64) {
	r.t.Helper()
	key := r.logs[log].Key()
	got, err := to.Get(corestore.LogOptions{Key: &key, MustExist: true})
	if err != nil {
		r.t.Fatal(err)
	}
	defer got.Close()
	for i := from; i < end; i++ {
		if h, ok := r.logs[log].NextHeld(i); !ok || h.Start > i {
			continue
		}
		a, err := r.logs[log].Get(r.t.Context(), i)
		if err != nil {
			r.t.Fatal(err)
		}
		if b, err := got.Get(r.t.Context(), i); err != nil || !bytes.Equal(a, b) {
			r.t.Fatalf("log %d block %d: %v", log, i, err)
		}
	}
}

func TestASnapshotIsRestored(t *testing.T) {
	r := newRig(t, 1, 3)
	r.append(0, 10, 100)
	r.append(1, 20, 1<<20) // more than one pack
	d := r.run()
	if !d.New || d.Blocks != 30 || d.Missing != 0 {
		t.Errorf("%+v", d)
	}
	r.restored()
	if again := r.run(); again.New || again.Bytes != 0 || again.Snapshot != d.Snapshot {
		t.Errorf("with nothing new: %+v", again)
	}
	r.append(0, 1, 100)
	r.append(2, 1, 100)
	if d := r.run(); d.Blocks != 2 || d.Bytes > 8<<10 {
		t.Errorf("with two new blocks: %+v", d)
	}
	r.restored()
	// What is cleared here stays there.
	if _, err := r.logs[1].Clear(t.Context(), 5, 10); err != nil {
		t.Fatal(err)
	}
	r.append(1, 1, 10)
	r.run()
	to := r.restored()
	key := r.logs[1].Key()
	l, err := to.Get(corestore.LogOptions{Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Get(t.Context(), 7); err != nil {
		t.Errorf("a block that was cleared after the first snapshot: %v", err)
	}
	for name, b := range r.shelf.all {
		if bytes.Contains(b, []byte(key.String())) || name != configName && !bytes.HasPrefix(b, []byte(magic)) {
			t.Errorf("%s is not encrypted", name)
		}
	}
}

func TestSmallPiecesArePutTogether(t *testing.T) {
	r := newRig(t, 2, 1)
	for range 3 * manyPieces {
		r.append(0, 2, 50)
		r.run()
	}
	r.restored()
	s, err := r.repo.Snapshot(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.Logs[0].Pieces); n > manyPieces {
		t.Errorf("%d pieces", n)
	}
	// Those with blocks that are not here any more can't be.
	if _, err := r.logs[0].Clear(t.Context(), 3, 4); err != nil {
		t.Fatal(err)
	}
	for range manyPieces + 2 {
		r.append(0, 1, 50)
		r.run()
	}
	to := r.restored()
	key := r.logs[0].Key()
	l, err := to.Get(corestore.LogOptions{Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Get(t.Context(), 3); err != nil {
		t.Errorf("the block that was cleared: %v", err)
	}
}

// Whatever breaks at whatever point, the newest snapshot can be restored, and the
// next run makes a whole one.
func TestItMayBreakAtAnyPoint(t *testing.T) {
	seeds := uint64(2)
	if os.Getenv("BEVY_LONG") != "" {
		seeds = 10
	}
	for seed := range seeds {
		r := newRig(t, seed, 3)
		have := map[int]uint64{} // by the newest snapshot
		for step := range 25 {
			r.append(r.rand.IntN(3), 1+r.rand.IntN(5), 1+r.rand.IntN(200))
			if r.rand.IntN(25) == 0 {
				r.append(1, 3, 7<<20)
			}
			r.clock.Advance(time.Duration(r.rand.IntN(20)) * time.Hour)
			r.shelf.left = r.rand.IntN(4) - 1
			if r.rand.IntN(3) == 0 {
				if _, err := r.repo.Prune(t.Context(), Keep{Days: 2}, false); err != nil && !errors.Is(err, errBroken) && !errors.Is(err, ErrNotFound) {
					t.Fatal(err)
				}
			} else if _, err := r.repo.Run(t.Context(), r.source(), nil); err == nil {
				for i, l := range r.logs {
					have[i] = l.Length()
				}
			} else if !errors.Is(err, errBroken) {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			r.shelf.left = -1
			if len(have) == 0 || step%5 != 4 {
				continue
			}
			s, err := r.repo.Snapshot(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			to := newStore(t)
			if err := r.repo.Restore(t.Context(), s, to, nil); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			for i, n := range have {
				if n > 0 {
					r.equal(i, to, 0, n)
				}
			}
		}
		r.run()
		r.restored()
	}
}

func TestWhatIsWrongIsFoundAndSentAgain(t *testing.T) {
	r := newRig(t, 3, 2)
	r.append(0, 5, 100)
	r.append(1, 20, 1<<20)
	r.run()
	s, err := r.repo.Snapshot(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	verify := func(read bool) Checked {
		t.Helper()
		var scratch *corestore.Store
		if read {
			scratch = newStore(t)
		}
		c, err := r.repo.Verify(t.Context(), s, scratch, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := verify(true); !c.Read || c.Problem != "" || len(c.Wrong) > 0 || c.Packs != len(s.Packs) || c.Packs < 2 {
		t.Errorf("when all is well: %+v", c)
	}
	id := s.Logs[1].Pieces[0].Pack
	b := r.shelf.all[packName(id)]
	b[len(b)/2] ^= 1
	if c := verify(false); len(c.Wrong) != 0 {
		t.Errorf("without reading: %+v", c)
	}
	if c := verify(true); c.Problem == "" {
		t.Errorf("a changed byte was not found: %+v", c)
	}
	if err := r.repo.Restore(t.Context(), s, newStore(t), nil); !errors.Is(err, ErrKey) {
		t.Errorf("restore from it: %v", err)
	}
	// A pack in the place of another one is found, too.
	other := s.Logs[1].Pieces[len(s.Logs[1].Pieces)-1].Pack
	r.shelf.all[packName(id)] = r.shelf.all[packName(other)]
	if err := r.repo.Restore(t.Context(), s, newStore(t), nil); !errors.Is(err, ErrKey) {
		t.Errorf("restore from another pack: %v", err)
	}
	delete(r.shelf.all, packName(id))
	if c := verify(true); len(c.Wrong) != 1 || c.Wrong[0] != id {
		t.Errorf("a missing pack: %+v", c)
	}
	if d := r.run(); !d.New || d.Blocks == 0 {
		t.Errorf("the run after that: %+v", d)
	}
	r.restored()
}

func TestPruneKeepsWhatItSays(t *testing.T) {
	r := newRig(t, 4, 1)
	for range 60 {
		r.append(0, 1, 100)
		r.run()
		r.clock.Advance(12 * time.Hour)
	}
	names, err := r.repo.Snapshots(t.Context())
	if err != nil || len(names) != 60 {
		t.Fatal(len(names), err)
	}
	keep := Keep{Days: 3, Weeks: 2, Months: 2}
	dry, err := r.repo.Prune(t.Context(), keep, true)
	if err != nil {
		t.Fatal(err)
	}
	done, err := r.repo.Prune(t.Context(), keep, false)
	if err != nil || fmt.Sprint(dry) != fmt.Sprint(done) {
		t.Errorf("it removed %v and would have %v: %v", done, dry, err)
	}
	left, err := r.repo.Snapshots(t.Context())
	if err != nil || !slices.Equal(left, done.Kept) || len(left) > 7 || len(left) < 4 || left[len(left)-1] != names[59] {
		t.Errorf("left: %v, %v", left, err)
	}
	for _, name := range left {
		s, err := r.repo.Snapshot(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.repo.Restore(t.Context(), s, newStore(t), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if done.Packs == 0 {
		t.Error("no pack was removed, though small ones were put together")
	}
}

func TestTwoDevicesGoOnFromEachOther(t *testing.T) {
	a, b := newRig(t, 5, 1), newRig(t, 6, 2)
	b.shelf = a.shelf
	var err error
	if b.repo, err = Open(t.Context(), a.shelf, WithKey(a.repo.Key()), Options{Clock: b.clock}); err != nil {
		t.Fatal(err)
	}
	a.append(0, 3, 10)
	b.append(0, 3, 10)
	a.run()
	b.run()
	a.append(0, 3, 10)
	a.run()
	a.restored()
	b.restored()
	s, err := a.repo.Snapshot(t.Context(), "")
	if err != nil || len(s.Logs) != 3 {
		t.Fatalf("%d logs: %v", len(s.Logs), err)
	}
	// A log whose space was removed is not gone on with.
	from := a.source()
	from.Gone = map[hypercore.Key]bool{b.logs[0].Key(): true}
	a.append(0, 1, 10)
	if _, err := a.repo.Run(t.Context(), from, nil); err != nil {
		t.Fatal(err)
	}
	if s, err = a.repo.Snapshot(t.Context(), ""); err != nil || len(s.Logs) != 2 {
		t.Fatalf("%d logs: %v", len(s.Logs), err)
	}
}

func TestWrongRepositoriesAreRefused(t *testing.T) {
	r := newRig(t, 7, 1)
	if _, err := Create(t.Context(), r.shelf, "x", seal, Options{}); !errors.Is(err, ErrExists) {
		t.Errorf("create it twice: %v", err)
	}
	if _, err := Open(t.Context(), newShelf(r.clock), unseal, Options{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("open none: %v", err)
	}
	if _, err := Open(t.Context(), r.shelf, func([]byte) ([]byte, bool) { return nil, false }, Options{}); !errors.Is(err, ErrKey) {
		t.Errorf("open with another seed: %v", err)
	}
	if _, err := r.repo.Snapshot(t.Context(), ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("the snapshot of none: %v", err)
	}
	if _, err := r.repo.Snapshot(t.Context(), "../x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a wrong name: %v", err)
	}
	r.append(0, 1, 1)
	r.run()
	other, err := Open(t.Context(), r.shelf, WithKey(make([]byte, keyBytes)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Snapshot(t.Context(), ""); !errors.Is(err, ErrKey) {
		t.Errorf("a snapshot with another key: %v", err)
	}
	r.shelf.all[configName] = bytes.Replace(r.shelf.all[configName], []byte(`"version": 1`), []byte(`"version": 2`), 1)
	if _, err := Open(t.Context(), r.shelf, unseal, Options{}); !errors.Is(err, ErrVersion) {
		t.Errorf("a later version: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	s := Snapshot{Version: version, Packs: map[string]int64{strings.Repeat("a", 32): 10}, Logs: []Log{{Length: 3, Pieces: []Piece{{Pack: strings.Repeat("a", 32), Size: 10, Length: 3, Blocks: []Blocks{{0, 3}}, Marks: []Mark{{0, 4}, {2, 7}}}}}}}
	b, err := s.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decode(b); err == nil {
			for _, l := range s.Logs {
				all := &lookup{log: l, spans: l.spans()}
				for _, b := range covered(l.Pieces).ranges {
					// Each of its blocks is in a stretch of its piece.
					for _, i := range []uint64{b[0], b[1] - 1} {
						var one runs.Set
						one.Add(runs.Range{Start: i, End: i + 1})
						list, _, err := all.stretches(&one)
						if err != nil || len(list) != 1 || list[0].at < 0 || list[0].size <= 0 && l.Pieces[list[0].piece].Size > 0 || list[0].at+list[0].size > l.Pieces[list[0].piece].Size {
							t.Fatalf("block %d: %v, %v", i, list, err)
						}
					}
				}
			}
		}
	})
}
