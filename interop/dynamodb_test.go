package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/internal/nodepeer"
	"github.com/cloudbevy/bevy/services/dynamodb"
)

// doorScript prepares a script of interop/node-doors, or skips the test.
func doorScript(t testing.TB, script string, args ...string) *exec.Cmd {
	t.Helper()
	root, err := nodepeer.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "interop", "node-doors")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json")); err != nil {
		if os.Getenv("BEVY_INTEROP") == "1" {
			t.Fatalf("BEVY_INTEROP=1, but the packages of interop/node-doors are missing: %v; run `npm ci` there", err)
		}
		t.Skipf("the packages of interop/node-doors are missing: %v; run `npm ci` there", err)
	}
	cmd := exec.CommandContext(context.Background(), "node", append([]string{script}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	return cmd
}

// startDynalite returns the address of a dynalite that ends with the test.
func startDynalite(t testing.TB) string {
	t.Helper()
	cmd := doorScript(t, "dynalite.js")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return "http://127.0.0.1:" + strings.TrimSpace(port)
}

// startDynamoDoor returns the address of a door to tables in memory.
func startDynamoDoor(t testing.TB) string {
	t.Helper()
	trees, err := dynamodb.NewMemory(clock.System)
	if err != nil {
		t.Fatal(err)
	}
	door, err := dynamodb.New(t.Context(), dynamodb.Options{Trees: trees})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(door)
	t.Cleanup(func() {
		server.Close()
		if err := door.Close(); err != nil {
			t.Error(err)
		}
		trees.Close()
	})
	return server.URL
}

// An answer is what one of the two says to a request.
type dynamoAnswer struct {
	status  int
	kind    string // of an error
	message string
	body    map[string]any
}

func askDynamo(t testing.TB, url, target, body string) (dynamoAnswer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810."+target)
	r.Header.Set("X-Amz-Date", "20261123T120000Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=f, Signature=g")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return dynamoAnswer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return dynamoAnswer{}, err
	}
	a := dynamoAnswer{status: resp.StatusCode, body: map[string]any{}}
	if len(text) > 0 && !bytes.Equal(text, []byte(`""`)) {
		if err := json.Unmarshal(text, &a.body); err != nil {
			t.Fatalf("%s %s: %s answered %q", target, body, url, text)
		}
	}
	if a.kind, _ = a.body["__type"].(string); a.kind != "" {
		a.message, _ = a.body["message"].(string)
		if a.message == "" {
			a.message, _ = a.body["Message"].(string)
		}
	}
	return a, nil
}

// sortResponses gives what has no order one.
func sortResponses(body map[string]any) {
	responses, _ := body["Responses"].(map[string]any)
	for _, list := range responses {
		all := list.([]any)
		sort.Slice(all, func(i, j int) bool { return fmt.Sprint(all[i]) < fmt.Sprint(all[j]) })
	}
	if list, ok := body["ConsumedCapacity"].([]any); ok {
		sort.Slice(list, func(i, j int) bool { return fmt.Sprint(list[i]) < fmt.Sprint(list[j]) })
	}
}

// difference tells how answers differ, or nothing.
func (a dynamoAnswer) difference(b dynamoAnswer) string {
	switch {
	case a.status != b.status || a.kind != b.kind:
		return "another status or type"
	case a.kind != "":
		if a.message != b.message {
			return "another message"
		}
		return ""
	}
	sortResponses(a.body)
	sortResponses(b.body)
	if !reflect.DeepEqual(a.body, b.body) {
		return "another answer"
	}
	return ""
}

// A dynamoGen makes up requests.
type dynamoGen struct{ *rand.Rand }

type obj = map[string]any

func pickOne[T any](g dynamoGen, list ...T) T { return list[g.IntN(len(list))] }

func (g dynamoGen) chance(n int) bool { return g.IntN(n) == 0 }

// The tables of the test: with a simple key, with all kinds of indexes, and with
// keys that are numbers and bytes.
var dynamoTables = []string{`{"TableName":"simple","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"a","KeyType":"HASH"}],
	"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"}]}`,
	`{"TableName":"indexed","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"AttributeName":"b","KeyType":"RANGE"}],
	"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"},{"AttributeName":"b","AttributeType":"S"},{"AttributeName":"c","AttributeType":"S"},{"AttributeName":"d","AttributeType":"N"}],
	"GlobalSecondaryIndexes":[
		{"IndexName":"byC","KeySchema":[{"AttributeName":"c","KeyType":"HASH"},{"AttributeName":"d","KeyType":"RANGE"}],"Projection":{"ProjectionType":"ALL"}},
		{"IndexName":"byD","KeySchema":[{"AttributeName":"d","KeyType":"HASH"}],"Projection":{"ProjectionType":"KEYS_ONLY"}}],
	"LocalSecondaryIndexes":[{"IndexName":"inA","KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"AttributeName":"d","KeyType":"RANGE"}],"Projection":{"ProjectionType":"INCLUDE","NonKeyAttributes":["e","f"]}}]}`,
	`{"TableName":"numbers","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"AttributeName":"b","KeyType":"RANGE"}],
	"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"N"},{"AttributeName":"b","AttributeType":"B"}]}`}

func (g dynamoGen) table() string {
	if g.chance(60) {
		return pickOne(g, "nowhere", "x", "a b c", "")
	}
	return pickOne(g, "simple", "indexed", "indexed", "numbers")
}

func (g dynamoGen) number() string {
	return pickOne(g, "0", "1", "-1", "2", "1.5", "-1.5", "10", "100", "1e2", "1E-3", "-0", "007", "0.10", "99999999999999999999999999999999999999",
		"1e125", "-1e125", "1e-130", "123456789012345678901234567890", g.edge(), fmt.Sprint(g.IntN(40)-20), fmt.Sprintf("%d.%d", g.IntN(40)-20, g.IntN(1000)))
}

// edge is a number of which not everybody thinks, or that is none.
func (g dynamoGen) edge() string {
	if g.chance(6) {
		return pickOne(g, "1e", "--1", "0x1", "1_000", " 1", "1 ", "NaN", "Infinity", "1e1000", "1e-1000", "1,5", "1.2.3", "e5", ".", "-", "\u0663", "1e99999999999")
	}
	return pickOne(g, "9.9999999999999999999999999999999999999e125", "-9.9999999999999999999999999999999999999e125", "1e-130", "-1e-130", "0e0", "-0.0", "0e125", "+1", "+1.50",
		"1e+5", "1.10e2", "100000000000000000000000000000000000000", "1000000000000000000000000000000000000000000", "0.00000000000000000000000000000000000001", "12345678901234567890.123456789012345678",
		"0.1e1", "10e-1", "1.000000000000000000000000000000000000000000", "000000000000000000000000000000000000000000001", "99999999999999999999999999999999999998", "2", "2.0", "20e-1", "0.2e1")
}

func (g dynamoGen) text() string {
	return pickOne(g, "a", "b", "c", "ab", "abc", "b\x00c", "z", "A", "~", fmt.Sprint("k", g.IntN(20)))
}

func (g dynamoGen) bytes() string {
	return pickOne(g, "AA==", "AAA=", "/w==", "//8=", "YQ==", "YWI=", "YWJj", "AAEC")
}

// scalar is a value of a type of keys.
func (g dynamoGen) scalar(t string) obj {
	switch t {
	case "S":
		return obj{"S": g.text()}
	case "N":
		return obj{"N": g.number()}
	}
	return obj{"B": g.bytes()}
}

// value is any value.
func (g dynamoGen) value(depth int) obj {
	if g.chance(80) {
		return g.badValue()
	}
	switch n := g.IntN(12); {
	case n < 2:
		return g.scalar("S")
	case n < 5:
		return g.scalar("N")
	case n == 5:
		return g.scalar("B")
	case n == 6:
		return obj{"BOOL": g.chance(2)}
	case n == 7:
		return obj{"NULL": true}
	case n == 8:
		return pickOne(g, obj{"SS": []any{"a", "b"}}, obj{"SS": []any{"b"}}, obj{"SS": []any{"x", "y", "z"}})
	case n == 9:
		return pickOne(g, obj{"NS": []any{"1", "2"}}, obj{"NS": []any{"2.0", "30"}}, obj{"BS": []any{"AA==", "YQ=="}})
	case n == 10 && depth < 3:
		var list []any
		for range g.IntN(4) {
			list = append(list, g.value(depth+1))
		}
		if list == nil {
			list = []any{}
		}
		return obj{"L": list}
	case depth < 3:
		m := obj{}
		for range g.IntN(3) {
			m[g.name()] = g.value(depth + 1)
		}
		return obj{"M": m}
	case g.chance(10):
		return g.deep(pickOne(g, 5, 28, 29, 30, 31, 32, 33, 60))
	}
	return obj{"S": ""}
}

// deep is a value in a value in a value.
func (g dynamoGen) deep(levels int) obj {
	v := obj{"N": "1"}
	for range levels {
		if g.chance(2) {
			v = obj{"L": []any{v}}
		} else {
			v = obj{"M": obj{"e": v}}
		}
	}
	return v
}

func (g dynamoGen) badValue() obj {
	return pickOne(g, obj{}, obj{"S": "a", "N": "1"}, obj{"N": "x"}, obj{"N": ""}, obj{"N": "1e126"}, obj{"N": "1e-131"},
		obj{"N": "123456789012345678901234567890123456789"}, obj{"SS": []any{}}, obj{"NS": []any{}}, obj{"BS": []any{}},
		obj{"SS": []any{"a", "a"}}, obj{"NS": []any{"1", "1.0"}}, obj{"BS": []any{"AA==", "AA=="}}, obj{"NULL": false},
		obj{"S": 1}, obj{"S": true}, obj{"N": 5}, obj{"N": 1.5}, obj{"B": "a"}, obj{"B": "AB=="}, obj{"BOOL": "yes"}, obj{"BOOL": "maybe"},
		obj{"BOOL": 1}, obj{"L": "x"}, obj{"L": obj{}}, obj{"M": []any{}}, obj{"SS": "a"}, obj{"S": []any{}}, obj{"S": obj{}},
		obj{"B": 5}, obj{"B": obj{}}, obj{"B": []any{}}, obj{"X": "a"}, obj{"M": obj{"a": obj{"N": "y"}}}, obj{"L": []any{obj{"N": "y"}}}, obj{"NS": []any{"q"}})
}

func (g dynamoGen) name() string {
	return pickOne(g, "a", "b", "c", "d", "e", "f", "g", "h", "i1", "j_k")
}

var dynamoKeys = map[string][]string{"simple": {"S"}, "indexed": {"S", "S"}, "numbers": {"N", "B"}}

// key is that of an item.
func (g dynamoGen) key(table string) obj {
	out := obj{}
	for i, t := range dynamoKeys[table] {
		out[string(rune('a'+i))] = g.scalar(t)
	}
	if g.chance(50) {
		delete(out, pickOne(g, "a", "b"))
	}
	if g.chance(50) {
		out[g.name()] = g.value(0)
	}
	if g.chance(200) {
		out["a"] = obj{"S": strings.Repeat("x", 2049)}
	}
	return out
}

func (g dynamoGen) item(table string) obj {
	out := g.key(table)
	for range g.IntN(6) {
		name := pickOne(g, "e", "f", "g", "h", "i1", "j_k")
		out[name] = g.value(0)
	}
	if table == "indexed" {
		if !g.chance(3) {
			out["c"] = g.scalar("S")
		}
		if !g.chance(3) {
			out["d"] = g.scalar("N")
		}
	}
	if g.chance(60) {
		out[g.name()] = g.value(0)
	}
	return out
}

// An exprGen makes up expressions with their placeholders.
type exprGen struct {
	dynamoGen
	names, values obj
}

func (g dynamoGen) expr() *exprGen { return &exprGen{g, obj{}, obj{}} }

func (e *exprGen) attr() string {
	name := e.name()
	switch {
	case e.chance(40):
		return pickOne(e.dynamoGen, "name", "size", "Count", "and", "_x", "1x", "#undefined", "x-y", "SET", "between")
	case e.chance(3):
		place := "#" + name
		e.names[place] = name
		return place
	}
	return name
}

func (e *exprGen) path() string {
	out := e.attr()
	for e.chance(4) {
		out += pickOne(e.dynamoGen, "[0]", "[0][0]", ".e.f", ".f[1].g", "[00]", "[99]", "[99999999999]", "[0]", "[1]", "[7]", "."+e.name(), " . "+e.name(), ".#n")
		if strings.HasSuffix(out, ".#n") {
			e.names["#n"] = "e"
		}
	}
	return out
}

func (e *exprGen) val(v obj) string {
	if e.chance(60) {
		return ":undefined"
	}
	place := fmt.Sprint(":v", len(e.values))
	e.values[place] = v
	return place
}

func (e *exprGen) operand() string {
	switch e.IntN(8) {
	case 0, 1, 2:
		return e.val(e.value(1))
	case 3:
		return "size(" + e.path() + ")"
	case 4:
		if e.chance(5) {
			return "(" + e.path() + ")"
		}
	case 5:
		if e.chance(10) {
			return "((" + e.path() + "))"
		}
	}
	return e.path()
}

func (e *exprGen) condition(depth int) string {
	if depth < 3 {
		switch e.IntN(8) {
		case 0:
			return e.condition(depth+1) + pickOne(e.dynamoGen, " and ", " AND ", " aNd\n") + e.condition(depth+1)
		case 1:
			return e.condition(depth+1) + " or " + e.condition(depth+1)
		case 2:
			return "not " + e.condition(depth+1)
		case 3:
			return "(" + e.condition(depth+1) + ")"
		}
	}
	switch e.IntN(12) {
	case 0, 1:
		return e.path() + pickOne(e.dynamoGen, " = ", "<", " <= ", ">", ">=", "<>") + e.operand()
	case 2:
		return e.operand() + pickOne(e.dynamoGen, " = ", " < ", " > ", " <> ") + e.operand()
	case 3:
		low, high := e.scalar("N"), e.scalar("N")
		if e.chance(4) {
			high = e.scalar("S")
		}
		return e.path() + " between " + e.val(low) + " and " + e.val(high)
	case 4:
		return e.path() + " in (" + e.val(e.value(1)) + ", " + e.val(e.value(1)) + ")"
	case 5:
		return "attribute_exists(" + e.operand() + ")"
	case 6:
		return "attribute_not_exists(" + e.path() + ")"
	case 7:
		return "attribute_type(" + e.path() + ", " + e.val(obj{"S": pickOne(e.dynamoGen, "S", "N", "L", "M", "SS", "BOOL", "X")}) + ")"
	case 8:
		return "begins_with(" + e.path() + ", " + e.val(e.scalar("S")) + ")"
	case 9:
		return "contains(" + e.path() + ", " + e.val(e.scalar(pickOne(e.dynamoGen, "S", "N", "B"))) + ")"
	case 10:
		return "size(" + e.path() + ") > " + e.val(e.scalar("N"))
	}
	if !e.chance(6) {
		return "attribute_exists(" + e.path() + ")"
	}
	return pickOne(e.dynamoGen, "attribute_exists(a, b)", "what(a)", "begins_with(a)", "size(a)", "contains(size(a), b)", "a", "a = ", "= b", "(a = b", "((a = b))",
		"a = b = c", "not a", "attribute_exists(attribute_exists(a))", "a between b", "a in b", "a in ()", "a + b", "a.b.", "a[x]", "a[", "$", "a = attribute_exists(b)",
		"contains(a, a)", "a = a", "and a", ")", "size(size(a)) = b", "begins_with(a, a[0])")
}

func (e *exprGen) projection() string {
	out := e.path()
	for e.chance(2) {
		out += pickOne(e.dynamoGen, ",", ", ", " , ") + e.path()
	}
	if e.chance(30) {
		out += pickOne(e.dynamoGen, ",", " x", "=", "(")
	}
	return out
}

func (e *exprGen) setValue(depth int) string {
	switch e.IntN(9) {
	case 0:
		return e.path()
	case 1:
		return e.path() + " + " + e.val(e.scalar("N"))
	case 2:
		return e.val(e.scalar("N")) + "-" + e.val(e.scalar("N"))
	case 3:
		return "if_not_exists(" + e.path() + ", " + e.operandSet() + ")"
	case 4:
		return "list_append(" + e.operandSet() + ", " + e.val(obj{"L": []any{obj{"N": "1"}}}) + ")"
	case 5:
		if depth == 0 {
			return "(" + e.setValue(1) + ")"
		}
	}
	return e.val(e.value(0))
}

func (e *exprGen) operandSet() string {
	if e.chance(2) {
		return e.path()
	}
	return e.val(e.value(1))
}

func (e *exprGen) update() string {
	var parts []string
	list := func(f func() string) string {
		out := f()
		for e.chance(3) {
			out += ", " + f()
		}
		return out
	}
	target := func() string {
		if e.chance(30) {
			return e.path()
		}
		out := pickOne(e.dynamoGen, "e", "f", "g", "h", "i1", "j_k", "c", "d")
		if e.chance(4) {
			out += pickOne(e.dynamoGen, "[0]", "[1]", ".e", ".f", "[5]")
		}
		return out
	}
	if e.chance(2) {
		parts = append(parts, pickOne(e.dynamoGen, "set ", "SET ")+list(func() string { return target() + " = " + e.setValue(0) }))
	}
	if e.chance(3) {
		parts = append(parts, "remove "+target())
	}
	if e.chance(3) {
		parts = append(parts, "add "+list(func() string {
			return target() + " " + e.val(pickOne(e.dynamoGen, e.scalar("N"), obj{"SS": []any{"q"}}, obj{"NS": []any{"7", "1"}}, e.value(1)))
		}))
	}
	if e.chance(4) {
		parts = append(parts, "delete "+target()+" "+e.val(pickOne(e.dynamoGen, obj{"SS": []any{"a", "x"}}, obj{"NS": []any{"1"}}, e.value(1))))
	}
	if e.chance(25) {
		parts = append(parts, pickOne(e.dynamoGen, "set a", "set", "x = y", "set e = f(g)", "remove e remove f", "set e = :v + :w + :x", "add e f", "set e = ((f))", "delete e", "set e = if_not_exists(:v0, :v0)"))
	}
	return strings.Join(parts, " ")
}

// into puts the placeholders into a request.
func (e *exprGen) into(r obj) {
	if e.chance(50) {
		e.names["#unused"] = "x"
	}
	if e.chance(50) {
		e.values[":unused"] = obj{"S": "x"}
	}
	if len(e.names) > 0 || e.chance(100) {
		r["ExpressionAttributeNames"] = e.names
	}
	if len(e.values) > 0 || e.chance(100) {
		r["ExpressionAttributeValues"] = e.values
	}
}

var dynamoOperators = []string{"EQ", "NE", "LE", "LT", "GE", "GT", "NULL", "NOT_NULL", "CONTAINS", "NOT_CONTAINS", "BEGINS_WITH", "IN", "BETWEEN"}

func (g dynamoGen) oldCondition() obj {
	op := pickOne(g, dynamoOperators...)
	c := obj{"ComparisonOperator": op}
	n := map[string]int{"NULL": 0, "NOT_NULL": 0, "BETWEEN": 2}
	count, ok := n[op]
	if !ok {
		count = 1
	}
	if g.chance(20) {
		count++
	}
	if count > 0 {
		t := pickOne(g, "S", "N", "B")
		var list []any
		for range count {
			list = append(list, g.scalar(t))
		}
		if g.chance(20) {
			list[0] = g.value(0)
		}
		c["AttributeValueList"] = list
	}
	return c
}

// conditions puts one of the kinds of conditions into a request to change an item.
func (g dynamoGen) conditions(r obj, e *exprGen) {
	switch {
	case g.chance(3):
		r["ConditionExpression"] = e.condition(0)
	case g.chance(6):
		c := obj{"Value": g.value(0)}
		switch g.IntN(4) {
		case 0:
			c = obj{"Exists": false}
		case 1:
			c = g.oldCondition()
		case 2:
			c["Exists"] = g.chance(2)
		}
		r["Expected"] = obj{g.name(): c}
	}
}

func (g dynamoGen) extras(r obj) {
	if g.chance(30) {
		r["ReturnConsumedCapacity"] = pickOne(g, "NONE", "what")
	}
	if g.chance(30) {
		r["ReturnItemCollectionMetrics"] = pickOne(g, "NONE", "what")
	}
}

// request makes up one of any kind.
func (g dynamoGen) request() (target string, r obj) {
	table := g.table()
	r = obj{"TableName": table}
	e := g.expr()
	defer func() {
		if len(e.names) > 0 || len(e.values) > 0 || g.chance(100) {
			e.into(r)
		}
		g.extras(r)
		if g.chance(25) {
			g.spoil(r)
		}
	}()
	switch g.IntN(16) {
	case 0, 1, 2, 3:
		r["Item"] = g.item(table)
		g.conditions(r, e)
		if g.chance(3) {
			r["ReturnValues"] = pickOne(g, "ALL_OLD", "NONE", "ALL_OLD", "ALL_NEW", "x")
		}
		return "PutItem", r
	case 4, 5:
		r["Key"] = g.key(table)
		switch {
		case g.chance(3):
			r["ProjectionExpression"] = e.projection()
		case g.chance(8):
			r["AttributesToGet"] = pickOne(g, []any{"a", "e"}, []any{"e", "e"}, []any{})
		}
		return "GetItem", r
	case 6:
		r["Key"] = g.key(table)
		g.conditions(r, e)
		if g.chance(2) {
			r["ReturnValues"] = pickOne(g, "ALL_OLD", "NONE")
		}
		return "DeleteItem", r
	case 7, 8, 9, 10:
		r["Key"] = g.key(table)
		if g.chance(5) {
			u := obj{}
			for range 1 + g.IntN(2) {
				one := obj{"Value": g.value(0)}
				if g.chance(2) {
					one["Action"] = pickOne(g, "PUT", "ADD", "DELETE")
				}
				if g.chance(8) {
					delete(one, "Value")
				}
				u[g.name()] = one
			}
			r["AttributeUpdates"] = u
		} else {
			r["UpdateExpression"] = e.update()
		}
		g.conditions(r, e)
		r["ReturnValues"] = pickOne(g, "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW", "NONE")
		return "UpdateItem", r
	case 11, 12, 13:
		g.query(table, r, e)
		return "Query", r
	case 14:
		g.scan(table, r, e)
		return "Scan", r
	}
	return g.batch(r)
}

// indexKeys are the types of the keys of tables and indexes.
var indexKeys = map[string][][2]string{
	"":    nil,
	"byC": {{"c", "S"}, {"d", "N"}},
	"byD": {{"d", "N"}},
	"inA": {{"a", "S"}, {"d", "N"}},
}

func (g dynamoGen) walk(table string, r obj) (keys [][2]string) {
	for i, t := range dynamoKeys[table] {
		keys = append(keys, [2]string{string(rune('a' + i)), t})
	}
	if table == "indexed" && g.chance(2) {
		name := pickOne(g, "byC", "byD", "inA")
		r["IndexName"], keys = name, indexKeys[name]
	}
	if g.chance(60) {
		r["IndexName"] = pickOne(g, "none", "x")
	}
	if g.chance(3) {
		r["Limit"] = g.IntN(6)
	}
	if g.chance(10) {
		r["Select"] = pickOne(g, "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "x")
	}
	if g.chance(20) {
		r["ConsistentRead"] = true
	}
	if g.chance(12) {
		start := g.key(table)
		for _, k := range keys {
			start[k[0]] = g.scalar(k[1])
		}
		r["ExclusiveStartKey"] = start
	}
	return keys
}

func (g dynamoGen) query(table string, r obj, e *exprGen) {
	keys := g.walk(table, r)
	if len(keys) == 0 {
		keys = [][2]string{{"a", "S"}}
	}
	if g.chance(3) {
		r["ScanIndexForward"] = g.chance(2)
	}
	if g.chance(5) {
		c := obj{keys[0][0]: obj{"ComparisonOperator": "EQ", "AttributeValueList": []any{g.scalar(keys[0][1])}}}
		if len(keys) > 1 && g.chance(2) {
			c[keys[1][0]] = g.oldCondition()
		}
		if g.chance(15) {
			c[g.name()] = g.oldCondition()
		}
		r["KeyConditions"] = c
		if g.chance(4) {
			r["QueryFilter"] = obj{g.name(): g.oldCondition()}
		}
		return
	}
	cond := keys[0][0] + " = " + e.val(g.scalar(keys[0][1]))
	if len(keys) > 1 && g.chance(2) {
		name, v := keys[1][0], func() string { return e.val(g.scalar(keys[1][1])) }
		switch g.IntN(7) {
		case 0:
			cond += " and " + name + " between " + v() + " and " + v()
		case 1:
			cond += " and begins_with(" + name + ", " + v() + ")"
		case 2:
			cond = v() + " < " + name + " and " + cond
		default:
			cond += " and " + name + pickOne(g, " = ", " < ", " <= ", " > ", " >= ", " <> ") + v()
		}
	}
	if g.chance(25) {
		cond = e.condition(1)
	}
	r["KeyConditionExpression"] = cond
	if g.chance(4) {
		r["FilterExpression"] = e.condition(0)
	}
	if g.chance(6) {
		r["ProjectionExpression"] = e.projection()
	}
}

func (g dynamoGen) scan(table string, r obj, e *exprGen) {
	g.walk(table, r)
	switch {
	case g.chance(3):
		r["FilterExpression"] = e.condition(0)
	case g.chance(5):
		r["ScanFilter"] = obj{g.name(): g.oldCondition()}
	}
	if g.chance(6) {
		r["ProjectionExpression"] = e.projection()
	}
	if g.chance(5) {
		r["Segment"], r["TotalSegments"] = g.IntN(4), 1+g.IntN(4)
	}
}

func (g dynamoGen) batch(r obj) (string, obj) {
	delete(r, "TableName")
	items := obj{}
	r["RequestItems"] = items
	if g.chance(2) {
		for range 1 + g.IntN(2) {
			table := g.table()
			var keys []any
			for range g.IntN(4) + 1 {
				keys = append(keys, g.key(table))
			}
			items[table] = obj{"Keys": keys}
		}
		return "BatchGetItem", r
	}
	for range 1 + g.IntN(2) {
		table := g.table()
		var list []any
		for range g.IntN(4) + 1 {
			if g.chance(3) {
				list = append(list, obj{"DeleteRequest": obj{"Key": g.key(table)}})
			} else {
				list = append(list, obj{"PutRequest": obj{"Item": g.item(table)}})
			}
		}
		items[table] = list
	}
	return "BatchWriteItem", r
}

// spoil puts something into a request that does not belong there.
func (g dynamoGen) spoil(r obj) {
	keys := make([]string, 0, len(r))
	for k := range r {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	k := pickOne(g, keys...)
	switch g.IntN(7) {
	case 0:
		delete(r, k)
	case 1:
		r[k] = 5
	case 2:
		r[k] = "abc"
	case 3:
		r[k] = []any{}
	case 4:
		r[k] = obj{}
	case 5:
		r[k] = true
	default:
		r[k] = ""
	}
}

// knownDifference tells why two answers may differ.
func knownDifference(target, body string, ours, theirs dynamoAnswer) string {
	both := ours.kind != "" && theirs.kind != ""
	switch {
	case both && strings.Contains(ours.message, "Syntax error; ") && strings.Contains(theirs.message, "Syntax error; "):
		return "dynalite tells its parser's words, the door those of DynamoDB"
	case strings.Contains(ours.message, "Syntax error; ") && strings.Contains(body, "_x"):
		return "the newest dynalite, too, refuses names that begin with _"
	case strings.Contains(ours.message, "List index is not within the allowable range"):
		return "dynalite has lists of any length"
	case strings.Contains(theirs.message, "cannot be converted to a numeric value: +"):
		return "dynalite does not take a number with a plus, as DynamoDB does"
	case strings.Contains(ours.message, "Nesting Levels have exceeded"):
		return "dynalite takes values of any depth"
	case target == "UpdateItem" && ours.kind == "" && theirs.kind == "" && severalActions(body):
		return "to dynalite, an update reads what it has written already"
	case strings.Contains(ours.message, "Condition parameter type does not match schema type") && strings.Contains(theirs.message, "EQ is not valid for"):
		return "dynalite does not compare all types in filters"
	case target == "Scan" && strings.Contains(body, `"ConsistentRead"`) && (strings.Contains(ours.message, "Consistent reads") || ours.kind != theirs.kind):
		return "dynalite does not know ConsistentRead of Scan"
	case strings.Contains(body, `"Exists":true`):
		return "dynalite does not look at the value that something must have"
	case strings.Contains(ours.message, "Number overflow") && strings.Contains(target, "Update"):
		return "dynalite adds up more digits than a number may have"
	case strings.Contains(body, `"Expected"`) && strings.Contains(body, `"AttributeValueList"`) && strings.Contains(ours.kind, "ValidationException"):
		return "dynalite does not look at the values of Expected"
	case strings.Contains(body, "attribute_type(") && !strings.Contains(ours.kind+theirs.kind, "Validation"):
		return "to dynalite, false has no type"
	case strings.Contains(ours.message, "Incorrect operand type for operator or function; operator or function: ") && unorderedOperator.MatchString(ours.message):
		return "dynalite takes values that have no order for operators that want one"
	case unordered.MatchString(body) && unorderedValue.MatchString(body) && !strings.Contains(ours.kind+theirs.kind, "Validation"):
		return "dynalite orders what has no order"
	case strings.Contains(theirs.message, "Syntax error; ") && strings.Contains(strings.ToLower(body), "not not"):
		return "dynalite does not read NOT NOT"
	case target == "UpdateItem" && ours.kind == "" && theirs.kind == "" && (len(ours.body) == 0 || strings.Contains(body, `"UPDATED_`)):
		return "dynalite makes an item of an update that only takes away, and returns attributes where there are none"
	case target == "UpdateItem" && ours.kind == "" && strings.Contains(theirs.message, "document path") && takesOnly(body):
		return "to DynamoDB, nothing can be removed from what is not there, whatever the path"
	case both && strings.Contains(theirs.message, "Conditions can be of length 1 or 2 only") && strings.Contains(body, `"IndexName"`):
		return "dynalite does not know keys of several attributes"
	case ours.status < 500 && incomparable.MatchString(theirs.message):
		return "dynalite does not compare all types in filters"
	case strings.Contains(body, `"NOT_CONTAINS"`) && (strings.Contains(ours.kind, "ConditionalCheckFailed") || !both):
		return "to dynalite, what is not there does not contain something"
	case strings.Contains(body, `"IndexName":"inA"`) && strings.Contains(body, `"ProjectionExpression"`) && !both:
		return "dynalite does not look into the table for what a local index does not have"
	case target == "Query" && strings.Contains(ours.message, "at 'Limit'"):
		return "DynamoDB tells of a Limit that is the only problem in other words than dynalite"
	case strings.Contains(ours.message, "SPECIFIC_ATTRIBUTES") || strings.Contains(ours.message, "ALL_PROJECTED_ATTRIBUTES") || strings.Contains(ours.message, "choosing to get") || strings.Contains(ours.message, "does not project"):
		return "dynalite does not look at Select"
	case strings.Contains(ours.message, "ConditionalOperator cannot be used without"):
		return "dynalite takes a ConditionalOperator of nothing"
	case target == "UpdateItem" && strings.Contains(ours.message, "attributeUpdates."):
		return "dynalite does not look at the action of AttributeUpdates"
	case strings.Contains(ours.message, "Segment parameter is present"):
		return "to dynalite, segment 0 is none"
	case twoPaths.MatchString(body) && theirs.status != http.StatusInternalServerError && (ours.kind != theirs.kind || !both):
		return "to dynalite, what is not there equals what is not there"
	}
	return ""
}

// twoPaths finds comparisons of two things in an item.
var twoPaths = regexp.MustCompile(`[\w\])] *(=|\\u003c|\\u003e)+ *[(#a-z]|between [^:]|in \(`)

var (
	// unorderedOperator finds a complaint about an operator.
	unorderedOperator = regexp.MustCompile(`function: ([<>]=?|BETWEEN), operand type`)

	unordered      = regexp.MustCompile(`(\\u003c|\\u003e)=? *:v`)
	incomparable   = regexp.MustCompile(`ComparisonOperator (EQ|NE) is not valid for (BOOL|NULL|M|L) `)
	unorderedValue = regexp.MustCompile(`":v\d+":\{"(BOOL|NULL|M|L|SS|NS|BS)"`)
)

// takesOnly reports whether an update only takes something away.
func takesOnly(body string) bool {
	body = strings.ToLower(body)
	return !strings.Contains(body, "set ") && !strings.Contains(body, "add ") && !strings.Contains(body, `"attributeupdates":{}`)
}

// severalActions reports whether an update has several kinds of them.
func severalActions(body string) bool {
	n := 0
	for _, word := range []string{"set ", "add ", "remove ", "delete "} {
		if strings.Contains(strings.ToLower(body), word) {
			n++
		}
	}
	return n > 1
}

// forget removes from both what a request may have changed in one way or another.
func forget(t *testing.T, target string, r obj, urls ...string) {
	var keys []string
	table, _ := r["TableName"].(string)
	add := func(table string, i any) {
		key := obj{}
		item, _ := i.(obj)
		for j := range dynamoKeys[table] {
			name := string(rune('a' + j))
			key[name] = item[name]
			if v, ok := item[name].(obj); ok && len(v) == 1 {
				if n, ok := v["N"].(string); ok {
					key[name] = obj{"N": strings.TrimPrefix(n, "+")} // which dynalite would not take
				}
			}
		}
		b, err := json.Marshal(obj{"TableName": table, "Key": key})
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(b))
	}
	switch target {
	case "PutItem":
		add(table, r["Item"])
	case "UpdateItem", "DeleteItem":
		add(table, r["Key"])
	case "BatchWriteItem":
		items, _ := r["RequestItems"].(obj)
		for table, list := range items {
			writes, _ := list.([]any)
			for _, w := range writes {
				if put, ok := w.(obj)["PutRequest"].(obj); ok {
					add(table, put["Item"])
				}
				if del, ok := w.(obj)["DeleteRequest"].(obj); ok {
					add(table, del["Key"])
				}
			}
		}
	}
	for _, key := range keys {
		for _, url := range urls {
			if _, err := askDynamo(t, url, "DeleteItem", key); err != nil {
				t.Log(err)
			}
		}
	}
}

// bothWithTables starts both, with the tables of the test.
func bothWithTables(t *testing.T) (theirs, ours string) {
	t.Helper()
	theirs, ours = startDynalite(t), startDynamoDoor(t)
	for _, table := range dynamoTables {
		for _, url := range []string{theirs, ours} {
			if a, err := askDynamo(t, url, "CreateTable", table); err != nil || a.status != http.StatusOK {
				t.Fatalf("create table: %v %+v", err, a)
			}
		}
	}
	for _, name := range []string{"simple", "indexed", "numbers"} {
		for range 100 {
			a, err := askDynamo(t, theirs, "DescribeTable", `{"TableName":"`+name+`"}`)
			if err == nil && a.body["Table"].(map[string]any)["TableStatus"] == "ACTIVE" {
				break
			}
		}
	}
	return theirs, ours
}

func TestDynamoAnswersAsDynaliteDoes(t *testing.T) {
	theirs, ours := bothWithTables(t)
	seed := uint64(1)
	count := 1000
	if os.Getenv("BEVY_LONG") == "1" {
		count, seed = 40000, uint64(time.Now().UnixNano())
	}
	t.Log("seed", seed)
	g := dynamoGen{rand.New(rand.NewPCG(seed, 2))}
	same, failed, known := 0, 0, map[string]int{}
	var next func() (string, obj) // what goes on where an answer ended
	for range count {
		target, r := g.request()
		if next != nil {
			target, r = next()
			next = nil
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		body := string(b)
		want, err := askDynamo(t, theirs, target, body)
		if err != nil {
			// It keeps the item locked for ever.
			known["dynalite died of it"]++
			theirs, ours = bothWithTables(t)
			continue
		}
		got, err := askDynamo(t, ours, target, body)
		if err != nil {
			t.Fatalf("%s %s: %v", target, body, err)
		}
		diff := got.difference(want)
		if target == "UpdateItem" && want.kind == "" && got.kind == "" && (takesOnly(body) || severalActions(body)) {
			forget(t, target, r, theirs, ours) // dynalite may have made an item of it, or other values
		}
		if diff == "" {
			same++
			if key, more := got.body["LastEvaluatedKey"]; more && !g.chance(3) {
				next = func() (string, obj) {
					r["ExclusiveStartKey"] = key
					return target, r
				}
			}
			continue
		}
		forget(t, target, r, theirs, ours)
		if why := knownDifference(target, body, got, want); why != "" {
			known[why]++
			continue
		}
		if failed++; failed <= 15 {
			t.Errorf("%s: %s %s\n got %d %v\nwant %d %v", diff, target, body, got.status, got.body, want.status, want.body)
		}
	}
	t.Logf("%d the same, %d not, known: %v", same, failed, known)
}
