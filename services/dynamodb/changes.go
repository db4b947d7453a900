package dynamodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// A Changed is an item that was written or removed, by whichever device. Unlike
// the records of a stream it is there for as long as the logs are, whether the
// table has a stream or not.
type Changed struct {
	Event string          `json:"event"` // "PUT" or "REMOVE"
	Keys  json.RawMessage `json:"keys"`  // as DynamoDB has items
	New   json.RawMessage `json:"new,omitempty"`
	Old   json.RawMessage `json:"old,omitempty"` // of an item that was removed
	Time  time.Time       `json:"time"`
	// Cursor goes on behind it.
	Cursor string `json:"-"`
}

// ErrCursor: a cursor is none of a table.
var ErrCursor = errors.New("invalid cursor")

// useOnCloud returns a table that is kept in a cloud, and its tree, until done.
func (d *Door) useOnCloud(ctx context.Context, name string) (t *table, on *tree.Tree, done func(), err error) {
	if !d.enter() {
		return nil, nil, nil, errors.New("the door is closed")
	}
	defer func() {
		if err != nil {
			d.busy.Done()
		}
	}()
	if t, err = d.use(ctx, name); err != nil {
		return nil, nil, nil, err
	}
	c, ok := t.tree.(*cloudTree)
	if !ok {
		d.release(t)
		return nil, nil, nil, errors.New("it is not kept in a cloud, and its history is not")
	}
	return t, c.tree, func() { d.release(t); d.busy.Done() }, nil
}

// NotifyChanges calls f when items of a table may have changed, until stop is
// called. f must return soon and must not use the door.
func (d *Door) NotifyChanges(ctx context.Context, name string, f func()) (stop func(), err error) {
	_, on, done, err := d.useOnCloud(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("follow table %s: %w", name, err)
	}
	defer done() // the tree is the cloud's, and stays
	return on.Notify(f), nil
}

// Changes returns what happened to the items of a table since a cursor, in the
// order of time as far as it is known here, and ends there. "" is the beginning.
// Whoever goes on behind the last one that was dealt with gets each at least once.
func (d *Door) Changes(ctx context.Context, name, cursor string) iter.Seq2[Changed, error] {
	return func(yield func(Changed, error) bool) {
		err := d.eachChange(ctx, name, cursor, func(c Changed) bool { return yield(c, nil) })
		if err != nil {
			yield(Changed{}, fmt.Errorf("changes of table %s: %w", name, err))
		}
	}
}

func (d *Door) eachChange(ctx context.Context, name, cursor string, yield func(Changed) bool) error {
	at, err := tree.ParseVersion(cursor)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCursor, err)
	}
	t, on, done, err := d.useOnCloud(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	for said, err := range on.History(ctx, tree.HistoryOptions{Prefix: []byte{keyItem}, Since: at}) {
		if err != nil {
			return err
		}
		c, ok, err := t.changed(ctx, on, said)
		if err != nil {
			return err
		}
		at[said.Writer] = said.Seq + 1
		if c.Cursor = at.Text(); ok && !yield(c) {
			return nil
		}
	}
	return nil
}

// changed reads what was said about an item.
func (t *table) changed(ctx context.Context, on *tree.Tree, said tree.Entry) (c Changed, ok bool, err error) {
	s := t.now.Load()
	c.Time = said.Time
	if said.Value != nil {
		i, err := stored(said.Value).item()
		if err != nil {
			return c, false, nil // of another version, or of a device that breaks the rules
		}
		c.Event, c.Keys, c.New = "PUT", s.keyOf(i).AppendJSON(nil), stored(said.Value).json()
		return c, true, nil
	}
	// The key alone says too little: what was there says what is gone.
	c.Event = "REMOVE"
	for was, err := range on.History(ctx, tree.HistoryOptions{Key: said.Key, To: said.Time.Add(1), Reverse: true}) {
		if err != nil {
			return c, false, err
		}
		var i item.Item
		if was.Value != nil {
			if i, err = stored(was.Value).item(); err == nil {
				c.Keys, c.Old = s.keyOf(i).AppendJSON(nil), stored(was.Value).json()
				return c, true, nil
			}
		}
	}
	return c, false, nil // nobody ever put it
}

// Cursor returns the one behind all that happened to a table.
func (d *Door) Cursor(ctx context.Context, name string) (string, error) {
	_, on, done, err := d.useOnCloud(ctx, name)
	if err != nil {
		return "", fmt.Errorf("cursor of table %s: %w", name, err)
	}
	defer done()
	v, err := on.Version(ctx)
	if err != nil {
		return "", fmt.Errorf("cursor of table %s: %w", name, err)
	}
	return v.Text(), nil
}
