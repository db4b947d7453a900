package dynamodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// A Dropped is a table that was deleted, and whose tree may be there still.
type Dropped struct {
	Name, Tree string
	Time       time.Time // when it was deleted
}

// DroppedTables returns the tables that were deleted, as the history of a catalog has
// them.
func DroppedTables(ctx context.Context, catalog *tree.Tree) (list []Dropped, err error) {
	gone := map[string]Dropped{} // by their trees; what came back may be gone again
	live := map[string]bool{}
	for e, err := range catalog.RangeAll(ctx, hyperbee.RangeOptions{Gte: []byte{catTable}, Lt: []byte{catTable + 1}}) {
		if err == nil {
			err = eachNamed(ctx, catalog, e.Key, func(id string, end time.Time) {
				d := Dropped{string(e.Key[1:]), "table-" + id, end}
				if end.IsZero() {
					live[d.Tree] = true
				} else if end.After(gone[d.Tree].Time) {
					gone[d.Tree] = d
				}
			})
		}
		if err != nil {
			return nil, fmt.Errorf("list the tables that were deleted: %w", err)
		}
	}
	for tree, d := range gone {
		if !live[tree] {
			list = append(list, d)
		}
	}
	return list, nil
}

// eachNamed calls f with the ids of the tables that had a name, and when that ended:
// never, of the one that has it.
func eachNamed(ctx context.Context, catalog *tree.Tree, key []byte, f func(id string, end time.Time)) error {
	id := ""
	for e, err := range catalog.History(ctx, tree.HistoryOptions{Key: key}) {
		if err != nil {
			return err
		}
		var l listing
		if e.Value != nil && (json.Unmarshal(e.Value, &l) != nil || l.ID == id) {
			continue
		}
		if id != "" { // deleted, or two machines made one of the name and another one has it
			f(id, e.Time)
		}
		id = l.ID
	}
	if id != "" {
		f(id, time.Time{})
	}
	return nil
}

// BringBack lists a table again that was deleted, under a name that no table has. Its
// tree must be there.
func (d *Door) BringBack(ctx context.Context, tree, name string) (err error) {
	if !d.enter() {
		return errors.New("the door is closed")
	}
	defer d.busy.Done()
	id, ok := strings.CutPrefix(tree, "table-")
	if !ok || !namePattern.MatchString(name) || len(name) < 3 || len(name) > 255 {
		return invalid("A table's name has 3 to 255 letters of " + nameWords)
	}
	d.opening.Lock() // only a tree that no table has is opened here
	defer d.opening.Unlock()
	c := &d.catalog
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range [][]byte{tableKey(name), append([]byte{catGone}, id...)} {
		_, err := c.tree.Get(ctx, key)
		if err == nil && key[0] == catGone {
			return inUse("Table is being deleted: " + name) // somebody uses it still
		}
		if err == nil {
			return inUse("Table already exists: " + name)
		}
		if !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("bring back table %s: %w", name, err)
		}
	}
	s, err := d.rename(ctx, tree, name)
	if err == nil {
		err = c.change(ctx, [][]byte{tableKey(name)}, []any{listing{schemaVersion, id, s.TTL != ""}})
	}
	if err != nil {
		return fmt.Errorf("bring back table %s: %w", name, err)
	}
	if s.TTL != "" {
		d.due(name, 0)
	}
	return nil
}

// rename writes into a tree how its table is called.
func (d *Door) rename(ctx context.Context, name, table string) (s *schema, err error) {
	tree, err := d.o.Trees.Open(ctx, name, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	b, err := tree.Batch(ctx)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if s, err = readSchema(ctx, b); err != nil || s.Name == table {
		return s, err
	}
	s.Name = table
	if err := b.Put(ctx, []byte{keyTable}, s.encode()); err != nil {
		return nil, err
	}
	return s, b.Flush(ctx)
}
