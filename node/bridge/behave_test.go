package bridge

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/net/html"
)

// A counting source counts what is asked of another one.
type counting struct {
	Source
	lookups, opens atomic.Int32
}

func (c *counting) Lookup(ctx context.Context, p string) (Info, error) {
	c.lookups.Add(1)
	return c.Source.Lookup(ctx, p)
}

func (c *counting) Open(ctx context.Context, i Info, off, n int64) (io.ReadCloser, error) {
	c.opens.Add(1)
	return c.Source.Open(ctx, i, off, n)
}

// one resolves every name to a source.
func one(s Source) Resolver {
	return resolverFunc(func(context.Context, *http.Request, string, string) (Source, func(), error) { return s, nil, nil })
}

func TestCompressibleFilesAreCompressed(t *testing.T) {
	d := newDrive(t)
	text := strings.Repeat("all work and no play makes a dull file\n", 3000)
	put(t, d, "/text.txt", []byte(text), hyperdrive.PutOptions{})
	put(t, d, "/noise.txt", someBytes(9000, 1), hyperdrive.PutOptions{})
	put(t, d, "/picture.png", []byte(text), hyperdrive.PutOptions{})
	put(t, d, "/tiny.txt", []byte("hello"), hyperdrive.PutOptions{})
	put(t, d, "/huge.txt", bytes.Repeat([]byte("x"), maxCompressed+1), hyperdrive.PutOptions{})
	source := &counting{Source: NewDrive(d, DriveOptions{})}
	h := New(Options{Resolver: one(source)})
	tags := map[string]string{}
	for _, c := range []struct{ path, accept, code, vary string }{
		{"/text.txt", "", "", "Accept-Encoding"},
		{"/text.txt", "gzip, deflate, br", "gzip", "Accept-Encoding"},
		{"/text.txt", "gzip, deflate, br, zstd", "zstd", "Accept-Encoding"},
		{"/text.txt", "zstd;q=0.5, gzip", "gzip", "Accept-Encoding"},
		{"/text.txt", "zstd;q=0, gzip;q=0", "", "Accept-Encoding"},
		{"/text.txt", "GZIP;q=0.001", "gzip", "Accept-Encoding"},
		{"/text.txt", "gzip;q=2, zstd;q=NaN", "", "Accept-Encoding"},
		{"/noise.txt", "gzip", "", "Accept-Encoding"},
		{"/picture.png", "gzip", "", ""},
		{"/tiny.txt", "gzip", "", ""},
		{"/huge.txt", "gzip", "", ""},
	} {
		for range 2 {
			what := c.path + " as " + c.accept
			r := get(t, h, "GET", "http://x.localhost"+c.path, "Accept-Encoding", c.accept)
			raw := body(t, r)
			if got := r.Header.Get("Content-Encoding"); got != c.code || r.Header.Get("Vary") != c.vary {
				t.Errorf("%s: got coding %q that varies by %q, want %q and %q", what, got, r.Header.Get("Vary"), c.code, c.vary)
			}
			if got := r.Header.Get("Content-Length"); got != fmt.Sprint(len(raw)) {
				t.Errorf("%s: length %s of %d bytes", what, got, len(raw))
			}
			want, err := d.ReadFile(t.Context(), c.path)
			must(t, err)
			if got := decoded(t, c.code, raw); got != string(want) {
				t.Errorf("%s: got other contents, of %d bytes", what, len(got))
			}
			tag := r.Header.Get("Etag")
			if other, ok := tags[tag]; ok && other != c.path+c.code {
				t.Errorf("%s: tag %s is that of %s, too", what, tag, other)
			}
			tags[tag] = c.path + c.code
			head := get(t, h, "HEAD", "http://x.localhost"+c.path, "Accept-Encoding", c.accept)
			if got := head.Header; !sameHeaders(got, r.Header) || body(t, head) != "" {
				t.Errorf("%s: HEAD has %v, GET %v", what, got, r.Header)
			}
			if r := get(t, h, "GET", "http://x.localhost"+c.path, "Accept-Encoding", c.accept, "If-None-Match", tag); r.StatusCode != 304 || r.Header.Get("Etag") != tag {
				t.Errorf("%s: with its tag: got %s", what, r.Status)
			}
			if r := get(t, h, "GET", "http://x.localhost"+c.path, "Accept-Encoding", c.accept, "Range", "bytes=1-3", "If-Range", tag); c.code != "" && (r.StatusCode != 200 || r.Header.Get("Content-Encoding") != "") {
				t.Errorf("%s: part of what was compressed: got %s", what, r.Status)
			}
			if r := get(t, h, "GET", "http://x.localhost"+c.path, "Accept-Encoding", c.accept, "Range", "bytes=1-3"); r.StatusCode != 206 || body(t, r) != string(want[1:4]) {
				t.Errorf("%s: a part: got %s", what, r.Status)
			}
		}
	}
	source.opens.Store(0)
	get(t, h, "GET", "http://x.localhost/text.txt", "Accept-Encoding", "zstd")
	get(t, h, "GET", "http://x.localhost/noise.txt", "Accept-Encoding", "zstd")
	if n := source.opens.Load(); n > 1 {
		t.Errorf("what is kept was read %d times", n)
	}
}

func TestWhoComesTooLateGetsTheFileAsItIs(t *testing.T) {
	d := newDrive(t)
	text := bytes.Repeat([]byte("all work and no play\n"), 10_000)
	put(t, d, "/large.txt", text, hyperdrive.PutOptions{})
	put(t, d, "/small.txt", text[:9000], hyperdrive.PutOptions{})
	h := New(Options{Resolver: only(d, DriveOptions{})})
	ask := func(path, code string, want []byte) {
		t.Helper()
		r := get(t, h, "GET", "http://x.localhost"+path, "Accept-Encoding", "gzip")
		if got := body(t, r); r.Header.Get("Content-Encoding") != code || decoded(t, code, got) != string(want) || r.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: got %d bytes in coding %q, want %q", path, len(got), r.Header.Get("Content-Encoding"), code)
		}
	}
	for h.large.enter() {
	}
	ask("/large.txt", "", text)
	h.large.leave()
	for h.compressor.enter() {
	}
	ask("/large.txt", "", text)
	ask("/small.txt", "", text[:9000])
	h.compressor.leave()
	for range 3 { // each place is given back
		ask("/large.txt", "gzip", text)
		ask("/small.txt", "gzip", text[:9000])
		h.cache.idle()
		h.cache.idle()
	}
}

func sameHeaders(a, b http.Header) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

func decoded(t *testing.T, code, raw string) string {
	t.Helper()
	var r io.Reader = strings.NewReader(raw)
	switch code {
	case "gzip":
		z, err := gzip.NewReader(r)
		must(t, err)
		r = z
	case "zstd":
		z, err := zstd.NewReader(r)
		must(t, err)
		defer z.Close()
		r = z
	}
	b, err := io.ReadAll(r)
	must(t, err)
	return string(b)
}

func TestWhatIsKeptIsBoundedAndForgotten(t *testing.T) {
	d := newDrive(t)
	for i := range 100 {
		put(t, d, fmt.Sprintf("/%d.bin", i), someBytes(4096, byte(i)), hyperdrive.PutOptions{})
	}
	source := &counting{Source: NewDrive(d, DriveOptions{})}
	fake := clock.NewFake(when)
	h := New(Options{Resolver: one(source), Clock: fake, CacheBytes: 160 << 10})
	ask := func(i int) {
		t.Helper()
		if got := body(t, get(t, h, "GET", fmt.Sprintf("http://x.localhost/%d.bin", i))); got != string(someBytes(4096, byte(i))) {
			t.Errorf("file %d: got others", i)
		}
	}
	for i := range 100 {
		ask(i)
	}
	if h.cache.bytes > 160<<10 || len(h.cache.items) < 20 || len(h.cache.items) != h.cache.order.Len() {
		t.Errorf("%d answers of %d bytes are kept", len(h.cache.items), h.cache.bytes)
	}
	source.opens.Store(0)
	ask(99)
	if n := source.opens.Load(); n != 0 {
		t.Errorf("the last one was read %d times", n)
	}
	// What changes is not what it was.
	put(t, d, "/99.bin", someBytes(4096, 200), hyperdrive.PutOptions{})
	if got := body(t, get(t, h, "GET", "http://x.localhost/99.bin")); got != string(someBytes(4096, 200)) {
		t.Error("got what the file was before")
	}
	fake.Advance(90 * time.Second)
	ask(1)
	fake.Advance(10 * time.Minute)
	if h.cache.bytes != 0 || len(h.cache.items) != 0 || fake.Waiting() != 0 {
		t.Errorf("%d bytes in %d answers and %d timers are left", h.cache.bytes, len(h.cache.items), fake.Waiting())
	}
	ask(1)
}

func TestFoldersAreListed(t *testing.T) {
	d := newDrive(t)
	names := []string{"a.txt", "<script>alert(1)", "javascript:alert(1)", `"quoted" & 'so'`, "ünïcode \u202e.txt", "%2f", "a?b#c", " spaces ", "new\nline", "..hidden", "{{.}}"}
	for _, name := range names {
		put(t, d, "/odd names/"+name, []byte("contents of "+name), hyperdrive.PutOptions{Metadata: hyperdrive.NewMetadata(when, 0)})
	}
	put(t, d, "/odd names/sub <b>/file", nil, hyperdrive.PutOptions{})
	b, err := d.Batch(t.Context())
	must(t, err)
	for i := range pageEntries + 5 {
		must(t, b.Put(t.Context(), fmt.Sprintf("/many/%06d", i), nil, hyperdrive.PutOptions{}))
		must(t, b.Put(t.Context(), fmt.Sprintf("/many/%06d.d/in", i), nil, hyperdrive.PutOptions{}))
	}
	must(t, b.Flush(t.Context()))
	h := New(Options{Resolver: one(NewDrive(d, DriveOptions{}))})
	for _, base := range []string{"http://x.localhost/", "http://host/d/x/"} {
		at, err := url.Parse(base + "odd%20names/")
		must(t, err)
		r := get(t, h, "GET", at.String(), "Accept", "text/html")
		page := body(t, r)
		if csp := r.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(base, "/d/") != strings.Contains(csp, "sandbox") {
			t.Errorf("%s: policy %q", base, csp)
		}
		links := checkPage(t, page)
		var got []string
		for _, link := range links {
			u, err := at.Parse(link)
			must(t, err)
			if u.Scheme != "http" || u.Host != at.Host || !strings.HasPrefix(u.Path, at.Path[:len(at.Path)-len("odd names/")]) {
				t.Errorf("%s: a link to %s", base, u)
				continue
			}
			if name, ok := strings.CutPrefix(u.Path, at.Path); ok && name != "" && !strings.HasSuffix(name, "/") {
				if b := body(t, get(t, h, "GET", u.String())); b != "contents of "+name {
					t.Errorf("%s: link to %q leads to %q", base, name, b)
				}
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if want := slices.Sorted(slices.Values(names)); !slices.Equal(got, want) {
			t.Errorf("%s: got links to %q, want %q", base, got, want)
		}
		if !slices.Contains(links, "./sub%20%3Cb%3E/") {
			t.Errorf("%s: no link to the folder in %q", base, links)
		}
		if !strings.Contains(page, `<time datetime="2026-11-23T10:00:00Z">`) || !strings.Contains(page, `<data value="17">17 B</data>`) {
			t.Errorf("%s: no times or sizes in %s", base, page)
		}
	}

	// Page by page, as people and as programs.
	seen, next, pages := 0, "", 0
	for more := true; more; pages++ {
		more = false
		for _, link := range checkPage(t, body(t, get(t, h, "GET", "http://x.localhost/many/"+next, "Accept", "text/html"))) {
			switch {
			case strings.HasPrefix(link, "?after="):
				next, more = link, true
			case strings.HasPrefix(link, "./"):
				seen++
			}
		}
	}
	if want := 2*pageEntries + 10; seen != want || pages != 3 {
		t.Errorf("%d pages with %d names, want 3 with %d", pages, seen, want)
	}
	all := map[string]bool{}
	for after := ""; ; {
		var l listing
		r := get(t, h, "GET", "http://x.localhost/many/?limit=700&after="+url.QueryEscape(after), "Accept", "application/json")
		must(t, json.NewDecoder(r.Body).Decode(&l))
		for _, e := range l.Entries {
			all[e.Kind+e.Name] = true
		}
		if after = l.Next; after == "" {
			break
		}
		if len(l.Entries) != 700 {
			t.Errorf("a page of %d names", len(l.Entries))
		}
	}
	if want := 2*pageEntries + 10; len(all) != want {
		t.Errorf("a program got %d names, want %d", len(all), want)
	}
	if r := get(t, h, "GET", "http://x.localhost/many/?limit=x", "Accept", "application/json"); r.StatusCode != 400 {
		t.Errorf("a limit of x: got %s", r.Status)
	}
}

// checkPage returns the links of a page, which must have nothing that runs.
func checkPage(t *testing.T, page string) (links []string) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	must(t, err)
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "html", "head", "title", "meta", "style", "body", "nav", "main", "a", "span", "bdi", "table", "caption", "thead", "tbody", "tr", "th", "td", "small", "data", "time", "p", "h1":
		default:
			t.Errorf("the page has a %s", n.Data)
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "src" {
				t.Errorf("%s has %s=%q", n.Data, a.Key, a.Val)
			}
			if a.Key == "href" {
				links = append(links, a.Val)
			}
		}
	}
	return links
}

// A slow source answers when it is told to.
type slow struct {
	Source
	lookup, open chan error
}

func (s *slow) wait(ctx context.Context, c chan error) error {
	select {
	case err := <-c:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *slow) State() State { return State{ID: "slow"} }

func (s *slow) Lookup(ctx context.Context, p string) (Info, error) {
	return Info{Kind: File, Size: 100, Tag: "x"}, s.wait(ctx, s.lookup)
}

func (s *slow) Open(ctx context.Context, _ Info, off, n int64) (io.ReadCloser, error) {
	return io.NopCloser(readerFunc(func(p []byte) (int, error) {
		return copy(p, "x"), s.wait(ctx, s.open)
	})), nil
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestWhatDoesNotComeIsNotWaitedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{lookup: make(chan error, 1), open: make(chan error, 1)}
		h := New(Options{Resolver: one(s), Patience: 20 * time.Second, MaxRequests: 2})
		ask := func(code int, after time.Duration, text string) {
			t.Helper()
			began := time.Now()
			r := get(t, h, "GET", "http://x.localhost/file.bin")
			if got := body(t, r); r.StatusCode != code || !strings.Contains(got, text) || time.Since(began) != after {
				t.Errorf("got %s %q after %v, want %d after %v", r.Status, got, time.Since(began), code, after)
			}
		}
		ask(504, 20*time.Second, "Nobody who has it could be reached")
		s.lookup <- nil
		ask(504, 20*time.Second, "bevy netcheck")
		for err, code := range map[error]int{fs.ErrPermission: 403, ErrGone: 410, ErrBusy: 503, fs.ErrNotExist: 404, errors.New("a secret"): 500, hyperdrive.ErrInvalid: 502, context.DeadlineExceeded: 504} {
			s.lookup <- err
			ask(code, 0, fmt.Sprint(code))
		}
		var waiting sync.WaitGroup
		for range 2 {
			waiting.Go(func() { ask(504, 20*time.Second, "") })
		}
		synctest.Wait()
		ask(503, 0, "Come again")
		waiting.Wait()
	})
}

// A deadlined writer takes its time, and knows its deadline.
type deadlined struct {
	*httptest.ResponseRecorder
	took time.Duration // for each piece
	late time.Time
}

func (w *deadlined) SetWriteDeadline(t time.Time) error { w.late = t; return nil }

func (w *deadlined) Write(p []byte) (int, error) {
	time.Sleep(w.took)
	if !w.late.IsZero() && time.Now().After(w.late) {
		return 0, fs.ErrClosed
	}
	return w.ResponseRecorder.Write(p)
}

func TestSlowClientsMustTakeEachPieceInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDrive(t)
		data := someBytes(3<<20, 1)
		put(t, d, "/big.bin", data, hyperdrive.PutOptions{})
		h := New(Options{Resolver: one(NewDrive(d, DriveOptions{}))})
		for took, whole := range map[time.Duration]bool{0: true, 30 * time.Second: true, 2 * time.Minute: false} {
			w := &deadlined{httptest.NewRecorder(), took, time.Time{}}
			func() {
				defer func() {
					if e := recover(); (e == nil) != whole {
						t.Errorf("%v a piece: ended with %v", took, e)
					}
				}()
				h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "http://x.localhost/big.bin", nil))
			}()
			if got := w.Body.Len() == len(data); got != whole {
				t.Errorf("%v a piece: got %d of %d bytes", took, w.Body.Len(), len(data))
			}
			if !w.late.IsZero() {
				t.Errorf("%v a piece: others have the deadline %v", took, w.late)
			}
		}
	})
}

// A dying source ends in the middle of a file.
type dying struct{ Source }

func (d dying) Open(ctx context.Context, i Info, off, n int64) (io.ReadCloser, error) {
	r, err := d.Source.Open(ctx, i, off, n)
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(r, n/2), readerFunc(func([]byte) (int, error) { return 0, errors.New("the disk is gone") })), r}, err
}

func TestClientsSeeThatAFileIsNotWhole(t *testing.T) {
	d := newDrive(t)
	put(t, d, "/big.bin", someBytes(3<<20, 1), hyperdrive.PutOptions{})
	s := httptest.NewServer(New(Options{Resolver: one(dying{NewDrive(d, DriveOptions{})})}))
	defer s.Close()
	for _, ranges := range []string{"", "bytes=100-2000000", "bytes=0-9,100-2000000"} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/d/x/big.bin", nil)
		must(t, err)
		if ranges != "" {
			r.Header.Set("Range", ranges)
		}
		got, err := http.DefaultClient.Do(r)
		must(t, err)
		if _, err := io.ReadAll(got.Body); err == nil {
			t.Errorf("range %q: got half of it and no error", ranges)
		}
		got.Body.Close()
	}
}

// What is read while a drive changes is always of one version, and what its tag says.
func TestDrivesChangeWhileTheyAreServed(t *testing.T) {
	d := newDrive(t)
	sizes := []int{100, 5000, 300_000}
	write := func(n int) {
		for i, size := range sizes {
			put(t, d, fmt.Sprintf("/%d.txt", i), bytes.Repeat([]byte{'a' + byte(n%26)}, size+n%3), hyperdrive.PutOptions{})
		}
	}
	write(0)
	write(1)
	h := New(Options{Resolver: only(d, DriveOptions{}), CacheBytes: 1 << 20})
	var done atomic.Bool
	var readers sync.WaitGroup
	var mu sync.Mutex
	tags := map[string]string{}
	for k := range 4 {
		readers.Go(func() {
			for n := 0; !done.Load() || n < 20; n++ {
				i := (n + k) % len(sizes)
				address := fmt.Sprintf("http://x.localhost/%d.txt", i)
				if n%5 == 0 {
					address = fmt.Sprintf("http://%d.x.localhost/%d.txt", 4+n%3, i)
				}
				r := get(t, h, "GET", address, "Accept-Encoding", []string{"", "gzip", "zstd"}[k%3])
				b := decoded(t, r.Header.Get("Content-Encoding"), body(t, r))
				if len(b) < sizes[i] || strings.Trim(b, b[:1]) != "" {
					t.Errorf("%s: %d bytes of several versions", address, len(b))
				}
				tag := r.Header.Get("Etag")
				mu.Lock()
				if old, ok := tags[tag]; ok && old != b[:1] {
					t.Errorf("%s: tag %s has %q and %q", address, tag, old, b[:1])
				}
				tags[tag] = b[:1]
				mu.Unlock()
			}
		})
	}
	for n := 2; n < 30; n++ {
		write(n)
	}
	done.Store(true)
	readers.Wait()
	if len(tags) < 10 {
		t.Errorf("%d versions of files were seen", len(tags))
	}
}

// growing is a source with a file that is written.
type growing struct {
	Source
	r io.Reader
}

func (g growing) State() State { return State{ID: "g", Public: true} }
func (g growing) Lookup(context.Context, string) (Info, error) {
	return Info{Kind: File, Size: Growing}, nil
}
func (g growing) List(context.Context, string, string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) { yield(Info{Name: "film.mp4", Size: Growing}, nil) }
}
func (g growing) Open(context.Context, Info, int64, int64) (io.ReadCloser, error) {
	return io.NopCloser(g.r), nil
}

func TestFilesAreFollowedWhileTheyAreWritten(t *testing.T) {
	in, out := io.Pipe()
	s := httptest.NewServer(New(Options{Resolver: one(growing{r: in})}))
	defer s.Close()
	go func() { _, _ = out.Write([]byte("first, ")) }()
	r, err := http.Get(s.URL + "/d/x/film.mp4")
	must(t, err)
	defer r.Body.Close()
	if r.ContentLength != -1 || r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Accept-Ranges") != "none" || r.Header.Get("Content-Type") != "video/mp4" {
		t.Errorf("got length %d and %v", r.ContentLength, r.Header)
	}
	first := make([]byte, 7)
	if _, err := io.ReadFull(r.Body, first); err != nil || string(first) != "first, " {
		t.Fatalf("got %q and error %v while it is written", first, err)
	}
	go func() {
		_, _ = out.Write([]byte("last"))
		_ = out.Close()
	}()
	if rest, err := io.ReadAll(r.Body); err != nil || string(rest) != "last" {
		t.Errorf("got %q and error %v", rest, err)
	}
	page := body(t, get(t, New(Options{Resolver: one(growing{})}), "GET", "/d/x/", "Accept", "application/json"))
	if !strings.Contains(page, `{"name":"film.mp4","kind":"file"}`) {
		t.Errorf("got %s", page)
	}

	in, out = io.Pipe()
	s.Config.Handler = New(Options{Resolver: one(growing{r: in})})
	go func() {
		_, _ = out.Write([]byte("first"))
		_ = out.CloseWithError(errors.New("its writer is gone"))
	}()
	r, err = http.Get(s.URL + "/d/x/film.mp4")
	must(t, err)
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err == nil {
		t.Errorf("got %q, and not that this is not all", b)
	}
}
