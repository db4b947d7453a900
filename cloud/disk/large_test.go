package disk

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/storage"
)

// reads counts what is asked of an engine.
type reads struct {
	storage.Engine
	n, writes int
}

func (r *reads) Apply(b *storage.Batch, d storage.Durability) error {
	r.writes++
	return r.Engine.Apply(b, d)
}

func (r *reads) Get(key []byte) ([]byte, error) { r.n++; return r.Engine.Get(key) }

func (r *reads) Scan(from, to []byte, f func(key, value []byte) bool) error {
	r.n++
	return r.Engine.Scan(from, to, f)
}

// count returns n, or with BEVY_LONG the number of a real large folder.
func count(n, large int) int {
	if long {
		return large
	}
	return n
}

// TestManyFiles keeps 1,000,000 files with BEVY_LONG, and 1,500 without:
// to begin takes as long with many as with none, to look at them takes little
// memory, and nothing is said of what is as it was.
func TestManyFiles(t *testing.T) {
	n := count(1_500, 1_000_000)
	d := newDevice(t, "a", onFaulty(&faulty{}))
	f := openReal(t, storage.NewMemory(), d.clock, 1, 1)
	index, err := storage.Disk{Dir: t.TempDir()}.Open()
	must(t, err)
	t.Cleanup(func() { must(t, d.k.Close()); must(t, index.Close()) })
	counted := &reads{Engine: index}
	d.c.engine, d.c.source = counted, cloudFolder{f.Folder}
	d.again()
	for i := range n {
		if i%500 == 0 {
			must(t, os.MkdirAll(d.at(fmt.Sprintf("/d%d/e%d", i/50_000, i/500)), 0o755))
		}
		must(t, os.WriteFile(d.at(fmt.Sprintf("/d%d/e%d/f%d", i/50_000, i/500, i)), fmt.Append(nil, i), 0o644))
	}
	d.sync()
	if s := d.k.Status(); s.Files != int64(n) || s.State != UpToDate {
		t.Fatalf("status %+v", s)
	}
	counted.n = 0
	d.again()
	if s := d.k.Status(); counted.n > 1 || s.Files != int64(n) {
		t.Errorf("to begin took %d reads: %+v", counted.n, s)
	}
	counted.writes = 0
	before, err := f.Version(t.Context())
	must(t, err)
	var was, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&was)
	d.sync()
	runtime.GC()
	runtime.ReadMemStats(&now)
	t.Logf("%d files: %d reads of the index, %d KiB kept", n, counted.n, (int64(now.HeapInuse)-int64(was.HeapInuse))>>10)
	if counted.writes > 0 {
		t.Errorf("a look at what is as it was wrote %d times to the index", counted.writes)
	}
	if counted.n > n/100+50 {
		t.Errorf("a look at %d files took %d reads of the index", n, counted.n)
	}
	if kept := int64(now.HeapInuse) - int64(was.HeapInuse); kept > 16<<20 {
		t.Errorf("a look keeps %d bytes", kept)
	}
	after, err := f.Version(t.Context())
	must(t, err)
	if !after.Covers(before) || !before.Covers(after) {
		t.Errorf("version %v after %v", after, before)
	}
}

// TestManyRenames moves 100,000 files with BEVY_LONG: none is read again.
func TestManyRenames(t *testing.T) {
	n := count(500, 100_000)
	read := 0
	a := newDevice(t, "a", onFaulty(&faulty{hook: func(op, path string) error {
		if op == "open" && !strings.HasSuffix(path, IgnoreFile) {
			read++
		}
		return nil
	}}))
	b := newDevice(t, "b", onFaulty(&faulty{}))
	must(t, os.Mkdir(a.at("/old"), 0o755))
	for i := range n {
		must(t, os.WriteFile(a.at(fmt.Sprint("/old/f", i)), fmt.Append(nil, i), 0o644))
	}
	a.sync()
	meet(a.cloud, b.cloud, true)
	b.sync()
	read = 0
	must(t, os.Mkdir(a.at("/a"), 0o755))
	for i := range n { // half of them come before, and half after where they were
		must(t, os.Rename(a.at(fmt.Sprint("/old/f", i)), a.at(fmt.Sprintf("/%s/g%d", []string{"a", "old"}[i%2], i))))
	}
	a.sync()
	if read > 0 {
		t.Errorf("%d files were read again", read)
	}
	meet(a.cloud, b.cloud, true)
	b.sync()
	a.sync()
	a.wantCalm()
	b.wantCalm()
	if got := b.k.Status().Files; got != int64(n) {
		t.Errorf("%d files", got)
	}
	if !long {
		same(t, "other device", b.tree(), a.tree())
	}
}

func TestDeepTreesAndLongNames(t *testing.T) {
	if windows {
		t.Skip("Windows has no such paths")
	}
	a, b := newDevice(t, "a"), newDevice(t, "b")
	t.Chdir(a.dir)
	name := strings.Repeat("n", 255)
	deep := ""
	for len(deep) < 3_500 {
		deep += "/" + name[:min(255, 20+len(deep))]
	}
	// The system takes no path that long at once.
	at := a.dir
	for part := range strings.SplitSeq(deep[1:], "/") {
		must(t, os.Chdir(at))
		must(t, os.Mkdir(part, 0o755))
		at = part
	}
	must(t, os.Chdir(at))
	must(t, os.WriteFile(name, []byte("deep"), 0o644))
	must(t, os.Chdir(filepath.Dir(a.dir)))
	a.sync()
	meet(a.cloud, b.cloud, true)
	b.sync()
	b.sync()
	e, err := b.cloud.stat(t.Context(), deep+"/"+name)
	must(t, err)
	r, err := b.k.x.row(deep + "/" + name)
	must(t, err)
	if e == nil || r == nil || r.size != 4 {
		t.Errorf("entry %v, row %v: %+v", e, r, b.k.Status())
	}
	a.wantCalm()
	b.wantCalm()
	// A path of more than the cloud can have is left alone.
	must(t, os.Chdir(a.dir))
	for part := range strings.SplitSeq(deep[1:], "/") {
		must(t, os.Chdir(part))
	}
	for range 4 {
		must(t, os.Mkdir("x"+name[1:], 0o755))
		must(t, os.Chdir("x"+name[1:]))
	}
	must(t, os.Chdir(filepath.Dir(a.dir)))
	a.write("/other", "goes on")
	a.sync()
	a.wantNotice(CodeNameHere)
	if e, err := a.cloud.stat(t.Context(), "/other"); e == nil || err != nil {
		t.Error("what has a short name is not put")
	}
}

// A large file, whose memory is let go of while it is written, is whole, and a
// disk that fails then is not taken for one that did not.
func TestALargeFileIsWhole(t *testing.T) {
	created, err := os.Create(filepath.Join(t.TempDir(), "large"))
	must(t, err)
	f, h := &osFile{File: created}, sha256.New()
	random, part := rand.NewChaCha8([32]byte{1}), make([]byte, 300<<10)
	for f.wrote < keepBytes+3*hurryBytes {
		random.Read(part)
		h.Write(part)
		_, err := f.Write(part)
		must(t, err)
	}
	must(t, f.Sync())
	got, err := os.ReadFile(created.Name())
	must(t, err)
	if sha256.Sum256(got) != [32]byte(h.Sum(nil)) {
		t.Errorf("the %d bytes on the disk are not those that were written", len(got))
	}
	must(t, f.Close())
	if err := letGo(created, 0, hurryBytes); (err != nil) != (runtime.GOOS == "linux") {
		t.Errorf("what can't be written: %v", err)
	}
}
