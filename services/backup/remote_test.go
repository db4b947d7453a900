package backup

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/services/internal/sigv4"
)

// A server is as much of S3 as a backup needs, on a shelf. interop has it against
// real ones.
type server struct {
	shelf *shelf
	fail  int // how often it answers that it is busy
	asked atomic.Int64
	plain bool                                        // it knows no ranges
	odd   func(asked int, w http.ResponseWriter) bool // answers something else, if it is set
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asked := int(s.asked.Add(1))
	if asked <= s.fail {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, "<Error><Code>SlowDown</Code><Message>busy</Message></Error>")
		return
	}
	if s.odd != nil && s.odd(asked, w) {
		return
	}
	v := &sigv4.Verifier{Service: "s3", Region: "eu-test-1", Keys: func(_ context.Context, key string) (sigv4.Key, error) {
		if key != "me" {
			return sigv4.Key{}, sigv4.ErrUnknownKey
		}
		return sigv4.Key{Secret: "secret"}, nil
	}}
	refuse := func(status int, code string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
	}
	signed, err := v.Verify(r)
	var wrong *sigv4.Error
	if errors.As(err, &wrong) {
		refuse(http.StatusForbidden, string(wrong.Kind))
		return
	}
	body, err := io.ReadAll(signed.Body)
	key, ok := strings.CutPrefix(r.URL.Path, "/bucket")
	if err != nil || !ok {
		refuse(http.StatusNotFound, "NoSuchBucket")
		return
	}
	key = strings.TrimPrefix(key, "/")
	switch {
	case key == "" && r.URL.Query().Get("list-type") == "2":
		items, _ := s.shelf.List(r.Context(), r.URL.Query().Get("prefix"))
		const page = 3
		after := r.URL.Query().Get("continuation-token")
		i, found := slices.BinarySearchFunc(items, after, func(i Item, k string) int { return strings.Compare(i.Name, k) })
		if found {
			i++
		}
		items = items[i:]
		type object struct {
			Key          string
			Size         int64
			LastModified time.Time
		}
		var list struct {
			XMLName               xml.Name `xml:"ListBucketResult"`
			Contents              []object
			IsTruncated           bool
			NextContinuationToken string
		}
		for n, item := range items {
			if n == page {
				list.IsTruncated, list.NextContinuationToken = true, items[n-1].Name
				break
			}
			list.Contents = append(list.Contents, object{item.Name, item.Size, item.Time})
		}
		xml.NewEncoder(w).Encode(list)
	case r.Method == http.MethodPut:
		s.shelf.Put(r.Context(), key, body)
	case r.Method == http.MethodDelete:
		s.shelf.Delete(r.Context(), key)
		w.WriteHeader(http.StatusNoContent)
	default:
		b, err := s.shelf.Get(r.Context(), key, 1<<30)
		if err != nil {
			refuse(http.StatusNotFound, "NoSuchKey")
			return
		}
		if s.plain {
			w.Write(b)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}

func serve(t *testing.T) (*server, *S3) {
	t.Helper()
	s := &server{shelf: newShelf(clock.System)}
	http := httptest.NewServer(s)
	t.Cleanup(http.Close)
	return s, &S3{Endpoint: http.URL, Bucket: "bucket", Prefix: "my backups/", Region: "eu-test-1", AccessKey: "me", Secret: "secret"}
}

func TestRemotesKeepObjects(t *testing.T) {
	_, s3 := serve(t)
	if err := s3.Check(); err != nil {
		t.Fatal(err)
	}
	plain, simple := serve(t)
	plain.plain = true
	for name, r := range map[string]Remote{"S3": s3, "S3 without ranges": simple, "a folder": Folder(t.TempDir()), "memory": newShelf(clock.System)} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if _, err := r.Get(ctx, "none", 10); !errors.Is(err, ErrNotFound) {
				t.Errorf("get none: %v", err)
			}
			if err := r.Delete(ctx, "packs/none"); err != nil {
				t.Errorf("delete none: %v", err)
			}
			if items, err := r.List(ctx, "packs/"); err != nil || len(items) != 0 {
				t.Errorf("list nothing: %v, %v", items, err)
			}
			for i := range 8 {
				if err := r.Put(ctx, fmt.Sprintf("packs/%02d/x", i), []byte("data")); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Put(ctx, "packs/00/x", []byte("longer")); err != nil {
				t.Fatal(err)
			}
			if b, err := r.Get(ctx, "packs/00/x", 6); err != nil || string(b) != "longer" {
				t.Errorf("get: %q, %v", b, err)
			}
			if _, err := r.Get(ctx, "packs/00/x", 5); err == nil {
				t.Error("got more than the limit")
			}
			for _, part := range []struct {
				at, n int64
				want  string
			}{{0, 3, "lon"}, {2, 4, "nger"}, {4, 10, "er"}, {6, 1, ""}, {9, 2, ""}, {1, 0, ""}} {
				if b, err := r.GetRange(ctx, "packs/00/x", part.at, part.n); err != nil || string(b) != part.want {
					t.Errorf("%d bytes at %d: %q, %v", part.n, part.at, b, err)
				}
			}
			if _, err := r.GetRange(ctx, "packs/none", 0, 1); !errors.Is(err, ErrNotFound) {
				t.Errorf("a part of none: %v", err)
			}
			if err := r.Delete(ctx, "packs/03/x"); err != nil {
				t.Fatal(err)
			}
			items, err := r.List(ctx, "packs/")
			if err != nil || len(items) != 7 {
				t.Fatalf("list: %v, %v", items, err)
			}
			for _, i := range items {
				if !strings.HasPrefix(i.Name, "packs/0") || i.Size < 4 || time.Since(i.Time) > time.Hour {
					t.Errorf("%+v", i)
				}
			}
		})
	}
}

func TestABackupGoesToS3(t *testing.T) {
	s, s3 := serve(t)
	r := newRig(t, 1, 2)
	r.append(0, 5, 100)
	r.append(1, 5, 1000)
	repo, err := Create(t.Context(), s3, "a cloud", seal, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.asked.Store(0)
	s.fail = 2 // it is asked again
	if _, err := repo.Run(t.Context(), r.source(), nil); err != nil {
		t.Fatal(err)
	}
	snap, err := repo.Snapshot(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	to := newStore(t)
	if err := repo.Restore(t.Context(), snap, to, nil); err != nil {
		t.Fatal(err)
	}
	r.equal(1, to, 0, 5)
	for name := range s.shelf.all {
		if !strings.HasPrefix(name, "my backups/") {
			t.Errorf("%s is outside of the prefix", name)
		}
	}

	noBucket := *s3
	noBucket.Bucket = "other"
	if _, err := Open(t.Context(), &noBucket, unseal, Options{}); !errors.Is(err, ErrNoBucket) {
		t.Errorf("no bucket: %v", err)
	}
	for what, change := range map[string]func(*S3){
		"SignatureDoesNotMatch": func(s *S3) { s.Secret = "wrong" },
		"InvalidAccessKeyId":    func(s *S3) { s.AccessKey = "you" },
		"NoSuchBucket":          func(s *S3) { s.Bucket = "other" },
	} {
		wrong := *s3
		change(&wrong)
		if _, err := Open(t.Context(), &wrong, unseal, Options{}); err == nil || !strings.Contains(err.Error(), what) || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, wrong := range []S3{{}, {Endpoint: "ftp://x", Bucket: "b", AccessKey: "a", Secret: "s"}, {Endpoint: "http://x/y", Bucket: "b", AccessKey: "a", Secret: "s"},
		{Endpoint: "http://x", AccessKey: "a", Secret: "s"}, {Endpoint: "http://x", Bucket: "a/b", AccessKey: "a", Secret: "s"}, {Endpoint: "http://x", Bucket: "b"}} {
		if wrong.Check() == nil {
			t.Errorf("%+v is fine", wrong)
		}
	}
}

// A disk that is not plugged in is not a backup that is empty.
func TestAFolderThatIsNotThere(t *testing.T) {
	gone := Folder(filepath.Join(t.TempDir(), "usb"))
	if err := gone.Put(t.Context(), "a", nil); err == nil {
		t.Error("put")
	}
	if _, err := gone.Get(t.Context(), "a", 1); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("get: %v", err)
	}
	if _, err := gone.List(t.Context(), "a/"); err == nil {
		t.Error("list")
	}
	if _, err := os.Stat(string(gone)); err == nil {
		t.Error("it was made")
	}
}

// Whatever a server answers now and then, a backup is whole in the end, or says that
// it is not.
func TestAServerThatAnswersOddly(t *testing.T) {
	for what, odd := range map[string]func(http.ResponseWriter){
		"an error":        func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"a cut body":      func(w http.ResponseWriter) { w.Header().Set("Content-Length", "100"); io.WriteString(w, "short") },
		"no answer":       func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"something else":  func(w http.ResponseWriter) { io.WriteString(w, "<html>please sign in</html>") },
		"a forbidden one": func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) },
	} {
		t.Run(what, func(t *testing.T) {
			s, s3 := serve(t)
			s3.Clock = hasty{clock.System}
			r := newRig(t, 31, 1)
			repo, err := Create(t.Context(), s3, "a cloud", seal, Options{})
			if err != nil {
				t.Fatal(err)
			}
			r.append(0, 5, 100)
			var mended atomic.Bool
			s.odd = func(asked int, w http.ResponseWriter) bool {
				if asked%4 != 0 || mended.Load() {
					return false
				}
				odd(w)
				return true
			}
			for range 8 {
				r.append(0, 1, 10)
				_, _ = repo.Run(t.Context(), r.source(), nil) // it may say that it failed
			}
			mended.Store(true)
			if _, err := repo.Run(t.Context(), r.source(), nil); err != nil {
				t.Fatal(err)
			}
			r.bringsBack(repo, 0, r.contents(0))
		})
	}
}

// hasty is a clock whose pauses between two tries are over at once.
type hasty struct{ clock.Clock }

func (h hasty) AfterFunc(d time.Duration, f func()) clock.Timer {
	if d < partTimeout {
		d = 0
	}
	return h.Clock.AfterFunc(d, f)
}

// A server that never answers does not hold anybody for ever.
func TestAServerThatDoesNotAnswer(t *testing.T) {
	never := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-never }))
	defer server.Close()
	defer close(never)
	s3 := &S3{Endpoint: server.URL, Bucket: "bucket", AccessKey: "me", Secret: "secret", Clock: eager{clock.System}}
	if _, err := Open(t.Context(), s3, unseal, Options{}); err == nil || !strings.Contains(err.Error(), "no answer in 5m") {
		t.Errorf("%v", err)
	}
}

// eager is a clock on which all is over at once.
type eager struct{ clock.Clock }

func (e eager) AfterFunc(_ time.Duration, f func()) clock.Timer { return e.Clock.AfterFunc(0, f) }

// What can't be written to says so, and what is there stays whole.
func TestAFolderThatCannotBeWrittenTo(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, 32, 1)
	repo, err := Create(t.Context(), Folder(dir), "a cloud", seal, Options{Clock: r.clock})
	if err != nil {
		t.Fatal(err)
	}
	r.append(0, 5, 100)
	if _, err := repo.Run(t.Context(), r.source(), nil); err != nil {
		t.Fatal(err)
	}
	want := r.contents(0)
	// A file where a folder should be is what even root can't write into.
	if err := os.Rename(filepath.Join(dir, "packs"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "packs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.append(0, 5, 100)
	if _, err := repo.Run(t.Context(), r.source(), nil); err == nil {
		t.Error("it was written")
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "packs")), os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, "packs"))); err != nil {
		t.Fatal(err)
	}
	r.bringsBack(repo, 0, want)
}

// What a program that was killed had begun to put is no part of a backup, and goes
// when old snapshots do.
func TestPruneRemovesWhatAKilledRunLeft(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, 33, 1)
	repo, err := Create(t.Context(), Folder(dir), "a cloud", seal, Options{Clock: r.clock})
	if err != nil {
		t.Fatal(err)
	}
	r.append(0, 5, 100)
	if _, err := repo.Run(t.Context(), r.source(), nil); err != nil {
		t.Fatal(err)
	}
	put := func(name string, age time.Duration) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, make([]byte, 1000), 0o600), os.Chtimes(path, time.Time{}, r.clock.Now().Add(-age))); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old, top := put("packs/.part-123", 2*unfinished), put(".part-9", 2*unfinished)
	young, other := put("packs/.part-124", time.Minute), put("packs/.mine", 2*unfinished)
	for _, dry := range []bool{true, false} {
		p, err := repo.Prune(t.Context(), DefaultKeep, dry)
		if err != nil || p.Packs != 2 || p.Bytes != 2000 {
			t.Errorf("dry %v: %+v, %v", dry, p, err)
		}
		for path, stays := range map[string]bool{old: dry, top: dry, young: true, other: true} {
			if _, err := os.Stat(path); (err == nil) != stays {
				t.Errorf("dry %v: %s: %v", dry, path, err)
			}
		}
	}
	r.bringsBack(repo, 0, r.contents(0))
}
