package s3

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

var seed = flag.Uint64("seed", 0, "of the operations on the server that is killed; 0 is another one each time")

// A killable is a server on a folder, in a process of its own.
type killable struct {
	server
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func startKillable(t *testing.T, dir string) *killable {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), folderOfServer+"="+dir, folderOfServer+"_AT=127.0.0.1:0")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	ok(t, err)
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server says %q: %v, %v", line, err, cmd.Wait())
	}
	return &killable{server{URL: "http://" + strings.TrimSpace(line), Key: ourKey, Secret: ourSecret}, cmd, in}
}

func (k *killable) kill(t *testing.T) {
	t.Helper()
	ok(t, k.cmd.Process.Kill())
	_ = k.cmd.Wait() // it was killed
}

// A worker does random things to objects that are its own, and knows what may be there.
type worker struct {
	t      *testing.T
	name   string
	random *rand.Rand
	c      *s3.Client
	// may has, for each key, what may be there; "" is nothing. There is more than one value where no answer came.
	may      map[string][]string
	versions map[string]string // of the bucket that keeps them, by their ids
	added    int               // to the counter, acknowledged
	maybe    int               // to the counter, without an answer
	upload   *upload           // that was begun
	n        int
}

// An upload is one in parts, which goes on after a kill.
type upload struct {
	key, id string
	parts   []types.CompletedPart
	text    string
}

var objectsBucket, versionsBucket = aws.String("objects"), aws.String("versions")

// unanswered says whether the server went away before it answered. An answer that is none of codes is a failure.
func (w *worker) unanswered(what string, err error, codes ...string) bool {
	if code := codeOf(err); code != "" && !slices.Contains(codes, code) {
		w.t.Errorf("%s: %v", what, err)
	}
	return err != nil && codeOf(err) == ""
}

// is notes that a key has a value, or may have it if no answer came.
func (w *worker) is(key, value string, err error) {
	if w.may[key] == nil {
		w.may[key] = []string{""}
	}
	if w.unanswered("change "+key, err) {
		w.may[key] = append(w.may[key], value)
	} else if err == nil {
		w.may[key] = []string{value}
	}
}

func (w *worker) text() string {
	w.n++
	size := w.random.IntN(8 << 10)
	if w.random.IntN(8) == 0 {
		size = w.random.IntN(400 << 10)
	}
	return fmt.Sprintf("%s %d ", w.name, w.n) + string(some(size, byte(w.n)))
}

// step does one thing. It says false when the server is gone.
func (w *worker) step(ctx context.Context) bool {
	key := fmt.Sprintf("%s/%d", w.name, w.random.IntN(12))
	var err error
	switch x := w.random.IntN(100); {
	case x < 40:
		text := w.text()
		_, err = w.c.PutObject(ctx, &s3.PutObjectInput{Bucket: objectsBucket, Key: &key, Body: strings.NewReader(text)})
		w.is(key, text, err)
	case x < 52:
		_, err = w.c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: objectsBucket, Key: &key})
		w.is(key, "", err)
	case x < 57: // several at once
		ids := []types.ObjectIdentifier{{Key: &key}, {Key: aws.String(w.name + "/0")}}
		_, err = w.c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: objectsBucket, Delete: &types.Delete{Objects: ids}})
		w.is(key, "", err)
		w.is(w.name+"/0", "", err)
	case x < 70:
		err = w.look(ctx, key)
	case x < 75:
		err = w.list(ctx)
	case x < 85:
		err = w.part(ctx)
	case x < 93:
		text := w.text()
		var out *s3.PutObjectOutput
		if out, err = w.c.PutObject(ctx, &s3.PutObjectInput{Bucket: versionsBucket, Key: &key, Body: strings.NewReader(text)}); !w.unanswered("put a version", err) && err == nil {
			w.versions[*out.VersionId] = key + "\n" + text
		}
	default:
		err = w.count(ctx)
	}
	return err == nil || codeOf(err) != ""
}

// look gets an object, and wants it to be one of those that may be there.
func (w *worker) look(ctx context.Context, key string) error {
	text, err := w.get(ctx, &s3.GetObjectInput{Bucket: objectsBucket, Key: &key})
	if w.unanswered("get "+key, err, "NoSuchKey") {
		return err
	}
	may := w.may[key]
	if may == nil {
		may = []string{""}
	}
	if !slices.Contains(may, text) {
		w.t.Errorf("%s has %d bytes, %.30q, which is none of the %d that it may have; one is %.30q", key, len(text), text, len(may), may[0])
	}
	w.may[key] = []string{text}
	return err
}

func (w *worker) get(ctx context.Context, in *s3.GetObjectInput) (string, error) {
	out, err := w.c.GetObject(ctx, in)
	if err != nil {
		return "", err
	}
	defer out.Body.Close()
	text, err := io.ReadAll(out.Body)
	return string(text), err
}

// list wants all keys that must be there, and no other than those that may.
func (w *worker) list(ctx context.Context) error {
	got := map[string]bool{}
	for pages := s3.NewListObjectsV2Paginator(w.c, &s3.ListObjectsV2Input{Bucket: objectsBucket, Prefix: aws.String(w.name + "/"), MaxKeys: aws.Int32(5)}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if w.unanswered("list", err) || err != nil {
			return err
		}
		for _, o := range page.Contents {
			got[*o.Key] = true
			if may := w.may[*o.Key]; !slices.ContainsFunc(may, func(text string) bool { return text != "" && int64(len(text)) == *o.Size }) {
				w.t.Errorf("%s is listed with %d bytes", *o.Key, *o.Size)
			}
		}
	}
	for key, may := range w.may {
		if !got[key] && !slices.Contains(may, "") {
			w.t.Errorf("%s is not listed", key)
		}
	}
	return nil
}

// part goes on with an upload in parts by one step.
func (w *worker) part(ctx context.Context) error {
	u := w.upload
	if u == nil {
		key := w.name + "/parts"
		made, err := w.c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: objectsBucket, Key: &key})
		if !w.unanswered("begin an upload", err) && err == nil {
			w.upload = &upload{key: key, id: *made.UploadId}
		}
		return err
	}
	switch n := int32(len(u.parts) + 1); {
	case n <= 3:
		text := w.text()
		out, err := w.c.UploadPart(ctx, &s3.UploadPartInput{Bucket: objectsBucket, Key: &u.key, UploadId: &u.id, PartNumber: &n, Body: strings.NewReader(text)})
		if !w.unanswered("upload a part", err) && err == nil {
			u.parts = append(u.parts, types.CompletedPart{PartNumber: &n, ETag: out.ETag})
			u.text += text
		}
		return err
	case w.random.IntN(4) == 0:
		_, err := w.c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: objectsBucket, Key: &u.key, UploadId: &u.id})
		w.unanswered("abort", err)
		w.upload = nil
		return err
	}
	_, err := w.c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: objectsBucket, Key: &u.key, UploadId: &u.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts}})
	w.is(u.key, u.text, err)
	w.upload = nil
	return err
}

// count adds one to a number that all workers share, under a condition.
func (w *worker) count(ctx context.Context) error {
	out, err := w.c.GetObject(ctx, &s3.GetObjectInput{Bucket: objectsBucket, Key: aws.String("counter")})
	if err != nil {
		w.unanswered("get the counter", err)
		return err
	}
	var n int
	_, err = fmt.Fscan(out.Body, &n)
	_ = out.Body.Close()
	if err != nil {
		return err
	}
	_, err = w.c.PutObject(ctx, &s3.PutObjectInput{Bucket: objectsBucket, Key: aws.String("counter"), Body: strings.NewReader(fmt.Sprint(n + 1)), IfMatch: out.ETag})
	if w.unanswered("count", err, "PreconditionFailed", "ConditionalRequestConflict") {
		w.maybe++
	} else if err == nil {
		w.added++
	}
	return err
}

// check wants all that was acknowledged.
func (w *worker) check(ctx context.Context) {
	for _, key := range slices.Sorted(maps.Keys(w.may)) {
		if err := w.look(ctx, key); err != nil && codeOf(err) == "" {
			w.t.Errorf("get %s: %v", key, err)
		}
	}
	if err := w.list(ctx); err != nil {
		w.t.Errorf("list: %v", err)
	}
	for id, want := range w.versions {
		key, text, _ := strings.Cut(want, "\n")
		if got, err := w.get(ctx, &s3.GetObjectInput{Bucket: versionsBucket, Key: &key, VersionId: &id}); err != nil || got != text {
			w.t.Errorf("version %s of %s: %d bytes, want %d, %v", id, key, len(got), len(text), err)
		}
	}
	if u := w.upload; u != nil {
		list, err := w.c.ListParts(ctx, &s3.ListPartsInput{Bucket: objectsBucket, Key: &u.key, UploadId: &u.id})
		if err != nil {
			w.t.Errorf("parts of an upload: %v", err)
			return
		}
		for i, p := range u.parts {
			if i >= len(list.Parts) || *list.Parts[i].ETag != *p.ETag {
				w.t.Errorf("part %d is gone, or another one", i+1)
			}
		}
	}
}

// Several clients work on a server that is killed again and again. What was acknowledged is there, whole; what was not
// is there whole, or not at all.
func TestNothingIsLostWhenTheServerIsKilled(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	kills := 6
	if long {
		kills = 60
	}
	random := rand.New(rand.NewPCG(*seed, 0))
	dir := t.TempDir()
	workers := make([]*worker, 4)
	for i := range workers {
		workers[i] = &worker{t: t, name: fmt.Sprint("worker-", i), random: rand.New(rand.NewPCG(*seed, uint64(i+1))), may: map[string][]string{}, versions: map[string]string{}}
	}
	ctx := t.Context()
	for round := range kills + 1 {
		k := startKillable(t, dir)
		c := k.client()
		if round == 0 {
			for _, b := range []*string{objectsBucket, versionsBucket} {
				_, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: b})
				ok(t, err)
			}
			_, err := c.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: versionsBucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
			ok(t, err)
			put(t, c, objectsBucket, "counter", "0")
		}
		var all sync.WaitGroup
		for _, w := range workers {
			w.c = k.client()
			all.Go(func() { w.check(ctx) })
		}
		all.Wait()
		var n int
		_, err := fmt.Sscan(get(t, c, objectsBucket, "counter"), &n)
		ok(t, err)
		least, most := 0, 0
		for _, w := range workers {
			least, most = least+w.added, most+w.added+w.maybe
		}
		if n < least || n > most {
			t.Errorf("the counter is %d, want from %d to %d", n, least, most)
		}
		if round == kills || t.Failed() {
			ok(t, k.stdin.Close())
			ok(t, k.cmd.Wait())
			break
		}
		for _, w := range workers {
			all.Go(func() {
				for w.step(ctx) {
				}
			})
		}
		wait := time.NewTimer(time.Duration(50+random.IntN(700)) * time.Millisecond)
		<-wait.C
		k.kill(t)
		all.Wait()
	}
	done := 0
	for _, w := range workers {
		done += w.n
	}
	t.Logf("%d texts were put", done)
	if done < kills {
		t.Errorf("only %d texts were put", done)
	}
}

// A client that goes away in the middle of a put leaves nothing, and hurts nobody.
func TestAPutThatBreaksOffLeavesNothing(t *testing.T) {
	s := start(t)
	c, b := s.client(), bucket(t, s)
	put(t, c, b, "x", "before")
	for _, size := range []int64{1, 100_000, 3 << 20} {
		body := io.MultiReader(bytes.NewReader(some(int(size), 1)), brokenReader{})
		_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: b, Key: aws.String("x"), Body: body, ContentLength: aws.Int64(size + 1000)}, s3.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware), func(o *s3.Options) {
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		})
		if err == nil {
			t.Fatal("a put that broke off was acknowledged")
		}
	}
	equal(t, "the object", get(t, c, b, "x"), "before")
	equal(t, "the keys", strings.Join(keys(t, c, &s3.ListObjectsV2Input{Bucket: b}), " "), "x")
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }
