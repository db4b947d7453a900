package storagetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/storage"
)

// Run tests an engine. Open returns an empty one, and a function that opens it
// again after it was closed; nil when it forgets everything then.
func Run(t *testing.T, open func(t *testing.T) (e storage.Engine, reopen func() storage.Engine)) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"values", (*suite).values},
		{"a batch is in order", (*suite).order},
		{"a merge appends", (*suite).merge},
		{"values and blobs are apart", (*suite).spaces},
		{"blobs of all sizes", (*suite).blobs},
		{"a blob after a deleted one", (*suite).blobAgain},
		{"scans", (*suite).scan},
		{"writing during a scan", (*suite).scanWrites},
		{"slices are owned", (*suite).ownership},
		{"snapshots stand still", (*suite).snapshot},
		{"batches are atomic", (*suite).atomic},
		{"many at once", (*suite).concurrent},
		{"closing keeps all", (*suite).persistence},
		{"closed is closed", (*suite).closed},
		{"closing under load", (*suite).closing},
		{"like a map", (*suite).model},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{T: t}
			s.e, s.reopen = open(t)
			c.test(s)
			if err := s.e.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
				t.Errorf("close: %v", err)
			}
		})
	}
}

type suite struct {
	*testing.T
	e      storage.Engine
	reopen func() storage.Engine
}

func (s *suite) apply(changes ...func(b *storage.Batch)) {
	s.Helper()
	var b storage.Batch
	for _, c := range changes {
		c(&b)
	}
	if err := s.e.Apply(&b, storage.Soon); err != nil {
		s.Fatalf("apply: %v", err)
	}
}

func set(key, value string) func(*storage.Batch) {
	return func(b *storage.Batch) { b.Set([]byte(key), []byte(value)) }
}

func merge(key, value string) func(*storage.Batch) {
	return func(b *storage.Batch) { b.Merge([]byte(key), []byte(value)) }
}

func del(key string) func(*storage.Batch) {
	return func(b *storage.Batch) { b.Delete([]byte(key)) }
}

func delRange(from, to string) func(*storage.Batch) {
	return func(b *storage.Batch) { b.DeleteRange([]byte(from), []byte(to)) }
}

func setBlob(key string, blob []byte) func(*storage.Batch) {
	return func(b *storage.Batch) { b.SetBlob([]byte(key), blob) }
}

func delBlobs(from, to string) func(*storage.Batch) {
	return func(b *storage.Batch) { b.DeleteBlobs([]byte(from), []byte(to)) }
}

const none = "\x00none"

func value(r storage.Reader, key string) string {
	return text(r.Get([]byte(key)))
}

func blob(r storage.Reader, key string) string {
	return text(r.Blob([]byte(key), nil))
}

func text(value []byte, err error) string {
	if errors.Is(err, storage.ErrNotFound) {
		return none
	}
	if err != nil {
		return "\x00" + err.Error()
	}
	return string(value)
}

// want compares without printing much.
func (s *suite) want(what, got, want string) {
	s.Helper()
	if got != want {
		s.Errorf("%s: %d bytes %.40q, want %d bytes %.40q", what, len(got), got, len(want), want)
	}
}

func (s *suite) values() {
	s.want("a key that is not there", value(s.e, "a"), none)
	s.apply(set("a", "1"), set("b", ""), set("", "empty key"))
	s.want("a", value(s.e, "a"), "1")
	s.want("an empty value", value(s.e, "b"), "")
	s.want("the empty key", value(s.e, ""), "empty key")
	s.apply(set("a", "2"))
	s.want("a set again", value(s.e, "a"), "2")
	s.apply(del("a"), del("never there"))
	s.want("a deleted", value(s.e, "a"), none)
	s.apply()
	long := strings.Repeat("long", 300<<10)
	s.apply(set("long", long))
	s.want("a long value", value(s.e, "long"), long)
}

func (s *suite) order() {
	s.apply(set("a", "1"), del("a"), set("a", "2"), merge("a", "3"))
	s.want("a", value(s.e, "a"), "23")
	s.apply(set("b", "1"), set("c", "1"), delRange("b", "c"), merge("b", "2"), set("d", "1"), del("d"))
	s.want("b", value(s.e, "b"), "2")
	s.want("c, the end of the range", value(s.e, "c"), "1")
	s.want("d", value(s.e, "d"), none)
	large := bytes.Repeat([]byte("L"), 20<<10)
	s.apply(setBlob("x", large), setBlob("y", []byte("small")), delBlobs("x", "z"), setBlob("y", large))
	s.want("x", blob(s.e, "x"), none)
	s.want("y", blob(s.e, "y"), string(large))
	s.apply(delBlobs("x", "z"), setBlob("x", large), delBlobs("x", "y"), delBlobs("x", "z"), setBlob("y", []byte("again")))
	s.want("x", blob(s.e, "x"), none)
	s.want("y", blob(s.e, "y"), "again")
}

func (s *suite) merge() {
	s.apply(merge("a", "1"))
	s.apply(merge("a", "2"), merge("a", "3"))
	s.apply(merge("a", ""))
	s.want("a", value(s.e, "a"), "123")
	s.apply(set("a", "x"), merge("a", "y"))
	s.want("a set between", value(s.e, "a"), "xy")
	s.apply(del("a"))
	s.apply(merge("a", "z"))
	s.want("a after a deletion", value(s.e, "a"), "z")
	want := ""
	for i := range 1000 {
		part := fmt.Sprint(i, ",")
		want += part
		s.apply(merge("long", part))
	}
	s.want("a thousand merges", value(s.e, "long"), want)
}

func (s *suite) spaces() {
	s.apply(set("a", "value"), setBlob("a", []byte("blob")), setBlob("b", []byte("blob b")), set("b", "value b"))
	s.apply(delRange("a", "b"))
	s.want("the value", value(s.e, "a"), none)
	s.want("the blob", blob(s.e, "a"), "blob")
	s.apply(delBlobs("b", "c"))
	s.want("the value b", value(s.e, "b"), "value b")
	s.want("the blob b", blob(s.e, "b"), none)
	s.apply(del("a"))
	s.want("the blob a", blob(s.e, "a"), "blob")
}

func pattern(size, salt int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + salt)
	}
	return b
}

func (s *suite) blobs() {
	sizes := []int{0, 1, 11, 12, 13, 1 << 10, 4<<10 - 1, 4 << 10, 16<<10 - 1, 16 << 10, 1 << 20}
	var changes []func(*storage.Batch)
	for i, size := range sizes {
		changes = append(changes, setBlob(fmt.Sprint(i), pattern(size, i)))
	}
	s.apply(changes...)
	check := func() {
		s.Helper()
		for i, size := range sizes {
			s.want(fmt.Sprint("blob of ", size), blob(s.e, fmt.Sprint(i)), string(pattern(size, i)))
		}
		s.want("no blob", blob(s.e, "none"), none)
	}
	check()
	if s.reopen != nil {
		s.again()
		check()
	}
}

// again closes the engine and opens it anew.
func (s *suite) again() {
	s.Helper()
	if err := s.e.Close(); err != nil {
		s.Fatalf("close: %v", err)
	}
	s.e = s.reopen()
}

func (s *suite) blobAgain() {
	for i, size := range []int{20 << 10, 5, 20<<10 + 1, 30 << 10, 2000} {
		s.apply(setBlob("a", pattern(size, i)), setBlob("other", pattern(20<<10, i)))
		s.want("blob", blob(s.e, "a"), string(pattern(size, i)))
		s.apply(delBlobs("a", "b"), delBlobs("other", "p"))
		s.want("deleted blob", blob(s.e, "a"), none)
	}
}

func (s *suite) keys(r storage.Reader, from, to []byte) string {
	s.Helper()
	var got []string
	if err := r.Scan(from, to, func(key, value []byte) bool {
		got = append(got, string(key)+"="+string(value))
		return true
	}); err != nil {
		s.Fatalf("scan: %v", err)
	}
	return strings.Join(got, " ")
}

func (s *suite) scan() {
	s.want("nothing", s.keys(s.e, nil, nil), "")
	s.apply(set("b", "2"), set("a", "1"), set("ab", "12"), set("\xff\xff", "last"), merge("c", "3"), merge("c", "4"), setBlob("bb", []byte("no")), set("d", "5"), del("d"))
	s.want("all", s.keys(s.e, nil, nil), "a=1 ab=12 b=2 c=34 \xff\xff=last")
	s.want("from ab", s.keys(s.e, []byte("ab"), nil), "ab=12 b=2 c=34 \xff\xff=last")
	s.want("to b", s.keys(s.e, nil, []byte("b")), "a=1 ab=12")
	s.want("ab to b", s.keys(s.e, []byte("ab"), []byte("b")), "ab=12")
	s.want("aa to ab", s.keys(s.e, []byte("aa"), []byte("ab")), "")
	s.want("backwards", s.keys(s.e, []byte("b"), []byte("a")), "")
	n := 0
	if err := s.e.Scan(nil, nil, func(key, _ []byte) bool { n++; return n < 2 }); err != nil || n != 2 {
		s.Errorf("a scan that stops at 2 made %d calls, %v", n, err)
	}
	// The callback may keep nothing, so it is free to change what it got.
	if err := s.e.Scan(nil, nil, func(key, value []byte) bool {
		_, _ = append(key[:len(key):len(key)], 'x'), append(value[:len(value):len(value)], 'x')
		return true
	}); err != nil {
		s.Error(err)
	}
}

func (s *suite) scanWrites() {
	for i := range 100 {
		s.apply(set(fmt.Sprintf("%03d", i), "old"))
	}
	n := 0
	err := s.e.Scan(nil, nil, func(key, old []byte) bool {
		n++
		k := string(key)
		s.apply(del(k), set(k+"x", "new"), set("999", "new"))
		s.want("met by a scan", string(old), "old")
		s.want("read during a scan", value(s.e, k), none)
		return true
	})
	if err != nil || n != 100 {
		s.Errorf("%d of 100 keys, %v", n, err)
	}
}

func (s *suite) ownership() {
	key, val, data, large := []byte("key"), []byte("value"), []byte("blob"), pattern(20<<10, 0)
	var b storage.Batch
	b.Set(key, val)
	copy(key, "xxx") // keys and values are copied at once
	copy(val, "xxxxx")
	b.SetBlob([]byte("small"), data)
	b.SetBlob([]byte("large"), large)
	if b.Len() != 3 {
		s.Errorf("a batch of 3 has length %d", b.Len())
	}
	if err := s.e.Apply(&b, storage.Soon); err != nil {
		s.Fatal(err)
	}
	copy(data, "xxxx") // blobs are the caller's again
	clear(large)
	b.Reset()
	if b.Len() != 0 {
		s.Errorf("an empty batch has length %d", b.Len())
	}
	b.Set([]byte("other"), []byte("memory of the batch, used again"))
	s.want("value", value(s.e, "key"), "value")
	s.want("small blob", blob(s.e, "small"), "blob")
	s.want("large blob", blob(s.e, "large"), string(pattern(20<<10, 0)))
	for _, get := range []func() ([]byte, error){
		func() ([]byte, error) { return s.e.Get([]byte("key")) },
		func() ([]byte, error) { return s.e.Blob([]byte("small"), nil) },
		func() ([]byte, error) { return s.e.Blob([]byte("large"), nil) },
	} {
		got, err := get()
		if err != nil {
			s.Fatal(err)
		}
		want := string(got)
		clear(got)
		_ = append(got, 'x')
		again, err := get()
		s.want("after changing what was read", text(again, err), want)
	}
	if got, err := s.e.Get([]byte("none")); got != nil || !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("no value: %q, %v", got, err)
	}
}

func (s *suite) snapshot() {
	large := pattern(20<<10, 0)
	s.apply(set("a", "1"), merge("m", "1"), setBlob("a", []byte("blob")), setBlob("large", large), set("gone", "not yet"))
	snap, err := s.e.Snapshot()
	if err != nil {
		s.Fatal(err)
	}
	s.apply(set("a", "2"), merge("m", "2"), delBlobs("a", "z"), set("new", "x"), del("gone"), setBlob("a", []byte("other")))
	later, err := s.e.Snapshot()
	if err != nil {
		s.Fatal(err)
	}
	s.apply(delRange("a", "z"), delBlobs("a", "z"))
	s.want("all before", s.keys(snap, nil, nil), "a=1 gone=not yet m=1")
	s.want("a", value(snap, "a"), "1")
	s.want("blob", blob(snap, "a"), "blob")
	s.want("large blob", blob(snap, "large"), string(large))
	s.want("all between", s.keys(later, nil, nil), "a=2 m=12 new=x")
	s.want("blob between", blob(later, "a"), "other")
	s.want("large blob between", blob(later, "large"), none)
	s.want("all after", s.keys(s.e, nil, nil), "")
	for _, sn := range []storage.Snapshot{snap, later} {
		if err := sn.Close(); err != nil {
			s.Errorf("close snapshot: %v", err)
		}
	}
	if _, err := snap.Get([]byte("a")); err == nil {
		s.Error("a closed snapshot can be read")
	}
}

// atomic: a reader sees all of a batch or nothing.
func (s *suite) atomic() {
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for i := range 300 {
			v := fmt.Sprint(i)
			s.apply(set("a", v), set("b", v), delBlobs("a", "b"), setBlob("a", []byte(v)))
		}
	})
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		snap, err := s.e.Snapshot()
		if err != nil {
			s.Fatal(err)
		}
		if a, b, c := value(snap, "a"), value(snap, "b"), blob(snap, "a"); a != b || b != c {
			s.Errorf("a batch in part: %q %q %q", a, b, c)
		}
		if err := snap.Close(); err != nil {
			s.Error(err)
		}
	}
	wg.Wait()
}

func (s *suite) concurrent() {
	const writers, rounds = 4, 60
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				var b storage.Batch
				key := fmt.Appendf(nil, "%d/%d", w, i)
				b.Set(key, key)
				b.Merge([]byte("all"), []byte{byte(w)})
				if i%7 == 0 {
					b.SetBlob(key, pattern(17<<10, w))
				}
				d := storage.Soon
				if i%10 == 0 {
					d = storage.Durable
				}
				if err := s.e.Apply(&b, d); err != nil {
					s.Error(err)
					return
				}
				if i%20 == 0 {
					if err := s.e.Sync(); err != nil {
						s.Error(err)
					}
				}
				s.want("what was just written", value(s.e, string(key)), string(key))
			}
		})
		wg.Go(func() {
			for range rounds {
				n := 0
				if err := s.e.Scan(nil, nil, func(key, value []byte) bool {
					n++
					if string(key) != "all" && !bytes.Equal(key, value) {
						s.Errorf("%q has %q", key, value)
					}
					return true
				}); err != nil {
					s.Error(err)
				}
				if _, err := s.e.Stats(); err != nil {
					s.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if all := value(s.e, "all"); len(all) != writers*rounds {
		s.Errorf("%d of %d merges", len(all), writers*rounds)
	}
	for w := range writers {
		s.want("blob", blob(s.e, fmt.Sprintf("%d/7", w)), string(pattern(17<<10, w)))
	}
}

func (s *suite) persistence() {
	if s.reopen == nil {
		s.Skip("forgets")
	}
	for i := range 3 {
		s.apply(set(fmt.Sprint("soon ", i), "x"), merge("m", fmt.Sprint(i)), setBlob(fmt.Sprint(i), pattern(20<<10, i)))
		s.again()
	}
	s.apply(delBlobs("1", "2"), del("soon 0"))
	s.again()
	s.want("values", s.keys(s.e, nil, nil), "m=012 soon 1=x soon 2=x")
	s.want("blob 0", blob(s.e, "0"), string(pattern(20<<10, 0)))
	s.want("blob 1", blob(s.e, "1"), none)
	s.want("blob 2", blob(s.e, "2"), string(pattern(20<<10, 2)))
}

func (s *suite) closed() {
	s.apply(set("a", "1"))
	if err := s.e.Close(); err != nil {
		s.Fatal(err)
	}
	var b storage.Batch
	b.Set([]byte("a"), []byte("2"))
	_, get := s.e.Get([]byte("a"))
	_, blob := s.e.Blob([]byte("a"), nil)
	_, snap := s.e.Snapshot()
	_, stats := s.e.Stats()
	for what, err := range map[string]error{
		"get": get, "blob": blob, "snapshot": snap, "stats": stats,
		"scan":  s.e.Scan(nil, nil, func(_, _ []byte) bool { return true }),
		"apply": s.e.Apply(&b, storage.Durable),
		"sync":  s.e.Sync(),
		"close": s.e.Close(),
	} {
		if !errors.Is(err, storage.ErrClosed) {
			s.Errorf("%s after close: %v", what, err)
		}
	}
}

// closing: whoever uses an engine that is being closed gets ErrClosed or what
// was asked for.
func (s *suite) closing() {
	s.apply(set("a", "1"), setBlob("a", pattern(20<<10, 0)))
	var wg, started sync.WaitGroup
	for w := range 4 {
		started.Add(1)
		wg.Go(func() {
			for i := 0; ; i++ {
				var b storage.Batch
				b.Set(fmt.Appendf(nil, "%d/%d", w, i), nil)
				_, get := s.e.Get([]byte("a"))
				_, blob := s.e.Blob([]byte("a"), nil)
				errs := []error{get, blob, s.e.Apply(&b, storage.Soon), s.e.Scan(nil, nil, func(_, _ []byte) bool { return true })}
				if i == 0 {
					started.Done()
				}
				for _, err := range errs {
					if err != nil && !errors.Is(err, storage.ErrClosed) {
						s.Error(err)
					}
				}
				if errs[3] != nil {
					return
				}
			}
		})
	}
	started.Wait()
	if err := s.e.Close(); err != nil {
		s.Error(err)
	}
	wg.Wait()
}

// model compares the engine with two maps, after random changes.
func (s *suite) model() {
	values, blobs := map[string]string{}, map[string]string{}
	random := &powerCut{random: 1}
	key := func() string {
		return string(binary.BigEndian.AppendUint16(nil, uint16(random.below(300))))
	}
	between := func(m map[string]string, from, to string) []string {
		var out []string
		for k := range m {
			if from <= k && k < to {
				out = append(out, k)
			}
		}
		return out
	}
	for round := range 400 {
		var changes []func(*storage.Batch)
		for range random.below(10) {
			k, k2, v := key(), key(), fmt.Sprint(round)
			switch random.below(8) {
			case 0, 1:
				values[k] = v
				changes = append(changes, set(k, v))
			case 2, 3:
				values[k] += v
				changes = append(changes, merge(k, v))
			case 4:
				delete(values, k)
				changes = append(changes, del(k))
			case 5:
				if random.below(4) == 0 && k < k2 {
					for _, d := range between(values, k, k2) {
						delete(values, d)
					}
					changes = append(changes, delRange(k, k2))
				}
			case 6:
				data := pattern([]int{10, 3 << 10, 18 << 10}[random.below(3)], round)
				if _, ok := blobs[k]; ok {
					changes = append(changes, delBlobs(k, k+"\x00"))
				}
				blobs[k] = string(data)
				changes = append(changes, setBlob(k, data))
			case 7:
				if random.below(3) == 0 && k < k2 {
					for _, d := range between(blobs, k, k2) {
						delete(blobs, d)
					}
					changes = append(changes, delBlobs(k, k2))
				}
			}
		}
		s.apply(changes...)
		if round%50 == 49 {
			if s.reopen != nil {
				s.again()
			}
			var want []string
			for _, k := range slices.Sorted(maps.Keys(values)) {
				want = append(want, k+"="+values[k])
			}
			s.want(fmt.Sprint("all values in round ", round), s.keys(s.e, nil, nil), strings.Join(want, " "))
			for i := range 300 {
				k := string(binary.BigEndian.AppendUint16(nil, uint16(i)))
				want, ok := blobs[k]
				if !ok {
					want = none
				}
				s.want(fmt.Sprintf("blob %x in round %d", k, round), blob(s.e, k), want)
			}
		}
	}
}
