package dynamodb

import (
	"context"
	"slices"

	"github.com/cloudbevy/bevy/services/dynamodb/expr"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

func pickItem(i item.Item, paths []expr.Path) item.Item { return expr.Pick(i, paths) }

// ofTable is the part of a batch that is about one table.
func (r *request) ofTable(name string) *request {
	return &request{Node: r.Get("RequestItems").Get(name)}
}

func checkBatchGet(r *request) error {
	n := 0
	for _, name := range r.Get("RequestItems").Keys {
		part := r.ofTable(name)
		if err := first(
			func() error { return part.checkParams([]string{"ProjectionExpression"}, []string{"AttributesToGet"}) },
			part.checkToGet, part.parse); err != nil {
			return err
		}
		seen := map[string]bool{}
		for _, key := range part.Get("Keys").List {
			if problem := key.Check(); problem != "" {
				return invalid(problem)
			}
			text := string(key.Item().AppendJSON(nil))
			if seen[text] {
				return invalid("Provided list of item keys contains duplicates")
			}
			seen[text] = true
			if n++; n > 100 {
				return invalid("Too many items requested for the BatchGetItem call")
			}
		}
	}
	return nil
}

// useAll returns tables by their names, until release is called. Each is looked at
// by check, if there is one, before the next is.
func (d *Door) useAll(ctx context.Context, names []string, check func(name string, t *table) error) (tables map[string]*table, release func(), err error) {
	tables = map[string]*table{}
	release = func() {
		for _, t := range tables {
			d.release(t)
		}
	}
	for _, name := range names {
		t, err := d.useForItems(ctx, name)
		if err != nil {
			release()
			return nil, nil, err
		}
		tables[name] = t
		if check != nil {
			if err := check(name, t); err != nil {
				release()
				return nil, nil, err
			}
		}
	}
	return tables, release, nil
}

// What bounds the bytes of items that a batch returns: of one table, where all are
// in one partition, and of all.
const (
	maxTableGet = 1<<20 + maxItem - 3
	maxBatchGet = 16 << 20
)

func (d *Door) batchGetItem(ctx context.Context, r *request) ([]byte, error) {
	all := r.Get("RequestItems")
	tables, release, err := d.useAll(ctx, all.Keys, func(name string, t *table) error {
		s := t.now.Load()
		for _, key := range r.ofTable(name).Get("Keys").List {
			if err := s.checkKey(key.Item()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer release()
	var responses, left object
	var costs []byte
	size := 0
	for _, name := range all.Keys {
		part := r.ofTable(name)
		if err := part.parse(); err != nil {
			return nil, err
		}
		t := tables[name]
		var found []byte
		var units float64
		var unread []*item.Node
		before := size
		for _, key := range part.Get("Keys").List {
			b, err := t.read(ctx, t.now.Load().itemKey(key.Item()))
			if err != nil {
				return nil, err
			}
			if now := size + b.size(); now-before > maxTableGet || now > maxBatchGet {
				unread = append(unread, key)
				units++
				continue
			}
			size += b.size()
			units += readUnits(b.size(), part.flag("ConsistentRead"))
			if b == nil {
				continue
			}
			text, err := pick(b, part.paths())
			if err != nil {
				return nil, err
			}
			if found != nil {
				found = append(found, ',')
			}
			found = append(found, text...)
		}
		responses.raw2(name, append(append([]byte{'['}, found...), ']'))
		if unread != nil {
			left.raw2(name, part.unprocessed(unread))
		}
		if c := consumed(r, name, cost{table: units}); c != nil {
			if costs != nil {
				costs = append(costs, ',')
			}
			costs = append(costs, c...)
		}
	}
	var o object
	o.raw("Responses", responses.end())
	o.raw("UnprocessedKeys", left.end())
	if costs != nil {
		o.raw("ConsumedCapacity", append(append([]byte{'['}, costs...), ']'))
	}
	return o.end(), nil
}

// raw2 is raw for names that clients made up.
func (o *object) raw2(name string, b []byte) {
	quoted := item.AppendString(nil, name)
	o.raw(string(quoted[1:len(quoted)-1]), b)
}

// unprocessed is what a client has to ask for again.
func (r *request) unprocessed(keys []*item.Node) []byte {
	var o object
	list := []byte{'['}
	for i, key := range keys {
		if i > 0 {
			list = append(list, ',')
		}
		list = key.Item().AppendJSON(list)
	}
	o.raw("Keys", append(list, ']'))
	for i, name := range r.Keys {
		if name != "Keys" {
			o.raw(name, []byte(shown(r.List[i], true)))
		}
	}
	return o.end()
}

func checkBatchWrite(r *request) error {
	all := r.Get("RequestItems")
	n := 0
	for _, name := range all.Keys {
		list := all.Get(name).List
		n += len(list)
		if slices.ContainsFunc(list, func(w *item.Node) bool { return len(w.Keys) == 0 }) {
			return invalid("Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes")
		}
		for _, w := range list {
			if put := w.Get("PutRequest").Get("Item"); put != nil {
				if problem := put.Check(); problem != "" {
					return invalid(problem)
				}
				if err := checkSize(put.Item()); err != nil {
					return err
				}
			} else if key := w.Get("DeleteRequest").Get("Key"); key != nil {
				if problem := key.Check(); problem != "" {
					return invalid(problem)
				}
			}
		}
	}
	if n > 25 {
		return invalid("Too many items requested for the BatchWriteItem call")
	}
	return nil
}

// A batchPart is what a batch writes into one table.
type batchPart struct {
	t       *table
	items   []item.Item // nil to delete
	keys    []item.Item
	cost    cost
	metrics []byte
}

func (d *Door) batchWriteItem(ctx context.Context, r *request) ([]byte, error) {
	all := r.Get("RequestItems")
	var parts []*batchPart
	_, release, err := d.useAll(ctx, all.Keys, func(name string, t *table) error {
		p, err := batchOf(t, all.Get(name).List)
		parts = append(parts, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer release()
	for _, p := range parts {
		if err := p.write(ctx, r); err != nil {
			return nil, err
		}
	}
	var costs, metrics object
	var list []byte
	for i, p := range parts {
		if c := consumed(r, all.Keys[i], p.cost); c != nil {
			if list != nil {
				list = append(list, ',')
			}
			list = append(list, c...)
		}
		if p.metrics != nil {
			metrics.raw2(all.Keys[i], append(append([]byte{'['}, p.metrics...), ']'))
		}
	}
	costs.raw("UnprocessedItems", []byte("{}"))
	if list != nil {
		costs.raw("ConsumedCapacity", append(append([]byte{'['}, list...), ']'))
	}
	if metrics != nil {
		costs.raw("ItemCollectionMetrics", metrics.end())
	}
	return costs.end(), nil
}

// batchOf looks at what is to be written into a table.
func batchOf(t *table, list []*item.Node) (*batchPart, error) {
	p := &batchPart{t: t}
	s := t.now.Load()
	seen := map[string]bool{}
	for _, w := range list {
		var i, key item.Item
		if put := w.Get("PutRequest"); put != nil {
			i = put.Get("Item").Item()
			key = i
			if err := s.checkItem(i); err != nil {
				e := err.(*Error)
				for _, k := range s.Keys {
					if v, ok := i[k.Name]; !ok || v.Type != s.typeOf(k.Name) {
						return nil, mismatch()
					}
				}
				return nil, e
			}
		} else {
			key = w.Get("DeleteRequest").Get("Key").Item()
			if err := s.checkKey(key); err != nil {
				return nil, err
			}
		}
		at := string(s.itemKey(key))
		if seen[at] {
			return nil, invalid("Provided list of item keys contains duplicates")
		}
		seen[at] = true
		p.items, p.keys = append(p.items, i), append(p.keys, key)
	}
	return p, nil
}

// write writes a table's part, all of it in one append.
func (p *batchPart) write(ctx context.Context, r *request) error {
	return p.t.write(ctx, func(x *tx) error {
		for i, now := range p.items {
			at := x.s.itemKey(p.keys[i])
			old, err := x.get(at)
			if err != nil {
				return err
			}
			c := change{key: at, old: old, now: now}
			u, err := x.s.cost(r, c)
			if err != nil {
				x.err = err
				return err
			}
			p.cost.add(u, 1)
			if m := collection(r, x.s, p.keys[i]); m != nil {
				if p.metrics != nil {
					p.metrics = append(p.metrics, ',')
				}
				p.metrics = append(p.metrics, m...)
			}
			if err := x.apply(c); err != nil {
				return err
			}
		}
		return nil
	})
}
