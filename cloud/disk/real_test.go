package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// realFolder is a folder of the cloud as device n of some has it.
type realFolder struct {
	*folder.Folder
	t    testing.TB
	n    byte
	logs map[string]*hypercore.Log
	all  byte
}

func keyPair(n byte, what string) hypercore.KeyPair {
	seed := [32]byte{n}
	copy(seed[1:], what)
	return hypercore.NewKeyPair(seed)
}

func deviceName(w tree.Writer) string {
	for n := range byte(20) {
		if hypercore.SingleSigner(keyPair(n, "tree").Public).Key() == w {
			return fmt.Sprint("device", n)
		}
	}
	return ""
}

func openReal(t testing.TB, engine storage.Engine, clk clock.Clock, n, all byte) *realFolder {
	t.Helper()
	store, err := storage.Open(engine, storage.Options{})
	must(t, err)
	f := &realFolder{t: t, n: n, all: all, logs: map[string]*hypercore.Log{}}
	entries := tree.New(tree.Options{Clock: clk})
	contents := content.New(content.Options{Clock: clk})
	for m := byte(1); m <= all; m++ {
		for _, what := range []string{"tree", "content"} {
			kp := keyPair(m, what)
			o := hypercore.Options{KeyPair: &kp}
			if m != n {
				o = hypercore.Options{Manifest: hypercore.SingleSigner(kp.Public)}
			}
			f.logs[fmt.Sprint(m, what)], err = hypercore.Open(store, o)
			must(t, err)
		}
		bee, err := hyperbee.Open(f.log(m, "tree"), hyperbee.Options{Cache: hyperbee.NewCache(4 << 20)})
		must(t, err)
		if m == n {
			must(t, entries.Own(bee))
			must(t, contents.Own(f.log(m, "content")))
			continue
		}
		must(t, entries.Add(bee, 0))
		must(t, contents.Add(f.log(m, "content"), 0))
	}
	f.Folder = folder.New(entries, contents, folder.Options{Device: deviceName, Clock: clk})
	t.Cleanup(func() {
		must(t, entries.Close())
		for _, log := range f.logs {
			must(t, log.Close())
		}
		must(t, store.Close())
	})
	return f
}

func (f *realFolder) log(m byte, what string) *hypercore.Log { return f.logs[fmt.Sprint(m, what)] }

// hear brings here all that another device has.
func (f *realFolder) hear(from *realFolder) {
	f.t.Helper()
	for m := byte(1); m <= f.all; m++ {
		if m == f.n {
			continue
		}
		for _, what := range []string{"content", "tree"} {
			dst, src := f.log(m, what), from.log(m, what)
			if dst.Length() < src.Length() {
				apply(f.t, dst, src, merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: dst.Length(), Length: src.Length() - dst.Length()}})
			}
			for i := range src.Length() {
				if dst.Has(i) || !src.Has(i) {
					continue
				}
				missing, err := dst.Head().Tree.MissingNodes(2*i, dst)
				must(f.t, err)
				apply(f.t, dst, src, merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: missing}})
			}
		}
	}
}

func apply(t testing.TB, dst, src *hypercore.Log, r merkle.Request) {
	t.Helper()
	proof, err := src.Prove(context.Background(), r, true)
	must(t, err)
	errs, err := dst.Apply(context.Background(), hypercore.Soon, proof)
	must(t, errors.Join(append(errs, err)...))
}

// A world is some devices that meet when they are told to.
type world struct {
	t       testing.TB
	devices []*device
	reals   []*realFolder // or
	fakes   []*fakeFolder
}

func newWorld(t testing.TB, n int, real bool) *world {
	w := &world{t: t}
	for i := range n {
		d := newDevice(t, string(rune('a'+i)), func(c *config) {
			onFaulty(&faulty{})(c)
			if real {
				f := openReal(t, storage.NewMemory(), c.clock, byte(i+1), byte(n))
				w.reals = append(w.reals, f)
				c.source = cloudFolder{f.Folder}
			}
		})
		w.fakes = append(w.fakes, d.cloud)
		w.devices = append(w.devices, d)
	}
	return w
}

func (w *world) meet(i, j int) {
	if w.reals == nil {
		meet(w.fakes[i], w.fakes[j], true)
		return
	}
	w.reals[i].hear(w.reals[j])
	w.reals[j].hear(w.reals[i])
}

// rest lets all meet until nothing changes any more.
func (w *world) rest() {
	w.t.Helper()
	before := ""
	for range 15 {
		now := ""
		for _, d := range w.devices {
			d.sync()
			now += d.tree()
			v, err := d.c.source.version(w.t.Context())
			must(w.t, err)
			now += fmt.Sprintf("%x", v)
		}
		if now == before {
			return
		}
		before = now
		for i := range w.devices {
			for j := range i {
				w.meet(i, j)
			}
		}
	}
	w.t.Fatal("it does not come to rest")
}

func TestRealFoldersOfTwoDevices(t *testing.T) {
	w := newWorld(t, 2, true)
	a, b := w.devices[0], w.devices[1]
	a.write("/notes/today.txt", "hello")
	a.write("/big", strings.Repeat("0123456789", 100_000))
	a.write("/gone", "x")
	w.rest()
	same(t, "other device", b.tree(), a.tree())
	b.write("/notes/today.txt", "from b")
	a.write("/notes/today.txt", "from a, longer")
	b.rename("/big", "/notes/big")
	a.remove("/gone")
	b.write("/in/a/folder", "new")
	must(t, os.Symlink("no \xff text", b.at("/link")))
	w.rest()
	b.wantNotice(CodeNameHere, "/link")
	b.remove("/link")
	w.rest()
	same(t, "other device", b.tree(), a.tree())
	for _, want := range []string{"from a, longer", "from b", "/notes/big", "/in/a/folder", "today (conflict from device"} {
		if !strings.Contains(a.tree(), want) {
			t.Errorf("%q is missing:\n%s", want, a.tree())
		}
	}
	if strings.Contains(a.tree(), "/gone") || strings.Count(a.tree(), "conflict") != 1 {
		t.Error(a.tree())
	}
	a.wantCalm()
	b.wantCalm()
}
