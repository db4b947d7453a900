package mirrordrive

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
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/localdrive"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openDrive(t testing.TB, engine storage.Engine, o hyperdrive.Options) *hyperdrive.Drive {
	t.Helper()
	primary := [32]byte(bytes.Repeat([]byte{'m'}, 32))
	store, err := corestore.Open(engine, corestore.Options{PrimaryKey: &primary})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	d, err := hyperdrive.Open(store, o)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

func newDrive(t testing.TB) *hyperdrive.Drive {
	t.Helper()
	return openDrive(t, storage.NewMemory(), hyperdrive.Options{Durability: hypercore.Soon})
}

func openFolder(t testing.TB, dir string) *localdrive.Folder {
	t.Helper()
	f, err := localdrive.Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

// run mirrors, and returns all that was done but for what is equal.
func run(t testing.TB, src, dst Side, o Options) (ops []string, total Total) {
	t.Helper()
	for op, err := range Mirror(t.Context(), src, dst, o) {
		must(t, err)
		total.Count(op)
		if op.Kind == Skip && op.Reason == nil {
			t.Errorf("%s was skipped for no reason", op.Path)
		}
		if op.Kind != Equal {
			what := op.Kind.String()
			if op.Metadata {
				what = "metadata"
			}
			ops = append(ops, what+" "+op.Path)
		}
	}
	return ops, total
}

// contents is what a side has: for each path its contents, times and modes.
func contents(t testing.TB, s Side) map[string]string {
	t.Helper()
	out := map[string]string{}
	for e, err := range s.list(t.Context(), "/", nil, false) {
		must(t, err)
		if e.IsLink() {
			out[e.Path] = "-> " + e.Linkname
			continue
		}
		r, err := s.open(t.Context(), e)
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, err)
		must(t, r.Close())
		out[e.Path] = fmt.Sprintf("%v %v %x", e.Mode(), e.ModTime().UTC(), data)
	}
	return out
}

func wantSame(t testing.TB, src, dst Side) {
	t.Helper()
	a, b := contents(t, src), contents(t, dst)
	if !maps.Equal(a, b) {
		for _, p := range slices.Sorted(maps.Keys(a)) {
			if a[p] != b[p] {
				t.Errorf("%s: %.200q and %.200q", p, a[p], b[p])
			}
		}
		for p := range b {
			if _, ok := a[p]; !ok {
				t.Errorf("%s is only in the target", p)
			}
		}
		t.FailNow()
	}
}

func wantOps(t testing.TB, got []string, want ...string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

var names = []string{"a", "b", "a-b", "a.txt", "a0", "Ä", "c d", "e\nf", "b!", "~"}

func randomPath(r *rand.Rand) string {
	p := ""
	for range 1 + r.IntN(3) {
		p += "/" + names[r.IntN(len(names))]
	}
	return p
}

// randomContents are often the same, and sometimes large.
func randomContents(r *rand.Rand) []byte {
	switch r.IntN(12) {
	case 0:
		return bytes.Repeat([]byte{byte(r.IntN(3))}, 100<<10+r.IntN(100<<10))
	case 1:
		return nil
	}
	return bytes.Repeat([]byte{byte(r.IntN(3))}, r.IntN(4))
}

// newTime returns a time that no other file has: files of the same size and time
// are taken to be the same.
func newTime(r *rand.Rand) time.Time { return time.Unix(r.Int64N(1e9), r.Int64N(1e9)).UTC() }

// randomModes are those that a folder can be read with.
var randomModes = []fs.FileMode{0o644, 0o600, 0o755, 0o700, 0o444}

// changeFolder makes n random changes.
func changeFolder(t testing.TB, r *rand.Rand, f *localdrive.Folder, n int) {
	ctx := t.Context()
	for range n {
		p := randomPath(r)
		switch r.IntN(8) {
		case 0:
			_ = f.Delete(ctx, p) // a folder
		case 1:
			_ = f.Symlink(ctx, p, []string{"x", "/x/y", "../z"}[r.IntN(3)], false)
		case 2:
			_ = f.SetMode(ctx, p, randomModes[r.IntN(len(randomModes))], newTime(r))
		case 3:
			_ = os.RemoveAll(filepath.Join(f.Dir(), filepath.FromSlash(p))) // where a folder or a file may come
		default:
			w, err := f.Create(ctx, p, localdrive.CreateOptions{Mode: randomModes[r.IntN(len(randomModes))], ModTime: newTime(r)})
			if err != nil {
				continue // a file where a folder is, or so
			}
			_, err = w.Write(randomContents(r))
			must(t, err)
			must(t, w.Close())
		}
	}
}

// interrupt mirrors until a random operation, in one of two ways.
func interrupt(t testing.TB, r *rand.Rand, src, dst Side, o Options) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	left := r.IntN(12)
	stop := r.IntN(2) == 0
	o.Progress = func(Progress) {
		if left == 0 {
			cancel()
		}
	}
	for _, err := range Mirror(ctx, src, dst, o) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			return
		}
		if left--; left < 0 && stop {
			return
		}
		if left < 0 {
			cancel()
		}
	}
}

// TestMirrorIsTheSame changes a folder at random, and mirrors it to a drive, to
// another and back to another folder, with interruptions.
func TestMirrorIsTheSame(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the names are not all possible")
	}
	rounds := 6
	if os.Getenv("BEVY_LONG") != "" {
		rounds = 300
	}
	for _, dedup := range []bool{false, true} {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 1))
		from, to := openFolder(t, t.TempDir()), openFolder(t, t.TempDir())
		engine := storage.NewMemory()
		o := Options{Dedup: dedup}
		d, e := openDrive(t, engine, hyperdrive.Options{Name: "one"}), newDrive(t)
		for range rounds {
			changeFolder(t, r, from, 30)
			for _, pair := range [][2]Side{{Folder(from), Drive(d)}, {Drive(d), Drive(e)}, {Drive(e), Folder(to)}} {
				src, dst := pair[0], pair[1]
				for r.IntN(2) == 0 {
					interrupt(t, r, src, dst, o)
				}
				before := contents(t, dst)
				dry := o
				dry.DryRun = true
				plan, planned := run(t, src, dst, dry)
				if !maps.Equal(before, contents(t, dst)) {
					t.Fatal("a dry run changes something")
				}
				ops, total := run(t, src, dst, o)
				slices.Sort(plan)
				slices.Sort(ops)
				if !slices.Equal(plan, ops) || planned != total {
					t.Fatalf("a dry run tells\n%q, and it was\n%q\n%+v %+v", plan, ops, planned, total)
				}
				wantSame(t, src, dst)
				if ops, _ := run(t, src, dst, o); len(ops) > 0 {
					t.Fatalf("done again: %q", ops)
				}
			}
			wantSame(t, Folder(from), Folder(to))
			for _, err := range to.List(t.Context(), "/", localdrive.ListOptions{}) {
				must(t, err)
			}
			if left := leftovers(t, to.Dir()); len(left) > 0 {
				t.Fatalf("left behind: %q", left)
			}
		}
	}
}

// leftovers are the temporary files in a folder.
func leftovers(t testing.TB, dir string) (out []string) {
	must(t, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(p, ".localdrive.tmp") {
			out = append(out, p)
		}
		return err
	}))
	return out
}
