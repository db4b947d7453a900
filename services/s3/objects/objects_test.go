package objects

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cloudbevy/bevy/cloud/folder"
)

func TestObjectsComeBack(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	for _, n := range []int{0, 1, 1000, 64 << 10, 64<<10 + 1, 1 << 20, 5 << 20} {
		data := random(n, byte(n))
		key := fmt.Sprint("size/", n)
		o, err := r.Put(ctx, key, iotest.HalfReader(bytes.NewReader(data)), PutOptions{
			Meta: Meta{ContentType: "a/b", CacheControl: "c", ContentDisposition: "d", ContentEncoding: "e", ContentLanguage: "l", Expires: "x", WebsiteRedirect: "/w", StorageClass: "GLACIER", User: map[string]string{"a": "1", "b": ""}},
			Tags: []Tag{{"k", "v"}},
			ACL:  "public-read",
			Finish: func(read Read) (Checksum, error) {
				if read.Size != int64(n) || read.MD5 != md5.Sum(data) || read.SHA256() != sha256.Sum256(data) {
					t.Errorf("of %d bytes %d were read, or other ones", n, read.Size)
				}
				return Checksum{Algorithm: "CRC32", Value: []byte{1, 2, 3, 4}}, nil
			},
		})
		must(t, err)
		head, err := r.Head(ctx, key, "")
		must(t, err)
		o.v, head.v = nil, nil
		want(t, key, o, head)
		want(t, key+" etag", head.ETag, fmt.Sprintf("%x", md5.Sum(data)))
		want(t, key+" meta", fmt.Sprintf("%v %v %v %v", head.Meta, head.Tags, head.ACL, head.Checksum), "{a/b c d e l x /w GLACIER map[a:1 b:]} [{k v}] public-read {CRC32 [1 2 3 4] false}")
		if r.get(key, "") != string(data) {
			t.Errorf("%s has other bytes", key)
		}
	}
}

func TestWhatIsCutOffIsNotPut(t *testing.T) {
	r := newRig(t)
	for _, n := range []int{10, 100_000, 3 << 20} {
		body := io.MultiReader(bytes.NewReader(random(n, 1)), iotest.ErrReader(io.ErrUnexpectedEOF))
		_, err := r.Put(t.Context(), "cut", body, PutOptions{})
		wantErr(t, "a body that is cut off", err, io.ErrUnexpectedEOF)
		_, err = r.Put(t.Context(), "cut", bytes.NewReader(random(n, 1)), PutOptions{Finish: func(Read) (Checksum, error) { return Checksum{}, io.ErrNoProgress }})
		wantErr(t, "a body that is refused", err, io.ErrNoProgress)
	}
	want(t, "what is there", r.get("cut", ""), "no key")
}

// odd are keys that no tree of files can hold, with some that it can.
var odd = []string{"a", "a/", "a//b", "a/b", "a/b/c", "/", "//", "/a", ".", "..", "a/../b", "./x", "x/.", "nul\x00l", "nul", "\x00", "é/ü", "日本", "😀", "\uffff", "a b+c%2F?&=", "\n", "z", "z/", "z/y", "z/y/"}

func TestAnyKeyIsAnObject(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("ä", MaxKey/2)
	keys := append([]string{long, strings.Repeat("d/", 500) + "x", strings.Repeat("n", 1024)}, odd...)
	for range 2 {
		for _, k := range keys {
			r.put(k, "data of "+k)
		}
		for _, k := range keys {
			want(t, fmt.Sprintf("%.20q", k), r.get(k, ""), "data of "+k)
		}
		for _, limit := range []int{1, 3, 1000} {
			got := r.keys(ListOptions{Limit: limit})
			want(t, "keys", strings.Join(got, "|"), strings.Join(sorted(keys), "|"))
		}
	}
	for _, k := range keys {
		r.remove(k, "")
		want(t, "after removing", r.get(k, ""), "no key")
	}
	want(t, "keys left", len(r.keys(ListOptions{})), 0)
	for _, k := range []string{"", long + "x", "\xff"} {
		_, err := r.Put(t.Context(), k, strings.NewReader(""), PutOptions{})
		wantErr(t, "bad key", err, ErrKey)
	}
}

func TestObjectsAreFilesAndFilesAreObjects(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.put("dir/a.txt", "from s3")
	data, err := r.f.ReadFile(ctx, "/dir/a.txt", 100)
	must(t, err)
	want(t, "file", string(data), "from s3")
	must(t, r.f.Put(ctx, "/dir/b.css", strings.NewReader("from a disk"), folder.PutOptions{ModTime: epoch.Add(-time.Hour)}))
	must(t, r.f.Mkdir(ctx, "/empty", folder.PutOptions{}))
	must(t, r.f.Symlink(ctx, "/link", "dir/a.txt", folder.PutOptions{}))
	want(t, "keys", fmt.Sprint(r.keys(ListOptions{})), "[dir/a.txt dir/b.css]")
	o, err := r.Head(ctx, "dir/b.css", "")
	must(t, err)
	sum := content256("from a disk")
	want(t, "etag of a file", o.ETag, sum[:32]+"-1")
	want(t, "type of a file", strings.HasPrefix(o.Meta.ContentType, "text/css"), true)
	// When a file is another one, nothing of the object is left; when it is the same, all.
	_, err = r.Put(ctx, "dir/a.txt", strings.NewReader("x"), PutOptions{Meta: Meta{ContentType: "t/x"}})
	must(t, err)
	must(t, r.f.Put(ctx, "/dir/a.txt", strings.NewReader("x"), folder.PutOptions{Mode: 0o600}))
	o, err = r.Head(ctx, "dir/a.txt", "")
	must(t, err)
	want(t, "same bytes", o.Meta.ContentType+o.ETag, fmt.Sprintf("t/x%x", md5.Sum([]byte("x"))))
	must(t, r.f.Put(ctx, "/dir/a.txt", strings.NewReader("y"), folder.PutOptions{}))
	o, err = r.Head(ctx, "dir/a.txt", "")
	must(t, err)
	want(t, "other bytes", o.ETag, content256("y")[:32]+"-1")
	// A folder and a link are in the way of objects of their name, but only there.
	r.put("empty", "beside the folder")
	r.put("link/x", "below the link")
	want(t, "keys", fmt.Sprint(r.keys(ListOptions{})), "[dir/a.txt dir/b.css empty link/x]")
	st, err := r.f.Stat(ctx, "/empty")
	must(t, err)
	want(t, "folder", st.Kind, folder.Dir)
	r.remove("empty", "")
	if _, err := r.f.Stat(ctx, "/empty"); err != nil {
		t.Errorf("removing an object removed a folder: %v", err)
	}
}

func TestListsGroupAndGoOn(t *testing.T) {
	r := newRig(t)
	for _, k := range []string{"a", "b/1", "b/2", "b/c/3", "b0", "c//d", "c/d", "d/", "e-f", "e/f"} {
		r.put(k, "")
	}
	for i := range 40 {
		r.put(fmt.Sprintf("many/%02d", i), "")
		r.put(fmt.Sprintf("many//%02d", i), "")
	}
	for _, c := range []struct {
		o    ListOptions
		want string
	}{
		{ListOptions{Delimiter: "/"}, "[a b/* b0 c/* d/* e-f e/* many/*]"},
		{ListOptions{Delimiter: "/", Prefix: "b"}, "[b/* b0]"},
		{ListOptions{Delimiter: "/", Prefix: "b/"}, "[b/1 b/2 b/c/*]"},
		{ListOptions{Prefix: "b/"}, "[b/1 b/2 b/c/3]"},
		{ListOptions{Delimiter: "/", Prefix: "c/"}, "[c//* c/d]"},
		{ListOptions{Delimiter: "/", Prefix: "d/"}, "[d/]"},
		{ListOptions{Delimiter: "/", After: "b/"}, "[b0 c/* d/* e-f e/* many/*]"},
		{ListOptions{Delimiter: "/", After: "b/1"}, "[b/* b0 c/* d/* e-f e/* many/*]"},
		{ListOptions{Delimiter: "/", After: "e/f"}, "[many/*]"},
		{ListOptions{Delimiter: "0"}, ""},
		{ListOptions{Prefix: "nothing"}, "[]"},
		{ListOptions{After: "zzz"}, "[]"},
		{ListOptions{Delimiter: "//", Prefix: "c"}, "[c//* c/d]"},
		{ListOptions{After: "a", Prefix: "e"}, "[e-f e/f]"},
	} {
		var last string
		for _, limit := range []int{1, 2, 3, 7, 1000} {
			c.o.Limit = limit
			got := fmt.Sprint(r.keys(c.o))
			if c.want != "" && got != c.want || last != "" && last != got {
				t.Errorf("%+v: got %s, want %s", c.o, got, c.want)
			}
			last = got
		}
	}
}

func TestConditionsOfPut(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	put := func(data string, c Conditions) error {
		_, err := r.Put(ctx, "k", strings.NewReader(data), PutOptions{If: c})
		return err
	}
	any := []string{"*"}
	wantErr(t, "match of nothing", put("1", Conditions{IfMatch: any}), ErrNoKey)
	must(t, put("1", Conditions{IfNoneMatch: any}))
	wantErr(t, "none match", put("2", Conditions{IfNoneMatch: any}), ErrPrecondition)
	etag := fmt.Sprintf("%x", md5.Sum([]byte("1")))
	wantErr(t, "other etag", put("2", Conditions{IfMatch: []string{"x"}}), ErrPrecondition)
	must(t, put("2", Conditions{IfMatch: []string{"x", etag}}))
	wantErr(t, "old etag", put("3", Conditions{IfMatch: []string{etag}}), ErrPrecondition)
	want(t, "what is there", r.get("k", ""), "2")
	_, err := r.Delete(ctx, "k", DeleteOptions{If: Conditions{IfMatch: []string{etag}}})
	wantErr(t, "delete with an old etag", err, ErrPrecondition)
	_, err = r.Delete(ctx, "k", DeleteOptions{If: Conditions{IfMatch: any}})
	must(t, err)
}
