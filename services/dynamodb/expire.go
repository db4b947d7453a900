package dynamodb

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// expiries know when the next item of a table expires, and have one timer for all.
type expiries struct {
	next  map[string]int64 // seconds, by the name of the table
	timer clock.Timer
}

func (e *expiries) stop() {
	if e.timer != nil {
		e.timer.Stop()
	}
}

// never is when nothing expires.
const never = math.MaxInt64

// due says that something in a table expires at a time, if not earlier.
func (d *Door) due(name string, at int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if have, ok := d.expiry.next[name]; at == never || ok && have <= at {
		return
	}
	if d.expiry.next == nil {
		d.expiry.next = map[string]int64{}
	}
	d.expiry.next[name] = at
	d.arm()
}

// arm sets the timer. The caller holds mu.
func (d *Door) arm() {
	e := &d.expiry
	soonest := int64(never)
	for _, at := range e.next {
		soonest = min(soonest, at)
	}
	e.stop()
	e.timer = nil
	if soonest == never || d.closed {
		return
	}
	// Not more than once a second, and not so far away that clocks may be set meanwhile.
	wait := min(max(time.Second, time.Unix(min(soonest, 1<<40), 0).Sub(d.o.Clock.Now())), time.Hour)
	e.timer = d.o.Clock.AfterFunc(wait, d.sweep)
}

// sweep deletes what has expired.
func (d *Door) sweep() {
	if !d.enter() {
		return
	}
	defer d.busy.Done()
	now := d.o.Clock.Now().Unix()
	d.mu.Lock()
	var due []string
	for name, at := range d.expiry.next {
		if at <= now {
			due = append(due, name)
			delete(d.expiry.next, name)
		}
	}
	d.arm()
	d.mu.Unlock()
	for _, name := range due {
		next, err := d.expire(d.ctx, name, now)
		if err != nil {
			if d.ctx.Err() != nil {
				return
			}
			d.o.Log.Error("items did not expire", "table", name, "err", err)
			next = now + 60
		}
		d.due(name, next)
	}
}

// expireAtOnce is how many items are deleted in one append.
const expireAtOnce = 100

// byExpiry is who deletes what has expired, in records of streams.
const byExpiry = `{"Type":"Service","PrincipalId":"dynamodb.amazonaws.com"}`

// expire deletes what has expired in a table, and returns when the next does.
func (d *Door) expire(ctx context.Context, name string, now int64) (next int64, err error) {
	t, err := d.use(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return never, nil
	}
	if err != nil {
		return 0, err
	}
	defer d.release(t)
	for {
		next, more := int64(never), false
		if err := t.write(ctx, func(x *tx) error {
			n := 0
			var entries []Entry
			for e, err := range x.batch.Range(x.ctx, hyperbee.RangeOptions{Gte: []byte{keyExpiry}, Lt: []byte{keyExpiry + 1}}) {
				if err != nil {
					x.err = err
					return err
				}
				if len(e.Key) < 9 {
					continue
				}
				if at := int64(binary.BigEndian.Uint64(e.Key[1:9])); at > now {
					next = at
					break
				}
				if n == expireAtOnce {
					more = true
					break
				}
				n++
				entries = append(entries, e)
			}
			for _, e := range entries {
				if err := x.expire(e.Key); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return 0, err
		}
		if !more {
			return next, nil
		}
	}
}

// expire deletes the item that an entry leads to, if it is still to expire then.
func (x *tx) expire(key []byte) error {
	at := append([]byte{keyItem}, key[9:]...)
	old, err := x.get(at)
	if err != nil {
		return err
	}
	i, err := old.item()
	if err != nil {
		x.err = err
		return err
	}
	x.delete(key)
	if when, ok := expiresAt(i, x.s.TTL); !ok || when != binary.BigEndian.Uint64(key[1:9]) {
		return nil
	}
	return x.apply(change{key: at, old: old, by: byExpiry})
}

// expiresAt is when an item expires. Times of more than five years ago are none.
func expiresAt(i item.Item, attribute string) (uint64, bool) {
	v, ok := i[attribute]
	if attribute == "" || !ok || v.Type != item.N {
		return 0, false
	}
	n := v.Number()
	if n.Neg || n.Exp < 0 || n.Exp > 15 {
		return 0, false
	}
	var out uint64
	for j := range n.Exp + 1 {
		out *= 10
		if j < len(n.Digits) {
			out += uint64(n.Digits[j] - '0')
		}
	}
	return out, true
}

const fiveYears = 5 * 365 * 24 * 60 * 60

// reexpire brings what is known of an item's expiry up to date with a change.
func (x *tx) reexpire(key []byte, old, now item.Item) {
	if x.s.TTL == "" {
		return
	}
	was, had := expiresAt(old, x.s.TTL)
	is, has := expiresAt(now, x.s.TTL)
	has = has && int64(is) > x.t.door.o.Clock.Now().Unix()-fiveYears
	if had && (!has || was != is) {
		x.delete(expiryKey(was, key))
	}
	if has && (!had || was != is || x.t.tree.Shared()) {
		x.put(expiryKey(is, key), []byte{})
		x.t.door.due(x.s.Name, int64(is))
	}
}
