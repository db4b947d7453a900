package disk

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fakeFolder is a folder of the cloud as one device has it, in memory. What one
// device says reaches others by meet.
type fakeFolder struct {
	name string
	bomb *bomb

	mu       sync.Mutex
	said     map[string]saying          // by id
	at       map[string]map[string]bool // path -> ids
	over     map[string]bool            // ids that others replaced
	arrivals []string                   // paths, as sayings came
	order    []string                   // ids, as sayings came
	synced   int                        // how many of them a crash leaves
	clock    int
	contents map[[32]byte][]byte
	calls    map[int]func()
	nextCall int
	opened   int
	readOnly bool
	broken   error // of version
	other    error // of changes since any version
}

type saying struct {
	id      string
	time    int
	writer  string
	deleted bool
	e       entry
	over    []string
}

func newFake(name string) *fakeFolder {
	return &fakeFolder{name: name, said: map[string]saying{}, at: map[string]map[string]bool{}, over: map[string]bool{}, contents: map[[32]byte][]byte{}, calls: map[int]func(){}}
}

func (f *fakeFolder) takeLocked(s saying) {
	if _, ok := f.said[s.id]; ok {
		return
	}
	f.said[s.id] = s
	if f.at[s.e.path] == nil {
		f.at[s.e.path] = map[string]bool{}
	}
	f.at[s.e.path][s.id] = true
	for _, id := range s.over {
		f.over[id] = true
	}
	f.clock = max(f.clock, s.time)
	f.arrivals = append(f.arrivals, s.e.path)
	f.order = append(f.order, s.id)
}

func (f *fakeFolder) sync() error {
	if err := f.bomb.point(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced = len(f.order)
	return nil
}

// crash takes away what was not synced.
func (f *fakeFolder) crash() {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.said
	left := f.order[:f.synced]
	f.said, f.at, f.over, f.arrivals, f.order = map[string]saying{}, map[string]map[string]bool{}, map[string]bool{}, nil, nil
	for _, id := range left {
		f.takeLocked(was[id])
	}
}

// meet brings all that a knows to b, and the other way round.
func meet(a, b *fakeFolder, contents bool) {
	for range 2 {
		a.mu.Lock()
		said := slices.SortedFunc(maps.Values(a.said), func(x, y saying) int {
			return cmp.Or(cmp.Compare(x.time, y.time), cmp.Compare(x.id, y.id))
		})
		c := maps.Clone(a.contents)
		a.mu.Unlock()
		b.mu.Lock()
		for _, s := range said {
			b.takeLocked(s)
		}
		if contents {
			maps.Copy(b.contents, c)
		}
		b.mu.Unlock()
		a, b = b, a
	}
	a.tell()
	b.tell()
}

func (f *fakeFolder) tell() {
	f.mu.Lock()
	calls := slices.Collect(maps.Values(f.calls))
	f.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

// standing returns the sayings at a path that nobody replaced, the winner first.
func (f *fakeFolder) standingLocked(p string) (out []saying) {
	for id := range f.at[p] {
		if !f.over[id] {
			out = append(out, f.said[id])
		}
	}
	slices.SortFunc(out, func(a, b saying) int {
		rank := func(s saying) int {
			switch {
			case s.deleted:
				return 2
			case s.e.kind == kindDir:
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.time, a.time), cmp.Compare(a.id, b.id))
	})
	return out
}

func (f *fakeFolder) statLocked(p string) *entry {
	all := f.standingLocked(p)
	if len(all) == 0 || all[0].deleted {
		return nil
	}
	e := all[0].e
	var ids, bare []string
	for _, s := range all {
		ids = append(ids, s.id)
		if !s.deleted {
			bare = append(bare, s.id)
		}
		if !s.deleted && !alike(s.e, e) {
			e.conflict = true
		}
	}
	e.stamp, e.bare = strings.Join(ids, ","), strings.Join(bare, ",")
	return &e
}

func alike(a, b entry) bool { return a.kind == b.kind && a.hash == b.hash && a.link == b.link }

func (f *fakeFolder) version(context.Context) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return nil, f.broken
	}
	if len(f.arrivals) == 0 {
		return nil, nil
	}
	return []byte(strconv.Itoa(len(f.arrivals))), nil
}

func (f *fakeFolder) changes(_ context.Context, since []byte) iter.Seq2[change, error] {
	n, _ := strconv.Atoi(string(since))
	return func(yield func(change, error) bool) {
		f.mu.Lock()
		if f.other != nil && n > 0 {
			f.mu.Unlock()
			yield(change{}, f.other)
			return
		}
		if n > len(f.arrivals) {
			f.mu.Unlock()
			yield(change{}, errBehind)
			return
		}
		paths := slices.Sorted(maps.Keys(setOf(f.arrivals[n:])))
		f.mu.Unlock()
		for _, p := range paths {
			f.mu.Lock()
			e := f.statLocked(p)
			f.mu.Unlock()
			if n == 0 && e == nil {
				continue // it is not in an empty folder either
			}
			if !yield(change{p, e}, nil) {
				return
			}
		}
	}
}

func setOf(all []string) map[string]bool {
	out := map[string]bool{}
	for _, s := range all {
		out[s] = true
	}
	return out
}

func (f *fakeFolder) stat(_ context.Context, p string) (*entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.statLocked(p), nil
}

func (f *fakeFolder) open(_ context.Context, e *entry) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	b, ok := f.contents[e.hash]
	if !ok {
		return nil, errors.New("opened a content that is not here")
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (f *fakeFolder) missing(_ context.Context, e *entry) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.contents[e.hash]; ok {
		return 0, nil
	}
	return e.size, nil
}

func (f *fakeFolder) writable() bool { return !f.readOnly }

func (f *fakeFolder) fetch(ctx context.Context, e *entry) error {
	if n, _ := f.missing(ctx, e); n > 0 {
		return errors.New("nobody has it")
	}
	return nil
}

func (f *fakeFolder) notify(call func()) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nextCall
	f.nextCall++
	f.calls[n] = call
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.calls, n)
	}
}

// resolve gives all but the winner a path that every device would choose.
func (f *fakeFolder) resolve(ctx context.Context, _ []byte) error {
	f.mu.Lock()
	type fix struct {
		e    entry
		over string
	}
	var fixes []fix
	var away []fix
	for p := range f.at {
		e := f.statLocked(p)
		if e != nil && e.kind != kindDir && f.hasInLocked(p) {
			for _, s := range f.standingLocked(p) {
				copied := s.e
				copied.path = copyName(p, s.id)
				if !s.deleted && f.statLocked(copied.path) == nil {
					fixes = append(fixes, fix{copied, ""})
				}
			}
			away = append(away, fix{*e, e.stamp})
			continue
		}
		if e == nil || !e.conflict {
			continue
		}
		fixes = append(fixes, fix{*e, e.stamp})
		for _, s := range f.standingLocked(p)[1:] {
			if s.deleted || alike(s.e, *e) {
				continue
			}
			copied := s.e
			copied.path = copyName(p, s.id)
			if f.statLocked(copied.path) == nil {
				fixes = append(fixes, fix{copied, ""})
			}
		}
	}
	f.mu.Unlock()
	b, _ := f.batch(ctx)
	for _, x := range fixes {
		if err := b.put(ctx, x.e, nil, x.over); err != nil {
			return err
		}
	}
	for _, x := range away {
		if err := b.remove(ctx, x.e.path, x.over); err != nil {
			return err
		}
	}
	_, err := b.flush(ctx)
	return err
}

func copyName(p, id string) string {
	ext := path.Ext(p)
	return strings.TrimSuffix(p, ext) + " (conflict from " + id + ")" + ext
}

func (f *fakeFolder) hasInLocked(dir string) bool {
	for p := range f.at {
		if strings.HasPrefix(p, dir+"/") && f.statLocked(p) != nil {
			return true
		}
	}
	return false
}

type fakeBatch struct {
	f    *fakeFolder
	says []saying
}

func (f *fakeFolder) batch(context.Context) (batch, error) { return &fakeBatch{f: f}, nil }

func (b *fakeBatch) put(_ context.Context, e entry, content io.Reader, over string) error {
	if content != nil {
		data, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		e.hash, _ = hashOf(bytes.NewReader(data))
		e.size = int64(len(data))
		b.f.mu.Lock()
		b.f.contents[e.hash] = data
		b.f.mu.Unlock()
	} else if e.kind == kindFile && e.own == nil {
		return fmt.Errorf("put %s without a content", e.path)
	} else if e.kind == kindFile {
		e.hash = e.own.([32]byte)
	}
	b.says = append(b.says, saying{e: e, over: ids(over)})
	return nil
}

func ids(stamp string) []string {
	if stamp == "" {
		return nil
	}
	return strings.Split(stamp, ",")
}

func (b *fakeBatch) remove(_ context.Context, p, over string) error {
	b.says = append(b.says, saying{e: entry{path: p}, deleted: true, over: ids(over)})
	return nil
}

func (b *fakeBatch) flush(context.Context) (out []entry, err error) {
	if err := b.f.bomb.point(); err != nil {
		return nil, err
	}
	b.f.mu.Lock()
	for _, s := range b.says {
		b.f.clock++
		s.time, s.writer = b.f.clock, b.f.name
		s.id = fmt.Sprintf("%s%04d", b.f.name, s.time)
		s.e.own = s.e.hash
		s.e.stamp, s.e.conflict = s.id, false
		b.f.takeLocked(s)
		out = append(out, s.e)
	}
	b.f.synced = len(b.f.order)
	b.f.mu.Unlock()
	b.f.tell()
	return out, b.f.bomb.point()
}

func (b *fakeBatch) close() {}

// A bomb ends everything after a number of steps, as a crash would.
type bomb struct {
	mu   sync.Mutex
	left int
	dead bool
}

var errCrash = errors.New("crashed")

var fakeStart = time.Unix(1_000_000, 0)

func (b *bomb) point() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left--; b.left < 0 {
		b.dead = true
	}
	if b.dead {
		return errCrash
	}
	return nil
}
