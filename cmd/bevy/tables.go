package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/node/home"
	"github.com/spf13/cobra"
)

func (a *app) tableCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "table",
		Short: "Tables of items, as programs for DynamoDB make them",
		Long: `Works with the tables that programs have made at the door for DynamoDB: see
"bevy env". Items are printed and read as plain JSON, one on each line:

  {"name":"ann","age":41,"friends":["bob"]}

Sets are lists then, and bytes are base64; --dynamo-json has all types as
DynamoDB writes them: {"name":{"S":"ann"},"age":{"N":"41"}}.`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	for _, c := range []*cobra.Command{a.tableLsCommand(), a.tableGetCommand(), a.tablePutCommand(), a.tableQueryCommand(), a.tableWatchCommand(),
		a.tableExportCommand(), a.tableRestoreCommand()} {
		if strings.Contains(c.Use, "<table>") {
			c.ValidArgsFunction = a.completeTable
		}
		cmd.AddCommand(c)
	}
	return cmd
}

// tables are those of an app, with how to print their items.
type tables struct {
	*app
	node  *client.Client
	of    string    // the app
	typed bool      // items are as DynamoDB writes them
	at    time.Time // when they are read as they were; zero is now
}

// tableFlags are those of all commands about tables.
type tableFlags struct {
	app   string
	typed bool
}

func (a *app) tableFlags(cmd *cobra.Command, items bool) *tableFlags {
	f := new(tableFlags)
	a.appFlag(cmd, &f.app)
	if items {
		cmd.Flags().BoolVar(&f.typed, "dynamo-json", false, "items with their types, as DynamoDB writes them")
	}
	return f
}

func (a *app) withTables(ctx context.Context, f *tableFlags, do func(*tables) error) error {
	return a.withNode(ctx, func(c *client.Client) error { return do(&tables{app: a, node: c, of: f.app, typed: f.typed}) })
}

// ask does an operation of DynamoDB.
func (t *tables) ask(ctx context.Context, operation string, in, out any) error {
	return t.node.DynamoDBAt(ctx, t.of, t.at, operation, in, out)
}

// moment reads a table with a moment behind an @, which no name has, and has the
// table read as it was then.
func (t *tables) moment(word string) (name string, err error) {
	name, moment, ok := strings.Cut(word, "@")
	if !ok {
		return word, nil
	}
	if t.at, err = home.ParseMoment(moment, t.clock.Now()); moment == "" || t.at.IsZero() || err != nil {
		return "", wrong("now, 2h, 3d, yesterday, 2026-11-23, 15:04", "it is no time", "there is no moment %q", moment)
	}
	return name, nil
}

// An attribute is a value with its type: {"S":"ann"}.
type attribute = map[string]any

// A tableItem is one, by the names of its attributes.
type tableItem = map[string]attribute

// A description is what DynamoDB tells of a table, as far as we ask.
type description struct {
	TableName              string
	TableStatus            string
	ItemCount              int64
	TableSizeBytes         int64
	CreationDateTime       float64
	KeySchema              []keyPart
	AttributeDefinitions   []struct{ AttributeName, AttributeType string }
	GlobalSecondaryIndexes []indexPart
	LocalSecondaryIndexes  []indexPart
	StreamSpecification    struct{ StreamEnabled bool }
	LatestStreamArn        string
}

type keyPart struct{ AttributeName, KeyType string }

type indexPart struct {
	IndexName string
	KeySchema []keyPart
}

// keys are the names of the parts of a key, the hash first.
func keys(schema []keyPart) (names []string) {
	for _, k := range schema {
		names = append(names, k.AttributeName)
	}
	return names
}

// kind is the type of an attribute of a key, or "".
func (d *description) kind(name string) string {
	for _, a := range d.AttributeDefinitions {
		if a.AttributeName == name {
			return a.AttributeType
		}
	}
	return ""
}

func (d *description) indexes() []indexPart {
	return append(slices.Clone(d.GlobalSecondaryIndexes), d.LocalSecondaryIndexes...)
}

// describe asks about a table.
func (t *tables) describe(ctx context.Context, name string) (d description, err error) {
	var out struct{ Table description }
	if err := t.ask(ctx, "DescribeTable", map[string]string{"TableName": name}, &out); err != nil {
		return d, t.cannot(err, name, "cannot look at the table %s", name)
	}
	return out.Table, nil
}

// names lists the tables.
func (t *tables) names(ctx context.Context) (names []string, err error) {
	for from := ""; ; {
		in := map[string]string{}
		if from != "" {
			in["ExclusiveStartTableName"] = from
		}
		var out struct {
			TableNames             []string
			LastEvaluatedTableName string
		}
		if err := t.ask(ctx, "ListTables", in, &out); err != nil {
			return nil, asked(err, "cannot list the tables")
		}
		names = append(names, out.TableNames...)
		if from = out.LastEvaluatedTableName; from == "" {
			return names, nil
		}
	}
}

// cannot is an error about a table as a person is told.
func (t *tables) cannot(err error, name, what string, args ...any) error {
	f, ok := asked(err, what, args...).(*failure)
	if !ok {
		return err
	}
	switch f.code {
	case codeNotFound:
		f.what, f.cause, f.try = fmt.Sprintf("there is no table %q", name), "none has that name", "bevy table ls"+t.ofApp()
		if !t.at.IsZero() {
			f.what += " at " + t.at.Local().Format("2006-01-02 15:04:05")
			f.cause = "none had that name then, or it is gone"
		}
		if t.of != "" {
			f.cause = fmt.Sprintf("the app %q has none of that name", t.of)
		}
	case codeUsage, codeConflict:
		f.what = fmt.Sprintf(what, args...)
		f.try = "bevy table --help"
	}
	return f
}

// ofApp is what a command about the tables has to say of the app.
func (t *tables) ofApp() string {
	if t.of == "" {
		return ""
	}
	return " --app " + shellWord(t.of)
}

// completeTable offers tables as the first word.
func (a *app) completeTable(cmd *cobra.Command, args []string, _ string) (words []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	of, _ := cmd.Flags().GetString("app")
	_ = a.withTables(contextOf(cmd), &tableFlags{app: of}, func(t *tables) (err error) {
		words, err = t.names(contextOf(cmd))
		return err
	})
	return words, cobra.ShellCompDirectiveNoFileComp
}

// plain is a value without its type.
func plain(v attribute) any {
	for kind, value := range v { // there is one
		switch kind {
		case "N":
			if s, ok := value.(string); ok {
				return number(s)
			}
		case "NULL":
			return nil
		case "NS":
			list, _ := value.([]any)
			out := make([]any, len(list))
			for i, e := range list {
				s, _ := e.(string)
				out[i] = number(s)
			}
			return out
		case "L":
			list, _ := value.([]any)
			out := make([]any, len(list))
			for i, e := range list {
				m, _ := e.(map[string]any)
				out[i] = plain(m)
			}
			return out
		case "M":
			m, _ := value.(map[string]any)
			out := make(map[string]any, len(m))
			for name, e := range m {
				in, _ := e.(map[string]any)
				out[name] = plain(in)
			}
			return out
		}
		return value
	}
	return nil
}

// number is a number as it is written; json.Number keeps all of its digits.
func number(s string) any {
	if json.Valid([]byte(s)) && s != "" && s != "null" && strings.IndexByte("-0123456789", s[0]) >= 0 {
		return json.Number(s)
	}
	return s
}

// typed is a plain value with its type, by kind if that is known.
func typed(v any, kind string) attribute {
	switch v := v.(type) {
	case string:
		if kind == "B" || kind == "N" {
			return attribute{kind: v}
		}
		return attribute{"S": v}
	case json.Number:
		if kind == "S" {
			return attribute{"S": v.String()}
		}
		return attribute{"N": v.String()}
	case bool:
		return attribute{"BOOL": v}
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = typed(e, "")
		}
		return attribute{"L": list}
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, e := range v {
			m[name] = typed(e, "")
		}
		return attribute{"M": m}
	}
	return attribute{"NULL": true}
}

// line is an item as it is printed: its key first, and then by name.
func (t *tables) line(item tableItem, first []string) []byte {
	names := slices.Sorted(maps.Keys(item))
	slices.SortStableFunc(names, func(a, b string) int {
		place := func(s string) int {
			if i := slices.Index(first, s); i >= 0 {
				return i
			}
			return len(first)
		}
		return cmp.Compare(place(a), place(b))
	})
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		var v any = item[name]
		if !t.typed {
			v = plain(item[name])
		}
		b.Write(bytes.TrimSpace(jsonLine(name)))
		b.WriteByte(':')
		b.Write(bytes.TrimSpace(jsonLine(v)))
	}
	return append(b.Bytes(), '}')
}

// readItem reads an item as a person writes it.
func (t *tables) readItem(text []byte, d *description) (tableItem, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if t.typed {
		var out tableItem
		err := decoder.Decode(&out)
		return out, err
	}
	var in map[string]any
	if err := decoder.Decode(&in); err != nil {
		return nil, err
	}
	out := make(tableItem, len(in))
	for name, v := range in {
		out[name] = typed(v, d.kind(name))
	}
	return out, nil
}

// word reads a value from the command line, for an attribute of a type. Without
// one it is a number if it looks like one, and so on; what is in quotes is text.
func word(text, kind string) attribute {
	if kind != "" {
		return attribute{kind: text}
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err == nil && decoder.InputOffset() == int64(len(text)) {
		return typed(v, "")
	}
	return attribute{"S": text}
}

// keyOf makes the key of an item of words.
func (d *description) keyOf(words []string) (tableItem, error) {
	names := keys(d.KeySchema)
	if len(words) != len(names) {
		return nil, wrong("bevy table get "+shellWord(d.TableName)+" <"+strings.Join(names, "> <")+">",
			fmt.Sprintf("the key of %s is %s", d.TableName, strings.Join(names, " and ")), "%s", "that is no key: "+strings.Join(words, " "))
	}
	key := tableItem{}
	for i, name := range names {
		kind := d.kind(name)
		if _, err := base64.StdEncoding.DecodeString(words[i]); kind == "B" && err != nil {
			return nil, wrong("bytes in base64", err.Error(), "wrong %s: %q", name, words[i])
		}
		key[name] = word(words[i], kind)
	}
	return key, nil
}

// jsonLines calls f with each line of a text that is not empty.
func jsonLines(r io.Reader, f func(n int, line []byte) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxItemLine)
	n := 0
	for s.Scan() {
		n++
		if line := bytes.TrimSpace(s.Bytes()); len(line) > 0 {
			if err := f(n, line); err != nil {
				return err
			}
		}
	}
	return s.Err()
}

// maxItemLine bounds a line with an item: one has at most 400 KiB.
const maxItemLine = 4 << 20

// A listedTable is what --json prints of each table.
type listedTable struct {
	Name    string   `json:"name"`
	Items   int64    `json:"items"`
	Bytes   int64    `json:"bytes"`
	Keys    []string `json:"keys"`
	Indexes []string `json:"indexes"`
	Stream  bool     `json:"stream"`
	Status  string   `json:"status"`
}

func (a *app) tableLsCommand() *cobra.Command {
	var f *tableFlags
	cmd := &cobra.Command{
		Use:   "ls [flags]",
		Short: "List the tables",
		Example: `bevy table ls
bevy table ls --app shop`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withTables(cmd.Context(), f, func(t *tables) error { return t.ls(cmd.Context()) })
		},
	}
	f = a.tableFlags(cmd, false)
	return cmd
}

// listed describes all tables.
func (t *tables) listed(ctx context.Context) (list []listedTable, err error) {
	names, err := t.names(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		d, err := t.describe(ctx, name)
		if err != nil {
			return nil, err
		}
		l := listedTable{d.TableName, d.ItemCount, d.TableSizeBytes, keys(d.KeySchema), []string{}, d.StreamSpecification.StreamEnabled, strings.ToLower(d.TableStatus)}
		for _, x := range d.indexes() {
			l.Indexes = append(l.Indexes, x.IndexName)
		}
		list = append(list, l)
	}
	return list, nil
}

func (t *tables) ls(ctx context.Context) error {
	list, err := t.listed(ctx)
	if err != nil {
		return err
	}
	if t.json {
		for _, l := range list {
			if err := t.printJSON(l); err != nil {
				return written(err)
			}
		}
		return nil
	}
	if len(list) == 0 {
		t.say("no tables\nnext:  eval $(bevy env%s); aws dynamodb create-table ...", t.ofApp())
		return nil
	}
	return written(tableOfTables(list).write(t.stdout))
}

func tableOfTables(list []listedTable) *table {
	out := newTable("TABLE", "ITEMS", "SIZE", "KEY", "INDEXES")
	out.right[1], out.right[2] = true, true
	for _, l := range list {
		out.add(l.Name, count(uint64(max(l.Items, 0))), size(uint64(max(l.Bytes, 0))), strings.Join(l.Keys, ", "), cmp.Or(strings.Join(l.Indexes, ", "), "-"))
	}
	return out
}
