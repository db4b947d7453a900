package folder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// start is when the clocks of tests begin.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var secret = [32]byte{42}

// A device is one that has the folder, with a store of its own.
type device struct {
	*Folder
	t        testing.TB
	n        byte
	clock    *clock.Fake
	store    *storage.Store
	contents *content.Store
	logs     map[string]*hypercore.Log
	bees     map[byte]*hyperbee.Tree
	all      map[byte]*device
}

// keyPair is that of a log of device n.
func keyPair(n byte, what string) hypercore.KeyPair {
	seed := [32]byte{n}
	copy(seed[1:], what)
	return hypercore.NewKeyPair(seed)
}

func writerOf(n byte) tree.Writer {
	return hypercore.SingleSigner(keyPair(n, "tree").Public).Key()
}

// nameOf says what device writes a log.
func nameOf(w tree.Writer) string {
	for n := range byte(20) {
		if writerOf(n) == w {
			return fmt.Sprint("device", n)
		}
	}
	return ""
}

// openDevice opens device n on a store, with the logs of devices 1 to all.
func openDevice(t testing.TB, engine storage.Engine, n, all byte, chunk int) *device {
	t.Helper()
	store, err := storage.Open(engine, storage.Options{})
	must(t, err)
	d := &device{t: t, n: n, store: store, clock: clock.NewFake(start), logs: map[string]*hypercore.Log{}, bees: map[byte]*hyperbee.Tree{}}
	entries := tree.New(tree.Options{Clock: d.clock})
	d.contents = content.New(content.Options{ChunkSize: chunk, Clock: d.clock})
	for m := byte(1); m <= all; m++ {
		bee, err := hyperbee.Open(d.log(m, "tree"), hyperbee.Options{Cache: hyperbee.NewCache(4 << 20)})
		must(t, err)
		d.bees[m] = bee
		if m == n {
			must(t, entries.Own(bee))
			must(t, d.contents.Own(d.log(m, "content")))
			continue
		}
		must(t, entries.Add(bee, 0))
		must(t, d.contents.Add(d.log(m, "content"), 0))
	}
	d.Folder = New(entries, d.contents, Options{Device: nameOf, Clock: d.clock})
	return d
}

func (d *device) close() {
	must(d.t, d.tree.Close())
	for _, log := range d.logs {
		must(d.t, log.Close())
	}
	must(d.t, d.store.Close())
}

func newDevices(t testing.TB, count byte, chunk int) (list []*device) {
	t.Helper()
	all := map[byte]*device{}
	for n := byte(1); n <= count; n++ {
		d := openDevice(t, storage.NewMemory(), n, count, chunk)
		t.Cleanup(d.close)
		list = append(list, d)
		all[n] = d
		d.all = all
	}
	return list
}

func newDevice(t testing.TB) *device { return newDevices(t, 1, 0)[0] }

// log is a log of device m, as this device has it.
func (d *device) log(m byte, what string) *hypercore.Log {
	d.t.Helper()
	id := fmt.Sprint(m, what)
	if d.logs[id] != nil {
		return d.logs[id]
	}
	kp := keyPair(m, what)
	o := hypercore.Options{KeyPair: &kp, Session: hypercore.SessionOptions{EncryptionKey: &secret}}
	if m != d.n {
		o.KeyPair, o.Manifest = nil, hypercore.SingleSigner(kp.Public)
	}
	log, err := hypercore.Open(d.store, o)
	must(d.t, err)
	d.logs[id] = log
	return log
}

// A peer is a source of a log's blocks: another device of the same process.
// Proofs are made by the log's writer, who has all that they take.
type peer struct{ log, from, writer *hypercore.Log }

func (p *peer) FetchBlock(_ context.Context, i uint64) error {
	if !p.from.Has(i) {
		return hypercore.ErrNotFound
	}
	return pullBlock(p.log, p.writer, i)
}

func (p *peer) FetchSeek(context.Context, uint64, uint64, hypercore.Range) error {
	return errors.New("nobody seeks here")
}

func (p *peer) FetchRange(ctx context.Context, r hypercore.DownloadRange) error {
	for i := r.From; i < r.To; i++ {
		if !p.log.Has(i) {
			if err := p.FetchBlock(ctx, i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *peer) FetchHead(context.Context) error { return pullHead(p.log, p.writer) }

func pullHead(dst, src *hypercore.Log) error {
	have, there := dst.Length(), src.Length()
	if have >= there {
		return nil
	}
	return applyProof(dst, src, merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: have, Length: there - have}})
}

func applyProof(dst, src *hypercore.Log, r merkle.Request) error {
	proof, err := src.Prove(context.Background(), r, true)
	if err != nil {
		return err
	}
	errs, err := dst.Apply(context.Background(), hypercore.Soon, proof)
	return errors.Join(append(errs, err)...)
}

func pullBlock(dst, src *hypercore.Log, i uint64) error {
	if err := pullHead(dst, src); err != nil {
		return err
	}
	missing, err := dst.Head().Tree.MissingNodes(2*i, dst)
	if err != nil {
		return err
	}
	return applyProof(dst, src, merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: missing}})
}

// hear brings the entries of all devices that another one has here, and makes it the
// source of contents.
func (d *device) hear(from *device) {
	d.t.Helper()
	for m := range d.bees {
		if m != d.n {
			dst, src := d.log(m, "tree"), from.log(m, "tree")
			must(d.t, pullHead(dst, src))
			for i := range src.Length() {
				if !dst.Has(i) && src.Has(i) {
					must(d.t, pullBlock(dst, src, i))
				}
			}
			log := d.log(m, "content")
			log.SetSource(&peer{log, from.log(m, "content"), d.all[m].log(m, "content")})
		}
	}
}

// alone takes the sources of contents away.
func (d *device) alone() {
	for m := range d.bees {
		d.log(m, "content").SetSource(nil)
	}
}

// meet lets each of some devices hear and have what all have.
func meet(list ...*device) {
	for range 2 {
		for _, d := range list {
			for _, from := range list {
				if d != from {
					d.hear(from)
					if err := d.Download(d.t.Context(), "/"); err != nil {
						d.t.Fatalf("device %d from %d: %v", d.n, from.n, err)
					}
				}
			}
		}
	}
	for _, d := range list {
		d.alone()
	}
}

func (d *device) write(path, data string) {
	d.t.Helper()
	must(d.t, d.Put(d.t.Context(), path, strings.NewReader(data), PutOptions{}))
}

func (d *device) read(path string) string {
	d.t.Helper()
	data, err := d.ReadFile(d.t.Context(), path, 1<<30)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(data)
}

// files are all files of a folder with their contents, links with where they lead,
// and folders that were made.
func files(t testing.TB, f *Folder) map[string]string {
	t.Helper()
	out := map[string]string{}
	for e, err := range f.List(t.Context(), "/", ListOptions{Recursive: true}) {
		must(t, err)
		switch e.Kind {
		case File:
			r, err := f.OpenEntry(t.Context(), e)
			must(t, err)
			var b bytes.Buffer
			if _, err = io.Copy(&b, r); err != nil {
				t.Fatalf("%s: %v", e.Path, err)
			}
			must(t, r.Close())
			out[e.Path] = b.String()
		case Symlink:
			out[e.Path] = "-> " + e.Link
		case Dir:
			out[e.Path] = "(folder)"
		default:
			out[e.Path] = e.Err.Error()
		}
	}
	return out
}

func paths(t testing.TB, f *Folder, dir string, o ListOptions) (out []string) {
	t.Helper()
	for e, err := range f.List(t.Context(), dir, o) {
		must(t, err)
		out = append(out, e.Path)
	}
	return out
}

func want[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
