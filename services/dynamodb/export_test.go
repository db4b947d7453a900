package dynamodb

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// someBuckets is one bucket, in memory.
type someBuckets struct {
	mu      sync.Mutex
	objects map[string][]byte
}

func (b *someBuckets) Allow(_, bucket string, _ bool) bool { return bucket != "secret" }

func (b *someBuckets) Put(_ context.Context, bucket, key string, r io.Reader) error {
	if bucket != "bucket" {
		return ErrNotFound
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects[key] = text
	return nil
}

func (b *someBuckets) Get(_ context.Context, _, key string) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return io.NopCloser(bytes.NewReader(b.objects[key])), nil
}

func (b *someBuckets) List(_ context.Context, bucket, prefix string, limit int) (out []string, err error) {
	if bucket != "bucket" {
		return nil, ErrNotFound
	}
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		if strings.HasPrefix(key, prefix) && len(out) < limit {
			out = append(out, key)
		}
	}
	return out, nil
}

func (b *someBuckets) Restore(_ context.Context, bucket, target string, at time.Time) error {
	switch {
	case bucket != "bucket":
		return ErrNotFound
	case target == "bucket":
		return ErrExists
	case at.Before(epoch):
		return ErrTooEarly
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects["restored"] = []byte(target)
	return nil
}

const peopleArn = "arn:aws:dynamodb:us-east-1:000000000000:table/people"

func TestTablesAreExportedAndImported(t *testing.T) {
	r := newRig(t)
	buckets := &someBuckets{objects: map[string][]byte{}}
	r.door.o.Buckets = buckets
	r.ok("CreateTable", simpleTable("people"))
	export := func(more string) string {
		_, text := r.do("ExportTableToPointInTime", `{"TableArn":"`+peopleArn+`","S3Bucket":"bucket","S3Prefix":"some/where/"`+more+`}`)
		r.door.busy.Wait()
		return text
	}
	if got := export(""); !strings.Contains(got, "PointInTimeRecoveryUnavailableException") {
		t.Errorf("without recovery: %s", got)
	}
	r.ok("UpdateContinuousBackups", `{"TableName":"people","PointInTimeRecoverySpecification":{"PointInTimeRecoveryEnabled":true}}`)
	for i := range 30 {
		r.ok("PutItem", fmt.Sprintf(`{"TableName":"people","Item":{"a":{"S":"k%d"},"b":{"L":[{"N":"%d"}]}}}`, i, i))
	}
	at := r.clock.Now()
	r.clock.Advance(time.Minute)
	r.ok("DeleteItem", `{"TableName":"people","Key":{"a":{"S":"k7"}}}`)

	text := export(fmt.Sprintf(`,"ExportTime":%d,"ClientToken":"t"`, at.Unix()+1))
	var begun struct {
		ExportDescription struct{ ExportArn, ExportStatus, ExportManifest string }
	}
	if err := json.Unmarshal([]byte(text), &begun); err != nil || begun.ExportDescription.ExportStatus != "IN_PROGRESS" {
		t.Fatalf("export: %s %v", text, err)
	}
	if again := export(fmt.Sprintf(`,"ExportTime":%d,"ClientToken":"t"`, at.Unix()+1)); !strings.Contains(again, begun.ExportDescription.ExportArn) {
		t.Errorf("the same token again: %s", again)
	}
	_, text = r.do("DescribeExport", `{"ExportArn":"`+begun.ExportDescription.ExportArn+`"}`)
	if err := json.Unmarshal([]byte(text), &begun); err != nil || begun.ExportDescription.ExportStatus != "COMPLETED" || !strings.Contains(text, `"ItemCount":30,`) {
		t.Fatalf("described: %s", text)
	}
	if _, text := r.do("ListExports", `{"TableArn":"`+peopleArn+`"}`); !strings.Contains(text, begun.ExportDescription.ExportArn) {
		t.Errorf("listed: %s", text)
	}
	var summary struct {
		ManifestFilesS3Key string
		ItemCount          int
	}
	var file dataFile
	if err := json.Unmarshal(buckets.objects[begun.ExportDescription.ExportManifest], &summary); err != nil || summary.ItemCount != 30 {
		t.Fatalf("summary: %+v %v", summary, err)
	}
	if err := json.Unmarshal(buckets.objects[summary.ManifestFilesS3Key], &file); err != nil || file.ItemCount != 30 {
		t.Fatalf("manifest: %+v %v", file, err)
	}
	in, err := gzip.NewReader(bytes.NewReader(buckets.objects[file.DataFileS3Key]))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := io.ReadAll(in)
	if err != nil || bytes.Count(lines, []byte("\n")) != 30 || !strings.Contains(string(lines), `{"Item":{"a":{"S":"k7"},"b":{"L":[{"N":"7"}]}}}`+"\n") {
		t.Fatalf("exported: %s %v", lines, err)
	}

	// What was exported makes a table again, without what makes no sense.
	buckets.objects["in/a"] = append(lines, "{\"Item\":{\"a\":{\"N\":\"1\"}}}\nnonsense\n\n"...)
	r.ok("ImportTable", `{"InputFormat":"DYNAMODB_JSON","S3BucketSource":{"S3Bucket":"bucket","S3KeyPrefix":"in/"},"TableCreationParameters":`+simpleTable("copy")+`}`)
	r.door.busy.Wait()
	if _, text := r.do("ListImports", `{}`); !strings.Contains(text, `"ImportStatus":"COMPLETED"`) {
		t.Errorf("listed: %s", text)
	}
	if n := r.count(`{"TableName":"copy"}`); n != 30 {
		t.Errorf("%v items were imported", n)
	}
	_, text = r.do("GetItem", `{"TableName":"copy","Key":{"a":{"S":"k7"}}}`)
	if text != `{"Item":{"a":{"S":"k7"},"b":{"L":[{"N":"7"}]}}}` {
		t.Errorf("imported: %s", text)
	}
}

func TestExportsThatFailSayWhy(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", simpleTable("people"))
	r.ok("UpdateContinuousBackups", `{"TableName":"people","PointInTimeRecoverySpecification":{"PointInTimeRecoveryEnabled":true}}`)
	body := `{"TableArn":"` + peopleArn + `","S3Bucket":"none"}`
	if _, text := r.do("ExportTableToPointInTime", body); !strings.Contains(text, "There are no buckets here") {
		t.Errorf("without buckets: %s", text)
	}
	r.door.o.Buckets = &someBuckets{objects: map[string][]byte{}}
	r.ok("ExportTableToPointInTime", body)
	r.door.busy.Wait()
	var arn string
	if err := r.door.eachTransfer(t.Context(), catExport, "", func(e *transfer) bool { arn = r.door.exportArn(e); return false }); err != nil {
		t.Fatal(err)
	}
	if _, text := r.do("DescribeExport", `{"ExportArn":"`+arn+`"}`); !strings.Contains(text, `"ExportStatus":"FAILED"`) || !strings.Contains(text, "S3NoSuchBucket") {
		t.Errorf("described: %s", text)
	}
	for body, want := range map[string]string{
		`{"ExportArn":"` + arn + `0"}`: "ExportNotFoundException",
	} {
		if _, text := r.do("DescribeExport", body); !strings.Contains(text, want) {
			t.Errorf("%s: %s", body, text)
		}
	}
	if _, text := r.do("ExportTableToPointInTime", `{"TableArn":"`+peopleArn+`","S3Bucket":"bucket","ExportTime":5}`); !strings.Contains(text, "InvalidExportTimeException") {
		t.Errorf("too early: %s", text)
	}
}

func TestExportsThatACrashCutShortHaveFailed(t *testing.T) {
	c := clock.NewFake(epoch)
	trees, err := NewMemory(c)
	if err != nil {
		t.Fatal(err)
	}
	defer trees.Close()
	door, err := New(t.Context(), Options{Trees: trees, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	if err := door.keep(t.Context(), catExport, &transfer{Version: 1, ID: "1-a", Table: "people", Status: "IN_PROGRESS"}); err != nil {
		t.Fatal(err)
	}
	if err := door.Close(); err != nil {
		t.Fatal(err)
	}
	r := rigOn(t, trees, c)
	if _, text := r.do("DescribeExport", `{"ExportArn":"`+peopleArn+`/export/1-a"}`); !strings.Contains(text, `"FailureCode":"Interrupted"`) {
		t.Errorf("described: %s", text)
	}
}

func TestFilesAreRestoredAsTablesAre(t *testing.T) {
	r := newRig(t)
	restore := func(from, to string, at int64) string {
		_, body := r.do("RestoreTableToPointInTime", fmt.Sprintf(`{"SourceTableArn":"arn:aws:s3:::%s","TargetTableName":%q,"RestoreDateTime":%d}`, from, to, at))
		return body
	}
	if body := restore("bucket", "then", epoch.Unix()); !strings.Contains(body, "There are no buckets here") {
		t.Errorf("got %s", body)
	}
	buckets := &someBuckets{objects: map[string][]byte{}}
	r.door.o.Buckets = buckets
	for _, c := range []struct {
		from, to string
		at       int64
		want     string
	}{
		{"bucket", "then", 0, `"TableArn":"arn:aws:s3:::then"`}, {"none", "then", 0, "TableNotFoundException"}, {"bucket", "bucket", 0, "TableAlreadyExistsException"},
		{"bucket", "then", -1, "InvalidRestoreTimeException"}, {"bucket", "then", 9, "InvalidRestoreTimeException"},
	} {
		if body := restore(c.from, c.to, epoch.Unix()+c.at); !strings.Contains(body, c.want) {
			t.Errorf("restore %s to %s at %d: %s", c.from, c.to, c.at, body)
		}
	}
	if string(buckets.objects["restored"]) != "then" {
		t.Errorf("%q was restored", buckets.objects["restored"])
	}
	// It needs the right to read the one bucket and to write to the other.
	r.door.o.Allow = func(string, string, bool) bool { return true }
	for body, want := range map[string]bool{
		`{"SourceTableArn":"arn:aws:s3:::bucket","TargetTableName":"then"}`:   true,
		`{"SourceTableArn":"arn:aws:s3:::secret","TargetTableName":"then"}`:   false,
		`{"SourceTableArn":"arn:aws:s3:::bucket","TargetTableName":"secret"}`: false,
	} {
		root, _ := item.Parse([]byte(body))
		if err := r.door.allowed("p", "RestoreTableToPointInTime", root); (err == nil) != want {
			t.Errorf("%s: %v", body, err)
		}
	}
}
