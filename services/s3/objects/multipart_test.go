package objects

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/cloud/folder"
)

// upload puts an object in parts.
func (r *rig) upload(key string, numbers []int, parts ...[]byte) (Upload, []CompletePart) {
	r.t.Helper()
	u, err := r.CreateUpload(r.t.Context(), key, UploadOptions{Meta: Meta{ContentType: "t/x"}, Tags: []Tag{{"a", "b"}}, Algorithm: "SHA1", Composite: true})
	must(r.t, err)
	var list []CompletePart
	for i, data := range parts {
		p, err := r.PutPart(r.t.Context(), key, u.ID, numbers[i], bytes.NewReader(data), func(Read) (Checksum, error) {
			sum := sha1.Sum(data)
			return Checksum{Algorithm: "SHA1", Value: sum[:]}, nil
		})
		must(r.t, err)
		list = append(list, CompletePart{Number: p.Number, ETag: p.ETag})
	}
	return u, list
}

func TestObjectsArePutInParts(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	parts := [][]byte{random(5<<20, 1), random(5<<20, 2), random(100, 3)}
	for _, key := range []string{"dir/multi", "odd//multi"} {
		u, list := r.upload(key, []int{1, 5, 9}, parts...)
		_, err := r.PutPart(ctx, key, u.ID, 7, strings.NewReader("not wanted"), nil)
		must(t, err)
		got, more, err := r.Parts(ctx, key, u.ID, 1, 2)
		must(t, err)
		want(t, "parts", fmt.Sprint(got[0].Number, got[1].Number, got[0].Size, more), "5 7 5242880 true")
		want(t, "nothing yet", r.get(key, ""), "no key")
		before := r.f.Contents().Logs()[0].ByteLength()
		whole := md5.New()
		o, err := r.Complete(ctx, key, u.ID, list, CompleteOptions{Hash: whole, Finish: func(parts []Part, size int64) (Checksum, error) {
			want(t, "parts", len(parts), 3)
			return Checksum{Algorithm: "SHA1", Value: []byte("12345678901234567890"), Composite: true}, nil
		}})
		must(t, err)
		if n := r.f.Contents().Logs()[0].ByteLength() - before; n > 64<<10 {
			t.Errorf("completing stored %d bytes", n)
		}
		data := bytes.Join(parts, nil)
		want(t, "whole", fmt.Sprintf("%x", whole.Sum(nil)), fmt.Sprintf("%x", md5.Sum(data)))
		var sums []byte
		for _, p := range parts {
			sum := md5.Sum(p)
			sums = append(sums, sum[:]...)
		}
		want(t, "etag", o.ETag, fmt.Sprintf("%x-3", md5.Sum(sums)))
		if r.get(key, "") != string(data) {
			t.Error("other bytes")
		}
		head, err := r.Head(ctx, key, "")
		must(t, err)
		want(t, "type and tags", fmt.Sprint(head.Meta.ContentType, head.Tags, " ", head.Parts), "t/x[{a b}] 3")
		sum := sha1.Sum(parts[1])
		info := r.PartsOf(head)
		want(t, "part 2", fmt.Sprint(info[1].Number, info[1].Start, info[1].Size), "2 5242880 5242880")
		want(t, "its checksum", fmt.Sprintf("%x", info[1].Checksum), fmt.Sprintf("%x", sum))
		// A client that did not hear of it asks again.
		again, err := r.Complete(ctx, key, u.ID, list, CompleteOptions{})
		must(t, err)
		want(t, "again", again.ETag, o.ETag)
		_, _, err = r.Parts(ctx, key, u.ID, 0, 10)
		wantErr(t, "after", err, ErrNoUpload)
	}
	if n := r.rowsLeft(); n != 1 { // the odd object
		t.Errorf("%d rows are left", n)
	}
}

// rowsLeft counts what is kept aside.
func (r *rig) rowsLeft() (n int) {
	for _, err := range r.f.Asides(r.t.Context(), from("", "")) {
		must(r.t, err)
		n++
	}
	return n
}

func TestPartsThatMakeNoObject(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	u, list := r.upload("k", []int{1, 2}, []byte("one"), []byte("two"))
	complete := func(list []CompletePart) error {
		_, err := r.Complete(ctx, "k", u.ID, list, CompleteOptions{})
		return err
	}
	wantErr(t, "no parts", complete(nil), ErrPart)
	wantErr(t, "order", complete([]CompletePart{list[1], list[0]}), ErrPartOrder)
	wantErr(t, "twice", complete([]CompletePart{list[0], list[0]}), ErrPartOrder)
	wantErr(t, "other etag", complete([]CompletePart{{1, "x", nil}}), ErrPart)
	wantErr(t, "other checksum", complete([]CompletePart{{1, list[0].ETag, []byte("x")}}), ErrPart)
	wantErr(t, "none such", complete([]CompletePart{list[0], {3, "x", nil}}), ErrPart)
	r.store.o.SmallParts = false
	wantErr(t, "small", complete(list), ErrPartSize)
	r.store.o.SmallParts = true
	_, err := r.PutPart(ctx, "k", u.ID, 0, strings.NewReader(""), nil)
	wantErr(t, "part 0", err, ErrPart)
	_, err = r.PutPart(ctx, "k", u.ID, MaxPart+1, strings.NewReader(""), nil)
	wantErr(t, "part 10001", err, ErrPart)
	for _, id := range []string{"", "x", u.ID + "00", strings.Repeat("0", 32)} {
		_, err = r.PutPart(ctx, "k", id, 1, strings.NewReader(""), nil)
		wantErr(t, "other upload", err, ErrNoUpload)
	}
	_, err = r.PutPart(ctx, "other", u.ID, 1, strings.NewReader(""), nil)
	wantErr(t, "other key", err, ErrNoUpload)
	must(t, r.Abort(ctx, "k", u.ID))
	wantErr(t, "aborted", complete(list), ErrNoUpload)
	wantErr(t, "aborted twice", r.Abort(ctx, "k", u.ID), ErrNoUpload)
	want(t, "rows left", r.rowsLeft(), 0)
}

func TestWhatIsCopied(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	big := random(3<<20, 9)
	r.put("big", string(big))
	source, err := r.Head(ctx, "big", "")
	must(t, err)
	other, err := r.store.Make(ctx, "", "other", false)
	must(t, err)
	defer other.Close()
	before := r.f.Contents().Logs()[0].ByteLength()
	copied, err := r.Copy(ctx, "copy", r.Bucket, source, PutOptions{Meta: Meta{ContentType: "t/c"}})
	must(t, err)
	want(t, "etag", copied.ETag, source.ETag)
	want(t, "stored", r.f.Contents().Logs()[0].ByteLength()-before, 0)
	far, err := other.Copy(ctx, "copy", r.Bucket, source, PutOptions{})
	must(t, err)
	want(t, "etag", far.ETag, source.ETag)
	o := &rig{other, t, r.clock, r.store, r.spaces}
	if r.get("copy", "") != string(big) || o.get("copy", "") != string(big) {
		t.Error("a copy has other bytes")
	}
	for _, b := range []*rig{r, o} {
		u, _ := b.upload("parts", nil)
		var list []CompletePart
		for i, part := range [][2]int64{{0, 1 << 20}, {100, 2 << 20}, {3<<20 - 5, 5}, {7, 0}} {
			p, err := b.CopyPart(ctx, "parts", u.ID, i+1, r.Bucket, source, part[0], part[1])
			must(t, err)
			list = append(list, CompletePart{Number: p.Number, ETag: p.ETag})
		}
		_, err = b.CopyPart(ctx, "parts", u.ID, 1, r.Bucket, source, 3<<20, 1)
		wantErr(t, "beyond", err, ErrPart)
		_, err := b.Complete(ctx, "parts", u.ID, list, CompleteOptions{})
		must(t, err)
		if b.get("parts", "") != string(big[:1<<20])+string(big[100:100+2<<20])+string(big[3<<20-5:]) {
			t.Error("copied parts have other bytes")
		}
	}
}

func TestUploadsAreListed(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	var all []string
	for _, k := range []string{"a", "a", "a", "b/1", "b/2", "c\x00", "c"} {
		u, _ := r.upload(k, nil)
		all = append(all, u.Key+u.ID)
	}
	all[5], all[6] = all[6], all[5]
	list := func(o ListOptions) (out []string) {
		for {
			p, err := r.ListUploads(ctx, o)
			must(t, err)
			for _, u := range p.Uploads {
				out = append(out, u.Key+u.ID)
			}
			out = append(out, p.Prefixes...)
			if !p.More {
				return out
			}
			o.After, o.AfterUpload = p.Next, p.NextUpload
		}
	}
	for _, limit := range []int{1, 2, 100} {
		want(t, "uploads", fmt.Sprint(list(ListOptions{Limit: limit})), fmt.Sprint(all))
		want(t, "grouped", len(list(ListOptions{Limit: limit, Delimiter: "/"})), 6)
	}
	want(t, "with a prefix", len(list(ListOptions{Prefix: "b"})), 2)
	want(t, "behind a key", len(list(ListOptions{After: "a"})), 4)
}

func TestContentsAreKeptAndFreed(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.versioned()
	data := string(random(200<<10, 5))
	r.put("x/y", "y")
	odd := r.put("x", data+"odd")
	old := r.put("v", data+"old")
	r.put("v", data+"new")
	must(t, r.SetConfig(ctx, "policy", []byte("{}")))
	u, list := r.upload("multi", []int{1, 2}, []byte(data+"1"), []byte(data+"2"))
	gone, _ := r.upload("gone", []int{1}, random(1<<20, 77))
	must(t, r.Abort(ctx, "gone", gone.ID))
	r.clock.Advance(time.Hour)
	swept, err := r.f.Clear(ctx, folder.Retention{All: -1, Daily: -1})
	must(t, err)
	if swept.Bytes < 1<<20 || swept.Bytes > 1<<20+64<<10 {
		t.Errorf("%d bytes were freed", swept.Bytes)
	}
	// What was only a part of something is freed, also where all that was is kept.
	gone, _ = r.upload("gone", []int{1}, random(1<<20, 78))
	r.clock.Advance(26 * time.Hour)
	must(t, r.Abort(ctx, "gone", gone.ID))
	swept, err = r.f.Clear(ctx, folder.Retention{})
	must(t, err)
	if swept.Bytes < 1<<20 {
		t.Errorf("%d bytes of a part were freed", swept.Bytes)
	}
	want(t, "odd", r.get("x", odd.Version) == data+"odd", true)
	want(t, "old", r.get("v", old.Version) == data+"old", true)
	_, err = r.Complete(ctx, "multi", u.ID, list, CompleteOptions{})
	must(t, err)
	_, err = r.f.Clear(ctx, folder.Retention{All: -1, Daily: -1})
	must(t, err)
	want(t, "multi", r.get("multi", "") == data+"1"+data+"2", true)
	config, err := r.Config(ctx, "policy")
	must(t, err)
	want(t, "config", string(config), "{}")
	missing, err := r.f.Missing(ctx, "/")
	must(t, err)
	want(t, "missing", missing, 0)
}
