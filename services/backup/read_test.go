package backup

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/runs"
)

func blocks(list ...runs.Range) *runs.Set {
	var s runs.Set
	for _, r := range list {
		s.Add(r)
	}
	return &s
}

// A meter counts what is read of a remote.
type meter struct {
	*shelf
	bytes int64
	reads int
}

func (m *meter) GetRange(ctx context.Context, name string, at, n int64) ([]byte, error) {
	b, err := m.shelf.GetRange(ctx, name, at, n)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes, m.reads = m.bytes+int64(len(b)), m.reads+1
	return b, err
}

func (r *rig) reader() (*Reader, *meter) {
	r.t.Helper()
	m := &meter{shelf: r.shelf}
	repo, err := Open(r.t.Context(), m, unseal, Options{Clock: r.clock})
	if err != nil {
		r.t.Fatal(err)
	}
	return repo.Reader(), m
}

// contents reads all blocks of a log.
func (r *rig) contents(log int) (all [][]byte) {
	r.t.Helper()
	for i := range r.logs[log].Length() {
		b, err := r.logs[log].Get(r.t.Context(), i)
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func (r *rig) clear(log int, from, end uint64) {
	r.t.Helper()
	if _, err := r.logs[log].Clear(r.t.Context(), from, end); err != nil {
		r.t.Fatal(err)
	}
}

func TestBlocksAreReadThrough(t *testing.T) {
	r := newRig(t, 1, 2)
	r.append(0, 300, 20<<10)
	r.run()
	r.append(0, 100, 300)
	r.run()
	want := r.contents(0)
	r.clear(0, 0, 400)
	a, m := r.reader()
	if err := a.Bring(t.Context(), r.logs[0], blocks(runs.Range{Start: 200, End: 201}, runs.Range{Start: 390, End: 392})); err != nil {
		t.Fatal(err)
	}
	if m.bytes > 3<<20 {
		t.Errorf("%d bytes were read for three blocks", m.bytes)
	}
	for _, i := range []uint64{200, 390, 391} {
		if b, err := r.logs[0].Get(t.Context(), i); err != nil || !bytes.Equal(b, want[i]) {
			t.Errorf("block %d: %v", i, err)
		}
	}
	if r.logs[0].Has(0) {
		t.Error("what is far away came as well")
	}
	// Many at once want the same.
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := a.Bring(t.Context(), r.logs[0], blocks(runs.Range{Start: 0, End: 400})); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if m.bytes > 9<<20 {
		t.Errorf("%d bytes were read of 6 MiB", m.bytes)
	}
	for i, w := range want {
		if b, err := r.logs[0].Get(t.Context(), uint64(i)); err != nil || !bytes.Equal(b, w) {
			t.Errorf("block %d: %v", i, err)
		}
	}
	// What is in no snapshot is not found; with the next one it is.
	r.append(0, 1, 10)
	r.clear(0, 400, 401)
	if err := a.Bring(t.Context(), r.logs[0], blocks(runs.Range{Start: 400, End: 401})); !errors.Is(err, ErrNotFound) {
		t.Errorf("what was not backed up: %v", err)
	}
	// What else is wanted comes all the same.
	r.clear(0, 7, 8)
	if err := a.Bring(t.Context(), r.logs[0], blocks(runs.Range{Start: 7, End: 8}, runs.Range{Start: 400, End: 401})); !errors.Is(err, ErrNotFound) || !r.logs[0].Has(7) {
		t.Errorf("a block that is there, and one that is not: %v", err)
	}
	if err := a.Bring(t.Context(), r.logs[1], blocks(runs.Range{Start: 0, End: 1})); !errors.Is(err, ErrNotFound) {
		t.Errorf("of an empty log: %v", err)
	}
	r.append(1, 1, 10)
	r.run()
	r.clear(1, 0, 1)
	r.clock.Advance(2 * freshFor)
	if err := a.Bring(t.Context(), r.logs[1], blocks(runs.Range{Start: 0, End: 1})); err != nil {
		t.Errorf("a snapshot that is newer: %v", err)
	}
}

// The nodes of what was cleared are gone, too, and the log grows on.
func TestALogThatHasGrownIsReadThrough(t *testing.T) {
	r := newRig(t, 6, 1)
	r.append(0, 1000, 50)
	r.run()
	want := r.contents(0)
	r.clear(0, 0, 1000)
	for _, n := range []int{1, 23, 3000} {
		r.append(0, n, 50)
		a, _ := r.reader()
		for _, i := range []uint64{0, 700, 992, 999} {
			if err := a.Bring(t.Context(), r.logs[0], blocks(runs.Range{Start: i, End: i + 1})); err != nil {
				t.Fatalf("with %d blocks: %v", r.logs[0].Length(), err)
			}
			if b, err := r.logs[0].Get(t.Context(), i); err != nil || !bytes.Equal(b, want[i]) {
				t.Errorf("block %d: %v", i, err)
			}
		}
		r.clear(0, 0, 1000)
	}
}

// A machine that never had the blocks has not the nodes either that they are proven
// by.
func TestWhatWasNeverHereIsReadThrough(t *testing.T) {
	r := newRig(t, 2, 1)
	for range 9 {
		r.append(0, 37, 100)
		r.run()
	}
	want := r.contents(0)
	for _, marked := range []bool{true, false} {
		other := newStore(t)
		key := r.logs[0].Key()
		log, err := other.Get(corestore.LogOptions{Key: &key})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		p, err := r.logs[0].Prove(t.Context(), merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: r.logs[0].Length()}}, true)
		if err != nil {
			t.Fatal(err)
		}
		if errs, err := log.Apply(t.Context(), hypercore.Soon, p); err != nil || errs[0] != nil {
			t.Fatal(err, errs)
		}
		a, _ := r.reader()
		if !marked { // of a program that knew none
			if err := a.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, l := range a.logs[r.logs[0].Key()] {
				for i := range l.log.Pieces {
					l.log.Pieces[i].Marks = nil
				}
			}
		}
		for _, i := range []uint64{5, 100, 40, 332, 0, 331} {
			if err := a.Bring(t.Context(), log, blocks(runs.Range{Start: i, End: i + 1})); err != nil {
				t.Fatal(err)
			}
			if b, err := log.Get(t.Context(), i); err != nil || !bytes.Equal(b, want[i]) {
				t.Errorf("block %d: %v", i, err)
			}
		}
	}
}

func TestAReaderBelievesNothing(t *testing.T) {
	r := newRig(t, 3, 1)
	r.append(0, 40, 10<<10)
	r.run()
	want := r.contents(0)
	a, _ := r.reader()
	whole := blocks(runs.Range{Start: 0, End: 40})
	if err := a.Check(t.Context(), r.logs[0], whole); err != nil {
		t.Fatal(err)
	}
	wrongs, places := 0, 15
	if os.Getenv("BEVY_LONG") != "" {
		places = 1000
	}
	for name, b := range r.shelf.all {
		if !strings.HasPrefix(name, packPrefix) {
			continue
		}
		for at := range places {
			wrong := bytes.Clone(b)
			wrong[headBytes+at*(len(b)-headBytes-16)/places] ^= 0x10
			if at%5 == 4 {
				wrong = wrong[:len(b)*at/places]
			}
			r.shelf.all[name] = wrong
			a, _ := r.reader()
			checked := a.Check(t.Context(), r.logs[0], whole)
			if checked != nil && !errors.Is(checked, ErrKey) && !errors.Is(checked, ErrNotFound) {
				t.Fatalf("byte %d: %v", at, checked)
			}
			if checked != nil {
				wrongs++
			}
			r.clear(0, 0, 40)
			a, _ = r.reader()
			if err := a.Bring(t.Context(), r.logs[0], whole); err != nil && checked == nil {
				t.Fatalf("byte %d of %d was changed, and all is well, but for: %v", at, places, err)
			}
			for i := range uint64(40) {
				if !r.logs[0].Has(i) {
					continue
				}
				if got, err := r.logs[0].Get(t.Context(), i); err != nil || !bytes.Equal(got, want[i]) {
					t.Fatalf("byte %d: block %d is wrong: %v", at, i, err)
				}
			}
			r.shelf.all[name] = b
			b2, _ := r.reader()
			if err := b2.Bring(t.Context(), r.logs[0], whole); err != nil {
				t.Fatal(err)
			}
		}
		if wrongs < places*9/10 {
			t.Errorf("%d of %d changed bytes were seen", wrongs, places)
		}
		delete(r.shelf.all, name)
		gone, _ := r.reader()
		if err := gone.Check(t.Context(), r.logs[0], whole); !errors.Is(err, ErrNotFound) {
			t.Errorf("without its pack: %v", err)
		}
	}
}

// When a pack is lost, what comes after it stays where it is, and can be restored.
func TestALostPackLosesNothingElse(t *testing.T) {
	r := newRig(t, 4, 1)
	for range 6 {
		r.append(0, 9, 1000)
		r.run()
	}
	want := r.contents(0)
	s, err := r.repo.Snapshot(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	r.clear(0, 27, 45) // only there
	for _, n := range []int{0, 2} {
		delete(r.shelf.all, packName(s.Logs[0].Pieces[n].Pack))
	}
	if d := r.run(); d.Missing != 0 || d.Blocks != 18 {
		t.Errorf("%+v", d)
	}
	r.clock.Advance(100 * 24 * time.Hour)
	if _, err := r.repo.Prune(t.Context(), Keep{Days: 1}, false); err != nil {
		t.Fatal(err)
	}
	to := r.restored()
	key := r.logs[0].Key()
	l, err := to.Get(corestore.LogOptions{Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i, w := range want {
		if b, err := l.Get(t.Context(), uint64(i)); err != nil || !bytes.Equal(b, w) {
			t.Errorf("block %d: %v", i, err)
		}
	}
	a, _ := r.reader()
	if err := a.Bring(t.Context(), r.logs[0], blocks(runs.Range{Start: 27, End: 45})); err != nil {
		t.Error(err)
	}
}

// What a machine made without knowing of another's snapshot never costs that one's
// blocks.
func TestPruneKeepsWhatIsOnlyThere(t *testing.T) {
	r := newRig(t, 5, 2)
	r.append(0, 5, 100)
	r.append(1, 5, 100)
	r.run()
	r.append(0, 5, 100)
	second := r.run()
	// A third one that goes on from the first.
	mine := r.shelf.all[snapPrefix+second.Snapshot]
	r.clear(0, 5, 10)
	delete(r.shelf.all, snapPrefix+second.Snapshot)
	r.append(1, 1, 100)
	third := r.run()
	r.shelf.all[snapPrefix+second.Snapshot], r.shelf.times[snapPrefix+second.Snapshot] = mine, r.clock.Now()
	r.clock.Advance(48 * time.Hour)
	p, err := r.repo.Prune(t.Context(), Keep{}, false)
	if err != nil || len(p.Kept) != 2 || p.Kept[0] != second.Snapshot || p.Kept[1] != third.Snapshot {
		t.Fatalf("%+v: %v", p, err)
	}
	s, err := r.repo.Snapshot(t.Context(), second.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	to := newStore(t)
	if err := r.repo.Restore(t.Context(), s, to, nil); err != nil {
		t.Fatal(err)
	}
	// A log that was removed does not keep it.
	from := r.source()
	from.Logs, from.Gone = from.Logs[1:], map[hypercore.Key]bool{r.logs[0].Key(): true}
	r.append(1, 1, 100)
	r.clock.Advance(time.Hour)
	if _, err := r.repo.Run(t.Context(), from, nil); err != nil {
		t.Fatal(err)
	}
	if p, err := r.repo.Prune(t.Context(), Keep{}, false); err != nil || len(p.Kept) != 1 {
		t.Fatalf("%+v: %v", p, err)
	}
}

// The tree between two snapshots may be gone when the second is made.
func TestATreeThatWasClearedDoesNotEndBackups(t *testing.T) {
	r := newRig(t, 7, 1)
	r.append(0, 1000, 50)
	first := r.run()
	r.append(0, 2000, 50)
	r.clear(0, 0, 2900)
	r.run()
	r.restored()
	r.append(0, 10, 50)
	r.run()
	r.restored()
	p, err := r.repo.Prune(t.Context(), Keep{}, false)
	if err != nil || len(p.Kept) != 2 || p.Kept[0] != first.Snapshot {
		t.Errorf("%+v: %v", p, err)
	}
}
