package dynamodb

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// Buckets are where tables are exported to and imported from. Methods may be called
// by any goroutine.
type Buckets interface {
	// Allow reports whether a principal may read, or write to, a bucket.
	Allow(principal, bucket string, write bool) bool
	// Put writes an object. It is there once r has ended without an error.
	// A bucket that there is not is ErrNotFound.
	Put(ctx context.Context, bucket, key string, r io.Reader) error
	// Get opens an object.
	Get(ctx context.Context, bucket, key string) (io.ReadCloser, error)
	// List returns the keys that begin with a prefix, in their order, up to a limit.
	// A bucket that there is not is ErrNotFound.
	List(ctx context.Context, bucket, prefix string, limit int) ([]string, error)
	// Restore makes a bucket, target, of what another one was at a time. If there is a
	// target it is ErrExists, before there was a bucket it is ErrTooEarly.
	Restore(ctx context.Context, bucket, target string, at time.Time) error
}

// ErrExists is what [Buckets] say of a bucket that there is already.
var ErrExists = errors.New("there is one already")

// A transfer is what the catalog has of an export or an import.
type transfer struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Table   string `json:"table"`
	Tree    string `json:"tree"`
	Time    int64  `json:"time"` // of the table that is exported
	Start   int64  `json:"start"`
	End     int64  `json:"end,omitempty"`
	Status  string `json:"status"`
	Bucket  string `json:"bucket"`
	Prefix  string `json:"prefix,omitempty"`
	Token   string `json:"token,omitempty"`
	Items   int64  `json:"items"`
	Bytes   int64  `json:"bytes"`
	Errors  int64  `json:"errors,omitempty"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	Packed  string `json:"packed,omitempty"` // how what is imported is
}

func transferKey(kind byte, id string) []byte { return append([]byte{kind}, id...) }

func (d *Door) exportArn(e *transfer) string { return d.arn(e.Table) + "/export/" + e.ID }
func (d *Door) importArn(e *transfer) string { return d.arn(e.Table) + "/import/" + e.ID }

// keep writes a transfer into the catalog.
func (d *Door) keep(ctx context.Context, kind byte, e *transfer) error {
	d.catalog.mu.Lock()
	defer d.catalog.mu.Unlock()
	return d.catalog.change(ctx, [][]byte{transferKey(kind, e.ID)}, []any{e})
}

// eachTransfer calls f for all transfers of a kind until it returns false.
func (d *Door) eachTransfer(ctx context.Context, kind byte, from string, f func(*transfer) bool) error {
	return d.catalog.each(ctx, kind, from, func(id string, text []byte) (bool, error) {
		e := new(transfer)
		if err := json.Unmarshal(text, e); err != nil {
			return false, fmt.Errorf("read transfer %s: %w", id, err)
		}
		return f(e), nil
	})
}

// begin keeps a transfer and does it, after the request was answered.
func (d *Door) begin(ctx context.Context, kind byte, e *transfer, do func(ctx context.Context, e *transfer) error) error {
	if err := d.keep(ctx, kind, e); err != nil {
		return err
	}
	if !d.enter() {
		return errors.New("the door is closed")
	}
	run := *e
	go func() {
		defer d.busy.Done()
		err := do(d.ctx, &run)
		run.End, run.Status = millis(d.o.Clock.Now()), "COMPLETED"
		if err != nil {
			run.Status, run.Code, run.Message = "FAILED", "InternalError", "Internal server error"
			if e := new(Error); errors.As(err, &e) {
				run.Code, run.Message = e.Type, e.Message
			} else {
				d.o.Log.Error("transfer failed", "transfer", run.ID, "err", err)
			}
		}
		// What the end of the door has cut short is told, too.
		if err := d.keep(context.WithoutCancel(d.ctx), kind, &run); err != nil {
			d.o.Log.Error("transfer was not noted", "transfer", run.ID, "err", err)
		}
	}()
	return nil
}

// interrupted notes the transfers that a crash has cut short.
func (d *Door) interrupted(ctx context.Context) error {
	for _, kind := range []byte{catExport, catImport} {
		var all []*transfer
		if err := d.eachTransfer(ctx, kind, "", func(e *transfer) bool {
			if e.Status == "IN_PROGRESS" {
				all = append(all, e)
			}
			return true
		}); err != nil {
			return err
		}
		for _, e := range all {
			e.Status, e.Code, e.Message, e.End = "FAILED", "Interrupted", "The node ended meanwhile", millis(d.o.Clock.Now())
			if err := d.keep(ctx, kind, e); err != nil {
				return err
			}
		}
	}
	return nil
}

var (
	exportShape = []field{must(str("TableArn")), must(str("S3Bucket")), {"ExportTime", shape{kind: kDouble}}, str("ClientToken"), str("S3BucketOwner"),
		str("S3Prefix"), enum("S3SseAlgorithm", "AES256", "KMS"), str("S3SseKmsKeyId"), enum("ExportFormat", "DYNAMODB_JSON", "ION"),
		enum("ExportType", "FULL_EXPORT", "INCREMENTAL_EXPORT")}
	oneExportShape   = []field{must(str("ExportArn"))}
	listExportsShape = []field{str("TableArn"), {"MaxResults", shape{kind: kInteger, minValue: ptr(1), maxValue: ptr(25)}}, str("NextToken")}
)

// checkBuckets refuses what needs buckets where there are none.
func (d *Door) checkBuckets() error {
	if d.o.Buckets == nil {
		return invalid("There are no buckets here to export to or import from")
	}
	return nil
}

func (d *Door) exportTable(ctx context.Context, r *request) ([]byte, error) {
	if err := d.checkBuckets(); err != nil {
		return nil, err
	}
	switch {
	case r.str("ExportFormat") == "ION":
		return nil, invalid("ExportFormat ION is not supported: only DYNAMODB_JSON is")
	case r.str("ExportType") == "INCREMENTAL_EXPORT":
		return nil, invalid("ExportType INCREMENTAL_EXPORT is not supported: only FULL_EXPORT is")
	}
	name := strings.TrimPrefix(r.str("TableArn"), d.arn(""))
	t, err := d.useForBackups(ctx, name)
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	s, now := t.now.Load(), d.o.Clock.Now()
	if s.Recovery == 0 {
		return nil, &Error{Type: "PointInTimeRecoveryUnavailableException", Message: "Point in time recovery is not enabled for table '" + name + "'"}
	}
	at := now
	if n := r.Get("ExportTime"); n != nil {
		at = time.UnixMilli(int64(n.Num * 1000))
	}
	if at.Before(time.UnixMilli(s.Created)) || at.After(now) {
		return nil, &Error{Type: "InvalidExportTimeException", Message: "The export time must be between the creation of the table and now"}
	}
	e := &transfer{Version: schemaVersion, ID: fmt.Sprintf("%014d-%s", millis(now), newID()[:8]), Table: name, Tree: t.id, Time: millis(at),
		Start: millis(now), Status: "IN_PROGRESS", Bucket: r.str("S3Bucket"), Prefix: r.str("S3Prefix"), Token: r.str("ClientToken")}
	if have, err := d.sameTransfer(ctx, catExport, e); err != nil || have != nil {
		if err != nil {
			return nil, err
		}
		return d.describeExportAs(have)
	}
	if err := d.begin(ctx, catExport, e, d.export); err != nil {
		return nil, fmt.Errorf("begin export: %w", err)
	}
	return d.describeExportAs(e)
}

// sameTransfer returns the transfer that has the token of another.
func (d *Door) sameTransfer(ctx context.Context, kind byte, e *transfer) (same *transfer, err error) {
	if e.Token == "" {
		return nil, nil
	}
	err = d.eachTransfer(ctx, kind, "", func(have *transfer) bool {
		if have.Token == e.Token {
			same = have
		}
		return same == nil
	})
	if same != nil && (same.Table != e.Table || same.Bucket != e.Bucket || same.Prefix != e.Prefix) {
		return nil, &Error{Type: "ExportConflictException", Message: "There was a conflict when writing to the specified S3 bucket: the token was used for another request"}
	}
	return same, err
}

func (d *Door) describeExportAs(e *transfer) ([]byte, error) {
	var in, o object
	in.str("ExportArn", d.exportArn(e))
	in.str("ExportStatus", e.Status)
	in.raw("StartTime", []byte(seconds(e.Start)))
	if e.End != 0 {
		in.raw("EndTime", []byte(seconds(e.End)))
	}
	if e.Status == "COMPLETED" {
		in.str("ExportManifest", e.folder()+"manifest-summary.json")
		in.raw("BilledSizeBytes", []byte(itoa(int(e.Bytes))))
		in.raw("ItemCount", []byte(itoa(int(e.Items))))
	}
	in.str("TableArn", d.arn(e.Table))
	in.str("TableId", uuid(e.Tree))
	in.raw("ExportTime", []byte(seconds(e.Time)))
	if e.Token != "" {
		in.str("ClientToken", e.Token)
	}
	in.str("S3Bucket", e.Bucket)
	if e.Prefix != "" {
		in.str("S3Prefix", e.Prefix)
	}
	in.str("S3SseAlgorithm", "AES256")
	if e.Code != "" {
		in.str("FailureCode", e.Code)
		in.str("FailureMessage", e.Message)
	}
	in.str("ExportFormat", "DYNAMODB_JSON")
	in.str("ExportType", "FULL_EXPORT")
	o.raw("ExportDescription", in.end())
	return o.end(), nil
}

// transferOf returns the transfer that an ARN names.
func (d *Door) transferOf(ctx context.Context, kind byte, arn, word string, named func(*transfer) string) (*transfer, error) {
	_, id, _ := strings.Cut(arn, "/"+strings.ToLower(word)+"/")
	e := new(transfer)
	err := d.catalog.get(ctx, transferKey(kind, id), e)
	if errors.Is(err, ErrNotFound) || err == nil && named(e) != arn {
		return nil, &Error{Type: word + "NotFoundException", Message: word + " not found: " + arn}
	}
	return e, err
}

func (d *Door) describeExport(ctx context.Context, r *request) ([]byte, error) {
	e, err := d.transferOf(ctx, catExport, r.str("ExportArn"), "Export", d.exportArn)
	if err != nil {
		return nil, err
	}
	return d.describeExportAs(e)
}

// listTransfers returns a page of transfers, and what comes after it.
func (d *Door) listTransfers(ctx context.Context, kind byte, r *request, most string) (page []*transfer, next string, err error) {
	limit := 25
	if r.has(most) {
		limit = r.int(most)
	}
	name := strings.TrimPrefix(r.str("TableArn"), d.arn(""))
	err = d.eachTransfer(ctx, kind, r.str("NextToken"), func(e *transfer) bool {
		if r.has("TableArn") && e.Table != name {
			return true
		}
		if len(page) == limit {
			next = page[limit-1].ID
			return false
		}
		page = append(page, e)
		return true
	})
	return page, next, err
}

func (d *Door) listExports(ctx context.Context, r *request) ([]byte, error) {
	page, next, err := d.listTransfers(ctx, catExport, r, "MaxResults")
	if err != nil {
		return nil, err
	}
	type summary struct{ ExportArn, ExportStatus, ExportType string }
	list := []summary{}
	for _, e := range page {
		list = append(list, summary{d.exportArn(e), e.Status, "FULL_EXPORT"})
	}
	var o object
	err = o.any("ExportSummaries", list)
	if next != "" {
		o.str("NextToken", next)
	}
	return o.end(), err
}

// folder is what the keys of the objects of an export begin with.
func (e *transfer) folder() string {
	prefix := strings.Trim(e.Prefix, "/")
	if prefix != "" {
		prefix += "/"
	}
	return prefix + "AWSDynamoDB/" + e.ID + "/"
}

// A dataFile is what a manifest says of an object with items.
type dataFile struct {
	ItemCount     int64  `json:"itemCount"`
	MD5           string `json:"md5Checksum"`
	ETag          string `json:"etag"`
	DataFileS3Key string `json:"dataFileS3Key"`
}

// fileBytes is how many bytes of JSON go into one object, about.
const fileBytes = 256 << 20

// export writes a table, as it was, into a bucket: items as lines of JSON in
// objects that gzip has packed, and manifests that name them.
func (d *Door) export(ctx context.Context, e *transfer) (err error) {
	tree, release, err := d.treeOf(ctx, e.Table, e.Tree)
	if err != nil {
		return err
	}
	defer release()
	view, err := tree.At(ctx, time.UnixMilli(e.Time))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	if err := d.putText(ctx, e, "_started", nil); err != nil {
		return err
	}
	next := hyperbee.RangeOptions{Gte: []byte{keyItem}, Lt: []byte{keyItem + 1}}
	var files []dataFile
	for more := true; more; {
		f := dataFile{DataFileS3Key: e.folder() + "data/" + newID()[:26] + ".json.gz"}
		if more, err = d.exportFile(ctx, e, &f, view, &next); err != nil {
			return err
		}
		files = append(files, f)
	}
	var list strings.Builder
	for _, f := range files {
		b, err := json.Marshal(f)
		if err != nil {
			return err
		}
		list.Write(append(b, '\n'))
	}
	stamp := func(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
	summary, err := json.Marshal(map[string]any{
		"version": "2020-06-30", "exportArn": d.exportArn(e), "startTime": stamp(e.Start), "endTime": stamp(millis(d.o.Clock.Now())),
		"tableArn": d.arn(e.Table), "tableId": uuid(e.Tree), "exportTime": stamp(e.Time), "s3Bucket": e.Bucket, "s3Prefix": orNull(e.Prefix),
		"s3SseAlgorithm": "AES256", "s3SseKmsKeyId": nil, "manifestFilesS3Key": e.folder() + "manifest-files.json",
		"billedSizeBytes": e.Bytes, "itemCount": e.Items, "outputFormat": "DYNAMODB_JSON", "exportType": "FULL_EXPORT",
	})
	if err != nil {
		return err
	}
	for _, m := range []struct{ name, text string }{{"manifest-files", list.String()}, {"manifest-summary", string(summary)}} {
		sum := md5.Sum([]byte(m.text))
		if err := errors.Join(
			d.putText(ctx, e, m.name+".md5", []byte(base64.StdEncoding.EncodeToString(sum[:]))),
			d.putText(ctx, e, m.name+".json", []byte(m.text))); err != nil {
			return err
		}
	}
	return nil
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (d *Door) putText(ctx context.Context, e *transfer, name string, text []byte) error {
	return d.put(ctx, e, e.folder()+name, strings.NewReader(string(text)))
}

func (d *Door) put(ctx context.Context, e *transfer, key string, r io.Reader) error {
	err := d.o.Buckets.Put(ctx, e.Bucket, key, r)
	if errors.Is(err, ErrNotFound) {
		return &Error{Type: "S3NoSuchBucket", Message: "The specified bucket does not exist: " + e.Bucket}
	}
	return err
}

// exportFile writes the next items into one object, and reports whether there are
// more.
func (d *Door) exportFile(ctx context.Context, e *transfer, f *dataFile, from Reader, next *hyperbee.RangeOptions) (more bool, err error) {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		var bytes int
		sum := md5.New()
		packed := gzip.NewWriter(io.MultiWriter(w, sum))
		err := func() error {
			for entry, err := range from.Range(ctx, *next) {
				if err != nil {
					return err
				}
				if more = bytes >= fileBytes; more {
					return nil
				}
				next.Gt, next.Gte = entry.Key, nil
				size, _, text, err := stored(entry.Value).split()
				if err != nil {
					return err
				}
				line := append(append(append(make([]byte, 0, len(text)+16), `{"Item":`...), text...), '}', '\n')
				if _, err := packed.Write(line); err != nil {
					return err
				}
				bytes += len(line)
				f.ItemCount++
				e.Items++
				e.Bytes += int64(size)
			}
			return nil
		}()
		err = errors.Join(err, packed.Close())
		f.MD5 = base64.StdEncoding.EncodeToString(sum.Sum(nil))
		f.ETag = hex.EncodeToString(sum.Sum(nil))
		w.CloseWithError(err)
		done <- err
	}()
	err = d.put(ctx, e, f.DataFileS3Key, r)
	r.CloseWithError(io.ErrClosedPipe) // the other side ends, too, if nobody reads on
	if ended := <-done; err == nil {
		err = ended
	}
	return more, err
}

// Importing.

var (
	tableParameters = fieldStruct("TableCreationParameters", "TableCreationParameters", must(definitions), table2, billing, throughput,
		must(list("KeySchema", structOf("KeySchemaElement", must(str("AttributeName")), must(enum("KeyType", "HASH", "RANGE"))))),
		list("GlobalSecondaryIndexes", structOf("GlobalSecondaryIndex", indexName, globalKeys, projection, throughput)))
	importShape = []field{must(enum("InputFormat", "DYNAMODB_JSON", "ION", "CSV")), enum("InputCompressionType", "GZIP", "ZSTD", "NONE"), str("ClientToken"),
		must(fieldStruct("S3BucketSource", "S3BucketSource", must(str("S3Bucket")), str("S3KeyPrefix"), str("S3BucketOwner"))), must(tableParameters)}
	oneImportShape   = []field{must(str("ImportArn"))}
	listImportsShape = []field{str("TableArn"), {"PageSize", shape{kind: kInteger, minValue: ptr(1), maxValue: ptr(25)}}, str("NextToken")}
)

func checkImport(r *request) error {
	return checkCreateTable(&request{Node: r.Get("TableCreationParameters")})
}

func (d *Door) importTable(ctx context.Context, r *request) ([]byte, error) {
	if err := d.checkBuckets(); err != nil {
		return nil, err
	}
	if r.str("InputFormat") != "DYNAMODB_JSON" || r.str("InputCompressionType") == "ZSTD" {
		return nil, invalid("Only DYNAMODB_JSON, as it is or packed by GZIP, can be imported")
	}
	s := d.schemaOf(&request{Node: r.Get("TableCreationParameters")})
	source, now := r.Get("S3BucketSource"), d.o.Clock.Now()
	e := &transfer{Version: schemaVersion, ID: fmt.Sprintf("%014d-%s", millis(now), newID()[:8]), Table: s.Name, Tree: s.ID, Start: millis(now), Status: "IN_PROGRESS",
		Bucket: source.Get("S3Bucket").Str, Prefix: source.Get("S3KeyPrefix").String(), Token: r.str("ClientToken"), Packed: r.str("InputCompressionType")}
	if have, err := d.sameTransfer(ctx, catImport, e); err != nil || have != nil {
		if err != nil {
			return nil, err
		}
		return d.describeImportAs(have)
	}
	if _, err := d.catalog.tree.Get(ctx, tableKey(s.Name)); err == nil {
		return nil, inUse("Table already exists: " + s.Name)
	}
	if err := d.begin(ctx, catImport, e, func(ctx context.Context, e *transfer) error {
		return d.makeTable(ctx, s, func(t *table) error { return d.importInto(ctx, e, t) })
	}); err != nil {
		return nil, fmt.Errorf("begin import: %w", err)
	}
	return d.describeImportAs(e)
}

// maxImport is how many objects an import may have.
const maxImport = 50000

// importInto puts the items of all objects into a new table.
func (d *Door) importInto(ctx context.Context, e *transfer, t *table) error {
	keys, err := d.o.Buckets.List(ctx, e.Bucket, e.Prefix, maxImport+1)
	if errors.Is(err, ErrNotFound) {
		return &Error{Type: "S3NoSuchBucket", Message: "The specified bucket does not exist: " + e.Bucket}
	}
	if err != nil {
		return err
	}
	if len(keys) > maxImport {
		return invalid("The prefix names more than 50000 objects")
	}
	for _, key := range keys {
		if err := d.importObject(ctx, e, t, key); err != nil {
			return fmt.Errorf("import %s: %w", key, err)
		}
	}
	return nil
}

// importObject puts the items of one object, which are lines.
func (d *Door) importObject(ctx context.Context, e *transfer, t *table, key string) (err error) {
	object, err := d.o.Buckets.Get(ctx, e.Bucket, key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, object.Close()) }()
	var text io.Reader = object
	if e.Packed == "GZIP" {
		if text, err = gzip.NewReader(object); err != nil {
			return invalid("An object is not packed by gzip: " + key)
		}
	}
	lines := bufio.NewScanner(text)
	lines.Buffer(make([]byte, 64<<10), 4<<20)
	var some []item.Item
	write := func() error {
		err := t.putAll(ctx, e, some)
		some = some[:0]
		return err
	}
	for lines.Scan() {
		if len(strings.TrimSpace(lines.Text())) == 0 {
			continue
		}
		e.Bytes += int64(len(lines.Bytes()))
		i, ok := importLine(lines.Bytes())
		if !ok {
			e.Errors++
			continue
		}
		if some = append(some, i); len(some) == fillAtOnce/10 {
			if err := write(); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return invalid("An object can't be read: " + key + ": " + err.Error())
	}
	return write()
}

// importLine reads an item, or reports that it makes none.
func importLine(line []byte) (item.Item, bool) {
	root, ok := item.Parse(line)
	if !ok || root.Get("Item") == nil {
		return nil, false
	}
	n := root.Get("Item")
	of := shape{kind: kMap, name: "AttributeValue", of: &value}
	if _, err := of.check(n); err != nil || n.Check() != "" {
		return nil, false
	}
	i := n.Item()
	return i, checkSize(i) == nil
}

// putAll puts items; those that don't fit the table are counted.
func (t *table) putAll(ctx context.Context, e *transfer, items []item.Item) error {
	return t.write(ctx, func(x *tx) error {
		for _, i := range items {
			if x.s.checkItem(i) != nil {
				e.Errors++
				continue
			}
			key := x.s.itemKey(i)
			old, err := x.get(key)
			if err != nil {
				return err
			}
			if err := x.apply(change{key: key, old: old, now: i}); err != nil {
				return err
			}
			e.Items++
		}
		return nil
	})
}

func (d *Door) describeImportAs(e *transfer) ([]byte, error) {
	var source, in, o object
	source.str("S3Bucket", e.Bucket)
	if e.Prefix != "" {
		source.str("S3KeyPrefix", e.Prefix)
	}
	in.str("ImportArn", d.importArn(e))
	in.str("ImportStatus", e.Status)
	in.str("TableArn", d.arn(e.Table))
	in.str("TableId", uuid(e.Tree))
	if e.Token != "" {
		in.str("ClientToken", e.Token)
	}
	in.raw("S3BucketSource", source.end())
	in.raw("ErrorCount", []byte(itoa(int(e.Errors))))
	in.str("InputFormat", "DYNAMODB_JSON")
	if e.Packed != "" {
		in.str("InputCompressionType", e.Packed)
	}
	in.raw("StartTime", []byte(seconds(e.Start)))
	if e.End != 0 {
		in.raw("EndTime", []byte(seconds(e.End)))
	}
	in.raw("ProcessedSizeBytes", []byte(itoa(int(e.Bytes))))
	in.raw("ProcessedItemCount", []byte(itoa(int(e.Items+e.Errors))))
	in.raw("ImportedItemCount", []byte(itoa(int(e.Items))))
	if e.Code != "" {
		in.str("FailureCode", e.Code)
		in.str("FailureMessage", e.Message)
	}
	o.raw("ImportTableDescription", in.end())
	return o.end(), nil
}

func (d *Door) describeImport(ctx context.Context, r *request) ([]byte, error) {
	e, err := d.transferOf(ctx, catImport, r.str("ImportArn"), "Import", d.importArn)
	if err != nil {
		return nil, err
	}
	return d.describeImportAs(e)
}

func (d *Door) listImports(ctx context.Context, r *request) ([]byte, error) {
	page, next, err := d.listTransfers(ctx, catImport, r, "PageSize")
	if err != nil {
		return nil, err
	}
	list := []byte{'['}
	for i, e := range page {
		if i > 0 {
			list = append(list, ',')
		}
		var in object
		in.str("ImportArn", d.importArn(e))
		in.str("ImportStatus", e.Status)
		in.str("TableArn", d.arn(e.Table))
		in.str("InputFormat", "DYNAMODB_JSON")
		in.raw("StartTime", []byte(seconds(e.Start)))
		if e.End != 0 {
			in.raw("EndTime", []byte(seconds(e.End)))
		}
		list = append(list, in.end()...)
	}
	var o object
	o.raw("ImportSummaryList", append(list, ']'))
	if next != "" {
		o.str("NextToken", next)
	}
	return o.end(), nil
}
