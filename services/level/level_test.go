package level

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

var seed = flag.Uint64("seed", 1, "of the random tests")

func newTree(t testing.TB) *hyperbee.Tree {
	t.Helper()
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	must(t, err)
	t.Cleanup(func() { store.Close() })
	kp := hypercore.NewKeyPair([32]byte{1})
	log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
	must(t, err)
	t.Cleanup(func() { log.Close() })
	tree, err := hyperbee.Open(log, hyperbee.Options{Durability: hypercore.Soon})
	must(t, err)
	return tree
}

func newDB(t testing.TB, keys ...string) *DB {
	t.Helper()
	db := Open(newTree(t))
	t.Cleanup(func() { db.Close() })
	for _, k := range keys {
		must(t, db.Put(t.Context(), []byte(k), []byte("v"+k)))
	}
	return db
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants checks the code of an error.
func wants(t *testing.T, what string, err error, want Code) {
	t.Helper()
	if err == nil || CodeOf(err) != want || !errors.Is(err, want) {
		t.Errorf("%s: %v, want %s", what, err, string(want))
	}
}

// keysOf reads up to n keys, all when it is 0.
func keysOf(t testing.TB, it *Iterator, n int) (keys []string) {
	t.Helper()
	for e, err := range it.Entries(t.Context()) {
		must(t, err)
		keys = append(keys, string(e.Key))
		if len(keys) == n {
			break
		}
	}
	return keys
}

func TestEmptyIsAValueAndAKey(t *testing.T) {
	ctx := t.Context()
	db := newDB(t)
	must(t, db.Put(ctx, []byte{}, []byte{}))
	if v, err := db.Get(ctx, []byte{}); err != nil || v == nil || len(v) != 0 {
		t.Errorf("an empty value reads as %v, %v", v, err)
	}
	if has, err := db.Has(ctx, []byte{}); err != nil || !has {
		t.Errorf("an empty key is there: %v, %v", has, err)
	}
	if v, err := db.Get(ctx, []byte("a")); err != nil || v != nil {
		t.Errorf("a key that is not there reads as %v, %v", v, err)
	}
	must(t, db.Put(ctx, []byte("a"), []byte("x")))
	it, err := db.Iterator(ctx, Range{})
	must(t, err)
	defer it.Close()
	if got := append(keysOf(t, it, 1), keysOf(t, it, 1)...); !slices.Equal(got, []string{"", "a"}) {
		t.Errorf("the keys are %q", got)
	}
	wants(t, "put without a key", db.Put(ctx, nil, []byte{}), InvalidKey)
	wants(t, "put without a value", db.Put(ctx, []byte("a"), nil), InvalidValue)
	_, err = db.Get(ctx, nil)
	wants(t, "get without a key", err, InvalidKey)
	// hyperbee has entries without a value.
	must(t, db.tree.Put(ctx, []byte("none"), nil))
	if v, err := db.Get(ctx, []byte("none")); err != nil || v == nil {
		t.Errorf("an entry without a value reads as %v, %v", v, err)
	}
}

func TestBatchIsAllOrNothing(t *testing.T) {
	ctx := t.Context()
	db := newDB(t, "a")
	err := db.Batch(ctx, []Change{{Key: []byte("a"), Delete: true}, {Key: []byte("b"), Value: []byte("1")}, {Key: []byte("c")}})
	wants(t, "batch", err, InvalidValue)
	has, err := db.HasMany(ctx, [][]byte{[]byte("a"), []byte("b")})
	if err != nil || !slices.Equal(has, []bool{true, false}) {
		t.Errorf("after a batch that failed there are %v, %v", has, err)
	}
	before := db.tree.Version()
	must(t, db.Batch(ctx, []Change{{Key: []byte("a"), Delete: true}, {Key: []byte("b"), Value: []byte("1")}}))
	values, err := db.GetMany(ctx, [][]byte{[]byte("a"), []byte("b")})
	if err != nil || values[0] != nil || string(values[1]) != "1" {
		t.Errorf("after the batch there are %q, %v", values, err)
	}
	if got := db.tree.Version() - before; got != 2 {
		t.Errorf("the batch is %d blocks, want 2", got)
	}
}

func TestSnapshotStaysAsItWas(t *testing.T) {
	ctx := t.Context()
	db := newDB(t, "a", "b")
	s, err := db.Snapshot(ctx)
	must(t, err)
	it, err := db.Iterator(ctx, Range{})
	must(t, err)
	defer it.Close()
	must(t, db.Put(ctx, []byte("c"), []byte("new")))
	must(t, db.Del(ctx, []byte("a")))
	if got := keysOf(t, it, 0); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("an older iterator has %q", got)
	}
	if v, err := s.Get(ctx, []byte("a")); err != nil || string(v) != "va" {
		t.Errorf("the snapshot has %q, %v", v, err)
	}
	wants(t, "put to a snapshot", s.Put(ctx, []byte("x"), []byte{}), ReadOnly)
	// What came after the snapshot is not cleared with it.
	must(t, db.Clear(ctx, Range{}, s))
	now, err := db.Iterator(ctx, Range{})
	must(t, err)
	defer now.Close()
	if got := keysOf(t, now, 0); !slices.Equal(got, []string{"c"}) {
		t.Errorf("after clear there are %q", got)
	}
	ofS, err := s.Iterator(ctx, Range{Reverse: true})
	must(t, err)
	if got := keysOf(t, ofS, 1); !slices.Equal(got, []string{"b"}) {
		t.Errorf("an iterator of the snapshot has %q", got)
	}
	must(t, s.Close())
	must(t, s.Close())
	_, err = s.Get(ctx, []byte("a"))
	wants(t, "get", err, SnapshotNotOpen)
	for _, err := range ofS.Entries(ctx) {
		wants(t, "an iterator of it", err, SnapshotNotOpen)
	}
	wants(t, "clear", db.Clear(ctx, Range{}, s), SnapshotNotOpen)
}

func TestCloseEndsWhatIsOpen(t *testing.T) {
	ctx := t.Context()
	db := newDB(t, "a")
	s, err := db.Snapshot(ctx)
	must(t, err)
	it, err := db.Iterator(ctx, Range{})
	must(t, err)
	for _, err := range it.Entries(ctx) {
		must(t, err)
		for _, err := range it.Entries(ctx) {
			wants(t, "entries within entries", err, IteratorBusy)
		}
		wants(t, "seek within entries", it.Seek([]byte("a")), IteratorBusy)
	}
	must(t, db.Close())
	wants(t, "seek", it.Seek([]byte("a")), IteratorNotOpen)
	for _, err := range it.Entries(ctx) {
		wants(t, "entries", err, IteratorNotOpen)
	}
	_, err = s.Get(ctx, []byte("a"))
	wants(t, "get of a snapshot", err, SnapshotNotOpen)
	_, err = db.Get(ctx, []byte("a"))
	wants(t, "get", err, DatabaseNotOpen)
	wants(t, "put", db.Put(ctx, []byte("a"), []byte{}), DatabaseNotOpen)
	_, err = db.Iterator(ctx, Range{})
	wants(t, "iterator", err, DatabaseNotOpen)
	_, err = db.Snapshot(ctx)
	wants(t, "snapshot", err, DatabaseNotOpen)
	must(t, it.Close())
	must(t, s.Close())
}

func TestErrorsHaveCodes(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	db := newDB(t, "a")
	_, err := db.Get(ended, []byte("a"))
	if CodeOf(err) != Aborted {
		t.Errorf("an operation whose context ended has code %s: %v", string(CodeOf(err)), err)
	}
	old, err := db.tree.Checkout(1)
	must(t, err)
	defer old.Close()
	if err := Open(old).Put(t.Context(), []byte("a"), []byte{}); CodeOf(err) != ReadOnly {
		t.Errorf("a put to a version of the past has code %s: %v", string(CodeOf(err)), err)
	}
	for err, want := range map[error]Code{
		hypercore.ErrNotWritable:               ReadOnly,
		hyperbee.ErrConflict:                   Locked,
		hyperbee.ErrInvalid:                    Corruption,
		hyperbee.ErrClosed:                     DatabaseNotOpen,
		hypercore.ErrClosed:                    DatabaseNotOpen,
		errors.New("disk is full"):             IOError,
		fmt.Errorf("get: %w", SnapshotNotOpen): SnapshotNotOpen,
	} {
		if got := CodeOf(fmt.Errorf("get: %w", err)); got != want {
			t.Errorf("%v has code %s, want %s", err, string(got), string(want))
		}
	}
}

// An iterator and its database may be used and closed at the same time.
func TestCloseWhileOthersWork(t *testing.T) {
	db := newDB(t, "a", "b", "c")
	done := make(chan error)
	for range 4 {
		go func() {
			it, err := db.Iterator(context.Background(), Range{})
			for err == nil {
				for _, err = range it.Entries(context.Background()) {
					if err != nil {
						break
					}
				}
				if err == nil {
					err = it.Seek([]byte("a"))
				}
			}
			done <- err
		}()
	}
	must(t, db.Put(t.Context(), []byte("d"), []byte{}))
	must(t, db.Close())
	for range 4 {
		if err := <-done; CodeOf(err) != IteratorNotOpen && CodeOf(err) != DatabaseNotOpen {
			t.Errorf("it ended with %v", err)
		}
	}
}

// A model is what a database should be like.
type model map[string]string

// in returns the keys in a range, in its order, without regard to its limit.
func (m model) in(r Range) (keys []string) {
	for k := range m {
		switch {
		case r.Gte != nil && k < string(r.Gte), r.Gte == nil && r.Gt != nil && k <= string(r.Gt):
		case r.Lte != nil && k > string(r.Lte), r.Lte == nil && r.Lt != nil && k >= string(r.Lt):
		default:
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if r.Reverse {
		slices.Reverse(keys)
	}
	return keys
}

func (m model) clone() model {
	c := model{}
	for k, v := range m {
		c[k] = v
	}
	return c
}

// A modelIterator is what an iterator should do.
type modelIterator struct {
	m    model
	r    Range
	it   *Iterator
	rest []string
	left int
}

func (i *modelIterator) next(n int) (keys []string) {
	if i.r.Limit > 0 {
		n = min(n, i.left)
	}
	n = min(n, len(i.rest))
	keys, i.rest = i.rest[:n], i.rest[n:]
	i.left -= n
	return keys
}

func (i *modelIterator) seek(key string) {
	i.rest = nil
	keys := i.m.in(i.r)
	within := model{key: ""}.in(i.r)
	if len(within) == 0 {
		return
	}
	for n, k := range keys {
		if k == key || (k > key) != i.r.Reverse {
			i.rest = keys[n:]
			return
		}
	}
}

func TestRandomOperationsAreThoseOfAnOrderedMap(t *testing.T) {
	ctx := t.Context()
	rng := rand.New(rand.NewPCG(*seed, 0))
	db := newDB(t)
	now := model{}
	type version struct {
		db *DB
		m  model
	}
	var snapshots []version
	var iterators []*modelIterator
	key := func() []byte {
		k := make([]byte, rng.IntN(3))
		for i := range k {
			k[i] = "ab\x00\xff"[rng.IntN(4)]
		}
		return k
	}
	bound := func() []byte {
		if rng.IntN(3) > 0 {
			return nil
		}
		return key()
	}
	anyRange := func() Range {
		return Range{Gt: bound(), Gte: bound(), Lt: bound(), Lte: bound(), Reverse: rng.IntN(2) == 0, Limit: rng.IntN(3) * rng.IntN(4)}
	}
	at := func() version {
		if n := rng.IntN(len(snapshots) + 1); n < len(snapshots) {
			return snapshots[n]
		}
		return version{db, now}
	}
	for step := range 6000 {
		what := rng.IntN(12)
		switch what {
		case 0, 1:
			k, v := key(), key()
			must(t, db.Put(ctx, k, v))
			now[string(k)] = string(v)
		case 2:
			k := key()
			must(t, db.Del(ctx, k))
			delete(now, string(k))
		case 3:
			var changes []Change
			for range rng.IntN(6) {
				c := Change{Key: key(), Value: key(), Delete: rng.IntN(3) == 0}
				changes = append(changes, c)
				if c.Delete {
					delete(now, string(c.Key))
				} else {
					now[string(c.Key)] = string(c.Value)
				}
			}
			must(t, db.Batch(ctx, changes))
		case 4:
			r, v := anyRange(), at()
			if rng.IntN(4) > 0 {
				r.Limit = 1 // or there is never much
			}
			keys := v.m.in(r)
			if r.Limit > 0 {
				keys = keys[:min(len(keys), r.Limit)]
			}
			for _, k := range keys {
				delete(now, k)
			}
			if v.db == db {
				v.db = nil
			}
			must(t, db.Clear(ctx, r, v.db))
		case 5:
			s, err := db.Snapshot(ctx)
			must(t, err)
			if snapshots = append(snapshots, version{s, now.clone()}); len(snapshots) > 4 {
				must(t, snapshots[0].db.Close())
				snapshots = snapshots[1:]
				iterators = slices.DeleteFunc(iterators, func(i *modelIterator) bool { return i.it.view.ended() != nil })
			}
		case 6:
			v, r := at(), anyRange()
			it, err := v.db.Iterator(ctx, r)
			must(t, err)
			m := v.m.clone()
			iterators = append(iterators, &modelIterator{m: m, r: r, it: it, rest: m.in(r), left: r.Limit})
			if len(iterators) > 6 {
				must(t, iterators[0].it.Close())
				iterators = iterators[1:]
			}
		case 7, 8, 9:
			if len(iterators) == 0 {
				break
			}
			i := iterators[rng.IntN(len(iterators))]
			if what == 7 {
				k := key()
				must(t, i.it.Seek(k))
				i.seek(string(k))
			}
			n := 1 + rng.IntN(5)
			want := i.next(n)
			var got []string
			for e, err := range i.it.Entries(ctx) {
				must(t, err)
				got = append(got, string(e.Key))
				if string(e.Value) != i.m[string(e.Key)] || e.Value == nil {
					t.Fatalf("seed %d, step %d: %q has %q, want %q", *seed, step, e.Key, e.Value, i.m[string(e.Key)])
				}
				if len(got) == n {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d, step %d: %q of %+v, want %q", *seed, step, got, i.r, want)
			}
		default:
			v := at()
			keys := [][]byte{key(), key(), key()}
			values, err := v.db.GetMany(ctx, keys)
			must(t, err)
			has, err := v.db.HasMany(ctx, keys)
			must(t, err)
			for i, k := range keys {
				want, ok := v.m[string(k)]
				if (values[i] != nil) != ok || has[i] != ok || !bytes.Equal(values[i], []byte(want)) {
					t.Fatalf("seed %d, step %d: %q has %q, %v, want %q, %v", *seed, step, k, values[i], has[i], want, ok)
				}
			}
		}
	}
}

func TestClearOfMuchGoesOnInParts(t *testing.T) {
	ctx := t.Context()
	db := newDB(t)
	var changes []Change
	for i := range 2*clearKeys + 10 {
		changes = append(changes, Change{Key: fmt.Appendf(nil, "%06d", i), Value: []byte{}})
	}
	must(t, db.Batch(ctx, changes))
	must(t, db.Clear(ctx, Range{Gte: []byte("000003"), Limit: 2 * clearKeys}, nil))
	it, err := db.Iterator(ctx, Range{})
	must(t, err)
	defer it.Close()
	if got := keysOf(t, it, 0); len(got) != 10 || got[2] != "000002" || got[3] != "002003" {
		t.Errorf("there are %q", got)
	}
}
