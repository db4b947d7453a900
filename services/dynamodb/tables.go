package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// The operations on tables.

const maxUnits = 1e12

func checkUnits(n *item.Node) error {
	for _, name := range []string{"ReadCapacityUnits", "WriteCapacityUnits"} {
		if u := n.Get(name); u != nil && u.Num > maxUnits {
			return invalid("Given value " + number(u.Num) + " for " + name + " is out of bounds")
		}
	}
	return nil
}

// A keySchema is one in a request.
type keySchema struct{ names, kinds []string }

func keySchemaOf(n *item.Node) (k keySchema) {
	for _, e := range n.Get("KeySchema").List {
		k.names = append(k.names, e.Get("AttributeName").Str)
		k.kinds = append(k.kinds, e.Get("KeyType").Str)
	}
	return k
}

func (k keySchema) parts() []keyPart {
	out := make([]keyPart, len(k.names))
	for i := range out {
		out[i] = keyPart{k.names[i], k.kinds[i]}
	}
	return out
}

// maxParts is how many attributes of a kind the key of a global index may have.
const maxParts = 4

// checkGlobal looks at the order and the kinds of keys of a global index, which
// may have several attributes of each kind.
func (k keySchema) checkGlobal() error {
	hashes, ranges := 0, 0
	for i, kind := range k.kinds {
		switch {
		case kind == "HASH" && ranges > 0 && i > 1:
			return invalid("Invalid KeySchema: All HASH key elements must precede all RANGE key elements")
		case kind == "HASH":
			hashes++
		case kind == "RANGE":
			ranges++
		}
		if slices.Contains(k.names[:i], k.names[i]) && len(k.names) > 2 {
			return invalid("Invalid KeySchema: Two KeySchemaElements have the same name: " + k.names[i])
		}
	}
	switch {
	case len(k.kinds) < 2 || k.kinds[0] != "HASH" || k.names[0] == k.names[1] || hashes+ranges < len(k.kinds):
		return k.check()
	case hashes > maxParts:
		return invalid("Invalid KeySchema: A key of an index may have at most 4 HASH key elements")
	case ranges > maxParts:
		return invalid("Invalid KeySchema: A key of an index may have at most 4 RANGE key elements")
	}
	return nil
}

// check looks at the order and the kinds of keys.
func (k keySchema) check() error {
	switch {
	case len(k.names) > 1 && k.names[0] == k.names[1]:
		return invalid("Both the Hash Key and the Range Key element in the KeySchema have the same name")
	case k.kinds[0] != "HASH":
		return invalid("Invalid KeySchema: The first KeySchemaElement is not a HASH key type")
	case len(k.kinds) > 1 && k.kinds[1] != "RANGE":
		return invalid("Invalid KeySchema: The second KeySchemaElement is not a RANGE key type")
	}
	return nil
}

func (k keySchema) checkDefined(defined []string) error {
	for _, name := range k.names {
		if !contains(defined, name) {
			return invalid(badValues + "Some index key attributes are not defined in AttributeDefinitions. Keys: " +
				quoteAll(k.names) + ", AttributeDefinitions: " + quoteAll(defined))
		}
	}
	return nil
}

func definedNames(r *request) (out []string) {
	if n := r.Get("AttributeDefinitions"); n != nil {
		for _, a := range n.List {
			out = append(out, a.Get("AttributeName").Str)
		}
	}
	return out
}

func checkCreateTable(r *request) error {
	onDemand := r.str("BillingMode") == "PAY_PER_REQUEST"
	units := r.Get("ProvisionedThroughput")
	switch {
	case onDemand && units != nil:
		return invalid(badValues + "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
	case !onDemand && units == nil:
		return invalid(badValues + "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED")
	}
	if err := checkUnits(units); err != nil {
		return err
	}
	defined, keys := definedNames(r), keySchemaOf(r.Node)
	for i, name := range defined {
		if slices.Contains(defined[:i], name) {
			return invalid(badValues + "Duplicate AttributeName in AttributeDefinitions: " + name)
		}
	}
	if len(keys.names) > len(defined) {
		return invalid("Invalid KeySchema: Some index key attribute have no definition")
	}
	if err := first(func() error { return keys.checkDefined(defined) }, keys.check); err != nil {
		return err
	}
	if !r.has("LocalSecondaryIndexes") && !r.has("GlobalSecondaryIndexes") && len(keys.names) != len(defined) {
		return invalid(badValues + "Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions")
	}
	seen := map[string]bool{}
	return first(
		func() error { return checkLocal(r, keys, defined, seen) },
		func() error { return checkGlobal(r, defined, onDemand, seen) },
		func() error { return checkUsed(r, keys, defined) },
		func() error { return checkStreamSpec(r) },
		func() error { return checkTags(r.Get("Tags")) })
}

// checkUsed looks for attributes that are no keys.
func checkUsed(r *request, table keySchema, defined []string) error {
	used := slices.Clone(table.names)
	for _, list := range []string{"LocalSecondaryIndexes", "GlobalSecondaryIndexes"} {
		if n := r.Get(list); n != nil {
			for _, x := range n.List {
				used = append(used, keySchemaOf(x).names...)
			}
		}
	}
	for _, name := range defined {
		if !slices.Contains(used, name) {
			return invalid(badValues + "Some AttributeDefinitions are not used. AttributeDefinitions: " + quoteAll(defined) + ", keys used: " + quoteAll(sorted(slices.Compact(sorted(used)))))
		}
	}
	return nil
}

func checkStreamSpec(r *request) error {
	spec := r.Get("StreamSpecification")
	switch {
	case spec == nil:
		return nil
	case spec.Get("StreamEnabled").Bool && spec.Get("StreamViewType") == nil:
		return invalid(badValues + "StreamViewType must be specified when StreamEnabled is true")
	case !spec.Get("StreamEnabled").Bool && spec.Get("StreamViewType") != nil:
		return invalid(badValues + "StreamViewType cannot be specified when StreamEnabled is false")
	}
	return nil
}

// checkProjection looks at what an index has of items.
func checkProjection(x *item.Node) error {
	kind, include := x.Get("Projection").Get("ProjectionType"), x.Get("Projection").Get("NonKeyAttributes")
	switch {
	case kind == nil:
		return invalid(badValues + "Unknown ProjectionType: null")
	case include != nil && kind.Str != "INCLUDE":
		return invalid(badValues + "ProjectionType is " + kind.Str + ", but NonKeyAttributes is specified")
	case include == nil && kind.Str == "INCLUDE":
		return invalid(badValues + "ProjectionType is INCLUDE, but NonKeyAttributes is not specified")
	}
	names := texts(include)
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return invalid(badValues + "Duplicate NonKeyAttributes: " + name)
		}
	}
	return nil
}

func once(seen map[string]bool, name string) error {
	if seen[name] {
		return invalid(badValues + "Duplicate index name: " + name)
	}
	seen[name] = true
	return nil
}

func checkLocal(r *request, table keySchema, defined []string, seen map[string]bool) error {
	all := r.Get("LocalSecondaryIndexes")
	switch {
	case all == nil:
		return nil
	case len(all.List) == 0:
		return invalid(badValues + "List of LocalSecondaryIndexes is empty")
	case len(table.names) != 2:
		return invalid(badValues + "Table KeySchema does not have a range key, which is required when specifying a LocalSecondaryIndex")
	}
	for _, x := range all.List {
		keys, name := keySchemaOf(x), x.Get("IndexName").Str
		if err := first(func() error { return keys.checkDefined(defined) }, keys.check); err != nil {
			return err
		}
		if len(keys.names) != 2 {
			return invalid(badValues + "Index KeySchema does not have a range key for index: " + name)
		}
		if keys.names[0] != table.names[0] {
			return invalid(badValues + "Index KeySchema does not have the same leading hash key as table KeySchema for index: " +
				name + ". index hash key: " + keys.names[0] + ", table hash key: " + table.names[0])
		}
		if err := first(func() error { return checkProjection(x) }, func() error { return once(seen, name) }); err != nil {
			return err
		}
	}
	if len(all.List) > 5 {
		return invalid(badValues + "Number of LocalSecondaryIndexes exceeds per-table limit of 5")
	}
	return nil
}

func checkGlobal(r *request, defined []string, onDemand bool, seen map[string]bool) error {
	all := r.Get("GlobalSecondaryIndexes")
	if all == nil {
		return nil
	}
	if len(all.List) == 0 {
		return invalid(badValues + "List of GlobalSecondaryIndexes is empty")
	}
	for _, x := range all.List {
		keys, name := keySchemaOf(x), x.Get("IndexName").Str
		if err := first(
			func() error { return keys.checkDefined(defined) }, keys.checkGlobal,
			func() error { return checkProjection(x) },
			func() error {
				if onDemand && x.Get("ProvisionedThroughput") != nil {
					return invalid(badValues + "ProvisionedThroughput should not be specified for index: " + name + " when BillingMode is PAY_PER_REQUEST")
				}
				return nil
			},
			func() error { return once(seen, name) }); err != nil {
			return err
		}
	}
	if len(all.List) > 20 {
		return invalid(badValues + "GlobalSecondaryIndex count exceeds the per-table limit of 20")
	}
	return nil
}

func unitsOf(n *item.Node) (c capacityUnits) {
	if n != nil {
		c.Read, c.Write = int64(n.Get("ReadCapacityUnits").Num), int64(n.Get("WriteCapacityUnits").Num)
	}
	return c
}

// newIndex makes an index as a request says.
func newIndex(n *item.Node, number uint32) *index {
	x := &index{Number: number, Name: n.Get("IndexName").Str, Keys: keySchemaOf(n).parts(), Capacity: unitsOf(n.Get("ProvisionedThroughput"))}
	p := n.Get("Projection")
	x.Projection = p.Get("ProjectionType").Str
	x.Include = texts(p.Get("NonKeyAttributes"))
	return x
}

// schemaOf makes the schema of a table as a request says.
func (d *Door) schemaOf(r *request) *schema {
	s := &schema{Version: schemaVersion, Name: r.str("TableName"), ID: newID(), Created: millis(d.o.Clock.Now()),
		Keys: keySchemaOf(r.Node).parts(), Capacity: unitsOf(r.Get("ProvisionedThroughput")),
		Protected: r.flag("DeletionProtectionEnabled"), Class: r.str("TableClass"), Tags: tagsOf(r.Get("Tags"))}
	for _, a := range r.Get("AttributeDefinitions").List {
		s.Attributes = append(s.Attributes, attribute{a.Get("AttributeName").Str, a.Get("AttributeType").Str})
	}
	if r.str("BillingMode") == "PAY_PER_REQUEST" {
		s.OnDemand, s.OnDemandAt = true, s.Created
	}
	if n := r.Get("LocalSecondaryIndexes"); n != nil {
		for _, x := range n.List {
			s.NextIndex++
			s.Local = append(s.Local, newIndex(x, s.NextIndex))
			s.Local[len(s.Local)-1].local = true
		}
	}
	if n := r.Get("GlobalSecondaryIndexes"); n != nil {
		for _, x := range n.List {
			s.NextIndex++
			s.Global = append(s.Global, newIndex(x, s.NextIndex))
		}
	}
	if spec := r.Get("StreamSpecification"); spec != nil && spec.Get("StreamEnabled").Bool {
		s.Stream = d.newStream(spec.Get("StreamViewType").Str, 0)
	}
	return s
}

func (d *Door) newStream(view string, first uint64) *streamInfo {
	return &streamInfo{Label: d.o.Clock.Now().UTC().Format(streamLabel), View: view, On: true, First: first}
}

func (d *Door) createTable(ctx context.Context, r *request) ([]byte, error) {
	s := d.schemaOf(r)
	if err := d.makeTable(ctx, s, nil); err != nil {
		return nil, err
	}
	var o object
	err := o.any("TableDescription", d.describe(s, state{}, "CREATING"))
	return o.end(), err
}

// makeTable makes a tree for a table, with what fill puts into it, and then tells
// the catalog.
func (d *Door) makeTable(ctx context.Context, s *schema, fill func(*table) error) (err error) {
	defer func() {
		if e := new(Error); err != nil && !errors.As(err, &e) {
			err = fmt.Errorf("create table %s: %w", s.Name, err)
		}
	}()
	c := &d.catalog
	gone := append([]byte{catGone}, s.ID...)
	// A crash before the catalog knows of it leaves a tree to be deleted.
	if err := d.listTable(ctx, s.Name, [][]byte{gone}, []any{true}); err != nil {
		return err
	}
	if err := d.fillTree(ctx, s, fill); err != nil {
		return errors.Join(err, d.deleteTree(context.WithoutCancel(ctx), s.ID))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := d.listTableLocked(ctx, s.Name, [][]byte{gone, tableKey(s.Name)}, []any{nil, listing{schemaVersion, s.ID, s.TTL != ""}}); err != nil {
		return err
	}
	return nil
}

// listTable changes the catalog if there is no table of a name.
func (d *Door) listTable(ctx context.Context, name string, keys [][]byte, records []any) error {
	d.catalog.mu.Lock()
	defer d.catalog.mu.Unlock()
	return d.listTableLocked(ctx, name, keys, records)
}

func (d *Door) listTableLocked(ctx context.Context, name string, keys [][]byte, records []any) error {
	_, err := d.catalog.tree.Get(ctx, tableKey(name))
	if err == nil {
		return inUse("Table already exists: " + name)
	}
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	return d.catalog.change(ctx, keys, records)
}

func (d *Door) fillTree(ctx context.Context, s *schema, fill func(*table) error) (err error) {
	tree, err := d.o.Trees.Open(ctx, "table-"+s.ID, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	b, err := tree.Batch(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.Put(ctx, []byte{keyTable}, s.encode()); err != nil {
		return err
	}
	if err := b.Flush(ctx); err != nil || fill == nil {
		return err
	}
	t, err := openTable(ctx, d, s.ID, tree)
	if err != nil {
		return err
	}
	return fill(t)
}

func (d *Door) describeTable(ctx context.Context, r *request) ([]byte, error) {
	name := r.str("TableName")
	d.mu.Lock()
	making := d.making[name]
	d.mu.Unlock()
	if making != nil {
		var o object
		err := o.any("Table", d.describe(making, state{}, "CREATING"))
		return o.end(), err
	}
	t, err := d.useNamed(ctx, name)
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	counts, err := t.total(ctx)
	if err != nil {
		return nil, err
	}
	var o object
	err = o.any("Table", d.describe(t.now.Load(), counts, "ACTIVE"))
	return o.end(), err
}

// total is what all writers have counted.
func (t *table) total(ctx context.Context) (state, error) {
	all := t.counts()
	own := t.tree.Writer()
	for e, err := range t.tree.Range(ctx, hyperbee.RangeOptions{Gte: []byte{keyCount}, Lt: []byte{keyCount + 1}}) {
		if err != nil {
			return all, err
		}
		var s state
		if string(e.Key[1:]) != string(own[:]) && s.read(e.Value) == nil {
			all.items += s.items
			all.bytes += s.bytes
		}
	}
	return all, nil
}

// counts are those of this writer now.
func (t *table) counts() state {
	t.writer <- struct{}{}
	defer func() { <-t.writer }()
	return t.state
}

func (d *Door) deleteTable(ctx context.Context, r *request) ([]byte, error) {
	name := r.str("TableName")
	t, err := d.useNamed(ctx, name)
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	s := t.now.Load()
	if s.Protected {
		return nil, invalid("Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.")
	}
	counts, err := t.total(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.dropTable(ctx, t, name); err != nil {
		return nil, err
	}
	var o object
	gone := d.describe(s, counts, "DELETING")
	gone.AttributeDefinitions, gone.KeySchema, gone.LocalSecondaryIndexes, gone.CreationDateTime = nil, nil, nil, ""
	err = o.any("TableDescription", gone)
	return o.end(), err
}

// dropTable takes a table from the catalog. Its tree goes when nobody uses it, and
// stays when there are backups.
func (d *Door) dropTable(ctx context.Context, t *table, name string) error {
	c := &d.catalog
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.tree.Get(ctx, tableKey(name)); err != nil {
		if errors.Is(err, ErrNotFound) {
			return noTable(name)
		}
		return err
	}
	kept, err := d.hasBackups(ctx, t.id)
	if err != nil {
		return err
	}
	keys, records := [][]byte{tableKey(name)}, []any{nil}
	if !kept {
		keys, records = append(keys, append([]byte{catGone}, t.id...)), append(records, true)
	}
	if err := c.change(ctx, keys, records); err != nil {
		return fmt.Errorf("delete table %s: %w", name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.tables, name)
	delete(d.expiry.next, name)
	t.done, t.kept = true, kept
	return nil
}

func (d *Door) listTables(ctx context.Context, r *request) ([]byte, error) {
	limit := 100
	if r.has("Limit") {
		limit = r.int("Limit")
	}
	list := []string{}
	more := false
	if err := d.catalog.each(ctx, catTable, r.str("ExclusiveStartTableName"), func(name string, _ []byte) (bool, error) {
		if len(list) == limit {
			more = true
			return false, nil
		}
		list = append(list, name)
		return true, nil
	}); err != nil {
		return nil, err
	}
	var o object
	if more {
		o.str("LastEvaluatedTableName", list[len(list)-1])
	}
	err := o.any("TableNames", list)
	return o.end(), err
}

func checkUpdateTable(r *request) error {
	units, updates := r.Get("ProvisionedThroughput"), r.Get("GlobalSecondaryIndexUpdates")
	none := updates == nil || len(updates.List) == 0
	if units == nil && !r.has("BillingMode") && none && !r.has("SSESpecification") && !r.has("StreamSpecification") &&
		!r.has("DeletionProtectionEnabled") && !r.has("TableClass") {
		return invalid("At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required")
	}
	if r.str("BillingMode") == "PROVISIONED" && units == nil {
		return invalid(badValues + "ProvisionedThroughput must be specified when BillingMode is PROVISIONED")
	}
	if err := first(func() error { return checkUnits(units) }, func() error { return checkStreamSpec(r) }); err != nil || none {
		return err
	}
	seen := map[string]bool{}
	made := 0
	for _, u := range updates.List {
		name := ""
		if len(u.Keys) > 1 {
			return invalid(badValues + "Only one of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, GlobalSecondaryIndexUpdate.Delete may be given at once")
		}
		if u.Get("Update") == nil {
			made++
		}
		for _, kind := range []string{"Update", "Create", "Delete"} {
			if a := u.Get(kind); a != nil && name == "" {
				name = a.Get("IndexName").Str
			}
		}
		if name == "" {
			return invalid(badValues + "One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, GlobalSecondaryIndexUpdate.Delete must not be null")
		}
		if seen[name] {
			return invalid(badValues + "Only one global secondary index update per index is allowed simultaneously. Index: " + name)
		}
		seen[name] = true
	}
	if made > 1 {
		return errOneIndex
	}
	return nil
}

var errOneIndex = &Error{Type: "LimitExceededException", Message: "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table"}

func (d *Door) updateTable(ctx context.Context, r *request) ([]byte, error) {
	name := r.str("TableName")
	t, err := d.useNamed(ctx, name)
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	var next, was *schema
	if err := t.write(ctx, func(x *tx) (err error) {
		was = x.s
		if next, err = d.updated(r, x); err == nil {
			x.setSchema(next)
		}
		return err
	}); err != nil {
		return nil, err
	}
	if len(next.Dropped) > 0 || len(next.filling()) > 0 {
		d.fill(name, t.id)
	}
	counts, err := t.total(ctx)
	if err != nil {
		return nil, err
	}
	var o object
	err = o.any("TableDescription", d.describe(next.meanwhile(was), counts, "UPDATING"))
	return o.end(), err
}

// meanwhile is what clients are told while a table becomes another: units are as
// they were, and change now.
func (s *schema) meanwhile(was *schema) *schema {
	return s.with(func(next *schema) {
		next.Capacity = s.Capacity.meanwhile(was.Capacity)
		for i, x := range next.Global {
			if have := was.index(x.Name); have != nil {
				old := *x
				old.Capacity = x.Capacity.meanwhile(have.Capacity)
				next.Global[i] = &old
			}
		}
	})
}

func (c capacityUnits) meanwhile(was capacityUnits) capacityUnits {
	if c.Increased != was.Increased {
		was.Increased = c.Increased - 1
	}
	if c.Decreased != was.Decreased {
		was.Decreased = c.Decreased - 1
	}
	return was
}

// updated is the schema that a request makes of the one there is.
func (d *Door) updated(r *request, x *tx) (next *schema, err error) {
	s, now := x.s, millis(d.o.Clock.Now())
	mode := r.str("BillingMode")
	onDemand := s.OnDemand
	if mode != "" {
		onDemand = mode == "PAY_PER_REQUEST"
	}
	units := r.Get("ProvisionedThroughput")
	if units != nil && onDemand {
		return nil, invalid(badValues + "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
	}
	return next, func() error {
		next = s.with(func(next *schema) {
			if mode != "" && onDemand && !s.OnDemand {
				next.OnDemand, next.OnDemandAt = true, now
				next.Capacity = capacityUnits{Decreased: now, Decreases: s.Capacity.Decreases}
				for i, g := range next.Global {
					g := *g
					g.Capacity = capacityUnits{Decreased: now, Decreases: g.Capacity.Decreases + 1}
					next.Global[i] = &g
				}
			}
			if mode == "PROVISIONED" {
				next.OnDemand = false
			}
			if r.has("DeletionProtectionEnabled") {
				next.Protected = r.flag("DeletionProtectionEnabled")
			}
			if r.has("TableClass") {
				next.Class = r.str("TableClass")
			}
		})
		if units != nil {
			if next.Capacity, err = changeUnits(s.Capacity, unitsOf(units), now, "table"); err != nil {
				return err
			}
		}
		return first(
			func() error { return next.updateIndexes(r, now, mode == "PROVISIONED" && s.OnDemand) },
			func() error { return d.updateStream(r, next, x.state.next) })
	}()
}

// changeUnits is what becomes of units that are set anew.
func changeUnits(have, want capacityUnits, now int64, _ string) (capacityUnits, error) {
	if have.Read == want.Read && have.Write == want.Write {
		return have, invalid("The provisioned throughput for the table will not change. The requested value equals the current value. "+
			"Current ReadCapacityUnits provisioned for the table: %d. Requested ReadCapacityUnits: %d. "+
			"Current WriteCapacityUnits provisioned for the table: %d. Requested WriteCapacityUnits: %d. "+
			"Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits.",
			have.Read, want.Read, have.Write, want.Write)
	}
	want.Increased, want.Decreased, want.Decreases = have.Increased, have.Decreased, have.Decreases
	if want.Read > have.Read || want.Write > have.Write {
		want.Increased = now
	} else {
		want.Decreases++
	}
	if want.Read < have.Read || want.Write < have.Write {
		want.Decreased = now
	}
	return want, nil
}

// updateIndexes does what a request says of global indexes.
func (s *schema) updateIndexes(r *request, now int64, all bool) error {
	var updates []*item.Node
	if n := r.Get("GlobalSecondaryIndexUpdates"); n != nil {
		updates = n.List
	}
	if len(updates) > 5 {
		return errOneIndex
	}
	changed := map[string]bool{}
	for _, u := range updates {
		var err error
		switch {
		case u.Get("Update") != nil:
			changed[u.Get("Update").Get("IndexName").Str] = true
			err = s.updateIndex(u.Get("Update"), now)
		case u.Get("Create") != nil:
			err = s.createIndex(r, u.Get("Create"))
		default:
			err = s.deleteIndex(u.Get("Delete").Get("IndexName").Str)
		}
		if err != nil {
			return err
		}
	}
	var missing []string
	for _, x := range s.Global {
		if all && !changed[x.Name] {
			missing = append(missing, x.Name)
		}
	}
	if len(missing) > 0 {
		return invalid(badValues + "ProvisionedThroughput must be specified for index: " + strings.Join(missing, ","))
	}
	return nil
}

func noIndex(name string) error {
	return notFound("Requested resource not found: Index: " + name + " not found")
}

func (s *schema) updateIndex(n *item.Node, now int64) error {
	units, name := n.Get("ProvisionedThroughput"), n.Get("IndexName").Str
	if math.Max(units.Get("ReadCapacityUnits").Num, units.Get("WriteCapacityUnits").Num) > maxUnits {
		return invalid("This operation cannot be performed with given input values. Please contact DynamoDB service team for more info: Action Blocked: IndexUpdate")
	}
	for i, x := range s.Global {
		if x.Name == name {
			next, err := *x, error(nil)
			if next.Capacity, err = changeUnits(x.Capacity, unitsOf(units), now, name); err != nil {
				return err
			}
			s.Global[i] = &next
			return nil
		}
	}
	return noIndex(name)
}

func (s *schema) createIndex(r *request, n *item.Node) error {
	keys, name := keySchemaOf(n), n.Get("IndexName").Str
	attributes := slices.Clone(s.Attributes)
	defined := definedNames(r)
	if defs := r.Get("AttributeDefinitions"); defs != nil {
		for _, a := range defs.List {
			def := attribute{a.Get("AttributeName").Str, a.Get("AttributeType").Str}
			if i := slices.IndexFunc(attributes, func(have attribute) bool { return have.Name == def.Name }); i < 0 {
				attributes = append(attributes, def)
			} else if attributes[i] != def {
				return invalid(badValues + "Attributes cannot be redefined. Please check that your attribute has the same type as previously defined. " +
					"Existing schema: Schema:[SchemaElement: key{" + def.Name + ":" + attributes[i].Type + "}] New schema: Schema:[SchemaElement: key{" + def.Name + ":" + def.Type + "}]")
			}
		}
	}
	if err := first(func() error { return keys.checkDefined(defined) }, keys.checkGlobal, func() error { return checkProjection(n) }); err != nil {
		return err
	}
	switch {
	case s.index(name) != nil:
		return invalid("Attempting to create an index which already exists")
	case len(s.filling()) > 0:
		return errOneIndex
	case len(s.Global) >= 20:
		return invalid(badValues + "GlobalSecondaryIndex count exceeds the per-table limit of 20")
	}
	s.NextIndex++
	x := newIndex(n, s.NextIndex)
	x.Filling = true
	s.Global = append(s.Global, x)
	s.Attributes = nil
	for _, a := range attributes {
		if s.usesAttribute(a.Name) {
			s.Attributes = append(s.Attributes, a)
		}
	}
	return nil
}

// usesAttribute reports whether an attribute is part of a key.
func (s *schema) usesAttribute(name string) bool {
	if contains(names(s.Keys), name) {
		return true
	}
	for _, x := range s.indexes() {
		if contains(names(x.Keys), name) {
			return true
		}
	}
	return false
}

func (s *schema) deleteIndex(name string) error {
	i := slices.IndexFunc(s.Global, func(x *index) bool { return x.Name == name })
	if i < 0 {
		return noIndex(name)
	}
	s.Dropped = append(s.Dropped, s.Global[i].Number)
	s.Global = slices.Delete(s.Global, i, i+1)
	s.Attributes = slices.DeleteFunc(slices.Clone(s.Attributes), func(a attribute) bool { return !s.usesAttribute(a.Name) })
	return nil
}

// maxPast bounds how many streams of a table that are past can be read.
const maxPast = 20

// updateStream turns the stream on or off as a request says.
func (d *Door) updateStream(r *request, s *schema, next uint64) error {
	spec := r.Get("StreamSpecification")
	if spec == nil {
		return nil
	}
	on := s.Stream != nil && s.Stream.On
	switch enable := spec.Get("StreamEnabled").Bool; {
	case enable && on:
		return invalid("Table already has an enabled stream: TableName: " + s.Name)
	case !enable && !on:
		return invalid("Table already has its stream disabled: TableName: " + s.Name)
	case enable:
		was := s.Stream
		s.Stream = d.newStream(spec.Get("StreamViewType").Str, next)
		oldest := millis(d.o.Clock.Now().Add(-streamTime))
		s.Past = slices.DeleteFunc(slices.Clone(s.Past), func(i streamInfo) bool { return i.made() < oldest })
		if was != nil && len(s.Past) < maxPast && was.Label != s.Stream.Label {
			past := *was
			past.End = next
			s.Past = append(s.Past, past)
		}
	default:
		off := *s.Stream
		off.On = false
		s.Stream = &off
	}
	return nil
}
