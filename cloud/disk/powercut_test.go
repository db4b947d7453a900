package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// A powerDisk is a folder on a disk that forgets at a power cut what nobody has
// synced: it remembers all states that each path has had since.
type powerDisk struct {
	t     testing.TB
	dir   string
	spare string // has a name for each inode, so that it can come back

	mu   sync.Mutex
	was  map[string][]state // the first is on the disk for good
	held map[uint64]bool
	firm map[uint64]string // contents that are on the disk, by their inodes
	ours map[string]bool   // paths that the Keeper has changed, and whose folders it has not synced
}

// A state is what is at a path; its zero value is nothing.
type state struct {
	kind  kind
	text  string
	mode  fs.FileMode
	mtime int64
	inode uint64
	whole bool // the content was synced
}

func (s state) is(o state) bool {
	return s.kind == o.kind && s.text == o.text && s.mode == o.mode && s.mtime == o.mtime
}

func (s state) same(o state) bool { return s.kind == o.kind && s.text == o.text }

func (p *powerDisk) spareOf(inode uint64) string { return filepath.Join(p.spare, fmt.Sprint(inode)) }

// look returns what is there.
func (p *powerDisk) look() map[string]state {
	out := map[string]state{}
	must(p.t, filepath.WalkDir(p.dir, func(at string, e fs.DirEntry, err error) error {
		rel, _ := clean(p.dir, at)
		if err != nil || rel == "" || isTemp(filepath.Base(at)) {
			return err
		}
		info, err := e.Info()
		must(p.t, err)
		now := statOf(info)
		s := state{kind: now.kind, mode: now.mode, mtime: now.mtime, inode: now.inode}
		switch s.kind {
		case kindFile:
			b, err := os.ReadFile(at)
			must(p.t, err)
			s.text = string(b)
			if !p.held[s.inode] {
				must(p.t, os.Link(at, p.spareOf(s.inode)))
				p.held[s.inode] = true
			}
		case kindLink:
			s.text, err = os.Readlink(at)
			must(p.t, err)
		}
		out[rel] = s
		return nil
	}))
	return out
}

// note remembers what is there now; with whole, contents that were not there before
// have been synced.
func (p *powerDisk) note(whole bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noteLocked(whole)
}

func (p *powerDisk) noteLocked(whole bool) {
	now := p.look()
	for path, s := range now {
		s.whole = whole
		if p.was[path] == nil {
			p.was[path] = []state{{}}
		}
		now[path] = s
	}
	for path, was := range p.was {
		if s := now[path]; !was[len(was)-1].is(s) {
			p.was[path] = append(was, s)
		}
	}
}

// keepLocked has the disk have a path as it is.
func (p *powerDisk) keepLocked(path string) {
	if was := p.was[path]; was != nil {
		p.was[path] = was[len(was)-1:]
		if s := was[len(was)-1]; s.kind == kindFile {
			p.firm[s.inode] = s.text
		}
	}
	delete(p.ours, path)
}

// powerFiles is a powerDisk as a Keeper uses it.
type powerFiles struct {
	files
	p *powerDisk
	b *bomb
}

func (f powerFiles) change(path string, whole bool, do func() error) error {
	if err := f.b.point(); err != nil {
		return err
	}
	err := do()
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	f.p.noteLocked(whole)
	f.p.ours[path] = true
	return err
}

func (f powerFiles) finish(path string, mode fs.FileMode, mtime int64) error {
	if _, name := split(path); isTemp(name) {
		return f.files.finish(path, mode, mtime)
	}
	if err := f.b.point(); err != nil {
		return err
	}
	err := f.files.finish(path, mode, mtime)
	f.p.note(false)
	return err
}

func (f powerFiles) mkdir(path string) error {
	return f.change(path, true, func() error { return f.files.mkdir(path) })
}

func (f powerFiles) symlink(target, path string) error {
	return f.change(path, true, func() error { return f.files.symlink(target, path) })
}

func (f powerFiles) rename(from, to string, isNew bool) error {
	return f.change(to, true, func() error { return f.files.rename(from, to, isNew) })
}

func (f powerFiles) remove(path string) error {
	return f.change(path, true, func() error { return f.files.remove(path) })
}

func (f powerFiles) syncDir(path string) error {
	if err := f.b.point(); err != nil {
		return err
	}
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	for p := range f.p.ours {
		if parent, _ := split(p); parent == path {
			f.p.keepLocked(p)
		}
	}
	return nil
}

func (f powerFiles) create(path string) (file, error) {
	out, err := f.files.create(path)
	return unsynced{out}, err
}

// unsynced waits for no disk.
type unsynced struct{ file }

func (unsynced) Sync() error { return nil }

func (f powerFiles) sync() error {
	if err := f.b.point(); err != nil {
		return err
	}
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	f.p.noteLocked(false)
	for path := range f.p.was {
		f.p.keepLocked(path)
	}
	return nil
}

// tear returns what a power cut may leave of a content.
func tear(r *rand.Rand, text string) string {
	zeros := strings.Repeat("\x00", len(text))
	n := r.IntN(len(text) + 1)
	switch r.IntN(5) {
	case 0:
		return ""
	case 1:
		return zeros
	case 2:
		return text[:n]
	case 3:
		return text[:n] + zeros[n:]
	}
	m := n + r.IntN(len(text)-n+1)
	return text[:n] + zeros[n:m] + text[m:]
}

// cut has the disk be as a power cut may leave it, and returns the paths whose files
// are as they never were.
func (p *powerDisk) cut(r *rand.Rand) (torn map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noteLocked(false)
	torn = map[string]bool{}
	left := map[string]state{}
	for _, path := range slices.Sorted(maps.Keys(p.was)) {
		was := p.was[path]
		n := r.IntN(len(was))
		s := was[n]
		if firm, ok := p.firm[s.inode]; n > 0 && s.kind == kindFile && !s.whole && (!ok || firm != s.text) && r.IntN(2) == 0 {
			s.text = tear(r, s.text)
			torn[path] = true
		}
		if parent, _ := split(path); parent != "" && left[parent].kind != kindDir {
			s = state{}
		}
		left[path] = s
	}
	entries, err := os.ReadDir(p.dir)
	must(p.t, err)
	for _, e := range entries {
		must(p.t, os.RemoveAll(filepath.Join(p.dir, e.Name())))
	}
	used := map[uint64]bool{}
	p.was = map[string][]state{}
	for _, path := range slices.Sorted(maps.Keys(left)) {
		s, at := left[path], filepath.Join(p.dir, path)
		switch s.kind {
		case kindDir:
			must(p.t, os.Mkdir(at, 0o700))
			must(p.t, os.Chmod(at, s.mode))
		case kindLink:
			must(p.t, os.Symlink(s.text, at))
		case kindFile:
			if used[s.inode] {
				torn[path] = true // it was moved, and is at both places
			} else {
				must(p.t, os.Link(p.spareOf(s.inode), at))
				used[s.inode] = true
			}
			must(p.t, os.WriteFile(at, []byte(s.text), 0o600))
			must(p.t, os.Chmod(at, s.mode))
			must(p.t, os.Chtimes(at, time.Time{}, time.Unix(0, s.mtime)))
		}
	}
	p.noteLocked(true)
	for path := range p.was {
		p.keepLocked(path)
	}
	return torn
}

// A powerWorld is a device that will have no power, and one that will.
type powerWorld struct {
	*people
	p      *powerDisk
	bomb   *bomb
	index  *storagetest.Faulty
	engine storage.Engine
	boots  int
}

func newPowerWorld(t testing.TB, r *rand.Rand, real bool) *powerWorld {
	w := &powerWorld{people: &people{world: newWorld(t, 2, real), r: r, alive: map[string]bool{}}, bomb: &bomb{left: math.MaxInt}, index: storagetest.NewFaulty()}
	a := w.devices[0]
	w.p = &powerDisk{t: t, dir: a.dir, spare: t.TempDir(), was: map[string][]state{}, held: map[uint64]bool{}, firm: map[uint64]string{}, ours: map[string]bool{}}
	open := opener()
	a.c.open = func(dir string) (files, error) {
		f, err := open(dir)
		if err != nil {
			return nil, err
		}
		return powerFiles{f, w.p, w.bomb}, nil
	}
	a.c.booted = math.MaxInt64 // all that is left is from before
	a.cloud.bomb = w.bomb
	w.start()
	t.Cleanup(func() { _ = w.engine.Close() })
	return w
}

// start opens what the power cut has left of the index.
func (w *powerWorld) start() {
	a := w.devices[0]
	_ = a.k.Close()
	var err error
	w.engine, err = storage.Disk{Dir: "store", FS: w.index.FS(), Adopt: true}.Open()
	must(w.t, err)
	*w.bomb = bomb{left: math.MaxInt}
	w.boots++
	a.c.engine, a.c.boot = shaky{w.engine, w.bomb}, fmt.Sprint("boot ", w.boots)
	a.open()
}

// kill cuts the power. What was on the disk then is returned, and what the disk has
// made of it.
func (w *powerWorld) kill() (had map[string]state, torn map[string]bool) {
	a := w.devices[0]
	w.bomb.mu.Lock()
	w.bomb.dead = true
	w.bomb.mu.Unlock()
	had = w.p.look()
	torn = w.p.cut(w.r)
	if w.reals == nil {
		a.cloud.crash()
	}
	w.index = w.index.PowerCut(w.r.Uint64())
	_ = w.engine.Close()
	w.start()
	return had, torn
}

// stated is what the cloud has, as a knows it.
func (w *powerWorld) stated() map[string]state {
	out := map[string]state{}
	a := w.devices[0]
	for c, err := range a.c.source.changes(w.t.Context(), nil) {
		must(w.t, err)
		if c.now == nil || c.now.conflict {
			continue
		}
		s := state{kind: c.now.kind, text: c.now.link}
		if s.kind == kindFile {
			s.text = string(c.now.hash[:])
		}
		out[c.path] = s
	}
	return out
}

func hashed(all map[string]state) map[string]state {
	out := map[string]state{}
	for path, s := range all {
		if s.kind == kindFile {
			h, _ := hashOf(strings.NewReader(s.text))
			s.text = string(h[:])
		}
		out[path] = s
	}
	return out
}

// isLess tells whether a content has nothing that was not in another.
func isLess(now, before string) bool {
	n := min(len(now), len(before))
	return isZeroOr([]byte(now[:n]), []byte(before[:n])) && isZero([]byte(now[n:]))
}

func show(all map[string]state) string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "  %s %d %.20q\n", path, all[path].kind, all[path].text)
	}
	return b.String()
}

// A powerPast is what has been at each path.
type powerPast struct {
	seen   map[string]state           // on the disk, as of the last round
	stated map[string]map[string]bool // what the cloud has had of it
	theirs map[string]bool            // paths that the other device has changed
}

func (w *powerWorld) look(past *powerPast) {
	w.trace = append(w.trace, "a looks")
	a := w.devices[0]
	a.sync()
	w.answer(a)
	past.seen = w.p.look()
	w.state(past)
}

func (w *powerWorld) state(past *powerPast) {
	for path, s := range w.stated() {
		if past.stated[path] == nil {
			past.stated[path] = map[string]bool{}
		}
		past.stated[path][s.text] = true
	}
}

// other has the other device do something.
func (w *powerWorld) other(past *powerPast) {
	b := w.devices[1]
	before := linesOf(b.tree())
	w.act(b)
	b.sync()
	after := linesOf(b.tree())
	for _, lines := range []map[string]string{before, after} {
		for path := range lines {
			// What is in a folder may need it.
			for changed := before[path] != after[path]; changed && path != ""; path, _ = split(path) {
				past.theirs[path] = true
			}
		}
	}
}

// linesOf returns the lines of a tree by their paths.
func linesOf(tree string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(tree) {
		path, _, _ := strings.Cut(line, ` "`)
		out[path] = line
	}
	return out
}

// testPowerCuts has people do things while the power goes now and then. What the cloud
// had as the disk had it is so again after that, however the disk is.
func testPowerCuts(t *testing.T, seed uint64, steps int, real bool) {
	r := rand.New(rand.NewPCG(seed, 2))
	w := newPowerWorld(t, r, real)
	a, b := w.devices[0], w.devices[1]
	defer func() {
		if t.Failed() {
			t.Logf("seed %d, real %v:\n%s", seed, real, strings.Join(w.trace, "\n"))
		}
	}()
	past := &powerPast{stated: map[string]map[string]bool{}}
	for range 3 {
		past.seen, past.theirs = w.p.look(), map[string]bool{}
		for range 1 + r.IntN(steps) {
			switch r.IntN(8) {
			case 0:
				w.other(past)
			case 1:
				w.trace = append(w.trace, "they meet")
				w.meet(0, 1)
			case 2, 3:
				w.look(past)
			case 4:
				w.trace = append(w.trace, "a ripens")
				a.k.ripen()
			default:
				w.act(a)
				w.p.note(false)
			}
		}
		if r.IntN(2) == 0 {
			w.bomb.left = r.IntN(40)
			w.trace = append(w.trace, fmt.Sprint("a looks, with power for ", w.bomb.left))
			if err := a.k.Sync(t.Context()); err != nil && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
		}
		had, torn := w.kill()
		has := w.p.look()
		w.trace = append(w.trace, fmt.Sprintf("the power goes: a had\n%sand has\n%s", show(had), show(has)))
		cloud, disk, left, seen := w.stated(), hashed(had), hashed(has), hashed(past.seen)
		w.state(past)
		a.sync()
		w.answer(a)
		w.rest()
		w.answer(a)
		w.answer(b)
		w.rest()
		after := hashed(w.p.look())
		same(t, "the other", b.tree(), a.tree())
		contents := map[string]bool{}
		for _, s := range after {
			contents[s.text] = true
		}
		for path, texts := range past.stated {
			said, on, is, now := cloud[path], disk[path], left[path], after[path]
			if past.theirs[path] {
				continue
			}
			switch {
			case said.kind != 0 && on.same(said) && !now.same(said) && (is.kind == 0 || texts[is.text] || isLess(has[path].text, had[path].text)):
				t.Errorf("%s is not what it was, and what the cloud had", path)
			case said.kind != 0 && said.kind != kindDir && on.same(said) && !contents[said.text]:
				t.Errorf("%s is lost", path)
			case said.kind == 0 && on.kind == 0 && is.kind == kindFile && texts[is.text] && !torn[path] && now.kind != 0:
				t.Errorf("%s is back", path)
			case said.kind == kindFile && on.same(seen[path]) && !contents[said.text]:
				t.Errorf("what the cloud had of %s is lost", path)
			}
		}
		if t.Failed() {
			t.Fatalf("afterwards:\n%s", show(w.p.look()))
		}
	}
}

// TestAPowerCutTakesNothing that the cloud had, whatever it takes from the disk.
func TestAPowerCutTakesNothing(t *testing.T) {
	for _, c := range []struct {
		real         bool
		seeds, steps int
	}{{false, 20, 20}, {true, 2, 15}} {
		t.Run(fmt.Sprintf("real=%v", c.real), func(t *testing.T) {
			if long {
				c.seeds *= 25
				c.steps *= 2
			}
			for seed := range uint64(c.seeds) {
				if seed++; *seedFlag != 0 {
					seed = *seedFlag
				}
				if testPowerCuts(t, seed, c.steps, c.real); t.Failed() || *seedFlag != 0 {
					return
				}
			}
		})
	}
}
