package dynamodb

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// An object is a JSON object that is being written.
type object []byte

// buffers are for bodies and answers.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, minBuffer); return &b }}

// minBuffer is the size of the least that is kept: most bodies fit in.
const minBuffer = 2 << 10

// newObject begins an object in a buffer, which goes back when it was sent.
func newObject() object { return (*buffers.Get().(*[]byte))[:0] }

// recycle takes a buffer that nobody uses any more.
func recycle(b []byte) {
	if cap(b) >= minBuffer && cap(b) <= maxPage*2 {
		buffers.Put(&b)
	}
}

func (o *object) name(name string) {
	if len(*o) == 0 {
		*o = append(*o, '{')
	} else {
		*o = append(*o, ',')
	}
	*o = append(append(append(*o, '"'), name...), '"', ':')
}

func (o *object) raw(name string, b []byte) {
	o.name(name)
	*o = append(*o, b...)
}

func (o *object) item(name string, i item.Item) {
	o.name(name)
	*o = i.AppendJSON(*o)
}

// some writes an item that has something.
func (o *object) some(name string, i item.Item) {
	if len(i) > 0 {
		o.item(name, i)
	}
}

func (o *object) str(name, s string) {
	o.name(name)
	*o = item.AppendString(*o, s)
}

func (o *object) int(name string, n int) {
	o.name(name)
	*o = strconv.AppendInt(*o, int64(n), 10)
}

func (o *object) units(name string, f float64) {
	o.name(name)
	*o = appendUnits(*o, f)
}

func appendUnits(b []byte, f float64) []byte { return strconv.AppendFloat(b, f, 'f', -1, 64) }

// any writes a value by encoding/json.
func (o *object) any(name string, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		o.raw(name, b)
	}
	return err
}

func (o object) end() []byte {
	if len(o) == 0 {
		return []byte("{}")
	}
	return append(o, '}')
}

// Units of capacity.

// writeUnits is what it costs to write an item of a size.
func writeUnits(sizes ...int) float64 { return units(1024, sizes...) }

// readUnits is what it costs to read an item of a size.
func readUnits(size int, consistent bool) float64 {
	u := units(4096, size)
	if !consistent {
		u /= 2
	}
	return u
}

func units(unit int, sizes ...int) float64 {
	return math.Max(1, math.Ceil(float64(slices.Max(sizes))/float64(unit)))
}

// A cost is what something has cost, of a table and of its indexes by name.
type cost struct {
	table         float64
	global, local map[string]float64
}

// counted reports whether a request asks what it costs.
func (r *request) counted() bool {
	asked := r.str("ReturnConsumedCapacity")
	return asked == "TOTAL" || asked == "INDEXES"
}

// add adds a cost, so many times.
func (c *cost) add(o cost, times float64) {
	c.table += times * o.table
	for _, m := range []struct {
		to   *map[string]float64
		from map[string]float64
	}{{&c.global, o.global}, {&c.local, o.local}} {
		for name, u := range m.from {
			if *m.to == nil {
				*m.to = map[string]float64{}
			}
			(*m.to)[name] += times * u
		}
	}
}

func sum(m map[string]float64) (all float64) {
	for _, u := range m {
		all += u
	}
	return all
}

// cost is what a change costs, if the request asks for it.
func (s *schema) cost(r *request, c change) (out cost, err error) {
	if !r.counted() {
		return out, nil
	}
	out.table = writeUnits(c.old.size(), c.now.Size())
	if len(s.Global)+len(s.Local) == 0 {
		return out, nil
	}
	old, err := c.old.item()
	if err != nil {
		return out, err
	}
	for _, x := range s.indexes() {
		was, is := x.size(s, old), x.size(s, c.now)
		if was == 0 && is == 0 {
			continue
		}
		one := cost{global: map[string]float64{x.Name: writeUnits(was, is)}}
		if x.local {
			one = cost{local: one.global}
		}
		out.add(one, 1)
	}
	return out, nil
}

// size is how many bytes an item has in an index; none is 0.
func (x *index) size(s *schema, i item.Item) int {
	if i == nil || !x.hasKey(s, i) {
		return 0
	}
	return x.project(s, i).Size()
}

// consumed writes what a request has cost, if that was asked for.
func (o *object) consumed(r *request, table string, c cost) {
	if b := consumed(r, table, c); b != nil {
		o.raw("ConsumedCapacity", b)
	}
}

func consumed(r *request, table string, u cost) []byte {
	if !r.counted() {
		return nil
	}
	var c object
	c.units("CapacityUnits", u.table+sum(u.global)+sum(u.local))
	c.str("TableName", table)
	if r.str("ReturnConsumedCapacity") == "INDEXES" {
		c.raw("Table", unitsObject(u.table))
		c.indexUnits("GlobalSecondaryIndexes", u.global)
		c.indexUnits("LocalSecondaryIndexes", u.local)
	}
	return c.end()
}

func (o *object) indexUnits(name string, units map[string]float64) {
	if len(units) == 0 {
		return
	}
	var all object
	for _, x := range slices.Sorted(maps.Keys(units)) {
		all.name(x)
		all = append(all, unitsObject(units[x])...)
	}
	o.raw(name, all.end())
}

// metrics writes those of an item collection, if they were asked for.
func (o *object) metrics(r *request, s *schema, key item.Item) {
	if b := collection(r, s, key); b != nil {
		o.raw("ItemCollectionMetrics", b)
	}
}

func collection(r *request, s *schema, key item.Item) []byte {
	if r.str("ReturnItemCollectionMetrics") != "SIZE" || len(s.Local) == 0 {
		return nil
	}
	hash := s.Keys[0].Name
	var c object
	c.item("ItemCollectionKey", item.Item{hash: key[hash]})
	c.raw("SizeEstimateRangeGB", []byte("[0,1]"))
	return c.end()
}

func itoa(n int) string { return strconv.Itoa(n) }

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}
