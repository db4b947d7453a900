package bridge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// connect replicates two stores until the test ends.
func connect(t testing.TB, a, b *corestore.Store) {
	t.Helper()
	x, y := transport.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	found := b.FindingPeers()
	running.Go(func() {
		o := secretstream.Options{KeyPair: noiseKeys(1), KeepAlive: -1}
		if stream, err := secretstream.Server(ctx, x, o); err == nil {
			_ = a.Replicate(ctx, stream, corestore.ReplicateOptions{}) // it ends with the test
		}
	})
	running.Go(func() {
		o := secretstream.Options{KeyPair: noiseKeys(2), KeepAlive: -1}
		if stream, err := secretstream.Client(ctx, y, o); err == nil {
			_ = b.Replicate(ctx, stream, corestore.ReplicateOptions{Attached: func(*protomux.Mux) { found() }})
		}
	})
	t.Cleanup(func() {
		found()
		cancel()
		running.Wait()
	})
}

func noiseKeys(n byte) noise.KeyPair { return noise.NewKeyPair([32]byte{n}) }

func held(log *hypercore.Log) (n int) {
	for i := range log.Length() {
		if log.Has(i) {
			n++
		}
	}
	return n
}

func TestARangeOfADriveElsewhereBringsNoMoreThanThat(t *testing.T) {
	stores := []*corestore.Store{openStore(t, 'a'), openStore(t, 'b')}
	writer := driveIn(t, stores[0], hyperdrive.Options{})
	data := someBytes(10<<20, 3)
	put(t, writer, "/film.mp4", data, hyperdrive.PutOptions{})
	put(t, writer, "/notes", []byte("plain"), hyperdrive.PutOptions{})
	put(t, writer, "/middle", data[:127<<10], hyperdrive.PutOptions{})
	connect(t, stores[0], stores[1])
	set := NewDrives(DrivesOptions{Open: func(_ context.Context, key hypercore.Key) (*hyperdrive.Drive, func() error, error) {
		d, err := hyperdrive.Open(stores[1], hyperdrive.Options{Key: &key})
		if err != nil {
			return nil, nil, err
		}
		return d, d.Close, nil
	}})
	t.Cleanup(func() { must(t, set.Close()) })
	h := New(Options{Resolver: resolverFunc(func(ctx context.Context, _ *http.Request, name, at string) (Source, func(), error) {
		key, err := hypercore.ParseKey(name)
		must(t, err)
		return set.Get(ctx, key, at, true)
	})})
	key := writer.Key()
	address := "http://" + key.String() + ".localhost/film.mp4"
	contents := func() *hypercore.Log {
		_, release, err := set.Get(t.Context(), key, "", true)
		must(t, err)
		defer release()
		blobs, err := set.open[key].d.Blobs(t.Context())
		must(t, err)
		return blobs.Log()
	}

	r := get(t, h, "HEAD", address)
	if r.StatusCode != 200 || r.Header.Get("Content-Length") != fmt.Sprint(len(data)) || held(contents()) != 0 {
		t.Errorf("HEAD: got %s %v, and %d blocks of contents came", r.Status, r.Header, held(contents()))
	}
	r = get(t, h, "GET", address, "Range", "bytes=5000000-5099999")
	if got := body(t, r); r.StatusCode != 206 || got != string(data[5000000:5100000]) {
		t.Errorf("a range: got %s and %d bytes", r.Status, len(got))
	}
	if n := held(contents()); n > 3 {
		t.Errorf("100,000 bytes brought %d blocks", n)
	}
	if r := get(t, h, "GET", "/d/"+key.String()+"/middle", "Range", "bytes=0-9"); r.StatusCode != 206 || held(contents()) > 4 {
		t.Errorf("a part of a smaller file: got %s, and there are %d blocks", r.Status, held(contents()))
	}
	// Several, which are read one after another.
	r = get(t, h, "GET", address, "Range", "bytes=0-9,8000000-8000009")
	if got := body(t, r); r.StatusCode != 206 || !strings.Contains(got, string(data[8000000:8000010])) {
		t.Errorf("two ranges: got %s and %d bytes", r.Status, len(got))
	}
	if n := held(contents()); n > 9 {
		t.Errorf("and two small ranges %d blocks", n)
	}
	if got := body(t, get(t, h, "GET", address)); got != string(data) {
		t.Errorf("all of it: got %d bytes", len(got))
	}
	if got := body(t, get(t, h, "GET", "/d/"+key.String()+"/notes")); got != "plain" {
		t.Errorf("the other file: got %q", got)
	}
	// By the key in hex, and a version.
	if got := body(t, get(t, h, "GET", fmt.Sprintf("/d/%x@2/film.mp4", key[:]), "Range", "bytes=-5")); got != string(data[len(data)-5:]) {
		t.Errorf("the end of it: got %q", got)
	}
	// What the writer adds comes by itself.
	came := make(chan hypercore.Event, 10)
	stop, err := set.open[key].d.Tree().Log().Notify(func(e hypercore.Event) { came <- e })
	must(t, err)
	defer stop()
	put(t, writer, "/new", []byte("new"), hyperdrive.PutOptions{})
	for e := range came {
		if e.Kind == hypercore.Appended {
			break
		}
	}
	if got := body(t, get(t, h, "GET", fmt.Sprintf("/d/%s@%d/new", key, writer.Version()))); got != "new" {
		t.Errorf("what is new: got %q", got)
	}
}

// An entry may come before the blocks that it names.
func TestADriveIsReadWhileItsBlocksStillCome(t *testing.T) {
	stores := []*corestore.Store{openStore(t, 'a'), openStore(t, 'b'), openStore(t, 'c')}
	writer := driveIn(t, stores[0], hyperdrive.Options{})
	data := someBytes(6<<20, 3)
	put(t, writer, "/film.mp4", data, hyperdrive.PutOptions{})
	key := writer.Key()
	// The second has all of it; then the writer has the first half.
	connect(t, stores[0], stores[1])
	second := driveIn(t, stores[1], hyperdrive.Options{Key: &key})
	must(t, second.Update(t.Context()))
	must(t, second.Download(t.Context(), "/film.mp4", nil))
	blobs, err := writer.Blobs(t.Context())
	must(t, err)
	_, err = blobs.Log().Clear(t.Context(), 48, 96)
	must(t, err)

	third := driveIn(t, stores[2], hyperdrive.Options{Key: &key})
	connect(t, stores[0], stores[2])
	must(t, third.Update(t.Context()))
	s := httptest.NewServer(New(Options{Resolver: one(NewDrive(third, DriveOptions{}))}))
	defer s.Close()
	r, err := http.Get(s.URL + "/d/x/film.mp4")
	must(t, err)
	defer r.Body.Close()
	half := make([]byte, 48*64<<10)
	if _, err := io.ReadFull(r.Body, half); err != nil || !bytes.Equal(half, data[:len(half)]) {
		t.Fatalf("the first half: %v", err)
	}
	connect(t, stores[1], stores[2])
	if rest, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(rest, data[len(half):]) {
		t.Errorf("the rest: got %d bytes and error %v", len(rest), err)
	}
}

// newFolder is a folder of one device.
func newFolder(t *testing.T) *folder.Folder {
	t.Helper()
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	open := func(n byte) *hypercore.Log {
		kp := hypercore.NewKeyPair([32]byte{n})
		log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
		must(t, err)
		t.Cleanup(func() { must(t, log.Close()) })
		return log
	}
	bee, err := hyperbee.Open(open(1), hyperbee.Options{})
	must(t, err)
	entries := tree.New(tree.Options{})
	must(t, entries.Own(bee))
	t.Cleanup(func() { must(t, entries.Close()) })
	contents := content.New(content.Options{})
	must(t, contents.Own(open(2)))
	return folder.New(entries, contents, folder.Options{})
}

func TestFoldersOfTheCloudAreServed(t *testing.T) {
	ctx := t.Context()
	f := newFolder(t)
	big := someBytes(3<<20, 9)
	o := folder.PutOptions{ModTime: when}
	must(t, f.Put(ctx, "/a.txt", strings.NewReader("hello"), o))
	must(t, f.Put(ctx, "/sub/big.bin", bytes.NewReader(big), o))
	must(t, f.Put(ctx, "/sub-x.txt", strings.NewReader("x"), o))
	must(t, f.Put(ctx, "/z.txt", strings.NewReader("z"), o))
	must(t, f.Mkdir(ctx, "/empty", folder.PutOptions{}))
	must(t, f.Symlink(ctx, "/link", "sub/big.bin", folder.PutOptions{}))
	must(t, f.Symlink(ctx, "/dir", "/sub", folder.PutOptions{}))
	h := New(Options{Resolver: one(NewFolder(f, FolderOptions{ID: "mine"}))})
	for range 2 {
		r := get(t, h, "GET", "http://photos.localhost/a.txt")
		if got := body(t, r); r.StatusCode != 200 || got != "hello" || r.Header.Get("Last-Modified") != when.Format(http.TimeFormat) ||
			r.Header.Get("Cache-Control") != "private, no-cache" || r.Header.Get("Access-Control-Allow-Origin") != "" || r.Header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("got %s %q %v", r.Status, got, r.Header)
		}
		tag := r.Header.Get("Etag")
		if r := get(t, h, "GET", "http://photos.localhost/a.txt", "If-None-Match", tag); tag == "" || r.StatusCode != 304 {
			t.Errorf("with tag %s: got %s", tag, r.Status)
		}
	}
	for path, want := range map[string]string{"/sub/big.bin": string(big), "/link": string(big), "/dir/big.bin": string(big)} {
		if got := body(t, get(t, h, "GET", "http://photos.localhost"+path)); got != want {
			t.Errorf("%s: got %d bytes", path, len(got))
		}
		r := get(t, h, "GET", "http://photos.localhost"+path, "Range", "bytes=1000000-1999999")
		if got := body(t, r); r.StatusCode != 206 || got != want[1000000:2000000] {
			t.Errorf("a part of %s: got %s and %d bytes", path, r.Status, len(got))
		}
	}
	for path, want := range map[string]string{"/sub": "307 /sub/", "/empty": "307 /empty/", "/dir": "307 /dir/", "/empty/": "200 ", "/a.txt/": "307 /a.txt", "/nothing": "404 ", "/a.txt/b": "404 ", "/nothing/": "404 "} {
		r := get(t, h, "GET", "http://photos.localhost"+path)
		if got := fmt.Sprint(r.StatusCode, " ", r.Header.Get("Location")); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	names, after := "", ""
	for range 9 {
		r := get(t, h, "GET", "http://photos.localhost/?limit=1&after="+after, "Accept", "application/json")
		page := body(t, r)
		_, name, _ := strings.Cut(page, `"name":"`)
		name, _, _ = strings.Cut(name, `"`)
		names += name + " "
		_, next, more := strings.Cut(page, `"next":"`)
		if !more {
			break
		}
		after, _, _ = strings.Cut(next, `"`)
	}
	if want := "a.txt dir empty link sub-x.txt sub z.txt "; names != want {
		t.Errorf("listed %s, want %s", names, want)
	}

	// What a name had before is not what it has now.
	must(t, f.Put(ctx, "/a.txt", strings.NewReader("goodbye"), o))
	if got := body(t, get(t, h, "GET", "http://photos.localhost/a.txt")); got != "goodbye" {
		t.Errorf("after a change: got %q", got)
	}
}

func TestAFileOfTheCloudIsReadWhileItIsWritten(t *testing.T) {
	f := newFolder(t)
	w, err := f.Create(t.Context(), "/film.mp4", folder.PutOptions{})
	must(t, err)
	s := httptest.NewServer(New(Options{Resolver: one(NewFolder(f, FolderOptions{ID: "mine"})), Patience: 100 * time.Millisecond}))
	defer s.Close()
	data := someBytes(2<<20, 4)
	write := func(from, to int) {
		_, err := w.Write(data[from:to])
		must(t, err)
		must(t, w.Publish())
	}
	write(0, 1<<20)
	r, err := http.Get(s.URL + "/d/mine/film.mp4")
	must(t, err)
	defer r.Body.Close()
	got := make([]byte, 1<<20)
	if _, err := io.ReadFull(r.Body, got); err != nil || !bytes.Equal(got, data[:1<<20]) {
		t.Fatalf("what was written first: %v", err)
	}
	write(1<<20, 1<<20+10)
	if _, err := io.ReadFull(r.Body, got[:10]); err != nil || !bytes.Equal(got[:10], data[1<<20:1<<20+10]) {
		t.Fatalf("what was written then: %v", err)
	}
	write(1<<20+10, 2<<20)
	must(t, w.Close())
	if rest, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(rest, data[1<<20+10:]) {
		t.Errorf("the rest: got %d bytes and error %v", len(rest), err)
	}
	again, err := http.Get(s.URL + "/d/mine/film.mp4")
	must(t, err)
	defer again.Body.Close()
	if b, err := io.ReadAll(again.Body); err != nil || again.ContentLength != 2<<20 || !bytes.Equal(b, data) {
		t.Errorf("when it is written: got %d bytes of %d and error %v", len(b), again.ContentLength, err)
	}
}
