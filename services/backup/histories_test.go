package backup

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/runs"
)

// second makes another repository of the rig's logs, on a shelf of its own.
func (r *rig) second() *Repo {
	r.t.Helper()
	repo, err := Create(r.t.Context(), newShelf(r.clock), "a cloud", seal, Options{Clock: r.clock})
	if err != nil {
		r.t.Fatal(err)
	}
	return repo
}

// runTo backs up to a repository, and copies from the rig's own.
func (r *rig) runTo(to *Repo) Done {
	r.t.Helper()
	r.clock.Advance(2 * freshFor)
	from := r.source()
	from.Elsewhere = []func(context.Context) (*Reader, error){func(context.Context) (*Reader, error) { return r.repo.Reader(), nil }}
	d, err := to.Run(r.t.Context(), from, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// bringsBack restores the newest snapshot of a repository, and compares a log.
func (r *rig) bringsBack(repo *Repo, log int, want [][]byte) {
	r.t.Helper()
	s, err := repo.Snapshot(r.t.Context(), "")
	if err != nil {
		r.t.Fatal(err)
	}
	to := newStore(r.t)
	if err := repo.Restore(r.t.Context(), s, to, nil); err != nil {
		r.t.Fatal(err)
	}
	holds(r.t, to, r.logs[log].Key(), want)
}

func holds(t *testing.T, s *corestore.Store, key hypercore.Key, want [][]byte) {
	t.Helper()
	l, err := s.Get(corestore.LogOptions{Key: &key, MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Length() != uint64(len(want)) {
		t.Errorf("%d blocks, not %d", l.Length(), len(want))
	}
	for i, w := range want {
		if !l.Has(uint64(i)) {
			t.Fatalf("block %d is not there", i)
		}
		if b, err := l.Get(t.Context(), uint64(i)); err != nil || !bytes.Equal(b, w) {
			t.Fatalf("block %d: %v", i, err)
		}
	}
}

// What only one backup has is in another one that is begun later.
func TestASecondBackupHasWhatOnlyTheFirstHas(t *testing.T) {
	r := newRig(t, 11, 2)
	r.append(0, 30, 400<<10) // more than is in memory at once
	r.append(1, 300, 100)
	r.run()
	want, small := r.contents(0), r.contents(1)
	r.clear(0, 3, 29)
	r.clear(1, 0, 250)
	// It grows, and the first one knows nothing of that.
	r.append(0, 2, 100)
	r.append(1, 40, 100)
	for i, all := range []*[][]byte{&want, &small} {
		for n := uint64(len(*all)); n < r.logs[i].Length(); n++ {
			b, err := r.logs[i].Get(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			*all = append(*all, b)
		}
	}

	to := r.second()
	r.shelf.deaf = true
	d := r.runTo(to)
	if d.Copied != 0 || d.Missing != 276 || len(d.Failed) != 1 || !errors.Is(d.Failed[0], errBroken) {
		t.Errorf("while the first does not answer: %+v", d)
	}
	r.shelf.deaf = false
	if d := r.runTo(to); d.Copied != 276 || d.Missing != 0 || d.Failed[0] != nil || !d.New {
		t.Errorf("%+v", d)
	}
	r.bringsBack(to, 0, want)
	r.bringsBack(to, 1, small)
	if d := r.runTo(to); d.New || d.Missing != 0 {
		t.Errorf("again: %+v", d)
	}
	for _, l := range r.logs {
		if l.Has(10) {
			t.Error("what was copied stayed here")
		}
	}
}

// A backup that was changed gives nothing that is wrong to another one.
func TestASecondBackupBelievesNothing(t *testing.T) {
	r := newRig(t, 12, 1)
	r.append(0, 40, 1000)
	r.run()
	want := r.contents(0)
	r.clear(0, 0, 40)
	for name, b := range r.shelf.all {
		if !strings.HasPrefix(name, packPrefix) {
			continue
		}
		for at := range 8 {
			r.shelf.all[name] = bytes.Clone(b)
			r.shelf.all[name][headBytes+at*(len(b)-headBytes-16)/8+100] ^= 1
			to := r.second()
			if d := r.runTo(to); d.Copied+d.Missing != 40 || d.Missing > 0 && (len(d.Failed) != 1 || d.Failed[0] == nil) {
				t.Errorf("%d: %+v", at, d)
			}
			s, err := to.Snapshot(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			store := newStore(t)
			if err := to.Restore(t.Context(), s, store, nil); err != nil {
				t.Fatal(err)
			}
			r.equal(0, store, 0, 40)
		}
		r.shelf.all[name] = b
	}
	to := r.second()
	r.runTo(to)
	r.bringsBack(to, 0, want)
}

// put makes a second store with a log as it was with some blocks, which goes on there
// by others.
func (r *rig) putBack(log int, length uint64, others ...string) (*rig, *hypercore.Log) {
	r.t.Helper()
	back := *r
	back.store = newStore(r.t)
	kp := r.logs[log].KeyPair()
	l, err := back.store.Get(corestore.LogOptions{Manifest: r.logs[log].Manifest(), KeyPair: &kp})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { l.Close() })
	for _, b := range r.contents(log)[:length] {
		others = slices.Insert(others, int(l.Length()), string(b))
		if _, err := l.Append(r.t.Context(), b); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, b := range others[length:] {
		if _, err := l.Append(r.t.Context(), []byte(b)); err != nil {
			r.t.Fatal(err)
		}
	}
	back.logs = slices.Clone(r.logs)
	back.logs[log] = l
	return &back, l
}

// A disk image was put back, and the log went on differently before it was backed up
// again. A backup keeps both, each as it was, and never a mixture.
func TestABackupNeverMixesTwoHistories(t *testing.T) {
	for what, others := range map[string][]string{
		"longer": {"x", "y", "z", "u", "v", "w", "more", "and more"},
		"equal":  {"x", "y", "z", "u", "v"},
		// Its end is what it was before.
		"shorter": {"x", "y"},
	} {
		for _, old := range []bool{false, true} {
			t.Run(what, func(t *testing.T) {
				r := newRig(t, 13, 1)
				r.append(0, 10, 100)
				r.run()
				r.append(0, 5, 100)
				first := r.run()
				if old { // by a program that knew no trees
					r.forgetTrees(first.Snapshot)
				}
				want := r.contents(0)
				back, _ := r.putBack(0, 10, slices.Clone(others)...)
				d := back.run()
				if !d.New || len(d.Behind) != 1 || d.Behind[0] != r.logs[0].Key() || d.Missing != 0 {
					t.Errorf("%+v", d)
				}
				if again := back.run(); again.New || len(again.Behind) != 0 && what != "shorter" {
					t.Errorf("again: %+v", again)
				}
				back.bringsBack(r.repo, 0, back.contents(0))
				r.clock.Advance(400 * 24 * time.Hour)
				if _, err := r.repo.Prune(t.Context(), Keep{}, false); err != nil {
					t.Fatal(err)
				}
				s, err := r.repo.Snapshot(t.Context(), first.Snapshot)
				if err != nil {
					t.Fatal(err)
				}
				to := newStore(t)
				if err := r.repo.Restore(t.Context(), s, to, nil); err != nil {
					t.Fatal(err)
				}
				holds(t, to, r.logs[0].Key(), want)
				// Each is read through, too.
				for _, who := range []*rig{r, back} {
					all := who.contents(0)
					who.clear(0, 0, uint64(len(all)))
					a := r.repo.Reader()
					if err := a.Bring(t.Context(), who.logs[0], blocks(runs.Range{End: uint64(len(all))})); err != nil {
						t.Error(err)
					}
					holds(t, who.store, who.logs[0].Key(), all)
				}
				// The log became what others had of it: the backup goes on from there.
				r.append(0, 1, 100)
				if d := r.run(); d.Blocks != 1 || d.Missing != 0 {
					t.Errorf("with its first history: %+v", d)
				}
				r.bringsBack(r.repo, 0, r.contents(0))
			})
		}
	}
}

// forgetTrees makes a snapshot what an older program would have written.
func (r *rig) forgetTrees(name string) {
	r.t.Helper()
	s, err := r.repo.Snapshot(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	s.Seen, s.Others = nil, nil
	for i := range s.Logs {
		s.Logs[i].Tree = nil
	}
	b, err := s.encode()
	if err == nil {
		_, err = r.repo.put(r.t.Context(), snapPrefix+name, b)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// Two machines made a snapshot at the same time. What only the earlier one has is
// found, is restored, and is in the next.
func TestWhatOnlyAnEarlierSnapshotHasIsFound(t *testing.T) {
	r := newRig(t, 14, 2)
	r.append(0, 5, 100)
	r.append(1, 5, 100)
	r.run()
	r.append(0, 5, 100)
	second := r.run()
	want := r.contents(0)
	mine := r.shelf.all[snapPrefix+second.Snapshot]
	r.clear(0, 5, 10)
	delete(r.shelf.all, snapPrefix+second.Snapshot)
	r.append(1, 1, 100)
	if d := r.run(); d.Missing != 5 {
		t.Fatalf("%+v", d)
	}
	r.shelf.all[snapPrefix+second.Snapshot], r.shelf.times[snapPrefix+second.Snapshot] = mine, r.clock.Now()
	a := r.repo.Reader()
	if err := a.Bring(t.Context(), r.logs[0], blocks(runs.Range{Start: 5, End: 10})); err != nil {
		t.Fatal(err)
	}
	holds(t, r.store, r.logs[0].Key(), want)
	r.clear(0, 5, 10)
	r.bringsBack(r.repo, 0, want)
	if d := r.run(); !d.New || d.Missing != 0 {
		t.Errorf("the next: %+v", d)
	}
	gets := r.shelf.gets
	if _, err := r.repo.Snapshot(t.Context(), ""); err != nil || r.shelf.gets != gets+1 {
		t.Errorf("%d snapshots were read again: %v", r.shelf.gets-gets, err)
	}
	r.bringsBack(r.repo, 0, want)
}

// Machines back up to one place at the same time, while one prunes and another reads.
func TestManyAtOneBackup(t *testing.T) {
	a, b := newRig(t, 15, 1), newRig(t, 16, 1)
	b.shelf, b.clock = a.shelf, a.clock
	var err error
	if b.repo, err = Open(t.Context(), a.shelf, WithKey(a.repo.Key()), Options{Clock: b.clock}); err != nil {
		t.Fatal(err)
	}
	a.append(0, 40, 200)
	a.run()
	a.run()
	kept := a.contents(0)
	a.clear(0, 0, 40)
	reader := a.repo.Reader()
	var all sync.WaitGroup
	for _, r := range []*rig{a, b} {
		all.Go(func() {
			for range 25 {
				if _, err := r.logs[0].Append(t.Context(), []byte("more"), []byte("and more")); err != nil {
					t.Error(err)
				}
				r.clock.Advance(8 * time.Hour)
				if _, err := r.repo.Run(t.Context(), r.source(), nil); err != nil && !strings.Contains(err.Error(), "run it again") && !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() {
		for range 25 {
			if _, err := b.repo.Prune(t.Context(), Keep{Days: 1}, false); err != nil && !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		}
	})
	all.Go(func() {
		for range 25 {
			if err := reader.Bring(t.Context(), a.logs[0], blocks(runs.Range{End: 40})); err != nil {
				t.Error(err)
			}
			if _, err := a.logs[0].Clear(t.Context(), 0, 40); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	a.run()
	b.run()
	b.bringsBack(b.repo, 0, b.contents(0))
	if err := reader.Bring(t.Context(), a.logs[0], blocks(runs.Range{End: 40})); err != nil {
		t.Fatal(err)
	}
	if got := a.contents(0)[:40]; !slices.EqualFunc(got, kept, bytes.Equal) {
		t.Error("what is read is not what was")
	}
	a.bringsBack(a.repo, 0, a.contents(0))
}

// What can't be had does not keep a restore from the rest; what is here already is not
// brought again.
func TestARestoreBringsWhatItCan(t *testing.T) {
	r := newRig(t, 17, 3)
	for i := range r.logs {
		r.append(i, 2, 4<<20+64<<10)
	}
	r.run()
	s, err := r.repo.Snapshot(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	pack := packName(s.Logs[1].Pieces[0].Pack)
	whole := r.shelf.all[pack]
	delete(r.shelf.all, pack)
	to := newStore(t)
	if err := r.repo.Restore(t.Context(), s, to, nil); !errors.Is(err, ErrNotFound) {
		t.Fatalf("without a pack: %v", err)
	}
	r.equal(2, to, 0, 2)
	r.shelf.all[pack] = whole
	r.shelf.gets = 0
	if err := r.repo.Restore(t.Context(), s, to, nil); err != nil {
		t.Fatal(err)
	}
	for i := range r.logs {
		r.equal(i, to, 0, 2)
	}
	if r.shelf.gets >= len(s.Packs) {
		t.Errorf("%d of %d packs were brought again", r.shelf.gets, len(s.Packs))
	}
}

// Of a pack that was changed, what is not is restored all the same.
func TestOneWrongByteCostsOneBlock(t *testing.T) {
	r := newRig(t, 18, 1)
	r.append(0, 3000, 1000)
	r.run()
	s, err := r.repo.Snapshot(t.Context(), "")
	if err != nil || len(s.Logs[0].Pieces) != 1 {
		t.Fatal(err)
	}
	pack := r.shelf.all[packName(s.Logs[0].Pieces[0].Pack)]
	for _, at := range []int{headBytes, headBytes + 8, headBytes + 20, len(pack) / 2, len(pack) - 1} {
		pack[at] ^= 1
		to := newStore(t)
		if err := r.repo.Restore(t.Context(), s, to, nil); !errors.Is(err, ErrKey) || !Partly(err) {
			t.Fatalf("byte %d: %v", at, err)
		}
		pack[at] ^= 1
		if at < headBytes+41 {
			for l, err := range to.Logs() {
				t.Errorf("byte %d: it made %v: %v", at, l, err)
			}
			continue
		}
		key := r.logs[0].Key()
		l, err := to.Get(corestore.LogOptions{Key: &key, MustExist: true})
		if err != nil {
			t.Fatal(err)
		}
		held := 0
		for i := range l.Length() {
			if !l.Has(i) {
				continue
			}
			held++
			want, err := r.logs[0].Get(t.Context(), i)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := l.Get(t.Context(), i); err != nil || !bytes.Equal(b, want) {
				t.Fatalf("byte %d: block %d is wrong: %v", at, i, err)
			}
		}
		if held < 1024 {
			t.Errorf("byte %d: %d of 3000 blocks are there", at, held)
		}
		l.Close()
	}
}
