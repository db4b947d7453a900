package dynamodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// Backups cost nothing: the log of a table's tree has all that ever was. A backup
// is a note of the time, by which the tree is kept when the table is deleted.

// A backup is what the catalog has of one.
type backup struct {
	Version int     `json:"version"`
	ID      string  `json:"id"`
	Name    string  `json:"name"`
	Table   string  `json:"table"`
	Tree    string  `json:"tree"`
	Time    int64   `json:"time"`
	Bytes   int64   `json:"bytes"`
	Items   int64   `json:"items"`
	Schema  *schema `json:"schema"`
}

func backupKey(id string) []byte { return append([]byte{catBackup}, id...) }

func (d *Door) backupArn(b *backup) string { return d.arn(b.Table) + "/backup/" + b.ID }

// eachBackup calls f for all backups until it returns false.
func (d *Door) eachBackup(ctx context.Context, f func(*backup) bool) error {
	return d.catalog.each(ctx, catBackup, "", func(id string, text []byte) (bool, error) {
		b := new(backup)
		if err := json.Unmarshal(text, b); err != nil {
			return false, fmt.Errorf("read backup %s: %w", id, err)
		}
		return f(b), nil
	})
}

// hasBackups reports whether there are backups of a tree.
func (d *Door) hasBackups(ctx context.Context, id string) (found bool, err error) {
	err = d.eachBackup(ctx, func(b *backup) bool {
		found = b.Tree == id
		return !found
	})
	return found, err
}

// backupOf returns the backup that an ARN names.
func (d *Door) backupOf(ctx context.Context, arn string) (*backup, error) {
	_, id, _ := strings.Cut(arn, "/backup/")
	b := new(backup)
	err := d.catalog.get(ctx, backupKey(id), b)
	if errors.Is(err, ErrNotFound) || err == nil && d.backupArn(b) != arn {
		return nil, &Error{Type: "BackupNotFoundException", Message: "Backup not found: " + arn}
	}
	return b, err
}

var (
	backupName        = field{"BackupName", shape{kind: kString, notNull: true, name3: true, minLen: 3, maxLen: 255}}
	createBackupShape = []field{backupName, table2}
	oneBackupShape    = []field{must(str("BackupArn"))}
	listBackupsShape  = []field{nameOf("TableName"), {"Limit", shape{kind: kInteger, minValue: ptr(1), maxValue: ptr(100)}},
		str("ExclusiveStartBackupArn"), str("BackupType"), {"TimeRangeLowerBound", shape{kind: kDouble}}, {"TimeRangeUpperBound", shape{kind: kDouble}}}
	billingOverride    = enum("BillingModeOverride", "PROVISIONED", "PAY_PER_REQUEST")
	localOverride      = list("LocalSecondaryIndexOverride", structOf("LocalSecondaryIndex", indexName, indexKeys, projection))
	globalOverride     = list("GlobalSecondaryIndexOverride", structOf("GlobalSecondaryIndex", indexName, globalKeys, projection, throughput))
	unitsOverride      = fieldStruct("ProvisionedThroughputOverride", "ProvisionedThroughput", throughputFields...)
	restoreBackupShape = []field{must(str("BackupArn")), must(nameOf("TargetTableName")), billingOverride, localOverride, globalOverride, unitsOverride}
	restoreTimeShape   = []field{nameOf("SourceTableName"), str("SourceTableArn"), must(nameOf("TargetTableName")), flag("UseLatestRestorableTime"),
		{"RestoreDateTime", shape{kind: kDouble}}, billingOverride, localOverride, globalOverride, unitsOverride}
	continuousShape = []field{table2, must(fieldStruct("PointInTimeRecoverySpecification", "PointInTimeRecoverySpecification",
		must(flag("PointInTimeRecoveryEnabled"))))}
)

type backupDetails struct {
	BackupArn, BackupName, BackupStatus, BackupType string
	BackupSizeBytes                                 int64
	BackupCreationDateTime                          json.Number
}

func (d *Door) details(b *backup, status string) backupDetails {
	return backupDetails{d.backupArn(b), b.Name, status, "USER", b.Bytes, seconds(b.Time)}
}

// useForBackups is use in the words for backups.
func (d *Door) useForBackups(ctx context.Context, name string) (*table, error) {
	t, err := d.use(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil, &Error{Type: "TableNotFoundException", Message: "Table not found: " + name}
	}
	return t, err
}

func (d *Door) createBackup(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.useForBackups(ctx, r.str("TableName"))
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	now := d.o.Clock.Now()
	counts, err := t.total(ctx)
	if err != nil {
		return nil, err
	}
	b := &backup{Version: schemaVersion, ID: fmt.Sprintf("%014d-%s", millis(now), newID()[:8]), Name: r.str("BackupName"),
		Table: r.str("TableName"), Tree: t.id, Time: millis(now), Bytes: counts.bytes, Items: counts.items, Schema: t.now.Load()}
	d.catalog.mu.Lock()
	err = d.catalog.change(ctx, [][]byte{backupKey(b.ID)}, []any{b})
	d.catalog.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("write backup: %w", err)
	}
	var o object
	err = o.any("BackupDetails", d.details(b, "AVAILABLE"))
	return o.end(), err
}

// describe is what clients are told of a backup.
func (d *Door) describeBackupAs(b *backup, status string) ([]byte, error) {
	var source, in, o object
	source.str("TableName", b.Table)
	source.str("TableId", uuid(b.Tree))
	source.str("TableArn", d.arn(b.Table))
	source.raw("TableCreationDateTime", []byte(seconds(b.Schema.Created)))
	source.raw("ItemCount", []byte(itoa(int(b.Items))))
	source.raw("TableSizeBytes", []byte(itoa(int(b.Bytes))))
	err := errors.Join(
		source.any("KeySchema", keyElements(b.Schema.Keys)),
		source.any("ProvisionedThroughput", b.Schema.Capacity.describe()),
		in.any("BackupDetails", d.details(b, status)))
	in.raw("SourceTableDetails", source.end())
	o.raw("BackupDescription", in.end())
	return o.end(), err
}

func (d *Door) describeBackup(ctx context.Context, r *request) ([]byte, error) {
	b, err := d.backupOf(ctx, r.str("BackupArn"))
	if err != nil {
		return nil, err
	}
	return d.describeBackupAs(b, "AVAILABLE")
}

func (d *Door) deleteBackup(ctx context.Context, r *request) ([]byte, error) {
	b, err := d.backupOf(ctx, r.str("BackupArn"))
	if err != nil {
		return nil, err
	}
	last, err := d.forgetBackup(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("delete backup: %w", err)
	}
	if last {
		if err := d.deleteTree(ctx, b.Tree); err != nil {
			return nil, fmt.Errorf("delete backup: %w", err)
		}
	}
	return d.describeBackupAs(b, "DELETED")
}

// forgetBackup takes a backup from the catalog, and reports whether it was the last
// of a table that is gone.
func (d *Door) forgetBackup(ctx context.Context, b *backup) (last bool, err error) {
	c := &d.catalog
	c.mu.Lock()
	defer c.mu.Unlock()
	others := false
	if err := d.eachBackup(ctx, func(o *backup) bool {
		others = o.Tree == b.Tree && o.ID != b.ID
		return !others
	}); err != nil {
		return false, err
	}
	var l listing
	err = c.get(ctx, tableKey(b.Table), &l)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	last = !others && l.ID != b.Tree
	keys, records := [][]byte{backupKey(b.ID)}, []any{nil}
	if last {
		keys, records = append(keys, append([]byte{catGone}, b.Tree...)), append(records, true)
	}
	return last, c.change(ctx, keys, records)
}

func (d *Door) listBackups(ctx context.Context, r *request) ([]byte, error) {
	limit := 100
	if r.has("Limit") {
		limit = r.int("Limit")
	}
	_, from, _ := strings.Cut(r.str("ExclusiveStartBackupArn"), "/backup/")
	type summary struct {
		backupDetails
		TableName, TableId, TableArn string
	}
	list := []summary{}
	more := false
	low, high := r.Get("TimeRangeLowerBound"), r.Get("TimeRangeUpperBound")
	if err := d.eachBackup(ctx, func(b *backup) bool {
		switch at := float64(b.Time) / 1000; {
		case b.ID <= from, r.has("TableName") && b.Table != r.str("TableName"), low != nil && at < low.Num, high != nil && at >= high.Num:
			return true
		}
		if more = len(list) == limit; more {
			return false
		}
		list = append(list, summary{d.details(b, "AVAILABLE"), b.Table, uuid(b.Tree), d.arn(b.Table)})
		return true
	}); err != nil {
		return nil, err
	}
	var o object
	err := o.any("BackupSummaries", list)
	if more {
		o.str("LastEvaluatedBackupArn", list[len(list)-1].BackupArn)
	}
	return o.end(), err
}

func (d *Door) restoreBackup(ctx context.Context, r *request) ([]byte, error) {
	b, err := d.backupOf(ctx, r.str("BackupArn"))
	if err != nil {
		return nil, err
	}
	tree, release, err := d.treeOf(ctx, b.Table, b.Tree)
	if err != nil {
		return nil, err
	}
	return d.restore(ctx, r, tree, release, time.UnixMilli(b.Time), &restoredFrom{Backup: d.backupArn(b), Table: d.arn(b.Table)})
}

// treeOf returns the tree of a table, which may be gone, until release is called.
func (d *Door) treeOf(ctx context.Context, name, id string) (tree Tree, release func(), err error) {
	t, err := d.use(ctx, name)
	if err == nil && t.id == id {
		return t.tree, func() { d.release(t) }, nil
	}
	if err == nil {
		d.release(t)
	} else if !errors.Is(err, ErrNotFound) {
		return nil, nil, err
	}
	// It is the tree of no table. It is only read, which may take long, and others are
	// opened meanwhile.
	d.opening.Lock()
	tree, err = d.o.Trees.Open(ctx, "table-"+id, false)
	d.opening.Unlock()
	if err != nil {
		return nil, nil, err
	}
	return tree, func() {
		if err := tree.Close(); err != nil {
			d.o.Log.Error("table was not closed", "table", id, "err", err)
		}
	}, nil
}

// bucketArn begins the ARN of a bucket.
const bucketArn = "arn:aws:s3:::"

func (d *Door) restoreTime(ctx context.Context, r *request) ([]byte, error) {
	if bucket, is := strings.CutPrefix(r.str("SourceTableArn"), bucketArn); is {
		return d.restoreFiles(ctx, r, bucket)
	}
	name := r.str("SourceTableName")
	if name == "" {
		name = strings.TrimPrefix(r.str("SourceTableArn"), d.arn(""))
	}
	t, err := d.useForBackups(ctx, name)
	if err != nil {
		return nil, err
	}
	release := func() { d.release(t) }
	s := t.now.Load()
	if s.Recovery == 0 {
		release()
		return nil, &Error{Type: "PointInTimeRecoveryUnavailableException", Message: "Point in time recovery is not enabled for table '" + name + "'"}
	}
	at, err := d.restoreMoment(r, time.UnixMilli(s.Created))
	if err != nil {
		release()
		return nil, err
	}
	return d.restore(ctx, r, t.tree, release, at, &restoredFrom{Table: d.arn(name)})
}

// restoreMoment is the time that is to be restored of what was made at a time.
func (d *Door) restoreMoment(r *request, made time.Time) (time.Time, error) {
	now, n := d.o.Clock.Now(), r.Get("RestoreDateTime")
	switch {
	case r.flag("UseLatestRestorableTime"):
		return now, nil
	case n == nil:
		return now, invalid(badValues + "Either RestoreDateTime or UseLatestRestorableTime must be specified")
	}
	at := time.UnixMilli(int64(n.Num * 1000))
	if at.Before(made) || at.After(now) {
		return at, errNoRestore
	}
	return at, nil
}

var errNoRestore = &Error{Type: "InvalidRestoreTimeException", Message: "Restore time must be between the creation of the table and now"}

// restoreFiles makes a new bucket of what a bucket was: what DynamoDB does with tables,
// for files.
func (d *Door) restoreFiles(ctx context.Context, r *request, bucket string) ([]byte, error) {
	if err := d.checkBuckets(); err != nil {
		return nil, err
	}
	at, err := d.restoreMoment(r, time.Time{})
	if err != nil {
		return nil, err
	}
	target := r.str("TargetTableName")
	err = d.o.Buckets.Restore(ctx, bucket, target, at)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, &Error{Type: "TableNotFoundException", Message: "Table not found: " + bucketArn + bucket}
	case errors.Is(err, ErrExists):
		return nil, &Error{Type: "TableAlreadyExistsException", Message: "Table already exists: " + target}
	case errors.Is(err, ErrTooEarly):
		return nil, errNoRestore
	case err != nil:
		return nil, err
	}
	var in, o object
	in.str("TableName", target)
	in.str("TableArn", bucketArn+target)
	in.str("TableStatus", "ACTIVE")
	err = in.any("RestoreSummary", &restoreSummary{SourceTableArn: bucketArn + bucket, RestoreDateTime: seconds(millis(at))})
	o.raw("TableDescription", in.end())
	return o.end(), err
}

// restore makes a new table of a tree as it was, and calls release when it needs the
// tree no more. A large one goes on after the answer.
func (d *Door) restore(ctx context.Context, r *request, tree Tree, release func(), at time.Time, from *restoredFrom) (_ []byte, err error) {
	begun := false
	defer func() {
		if !begun {
			release()
		}
	}()
	view, err := tree.At(ctx, at)
	if errors.Is(err, ErrTooEarly) {
		return nil, &Error{Type: "InvalidRestoreTimeException", Message: "The table was not there at that time"}
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if !begun {
			err = errors.Join(err, view.Close())
		}
	}()
	was, err := readSchema(ctx, view)
	if errors.Is(err, ErrNotFound) {
		return nil, &Error{Type: "InvalidRestoreTimeException", Message: "The table was not there at that time"}
	}
	if err != nil {
		return nil, err
	}
	from.Time = millis(at)
	local, err := keptIndexes(was.Local, r.Get("LocalSecondaryIndexOverride"))
	if err != nil {
		return nil, err
	}
	global, err := keptIndexes(was.Global, r.Get("GlobalSecondaryIndexOverride"))
	if err != nil {
		return nil, err
	}
	s := was.with(func(s *schema) {
		s.Name, s.ID, s.Created, s.Restored = r.str("TargetTableName"), newID(), millis(d.o.Clock.Now()), from
		s.Past = nil
		s.TTL, s.Turning, s.Stream, s.Tags, s.Recovery, s.Protected, s.Dropped = "", nil, nil, nil, 0, false, nil
		s.Local, s.Global = local, global
		for i, x := range s.Global {
			whole := *x
			whole.Filling = false // all items are put anew
			s.Global[i] = &whole
		}
		s.Attributes = slices.DeleteFunc(slices.Clone(s.Attributes), func(a attribute) bool { return !s.usesAttribute(a.Name) })
		if mode := r.str("BillingModeOverride"); mode != "" {
			s.OnDemand = mode == "PAY_PER_REQUEST"
		}
		if units := r.Get("ProvisionedThroughputOverride"); units != nil {
			s.Capacity = unitsOf(units)
		}
	})
	begun = true
	if err := d.fillRestored(ctx, s, view, release); err != nil {
		return nil, err
	}
	var o object
	err = o.any("TableDescription", d.describe(s, state{}, "CREATING"))
	return o.end(), err
}

// restoreWait is how long the answer waits for a table to be restored: small ones are
// there at once then. Clients wait for a minute.
const restoreWait = 20 * time.Second

// fillRestored makes the table, and returns before it has all items if that takes long.
// Until then it is described and not there; after a crash it was never made.
func (d *Door) fillRestored(ctx context.Context, s *schema, view View, release func()) error {
	d.mu.Lock()
	_, busy := d.making[s.Name]
	if !busy {
		d.making[s.Name] = s
		d.busy.Add(1) // the request has entered, so that nobody waits yet
	}
	d.mu.Unlock()
	if busy {
		release()
		return errors.Join(inUse("Table already exists: "+s.Name), view.Close())
	}
	late := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		defer d.busy.Done()
		defer release()
		err := d.makeTable(d.ctx, s, func(t *table) error { return t.copyFrom(d.ctx, view) })
		err = errors.Join(err, view.Close())
		d.mu.Lock()
		delete(d.making, s.Name)
		d.mu.Unlock()
		done <- err
		select {
		case <-late:
			if err != nil {
				d.o.Log.Error("table was not restored", "table", s.Name, "err", err)
			}
		default:
		}
	}()
	timer := d.o.Clock.AfterFunc(restoreWait, func() { close(late) })
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-late:
		return nil
	case <-ctx.Done():
		return ctx.Err() // who asked has gone; it goes on
	}
}

// keptIndexes are those of the indexes that a restored table gets: all, or those that
// are asked for, which have to be what they were.
func keptIndexes(have []*index, asked *item.Node) ([]*index, error) {
	if asked == nil {
		return slices.Clone(have), nil
	}
	var out []*index
	for _, n := range asked.List {
		want := newIndex(n, 0)
		i := slices.IndexFunc(have, func(x *index) bool {
			return x.Name == want.Name && slices.Equal(x.Keys, want.Keys) && x.Projection == want.Projection && slices.Equal(sorted(x.Include), sorted(want.Include))
		})
		if i < 0 {
			return nil, invalid(badValues + "The index " + want.Name + " is none of the table's at that time")
		}
		x := *have[i]
		if n.Get("ProvisionedThroughput") != nil {
			x.Capacity = want.Capacity
		}
		have = slices.Delete(slices.Clone(have), i, i+1)
		out = append(out, &x)
	}
	return out, nil
}

// copyFrom puts the items of another tree.
func (t *table) copyFrom(ctx context.Context, from Reader) error {
	o := hyperbee.RangeOptions{Gte: []byte{keyItem}, Lt: []byte{keyItem + 1}}
	for last := false; !last; {
		if err := t.write(ctx, func(x *tx) (err error) {
			last, err = portion(ctx, from, &o, func(e Entry) error {
				i, err := stored(e.Value).item()
				if err == nil {
					err = x.apply(change{key: e.Key, now: i})
				}
				x.err = errors.Join(x.err, err)
				return err
			})
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (d *Door) describeContinuous(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.useForBackups(ctx, r.str("TableName"))
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	return d.continuous(t.now.Load()), nil
}

// continuous says how far back a table can be restored.
func (d *Door) continuous(s *schema) []byte {
	var recovery, in, o object
	if s.Recovery == 0 {
		recovery.str("PointInTimeRecoveryStatus", "DISABLED")
	} else {
		recovery.str("PointInTimeRecoveryStatus", "ENABLED")
		recovery.raw("EarliestRestorableDateTime", []byte(seconds(s.Created)))
		recovery.raw("LatestRestorableDateTime", []byte(seconds(millis(d.o.Clock.Now()))))
	}
	in.str("ContinuousBackupsStatus", "ENABLED")
	in.raw("PointInTimeRecoveryDescription", recovery.end())
	o.raw("ContinuousBackupsDescription", in.end())
	return o.end()
}

func (d *Door) updateContinuous(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.useForBackups(ctx, r.str("TableName"))
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	on := r.Get("PointInTimeRecoverySpecification").Get("PointInTimeRecoveryEnabled").Bool
	if err := t.write(ctx, func(x *tx) error {
		x.setSchema(x.s.with(func(s *schema) {
			if s.Recovery = 0; on {
				s.Recovery = millis(d.o.Clock.Now())
			}
		}))
		return nil
	}); err != nil {
		return nil, err
	}
	return d.continuous(t.now.Load()), nil
}
