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
	asked int
	plain bool // it knows no ranges
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.asked++; s.asked <= s.fail {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, "<Error><Code>SlowDown</Code><Message>busy</Message></Error>")
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
	s.asked, s.fail = 0, 2 // it is asked again
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
