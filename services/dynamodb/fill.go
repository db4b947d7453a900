package dynamodb

import (
	"context"
	"errors"
	"slices"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// filling are the indexes that have not all items yet.
func (s *schema) filling() (out []*index) {
	for _, x := range s.Global {
		if x.Filling {
			out = append(out, x)
		}
	}
	return out
}

// fillAtOnce is how many items are looked at for one append.
const fillAtOnce = 500

// fill begins to fill new indexes of a table, and to empty old ones. What it
// leaves undone is done when the table is opened next.
func (d *Door) fill(name, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.filling[id] {
		return
	}
	d.filling[id] = true
	d.busy.Add(1)
	go func() {
		defer d.busy.Done()
		for again := true; again; {
			err := d.fillAll(d.ctx, name)
			if err != nil && !errors.Is(err, ErrNotFound) && d.ctx.Err() == nil {
				d.o.Log.Error("indexes were not filled", "table", name, "err", err)
			}
			again = d.filled(name, id, err == nil)
		}
	}()
}

// filled ends the filling, unless there is more to do.
func (d *Door) filled(name, id string, ok bool) (again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tables[name]; ok && t != nil && t.id == id && !d.closed {
		if s := t.now.Load(); len(s.Dropped) > 0 || len(s.filling()) > 0 {
			return true
		}
	}
	delete(d.filling, id)
	return false
}

func (d *Door) fillAll(ctx context.Context, name string) error {
	t, err := d.use(ctx, name)
	if err != nil {
		return err
	}
	defer d.release(t)
	for len(t.now.Load().Dropped) > 0 {
		if err := t.empty(ctx, t.now.Load().Dropped[0]); err != nil {
			return err
		}
	}
	for list := t.now.Load().filling(); len(list) > 0; list = t.now.Load().filling() {
		if err := t.fill(ctx, list[0].Number); err != nil {
			return err
		}
	}
	return nil
}

// empty removes some entries of an index that is no more.
func (t *table) empty(ctx context.Context, number uint32) error {
	prefix := (&index{Number: number}).prefix()
	return t.write(ctx, func(x *tx) error {
		var keys [][]byte
		for e, err := range x.batch.Range(x.ctx, hyperbee.RangeOptions{Gte: prefix, Lt: after(prefix), Limit: fillAtOnce}) {
			if err != nil {
				x.err = err
				return err
			}
			keys = append(keys, e.Key)
		}
		for _, key := range keys {
			x.delete(key)
		}
		if len(keys) < fillAtOnce {
			x.setSchema(x.s.with(func(s *schema) {
				s.Dropped = slices.DeleteFunc(s.Dropped, func(n uint32) bool { return n == number })
			}))
		}
		return nil
	})
}

// fill puts all items into an index that is new. Items that are written meanwhile
// go into it by themselves.
func (t *table) fill(ctx context.Context, number uint32) error {
	from := hyperbee.RangeOptions{Gte: []byte{keyItem}, Lt: []byte{keyItem + 1}, Limit: fillAtOnce}
	for done := false; !done; {
		if err := t.write(ctx, func(x *tx) error {
			i := slices.IndexFunc(x.s.Global, func(g *index) bool { return g.Number == number })
			if i < 0 {
				done = true // it was deleted meanwhile
				return nil
			}
			idx := x.s.Global[i]
			n := 0
			var entries []Entry
			for e, err := range x.batch.Range(x.ctx, from) {
				if err != nil {
					x.err = err
					return err
				}
				n++
				from.Gt, from.Gte = e.Key, nil
				entries = append(entries, e)
			}
			for _, e := range entries {
				it, err := stored(e.Value).item()
				if err != nil {
					x.err = err
					return err
				}
				if idx.hasKey(x.s, it) {
					x.put(idx.key(x.s, it, e.Key), []byte{})
				}
			}
			if done = n < fillAtOnce; done {
				x.setSchema(x.s.with(func(s *schema) {
					full := *idx
					full.Filling = false
					s.Global[i] = &full
				}))
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
