package folder

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// seeds of the random tests: a few, or with BEVY_LONG many.
func seeds(few uint64) uint64 {
	if os.Getenv("BEVY_LONG") != "" {
		return 500
	}
	return few
}

func somePath(r *rand.Rand) string {
	p := ""
	for range 1 + r.IntN(3) {
		p += "/" + string("abcd"[r.IntN(4)])
	}
	if r.IntN(3) == 0 {
		p += ".txt"
	}
	return p
}

// An oracle is what a folder has to be: what is at each path.
type oracle map[string]string

const made = "(folder)"

func (o oracle) inside(p string) (out []string) {
	for q := range o {
		if strings.HasPrefix(q, p+"/") {
			out = append(out, q)
		}
	}
	slices.Sort(out)
	return out
}

// above says whether a file is above a path.
func (o oracle) above(p string) bool {
	for d := path.Dir(p); d != "/"; d = path.Dir(d) {
		if v, ok := o[d]; ok && v != made {
			return true
		}
	}
	return false
}

// put is a Put or a Mkdir, and reports whether it can be made.
func (o oracle) put(p, v string) bool {
	old, ok := o[p]
	if o.above(p) || ok && (old == made) != (v == made) || v != made && len(o.inside(p)) > 0 {
		return false
	}
	o[p] = v
	return true
}

func (o oracle) remove(p string) bool {
	in := o.inside(p)
	_, ok := o[p]
	for _, q := range in {
		delete(o, q)
	}
	delete(o, p)
	return ok || len(in) > 0
}

func (o oracle) move(p, to string) bool {
	in := o.inside(p)
	v, ok := o[p]
	there, taken := o[to]
	file := ok && v != made && len(in) == 0
	if within(to, p) || !ok && len(in) == 0 || o.above(to) || len(o.inside(to)) > 0 || taken && (!file || there == made) {
		return false
	}
	for _, q := range in {
		o[to+q[len(p):]] = o[q]
		delete(o, q)
	}
	if ok {
		o[to] = v
		delete(o, p)
	}
	return true
}

// One device does what an oracle does, and any moment of the past is what the
// oracle was then, to look at and to restore.
func TestOneDeviceIsTheOracle(t *testing.T) {
	for seed := range seeds(3) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := newDevices(t, 1, 64)[0]
		ctx := t.Context()
		now := oracle{}
		type moment struct {
			at    time.Time
			files oracle
		}
		moments := []moment{{d.clock.Now().Add(-time.Hour), oracle{}}}
		for step := range 120 {
			p, to := somePath(r), somePath(r)
			next := maps.Clone(now)
			what, ok, err := "", false, error(nil)
			switch r.IntN(7) {
			case 0, 1, 2:
				v := strings.Repeat(fmt.Sprint(seed, step, " "), 1+r.IntN(300))
				what, ok = "put "+p, next.put(p, v)
				err = d.Put(ctx, p, strings.NewReader(v), PutOptions{})
			case 3:
				what, ok = "make folder "+p, next.put(p, made)
				err = d.Mkdir(ctx, p, PutOptions{})
			case 4:
				what, ok = "remove "+p, next.remove(p)
				err = d.Remove(ctx, p, RemoveOptions{All: true})
			case 5:
				what, ok = "move "+p+" to "+to, next.move(p, to)
				err = d.Move(ctx, p, to)
			case 6:
				m := moments[r.IntN(len(moments))]
				old, err2 := d.At(ctx, m.at)
				must(t, err2)
				want(t, fmt.Sprintf("seed %d step %d: at %v", seed, step, m.at), files(t, old), m.files)
				dir := "/"
				if r.IntN(3) > 0 {
					dir = p
				}
				what, ok = "restore "+dir, !m.files.above(dir) && !now.above(dir)
				_, err = d.Restore(ctx, old, dir)
				must(t, old.Close())
				if dir != "/" && !ok {
					break
				}
				for q := range next {
					if within(q, dir) {
						delete(next, q)
					}
				}
				for q, v := range m.files {
					if within(q, dir) {
						next[q] = v
					}
				}
				ok = err == nil
				if err != nil && !errors.Is(err, ErrNotFolder) {
					t.Fatalf("seed %d step %d: %s: %v", seed, step, what, err)
				}
			}
			if strings.HasPrefix(what, "restore") && err != nil {
				continue // the files say below whether nothing has changed
			}
			if strings.HasPrefix(what, "restore") && !ok {
				next = files(t, d.Folder) // into a folder that is a file: nothing to compare
			} else if ok != (err == nil) {
				t.Fatalf("seed %d step %d: %s: %v, the oracle says %v", seed, step, what, err, ok)
			}
			if ok || err == nil {
				now = next
			}
			want(t, fmt.Sprintf("seed %d step %d: %s", seed, step, what), files(t, d.Folder), now)
			if t.Failed() {
				return
			}
			d.clock.Advance(time.Minute)
			moments = append(moments, moment{d.clock.Now().Add(-time.Second), maps.Clone(now)})
		}
		if _, err := d.Clear(ctx, Retention{}); err != nil {
			t.Error(err)
		}
		want(t, "after clearing", files(t, d.Folder), now)
	}
}

// Devices that write apart and meet now and then end up the same, and nothing is
// lost that nobody who had seen it replaced or removed.
func TestPartsOfACloudAgreeAndLoseNothing(t *testing.T) {
	for seed := range seeds(4) {
		r := rand.New(rand.NewPCG(seed, 2))
		list := newDevices(t, 3, 256)
		ctx := t.Context()
		written, replaced := map[string]bool{}, map[string]bool{}
		// gone notes what somebody sees go: what stands beside it is saved.
		gone := func(d *device, p string, all bool) {
			for q, v := range files(t, d.Folder) {
				if q == p || all && within(q, p) {
					replaced[v] = true
				}
			}
		}
		for step := range 80 {
			d := list[r.IntN(len(list))]
			d.clock.Advance(time.Duration(r.IntN(1e9)))
			p, to := somePath(r), somePath(r)
			switch r.IntN(10) {
			case 0, 1, 2, 3:
				v := fmt.Sprintf("%d %d by %d ", seed, step, d.n)
				if r.IntN(3) == 0 {
					v += strings.Repeat(v, 100)
				}
				old := d.read(p)
				if d.Put(ctx, p, strings.NewReader(v), PutOptions{}) == nil {
					written[v], replaced[old] = true, true
				}
			case 4:
				_ = d.Mkdir(ctx, p, PutOptions{})
			case 5:
				gone(d, p, true)
				_ = d.Remove(ctx, p, RemoveOptions{All: true})
			case 6:
				gone(d, to, false)
				_ = d.Move(ctx, p, to)
			case 7:
				d.resolve()
			default:
				other := list[r.IntN(len(list))]
				if d != other {
					meet(d, other)
				}
			}
		}
		for range 3 {
			meet(list...)
			for _, d := range list {
				if r.IntN(2) == 0 {
					d.resolve()
				}
			}
		}
		meet(list...)
		list[0].resolve()
		meet(list...)
		all := files(t, list[0].Folder)
		for _, d := range list {
			want(t, fmt.Sprintf("seed %d: device %d", seed, d.n), files(t, d.Folder), all)
			want(t, fmt.Sprintf("seed %d: device %d: left to resolve", seed, d.n), d.resolve(), 0)
			s, err := d.Scrub(ctx, ScrubOptions{})
			must(t, err)
			if s.Problems > 0 || s.Missing > 0 {
				t.Errorf("seed %d: device %d: %+v", seed, d.n, s)
			}
		}
		there := map[string]bool{}
		for _, v := range all {
			there[v] = true
		}
		for v := range written {
			if !replaced[v] && !there[v] {
				t.Errorf("seed %d: %.20q is lost: %v", seed, v, slices.Sorted(maps.Keys(all)))
			}
		}
		if t.Failed() {
			return
		}
	}
}

// What was acknowledged is there after any crash with all its contents, of a batch
// all or nothing, and never an entry whose contents are not there.
func TestFilesOutliveCrashesWholeOrNotAtAll(t *testing.T) {
	type crash struct {
		disk  *storagetest.Faulty
		acked int
		point uint64
	}
	ctx := t.Context()
	open := func(disk *storagetest.Faulty) *device {
		e, err := disk.Disk().Open()
		must(t, err)
		return openDevice(t, e, 1, 1, 4<<10)
	}
	disk := storagetest.NewFaulty()
	var mu sync.Mutex
	var crashes []crash
	acked := 0
	d := open(disk)
	disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		if p.Number%17 == 0 {
			crashes = append(crashes, crash{disk.PowerCut(p.Number), acked, p.Number})
		}
	})
	rng := rand.New(rand.NewPCG(3, 4))
	now := map[string]string{}
	states := map[string]map[string]string{"": now}
	for i := 1; i <= 30; i++ {
		now = maps.Clone(now)
		b, err := d.Batch(ctx)
		must(t, err)
		for range 1 + rng.IntN(8) {
			p := fmt.Sprint("/", rng.IntN(30))
			v := strings.Repeat(fmt.Sprint(rng.IntN(1000), " "), []int{0, 1, 50, 1000, 10_000}[rng.IntN(5)])
			must(t, b.Put(ctx, p, strings.NewReader(v), PutOptions{}))
			now[p] = v
		}
		number := fmt.Sprint(i)
		must(t, b.Put(ctx, "/number", strings.NewReader(number), PutOptions{}))
		now["/number"] = number
		mu.Lock()
		states[number] = now // before it can be on the disk
		mu.Unlock()
		_, err = b.Flush(ctx)
		must(t, err)
		mu.Lock()
		acked = i
		mu.Unlock()
		if i%10 == 0 {
			_, err := d.Clear(ctx, Retention{All: -1, Daily: -1})
			must(t, err)
		}
	}
	disk.Hook(nil)
	d.close()
	if len(crashes) < 10 {
		t.Fatalf("there were %d crashes only", len(crashes))
	}
	for _, c := range crashes {
		d := open(c.disk)
		number := ""
		if _, err := d.Stat(ctx, "/number"); err == nil {
			number = d.read("/number")
		}
		n := 0
		_, _ = fmt.Sscan(number, &n)
		if n < c.acked {
			t.Errorf("after a crash at write point %d there is state %q, and %d was acknowledged", c.point, number, c.acked)
		} else if got := files(t, d.Folder); !maps.Equal(got, states[number]) {
			t.Errorf("after a crash at write point %d state %q is not whole", c.point, number)
		}
		d.write("/after", "after") // it goes on
		want(t, "what was put then", d.read("/after"), "after")
		d.close()
	}
	t.Logf("%d crashes", len(crashes))
}

func FuzzDecode(f *testing.F) {
	f.Add((&Entry{Kind: Symlink, Link: "x", Mode: 0o644, ModTime: start}).encode())
	f.Add(withOrigin((&Entry{Kind: Dir, extra: []byte("\x20\x01x")}).encode(), writerOf(1), start))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(e.encode())
		if err != nil {
			t.Fatal(err)
		}
		again.Time, again.Writer = e.Time, e.Writer // encode leaves the origin out
		if fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", e) {
			t.Fatalf("%+v comes back as %+v", e, again)
		}
	})
}

func FuzzCheckPath(f *testing.F) {
	f.Add("/a/b")
	f.Add("/a/../b")
	f.Fuzz(func(t *testing.T, p string) {
		if CheckPath(p) == nil && (path.Clean(p) != p || p[0] != '/' || p == "/" || strings.Contains(p, "\x00")) {
			t.Fatalf("%q is no clean path", p)
		}
	})
}
