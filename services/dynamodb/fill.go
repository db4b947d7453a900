package dynamodb

import (
	"context"
	"errors"
	"slices"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
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

// fillAtOnce bounds how many entries are looked at for one append, and fillBytes
// how many bytes of them.
const (
	fillAtOnce = 500
	fillBytes  = 4 << 20
)

// portion calls f for the entries of a range as far as they are for one append, and
// reports whether these were the last. o goes on behind them. f must not change
// what is read.
func portion(ctx context.Context, from Reader, o *hyperbee.RangeOptions, f func(Entry) error) (last bool, err error) {
	n, bytes := 0, 0
	for e, err := range from.Range(ctx, *o) {
		if err != nil {
			return false, err
		}
		if err := f(e); err != nil {
			return false, err
		}
		o.Gt, o.Gte = e.Key, nil
		n++
		if bytes += len(e.Key) + len(e.Value); n == fillAtOnce || bytes >= fillBytes {
			return false, nil
		}
	}
	return true, nil
}

// portion is portion of the batch itself. What f wants to change it returns, to be
// done behind the reading.
func (x *tx) portion(o *hyperbee.RangeOptions, f func(Entry) (later func(), err error)) (last bool, err error) {
	var changes []func()
	last, err = portion(x.ctx, x.batch, o, func(e Entry) error {
		later, err := f(e)
		if later != nil {
			changes = append(changes, later)
		}
		return err
	})
	if err != nil {
		x.err = err
		return false, err
	}
	for _, change := range changes {
		change()
	}
	return last, nil
}

// fill begins to fill new indexes of a table, to empty old ones, and to note or
// forget when its items expire. What it leaves undone is done when the table is
// opened next.
func (d *Door) fill(name, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.past || d.filling[id] {
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
		if t.now.Load().unfinished() {
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
	for so := new(midway); t.now.Load().Turning != nil; {
		if err := t.write(ctx, func(x *tx) error { return x.turn(so) }); err != nil {
			return err
		}
	}
	return nil
}

// empty removes some entries of an index that is no more.
func (t *table) empty(ctx context.Context, number uint32) error {
	prefix := (&index{Number: number}).prefix()
	return t.write(ctx, func(x *tx) error {
		last, err := x.portion(&hyperbee.RangeOptions{Gte: prefix, Lt: after(prefix)}, func(e Entry) (func(), error) {
			return func() { x.delete(e.Key) }, nil
		})
		if last {
			x.setSchema(x.s.with(func(s *schema) {
				s.Dropped = slices.DeleteFunc(s.Dropped, func(n uint32) bool { return n == number })
			}))
		}
		return err
	})
}

// fill puts all items into an index that is new. Items that are written meanwhile
// go into it by themselves.
func (t *table) fill(ctx context.Context, number uint32) error {
	from := hyperbee.RangeOptions{Gte: []byte{keyItem}, Lt: []byte{keyItem + 1}}
	for done := false; !done; {
		if err := t.write(ctx, func(x *tx) (err error) {
			i := slices.IndexFunc(x.s.Global, func(g *index) bool { return g.Number == number })
			if i < 0 {
				done = true // it was deleted meanwhile
				return nil
			}
			idx := x.s.Global[i]
			if done, err = x.portion(&from, func(e Entry) (func(), error) {
				it, err := stored(e.Value).item()
				if err != nil || !idx.hasKey(x.s, it) {
					return nil, err
				}
				key := idx.key(x.s, it, e.Key)
				return func() { x.put(key, []byte{}) }, nil
			}); done {
				x.setSchema(x.s.with(func(s *schema) {
					full := *idx
					full.Filling = false
					s.Global[i] = &full
				}))
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// midway is how far expiry was turned on or off.
type midway struct {
	what turning
	next hyperbee.RangeOptions
}

// turn goes on turning expiry on or off: it notes when some items expire, or forgets
// it. Items that are written meanwhile are noted by themselves, and what is still
// noted while it is being turned off does no harm.
func (x *tx) turn(so *midway) error {
	if x.s.Turning == nil {
		*so = midway{}
		return nil // another one has done the rest
	}
	attribute := x.s.TTL
	if so.what != *x.s.Turning {
		kind := byte(keyItem)
		if attribute == "" {
			kind = keyExpiry
		}
		*so = midway{*x.s.Turning, hyperbee.RangeOptions{Gte: []byte{kind}, Lt: []byte{kind + 1}}}
	}
	last, err := x.portion(&so.next, func(e Entry) (func(), error) {
		if attribute == "" {
			return func() { x.delete(e.Key) }, nil
		}
		i, err := stored(e.Value).item()
		if _, has := expiresAt(i, attribute); err != nil || !has {
			return nil, err
		}
		part := item.Item{attribute: i[attribute]}
		return func() { x.reexpire(e.Key, nil, part) }, nil
	})
	if last {
		*so = midway{}
		x.setSchema(x.s.with(func(s *schema) { s.Turning = nil }))
	}
	return err
}
