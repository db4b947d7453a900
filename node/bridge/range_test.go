package bridge

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
)

// rangeSite has files of sizes where things change, and what is in them.
func rangeSite(t testing.TB, o hyperdrive.Options) (*hyperdrive.Drive, map[string][]byte) {
	d := driveIn(t, openStore(t, 'r'), o)
	files := map[string][]byte{}
	for _, size := range []int{0, 1, 10, 511, 4096, 64 << 10, 64<<10 + 1, 200<<10 - 1, 300<<10 + 5} {
		p := fmt.Sprintf("/file%d.bin", size)
		files[p] = someBytes(size, byte(size))
		f, err := d.Create(t.Context(), p, hyperdrive.PutOptions{Metadata: hyperdrive.NewMetadata(when, 0)})
		must(t, err)
		_, err = f.Write(files[p])
		must(t, err)
		must(t, f.Close())
	}
	return d, files
}

// theirs is net/http's own file server, which is told our tags.
func theirs(t testing.TB, d *hyperdrive.Drive) http.Handler {
	files := http.FileServerFS(d.FS(t.Context()))
	source := NewDrive(d, DriveOptions{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i, err := source.Lookup(r.Context(), r.URL.Path); err == nil {
			w.Header().Set("ETag", `"`+i.Tag+`"`)
		}
		files.ServeHTTP(w, r)
	})
}

// parts returns a body; of one with several parts what matters of them.
func parts(t testing.TB, r *http.Response) string {
	t.Helper()
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" {
		return body(t, r)
	}
	var out strings.Builder
	m := multipart.NewReader(r.Body, params["boundary"])
	for {
		p, err := m.NextPart()
		if err == io.EOF {
			return out.String()
		}
		must(t, err)
		data, err := io.ReadAll(p)
		must(t, err)
		fmt.Fprintf(&out, "[%s %s %x]", p.Header.Get("Content-Range"), p.Header.Get("Content-Type"), sha256.Sum256(data))
	}
}

// sameAnswers compares our answer to a request with theirs.
func sameAnswers(t testing.TB, ours, theirs http.Handler, method, path string, headers http.Header) {
	t.Helper()
	ask := func(h http.Handler) *http.Response {
		r := httptest.NewRequestWithContext(t.Context(), method, "http://x.localhost"+path, nil)
		r.Header = headers.Clone()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	got, want := ask(ours), ask(theirs)
	what := fmt.Sprintf("%s %s %v", method, path, headers)
	if got.StatusCode != want.StatusCode {
		t.Errorf("%s: got %s, want %s", what, got.Status, want.Status)
		return
	}
	names := []string{"Content-Range", "Accept-Ranges"}
	if got.StatusCode < 300 || got.StatusCode == http.StatusNotModified {
		names = append(names, "Etag", "Last-Modified")
	}
	several := strings.HasPrefix(want.Header.Get("Content-Type"), "multipart/")
	if got.StatusCode < 300 && !several {
		names = append(names, "Content-Length", "Content-Type")
	}
	for _, name := range names {
		if name == "Accept-Ranges" && got.StatusCode >= 300 {
			continue
		}
		if g, w := got.Header.Get(name), want.Header.Get(name); g != w {
			t.Errorf("%s: got %s: %q, want %q", what, name, g, w)
		}
	}
	if got.StatusCode >= 300 {
		return // words of ours
	}
	if method == http.MethodHead {
		if b := body(t, got); b != "" {
			t.Errorf("%s: got a body of %d bytes", what, len(b))
		}
		return
	}
	if g, w := parts(t, got), parts(t, want); g != w {
		t.Errorf("%s: got %d bytes, want %d, or others", what, len(g), len(w))
	}
}

func TestRangesAndConditionsAreThoseOfNetHTTP(t *testing.T) {
	t.Run("plain", func(t *testing.T) { rangesAndConditions(t, hyperdrive.Options{}) })
	// Blocks that are elsewhere, and of different sizes.
	t.Run("dedup", func(t *testing.T) { rangesAndConditions(t, hyperdrive.Options{Dedup: true}) })
}

func rangesAndConditions(t *testing.T, o hyperdrive.Options) {
	d, files := rangeSite(t, o)
	ours, them := New(Options{Resolver: only(d, DriveOptions{}), CacheBytes: 1 << 20}), theirs(t, d)
	seed := uint64(1)
	times := 250
	if os.Getenv("BEVY_LONG") == "1" {
		seed, times = uint64(time.Now().UnixNano()), 200_000
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	var paths []string
	for _, size := range []int{0, 1, 10, 511, 4096, 64 << 10, 64<<10 + 1, 200<<10 - 1, 300<<10 + 5} {
		paths = append(paths, fmt.Sprintf("/file%d.bin", size))
	}
	source := NewDrive(d, DriveOptions{})
	for range times {
		p := paths[rng.IntN(len(paths))]
		i, err := source.Lookup(t.Context(), p)
		must(t, err)
		h := http.Header{}
		if rng.IntN(4) > 0 {
			h.Set("Range", randomRange(rng, len(files[p])))
		}
		tags := []string{`"` + i.Tag + `"`, `W/"` + i.Tag + `"`, `"other"`, "*", `"a", "` + i.Tag + `"`, "", "nonsense"}
		dates := []string{when.Format(http.TimeFormat), when.Add(time.Second).Format(http.TimeFormat), when.Add(-time.Hour).Format(http.TimeFormat), "yesterday"}
		for name, values := range map[string][]string{"If-Match": tags, "If-None-Match": tags, "If-Modified-Since": dates, "If-Unmodified-Since": dates, "If-Range": append(dates, tags...)} {
			if rng.IntN(5) == 0 {
				h.Set(name, values[rng.IntN(len(values))])
			}
		}
		sameAnswers(t, ours, them, []string{"GET", "GET", "HEAD"}[rng.IntN(3)], p, h)
	}
}

// randomRange is a Range header for a file of n bytes, good or bad.
func randomRange(rng *rand.Rand, n int) string {
	near := func() string {
		at := []int{0, 1, n - 1, n, n + 1, n / 2, 64 << 10, 64<<10 - 1, n - 64<<10, rng.IntN(n + 1)}[rng.IntN(10)]
		return strconv.Itoa(max(at, 0))
	}
	out := "bytes="
	if rng.IntN(20) == 0 {
		out = []string{"bytes", "items=", "bytes =", "Bytes=", ""}[rng.IntN(5)]
	}
	for k := range 1 + rng.IntN(4)*rng.IntN(2) {
		if k > 0 {
			out += []string{",", ", ", " ,"}[rng.IntN(3)]
		}
		switch rng.IntN(10) {
		case 0:
			out += "-" + near()
		case 1:
			out += near() + "-"
		case 2:
			out += []string{"-", "", "x-y", "5", "-0", "0x1-2", "-1-2", "99999999999999999999-", " 1-2 "}[rng.IntN(9)]
		default:
			out += near() + "-" + near()
		}
	}
	return out
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=-5,1-2", "bytes=4096-", "bytes=,", "bytes=0-4095,0-4095", "bytes=1-2;3-4"} {
		f.Add(s, "", "")
	}
	f.Add("bytes=1-", `"x"`, "")
	f.Add("bytes=1-", "", `W/"x", *`)
	d := newDrive(f)
	data := bytes.Repeat([]byte("0123456789abcdef"), 256)
	put(f, d, "/small.bin", data, hyperdrive.PutOptions{Metadata: hyperdrive.NewMetadata(when, 0)})
	// With no room in the cache files come from the source each time.
	ours, big, them := New(Options{Resolver: only(d, DriveOptions{})}), New(Options{Resolver: only(d, DriveOptions{}), CacheBytes: -1}), theirs(f, d)
	f.Fuzz(func(t *testing.T, ranges, ifRange, ifNoneMatch string) {
		if strings.Count(ranges, ",") >= maxRanges {
			return // net/http takes any number of them
		}
		h := http.Header{"Range": {ranges}}
		if ifRange != "" {
			h.Set("If-Range", ifRange)
		}
		if ifNoneMatch != "" {
			h.Set("If-None-Match", ifNoneMatch)
		}
		sameAnswers(t, ours, them, "GET", "/small.bin", h)
		sameAnswers(t, big, them, "GET", "/small.bin", h)
	})
}
