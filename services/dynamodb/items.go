package dynamodb

import (
	"context"
	"errors"
	"slices"

	"github.com/cloudbevy/bevy/services/dynamodb/expr"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// The operations on one item.

func checkPut(r *request) error {
	return first(
		func() error { return r.checkParams([]string{"ConditionExpression"}, []string{"Expected"}) },
		func() error { return r.checkValues("Item") },
		func() error {
			if v := r.str("ReturnValues"); v != "" && v != "ALL_OLD" && v != "NONE" {
				return invalid("ReturnValues can only be ALL_OLD or NONE")
			}
			return nil
		},
		func() error { return checkSize(r.item("Item")) },
		r.checkExpected, r.parse)
}

func checkSize(i item.Item) error {
	if i.Size() > maxItem {
		return invalid("Item size has exceeded the maximum allowed size")
	}
	return nil
}

// first returns the first error.
func first(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func checkGet(r *request) error {
	return first(
		func() error { return r.checkParams([]string{"ProjectionExpression"}, []string{"AttributesToGet"}) },
		func() error { return r.checkValues("Key") },
		r.checkToGet, r.parse)
}

func checkDelete(r *request) error {
	return first(
		func() error { return r.checkParams([]string{"ConditionExpression"}, []string{"Expected"}) },
		func() error { return r.checkValues("Key") },
		func() error {
			if v := r.str("ReturnValues"); v != "" && v != "ALL_OLD" && v != "NONE" {
				return invalid("ReturnValues can only be ALL_OLD or NONE")
			}
			return nil
		},
		r.checkExpected, r.parse)
}

func checkUpdate(r *request) error {
	return first(
		func() error {
			return r.checkParams([]string{"UpdateExpression", "ConditionExpression"}, []string{"AttributeUpdates", "Expected"})
		},
		func() error { return r.checkValues("Key") },
		r.checkAttributeUpdates, r.checkExpected, r.parse)
}

// checkAttributeUpdates looks at an update of the old kind.
func (r *request) checkAttributeUpdates() error {
	n := r.Get("AttributeUpdates")
	if n == nil {
		return nil
	}
	for i, u := range n.List {
		if err := checkName(n.Keys[i]); err != nil {
			return err
		}
		value, action := u.Get("Value"), u.Get("Action")
		do := "PUT"
		if action != nil {
			do = action.Str
		}
		if value == nil {
			if do != "DELETE" {
				return invalid(badValues + "Only DELETE action is allowed when no attribute value is specified")
			}
			continue
		}
		if problem := value.Val.Check(); problem != "" {
			return invalid(problem)
		}
		t := value.Val.Type
		set := t == item.SS || t == item.NS || t == item.BS
		switch {
		case do == "DELETE" && !set:
			return invalid(badValues + "DELETE action with value is not supported for the type " + t.String())
		case do == "ADD" && !set && t != item.L && t != item.N:
			return invalid(badValues + "ADD action is not supported for the type " + t.String())
		}
	}
	return nil
}

func (d *Door) getItem(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.useForItems(ctx, r.str("TableName"))
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	s := t.now.Load()
	key := r.item("Key")
	if err := s.checkKey(key); err != nil {
		return nil, err
	}
	if r.project != nil {
		if err := s.checkNested(r.project.Nested); err != nil {
			return nil, err
		}
	}
	b, err := t.read(ctx, s.itemKey(key))
	if err != nil {
		return nil, err
	}
	o := newObject()
	if b != nil {
		text, err := pick(b, r.paths())
		if err != nil {
			return nil, err
		}
		o.raw("Item", text)
	}
	o.consumed(r, s.Name, cost{table: readUnits(b.size(), r.flag("ConsistentRead"))})
	return o.end(), nil
}

// pick returns what of an item is wanted, as clients get it.
func pick(b stored, paths []expr.Path) ([]byte, error) {
	if paths == nil {
		return b.json(), nil
	}
	i, err := b.item()
	if err != nil {
		return nil, err
	}
	return expr.Pick(i, paths).AppendJSON(nil), nil
}

// read returns a stored item, which may be none.
func (t *table) read(ctx context.Context, key []byte) (stored, error) {
	if err := t.settled(ctx); err != nil {
		return nil, err
	}
	t.whole.RLock()
	defer t.whole.RUnlock()
	return readStored(ctx, t.tree, key)
}

func readStored(ctx context.Context, from Reader, key []byte) (stored, error) {
	b, err := from.Get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return b, err
}

// decide reports whether the conditions of a request let it change an item.
func (r *request) decide(old stored) error {
	if !r.conditional() {
		return nil
	}
	i, err := old.item()
	if err != nil || r.met(i) {
		return err
	}
	if r.str("ReturnValuesOnConditionCheckFailure") != "ALL_OLD" {
		i = nil
	}
	return conditionFailed(i)
}

func (d *Door) putItem(ctx context.Context, r *request) ([]byte, error) {
	return d.change(ctx, r, r.item("Item"))
}

func (d *Door) deleteItem(ctx context.Context, r *request) ([]byte, error) {
	return d.change(ctx, r, nil)
}

// change puts an item, or deletes the one of Key.
func (d *Door) change(ctx context.Context, r *request, i item.Item) ([]byte, error) {
	t, err := d.useForItems(ctx, r.str("TableName"))
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	var o object
	err = t.write(ctx, func(x *tx) error {
		key := i
		if i == nil {
			key = r.item("Key")
			if err := x.s.checkKey(key); err != nil {
				return err
			}
		} else if err := x.s.checkItem(i); err != nil {
			return err
		}
		at := x.s.itemKey(key)
		old, err := x.get(at)
		if err != nil {
			return err
		}
		if err := r.decide(old); err != nil {
			return err
		}
		if old != nil && r.str("ReturnValues") == "ALL_OLD" {
			o.raw("Attributes", old.json())
		}
		c := change{key: at, old: old, now: i}
		if err := x.tell(&o, r, c, key); err != nil {
			return err
		}
		return x.apply(c)
	})
	if err != nil {
		return nil, err
	}
	return o.end(), nil
}

func (d *Door) updateItem(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.useForItems(ctx, r.str("TableName"))
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	var o object
	err = t.write(ctx, func(x *tx) error {
		c, was, err := x.update(r)
		if err != nil {
			return err
		}
		switch r.str("ReturnValues") {
		case "ALL_OLD":
			if was != nil {
				o.item("Attributes", was)
			}
		case "ALL_NEW":
			if c.now != nil {
				o.item("Attributes", c.now)
			}
		case "UPDATED_OLD":
			o.some("Attributes", expr.Pick(was, r.updated()))
		case "UPDATED_NEW":
			o.some("Attributes", expr.Pick(c.now, r.updated()))
		}
		if err := x.tell(&o, r, c, r.item("Key")); err != nil {
			return err
		}
		return x.apply(c)
	})
	if err != nil {
		return nil, err
	}
	return o.end(), nil
}

// tell writes what a change costs, and of its item collection.
func (x *tx) tell(o *object, r *request, c change, key item.Item) error {
	u, err := x.s.cost(r, c)
	if err != nil {
		x.err = err
		return err
	}
	o.consumed(r, x.s.Name, u)
	o.metrics(r, x.s, key)
	return nil
}

// updated are the paths that an update changes.
func (r *request) updated() (out []expr.Path) {
	if r.update != nil {
		return r.update.Paths
	}
	if n := r.Get("AttributeUpdates"); n != nil {
		for _, name := range n.Keys {
			out = append(out, expr.Of(name))
		}
	}
	return out
}

// removes reports whether an update only takes away, so that it does not make an
// item.
func (r *request) removes() bool {
	if r.update != nil {
		return r.update.Removes()
	}
	n := r.Get("AttributeUpdates")
	return n != nil && len(n.List) > 0 && !slices.ContainsFunc(n.List, func(u *item.Node) bool { return u.Get("Action").String() != "DELETE" })
}

// update makes the change that an update is.
func (x *tx) update(r *request) (c change, was item.Item, err error) {
	key := r.item("Key")
	if err := first(
		func() error { return x.s.checkKey(key) },
		func() error { return x.s.checkUpdate(r) },
	); err != nil {
		return c, nil, err
	}
	c.key = x.s.itemKey(key)
	if c.old, err = x.get(c.key); err != nil {
		return c, nil, err
	}
	if err := r.decide(c.old); err != nil {
		return c, nil, err
	}
	if was, err = c.old.item(); err != nil {
		return c, nil, err
	}
	c.now = was.Clone()
	if c.now == nil {
		c.now = key.Clone()
	}
	if r.update != nil {
		err = r.update.Apply(c.now, was == nil, x.s.keyTypeOf)
	} else {
		err = r.applyUpdates(c.now)
	}
	if err != nil {
		return c, nil, invalid(err.Error())
	}
	if was == nil && r.removes() {
		c.now = nil
		return c, nil, nil
	}
	if c.now.Size() > maxItem {
		return c, nil, invalid("Item size to update has exceeded the maximum allowed size")
	}
	return c, was, x.s.checkItem(c.now)
}

// checkUpdate looks at what an update does to keys.
func (s *schema) checkUpdate(r *request) error {
	heads := map[string]item.Type{}
	updates := r.Get("AttributeUpdates")
	switch {
	case r.update != nil:
		for _, c := range r.update.Changes {
			name := c.Path[0].Name
			if _, ok := heads[name]; !ok || len(c.Path) == 1 {
				heads[name] = item.None
				if len(c.Path) == 1 {
					heads[name] = c.Type
				}
			}
		}
	case updates != nil:
		for i, u := range updates.List {
			heads[updates.Keys[i]] = item.None
			if v := u.Get("Value"); v != nil {
				heads[updates.Keys[i]] = v.Val.Type
			}
		}
	default:
		return nil
	}
	for _, k := range s.Keys {
		if _, ok := heads[k.Name]; ok {
			return invalid(badValues + "Cannot update attribute " + k.Name + ". This attribute is part of the key")
		}
	}
	if err := s.eachIndexKey(func(x *index, name string) error {
		want, have := s.typeOf(name), heads[name]
		if have != item.None && have != want {
			return wrongIndexType(x, name, want, have)
		}
		return nil
	}); err != nil {
		return err
	}
	if r.update != nil {
		return s.checkNested(r.update.Nested)
	}
	return nil
}

var errUpdateType = errors.New("Type mismatch for attribute to update") //lint:ignore ST1005 clients see it

// applyUpdates does an update of the old kind.
func (r *request) applyUpdates(i item.Item) error {
	n := r.Get("AttributeUpdates")
	if n == nil {
		return nil
	}
	for j, u := range n.List {
		name, have := n.Keys[j], i[n.Keys[j]]
		do := "PUT"
		if action := u.Get("Action"); action != nil {
			do = action.Str
		}
		value := u.Get("Value")
		if value == nil {
			delete(i, name)
			continue
		}
		v := *value.Val
		if do != "PUT" && have.Type != item.None && have.Type != v.Type {
			return errUpdateType
		}
		var err error
		switch {
		case do == "DELETE":
			have = item.Subtract(have, v)
		case do == "ADD" && have.Type != item.None:
			have, err = item.Plus(have, v)
		default:
			have = v
		}
		if err != nil {
			return err
		}
		if have.Type == item.None {
			delete(i, name)
		} else {
			i[name] = have
		}
	}
	return nil
}
