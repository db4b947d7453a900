package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/services/s3/objects"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// A world is a door with two apps: keys that begin with "other" are of the app
// "other", and "reader" may only read.
type world struct {
	t      testing.TB
	door   *Door
	clock  *clock.Fake
	region string // that clients sign for
}

func newWorld(t testing.TB) *world {
	t.Helper()
	c := clock.NewFake(start)
	spaces, err := objects.NewMemory(c)
	if err != nil {
		t.Fatal(err)
	}
	door, err := New(t.Context(), Options{
		Spaces: spaces, Clock: c, SmallParts: true,
		Verifier: &Verifier{Service: "s3", Clock: c, Keys: func(_ context.Context, key string) (Key, error) {
			if key == "unknown" {
				return Key{}, ErrUnknownKey
			}
			return Key{Secret: "secret of " + key, Principal: key}, nil
		}},
		App: func(key string) string {
			if strings.HasPrefix(key, "other") {
				return "other"
			}
			return ""
		},
		Allowed: func(key, _ string, write bool) bool { return key != "reader" || !write },
		Apps:    func(context.Context) ([]string, error) { return []string{"", "other"}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := door.Close(); err != nil {
			t.Error(err)
		}
		if err := spaces.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t, door, c, "us-east-1"}
}

// An answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// request makes a request that is not signed.
func (w *world) request(method, target, body string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, "http://s3.localhost"+target, strings.NewReader(body))
	r.RequestURI = ""
	r.ContentLength = int64(len(body))
	if body != "" || method == "PUT" {
		r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host, r.URL.Host = headers[i+1], headers[i+1]
			continue
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// serve answers a request.
func (w *world) serve(r *http.Request) answer {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.door.ServeHTTP(rec, r)
	return answer{rec.Code, rec.Header(), rec.Body.String()}
}

// anon makes a request that nobody signed.
func (w *world) anon(method, target, body string, headers ...string) answer {
	w.t.Helper()
	return w.serve(w.request(method, target, body, headers...))
}

// as makes a request that is signed with a key.
func (w *world) as(key, method, target, body string, headers ...string) answer {
	w.t.Helper()
	r := w.request(method, target, body, headers...)
	w.sign(key, r, body)
	return w.serve(r)
}

// do is as for the owner.
func (w *world) do(method, target, body string, headers ...string) answer {
	w.t.Helper()
	return w.as("owner", method, target, body, headers...)
}

func (w *world) sign(key string, r *http.Request, body string) {
	w.t.Helper()
	sum := sha256.Sum256([]byte(body))
	payload := hex.EncodeToString(sum[:])
	r.Header.Del("Content-Length")
	r.Header.Set("X-Amz-Content-Sha256", payload)
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(context.Background(), aws.Credentials{AccessKeyID: key, SecretAccessKey: "secret of " + key}, r, payload, "s3", w.region, w.clock.Now()); err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	r.Body = io.NopCloser(bytes.NewReader([]byte(body)))
}

// presign returns a request as a presigned address gives it.
func (w *world) presign(key, method, target string, seconds string) *http.Request {
	w.t.Helper()
	r := w.request(method, target, "")
	r.Header = http.Header{}
	q := r.URL.Query()
	q.Set("X-Amz-Expires", seconds)
	r.URL.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	signed, _, err := signer.PresignHTTP(context.Background(), aws.Credentials{AccessKeyID: key, SecretAccessKey: "secret of " + key}, r, "UNSIGNED-PAYLOAD", "s3", "us-east-1", w.clock.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	u, err := url.Parse(signed)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.request(method, u.RequestURI(), "")
}

// want fails the test if an answer is not as it has to be: a status, and texts that
// the body has.
func (a answer) want(t testing.TB, what string, status int, texts ...string) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("%s: status %d, want %d: %s", what, a.status, status, a.body)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			t.Fatalf("%s: no %q in %s", what, text, a.body)
		}
	}
	return a
}

// get returns a header, however it is spelled.
func (a answer) get(name string) string {
	for n, v := range a.header {
		if strings.EqualFold(n, name) {
			return strings.Join(v, ",")
		}
	}
	return ""
}

// has fails the test if a header is not as it has to be.
func (a answer) has(t testing.TB, name, value string) answer {
	t.Helper()
	if got := a.get(name); got != value {
		t.Fatalf("header %s is %q, want %q", name, got, value)
	}
	return a
}

func TestObjectsComeBackAsTheyWerePut(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/pictures", "").want(t, "make bucket", 200).has(t, "Location", "/pictures")
	w.do("PUT", "/pictures", "").want(t, "make it again", 200)
	w.do("PUT", "/pictures", "", "X-Amz-Acl", "public-read").want(t, "make it again, otherwise", 409, "<Code>BucketAlreadyOwnedByYou</Code>")
	w.do("PUT", "/pictures/a/b%20c.txt", "hello world", "Content-Type", "text/plain", "X-Amz-Meta-Who", "ann").want(t, "put", 200).has(t, "ETag", `"5eb63bbbe01eeed093cb22bb8f5acdc3"`)
	a := w.do("GET", "/pictures/a/b%20c.txt", "").want(t, "get", 200).has(t, "Content-Type", "text/plain").has(t, "Content-Length", "11").has(t, "Accept-Ranges", "bytes")
	if a.body != "hello world" || a.get("X-Amz-Meta-Who") != "ann" {
		t.Errorf("got %q, %v", a.body, a.header)
	}
	if a := w.do("HEAD", "/pictures/a/b%20c.txt", "").want(t, "head", 200); a.body != "" || a.header.Get("Content-Length") != "11" {
		t.Errorf("got %q, %v", a.body, a.header)
	}
	w.do("GET", "/pictures/a/b%20c.txt", "", "Range", "bytes=6-").want(t, "range", 206, "world").has(t, "Content-Range", "bytes 6-10/11")
	w.do("GET", "/pictures/a/b%20c.txt", "", "Range", "bytes=11-").want(t, "range behind", 416, "<Code>InvalidRange</Code>", "<ActualObjectSize>11</ActualObjectSize>")
	w.do("GET", "/pictures/none", "").want(t, "get nothing", 404, "<Code>NoSuchKey</Code>", "<Key>none</Key>", "<RequestId>")
	w.do("GET", "/nothing/none", "").want(t, "get from no bucket", 404, "<Code>NoSuchBucket</Code>")
	if a := w.do("HEAD", "/pictures/none", "").want(t, "head nothing", 404); a.body != "" {
		t.Errorf("the answer to HEAD has %q", a.body)
	}
	w.do("GET", "/pictures?list-type=2&prefix=a/", "").want(t, "list", 200, "<Key>a/b c.txt</Key>", "<KeyCount>1</KeyCount>", "<IsTruncated>false</IsTruncated>")
	w.do("GET", "/pictures?delimiter=/", "").want(t, "list folders", 200, "<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>")
	w.do("GET", "/", "").want(t, "list buckets", 200, "<Name>pictures</Name>", "<DisplayName>default</DisplayName>")
	w.anon("GET", "/pictures/a/b%20c.txt", "").want(t, "get as nobody", 403, "<Code>AccessDenied</Code>")
	w.serve(w.presign("reader", "GET", "/pictures/a/b%20c.txt", "60")).want(t, "get what is presigned", 200, "hello world")
	w.serve(w.presign("reader", "DELETE", "/pictures/a/b%20c.txt", "60")).want(t, "delete as a reader", 403)
	w.do("DELETE", "/pictures", "").want(t, "delete bucket", 409, "<Code>BucketNotEmpty</Code>")
	w.do("DELETE", "/pictures/a/b%20c.txt", "").want(t, "delete", 204)
	w.do("DELETE", "/pictures/a/b%20c.txt", "").want(t, "delete again", 204)
	w.do("DELETE", "/pictures", "").want(t, "delete bucket", 204)
	w.do("HEAD", "/pictures", "").want(t, "head bucket", 404)
}
