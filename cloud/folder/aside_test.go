package folder

import (
	"fmt"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// store1 stores a content and returns where it is.
func (d *device) store1(data string) content.Ref {
	d.t.Helper()
	hold := d.contents.Hold()
	defer hold.Release()
	ref, err := hold.Put(d.t.Context(), []byte(data))
	must(d.t, err)
	return ref
}

func (d *device) txn(do func(*Txn) error) {
	d.t.Helper()
	x, err := d.Begin(d.t.Context())
	must(d.t, err)
	defer x.Close()
	must(d.t, do(x))
	must(d.t, x.Flush(d.t.Context()))
}

func asideNames(t *testing.T, f *Folder, o hyperbee.RangeOptions) (out []string) {
	for e, err := range f.Asides(t.Context(), o) {
		must(t, err)
		out = append(out, e.Path)
	}
	return out
}

func TestWhatIsAsideIsNoFileAndIsKept(t *testing.T) {
	d := newDevice(t)
	ctx := t.Context()
	d.write("/file", "file")
	begin, err := d.Version(ctx)
	must(t, err)
	kept, gone, part := d.store1("kept aside"), d.store1("gone"), d.store1("part")
	d.txn(func(x *Txn) error {
		for _, name := range []string{"\x00", "a//b", "b", "\xff"} {
			must(t, x.PutAside(ctx, Entry{Path: name, Kind: File, Content: kept, Attributes: []byte("of " + name)}))
		}
		must(t, x.PutAside(ctx, Entry{Path: "part", Kind: File, Content: part, Growing: true}))
		must(t, x.PutAside(ctx, Entry{Path: "gone", Kind: File, Content: gone}))
		if err := x.PutAside(ctx, Entry{Path: "dir", Kind: Dir}); err == nil {
			t.Error("a folder is aside")
		}
		e, err := x.Aside(ctx, "b")
		want(t, "in the transaction", string(e.Attributes), "of b")
		return err
	})
	d.txn(func(x *Txn) error {
		must(t, x.RemoveAside(ctx, "part"))
		return x.RemoveAside(ctx, "gone")
	})
	want(t, "aside", fmt.Sprintf("%q", asideNames(t, d.Folder, hyperbee.RangeOptions{})), `["\x00" "a//b" "b" "\xff"]`)
	want(t, "aside from", fmt.Sprintf("%q", asideNames(t, d.Folder, hyperbee.RangeOptions{Gt: []byte("a//b"), Lte: []byte("\xff")})), `["b" "\xff"]`)
	want(t, "files", fmt.Sprint(files(t, d.Folder)), "map[/file:file]")
	for c, err := range d.Changes(ctx, begin) {
		must(t, err)
		t.Errorf("%q is a change of files", c.Path)
	}
	said := 0
	for s, err := range d.Said(ctx, begin) {
		must(t, err)
		if !s.Aside || s.Seq == 0 {
			t.Errorf("%q was said of a file", s.Path)
		}
		said++
	}
	want(t, "statements", said, 8)
	// Nothing is kept of a part; what is gone is kept as files are.
	d.clock.Advance(time.Hour)
	swept, err := d.Clear(ctx, Retention{})
	must(t, err)
	want(t, "freed", swept.Blocks, uint64(1))
	swept, err = d.Clear(ctx, Retention{All: -1, Daily: -1})
	must(t, err)
	want(t, "freed", swept.Blocks, uint64(1))
	for _, name := range []string{"\x00", "b"} {
		e, err := d.Aside(ctx, name)
		must(t, err)
		data, err := d.contents.Get(ctx, e.Content, 100)
		must(t, err)
		want(t, "content", string(data), "kept aside")
	}
	s, err := d.Scrub(ctx, ScrubOptions{})
	must(t, err)
	want(t, "scrubbed", fmt.Sprint(s.Files, s.Problems), "5 0")
}

func TestWhatIsAsideComesToOthers(t *testing.T) {
	list := newDevices(t, 2, 0)
	a, b := list[0], list[1]
	ref := a.store1("from a")
	a.txn(func(x *Txn) error {
		return x.PutAside(t.Context(), Entry{Path: "x//y", Kind: File, Content: ref, Attributes: []byte("attr")})
	})
	meet(a, b)
	e, err := b.Aside(t.Context(), "x//y")
	must(t, err)
	missing, err := b.Missing(t.Context(), "/")
	must(t, err)
	data, err := b.contents.Get(t.Context(), e.Content, 100)
	must(t, err)
	want(t, "aside", fmt.Sprintf("%s %s %d", data, e.Attributes, missing), "from a attr 0")
}

func TestAttributesGoWithTheirContent(t *testing.T) {
	d := newDevice(t)
	ctx := t.Context()
	ref := d.store1("data")
	d.txn(func(x *Txn) error {
		return x.Put(ctx, Entry{Path: "/f", Kind: File, Content: ref, Attributes: []byte("attr")})
	})
	attr := func(path string) string {
		e, err := d.Stat(ctx, path)
		must(t, err)
		return string(e.Attributes)
	}
	want(t, "put", attr("/f"), "attr")
	d.write("/f", "data")
	want(t, "put again", attr("/f"), "attr")
	must(t, d.PutContent(ctx, "/f", ref, PutOptions{Mode: 0o600}))
	want(t, "touched", attr("/f"), "attr")
	must(t, d.Move(ctx, "/f", "/g"))
	want(t, "moved", attr("/g"), "attr")
	d.write("/g", "other")
	want(t, "other content", attr("/g"), "")
	x, err := d.Begin(ctx)
	must(t, err)
	defer x.Close()
	if err := x.Put(ctx, Entry{Path: "/f", Kind: File, Content: ref, Attributes: make([]byte, MaxAttributes+1)}); err == nil {
		t.Error("too large attributes were put")
	}
}
