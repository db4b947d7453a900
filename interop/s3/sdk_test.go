package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestSDKForGoMakesAndDropsBuckets(t *testing.T) {
	s := start(t)
	ctx, c := t.Context(), s.client()
	name := bucket(t, s)
	_, err := c.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: name})
	ok(t, err)
	list, err := c.ListBuckets(ctx, nil)
	ok(t, err)
	if !slices.ContainsFunc(list.Buckets, func(b types.Bucket) bool { return *b.Name == *name }) {
		t.Errorf("%s is not in the list of %d buckets", *name, len(list.Buckets))
	}
	where, err := c.GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: name})
	ok(t, err)
	equal(t, "location", where.LocationConstraint, "")
	for _, bad := range []string{"ab", "Upper-Case", "under_score", "-begin", "192.168.1.1", strings.Repeat("a", 64)} {
		_, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bad})
		wantCode(t, err, "InvalidBucketName")
	}
	put(t, c, name, "x", "y")
	_, err = c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: name})
	wantCode(t, err, "BucketNotEmpty")
	_, err = c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: name, Key: aws.String("x")})
	ok(t, err)
	_, err = c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: name})
	ok(t, err)
	_, err = c.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: name})
	wantCode(t, err, "NotFound")
	_, err = c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: name})
	wantCode(t, err, "NoSuchBucket")
	_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: name, Key: aws.String("x")})
	wantCode(t, err, "NoSuchBucket")
}

func TestSDKForGoIsRefusedWithWrongSignatures(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	wrong, unknown := s, s
	wrong.Secret += "x"
	unknown.Key = "NOBODY"
	_, err := wrong.client().ListBuckets(ctx, nil)
	wantCode(t, err, "SignatureDoesNotMatch")
	_, err = unknown.client().ListBuckets(ctx, nil)
	wantCode(t, err, "InvalidAccessKeyId")
	res, text := s.ask(t, "GET", s.URL+"/", nil, nil)
	if res.StatusCode != http.StatusForbidden || !strings.Contains(text, "<Code>AccessDenied</Code>") {
		t.Errorf("a request without signature got %s: %s", res.Status, text)
	}
}

func TestSDKForGoPutsAndGetsObjects(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	body := some(300_000, 1)
	sum := md5.Sum(body)
	etag := fmt.Sprintf("%q", hex.EncodeToString(sum[:]))
	key := aws.String("a/deep/path/ä ö+&=?#%.txt")
	expires := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	made, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: key, Body: bytes.NewReader(body), ContentType: aws.String("text/x-test; charset=utf-8"),
		CacheControl: aws.String("max-age=7"), ContentDisposition: aws.String(`attachment; filename="x"`), ContentEncoding: aws.String("identity"), ContentLanguage: aws.String("de"),
		Expires: &expires, Metadata: map[string]string{"one": "1", "two": "a b  c"}})
	ok(t, err)
	equal(t, "ETag of put", *made.ETag, etag)
	head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: b, Key: key})
	ok(t, err)
	equal(t, "ETag", *head.ETag, etag)
	equal(t, "length", *head.ContentLength, int64(len(body)))
	equal(t, "type", *head.ContentType, "text/x-test; charset=utf-8")
	equal(t, "Cache-Control", *head.CacheControl, "max-age=7")
	equal(t, "Content-Disposition", *head.ContentDisposition, `attachment; filename="x"`)
	equal(t, "Content-Encoding", aws.ToString(head.ContentEncoding), "identity")
	equal(t, "Content-Language", *head.ContentLanguage, "de")
	equal(t, "Expires", aws.ToString(head.ExpiresString), expires.Format(http.TimeFormat))
	equal(t, "metadata", fmt.Sprint(head.Metadata), "map[one:1 two:a b  c]")
	if age := time.Since(*head.LastModified); age < -time.Minute || age > time.Minute {
		t.Errorf("it was modified %v ago", age)
	}
	if got := get(t, c, b, *key); got != string(body) {
		t.Errorf("got %d other bytes", len(got))
	}

	for _, r := range []struct {
		ask, answer string
		from, to    int
	}{
		{"bytes=0-9", "bytes 0-9/300000", 0, 10}, {"bytes=299990-", "bytes 299990-299999/300000", 299990, 300000},
		{"bytes=-5", "bytes 299995-299999/300000", 299995, 300000}, {"bytes=100000-999999", "bytes 100000-299999/300000", 100000, 300000},
		{"bytes=-999999", "bytes 0-299999/300000", 0, 300000},
	} {
		out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: key, Range: &r.ask})
		ok(t, err)
		got, err := io.ReadAll(out.Body)
		ok(t, err)
		equal(t, r.ask, *out.ContentRange, r.answer)
		if !bytes.Equal(got, body[r.from:r.to]) {
			t.Errorf("%s: got %d bytes, which are not those", r.ask, len(got))
		}
	}
	_, err = c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: key, Range: aws.String("bytes=300000-")})
	wantCode(t, err, "InvalidRange")

	status := func(err error) int {
		e := new(awshttp.ResponseError)
		if errors.As(err, &e) {
			return e.HTTPStatusCode()
		}
		return http.StatusOK
	}
	before, after := aws.Time(head.LastModified.Add(-time.Hour)), aws.Time(head.LastModified.Add(time.Hour))
	for _, x := range []struct {
		what string
		in   s3.GetObjectInput
		want int
	}{
		{"If-None-Match", s3.GetObjectInput{IfNoneMatch: &etag}, 304}, {"If-None-Match of another", s3.GetObjectInput{IfNoneMatch: aws.String(`"x"`)}, 200},
		{"If-Match", s3.GetObjectInput{IfMatch: &etag}, 200}, {"If-Match of another", s3.GetObjectInput{IfMatch: aws.String(`"x"`)}, 412},
		{"modified since before", s3.GetObjectInput{IfModifiedSince: before}, 200}, {"modified since", s3.GetObjectInput{IfModifiedSince: head.LastModified}, 304},
		{"unmodified since before", s3.GetObjectInput{IfUnmodifiedSince: before}, 412}, {"unmodified since after", s3.GetObjectInput{IfUnmodifiedSince: after}, 200},
		{"If-Match and unmodified since before", s3.GetObjectInput{IfMatch: &etag, IfUnmodifiedSince: before}, 200},
		{"If-None-Match and modified since before", s3.GetObjectInput{IfNoneMatch: &etag, IfModifiedSince: before}, 304},
	} {
		x.in.Bucket, x.in.Key = b, key
		_, err := c.GetObject(ctx, &x.in)
		equal(t, x.what, status(err), x.want)
	}
	out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: key, ResponseContentType: aws.String("x/y"), ResponseContentDisposition: aws.String("inline"), ResponseCacheControl: aws.String("no-store")})
	ok(t, err)
	_ = out.Body.Close()
	equal(t, "overridden headers", *out.ContentType+*out.ContentDisposition+*out.CacheControl, "x/yinlineno-store")

	_, err = c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: aws.String("none")})
	wantCode(t, err, "NoSuchKey")
	_, err = c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: b, Key: aws.String("none")})
	wantCode(t, err, "NotFound")
	_, err = c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: aws.String("none")})
	ok(t, err)
	put(t, c, b, "empty", "")
	equal(t, "an empty object", get(t, c, b, "empty"), "")
	_, err = c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: aws.String("empty"), Range: aws.String("bytes=0-")})
	wantCode(t, err, "InvalidRange")
	put(t, c, b, *key, "shorter")
	equal(t, "a replaced object", get(t, c, b, *key), "shorter")
}

func TestSDKForGoCopiesObjects(t *testing.T) {
	s := start(t)
	ctx, c, a, b := t.Context(), s.client(), bucket(t, s), bucket(t, s)
	key := "from/ü x.txt"
	made, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: a, Key: &key, Body: strings.NewReader("hello"), ContentType: aws.String("text/x"), Metadata: map[string]string{"k": "v"}, Tagging: aws.String("t=1")})
	ok(t, err)
	source := aws.String(*a + "/from/%C3%BC%20x.txt")
	for _, to := range []*string{a, b} {
		copied, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: to, Key: aws.String("copy"), CopySource: source})
		ok(t, err)
		equal(t, "ETag", *copied.CopyObjectResult.ETag, *made.ETag)
		head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: to, Key: aws.String("copy")})
		ok(t, err)
		equal(t, "what is copied with it", *head.ContentType+fmt.Sprint(head.Metadata), "text/xmap[k:v]")
		tags, err := c.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: to, Key: aws.String("copy")})
		ok(t, err)
		equal(t, "number of tags", len(tags.TagSet), 1)
	}
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: a, Key: &key, CopySource: source})
	wantCode(t, err, "InvalidRequest")
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: a, Key: &key, CopySource: source, MetadataDirective: types.MetadataDirectiveReplace, ContentType: aws.String("text/y"),
		Metadata: map[string]string{"new": "1"}, TaggingDirective: types.TaggingDirectiveReplace, Tagging: aws.String("a=1&b=2")})
	ok(t, err)
	head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: a, Key: &key})
	ok(t, err)
	equal(t, "what was replaced", *head.ContentType+fmt.Sprint(head.Metadata), "text/ymap[new:1]")
	equal(t, "the body", get(t, c, a, key), "hello")
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: b, Key: aws.String("no"), CopySource: source, CopySourceIfNoneMatch: made.ETag})
	wantCode(t, err, "PreconditionFailed")
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: b, Key: aws.String("no"), CopySource: source, CopySourceIfMatch: made.ETag})
	ok(t, err)
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: b, Key: aws.String("no"), CopySource: aws.String(*a + "/none")})
	wantCode(t, err, "NoSuchKey")
}

func TestSDKForGoPutsUnderConditions(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	var won atomic.Int32
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: aws.String("lock"), Body: strings.NewReader(fmt.Sprint(i)), IfNoneMatch: aws.String("*")})
			if err == nil {
				won.Add(1)
				return
			}
			wantCode(t, err, "PreconditionFailed", "ConditionalRequestConflict")
		})
	}
	all.Wait()
	equal(t, "writers that made the same key", won.Load(), 1)
	etag := put(t, c, b, "x", "1").ETag
	in := &s3.PutObjectInput{Bucket: b, Key: aws.String("x"), Body: strings.NewReader("2"), IfMatch: etag}
	_, err := c.PutObject(ctx, in)
	ok(t, err)
	in.Body = strings.NewReader("3")
	_, err = c.PutObject(ctx, in)
	wantCode(t, err, "PreconditionFailed")
	equal(t, "the object", get(t, c, b, "x"), "2")
	in.Key, in.Body = aws.String("none"), strings.NewReader("3")
	_, err = c.PutObject(ctx, in)
	wantCode(t, err, "NoSuchKey", "PreconditionFailed")
}

func TestSDKForGoCountsByConditions(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	put(t, c, b, "n", "0")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for added := 0; added < 5; {
				out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: aws.String("n")})
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				_, err = fmt.Fscan(out.Body, &n)
				_ = out.Body.Close()
				if err != nil {
					t.Error(err)
					return
				}
				_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: aws.String("n"), Body: strings.NewReader(fmt.Sprint(n + 1)), IfMatch: out.ETag})
				switch code := codeOf(err); {
				case err == nil:
					added++
				case code != "PreconditionFailed" && code != "ConditionalRequestConflict":
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	equal(t, "the count", get(t, c, b, "n"), "20")
}

func TestSDKForGoLists(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	var want []string
	for i := range 25 {
		for _, dir := range []string{"a/", "b/c/", "b/d/", ""} {
			want = append(want, fmt.Sprintf("%sfile-%03d", dir, i))
		}
	}
	want = append(want, "zürich/\u00e4", "z+ &\"<>", "a b")
	slices.Sort(want)
	var all sync.WaitGroup
	for _, key := range want {
		all.Go(func() {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: aws.String(key), Body: strings.NewReader(key)})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, max := range []int32{7, 100, 1000} {
		if got := keys(t, c, &s3.ListObjectsV2Input{Bucket: b, MaxKeys: &max}); !slices.Equal(got, want) {
			t.Errorf("pages of %d: got %q, want %q", max, got, want)
		}
	}
	equal(t, "the top", strings.Join(keys(t, c, &s3.ListObjectsV2Input{Bucket: b, Delimiter: aws.String("/"), Prefix: aws.String("b/")}), " "), "b/c/ b/d/")
	var top []string
	for pages := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{Bucket: b, Delimiter: aws.String("/"), MaxKeys: aws.Int32(3)}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		ok(t, err)
		if n := len(page.CommonPrefixes) + len(page.Contents); n > 3 || int32(n) != *page.KeyCount {
			t.Errorf("a page of 3 has %d, and says %d", n, *page.KeyCount)
		}
		for _, p := range page.CommonPrefixes {
			top = append(top, *p.Prefix)
		}
	}
	equal(t, "the prefixes", strings.Join(top, " "), "a/ b/ zürich/")
	equal(t, "start after", len(keys(t, c, &s3.ListObjectsV2Input{Bucket: b, StartAfter: aws.String("b/d/file-020")})), 4+25+2)
	equal(t, "a prefix", len(keys(t, c, &s3.ListObjectsV2Input{Bucket: b, Prefix: aws.String("b/d/file-01")})), 10)
	equal(t, "a prefix that none has", len(keys(t, c, &s3.ListObjectsV2Input{Bucket: b, Prefix: aws.String("nothing")})), 0)
	encoded := strings.Join(keys(t, c, &s3.ListObjectsV2Input{Bucket: b, Prefix: aws.String("z"), EncodingType: types.EncodingTypeUrl}), " ")
	equal(t, "keys encoded as in addresses", strings.Replace(encoded, "%20", "+", 1), "z%2B+%26%22%3C%3E z%C3%BCrich/%C3%A4")

	var marker *string
	var got []string
	for {
		page, err := c.ListObjects(ctx, &s3.ListObjectsInput{Bucket: b, Marker: marker, MaxKeys: aws.Int32(10), Prefix: aws.String("b/")})
		ok(t, err)
		for _, o := range page.Contents {
			got = append(got, *o.Key)
			equal(t, "size of "+*o.Key, *o.Size, int64(len(*o.Key)))
		}
		if !*page.IsTruncated {
			break
		}
		marker = aws.String(got[len(got)-1])
	}
	equal(t, "version 1", len(got), 50)
	page, err := c.ListObjects(ctx, &s3.ListObjectsInput{Bucket: b, MaxKeys: aws.Int32(2), Delimiter: aws.String("/")})
	ok(t, err)
	equal(t, "the next marker", aws.ToString(page.NextMarker), "a/")
	none, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: b, MaxKeys: aws.Int32(0)})
	ok(t, err)
	equal(t, "none were asked for", len(none.Contents), 0)
}

func TestSDKForGoDeletesMany(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	var ids []types.ObjectIdentifier
	for i := range 40 {
		key := fmt.Sprintf("dir/%d &<", i)
		put(t, c, b, key, "x")
		ids = append(ids, types.ObjectIdentifier{Key: &key})
	}
	ids = append(ids, types.ObjectIdentifier{Key: aws.String("none")})
	out, err := c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: b, Delete: &types.Delete{Objects: ids[:20]}})
	ok(t, err)
	equal(t, "deleted", len(out.Deleted), 20)
	out, err = c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: b, Delete: &types.Delete{Objects: ids[20:], Quiet: aws.Bool(true)}})
	ok(t, err)
	equal(t, "said of quietly deleted", len(out.Deleted)+len(out.Errors), 0)
	equal(t, "left", len(keys(t, c, &s3.ListObjectsV2Input{Bucket: b})), 0)
	_, err = c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: b, Delete: &types.Delete{Objects: make([]types.ObjectIdentifier, 0)}})
	wantCode(t, err, "MalformedXML")
}

func TestSDKForGoChecksums(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	body := some(100_000, 3)
	for _, algorithm := range types.ChecksumAlgorithmCrc32.Values() {
		if !slices.Contains([]types.ChecksumAlgorithm{"CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"}, algorithm) {
			continue // newer ones of AWS, which no server in the field has
		}
		key := aws.String(string(algorithm))
		made, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: key, Body: bytes.NewReader(body), ChecksumAlgorithm: algorithm})
		if err != nil {
			t.Errorf("%s: %v", algorithm, err)
			continue
		}
		sums := func(a, b, c, d, e *string) string {
			return fmt.Sprintf("%s %s %s %s %s", aws.ToString(a), aws.ToString(b), aws.ToString(c), aws.ToString(d), aws.ToString(e))
		}
		want := sums(made.ChecksumCRC32, made.ChecksumCRC32C, made.ChecksumCRC64NVME, made.ChecksumSHA1, made.ChecksumSHA256)
		head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: b, Key: key, ChecksumMode: types.ChecksumModeEnabled})
		ok(t, err)
		equal(t, "the checksum of HEAD", sums(head.ChecksumCRC32, head.ChecksumCRC32C, head.ChecksumCRC64NVME, head.ChecksumSHA1, head.ChecksumSHA256), want)
		if strings.TrimSpace(want) == "" || head.ChecksumType != types.ChecksumTypeFullObject {
			t.Errorf("%s: the checksum is %q, of type %q", algorithm, want, head.ChecksumType)
		}
		read(t, c, &s3.GetObjectInput{Bucket: b, Key: key, ChecksumMode: types.ChecksumModeEnabled}) // the SDK compares
		attributes, err := c.GetObjectAttributes(ctx, &s3.GetObjectAttributesInput{Bucket: b, Key: key, ObjectAttributes: types.ObjectAttributesEtag.Values()})
		ok(t, err)
		equal(t, "the size of attributes", aws.ToInt64(attributes.ObjectSize), int64(len(body)))
		if x := attributes.Checksum; x == nil {
			t.Errorf("%s: the attributes have no checksum", algorithm)
		} else {
			equal(t, "the checksum of attributes", sums(x.ChecksumCRC32, x.ChecksumCRC32C, x.ChecksumCRC64NVME, x.ChecksumSHA1, x.ChecksumSHA256), want)
		}
	}
	zero := base64.StdEncoding.EncodeToString(make([]byte, 4))
	_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: aws.String("bad"), Body: bytes.NewReader(body), ChecksumCRC32: &zero})
	wantCode(t, err, "BadDigest")
	zero = base64.StdEncoding.EncodeToString(make([]byte, 32))
	_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: aws.String("bad"), Body: bytes.NewReader(body), ChecksumSHA256: &zero})
	wantCode(t, err, "BadDigest")
	zero = base64.StdEncoding.EncodeToString(make([]byte, 16))
	_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: aws.String("bad"), Body: bytes.NewReader(body), ContentMD5: &zero})
	wantCode(t, err, "BadDigest")
	_, err = c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: b, Key: aws.String("bad")})
	wantCode(t, err, "NotFound")
}

const mib = 1 << 20

func TestSDKForGoUploadsInParts(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	for _, mode := range []struct {
		algorithm types.ChecksumAlgorithm
		kind      types.ChecksumType
	}{{"", ""}, {"CRC32", types.ChecksumTypeComposite}, {"CRC64NVME", types.ChecksumTypeFullObject}, {"SHA256", types.ChecksumTypeComposite}} {
		name := "plain"
		if mode.algorithm != "" {
			name = string(mode.algorithm)
		}
		t.Run(name, func(t *testing.T) {
			key := aws.String("big/" + name)
			up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: b, Key: key, ContentType: aws.String("x/y"), ChecksumAlgorithm: mode.algorithm, ChecksumType: mode.kind, Metadata: map[string]string{"m": "1"}})
			ok(t, err)
			body := some(11*mib+77, 5)
			pieces := [][]byte{body[:5*mib], body[5*mib : 10*mib], body[10*mib:]}
			parts := make([]types.CompletedPart, 3)
			put := func(i int) error {
				n := int32(i + 1)
				out, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumber: &n, Body: bytes.NewReader(pieces[i]), ChecksumAlgorithm: mode.algorithm})
				if err == nil {
					parts[i] = types.CompletedPart{PartNumber: &n, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32, ChecksumCRC64NVME: out.ChecksumCRC64NVME, ChecksumSHA256: out.ChecksumSHA256}
				}
				return err
			}
			var all sync.WaitGroup
			for _, i := range []int{2, 0, 1} {
				all.Go(func() {
					if err := put(i); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			ok(t, put(1)) // once more: it takes the place of the other
			list, err := c.ListParts(ctx, &s3.ListPartsInput{Bucket: b, Key: key, UploadId: up.UploadId, MaxParts: aws.Int32(2)})
			ok(t, err)
			if len(list.Parts) != 2 || !*list.IsTruncated {
				t.Errorf("a page of 2 parts has %d", len(list.Parts))
			}
			list, err = c.ListParts(ctx, &s3.ListPartsInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumberMarker: list.NextPartNumberMarker})
			ok(t, err)
			if len(list.Parts) != 1 || *list.Parts[0].Size != int64(mib+77) {
				t.Errorf("the next page has %d parts", len(list.Parts))
			}
			done, err := c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: b, Key: key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
			ok(t, err)
			sums := md5.New()
			for _, p := range pieces {
				sum := md5.Sum(p)
				sums.Write(sum[:])
			}
			equal(t, "ETag", *done.ETag, fmt.Sprintf("%q", hex.EncodeToString(sums.Sum(nil))+"-3"))
			if got := read(t, c, &s3.GetObjectInput{Bucket: b, Key: key, ChecksumMode: types.ChecksumModeEnabled}); got != string(body) {
				t.Errorf("got %d other bytes", len(got))
			}
			head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: b, Key: key, ChecksumMode: types.ChecksumModeEnabled})
			ok(t, err)
			equal(t, "type and metadata", *head.ContentType+head.Metadata["m"], "x/y1")
			if mode.kind != "" {
				equal(t, "the type of checksum", head.ChecksumType, mode.kind)
			}
			part, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: key, PartNumber: aws.Int32(2)})
			ok(t, err)
			got, err := io.ReadAll(part.Body)
			ok(t, err)
			equal(t, "parts", aws.ToInt32(part.PartsCount), 3)
			if !bytes.Equal(got, pieces[1]) {
				t.Errorf("the second part has %d bytes, which are not those", len(got))
			}
			// One range that goes over the border of two parts.
			if got := read(t, c, &s3.GetObjectInput{Bucket: b, Key: key, Range: aws.String(fmt.Sprintf("bytes=%d-%d", 5*mib-10, 5*mib+9))}); got != string(body[5*mib-10:5*mib+10]) {
				t.Error("a range over two parts is another one")
			}
			_, err = c.UploadPart(ctx, &s3.UploadPartInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("x")})
			wantCode(t, err, "NoSuchUpload")
		})
	}
}

func TestSDKForGoMisusesUploads(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	source := put(t, c, b, "source", string(some(6*mib, 9)))
	key := aws.String("x")
	up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: b, Key: key})
	ok(t, err)
	copied, err := c.UploadPartCopy(ctx, &s3.UploadPartCopyInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(1), CopySource: aws.String(*b + "/source"), CopySourceRange: aws.String("bytes=0-5242879"), CopySourceIfMatch: source.ETag})
	ok(t, err)
	_, err = c.UploadPartCopy(ctx, &s3.UploadPartCopyInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(1), CopySource: aws.String(*b + "/source"), CopySourceRange: aws.String("bytes=0-99999999")})
	wantCode(t, err, "InvalidRange", "InvalidArgument")
	small, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(2), Body: strings.NewReader("small")})
	ok(t, err)
	last, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(3), Body: strings.NewReader("last")})
	ok(t, err)
	one, two, three := types.CompletedPart{PartNumber: aws.Int32(1), ETag: copied.CopyPartResult.ETag}, types.CompletedPart{PartNumber: aws.Int32(2), ETag: small.ETag}, types.CompletedPart{PartNumber: aws.Int32(3), ETag: last.ETag}
	complete := func(parts ...types.CompletedPart) error {
		_, err := c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: b, Key: key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
		return err
	}
	wantCode(t, complete(two, one), "InvalidPartOrder")
	wantCode(t, complete(one, types.CompletedPart{PartNumber: aws.Int32(2), ETag: last.ETag}), "InvalidPart")
	wantCode(t, complete(one, types.CompletedPart{PartNumber: aws.Int32(7), ETag: last.ETag}), "InvalidPart")
	wantCode(t, complete(one, two, three), "EntityTooSmall")
	for _, n := range []int32{0, 10001} {
		_, err = c.UploadPart(ctx, &s3.UploadPartInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumber: &n, Body: strings.NewReader("x")})
		wantCode(t, err, "InvalidArgument")
	}
	list, err := c.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: b})
	ok(t, err)
	equal(t, "uploads", len(list.Uploads), 1)
	equal(t, "objects", strings.Join(keys(t, c, &s3.ListObjectsV2Input{Bucket: b}), " "), "source")
	ok(t, complete(one, three)) // parts may be left out
	equal(t, "its length", len(get(t, c, b, "x")), 5*mib+len("last"))

	up, err = c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: b, Key: key})
	ok(t, err)
	_, err = c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: b, Key: key, UploadId: up.UploadId})
	ok(t, err)
	_, err = c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: b, Key: key, UploadId: up.UploadId})
	wantCode(t, err, "NoSuchUpload")
	wantCode(t, complete(one), "NoSuchUpload")
	list, err = c.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: b})
	ok(t, err)
	equal(t, "uploads at the end", len(list.Uploads), 0)
}

func versions(t *testing.T, c *s3.Client, b *string) (all []string) {
	t.Helper()
	out, err := c.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: b})
	ok(t, err)
	for _, v := range out.Versions {
		all = append(all, fmt.Sprintf("%s %s latest=%v", *v.Key, *v.VersionId, *v.IsLatest))
	}
	for _, v := range out.DeleteMarkers {
		all = append(all, fmt.Sprintf("%s marker %s latest=%v", *v.Key, *v.VersionId, *v.IsLatest))
	}
	return all
}

func TestSDKForGoKeepsVersions(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	key := aws.String("dir/x")
	put(t, c, b, *key, "before")
	_, err := c.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: b, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	ok(t, err)
	status, err := c.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: b})
	ok(t, err)
	equal(t, "status", status.Status, types.BucketVersioningStatusEnabled)
	one, two := put(t, c, b, *key, "one"), put(t, c, b, *key, "two")
	get1 := func(id string) string {
		return read(t, c, &s3.GetObjectInput{Bucket: b, Key: key, VersionId: &id})
	}
	equal(t, "the versions", get1("null")+get1(*one.VersionId)+get1(*two.VersionId)+get(t, c, b, *key), "beforeonetwotwo")
	equal(t, "the list", strings.Join(versions(t, c, b), ", "), fmt.Sprintf("dir/x %s latest=true, dir/x %s latest=false, dir/x null latest=false", *two.VersionId, *one.VersionId))

	gone, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: key})
	ok(t, err)
	if !aws.ToBool(gone.DeleteMarker) || aws.ToString(gone.VersionId) == "" {
		t.Fatalf("a delete made no marker: %+v", gone)
	}
	_, err = c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: key})
	wantCode(t, err, "NoSuchKey")
	_, err = c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: key, VersionId: gone.VersionId})
	wantCode(t, err, "MethodNotAllowed")
	equal(t, "objects that are listed", len(keys(t, c, &s3.ListObjectsV2Input{Bucket: b})), 0)
	equal(t, "a version behind a marker", get1(*one.VersionId), "one")
	_, err = c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: key, VersionId: gone.VersionId})
	ok(t, err)
	equal(t, "without the marker", get(t, c, b, *key), "two")
	_, err = c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: key, VersionId: two.VersionId})
	ok(t, err)
	equal(t, "without the latest", get(t, c, b, *key), "one")
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: b, Key: key, CopySource: aws.String(*b + "/dir/x?versionId=null")})
	ok(t, err)
	equal(t, "an old version that was copied to the top", get(t, c, b, *key), "before")
	for _, v := range []string{"null", "nonsense"} {
		_, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: b, Key: aws.String("other"), VersionId: &v})
		if err == nil {
			t.Errorf("there is a version %q of what there is not", v)
		}
	}

	_, err = c.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: b, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusSuspended}})
	ok(t, err)
	n := len(versions(t, c, b))
	put(t, c, b, *key, "null two")
	equal(t, "versions after a put while they are suspended", len(versions(t, c, b)), n)
	equal(t, "the null version", get1("null"), "null two")
	_, err = c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: key})
	ok(t, err)
	equal(t, "versions after a delete while they are suspended", len(versions(t, c, b)), n)
	equal(t, "a version that was kept", get1(*one.VersionId), "one")
	_, err = c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: b})
	wantCode(t, err, "BucketNotEmpty", "VersionedBucketNotEmpty")

	var ids []types.ObjectIdentifier
	out, err := c.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: b})
	ok(t, err)
	for _, v := range out.Versions {
		ids = append(ids, types.ObjectIdentifier{Key: v.Key, VersionId: v.VersionId})
	}
	for _, v := range out.DeleteMarkers {
		ids = append(ids, types.ObjectIdentifier{Key: v.Key, VersionId: v.VersionId})
	}
	many, err := c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: b, Delete: &types.Delete{Objects: ids}})
	ok(t, err)
	equal(t, "deleted for ever", len(many.Deleted), len(ids))
	_, err = c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: b})
	ok(t, err)
}

func TestSDKForGoPagesThroughVersions(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	_, err := c.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: b, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	ok(t, err)
	for i := range 20 {
		key := fmt.Sprintf("%c/k", 'a'+i%5)
		put(t, c, b, key, fmt.Sprint(i))
		if i%7 == 0 {
			_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: &key})
			ok(t, err)
		}
	}
	seen := map[string]bool{}
	for pages := s3.NewListObjectVersionsPaginator(c, &s3.ListObjectVersionsInput{Bucket: b, MaxKeys: aws.Int32(3)}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		ok(t, err)
		if n := len(page.Versions) + len(page.DeleteMarkers); n > 3 {
			t.Errorf("a page of 3 has %d", n)
		}
		for _, v := range page.Versions {
			seen[*v.Key+*v.VersionId] = true
		}
		for _, v := range page.DeleteMarkers {
			seen[*v.Key+*v.VersionId] = true
		}
	}
	equal(t, "versions and markers", len(seen), 23)
}

func TestSDKForGoLocksObjects(t *testing.T) {
	s := start(t)
	ctx, c := t.Context(), s.client()
	b := aws.String(bucketName())
	_, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: b, ObjectLockEnabledForBucket: aws.Bool(true)})
	ok(t, err)
	t.Cleanup(func() { dropBucket(t, s, *b) })
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	key := aws.String("x")
	held := put(t, c, b, *key, "held")
	lock := func(id *string, mode types.ObjectLockRetentionMode, until time.Time, bypass bool) error {
		_, err := c.PutObjectRetention(ctx, &s3.PutObjectRetentionInput{Bucket: b, Key: key, VersionId: id, BypassGovernanceRetention: &bypass, Retention: &types.ObjectLockRetention{Mode: mode, RetainUntilDate: &until}})
		return err
	}
	drop := func(id *string, bypass bool) error {
		_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: key, VersionId: id, BypassGovernanceRetention: &bypass})
		return err
	}
	ok(t, lock(held.VersionId, types.ObjectLockRetentionModeGovernance, until, false))
	got, err := c.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{Bucket: b, Key: key, VersionId: held.VersionId})
	ok(t, err)
	if got.Retention.Mode != types.ObjectLockRetentionModeGovernance || !got.Retention.RetainUntilDate.Equal(until) {
		t.Errorf("the retention is %s until %v, want until %v", got.Retention.Mode, got.Retention.RetainUntilDate, until)
	}
	wantCode(t, drop(held.VersionId, false), "AccessDenied")
	ok(t, lock(held.VersionId, types.ObjectLockRetentionModeGovernance, until.Add(time.Hour), false))
	wantCode(t, lock(held.VersionId, types.ObjectLockRetentionModeGovernance, until, false), "AccessDenied")
	gone, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: key}) // a marker may be set
	ok(t, err)
	ok(t, drop(gone.VersionId, false))
	ok(t, drop(held.VersionId, true))

	_, err = c.PutObjectLockConfiguration(ctx, &s3.PutObjectLockConfigurationInput{Bucket: b, ObjectLockConfiguration: &types.ObjectLockConfiguration{ObjectLockEnabled: types.ObjectLockEnabledEnabled,
		Rule: &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{Mode: types.ObjectLockRetentionModeGovernance, Days: aws.Int32(1)}}}})
	ok(t, err)
	byDefault := put(t, c, b, *key, "by default")
	head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: b, Key: key})
	ok(t, err)
	equal(t, "the mode by default", head.ObjectLockMode, types.ObjectLockModeGovernance)
	wantCode(t, drop(byDefault.VersionId, false), "AccessDenied")
	ok(t, drop(byDefault.VersionId, true))

	hold := func(id *string, status types.ObjectLockLegalHoldStatus) {
		_, err := c.PutObjectLegalHold(ctx, &s3.PutObjectLegalHoldInput{Bucket: b, Key: key, VersionId: id, LegalHold: &types.ObjectLockLegalHold{Status: status}})
		ok(t, err)
	}
	legal := put(t, c, b, *key, "legal")
	hold(legal.VersionId, types.ObjectLockLegalHoldStatusOn)
	wantCode(t, drop(legal.VersionId, true), "AccessDenied")
	hold(legal.VersionId, types.ObjectLockLegalHoldStatusOff)
	ok(t, drop(legal.VersionId, true))
	if !s.Other { // nobody could remove it there
		strict := put(t, c, b, *key, "strict")
		ok(t, lock(strict.VersionId, types.ObjectLockRetentionModeCompliance, until.Add(48*time.Hour), true))
		wantCode(t, drop(strict.VersionId, true), "AccessDenied")
		wantCode(t, lock(strict.VersionId, types.ObjectLockRetentionModeCompliance, until, true), "AccessDenied")
	}
	plain := bucket(t, s)
	put(t, c, plain, "x", "")
	_, err = c.PutObjectRetention(ctx, &s3.PutObjectRetentionInput{Bucket: plain, Key: key, Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionModeGovernance, RetainUntilDate: &until}})
	wantCode(t, err, "InvalidRequest")
}

func TestSDKForGoTags(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	key := aws.String("x")
	_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: key, Tagging: aws.String("a=1&b=x%20y")})
	ok(t, err)
	out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: key})
	ok(t, err)
	_ = out.Body.Close()
	equal(t, "tags that are told", aws.ToInt32(out.TagCount), 2)
	text := func(tags []types.Tag) string {
		var all []string
		for _, tag := range tags {
			all = append(all, *tag.Key+"="+*tag.Value)
		}
		slices.Sort(all)
		return strings.Join(all, "&")
	}
	tags, err := c.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: b, Key: key})
	ok(t, err)
	equal(t, "tags", text(tags.TagSet), "a=1&b=x y")
	_, err = c.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{Bucket: b, Key: key, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("ü"), Value: aws.String("")}}}})
	ok(t, err)
	tags, err = c.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: b, Key: key})
	ok(t, err)
	equal(t, "other tags", text(tags.TagSet), "ü=")
	_, err = c.DeleteObjectTagging(ctx, &s3.DeleteObjectTaggingInput{Bucket: b, Key: key})
	ok(t, err)
	tags, err = c.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: b, Key: key})
	ok(t, err)
	equal(t, "no tags", len(tags.TagSet), 0)
	eleven := make([]types.Tag, 11)
	for i := range eleven {
		eleven[i] = types.Tag{Key: aws.String(fmt.Sprint(i)), Value: aws.String("")}
	}
	_, err = c.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{Bucket: b, Key: key, Tagging: &types.Tagging{TagSet: eleven}})
	wantCode(t, err, "BadRequest", "InvalidTag")

	_, err = c.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: b})
	wantCode(t, err, "NoSuchTagSet")
	_, err = c.PutBucketTagging(ctx, &s3.PutBucketTaggingInput{Bucket: b, Tagging: &types.Tagging{TagSet: eleven[:3]}})
	ok(t, err)
	of, err := c.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: b})
	ok(t, err)
	equal(t, "tags of the bucket", text(of.TagSet), "0=&1=&2=")
	_, err = c.DeleteBucketTagging(ctx, &s3.DeleteBucketTaggingInput{Bucket: b})
	ok(t, err)
}

func TestSDKForGoTakesAnyKey(t *testing.T) {
	s := start(t)
	if s.Other {
		t.Skip("a promise of ours")
	}
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	want := []string{"a//b", "a/b", "dir/", "dir/x", "x", "x/y", "x/y/z", "//", "/lead", "end//", "a/../b", "a/./b", ".", "..", "...", "CON", "nul.txt", "con/aux", "trailing.", "trailing ",
		strings.Repeat("k", 1024), strings.Repeat("ü/", 341) + "x", strings.Repeat("long", 100) + "/x", "tab\tnew\nline", "back\\slash", "a?b#c%d", "%2F", "+plus+", "emoji 🐻/🐻", "e\u0301", "\u00e9",
		"\ue000", "\U0001F600", "case", "CASE", "Case", "a:b", "star*", "\"quotes'", "<xml>&amp;", "\x01control", "~tilde", "-dash", ".bevy", ".hidden/x", "name.bevy-part", "\u2028"}
	for _, key := range want {
		put(t, c, b, key, "value of "+key)
	}
	slices.Sort(want)
	// No XML can hold some of them as they are.
	got := keys(t, c, &s3.ListObjectsV2Input{Bucket: b, MaxKeys: aws.Int32(7), EncodingType: types.EncodingTypeUrl})
	for i := range got {
		var err error
		got[i], err = url.QueryUnescape(got[i])
		ok(t, err)
	}
	if !slices.Equal(got, want) {
		for i := range max(len(got), len(want)) {
			switch {
			case i >= len(want):
				t.Errorf("got also %q", got[i])
			case i >= len(got):
				t.Errorf("%q is missing", want[i])
			case got[i] != want[i]:
				t.Fatalf("at %d: got %.60q, want %.60q", i, got[i], want[i])
			}
		}
	}
	for _, key := range want {
		if got := get(t, c, b, key); got != "value of "+key {
			t.Errorf("%.60q: got %.60q", key, got)
		}
		_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: &key})
		if err != nil {
			t.Errorf("delete %.60q: %v", key, err)
		}
	}
	equal(t, "what is left", strings.Join(keys(t, c, &s3.ListObjectsV2Input{Bucket: b}), " "), "")
	_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: aws.String(strings.Repeat("k", 1025))})
	wantCode(t, err, "KeyTooLongError")
	_, err = c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: b})
	ok(t, err)
}

func TestSDKForGoWritesFromManyClients(t *testing.T) {
	s := start(t)
	c, b := s.client(), bucket(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for j := range 10 {
				key := fmt.Sprintf("%d/%d", j, i)
				_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: &key, Body: bytes.NewReader(some(4096, byte(i)))})
				if err == nil && j%3 == 2 {
					_, err = c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: aws.String(fmt.Sprintf("%d/%d", j-1, i))})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	equal(t, "objects", len(keys(t, c, &s3.ListObjectsV2Input{Bucket: b})), 16*7)
}
