package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

var long = os.Getenv("BEVY_LONG") == "1"

// A server is what the tests are run against.
type server struct {
	URL, Key, Secret string
	Other            bool // it is not ours
}

// bound is how long a single request may take.
const bound = time.Minute

// config is for the SDK for Go. Whatever host is asked for, the server is.
func (s server) config() aws.Config {
	u, err := url.Parse(s.URL)
	if err != nil {
		panic(err)
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, u.Host)
	}
	return aws.Config{Region: "us-east-1", BaseEndpoint: &s.URL, RetryMaxAttempts: 1,
		HTTPClient: &http.Client{Timeout: bound, Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 64}},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: s.Key, SecretAccessKey: s.Secret}, nil
		})}
}

func (s server) client(options ...func(*s3.Options)) *s3.Client {
	return s3.NewFromConfig(s.config(), append([]func(*s3.Options){func(o *s3.Options) { o.UsePathStyle = true }}, options...)...)
}

// ask sends a request that nobody signs.
func (s server) ask(t testing.TB, method, address string, header http.Header, body io.Reader) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		r.Header = header
	}
	if host := header.Get("Host"); host != "" {
		r.Host = host
	}
	res, err := (&http.Client{Timeout: bound, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, address, err)
	}
	return res, string(text)
}

// bucketName is one that nobody else has.
func bucketName() string { return "test-" + strings.ToLower(rand.Text()[:16]) }

// bucket makes a bucket, which goes with the test.
func bucket(t testing.TB, s server) *string {
	t.Helper()
	name := bucketName()
	_, err := s.client().CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name})
	ok(t, err)
	t.Cleanup(func() { dropBucket(t, s, name) })
	return &name
}

// dropBucket removes a bucket with all that is in it. With a server of ours, which ends with the tests, there is no
// need to.
func dropBucket(t testing.TB, s server, name string) {
	if !s.Other {
		return
	}
	ctx, c := context.WithoutCancel(t.Context()), s.client()
	for pages := s3.NewListObjectVersionsPaginator(c, &s3.ListObjectVersionsInput{Bucket: &name}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			break
		}
		for _, v := range page.Versions {
			_, _ = c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &name, Key: v.Key, VersionId: v.VersionId, BypassGovernanceRetention: aws.Bool(true)})
		}
		for _, v := range page.DeleteMarkers {
			_, _ = c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &name, Key: v.Key, VersionId: v.VersionId})
		}
	}
	_, _ = c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &name})
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode wants an error of the server.
func wantCode(t testing.TB, err error, codes ...string) {
	t.Helper()
	if code := codeOf(err); !strings.Contains(" "+strings.Join(codes, " ")+" ", " "+code+" ") {
		t.Errorf("got the error %q (%v), want %s", code, err, strings.Join(codes, " or "))
	}
}

func codeOf(err error) string {
	var e interface{ ErrorCode() string }
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}

// equal compares what was got with what is wanted.
func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func put(t testing.TB, c *s3.Client, bucket *string, key, text string) *s3.PutObjectOutput {
	t.Helper()
	out, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: strings.NewReader(text)})
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return out
}

func get(t testing.TB, c *s3.Client, bucket *string, key string) string {
	t.Helper()
	return read(t, c, &s3.GetObjectInput{Bucket: bucket, Key: &key})
}

func read(t testing.TB, c *s3.Client, in *s3.GetObjectInput) string {
	t.Helper()
	out, err := c.GetObject(t.Context(), in)
	if err != nil {
		t.Fatalf("get %q: %v", *in.Key, err)
	}
	defer out.Body.Close()
	text, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatalf("get %q: %v", *in.Key, err)
	}
	return string(text)
}

// keys lists a bucket by version 2, page by page.
func keys(t testing.TB, c *s3.Client, in *s3.ListObjectsV2Input) (all []string) {
	t.Helper()
	for pages := s3.NewListObjectsV2Paginator(c, in); pages.HasMorePages(); {
		page, err := pages.NextPage(t.Context())
		ok(t, err)
		for _, o := range page.Contents {
			all = append(all, *o.Key)
		}
		for _, p := range page.CommonPrefixes {
			all = append(all, *p.Prefix)
		}
	}
	return all
}

// some returns n bytes that look like any, and are the same each time.
func some(n int, seed byte) []byte {
	b := bytes.Repeat([]byte{seed}, n)
	x := uint64(seed) + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}
