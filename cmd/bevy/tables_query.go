package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) tableQueryCommand() *cobra.Command {
	var f *tableFlags
	var q query
	limit := 0
	cmd := &cobra.Command{
		Use:   "query <table> [<condition>...] [flags]",
		Short: "Print the items that meet conditions",
		Long: `Prints all items, or those that meet every <condition>: an attribute, one of
= != < <= > >= ^= (begins with), and a value. What looks like a number is one,
and what is in double quotes is text.

If the hash of the table or of an index is given with =, that is where it looks,
and the range may have one condition, or a lower and an upper bound. Else all
items are read. Items come in the order of the range; --reverse turns it.

With a moment, as in people@yesterday or people@now, items are those of that
moment. Nothing is asked of the machine that writes the table.`,
		Example: `bevy table query people
bevy table query people@yesterday
bevy table query orders customer=ann 'date>=2026-11' 'total>100' --reverse
bevy table query orders state=open --index byState --limit 10`,
		Args: wants(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTables(cmd.Context(), f, func(t *tables) error {
				name, err := t.moment(args[0])
				if err != nil {
					return err
				}
				d, err := t.describe(cmd.Context(), name)
				if err != nil {
					return err
				}
				if err := q.parse(&d, args[1:]); err != nil {
					return err
				}
				return t.printQuery(cmd.Context(), &d, &q, limit)
			})
		},
	}
	f = a.tableFlags(cmd, true)
	cmd.Flags().StringVar(&q.index, "index", "", "look into this `index`")
	cmd.Flags().IntVar(&limit, "limit", 0, "at most this `number` of items")
	cmd.Flags().BoolVar(&q.reverse, "reverse", false, "the last of the range first")
	return cmd
}

// A query is conditions as DynamoDB is asked them.
type query struct {
	index   string
	reverse bool

	scan   bool
	key    []string // conditions on the key
	filter []string
	names  map[string]string // of placeholders
	values map[string]attribute
	except map[string]attribute // bounds of the range that do not belong to it
	by     []string             // the key of what is looked into
}

// A tableCondition is one as it was typed.
type tableCondition struct {
	name, op string
	value    string
}

var operators = []string{"^=", "!=", "<=", ">=", "=", "<", ">"}

func parseCondition(text string) (c tableCondition, err error) {
	at := strings.IndexAny(text, "^!<>=")
	if at > 0 {
		for _, op := range operators {
			if value, ok := strings.CutPrefix(text[at:], op); ok {
				return tableCondition{text[:at], op, value}, nil
			}
		}
	}
	return c, wrong("name=ann, or 'age>40'", "it has no attribute, operator and value", "wrong condition %q", text)
}

// parse makes a query of conditions: of those on the key of the table or the index
// what is looked for, and of the others what is left out.
func (q *query) parse(d *description, words []string) error {
	var all []tableCondition
	equal := map[string]bool{}
	for _, text := range words {
		c, err := parseCondition(text)
		if err != nil {
			return err
		}
		all = append(all, c)
		equal[c.name] = equal[c.name] || c.op == "="
	}
	if err := q.choose(d, equal); err != nil {
		return err
	}
	q.names, q.values, q.except = map[string]string{}, map[string]attribute{}, map[string]attribute{}
	q.scan = !equal[q.by[0]]
	var bounds []tableCondition // of the range
	for _, c := range all {
		switch {
		case !q.scan && c.name == q.by[0] && c.op == "=":
			q.key = append(q.key, q.text(d, c))
		case !q.scan && len(q.by) > 1 && c.name == q.by[1]:
			bounds = append(bounds, c)
		default:
			q.filter = append(q.filter, q.text(d, c))
		}
	}
	return q.bound(d, bounds)
}

// choose finds out where to look: where the hash is given.
func (q *query) choose(d *description, equal map[string]bool) error {
	q.by = keys(d.KeySchema)
	var names []string
	for _, x := range d.indexes() {
		names = append(names, x.IndexName)
		if x.IndexName == q.index || q.index == "" && !equal[q.by[0]] && equal[x.KeySchema[0].AttributeName] {
			q.index, q.by = x.IndexName, keys(x.KeySchema)
			return nil
		}
	}
	if q.index == "" {
		return nil
	}
	cause := d.TableName + " has none"
	if len(names) > 0 {
		cause = d.TableName + " has: " + strings.Join(names, ", ")
	}
	return &failure{code: codeNotFound, what: fmt.Sprintf("there is no index %q", q.index), cause: cause, try: "bevy table ls"}
}

// bound makes one condition on the range of a lower and an upper one.
func (q *query) bound(d *description, bounds []tableCondition) error {
	if len(bounds) == 1 && bounds[0].op != "!=" {
		q.key = append(q.key, q.text(d, bounds[0]))
		return nil
	}
	var low, high *tableCondition
	for i, c := range bounds {
		switch {
		case strings.HasPrefix(c.op, ">") && low == nil:
			low = &bounds[i]
		case strings.HasPrefix(c.op, "<") && high == nil:
			high = &bounds[i]
		default:
			return wrong("one condition on it, or 'a>=1' 'a<9'", "it is the range of the key", "wrong conditions on %s", c.name)
		}
	}
	if low == nil || high == nil {
		return nil
	}
	name, from, to := q.place(low.name), q.value(word(low.value, d.kind(low.name))), q.value(word(high.value, d.kind(high.name)))
	q.key = append(q.key, name+" BETWEEN "+from+" AND "+to)
	for _, c := range []*tableCondition{low, high} {
		if len(c.op) == 1 { // BETWEEN has its bounds, too
			q.except[c.name+c.op] = word(c.value, d.kind(c.name))
		}
	}
	return nil
}

func (q *query) text(d *description, c tableCondition) string {
	name, value := q.place(c.name), q.value(word(c.value, d.kind(c.name)))
	switch c.op {
	case "^=":
		return "begins_with(" + name + ", " + value + ")"
	case "!=":
		return name + " <> " + value
	}
	return name + " " + c.op + " " + value
}

// place is the placeholder of a path such as a.b.
func (q *query) place(name string) string {
	for place, have := range q.names {
		if have == name {
			return place
		}
	}
	place := fmt.Sprintf("#n%d", len(q.names))
	q.names[place] = name
	return place
}

func (q *query) value(v attribute) string {
	place := fmt.Sprintf(":v%d", len(q.values))
	q.values[place] = v
	return place
}

// request is what DynamoDB is asked.
func (q *query) request(d *description) (operation string, in map[string]any) {
	in = map[string]any{"TableName": d.TableName}
	if q.index != "" {
		in["IndexName"] = q.index
	}
	if len(q.filter) > 0 {
		in["FilterExpression"] = strings.Join(q.filter, " AND ")
	}
	if len(q.names) > 0 {
		in["ExpressionAttributeNames"], in["ExpressionAttributeValues"] = q.names, q.values
	}
	if q.scan {
		return "Scan", in
	}
	in["KeyConditionExpression"], in["ScanIndexForward"] = strings.Join(q.key, " AND "), !q.reverse
	return "Query", in
}

// left tells whether an item is a bound that was said to be left out.
func (q *query) left(item tableItem) bool {
	for name, v := range q.except {
		if itemText(tableItem{"": item[name[:len(name)-1]]}) == itemText(tableItem{"": v}) {
			return true
		}
	}
	return false
}

// each calls f with the items that meet a query, until it says that it has enough.
func (t *tables) each(ctx context.Context, d *description, q *query, f func(tableItem) (more bool, err error)) error {
	operation, in := q.request(d)
	for {
		var out struct {
			Items            []tableItem
			LastEvaluatedKey tableItem
		}
		if err := t.ask(ctx, operation, in, &out); err != nil {
			return t.cannot(err, d.TableName, "cannot read the table %s", d.TableName)
		}
		for _, item := range out.Items {
			if q.left(item) {
				continue
			}
			if more, err := f(item); err != nil || !more {
				return err
			}
		}
		if out.LastEvaluatedKey == nil {
			return nil
		}
		in["ExclusiveStartKey"] = out.LastEvaluatedKey
	}
}

func (t *tables) printQuery(ctx context.Context, d *description, q *query, limit int) error {
	if q.scan && q.reverse {
		return wrong(keys(d.KeySchema)[0]+"=...", "all items are read, which have no order", "there is nothing to reverse")
	}
	w := t.buffered()
	n := 0
	first := keys(d.KeySchema)
	if q.index != "" {
		first = append(slices.Clone(q.by), first...)
	}
	err := t.each(ctx, d, q, func(item tableItem) (bool, error) {
		n++
		_, err := w.Write(append(t.line(item, first), '\n'))
		return n != limit, written(err)
	})
	if e := w.Flush(); err == nil {
		err = written(e)
	}
	if err == nil && n == 0 {
		t.say("no items")
	}
	return err
}

// everything is a query for all items.
func everything(d *description) *query {
	return &query{scan: true, by: keys(d.KeySchema)}
}

// attributesOf are the names of the attributes of items, those of the key first.
func attributesOf(seen map[string]bool, first []string) []string {
	names := slices.Clone(first)
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
