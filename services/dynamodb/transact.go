package dynamodb

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// Transactions. One that changes a single table is one append to it. One that
// changes several is first written to the catalog as an intent: that append is
// the moment it is done. Then each table gets its part, together with the number
// of the transaction, by which what was done before a crash is known. All tables
// are held meanwhile: who reads any of them waits.

// An op is a put or a delete of a tree.
type op struct {
	Key   []byte `json:"k"`
	Value []byte `json:"v,omitempty"`
	Put   bool   `json:"p,omitempty"`
}

// An intent is a transaction that is done, but perhaps not written to all tables.
type intent struct {
	Version int             `json:"version"`
	Tables  map[string][]op `json:"tables"` // by names
	IDs     map[string]string
}

// A debt is the part of a transaction that a table has not got yet.
type debt struct {
	number uint64
	ops    []op
}

func intentKey(writer [8]byte, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte{catIntent}, writer[:]...), number)
}

// settle writes what a table is owed. The caller has the writer's place.
func (t *table) settle(ctx context.Context) error {
	owed := t.owed.Load()
	if owed == nil {
		return nil
	}
	b, err := t.tree.Batch(ctx)
	if err != nil {
		return fmt.Errorf("settle table %s: %w", t.id, err)
	}
	defer b.Close()
	w := t.tree.Writer()
	applied := append([]byte{keyApplied}, w[:]...)
	have, err := b.Get(ctx, applied)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("settle table %s: %w", t.id, err)
	}
	if len(have) != 8 || binary.BigEndian.Uint64(have) < owed.number {
		for _, o := range owed.ops {
			if o.Put {
				err = b.Put(ctx, o.Key, o.Value)
			} else {
				err = b.Delete(ctx, o.Key)
			}
			if err != nil {
				return fmt.Errorf("settle table %s: %w", t.id, err)
			}
		}
		err = b.Put(ctx, applied, binary.BigEndian.AppendUint64(nil, owed.number))
		if err == nil {
			err = b.Flush(ctx)
		}
		if err != nil {
			return fmt.Errorf("settle table %s: %w", t.id, err)
		}
		counters, err := t.tree.Get(ctx, append([]byte{keyCount}, w[:]...))
		if err == nil {
			err = t.state.read(counters)
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("settle table %s: %w", t.id, err)
		}
	}
	t.owed.Store(nil)
	return nil
}

// settled makes sure that nothing is owed before a table is read.
func (t *table) settled(ctx context.Context) error {
	if t.owed.Load() == nil {
		return nil
	}
	t.writer <- struct{}{}
	defer func() { <-t.writer }()
	return t.settle(ctx)
}

// recover writes what transactions owe to tables, after a crash.
func (d *Door) recover(ctx context.Context) error {
	w := d.catalog.tree.Writer()
	var numbers []uint64
	var intents []intent
	if err := d.catalog.each(ctx, catIntent, string(w[:]), func(rest string, b []byte) (bool, error) {
		if len(rest) != 16 || rest[:8] != string(w[:]) {
			return false, nil
		}
		var in intent
		if err := json.Unmarshal(b, &in); err != nil {
			return false, fmt.Errorf("read transaction: %w", err)
		}
		numbers = append(numbers, binary.BigEndian.Uint64([]byte(rest[8:])))
		intents = append(intents, in)
		return true, nil
	}); err != nil {
		return err
	}
	// Numbers rise, also when this device has become another writer.
	if err := d.catalog.each(ctx, catLast, "", func(_ string, b []byte) (bool, error) {
		var n uint64
		err := json.Unmarshal(b, &n)
		d.catalog.next = max(d.catalog.next, n)
		return true, err
	}); err != nil {
		return fmt.Errorf("read transactions: %w", err)
	}
	for i, in := range intents {
		for name, ops := range in.Tables {
			t, err := d.use(ctx, name)
			if errors.Is(err, ErrNotFound) {
				continue // it was deleted meanwhile
			}
			if err != nil {
				return err
			}
			if t.id == in.IDs[name] {
				t.owed.Store(&debt{numbers[i], ops})
				err = t.settled(ctx)
			}
			d.release(t)
			if err != nil {
				return err
			}
		}
		d.catalog.mu.Lock()
		err := d.catalog.change(ctx, [][]byte{intentKey(w, numbers[i])}, []any{nil})
		d.catalog.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// lastKey has the number of the last transaction of a writer.
func lastKey(w [8]byte) []byte { return append([]byte{catLast}, w[:]...) }

// A noting is a batch that keeps what it is to write.
type noting struct {
	Batch
	ops []op
}

func (n *noting) Put(ctx context.Context, key, value []byte) error {
	n.ops = append(n.ops, op{key, value, true})
	return n.Batch.Put(ctx, key, value)
}

func (n *noting) Delete(ctx context.Context, key []byte) error {
	n.ops = append(n.ops, op{Key: key})
	return n.Batch.Delete(ctx, key)
}

// together does a change of several tables, of which there is one tx each by its
// name, wholly or not at all.
func (d *Door) together(ctx context.Context, tables map[string]*table, run func(map[string]*tx) error) error {
	order := make([]string, 0, len(tables))
	for name := range tables {
		order = append(order, name)
	}
	slices.Sort(order)
	if len(order) == 1 {
		return tables[order[0]].write(ctx, func(x *tx) error { return run(map[string]*tx{order[0]: x}) })
	}
	ctx = context.WithoutCancel(ctx)
	all, notes := map[string]*tx{}, map[string]*noting{}
	for _, name := range order {
		t := tables[name]
		t.writer <- struct{}{}
		defer func() { <-t.writer }()
		x, err := t.begin(ctx)
		if err != nil {
			return err
		}
		defer x.close()
		notes[name] = &noting{Batch: x.batch}
		x.batch = notes[name]
		all[name] = x
	}
	if err := run(all); err != nil {
		return err
	}
	return d.commit(ctx, order, all, notes)
}

// commit writes the intent, and then the tables.
func (d *Door) commit(ctx context.Context, order []string, all map[string]*tx, notes map[string]*noting) error {
	in := intent{schemaVersion, map[string][]op{}, map[string]string{}}
	for _, name := range order {
		x := all[name]
		if x.size > 0 && x.state != x.t.state {
			w := x.t.tree.Writer()
			x.put(append([]byte{keyCount}, w[:]...), x.state.encode())
		}
		if x.err != nil {
			return x.err
		}
		if x.size > 0 {
			in.Tables[name], in.IDs[name] = notes[name].ops, x.t.id
		}
	}
	switch len(in.Tables) {
	case 0:
		return nil
	case 1:
		for name := range in.Tables {
			return all[name].flush()
		}
	}
	for _, name := range order {
		whole := &all[name].t.whole
		whole.Lock()
		defer whole.Unlock()
	}
	c := &d.catalog
	w := c.tree.Writer()
	c.mu.Lock()
	number := c.next + 1
	err := c.change(ctx, [][]byte{intentKey(w, number), lastKey(w)}, []any{in, number})
	if err == nil {
		c.next = number
	}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write transaction: %w", err)
	}
	return d.payOut(ctx, order, all, notes, number)
}

// payOut writes the tables of an intent. It is done, whatever happens: what can't
// be written now is owed.
func (d *Door) payOut(ctx context.Context, order []string, all map[string]*tx, notes map[string]*noting, number uint64) error {
	owing := false
	for _, name := range order {
		x, note := all[name], notes[name]
		if x.size == 0 {
			continue
		}
		// The number goes into the same append.
		w := x.t.tree.Writer()
		err := note.Batch.Put(ctx, append([]byte{keyApplied}, w[:]...), binary.BigEndian.AppendUint64(nil, number))
		if err == nil {
			err = note.Batch.Flush(ctx)
		}
		if err != nil {
			d.o.Log.Error("table is owed a transaction", "table", x.t.id, "err", err)
			x.t.owed.Store(&debt{number, note.ops})
			owing = true
			continue
		}
		x.t.state = x.state
		if x.s != x.t.now.Load() {
			x.t.now.Store(x.s)
		}
	}
	if owing {
		return nil
	}
	d.catalog.mu.Lock()
	defer d.catalog.mu.Unlock()
	if err := d.catalog.change(ctx, [][]byte{intentKey(d.catalog.tree.Writer(), number)}, []any{nil}); err != nil {
		// It is known by its number that nothing of it is left to do.
		d.o.Log.Error("transaction was not removed", "number", number, "err", err)
	}
	return nil
}

// The requests.

var (
	checkFields = []field{tableName, keyMap, must(str("ConditionExpression")), onFailure, attrValues, attrNames}

	transactWriteShape = []field{capacity, metrics, str("ClientRequestToken"), {"TransactItems", shape{kind: kList, notNull: true,
		minLen: 1, maxLen: 100, of: &shape{kind: kStruct, name: "TransactWriteItem", fields: []field{
			fieldStruct("ConditionCheck", "ConditionCheck", checkFields...),
			fieldStruct("Put", "Put", tableName, itemMap, str("ConditionExpression"), onFailure, attrValues, attrNames),
			fieldStruct("Delete", "Delete", tableName, keyMap, str("ConditionExpression"), onFailure, attrValues, attrNames),
			fieldStruct("Update", "Update", tableName, keyMap, must(str("UpdateExpression")), str("ConditionExpression"), onFailure, attrValues, attrNames),
		}}}}}
	transactGetShape = []field{capacity, {"TransactItems", shape{kind: kList, notNull: true, minLen: 1, maxLen: 100,
		of: &shape{kind: kStruct, name: "TransactGetItem", fields: []field{
			must(fieldStruct("Get", "Get", tableName, keyMap, str("ProjectionExpression"), attrNames)),
		}}}}}
)

// An action is a part of a transaction.
type action struct {
	*request
	kind string // "ConditionCheck", "Put", "Delete" or "Update"
}

// actions are the parts of a transaction, each of one kind.
func (r *request) actions() ([]action, error) {
	if r.parts != nil {
		return r.parts, nil
	}
	var out []action
	for _, n := range r.Get("TransactItems").List {
		if len(n.Keys) != 1 {
			return nil, invalid("TransactItems can only contain one of Check, Put, Update or Delete")
		}
		out = append(out, action{&request{Node: n.List[0]}, n.Keys[0]})
	}
	r.parts = out
	return out, nil
}

func checkTransactWrite(r *request) error {
	if token := r.str("ClientRequestToken"); len(token) > 36 {
		return invalid("1 validation error detected: Value '" + token + "' at 'clientRequestToken' failed to satisfy constraint: Member must have length less than or equal to 36")
	}
	all, err := r.actions()
	if err != nil {
		return err
	}
	for _, a := range all {
		expressions := []string{"ConditionExpression"}
		name := "Key"
		switch a.kind {
		case "Put":
			name = "Item"
		case "Update":
			expressions = []string{"UpdateExpression", "ConditionExpression"}
		}
		if err := first(
			func() error { return a.checkParams(expressions, nil) },
			func() error { return a.checkValues(name) },
			func() error {
				if a.kind == "Put" {
					return checkSize(a.item("Item"))
				}
				return nil
			},
			a.parse); err != nil {
			return err
		}
	}
	return nil
}

func checkTransactGet(r *request) error {
	for _, n := range r.Get("TransactItems").List {
		g := &request{Node: n.Get("Get")}
		if err := first(
			func() error { return g.checkParams([]string{"ProjectionExpression"}, nil) },
			func() error { return g.checkValues("Key") },
			g.parse); err != nil {
			return err
		}
	}
	return nil
}

// A reason is why a part of a transaction was not done.
type reason struct {
	code, message string
	item          item.Item
}

// cancelled is the error of a transaction of which something was not done.
func cancelled(reasons []reason) *Error {
	codes := ""
	for i, r := range reasons {
		if i > 0 {
			codes += ", "
		}
		codes += r.code
	}
	e := &Error{Type: "TransactionCanceledException",
		Message: "Transaction cancelled, please refer cancellation reasons for specific reasons [" + codes + "]"}
	e.extra = func(b []byte) []byte {
		b = append(b, `,"CancellationReasons":[`...)
		for i, r := range reasons {
			if i > 0 {
				b = append(b, ',')
			}
			var o object
			o.str("Code", r.code)
			if r.message != "" {
				o.str("Message", r.message)
			}
			if r.item != nil {
				o.item("Item", r.item)
			}
			b = append(b, o.end()...)
		}
		return append(b, ']')
	}
	return e
}

// reasonOf makes a reason of an error of one part.
func reasonOf(err error) (reason, bool) {
	e := new(Error)
	if err == nil {
		return reason{code: "None"}, true
	}
	if !errors.As(err, &e) {
		return reason{}, false
	}
	switch e.Type {
	case "ConditionalCheckFailedException":
		return reason{code: "ConditionalCheckFailed", message: e.Message}, true
	case "ValidationException":
		return reason{code: "ValidationError", message: e.Message}, true
	}
	return reason{}, false
}

// A token is what is kept of a transaction, so that it is not done twice.
type token struct {
	Version int    `json:"version"`
	Hash    string `json:"hash"`
	Time    int64  `json:"time"`
}

func (d *Door) transactWriteItems(ctx context.Context, r *request) ([]byte, error) {
	all, err := r.actions()
	if err != nil {
		return nil, err
	}
	var used []string
	for _, a := range all {
		if name := a.str("TableName"); !contains(used, name) {
			used = append(used, name)
		}
	}
	tables, release, err := d.useAll(ctx, used, nil)
	if err != nil {
		return nil, err
	}
	defer release()
	costs := map[string]*cost{}
	var metrics map[string][]byte
	slices.Sort(used)
	if err := d.together(ctx, tables, func(txs map[string]*tx) error {
		clear(costs)
		metrics = map[string][]byte{}
		note, err := txs[used[0]].once(r)
		if note == nil || err != nil {
			return err
		}
		return transact(r, all, txs, note, costs, metrics)
	}); err != nil {
		return nil, err
	}
	var o object
	o.costs(r, used, costs)
	if len(metrics) > 0 {
		var m object
		for _, name := range used {
			if b := metrics[name]; b != nil {
				m.raw2(name, append(append([]byte{'['}, b...), ']'))
			}
		}
		o.raw("ItemCollectionMetrics", m.end())
	}
	return o.end(), nil
}

// value is the cost; none is nothing.
func (c *cost) value() cost {
	if c == nil {
		return cost{}
	}
	return *c
}

func addCost(costs map[string]*cost, name string, c cost, times float64) {
	if costs[name] == nil {
		costs[name] = new(cost)
	}
	costs[name].add(c, times)
}

// costs writes what a request has cost by tables, if that was asked for.
func (o *object) costs(r *request, order []string, costs map[string]*cost) {
	var list []byte
	for _, name := range order {
		if c := consumed(r, name, costs[name].value()); c != nil {
			if list != nil {
				list = append(list, ',')
			}
			list = append(list, c...)
		}
	}
	if list != nil {
		o.raw("ConsumedCapacity", append(append([]byte{'['}, list...), ']'))
	}
}

// once returns what notes the token of a transaction, or nil if it was done
// already.
func (x *tx) once(r *request) (note func(), err error) {
	name := r.str("ClientRequestToken")
	if name == "" {
		return func() {}, nil
	}
	sum := sha256.Sum256([]byte(shown(r.Get("TransactItems"), true)))
	now := token{schemaVersion, base64.StdEncoding.EncodeToString(sum[:]), millis(x.t.door.o.Clock.Now())}
	key := append([]byte{keyToken}, name...)
	b, err := x.batch.Get(x.ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		x.err = err
		return nil, err
	}
	var have token
	if err == nil && json.Unmarshal(b, &have) == nil && now.Time-have.Time < tokenTime.Milliseconds() {
		if have.Hash != now.Hash {
			return nil, &Error{Type: "IdempotentParameterMismatchException",
				Message: "The request rejected because it was retried with a different payload but with the same idempotent token"}
		}
		return nil, nil
	}
	text, err := json.Marshal(now)
	if err != nil {
		return nil, err
	}
	return func() {
		x.forgetTokens(now.Time)
		x.put(key, text)
	}, nil
}

// forgetTokens removes some tokens that are too old.
func (x *tx) forgetTokens(now int64) {
	n := 0
	var old [][]byte
	for e, err := range x.batch.Range(x.ctx, tokenRange) {
		if err != nil {
			x.err = err
			return
		}
		var have token
		if json.Unmarshal(e.Value, &have) != nil || now-have.Time >= tokenTime.Milliseconds() {
			old = append(old, e.Key)
		}
		if n++; n == 4 {
			break
		}
	}
	for _, key := range old {
		x.delete(key)
	}
}

var errTwice = invalid("Transaction request cannot include multiple operations on one item")

// maxTransact is how many bytes of items a transaction may have.
const maxTransact = 4 << 20

var errTransactSize = invalid(badValues + "Aggregate size of all items in the transaction: size cannot exceed 4194304 bytes")

// alone are the reasons of a transaction of which a part makes no sense: nothing
// is said of the others.
func alone(reasons []reason, i int) []reason {
	for j := range reasons {
		if j != i {
			reasons[j] = reason{code: "None"}
		}
	}
	return reasons
}

// transact does the parts of a transaction, if all can be done.
func transact(r *request, all []action, txs map[string]*tx, note func(), costs map[string]*cost, metrics map[string][]byte) error {
	reasons := make([]reason, len(all))
	changes := make([]change, len(all))
	seen := map[string]bool{}
	failed, size := false, 0
	for i, a := range all {
		name := a.str("TableName")
		x := txs[name]
		c, err := x.plan(a)
		if x.err != nil {
			return x.err
		}
		if id := name + "\x00" + string(c.key); c.key != nil {
			if seen[id] {
				return errTwice
			}
			seen[id] = true
		}
		var ok bool
		if reasons[i], ok = reasonOf(err); !ok {
			return err
		}
		if err != nil {
			failed = true
			if e := new(Error); errors.As(err, &e) && e.Type == "ConditionalCheckFailedException" && e.extra != nil {
				if reasons[i].item, err = c.old.item(); err != nil {
					return err
				}
			}
			if reasons[i].code == "ValidationError" {
				return cancelled(alone(reasons, i))
			}
			continue
		}
		if size += c.now.Size(); size > maxTransact {
			return errTransactSize
		}
		changes[i] = c
		u, err := x.s.cost(r, c)
		if err != nil {
			return err
		}
		addCost(costs, name, u, 2)
		if m := collection(r, x.s, a.item("Key")); m != nil && a.kind != "Put" {
			metrics[name] = append(metrics[name], m...)
		}
	}
	if failed {
		return cancelled(reasons)
	}
	note()
	for i, a := range all {
		if a.kind == "ConditionCheck" {
			continue
		}
		if err := txs[a.str("TableName")].apply(changes[i]); err != nil {
			return err
		}
	}
	return nil
}

// plan makes the change that a part of a transaction is.
func (x *tx) plan(a action) (c change, err error) {
	if a.kind == "Update" {
		c, _, err = x.update(a.request)
		return c, err
	}
	key := a.item("Key")
	if a.kind == "Put" {
		c.now = a.item("Item")
		key = c.now
		err = x.s.checkItem(c.now)
	} else {
		err = x.s.checkKey(key)
	}
	if err != nil {
		return change{}, err
	}
	c.key = x.s.itemKey(key)
	if c.old, err = x.get(c.key); err != nil {
		return c, err
	}
	return c, a.decide(c.old)
}

func (d *Door) transactGetItems(ctx context.Context, r *request) ([]byte, error) {
	parts := r.Get("TransactItems").List
	var used []string
	for _, n := range parts {
		if name := n.Get("Get").Get("TableName").Str; !contains(used, name) {
			used = append(used, name)
		}
	}
	tables, release, err := d.useAll(ctx, used, nil)
	if err != nil {
		return nil, err
	}
	defer release()
	slices.Sort(used)
	// Nobody writes while all are read.
	for _, name := range used {
		t := tables[name]
		t.writer <- struct{}{}
		defer func() { <-t.writer }()
		if err := t.settle(ctx); err != nil {
			return nil, err
		}
	}
	costs := map[string]*cost{}
	seen, size := map[string]bool{}, 0
	list := []byte{'['}
	for i, n := range parts {
		g := &request{Node: n.Get("Get")}
		if err := g.parse(); err != nil {
			return nil, err
		}
		t := tables[g.str("TableName")]
		s := t.now.Load()
		key := g.item("Key")
		if err := s.checkKey(key); err != nil {
			reasons := make([]reason, len(parts))
			reasons[i], _ = reasonOf(err)
			return nil, cancelled(alone(reasons, i))
		}
		at := s.itemKey(key)
		id := s.Name + "\x00" + string(at)
		if seen[id] {
			return nil, errTwice
		}
		seen[id] = true
		b, err := readStored(ctx, t.tree, at)
		if err != nil {
			return nil, err
		}
		if size += b.size(); size > maxTransact {
			return nil, errTransactSize
		}
		addCost(costs, s.Name, cost{table: readUnits(b.size(), true)}, 2)
		if i > 0 {
			list = append(list, ',')
		}
		var o object
		if b != nil {
			text, err := pick(b, g.paths())
			if err != nil {
				return nil, err
			}
			o.raw("Item", text)
		}
		list = append(list, o.end()...)
	}
	var o object
	o.raw("Responses", append(list, ']'))
	o.costs(r, used, costs)
	return o.end(), nil
}
