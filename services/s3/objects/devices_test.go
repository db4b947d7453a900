package objects

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// A pair are the logs of two devices, which write the same bucket.
type pair struct {
	t        *testing.T
	clock    *clock.Fake
	bees     [2]*hyperbee.Tree
	contents [2]*hypercore.Log
}

func newPair(t *testing.T) *pair {
	logs, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, logs.Close()) })
	p := &pair{t: t, clock: clock.NewFake(epoch)}
	for i := range 2 {
		log, err := logs.Get(corestore.LogOptions{Name: fmt.Sprint("tree", i)})
		must(t, err)
		p.bees[i], err = hyperbee.Open(log, hyperbee.Options{Cache: hyperbee.NewCache(1 << 20)})
		must(t, err)
		p.contents[i], err = logs.Get(corestore.LogOptions{Name: fmt.Sprint("content", i)})
		must(t, err)
		t.Cleanup(func() {
			must(t, p.bees[i].Close())
			must(t, log.Close())
			must(t, p.contents[i].Close())
		})
	}
	return p
}

// device opens the bucket as one of them has it, knowing of the other or not. Two that
// do not know of each other write at the same time.
func (p *pair) device(n int, other bool) *rig {
	t := p.t
	entries := tree.New(tree.Options{Clock: p.clock})
	contents := content.New(content.Options{Clock: p.clock})
	must(t, entries.Own(p.bees[n]))
	must(t, contents.Own(p.contents[n]))
	if other {
		must(t, entries.Add(p.bees[1-n], 0))
		must(t, contents.Add(p.contents[1-n], 0))
	}
	f := folder.New(entries, contents, folder.Options{Clock: p.clock})
	store := New(Options{Spaces: one{f}, Clock: p.clock, SmallParts: true})
	b, err := store.Open(t.Context(), "", "bucket")
	must(t, err)
	t.Cleanup(func() {
		must(t, b.Close())
		must(t, store.Close())
		must(t, entries.Close())
	})
	return &rig{b, t, p.clock, store, nil}
}

// one is the spaces of one bucket.
type one struct{ f *folder.Folder }

func (o one) List(context.Context, string) ([]Info, error) { return nil, nil }
func (o one) Open(context.Context, string, string) (*Space, error) {
	return &Space{Folder: o.f}, nil
}
func (o one) Make(context.Context, string, string) (*Space, error) { return nil, ErrBucketExists }
func (o one) Drop(context.Context, string, string) error           { return nil }

func TestDevicesThatMeetHaveTheSameBucket(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	first := p.device(0, false)
	first.versioned()
	first.put("both", "from 1")
	first.put("odd//both", "odd from 1")
	first.put("only 1", "1")
	first.put("x", "file")
	p.clock.Advance(time.Minute)
	second := p.device(1, false)
	second.versioned()
	second.put("both", "from 2")
	second.put("odd//both", "odd from 2")
	second.put("x/y", "inside of it")
	second.put("only 2", string(random(200<<10, 1)))
	second.remove("only 1", "") // it has no such object, and makes a marker
	must(t, second.SetConfig(ctx, "policy", []byte("of 2")))

	a, b := p.device(0, true), p.device(1, true)
	for _, r := range []*rig{a, b} {
		want(t, "both", r.get("both", ""), "from 2")
		want(t, "odd", r.get("odd//both", ""), "odd from 2")
		want(t, "x", r.get("x", ""), "file")
		want(t, "x/y", r.get("x/y", ""), "inside of it")
		want(t, "only 1", r.get("only 1", ""), "1") // a value wins over a deletion
		want(t, "only 2", len(r.get("only 2", "")), 200<<10)
		want(t, "versions", fmt.Sprint(r.shown(ListOptions{Prefix: "both"})), "[both=from 2! both=from 1]")
		want(t, "odd versions", fmt.Sprint(r.shown(ListOptions{Prefix: "odd"})), "[odd//both=odd from 2! odd//both=odd from 1]")
		want(t, "versions", fmt.Sprint(r.shown(ListOptions{Prefix: "only 1"})), "[only 1=1! only 1=marker]")
		want(t, "keys", fmt.Sprint(r.keys(ListOptions{})), "[both odd//both only 1 only 2 x x/y]")
		config, err := r.Config(ctx, "policy")
		must(t, err)
		want(t, "config", string(config), "of 2")
	}
	// What is remembered of a bucket is what it is.
	for i := range 3 {
		for _, r := range []*rig{a, b} {
			must(t, r.SetConfig(ctx, "cors", []byte{byte(i)}))
			for _, r := range []*rig{a, b, a, b} {
				config, err := r.Config(ctx, "cors")
				must(t, err)
				want(t, "config", config[0], byte(i))
			}
			must(t, r.SetConfig(ctx, "cors", nil))
			for _, r := range []*rig{a, b, a, b} {
				_, err := r.Config(ctx, "cors")
				wantErr(t, "no config", err, ErrNoConfig)
			}
		}
		for _, v := range []Versioning{Suspended, Enabled} {
			a.state(func(s *State) { s.Versioning = v })
			for _, r := range []*rig{a, b, a, b} {
				s, err := r.State(ctx)
				must(t, err)
				want(t, "versioning", s.Versioning, v)
			}
		}
	}
	// Either goes on from what both said, and the other hears of it.
	cursor, err := b.Cursor(ctx)
	must(t, err)
	o, err := a.Head(ctx, "both", "")
	must(t, err)
	_, err = a.Put(ctx, "both", strings.NewReader("from 1 again"), PutOptions{If: Conditions{IfMatch: []string{o.ETag}}})
	must(t, err)
	a.remove("odd//both", "")
	want(t, "both", b.get("both", ""), "from 1 again")
	want(t, "odd", b.get("odd//both", ""), "removed")
	names, _ := b.events(cursor)
	want(t, "events", strings.Join(names, "\n"), "Created:Put both\nRemoved:DeleteMarkerCreated odd//both")
	names, _ = b.events("")
	want(t, "all events", len(names), 9+2)
}

// Devices that write anything at all neither break a bucket nor what others have in it.
func TestRowsThatMakeNoSenseAreLeftOut(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	a := p.device(0, true)
	a.versioned()
	old := a.put("k", "old")
	a.put("k", "good")
	a.put("k//", "good and odd")
	u, list := a.upload("multi", []int{1}, []byte("part"))

	rng := rand.New(rand.NewPCG(1, 2))
	evil := tree.New(tree.Options{Clock: p.clock})
	defer evil.Close()
	must(t, evil.Own(p.bees[1]))
	var rows []string
	for _, kind := range []string{rowState, rowConfig, rowObject, rowVersion, rowUpload, rowPart, "s3?", ""} {
		for _, rest := range []string{"", "k", "\x00", "\x00\x00", "k\x00\x00", "k\x00\x00\xff", "k\x00\x01", "z\x00\x00" + strings.Repeat("i", idSize), "k\x00\x00" + strings.Repeat("\x00", idSize), "a//b", strings.Repeat("l", 3000), "\xff\xfe"} {
			rows = append(rows, "aside:"+kind+rest)
		}
	}
	rows = append(rows, "/evil", "/k2/", "/"+strings.Repeat("n", 2000), "/bad\xff")
	b, err := evil.Batch(ctx)
	must(t, err)
	good := func(attributes []byte) []byte {
		// A file's entry as folder writes it: made by a folder of this device.
		e := folder.Entry{Kind: folder.File, Content: content.Empty(), Attributes: attributes, Path: "/x"}
		return encodeEntry(t, e)
	}
	for i, row := range rows {
		value := random(rng.IntN(40), byte(i))
		switch i % 3 {
		case 0:
			attributes := random(1+rng.IntN(60), byte(i))
			attributes[0] = attributesVersion
			value = good(attributes)
		case 1:
			value = good((&attributes{version: []byte(strings.Repeat("i", idSize)), marker: i%2 == 0, sizes: []run{{MaxPart, 1 << 40}, {MaxPart, 1 << 40}}, md5: make([]byte, 16), state: State{Versioning: Enabled}}).encode())
		}
		if len(row) > 0 {
			must(t, b.Put(ctx, []byte(row), value))
		}
	}
	must(t, b.Flush(ctx))

	a = p.device(0, true)
	want(t, "object", a.get("k", ""), "good")
	want(t, "version", a.get("k", old.Version), "old")
	for _, delimiter := range []string{"", "/"} {
		for _, limit := range []int{1, 2, 1000} {
			keys := fmt.Sprintf("%q", a.keys(ListOptions{Limit: limit, Delimiter: delimiter}))
			if !strings.Contains(keys, `"k"`) {
				t.Errorf("the object is not in %s", keys)
			}
			n := 0
			for _, v := range a.listed(ListOptions{Limit: limit, Delimiter: delimiter}) {
				if v.Key == "k" {
					n++
				}
				_, _ = a.Head(ctx, v.Key, v.Version)
				_ = a.PartsOf(v)
			}
			if n < 2 {
				t.Errorf("%d versions are listed", n)
			}
			for o := (ListOptions{Limit: limit, Delimiter: delimiter}); ; {
				page, err := a.ListUploads(ctx, o)
				must(t, err)
				if !page.More {
					break
				}
				o.After, o.AfterUpload = page.Next, page.NextUpload
			}
		}
	}
	_, err = a.Complete(ctx, "multi", u.ID, list, CompleteOptions{})
	must(t, err)
	_, err = a.Configs(ctx)
	must(t, err)
	a.events("")
	for _, key := range []string{"k", "k//", "evil", "a//b", "z", "new", strings.Repeat("n", 1000)} {
		a.put(key, "over it")
		want(t, key, a.get(key, ""), "over it")
		a.remove(key, "")
	}
	_, err = a.Expire(ctx, []Rule{{Days: 1, OldDays: 1, Marker: true, UploadDays: 1}}, p.clock.Now().Add(100*aDay))
	must(t, err)
	_, err = a.f.Clear(ctx, folder.Retention{})
	must(t, err)
}

// encodeEntry returns the bytes of an entry in a tree.
func encodeEntry(t *testing.T, e folder.Entry) []byte {
	p := newPair(t)
	r := p.device(0, false)
	x, err := r.f.Begin(t.Context())
	must(t, err)
	must(t, x.Put(t.Context(), e))
	must(t, x.Flush(t.Context()))
	raw, err := r.f.Tree().Get(t.Context(), []byte(e.Path))
	must(t, err)
	return raw.Value
}

func FuzzAttributes(f *testing.F) {
	f.Add((&attributes{md5: make([]byte, 16), sizes: []run{{3, 5}}, meta: Meta{ContentType: "a", User: map[string]string{"a": "b"}}, tags: []Tag{{"a", "b"}},
		checksum: Checksum{"CRC32", []byte{1}, true}, checksums: []byte{1}, lock: Lock{Mode: Governance, Until: epoch, Hold: true}, acl: "x", version: make([]byte, idSize), event: CreatedPut, by: "b",
		marker: true, upload: make([]byte, idSize), state: State{Enabled, true, Compliance, 1, 2}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var a, again, brief attributes
		if a.decode(b, false) != nil {
			return
		}
		must(t, again.decode(a.encode(), false))
		if a.meta.User != nil && len(a.meta.User) == 0 {
			a.meta.User = nil
		}
		if !reflect.DeepEqual(normal(a), normal(again)) {
			t.Errorf("%+v came back as %+v", a, again)
		}
		must(t, brief.decode(b, true))
		_ = a.etag(&folder.Entry{})
		_ = (*Bucket)(nil).PartsOf(Object{Size: 100, v: &version{a: a}})
	})
}

// normal is attributes without what is no difference.
func normal(a attributes) attributes {
	none := func(b []byte) []byte {
		if len(b) == 0 {
			return nil
		}
		return b
	}
	a.md5, a.checksums, a.version, a.upload, a.checksum.Value = none(a.md5), none(a.checksums), none(a.version), none(a.upload), none(a.checksum.Value)
	if a.checksum.Algorithm == "" {
		a.checksum = Checksum{}
	}
	if a.lock.Mode == "" {
		a.lock.Until = time.Time{}
	}
	if a.state.Default == "" {
		a.state.Days, a.state.Years = 0, 0
	}
	if len(a.sizes) == 0 {
		a.sizes = nil
	}
	return a
}

func FuzzNames(f *testing.F) {
	f.Add("a\x00b", "id", "s3va\x00\xffb\x00\x00id")
	f.Fuzz(func(t *testing.T, key, id, name string) {
		k, i, ok := splitRow(rowVersion, rowOf(rowVersion, key, id))
		if !ok || k != key || i != id {
			t.Errorf("%q %q came back as %q %q", key, id, k, i)
		}
		splitRow(rowVersion, name)
		partNumber("id", name)
		readVersion(name)
		if (key < name) != (rowOf(rowVersion, key, "") < rowOf(rowVersion, name, "")) && key != name {
			t.Errorf("rows of %q and %q sort another way", key, name)
		}
	})
}
