package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) tableGetCommand() *cobra.Command {
	var f *tableFlags
	cmd := &cobra.Command{
		Use:   "get <table> <key>... [flags]",
		Short: "Print an item",
		Long: `Prints the item of a key: the hash, and the range if the table has one. Bytes
are in base64. With a moment, as in people@yesterday, it is what the item was.`,
		Example: `bevy table get people ann
bevy table get people@2h ann
bevy table get orders ann 2026-11-23 --app shop`,
		Args: wants(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTables(cmd.Context(), f, func(t *tables) error {
				name, err := t.moment(args[0])
				if err != nil {
					return err
				}
				return t.get(cmd.Context(), name, args[1:])
			})
		},
	}
	f = a.tableFlags(cmd, true)
	return cmd
}

func (t *tables) get(ctx context.Context, name string, words []string) error {
	d, err := t.describe(ctx, name)
	if err != nil {
		return err
	}
	key, err := d.keyOf(words)
	if err != nil {
		return err
	}
	var out struct{ Item tableItem }
	if err := t.ask(ctx, "GetItem", map[string]any{"TableName": name, "Key": key, "ConsistentRead": true}, &out); err != nil {
		return t.cannot(err, name, "cannot get the item %s", strings.Join(words, " "))
	}
	if out.Item == nil {
		return &failure{code: codeNotFound, what: fmt.Sprintf("there is no item %s in %s", strings.Join(words, " "), name), cause: "no item has that key",
			try: "bevy table query " + shellWord(name) + t.ofApp()}
	}
	return written(t.printLine(string(t.line(out.Item, keys(d.KeySchema)))))
}

// putItems is what --json prints of put and restore.
type putItems struct {
	Table   string `json:"table"`
	Items   int    `json:"items"`   // that were put
	Removed int    `json:"removed"` // that were removed
}

func (a *app) tablePutCommand() *cobra.Command {
	var f *tableFlags
	absent := false
	cmd := &cobra.Command{
		Use:   "put <table> [<item>...] [flags]",
		Short: "Put items into a table, or replace them",
		Long: `Puts items, each as JSON. Without <item>, or with "-", they are read from stdin,
one on each line, as "bevy table export" writes them.`,
		Example: `bevy table put people '{"name":"ann","age":41}'
bevy table put people < people.jsonl`,
		Args: wants(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTables(cmd.Context(), f, func(t *tables) error { return t.put(cmd.Context(), args[0], args[1:], absent) })
		},
	}
	f = a.tableFlags(cmd, true)
	cmd.Flags().BoolVar(&absent, "if-absent", false, "only where there is no item of that key")
	return cmd
}

func (t *tables) put(ctx context.Context, name string, items []string, absent bool) error {
	d, err := t.describe(ctx, name)
	if err != nil {
		return err
	}
	b := &batch{tables: t, table: name, keys: keys(d.KeySchema), single: absent}
	one := func(where string, text []byte) error {
		item, err := t.readItem(text, &d)
		if err != nil {
			return wrong(`{"`+b.keys[0]+`":"..."}`, err.Error(), "%s is no item", where)
		}
		return b.put(ctx, item)
	}
	before := t.clock.Now().UTC()
	if len(items) > 0 && !slices.Equal(items, []string{"-"}) {
		for _, text := range items {
			if err := one(text, []byte(text)); err != nil {
				return err
			}
		}
	} else if err := jsonLines(t.stdin, func(n int, line []byte) error { return one(fmt.Sprintf("line %d", n), line) }); err != nil {
		return fail(err, "cannot read the items")
	}
	if err := b.flush(ctx); err != nil {
		return err
	}
	if t.json {
		return written(t.printJSON(putItems{Table: name, Items: b.puts}))
	}
	t.say("put %s into %s\nundo:  bevy table restore %s --in-place%s", plural(uint64(b.puts), "item"), name, shellWord(name+"@"+before.Format(time.RFC3339Nano)), t.ofApp())
	return nil
}

// A batch collects changes of a table, as many as go into one request.
type batch struct {
	*tables
	table  string
	keys   []string
	single bool // each by itself, if there is no item of that key

	pending       []any
	seen          map[string]bool // keys among them
	puts, deletes int
}

// maxBatch is how many changes go into one request.
const maxBatch = 25

func (b *batch) put(ctx context.Context, item tableItem) error {
	b.puts++
	if b.single {
		err := b.ask(ctx, "PutItem", map[string]any{
			"TableName": b.table, "Item": item, "ConditionExpression": "attribute_not_exists(#k)", "ExpressionAttributeNames": map[string]string{"#k": b.keys[0]},
		}, nil)
		return b.cannot(err, b.table, "cannot put the item")
	}
	return b.add(ctx, b.keyOf(item), map[string]any{"PutRequest": map[string]any{"Item": item}})
}

func (b *batch) remove(ctx context.Context, key tableItem) error {
	b.deletes++
	return b.add(ctx, key, map[string]any{"DeleteRequest": map[string]any{"Key": key}})
}

// keyOf is the key of an item.
func (b *batch) keyOf(item tableItem) tableItem {
	key := tableItem{}
	for _, name := range b.keys {
		if v, ok := item[name]; ok {
			key[name] = v
		}
	}
	return key
}

// itemText is a key as one word, to compare.
func itemText(key tableItem) string {
	text, err := json.Marshal(key)
	if err != nil {
		panic("bevy: " + err.Error()) // it was read from JSON
	}
	return string(text)
}

func (b *batch) add(ctx context.Context, key tableItem, change any) error {
	text := itemText(key)
	if len(b.pending) == maxBatch || b.seen[text] { // a key can be in a request once
		if err := b.flush(ctx); err != nil {
			return err
		}
	}
	if b.seen == nil {
		b.seen = map[string]bool{}
	}
	b.pending, b.seen[text] = append(b.pending, change), true
	return nil
}

// get returns the items that have the keys of others, by these keys.
func (b *batch) get(ctx context.Context, like []tableItem) (map[string]tableItem, error) {
	type asked struct {
		Keys           []tableItem
		ConsistentRead bool
	}
	found := map[string]tableItem{}
	want := asked{ConsistentRead: true}
	for _, item := range like {
		want.Keys = append(want.Keys, b.keyOf(item))
	}
	for len(want.Keys) > 0 {
		var out struct {
			Responses       map[string][]tableItem
			UnprocessedKeys map[string]asked
		}
		if err := b.ask(ctx, "BatchGetItem", map[string]any{"RequestItems": map[string]any{b.table: want}}, &out); err != nil {
			return nil, b.cannot(err, b.table, "cannot read %s", b.table)
		}
		for _, item := range out.Responses[b.table] {
			found[itemText(b.keyOf(item))] = item
		}
		want.Keys = out.UnprocessedKeys[b.table].Keys
	}
	return found, nil
}

func (b *batch) flush(ctx context.Context) error {
	for len(b.pending) > 0 {
		var out struct{ UnprocessedItems map[string][]any }
		if err := b.ask(ctx, "BatchWriteItem", map[string]any{"RequestItems": map[string]any{b.table: b.pending}}, &out); err != nil {
			return b.cannot(err, b.table, "cannot write to the table %s", b.table)
		}
		b.pending, b.seen = out.UnprocessedItems[b.table], nil
	}
	return nil
}
