package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// faulty is a disk on which things go wrong.
type faulty struct {
	files
	hook    func(op, path string) error // before each step that changes something, and before open and list
	bomb    *bomb
	witness *witness
	fold    bool // takes names that differ in case for one another
	room    func() uint64
}

func (f *faulty) step(op, path string) error {
	if f.hook != nil {
		if err := f.hook(op, path); err != nil {
			return err
		}
	}
	if op == "open" || op == "list" || op == "lstat" {
		return nil
	}
	return f.bomb.point()
}

func (f *faulty) free() (uint64, error) {
	if f.room == nil {
		return f.files.free()
	}
	return f.room(), nil
}

// real is the path that this file system takes one for.
func (f *faulty) real(path string) (string, error) {
	if !f.fold || path == "" {
		return path, nil
	}
	parent, name := split(path)
	parent, err := f.real(parent)
	if err != nil {
		return "", err
	}
	at, err := f.files.list(parent)
	if err != nil {
		return parent + "/" + name, nil
	}
	defer at.close()
	names, err := at.names()
	for _, n := range names {
		if n = strings.TrimSuffix(n, "/"); strings.EqualFold(n, name) {
			return parent + "/" + n, nil
		}
	}
	return parent + "/" + name, err
}

func (f *faulty) list(path string) (listing, error) {
	if err := f.step("list", path); err != nil {
		return nil, err
	}
	return f.files.list(path)
}

func (f *faulty) lstat(path string) (stat, error) {
	if err := f.step("lstat", path); err != nil {
		return stat{}, err
	}
	real, err := f.real(path)
	if err != nil {
		return stat{}, err
	}
	s, err := f.files.lstat(real)
	if err == nil && real != path {
		return s, errClash
	}
	return s, err
}

func (f *faulty) open(path string) (file, stat, error) {
	if err := f.step("open", path); err != nil {
		return nil, stat{}, err
	}
	return f.files.open(path)
}

func (f *faulty) create(path string) (file, error) {
	if err := f.step("create", path); err != nil {
		return nil, err
	}
	real, err := f.real(path)
	if err != nil {
		return nil, err
	}
	created, err := f.files.create(real)
	return &faultyFile{created, f, path}, err
}

func (f *faulty) finish(path string, mode fs.FileMode, mtime int64) error {
	if err := f.step("finish", path); err != nil {
		return err
	}
	return f.files.finish(path, mode, mtime)
}

func (f *faulty) mkdir(path string) error {
	if err := f.step("mkdir", path); err != nil {
		return err
	}
	real, err := f.real(path)
	if err != nil {
		return err
	}
	return f.files.mkdir(real)
}

func (f *faulty) symlink(target, path string) error {
	if err := f.step("symlink", path); err != nil {
		return err
	}
	return f.files.symlink(target, path)
}

func (f *faulty) rename(from, to string, isNew bool) error {
	if err := f.step("rename", to); err != nil {
		return err
	}
	real, err := f.real(to)
	if err != nil {
		return err
	}
	if f.witness != nil {
		f.witness.renamed(from, to)
	}
	return f.files.rename(from, real, isNew)
}

func (f *faulty) remove(path string) error {
	if err := f.step("remove", path); err != nil {
		return err
	}
	if f.witness != nil {
		f.witness.removed(path)
	}
	return f.files.remove(path)
}

// syncDir and Sync wait for no disk: no test cuts the power of the machine.
func (f *faulty) syncDir(path string) error {
	if f.witness != nil {
		f.witness.syncedDir(path)
	}
	return f.step("sync", path)
}

func (f *faulty) sync() error { return f.step("sync all", "") }

func (w *faultyFile) Sync() error {
	if w.f.witness != nil {
		w.f.witness.mu.Lock()
		defer w.f.witness.mu.Unlock()
		w.f.witness.synced[w.path] = true
	}
	return nil
}

type faultyFile struct {
	file
	f    *faulty
	path string
}

func (w *faultyFile) Write(p []byte) (int, error) {
	if err := w.f.step("write", w.path); err != nil {
		return 0, err
	}
	return w.file.Write(p)
}

// shaky is an engine that ends with the bomb.
type shaky struct {
	storage.Engine
	bomb *bomb
}

func (s shaky) Apply(b *storage.Batch, d storage.Durability) error {
	if err := s.bomb.point(); err != nil {
		return err
	}
	return s.Engine.Apply(b, d)
}

// A witness sees that the index says nothing of the disk before it is durable
// there, and that no file is put in its place before it is.
type witness struct {
	t   *testing.T
	dir string

	mu     sync.Mutex
	placed map[string]bool // paths whose names are not synced
	gone   map[string]bool
	synced map[string]bool // temporary files
	seen   int
}

func (w *witness) renamed(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if info, err := os.Lstat(w.dir + from); err == nil && info.Mode().IsRegular() && !w.synced[from] {
		w.t.Errorf("%s is put in its place before it is on the disk", to)
	}
	w.placed[to] = true
	w.seen++
	delete(w.gone, to)
}

func (w *witness) removed(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.placed, path)
	w.gone[path] = true
}

func (w *witness) syncedDir(dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, paths := range []map[string]bool{w.placed, w.gone} {
		for p := range paths {
			if parent, name := split(p); parent == dir && !isTemp(name) {
				delete(paths, p)
			}
		}
	}
}

// look compares the index with what may be lost.
func (w *witness) look(e storage.Engine) {
	w.mu.Lock()
	defer w.mu.Unlock()
	row := func(path string) *row {
		value, err := e.Get([]byte("disk/photos/f" + path))
		if err != nil {
			return nil
		}
		r, err := readRow(value)
		must(w.t, err)
		return r
	}
	for p := range w.placed {
		info, err := os.Lstat(w.dir + p)
		if err != nil {
			continue
		}
		if r := row(p); r != nil && r.kind == kindFile && r.inode == statOf(info).inode {
			w.t.Errorf("the index has %s before its name is on the disk", p)
		}
	}
	for p := range w.gone {
		if _, name := split(p); !isTemp(name) && row(p) == nil {
			w.t.Errorf("the index forgets %s before it is gone from the disk", p)
		}
	}
}

func TestTheIndexComesAfterTheDisk(t *testing.T) {
	w := &witness{t: t, placed: map[string]bool{}, gone: map[string]bool{}, synced: map[string]bool{}}
	a := newDevice(t, "a", onFaulty(&faulty{}))
	b := newDevice(t, "b", onFaulty(&faulty{witness: w}), func(c *config) {
		w.dir = c.dir
		c.engine = watched{c.engine, w}
	})
	for i := range 40 {
		a.write(fmt.Sprintf("/d%d/%d", i%3, i), fmt.Sprint(i))
	}
	meets := func() {
		a.sync()
		meet(a.cloud, b.cloud, true)
		b.sync()
	}
	meets()
	for i := range 40 {
		switch p := fmt.Sprintf("/d%d/%d", i%3, i); i % 4 {
		case 0:
			a.write(p, "changed "+p)
		case 1:
			a.remove(p)
		case 2:
			a.rename(p, "/moved"+p)
		}
	}
	meets()
	b.sync()
	a.sync()
	same(t, "both", b.tree(), a.tree())
	if w.seen == 0 {
		t.Error("the witness has seen nothing")
	}
}

type watched struct {
	storage.Engine
	w *witness
}

func (e watched) Apply(b *storage.Batch, d storage.Durability) error {
	err := e.Engine.Apply(b, d)
	e.w.look(e.Engine)
	return err
}

// onFaulty has a device use a faulty disk.
func onFaulty(f *faulty) func(*config) {
	return func(c *config) {
		open := opener()
		c.open = func(dir string) (files, error) {
			real, err := open(dir)
			if err != nil {
				return nil, err
			}
			one := *f
			one.files = real
			return &one, nil
		}
	}
}

func TestMassDeletionIsAQuestion(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	for i := range 12 {
		a.write("/d/"+string(rune('a'+i)), "x")
	}
	converge(t, a, b)
	before := b.tree()
	a.remove("/d")
	converge(t, a, b)
	same(t, "other device", b.tree(), before)
	if s := a.k.Status(); s.State != Paused || s.Gone != 12 || s.Why == "" {
		t.Errorf("status %+v", s)
	}
	a.wantNotice(CodeMassDelete)
	// Other things go on, and so does the question after a new start.
	a.write("/new", "new")
	a.again()
	converge(t, a, b)
	if b.read("/new") != "new" || b.read("/d/a") != "x" {
		t.Error(b.tree())
	}
	a.wantNotice(CodeMassDelete)

	must(t, a.k.Restore(t.Context()))
	converge(t, a, b)
	same(t, "restored", a.tree(), b.tree())
	if a.read("/d/c") != "x" {
		t.Error(a.tree())
	}
	a.wantCalm()

	a.remove("/d")
	a.sync()
	a.wantNotice(CodeMassDelete)
	must(t, a.k.Confirm(t.Context()))
	a.wantCalm()
	converge(t, a, b)
	same(t, "confirmed", b.tree(), "/new \"new\"\n")
}

func TestGuardBites(t *testing.T) {
	for _, c := range []struct {
		files, removed, gone int64
		ask                  bool
	}{
		{1000, 0, 100, false},
		{1000, 0, 500, false},
		{1000, 0, 501, true},
		{150, 0, 100, false},
		{150, 0, 101, true},
		{20, 0, 17, false},
		{20, 0, 18, true},
		{20, 0, 20, true},
		{9, 0, 9, false},
		{10, 0, 10, true},
		{700, 300, 250, true}, // in several steps
		{700, 300, 199, false},
		{1000, 0, 0, false},
	} {
		r := &round{k: &Keeper{}, x: &index{}, now: fakeStart}
		r.x.files.Store(c.files)
		r.k.removed.since, r.k.removed.n = fakeStart, c.removed
		if got := r.guard(c.gone); got != c.ask {
			t.Errorf("%+v: asks %v", c, got)
		}
	}
}

func TestMovesAreNoDeletions(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	for i := range 120 {
		a.write("/z/old/"+string(rune('a'+i%26))+"/"+strings.Repeat("n", i+1)[:min(i+1, 200)], strings.Repeat("c", i))
	}
	converge(t, a, b)
	hook := ""
	a.k.c.open = func(dir string) (files, error) {
		real, err := opener()(dir)
		return &faulty{files: real, hook: func(op, path string) error {
			if op == "open" && !strings.HasSuffix(path, IgnoreFile) {
				hook = path
			}
			return nil
		}}, err
	}
	for _, to := range []string{"/a/before", "/zz/after"} {
		from := "/z/old"
		if to == "/zz/after" {
			from = "/a/before"
		}
		a.rename(from, to)
		a.sync()
		if hook != "" {
			t.Errorf("%s was read", hook)
		}
		a.wantCalm()
	}
	converge(t, a, b)
	same(t, "other device", b.tree(), a.tree())
}

func TestAFolderThatIsGoneRemovesNothing(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	a.write("/x", "1")
	a.write("/y", "2")
	converge(t, a, b)
	before := b.tree()
	aside := a.dir + "-aside"
	must(t, os.Rename(a.dir, aside))
	converge(t, a, b)
	a.wantNotice(CodeRootGone)
	same(t, "other device", b.tree(), before)
	// As with a disk that is not mounted, there is an empty folder.
	must(t, os.Mkdir(a.dir, 0o755))
	converge(t, a, b)
	if !windows {
		a.wantNotice(CodeRootOther)
	}
	same(t, "other device", b.tree(), before)
	must(t, os.Remove(a.dir))
	must(t, os.Rename(aside, a.dir))
	converge(t, a, b)
	a.wantCalm()
	same(t, "back", a.tree(), before)
	// A copy in its place is known by its files.
	must(t, os.Rename(a.dir, aside))
	must(t, os.CopyFS(a.dir, os.DirFS(aside)))
	for _, name := range []string{"x", "y"} {
		info, err := os.Stat(aside + "/" + name)
		must(t, err)
		must(t, os.Chtimes(a.at(name), info.ModTime(), info.ModTime()))
	}
	converge(t, a, b)
	a.wantCalm()
	same(t, "copied", a.tree(), before)
	// Another folder is accepted when asked for.
	must(t, os.RemoveAll(a.dir))
	must(t, os.Mkdir(a.dir, 0o755))
	a.write("/z", "3")
	a.sync()
	must(t, a.k.Here(t.Context()))
	converge(t, a, b)
	if windows {
		return
	}
	same(t, "new", b.tree(), a.tree())
}

func TestWhatCannotBeReadIsKept(t *testing.T) {
	bad := ""
	a := newDevice(t, "a", onFaulty(&faulty{hook: func(op, path string) error {
		if bad != "" && (op == "open" || op == "list" || op == "lstat") && strings.HasPrefix(path, bad) {
			return &fs.PathError{Op: op, Path: path, Err: fs.ErrPermission}
		}
		return nil
	}}))
	b := newDevice(t, "b")
	a.write("/d/in", "1")
	a.write("/d-after", "2")
	a.write("/e", "3")
	converge(t, a, b)
	bad = "/d"
	a.write("/e", "changed")
	a.write("/d/in", "not seen")
	converge(t, a, b)
	if b.read("/e") != "changed" || b.read("/d/in") != "1" || b.read("/d-after") != "2" {
		t.Error(b.tree())
	}
	a.wantNotice(CodeUnreadable)
	bad = "/e"
	a.write("/e", "not seen either")
	converge(t, a, b)
	if b.read("/e") != "changed" || b.read("/d/in") != "not seen" {
		t.Error(b.tree())
	}
	a.wantNotice(CodeUnreadable, "/e")
	bad = ""
	converge(t, a, b)
	a.wantCalm()
	same(t, "other device", b.tree(), a.tree())
}

func TestSpecialFilesAreLeftAlone(t *testing.T) {
	if windows {
		t.Skip("Windows has no such thing")
	}
	a, b := newDevice(t, "a"), newDevice(t, "b")
	must(t, mkfifo(a.at("/pipe")))
	a.write("/x", "1")
	converge(t, a, b)
	a.wantNotice(CodeSpecial, "/pipe")
	same(t, "other device", b.tree(), "/x \"1\"\n")
}

// TestAFullDiskGoesOnOnceThereIsRoom: within two seconds, and without looking at the
// folder meanwhile.
func TestAFullDiskGoesOnOnceThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		room, looks := uint64(0), 0
		a := newDevice(t, "a")
		b := newDevice(t, "b", func(c *config) { c.clock = clock.System }, onFaulty(&faulty{room: func() uint64 {
			mu.Lock()
			defer mu.Unlock()
			return room
		}, hook: func(op, path string) error {
			mu.Lock()
			defer mu.Unlock()
			if op == "list" {
				looks++
			}
			if room == 0 && op == "write" {
				return syscall.ENOSPC
			}
			return nil
		}}))
		a.write("/x", "content")
		a.sync()
		meet(a.cloud, b.cloud, true)
		ctx, stop := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() {
			if err := b.k.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		b.wantNotice(CodeDiskFull)
		mu.Lock()
		before := looks
		mu.Unlock()
		time.Sleep(10 * time.Second)
		mu.Lock()
		if looks != before {
			t.Errorf("it looked at the folder %d times while the disk was full", looks-before)
		}
		room = roomMin
		mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if b.read("/x") != "content" {
			t.Errorf("/x is %q", b.read("/x"))
		}
		b.wantCalm()
		stop()
		work.Wait()
		must(t, b.k.Close())
	})
}

func TestAFullDiskWaits(t *testing.T) {
	full := true
	a := newDevice(t, "a")
	b := newDevice(t, "b", onFaulty(&faulty{hook: func(op, path string) error {
		if full && op == "write" {
			return syscall.ENOSPC
		}
		return nil
	}}))
	for _, p := range []string{"/x", "/d/y", "/d/z"} {
		a.write(p, "content of "+p)
	}
	b.write("/mine", "still goes out")
	a.sync()
	b.sync()
	meet(a.cloud, b.cloud, true)
	b.sync()
	a.sync()
	if s := b.k.Status(); s.State != Paused || a.read("/mine") == "" {
		t.Errorf("status %+v", s)
	}
	b.wantNotice(CodeDiskFull)
	if strings.Contains(b.tree(), tempPrefix) {
		t.Errorf("temporary files are left:\n%s", b.tree())
	}
	full = false
	converge(t, a, b)
	b.wantCalm()
	same(t, "both", b.tree(), a.tree())
}

func TestNamesThatThisDiskCannotHave(t *testing.T) {
	a := newDevice(t, "a")
	b := newDevice(t, "b", onFaulty(&faulty{fold: true}))
	a.write("/Readme", "upper")
	a.write("/readme", "lower")
	a.write("/D/x", "1")
	a.write("/d/x", "2")
	a.write("/d/y", "3")
	converge(t, a, b)
	// Of names that it takes for one another, it has one, and the cloud all.
	same(t, "folding disk", b.tree(), "/D \"/\"\n/D/x \"1\"\n/Readme \"upper\"\n")
	b.wantNotice(CodeClash, "/d", "/d/x", "/d/y", "/readme")
	if a.read("/readme") != "lower" || a.read("/d/y") != "3" || a.read("/Readme") != "upper" {
		t.Error(a.tree())
	}
	b.write("/Readme", "edited there")
	converge(t, a, b)
	if a.read("/Readme") != "edited there" || a.read("/readme") != "lower" {
		t.Error(a.tree())
	}
	// What makes room lets the other come.
	a.remove("/Readme")
	a.rename("/D", "/e")
	converge(t, a, b)
	b.wantCalm()
	same(t, "folding disk", b.tree(), a.tree())
	// A name in another case is a name of its own.
	b.rename("/readme", "/README")
	converge(t, a, b)
	same(t, "both", a.tree(), b.tree())
	a.rename("/README", "/readme")
	converge(t, a, b)
	same(t, "both", a.tree(), b.tree())
	b.wantCalm()
}

func TestIllegalNames(t *testing.T) {
	long := strings.Repeat("x", 255)
	for _, c := range []struct {
		path       string
		ok, onWins bool
	}{
		{"/a", true, true}, {"/..a/...b/c..d", true, true}, {"/" + long, true, true}, {"/.hidden", true, true}, {"/COM10", true, true}, {"/ä/日本", true, true},
		{`/a\b`, true, false}, {"/con", true, false}, {"/a/NUL.txt", true, false}, {"/LPT³", true, false}, {"/a./b", true, false}, {"/a ", true, false}, {"/a:b", true, false}, {"/a\nb", true, false},
		{"", false, false}, {"/", false, false}, {"a", false, false}, {"/..", false, false}, {"/a/../b", false, false}, {"//a", false, false}, {"/a/", false, false},
		{"/a\x00b", false, false}, {"/a\xffb", false, false}, {"/" + long + "x", false, false}, {"/.bevy-0123456789abcdef.tmp", false, false}, {"/.BEVY-0123456789ABCDEF.TMP", false, false},
	} {
		for _, on := range []bool{false, true} {
			want := c.ok
			if on {
				want = c.onWins
			}
			if err := checkPath(c.path, on); (err == nil) != want || err != nil && !errors.Is(err, errName) {
				t.Errorf("path %.40q, on Windows %v: %v", c.path, on, err)
			}
		}
	}
	a := newDevice(t, "a")
	a.cloud.mu.Lock()
	a.cloud.takeLocked(saying{id: "x1", time: 1, e: entry{path: "/" + long + "y", kind: kindDir}})
	a.cloud.takeLocked(saying{id: "x2", time: 1, e: entry{path: "/../out", kind: kindDir}})
	a.cloud.takeLocked(saying{id: "x3", time: 1, e: entry{path: "/fine", kind: kindDir}})
	a.cloud.mu.Unlock()
	a.sync()
	a.wantNotice(CodeName)
	same(t, "disk", a.tree(), "/fine \"/\"\n")
}

func TestAnEditWhileWritingIsKept(t *testing.T) {
	a := newDevice(t, "a")
	var b *device
	edit := func() {}
	b = newDevice(t, "b", onFaulty(&faulty{hook: func(op, path string) error {
		if op == "write" {
			edit()
		}
		return nil
	}}))
	a.write("/old", "1")
	converge(t, a, b)
	a.write("/old", "2 from a")
	a.write("/new", "3 from a")
	a.sync()
	meet(a.cloud, b.cloud, true)
	var once sync.Once
	// When b looked, nothing had happened to the two yet.
	b.k.c.source = lateEdit{b.cloud, func() {
		once.Do(func() {
			b.write("/old", "edited on b")
			b.write("/new", "made on b")
		})
	}}
	edit = func() { b.k.c.source.(lateEdit).edit() }
	b.sync()
	if b.read("/old") != "edited on b" || b.read("/new") != "made on b" {
		t.Errorf("an edit was written over:\n%s", b.tree())
	}
	edit = func() {}
	converge(t, a, b)
	same(t, "both", a.tree(), b.tree())
	for _, want := range []string{"2 from a", "3 from a", "edited on b", "made on b"} {
		if !strings.Contains(a.tree(), want) {
			t.Errorf("%q is lost:\n%s", want, a.tree())
		}
	}
}

// TestWhatIsRemovedElsewhereInTheRoundThatPutIt is removed here, too.
func TestWhatIsRemovedElsewhereInTheRoundThatPutIt(t *testing.T) {
	for _, real := range []bool{false, true} {
		for _, first := range []bool{true, false} {
			w := newWorld(t, 2, real)
			a, b := w.devices[0], w.devices[1]
			if !first {
				b.write("/old", "old")
				w.rest()
			}
			done := false
			a.k.c.open = func(dir string) (files, error) {
				real, err := opener()(dir)
				return &faulty{files: real, hook: func(op, path string) error {
					if op != "open" || path != "/later" || done {
						return nil
					}
					done = true
					w.meet(0, 1)
					b.sync()
					b.remove("/large")
					b.sync()
					w.meet(0, 1)
					return nil
				}}, err
			}
			a.write("/large", strings.Repeat("large", smallFile)) // it is put for itself
			a.write("/later", "later")
			a.sync()
			if b.read("/large") == a.read("/large") {
				t.Fatal("it was not removed")
			}
			w.rest()
			same(t, "the other", b.tree(), a.tree())
			if strings.Contains(a.tree(), "/large") {
				t.Errorf("real %v, first %v: it is still there:\n%s", real, first, a.tree())
			}
		}
	}
}

// TestARemovalElsewhereIsNoNewsToWhoHasRemoved: one of an older version does not bring
// the newer one back.
func TestARemovalElsewhereIsNoNewsToWhoHasRemoved(t *testing.T) {
	for _, real := range []bool{false, true} {
		w := newWorld(t, 2, real)
		a, b := w.devices[0], w.devices[1]
		for _, p := range []string{"/removed", "/moved", "/changed", "/mode"} {
			b.write(p, "old")
		}
		w.rest()
		for _, p := range []string{"/removed", "/moved", "/changed", "/mode"} {
			a.write(p, "newer "+p)
			b.remove(p)
		}
		a.sync()
		b.sync()
		a.remove("/removed")
		a.rename("/moved", "/to")
		a.write("/changed", "newest")
		must(t, os.Chmod(a.at("/mode"), 0o600))
		w.meet(0, 1)
		w.rest()
		same(t, "the other", b.tree(), a.tree())
		same(t, "both", a.tree(), `/changed "newest"
/mode "newer /mode"
/to "newer /moved"
`)
		for _, d := range w.devices {
			if s, err := os.Stat(d.at("/mode")); err != nil || s.Mode() != 0o600 {
				t.Errorf("%v, %v", s, err)
			}
		}
	}
}

type lateEdit struct {
	*fakeFolder
	edit func()
}

func TestFilesThatChangeAreReadLater(t *testing.T) {
	var a *device
	change := true
	n := 0
	a = newDevice(t, "a", onFaulty(&faulty{hook: func(op, path string) error {
		// It is written to between the look at it and the reading of it.
		if change && op == "open" && path == "/busy" {
			n++
			a.write("/busy", strings.Repeat("x", n))
		}
		return nil
	}}))
	a.write("/busy", "")
	a.write("/calm", "1")
	a.sync()
	a.wantNotice(CodeUnstable, "/busy")
	same(t, "cloud", a.cloud.tree(), "/calm \"1\"\n")
	a.sync()
	if n != 1 {
		t.Errorf("it was read %d times at one time", n)
	}
	a.clock.Advance(unstableMin)
	a.sync()
	a.clock.Advance(unstableMin)
	a.sync()
	if n != 2 {
		t.Errorf("it was read %d times, the last time too soon", n)
	}
	change = false
	a.clock.Advance(unstableMin)
	a.sync()
	a.wantCalm()
	same(t, "cloud", a.cloud.tree(), a.tree())
}

// TestAFileThatChangedWhileItWasReadAndWentIsNotWaitedFor: else rounds follow on one
// another for ever.
func TestAFileThatChangedWhileItWasReadAndWentIsNotWaitedFor(t *testing.T) {
	var a *device
	a = newDevice(t, "a", onFaulty(&faulty{hook: func(op, path string) error {
		if op == "open" && path == "/busy" {
			a.write("/busy", "longer")
		}
		return nil
	}}))
	a.write("/busy", "")
	a.sync()
	a.remove("/busy")
	for range 3 {
		must(t, a.k.look(t.Context(), false))
		a.clock.Advance(unstableMin)
	}
	if len(a.k.unstable) > 0 {
		t.Errorf("it waits for %v", a.k.unstable)
	}
}

func TestSparseFoldersHaveWhatWasAskedFor(t *testing.T) {
	a := newDevice(t, "a")
	b := newDevice(t, "b", func(c *config) { c.sparse = true })
	a.write("/d/x", "1")
	a.write("/d/y", "2")
	a.write("/z", "3")
	b.write("/mine", "4")
	converge(t, a, b)
	same(t, "sparse", b.tree(), "/mine \"4\"\n")
	b.wantCalm()
	must(t, b.k.Get(t.Context(), "/z"))
	same(t, "with one", b.tree(), "/mine \"4\"\n/z \"3\"\n")
	must(t, b.k.Get(t.Context(), "/d"))
	a.write("/d/new", "5")
	a.write("/z", "33")
	converge(t, a, b)
	same(t, "with a folder", b.tree(), a.tree())
	must(t, b.k.Free(t.Context(), "/z"))
	converge(t, a, b)
	if b.read("/z") == "33" || a.read("/z") != "33" {
		t.Errorf("freed:\n%s", b.tree())
	}
	b.write("/d/x", "edited")
	if err := b.k.Free(t.Context(), "/d/x"); !errors.Is(err, errChanged) {
		t.Errorf("free what was edited: %v", err)
	}
	if err := b.k.Get(t.Context(), "/nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get nothing: %v", err)
	}
	converge(t, a, b)
	if a.read("/d/x") != "edited" {
		t.Error(a.tree())
	}
	// When the folder is to be whole, all comes.
	b.k.Close()
	b.c.sparse = false
	b.open()
	converge(t, a, b)
	same(t, "whole", b.tree(), a.tree())
}

// TestWhatWasJustWrittenCanBeFreed if it is what the cloud has: its times don't tell.
func TestWhatWasJustWrittenCanBeFreed(t *testing.T) {
	a := newDevice(t, "a", func(c *config) {
		c.sparse = true
		c.clock = clock.NewFake(fakeStart) // each file was written just now
	})
	a.write("/same", "1")
	a.write("/other", "2")
	a.sync()
	for _, path := range []string{"/same", "/other"} {
		if r, err := a.k.x.row(path); err != nil || !r.racy {
			t.Fatalf("%s: %+v, %v", path, r, err)
		}
	}
	r, err := a.k.x.row("/other")
	must(t, err)
	st, err := os.Stat(a.at("/other"))
	must(t, err)
	a.write("/other", "3")
	must(t, os.Chtimes(a.at("/other"), st.ModTime(), st.ModTime()))
	f, err := a.k.c.open(a.k.c.dir)
	must(t, err)
	now, err := f.lstat("/other")
	must(t, errors.Join(err, f.close()))
	r.stat = now // as if nothing but the content had changed
	a.k.x.put("/other", r)
	must(t, a.k.x.commit(true))
	must(t, a.k.Free(t.Context(), "/same"))
	if err := a.k.Free(t.Context(), "/other"); !errors.Is(err, errChanged) {
		t.Errorf("free what has changed in the same moment: %v", err)
	}
	same(t, "the disk", a.tree(), "/other \"3\"\n")
}

func TestContentsElsewhereAreWaitedFor(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	a.write("/x", "1")
	a.write("/d/y", "2")
	a.sync()
	b.sync()
	meet(a.cloud, b.cloud, false)
	b.sync()
	b.wantNotice(CodeMissing, "/d/y", "/x")
	if s := b.k.Status(); s.State != Syncing || s.Waiting != 2 {
		t.Errorf("status %+v", s)
	}
	if n, err := b.k.Fetch(t.Context()); n != 0 || err == nil {
		t.Errorf("fetched %d, %v", n, err)
	}
	b.write("/out", "goes out meanwhile")
	b.sync()
	meet(a.cloud, b.cloud, true)
	if n, err := b.k.Fetch(t.Context()); n != 2 || err != nil {
		t.Errorf("fetched %d, %v", n, err)
	}
	converge(t, a, b)
	same(t, "both", b.tree(), a.tree())
	b.wantCalm()
}

func TestIgnoredIsLeftAlone(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	a.write("/.bevyignore", "*.tmp\n/build/\n")
	a.write("/x.tmp", "not")
	a.write("/build/out", "not")
	a.write("/src/build", "a file of that name")
	converge(t, a, b)
	same(t, "other device", b.tree(), "/.bevyignore \"*.tmp\\n/build/\\n\"\n/src \"/\"\n/src/build \"a file of that name\"\n")
	// What holds only such files stays on the disk where they are.
	a.write("/src/x.tmp", "not")
	b.remove("/src")
	converge(t, a, b)
	if a.read("/src/x.tmp") != "not" || strings.Contains(a.cloud.tree(), "src") {
		t.Error(a.tree(), a.cloud.tree())
	}
	// What is no longer ignored goes out, and what is now stays on both sides.
	a.write("/.bevyignore", "/keep\n")
	a.write("/keep", "mine")
	b.write("/keep", "of b")
	converge(t, a, b)
	if b.read("/x.tmp") != "not" || b.read("/build/out") != "not" || b.read("/src/x.tmp") != "not" {
		t.Error(b.tree())
	}
	if a.read("/keep") != "mine" {
		t.Error(a.tree())
	}
	a.write("/x.tmp", "changed")
	a.write("/.bevyignore", "*.tmp\n")
	a.sync()
	a.remove("/x.tmp")
	converge(t, a, b)
	if b.read("/x.tmp") != "not" {
		t.Error(b.tree())
	}
}

func TestAReadOnlyFolderIsNoEnd(t *testing.T) {
	locked := true
	a := newDevice(t, "a")
	b := newDevice(t, "b", onFaulty(&faulty{hook: func(op, path string) error {
		if locked && slices.Contains([]string{"create", "mkdir", "rename", "remove", "symlink"}, op) {
			return &fs.PathError{Op: op, Path: path, Err: syscall.EROFS}
		}
		return nil
	}}))
	a.write("/x", "1")
	b.write("/y", "2")
	converge(t, a, b)
	b.wantNotice(CodeDenied, "/x")
	if a.read("/y") != "2" {
		t.Error(a.tree())
	}
	locked = false
	converge(t, a, b)
	b.wantCalm()
	same(t, "both", a.tree(), b.tree())
}

func TestKindsTakeEachOthersPlace(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	steps := []func(d *device){
		func(d *device) { d.write("/p", "file") },
		func(d *device) { d.remove("/p"); d.write("/p/in/deep", "x"); d.write("/p/y", "y") },
		func(d *device) { d.remove("/p"); must(t, os.Symlink("elsewhere", d.at("/p"))) },
		func(d *device) { d.remove("/p"); must(t, os.Mkdir(d.at("/p"), 0o755)) },
		func(d *device) { d.remove("/p"); must(t, os.Symlink("other", d.at("/p"))) },
		func(d *device) { d.remove("/p"); d.write("/p", "file again") },
		func(d *device) { d.remove("/p") },
	}
	for i, step := range steps {
		d := []*device{a, b}[i%2]
		step(d)
		want := d.tree()
		converge(t, a, b)
		same(t, "step", a.tree(), want)
		same(t, "step", b.tree(), want)
	}
}

func TestNothingIsWrittenThroughLinks(t *testing.T) {
	if windows {
		t.Skip("links need rights there")
	}
	outside := t.TempDir()
	must(t, os.WriteFile(outside+"/secret", []byte("secret"), 0o600))
	a := newDevice(t, "a")
	must(t, os.Symlink(outside, a.at("/out")))
	must(t, os.Symlink("/", a.at("/root")))
	a.cloud.mu.Lock()
	a.cloud.contents[[32]byte{1}] = []byte("x")
	h, _ := hashOf(strings.NewReader("x"))
	a.cloud.contents[h] = []byte("x")
	for i, p := range []string{"/out/new", "/out/secret", "/root/tmp/bevy-was-here"} {
		a.cloud.takeLocked(saying{id: string(rune('A' + i)), time: 1, e: entry{path: p, kind: kindFile, size: 1, hash: h}})
	}
	a.cloud.mu.Unlock()
	a.sync()
	names, err := os.ReadDir(outside)
	must(t, err)
	b, err := os.ReadFile(outside + "/secret")
	if len(names) != 1 || string(b) != "secret" || err != nil {
		t.Errorf("outside: %v, %q, %v", names, b, err)
	}
	if !strings.Contains(a.tree(), "-> "+outside) {
		t.Error(a.tree())
	}
}

func TestAFolderThatMayOnlyBeRead(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	b.cloud.readOnly = true
	a.write("/x", "1")
	a.write("/y", "2")
	a.write("/z", "3")
	converge(t, a, b)
	same(t, "reader", b.tree(), a.tree())
	b.write("/x", "edited")
	b.write("/new", "mine")
	b.remove("/y")
	a.write("/z", "4")
	a.write("/x", "changed")
	converge(t, a, b)
	b.wantNotice(CodeReadOnly, "/new", "/x", "/y")
	if b.read("/z") != "4" || b.read("/x") != "edited" || a.read("/y") != "2" || strings.Contains(a.tree(), "mine") {
		t.Errorf("reader\n%s\nwriter\n%s", b.tree(), a.tree())
	}
}

func TestARoundThatFailsSaysSo(t *testing.T) {
	a := newDevice(t, "a")
	a.write("/x", "1")
	a.cloud.broken = errors.New("no version today")
	if err := a.k.Sync(t.Context()); !errors.Is(err, a.cloud.broken) {
		t.Errorf("sync: %v", err)
	}
	if s := a.k.Status(); s.State != Paused || !strings.Contains(s.Why, "no version today") {
		t.Errorf("status %+v", s)
	}
	a.wantNotice(CodeSync)
	a.cloud.broken = storage.ErrFull
	_ = a.k.Sync(t.Context())
	a.wantNotice(CodeDiskFull)
	a.cloud.broken = nil
	a.sync()
	a.wantCalm()
	same(t, "cloud", a.cloud.tree(), a.tree())
}

func TestLargeFilesOfTheSameSize(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	big := []byte(strings.Repeat("0123456789", 30_000))
	must(t, os.WriteFile(a.at("/big"), big, 0o644))
	converge(t, a, b)
	big[150_000] = 'x'
	must(t, os.WriteFile(a.at("/big"), big, 0o644))
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	must(t, os.Chtimes(a.at("/big"), at, at))
	converge(t, a, b)
	if b.read("/big") != string(big) {
		t.Error("the change of one byte is not there")
	}
	// As it was is as it was, whatever the time of the change says.
	must(t, os.Chtimes(a.at("/big"), at, at))
	v, _ := a.cloud.version(t.Context())
	converge(t, a, b)
	if now, _ := a.cloud.version(t.Context()); string(now) != string(v) {
		t.Errorf("the version is %s after %s", now, v)
	}
	big[1] = 'y'
	must(t, os.WriteFile(a.at("/big"), big, 0o644))
	must(t, os.Chtimes(a.at("/big"), at, at)) // some programs hide that they write
	converge(t, a, b)
	if !windows && b.read("/big") != string(big) {
		t.Error("a hidden change is not there")
	}
}

// TestWhatAPowerCutTookComesAgain: the index and the disk have what came from
// others, and the logs have lost it.
func TestWhatAPowerCutTookComesAgain(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	a.write("/x", "old")
	a.write("/y", "old")
	converge(t, a, b)
	before := newFake("b")
	meet(before, b.cloud, true)
	a.write("/x", "newer")
	a.remove("/y")
	a.write("/z", "new")
	converge(t, a, b)
	want := b.tree()
	must(t, b.k.Close())
	b.cloud, b.c.source = before, before
	b.open()
	b.write("/mine", "goes out")
	b.sync()
	b.wantNotice(CodeBehind)
	b.remove("/mine")
	same(t, "meanwhile", b.tree(), want)
	b.write("/mine", "goes out")
	converge(t, a, b)
	b.wantCalm()
	same(t, "both", b.tree(), a.tree())
	if a.read("/mine") != "goes out" || a.read("/x") != "newer" {
		t.Error(a.tree())
	}
}

func TestAnotherFolderUnderTheSameNameErasesNothing(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	a.write("/x", "1")
	converge(t, a, b)
	must(t, a.k.Close())
	other := newFake("c")
	c := newDevice(t, "c", func(c *config) { c.source = other })
	c.write("/y", "2")
	c.write("/z", "3")
	c.sync()
	other.other = errOther
	a.cloud, a.c.source = other, other
	a.open()
	if err := a.k.Sync(t.Context()); !errors.Is(err, errOther) {
		t.Errorf("sync: %v", err)
	}
	other.other = nil
	a.sync()
	same(t, "disk", a.tree(), "/x \"1\"\n/y \"2\"\n/z \"3\"\n")
}

func TestANewNameTakesNoFilesPlace(t *testing.T) {
	dir := t.TempDir()
	f, err := opener()(dir)
	must(t, err)
	defer f.close()
	for _, name := range []string{"/old", "/there"} {
		w, err := f.create(name)
		must(t, err)
		_, err = w.Write([]byte(name))
		must(t, errors.Join(err, w.Close()))
	}
	if err := f.rename("/old", "/there", true); !errors.Is(err, fs.ErrExist) {
		t.Errorf("rename to what is there: %v", err)
	}
	must(t, f.rename("/old", "/new", true))
	must(t, f.rename("/new", "/there", false))
	same(t, "disk", treeOf(t, dir), "/there \"/old\"\n")
}
