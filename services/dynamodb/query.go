package dynamodb

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

func checkQuery(r *request) error {
	return first(
		func() error {
			return r.checkParams([]string{"ProjectionExpression", "FilterExpression", "KeyConditionExpression"},
				[]string{"AttributesToGet", "QueryFilter", "ConditionalOperator", "KeyConditions"})
		},
		func() error { return r.checkConditions("QueryFilter") },
		r.checkToGet, r.checkStart,
		func() error {
			if !r.has("KeyConditions") && !r.has("KeyConditionExpression") {
				return invalid("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
			}
			return nil
		},
		r.parse,
		func() error {
			conditions, err := r.keyFilters()
			if err != nil {
				return err
			}
			if n := len(conditions); n < 1 || n > 2 && !r.has("IndexName") || n > 2*maxParts {
				return errConditions
			}
			return nil
		},
		r.checkSelect)
}

var errConditions = invalid("Conditions can be of length 1 or 2 only")

// keyFilters are the conditions on keys.
func (r *request) keyFilters() (out []filter, err error) {
	if r.keyCond == nil {
		if err := r.checkConditions("KeyConditions"); err != nil {
			return nil, err
		}
		return r.filters("KeyConditions"), nil
	}
	if err := keyFilters(r.keyCond.Root, &out); err != nil {
		return nil, err
	}
	for _, f := range out {
		if err := f.check(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func checkScan(r *request) error {
	return first(
		func() error {
			return r.checkParams([]string{"ProjectionExpression", "FilterExpression"},
				[]string{"AttributesToGet", "ScanFilter", "ConditionalOperator"})
		},
		r.checkToGet,
		func() error { return r.checkConditions("ScanFilter") },
		r.checkStart, r.checkSegment, r.parse, r.checkSelect)
}

// checkSelect looks whether what is selected is said once.
func (r *request) checkSelect() error {
	which := ""
	for _, name := range []string{"AttributesToGet", "ProjectionExpression"} {
		if r.has(name) {
			which = name
		}
	}
	switch s := r.str("Select"); {
	case s == "SPECIFIC_ATTRIBUTES" && which == "":
		return invalid(badValues + "Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES")
	case s == "ALL_PROJECTED_ATTRIBUTES" && !r.has("IndexName"):
		return invalid(badValues + "ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName")
	case s == "COUNT" && which != "":
		return invalid(badValues + "Cannot specify the " + which + " when choosing to get only the Count")
	case which != "" && s != "" && s != "SPECIFIC_ATTRIBUTES":
		return invalid(badValues + "Cannot specify the " + which + " when choosing to get " + s)
	}
	return nil
}

func (r *request) checkSegment() error {
	segment, total := r.int("Segment"), r.int("TotalSegments")
	switch {
	case r.has("Segment") && !r.has("TotalSegments"):
		return invalid("The TotalSegments parameter is required but was not present in the request when Segment parameter is present")
	case !r.has("TotalSegments"):
		return nil
	case !r.has("Segment"):
		return invalid("The Segment parameter is required but was not present in the request when parameter TotalSegments is present")
	case segment >= total:
		return invalid("The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: %d is not less than TotalSegments: %d", segment, total)
	}
	return nil
}

const badStart = "The provided starting key is invalid"

// checkStart looks at the values of a key to go on from.
func (r *request) checkStart() error {
	n := r.Get("ExclusiveStartKey")
	if n == nil {
		return nil
	}
	problem := n.Check()
	if problem == "" {
		return nil
	}
	for _, known := range []string{"contains duplicates", "number set", "numeric value", "significant digits", "number with magnitude"} {
		if strings.Contains(problem, known) {
			return invalid(problem)
		}
	}
	return invalid(badStart + ": " + problem)
}

// A walk is a query or a scan of a table or one of its indexes.
type walk struct {
	t     *table
	s     *schema
	r     *request
	x     *index // nil for the table
	keys  []keyPart
	start item.Item
	rng   hyperbee.RangeOptions
	old   string // name of the filter of the old kind
	all   bool   // more is asked for than the index has
}

// begin finds what a walk is of.
func (d *Door) walk(t *table, r *request, old string) (*walk, error) {
	w := &walk{t: t, s: t.now.Load(), r: r, start: r.item("ExclusiveStartKey"), old: old}
	w.keys = w.s.Keys
	name := r.str("IndexName")
	if name == "" {
		return w, nil
	}
	if w.x = w.s.index(name); w.x == nil {
		return nil, invalid("The table does not have the specified index: " + name)
	}
	if !w.x.local && r.flag("ConsistentRead") {
		return nil, invalid("Consistent reads are not supported on global secondary indexes")
	}
	if w.x.Filling {
		return nil, invalid("Cannot read from backfilling global secondary index: " + name)
	}
	w.keys = w.x.Keys
	w.all = w.x.Projection != "ALL" && (w.r.str("Select") == "ALL_ATTRIBUTES" || len(w.missing()) > 0)
	return w, nil
}

// startNames are the attributes of a key to go on from.
func (w *walk) startNames() []string {
	out := names(w.s.Keys)
	for _, name := range names(w.keys) {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// missing are the attributes that are asked for, and that the index does not have.
func (w *walk) missing() (out []string) {
	if w.x == nil || w.x.Projection == "ALL" {
		return nil
	}
	for _, p := range w.r.paths() {
		if name := p[0].Name; !slices.Contains(w.startNames(), name) && !slices.Contains(w.x.Include, name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func (w *walk) checkFull() error {
	if w.x == nil || w.x.local {
		return nil
	}
	if none := w.missing(); len(none) > 0 {
		return invalid(badValues + "Global secondary index " + w.x.Name + " does not project " + quoteAll(sorted(none)))
	}
	if w.all {
		return invalid(badValues + "Select type ALL_ATTRIBUTES is not supported for global secondary index " + w.x.Name +
			" because its projection type is not ALL")
	}
	return nil
}

// prefix is what the keys begin with that are walked.
func (w *walk) prefix() []byte {
	if w.x != nil {
		return w.x.prefix()
	}
	return []byte{keyItem}
}

// startKey is the key of the tree to go on from.
func (w *walk) startKey() []byte {
	key := w.s.itemKey(w.s.keyOf(w.start))
	if w.x == nil {
		return key
	}
	return w.x.key(w.s, w.start, key)
}

func (d *Door) query(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.useForItems(ctx, r.str("TableName"))
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	w, err := d.walk(t, r, "QueryFilter")
	if err != nil {
		return nil, err
	}
	conditions, err := r.keyFilters()
	if err != nil {
		return nil, err
	}
	if err := first(
		func() error { return w.checkKeyConditions(conditions) },
		func() error { return w.checkQueryStart(conditions) },
		w.checkPaths,
		func() error { return w.checkFilterKeys() },
		w.checkFull,
		w.checkFilterPaths,
	); err != nil {
		return nil, err
	}
	w.bounds(conditions)
	return w.run(ctx)
}

func find(conditions []filter, name string) *filter {
	for i := range conditions {
		if conditions[i].name == name {
			return &conditions[i]
		}
	}
	return nil
}

// composite reports whether a part of the key is of several attributes.
func (w *walk) composite() bool {
	n := hashes(w.keys)
	return n > 1 || len(w.keys) > n+1
}

// checkComposite looks whether conditions are on the attributes of a key with
// several in a part: all of the first, and then a number of those of the second
// from left to right, of which only the last may be compared otherwise than with
// =.
func (w *walk) checkComposite(conditions []filter) error {
	if w.start != nil && !w.startWhole() {
		return invalid(badStart)
	}
	n, used, open := hashes(w.keys), 0, false
	for i, k := range w.keys {
		f := find(conditions, k.Name)
		switch {
		case i < n && (f == nil || f.op != "EQ"):
			return invalid("Query key condition not supported: each HASH key attribute needs an equality condition: " + k.Name)
		case f == nil:
			open = true
			continue
		case open:
			return invalid("Query key condition not supported: RANGE key attributes need an equality condition from left to right: only the last may have another: " + k.Name)
		}
		open = f.op != "EQ"
		used++
		if err := w.checkKeyValues(f, k, i < n); err != nil {
			return err
		}
	}
	if used < len(conditions) {
		for _, f := range conditions {
			if !slices.Contains(names(w.keys), f.name) {
				return invalid("Query condition missed key schema element: " + f.name)
			}
		}
	}
	return nil
}

// startWhole reports whether a key to go on from is one.
func (w *walk) startWhole() bool {
	if len(w.start) != len(w.startNames()) {
		return false
	}
	for i, k := range w.keys {
		if w.s.checkKeyPart(w.start, k.Name, i < hashes(w.keys)) != nil {
			return false
		}
	}
	return w.s.checkKey(w.s.keyOf(w.start)) == nil
}

// checkKeyValues looks at the values of a condition on a key.
func (w *walk) checkKeyValues(f *filter, k keyPart, hash bool) error {
	if contains([]string{"NULL", "NOT_NULL", "NE", "CONTAINS", "NOT_CONTAINS", "IN"}, f.op) {
		return invalid("Attempted conditional constraint is not an indexable operation")
	}
	for _, v := range f.values {
		if v.Type != w.s.typeOf(k.Name) {
			return invalid(badValues + "Condition parameter type does not match schema type")
		}
	}
	if hash && f.op != "EQ" {
		return invalid("Query key condition not supported")
	}
	for _, v := range f.values {
		if v.Text == "" && f.op != "BEGINS_WITH" {
			return invalid(badValues + emptyKey(v, k.Name))
		}
	}
	return nil
}

// checkKeyConditions looks whether conditions are on the keys.
func (w *walk) checkKeyConditions(conditions []filter) error {
	if w.composite() {
		return w.checkComposite(conditions)
	}
	if len(conditions) > 2 {
		return errConditions
	}
	if w.start != nil && len(w.start) != len(w.startNames()) {
		return invalid(badStart)
	}
	for i, k := range w.keys {
		hash := i == 0
		if w.start != nil {
			if _, ok := w.start[k.Name]; !ok {
				return invalid(badStart)
			}
			if err := w.s.checkKeyPart(w.start, k.Name, hash); err != nil {
				return err
			}
		}
		if hash && len(w.keys) == 1 && len(conditions) > 1 {
			return invalid("Query key condition not supported")
		}
		f := find(conditions, k.Name)
		if f == nil {
			if hash || len(conditions) > 1 {
				return invalid("Query condition missed key schema element: " + k.Name)
			}
			continue
		}
		if err := w.checkKeyValues(f, k, hash); err != nil {
			return err
		}
	}
	return nil
}

// checkQueryStart looks whether a query may go on from a key.
func (w *walk) checkQueryStart(conditions []filter) error {
	if w.start == nil {
		return nil
	}
	if err := w.s.checkKey(w.s.keyOf(w.start)); err != nil {
		return invalid(badStart + ": " + err.(*Error).Message)
	}
	if w.composite() {
		if !matches(w.start, conditions, false) {
			return invalid("The provided starting key is outside query boundaries based on provided conditions")
		}
		return nil
	}
	same := w.start[w.keys[0].Name].Equal(find(conditions, w.keys[0].Name).values[0])
	f := find(conditions, rangeName(w.keys))
	if f == nil {
		if !same {
			return invalid("The provided starting key is outside query boundaries based on provided conditions")
		}
		return nil
	}
	if !matches(w.start, []filter{*f}, false) {
		return invalid("The provided starting key does not match the range key predicate")
	}
	if !same {
		return invalid("The query can return at most one row and cannot be restarted")
	}
	return nil
}

func (w *walk) checkPaths() error {
	if w.r.project == nil {
		return nil
	}
	return w.s.checkNested(w.r.project.Nested)
}

func (w *walk) checkFilterPaths() error {
	if w.r.filter == nil {
		return nil
	}
	return w.s.checkNested(w.r.filter.Nested)
}

// checkFilterKeys looks for filters on keys, which only conditions may be on.
func (w *walk) checkFilterKeys() error {
	for _, k := range w.keys {
		if w.r.filter != nil && w.r.filter.Heads[k.Name] {
			return invalid("Filter Expression can only contain non-primary key attributes: Primary key attribute: " + k.Name)
		}
		if w.r.filter == nil && find(w.r.filters(w.old), k.Name) != nil {
			return invalid("QueryFilter can only contain non-primary key attributes: Primary key attribute: " + k.Name)
		}
	}
	return nil
}

// bounds makes a range of keys of conditions.
func (w *walk) bounds(conditions []filter) {
	key := item.Item{}
	n := hashes(w.keys)
	for _, k := range w.keys[:n] {
		key[k.Name] = find(conditions, k.Name).values[0]
	}
	prefix := (&index{Keys: w.keys}).appendHash(w.prefix(), key)
	var f *filter
	for _, k := range w.keys[n:] {
		next := find(conditions, k.Name)
		if next == nil {
			break
		}
		if f != nil {
			prefix = appendPart(prefix, f.values[0]) // all but the last say what is equal
		}
		f = next
	}
	o := &w.rng
	o.Gte, o.Lt = prefix, after(prefix)
	if f != nil {
		part := func(i int) []byte { return appendPart(slices.Clone(prefix), f.values[i]) }
		switch f.op {
		case "EQ":
			o.Gte, o.Lt = part(0), after(part(0))
		case "LT":
			o.Lt = part(0)
		case "LE":
			o.Lt = after(part(0))
		case "GT":
			o.Gte = after(part(0))
		case "GE":
			o.Gte = part(0)
		case "BETWEEN":
			o.Gte, o.Lt = part(0), after(part(1))
		case "BEGINS_WITH":
			begin := appendEscaped(slices.Clone(prefix), f.values[0].Text)
			o.Gte, o.Lt = begin, after(begin)
		}
	}
	if n := w.r.Get("ScanIndexForward"); n != nil && !n.Bool {
		o.Reverse = true
	}
	if w.start != nil {
		if o.Reverse {
			o.Lt = w.startKey()
		} else {
			o.Gt, o.Gte = w.startKey(), nil
		}
	}
}

func (d *Door) scan(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.useForItems(ctx, r.str("TableName"))
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	w, err := d.walk(t, r, "ScanFilter")
	if err != nil {
		return nil, err
	}
	if err := first(w.checkScanStart, w.checkFull, func() error {
		if w.start == nil {
			return nil
		}
		if err := w.s.checkKey(w.s.keyOf(w.start)); err != nil {
			return invalid(badStart + ": " + err.(*Error).Message)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if err := w.segment(); err != nil {
		return nil, err
	}
	if err := first(w.checkPaths, w.checkFilterPaths); err != nil {
		return nil, err
	}
	return w.run(ctx)
}

func (w *walk) checkScanStart() error {
	if w.start == nil {
		return nil
	}
	if len(w.start) != len(w.startNames()) {
		if w.x != nil {
			return invalid(badStart)
		}
		return invalid(badStart + ": " + mismatch().Message)
	}
	if w.x == nil {
		return nil
	}
	for i, k := range w.keys {
		if _, ok := w.start[k.Name]; !ok {
			return invalid(badStart)
		}
		if err := w.s.checkKeyPart(w.start, k.Name, i == 0); err != nil {
			return err
		}
	}
	return nil
}

// segment makes a range of keys of the part of the table that is scanned. The
// first 12 bits of buckets say which it is.
func (w *walk) segment() error {
	prefix := w.prefix()
	w.rng.Gte, w.rng.Lt = prefix, after(prefix)
	if total := w.r.int("TotalSegments"); total > 1 {
		segment := w.r.int("Segment")
		bound := func(n int) []byte {
			at := int(math.Ceil(4096 * float64(n) / float64(total)))
			if at >= 4096 {
				return after(prefix)
			}
			return append(slices.Clone(prefix), byte(at>>4), byte(at<<4))
		}
		w.rng.Gte, w.rng.Lt = bound(segment), bound(segment+1)
	}
	if w.start == nil {
		return nil
	}
	start := w.startKey()
	if string(start) < string(w.rng.Gte) || string(start) >= string(w.rng.Lt) {
		return invalid(badStart+": Invalid ExclusiveStartKey. Please use ExclusiveStartKey with correct Segment. TotalSegments: %d Segment: %d",
			w.r.int("TotalSegments"), w.r.int("Segment"))
	}
	w.rng.Gt, w.rng.Gte = start, nil
	return nil
}

// page is what a walk has found.
type page struct {
	items             []byte // JSON
	count, scanned    int
	bytes             int // as a page counts them
	table, index      int // bytes that were read, as capacity counts them
	last              stored
	limit             int
	whole             bool // the index has whole items
	filtered, counted bool
}

// pages are buffers for what is found.
var pages = sync.Pool{New: func() any { return new([]byte) }}

// run walks until the page is full.
func (w *walk) run(ctx context.Context) ([]byte, error) {
	if err := w.t.settled(ctx); err != nil {
		return nil, err
	}
	w.t.whole.RLock()
	defer w.t.whole.RUnlock()
	buf := pages.Get().(*[]byte)
	p := page{limit: math.MaxInt, items: (*buf)[:0]}
	defer func() {
		*buf = p.items
		pages.Put(buf)
	}()
	if w.r.has("Limit") {
		p.limit = w.r.int("Limit")
	}
	p.whole = w.x == nil || w.x.Projection == "ALL"
	p.filtered = w.r.filter != nil || w.r.has(w.old)
	p.counted = w.r.str("Select") == "COUNT"
	for e, err := range w.t.tree.Range(ctx, w.rng) {
		if err != nil {
			return nil, fmt.Errorf("read table %s: %w", w.t.id, err)
		}
		b := stored(e.Value)
		if w.x != nil {
			if b, err = readStored(ctx, w.t.tree, w.x.itemKey(w.s, e.Key)); err != nil {
				return nil, fmt.Errorf("read table %s: %w", w.t.id, err)
			}
			if b == nil {
				continue // it is gone since
			}
		}
		if p.full() {
			break
		}
		if err := w.take(&p, b, e.Key); err != nil {
			return nil, err
		}
	}
	return w.result(&p)
}

func (p *page) full() bool { return p.scanned >= p.limit || p.bytes >= maxPage }

// take puts an item on the page, if the filter lets it.
func (w *walk) take(p *page, b stored, key []byte) error {
	size, bytes, json, err := b.split()
	if err != nil {
		return err
	}
	paths := w.r.paths()
	var i item.Item
	if w.x != nil || p.filtered || paths != nil {
		if i, err = b.item(); err != nil {
			return err
		}
	}
	if w.x != nil {
		if !w.x.hasKey(w.s, i) || string(w.x.key(w.s, i, w.x.itemKey(w.s, key))) != string(key) {
			return nil // it is elsewhere in the index since
		}
		part := w.x.project(w.s, i)
		if !p.whole {
			size, bytes = part.Size(), part.PageSize(rangeName(w.s.Keys))
		}
		p.index += size
		if w.all {
			p.table += b.size()
		} else {
			i = part
		}
	} else {
		p.table += size
	}
	p.scanned++
	p.bytes += bytes
	p.last = b
	if p.filtered && !w.r.kept(i, w.old) {
		return nil
	}
	p.count++
	if p.counted {
		return nil
	}
	if len(p.items) > 0 {
		p.items = append(p.items, ',')
	}
	switch {
	case paths != nil:
		p.items = pickItem(i, paths).AppendJSON(p.items)
	case w.x != nil && !w.all && !p.whole:
		p.items = i.AppendJSON(p.items)
	default:
		p.items = append(p.items, json...)
	}
	return nil
}

// result is the answer of a walk.
func (w *walk) result(p *page) ([]byte, error) {
	o := newObject()
	if !p.counted {
		o.name("Items")
		o = append(append(append(o, '['), p.items...), ']')
	}
	o.int("Count", p.count)
	o.int("ScannedCount", p.scanned)
	if p.full() && p.last != nil {
		i, err := p.last.item()
		if err != nil {
			return nil, err
		}
		key := item.Item{}
		for _, name := range w.startNames() {
			key[name] = i[name]
		}
		o.item("LastEvaluatedKey", key)
	}
	w.consumed(&o, p)
	return o.end(), nil
}

// consumed writes what a walk has cost.
func (w *walk) consumed(o *object, p *page) {
	units := func(bytes int) float64 {
		u := math.Ceil(float64(bytes) / 4096)
		if !w.r.flag("ConsistentRead") {
			u /= 2
		}
		return u
	}
	c := cost{table: units(p.table)}
	switch {
	case w.x == nil:
	case w.x.local:
		c.local = map[string]float64{w.x.Name: units(p.index)}
	default:
		c.global = map[string]float64{w.x.Name: units(p.index)}
	}
	if w.r.counted() && c.table+sum(c.global)+sum(c.local) == 0 { // looking costs as much as finding a little
		c.table = units(1)
	}
	o.consumed(w.r, w.s.Name, c)
}

func unitsObject(u float64) []byte {
	var o object
	o.units("CapacityUnits", u)
	return o.end()
}
