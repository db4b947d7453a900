package hyperdrive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// A file is what a model has at a path.
type file struct {
	data string
	exec bool
	link string
	meta string
}

// A model is what a drive should be: a map for each version.
type model struct {
	t        *testing.T
	rng      *rand.Rand
	d        *Drive
	now      map[string]file
	versions map[uint64]map[string]file
}

var modelNames = []string{"a", "b", "a.txt", "a0", "ü", "c d", "日本", "-"}

func (m *model) path() string {
	var b strings.Builder
	for range 1 + m.rng.IntN(3) {
		b.WriteString("/" + modelNames[m.rng.IntN(len(modelNames))])
	}
	return b.String()
}

func (m *model) data() []byte {
	sizes := []int{0, 1, 100, 4096, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_000}
	data := make([]byte, sizes[m.rng.IntN(len(sizes))])
	fill := byte(m.rng.IntN(256))
	for i := range data {
		data[i] = fill + byte(i>>3)
	}
	return data
}

func (m *model) options() (o PutOptions) {
	o.Executable = m.rng.IntN(4) == 0
	if m.rng.IntN(3) == 0 {
		o.Metadata = fmt.Appendf(nil, `{"n":%d,"s":"<&>"}`, m.rng.IntN(100))
	}
	return o
}

// writer is a Drive or a Batch.
type writer interface {
	Put(ctx context.Context, path string, data []byte, o PutOptions) error
	Create(ctx context.Context, path string, o PutOptions) (*File, error)
	Symlink(ctx context.Context, path, target string, metadata []byte) error
	Delete(ctx context.Context, path string) error
	Entry(ctx context.Context, path string) (Entry, error)
}

type driveWriter struct{ *Drive }

func (w driveWriter) Symlink(ctx context.Context, path, target string, metadata []byte) error {
	return w.Drive.Symlink(ctx, path, target, metadata)
}

type batchWriter struct{ *Batch }

func (w batchWriter) Symlink(ctx context.Context, path, target string, metadata []byte) error {
	return w.Batch.Symlink(ctx, path, target, metadata)
}

// change makes one random change.
func (m *model) change(w writer) {
	m.t.Helper()
	ctx, path := m.t.Context(), m.path()
	e, err := w.Entry(ctx, path)
	if want, ok := m.now[path]; ok != (err == nil) || err != nil && !errors.Is(err, fs.ErrNotExist) || e.Linkname != want.link {
		m.t.Fatalf("entry %s: got %+v and error %v, want %v", path, e, err, ok)
	}
	switch m.rng.IntN(6) {
	case 0, 1:
		data, o := m.data(), m.options()
		must(m.t, w.Put(ctx, path, data, o))
		m.now[path] = file{data: string(data), exec: o.Executable, meta: string(o.Metadata)}
	case 2, 3:
		data, o := m.data(), m.options()
		f, err := w.Create(ctx, path, o)
		must(m.t, err)
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+m.rng.IntN(100_000))
			_, err := f.Write(rest[:n])
			must(m.t, err)
			rest = rest[n:]
		}
		if m.rng.IntN(5) == 0 {
			f.Abort()
			return
		}
		must(m.t, f.Close())
		m.now[path] = file{data: string(data), exec: o.Executable, meta: string(o.Metadata)}
	case 4:
		o := m.options()
		must(m.t, w.Symlink(ctx, path, "/somewhere \"else\"\n", o.Metadata))
		m.now[path] = file{link: "/somewhere \"else\"\n", meta: string(o.Metadata)}
	case 5:
		must(m.t, w.Delete(ctx, path))
		delete(m.now, path)
	}
}

// check compares a version of the drive with what it should be.
func (m *model) check(d *Drive, want map[string]file, contents bool) {
	m.t.Helper()
	ctx := m.t.Context()
	if got := paths(m.t, d, "", ListOptions{}); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		m.t.Fatalf("version %d: got the paths %q, want %q", d.Version(), got, slices.Sorted(maps.Keys(want)))
	}
	for path, f := range want {
		e, err := d.Entry(ctx, path)
		must(m.t, err)
		if e.Executable != f.exec || e.Linkname != f.link || string(e.Metadata) != f.meta {
			m.t.Errorf("version %d: %s: got %+v, want %+v", d.Version(), path, e, f)
		}
		if f.link != "" || !contents {
			continue
		}
		got, err := d.ReadFile(ctx, path)
		if err != nil || string(got) != f.data {
			m.t.Errorf("version %d: %s: got %d bytes and error %v, want %d", d.Version(), path, len(got), err, len(f.data))
		}
		if size, err := d.Size(ctx, e); err != nil || size != uint64(len(f.data)) {
			m.t.Errorf("version %d: %s: got size %d and error %v, want %d", d.Version(), path, size, err, len(f.data))
		}
		if len(f.data) == 0 {
			continue
		}
		r, err := d.OpenFile(ctx, e)
		must(m.t, err)
		off := m.rng.IntN(len(f.data))
		part := make([]byte, m.rng.IntN(len(f.data)-off+1))
		if n, err := r.ReadAt(part, int64(off)); n != len(part) || err != nil && err != io.EOF || string(part) != f.data[off:off+n] {
			m.t.Errorf("version %d: %s: read %d bytes at %d of %d: got %d and error %v", d.Version(), path, len(part), off, len(f.data), n, err)
		}
		must(m.t, r.Close())
	}
}

// checkDiff compares the differences of two versions.
func (m *model) checkDiff(left *Drive, want map[string]file, version uint64, folder string) {
	m.t.Helper()
	got := map[string]bool{}
	for diff, err := range left.Diff(m.t.Context(), version, folder) {
		must(m.t, err)
		if !strings.HasPrefix(diff.Path(), folder+"/") {
			m.t.Errorf("diff of %q has %s", folder, diff.Path())
		}
		got[diff.Path()] = true
	}
	before := m.versions[version]
	for path := range want {
		if _, ok := before[path]; strings.HasPrefix(path, folder+"/") && (want[path] != before[path] || !ok) && !got[path] {
			m.t.Errorf("diff of %d and %d lacks %s", left.Version(), version, path)
		}
	}
	for path := range before {
		if _, ok := want[path]; strings.HasPrefix(path, folder+"/") && !ok && !got[path] {
			m.t.Errorf("diff of %d and %d lacks %s, which was removed", left.Version(), version, path)
		}
	}
}

func TestDriveIsLikeItsModel(t *testing.T) {
	key := [32]byte{1, 2, 3}
	for name, o := range map[string]Options{
		"plain":     {},
		"encrypted": {EncryptionKey: &key},
		"dedup":     {Dedup: true},
		"compat":    {Compat: true},
		"blocks":    {BlockSize: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			rounds := 60
			if os.Getenv("BEVY_LONG") != "" {
				rounds = 1500
			}
			o.Durability = hypercore.Soon
			store := openStore(t, storage.NewMemory(), 'm')
			d, err := Open(store, o)
			must(t, err)
			m := &model{t: t, rng: rand.New(rand.NewPCG(7, uint64(len(name)))), d: d, now: map[string]file{}, versions: map[uint64]map[string]file{}}
			ctx := t.Context()
			for round := range rounds {
				m.versions[d.Version()] = maps.Clone(m.now)
				switch m.rng.IntN(8) {
				case 0, 1, 2, 3:
					m.change(driveWriter{d})
				case 4, 5:
					b, err := d.Batch(ctx)
					must(t, err)
					before := maps.Clone(m.now)
					for range m.rng.IntN(20) {
						m.change(batchWriter{b})
					}
					if m.rng.IntN(4) == 0 {
						b.Close()
						m.now = before
					} else {
						must(t, b.Flush(ctx))
					}
				case 6:
					must(t, d.Close())
					if d, err = Open(store, o); err != nil {
						t.Fatal(err)
					}
				case 7:
					versions := slices.Sorted(maps.Keys(m.versions))
					version := versions[m.rng.IntN(len(versions))]
					old, err := d.Checkout(version)
					must(t, err)
					m.check(old, m.versions[version], true)
					m.checkDiff(d, m.now, version, "")
					m.checkDiff(d, m.now, version, "/a")
					must(t, old.Close())
				}
				if round%10 == 0 {
					m.check(d, m.now, true)
				}
			}
			m.check(d, m.now, true)
			m.checkHistory(d)
			// Another who has only the key reads the same.
			if name == "plain" {
				key := d.Key()
				other := openDrive(t, store, Options{Key: &key})
				m.check(other, m.now, true)
			}
			must(t, d.Close())
		})
	}
}

// checkHistory makes the drive again from what was done to it.
func (m *model) checkHistory(d *Drive) {
	m.t.Helper()
	got := map[string]file{}
	for c, err := range d.History(m.t.Context(), hyperbee.HistoryOptions{}) {
		must(m.t, err)
		if c.Deleted {
			delete(got, c.Path)
		} else {
			got[c.Path] = file{exec: c.Executable, link: c.Linkname, meta: string(c.Metadata)}
		}
	}
	want := map[string]file{}
	for path, f := range m.now {
		f.data = ""
		want[path] = f
	}
	if !maps.Equal(got, want) {
		m.t.Errorf("history makes a drive of %d files, want %d", len(got), len(want))
	}
}

func TestWritersDoNotDisturbEachOther(t *testing.T) {
	ctx := t.Context()
	d := newDrive(t, Options{Durability: hypercore.Durable})
	data := func(i, j int) []byte { return bytes.Repeat([]byte{byte(i), byte(j)}, 1000*(1+i*j%90)) }
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 10 {
				path := fmt.Sprintf("/%d/%d", i, j)
				if j%2 == 0 {
					must(t, d.Put(ctx, path, data(i, j), PutOptions{}))
					continue
				}
				f, err := d.Create(ctx, path, PutOptions{})
				must(t, err)
				_, err = io.Copy(f, bytes.NewReader(data(i, j)))
				must(t, err)
				must(t, f.Close())
			}
		})
		wg.Go(func() {
			for range 20 {
				for e, err := range d.List(ctx, "", ListOptions{}) {
					must(t, err)
					var i, j int
					_, err := fmt.Sscanf(e.Path, "/%d/%d", &i, &j)
					must(t, err)
					got, err := d.ReadFile(ctx, e.Path)
					must(t, err)
					if !bytes.Equal(got, data(i, j)) {
						t.Errorf("%s: got other contents", e.Path)
					}
				}
			}
		})
	}
	wg.Wait()
	if got := len(paths(t, d, "/", ListOptions{})); got != 40 {
		t.Errorf("got %d files, want 40", got)
	}
}
