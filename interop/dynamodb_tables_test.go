package interop

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"sort"
	"strings"
	"testing"
	"time"
)

// made is the name of a table that the test makes; few, so that many are there already.
func (g dynamoGen) made() string {
	if g.chance(12) {
		return pickOne(g, "", "ab", "a b c", strings.Repeat("x", 256), "no_table", "a/b/c", "äää")
	}
	return pickOne(g, "made-a", "made-b", "made.c")
}

func (g dynamoGen) keySchema(sorted bool) []any {
	list := []any{obj{"AttributeName": pickOne(g, "a", "b", "c"), "KeyType": "HASH"}}
	if sorted {
		list = append(list, obj{"AttributeName": pickOne(g, "b", "c", "d"), "KeyType": "RANGE"})
	}
	if g.chance(12) {
		list = pickOne(g, []any{}, []any{obj{"AttributeName": "a", "KeyType": "RANGE"}}, []any{obj{"AttributeName": "a", "KeyType": "X"}}, []any{obj{"AttributeName": "a"}}, []any{obj{"KeyType": "HASH"}},
			[]any{obj{"AttributeName": "a", "KeyType": "HASH"}, obj{"AttributeName": "b", "KeyType": "HASH"}}, []any{obj{"AttributeName": "a", "KeyType": "HASH"}, obj{"AttributeName": "a", "KeyType": "RANGE"}})
	}
	return list
}

func (g dynamoGen) shown() obj {
	if g.chance(8) {
		return pickOne(g, obj{}, obj{"ProjectionType": "SOME"}, obj{"ProjectionType": "ALL", "NonKeyAttributes": []any{"e"}}, obj{"ProjectionType": "INCLUDE", "NonKeyAttributes": []any{}}, obj{"NonKeyAttributes": []any{"e"}})
	}
	return pickOne(g, obj{"ProjectionType": "ALL"}, obj{"ProjectionType": "KEYS_ONLY"}, obj{"ProjectionType": "INCLUDE", "NonKeyAttributes": []any{"e", "f"}})
}

func (g dynamoGen) indexName() string {
	if g.chance(12) {
		return pickOne(g, "", "ab", "a b c", strings.Repeat("x", 256))
	}
	return pickOne(g, "one", "two", "three")
}

func (g dynamoGen) units() obj {
	if g.chance(8) {
		return pickOne(g, obj{}, obj{"ReadCapacityUnits": 1}, obj{"ReadCapacityUnits": 0, "WriteCapacityUnits": 1}, obj{"ReadCapacityUnits": -1, "WriteCapacityUnits": -1}, obj{"ReadCapacityUnits": 1000000000001, "WriteCapacityUnits": 1},
			obj{"ReadCapacityUnits": "5", "WriteCapacityUnits": 1})
	}
	return obj{"ReadCapacityUnits": 1 + g.IntN(5), "WriteCapacityUnits": 1 + g.IntN(5)}
}

// uses finds the attributes of keys.
func uses(into map[string]bool, schema []any) {
	for _, e := range schema {
		if name, ok := e.(obj)["AttributeName"].(string); ok {
			into[name] = true
		}
	}
}

// tableRequest makes up a request about a table as a whole.
func (g dynamoGen) tableRequest() (target string, r obj) {
	r = obj{"TableName": g.made()}
	defer func() {
		if g.chance(25) && len(r) > 0 {
			g.spoil(r)
		}
	}()
	arn := "arn:aws:dynamodb:us-east-1:000000000000:table/" + pickOne(g, "made-a", "made-b", "made-a", "nowhere")
	if g.chance(15) {
		arn = pickOne(g, "", "arn", "arn:aws:dynamodb:us-east-1:000000000000:tabel/x", "arn:aws:s3:::x")
	}
	switch g.IntN(12) {
	case 0, 1, 2, 3, 4:
		g.createTable(r)
		return "CreateTable", r
	case 5:
		return "DeleteTable", r
	case 6, 7:
		return "DescribeTable", r
	case 8:
		r = obj{}
		if g.chance(2) {
			r["Limit"] = pickOne(g, 1, 2, 100, 0, 101, -1)
		}
		if g.chance(2) {
			r["ExclusiveStartTableName"] = g.made()
		}
		return "ListTables", r
	case 9:
		tags := []any{obj{"Key": pickOne(g, "k", "l", "m"), "Value": pickOne(g, "", "v", "w")}}
		if g.chance(5) {
			tags = []any{} // dynalite does not look at what is in them
		}
		return "TagResource", obj{"ResourceArn": arn, "Tags": tags}
	case 10:
		return "UntagResource", obj{"ResourceArn": arn, "TagKeys": pickOne(g, []any{"k"}, []any{"k", "l"}, []any{}, []any{""}, []any{"none"})}
	}
	return "ListTagsOfResource", obj{"ResourceArn": arn}
}

func (g dynamoGen) createTable(r obj) {
	used := map[string]bool{}
	keys := g.keySchema(g.chance(2))
	uses(used, keys)
	r["KeySchema"] = keys
	demand := g.chance(2)
	if demand {
		r["BillingMode"] = pickOne(g, "PAY_PER_REQUEST", "PAY_PER_REQUEST", "PAY_PER_REQUEST", "FREE")
	} else {
		r["ProvisionedThroughput"] = g.units()
	}
	if g.chance(30) {
		r["ProvisionedThroughput"] = g.units()
	}
	for _, kind := range []string{"GlobalSecondaryIndexes", "LocalSecondaryIndexes"} {
		if !g.chance(3) {
			continue
		}
		list := []any{}
		for range g.IntN(3) {
			schema := g.keySchema(kind[0] == 'L' || g.chance(2))
			uses(used, schema)
			i := obj{"IndexName": g.indexName(), "KeySchema": schema, "Projection": g.shown()}
			if kind[0] == 'G' && demand == g.chance(15) {
				i["ProvisionedThroughput"] = g.units()
			}
			if g.chance(20) {
				delete(i, pickOne(g, "IndexName", "KeySchema", "Projection"))
			}
			list = append(list, i)
		}
		r[kind] = list
	}
	attributes := []any{}
	for _, name := range []string{"a", "b", "c", "d"} {
		if used[name] != g.chance(30) {
			attributes = append(attributes, obj{"AttributeName": name, "AttributeType": pickOne(g, "S", "N", "B", "S", "N", "B", "S", "N", "B", "S", "N", "B", "X")})
		}
	}
	if g.chance(30) {
		attributes = append(attributes, obj{"AttributeName": "a", "AttributeType": "S"})
	}
	r["AttributeDefinitions"] = attributes
}

// timeless takes from a description what is never the same, and how far the making of
// the table is.
func timeless(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			timeless(e)
		}
	case map[string]any:
		for name, e := range v {
			switch name {
			case "TableId", "CreationDateTime", "LastUpdateToPayPerRequestDateTime", "TableStatus", "IndexStatus", "TableSizeBytes", "IndexSizeBytes", "DeletionProtectionEnabled", "WarmThroughput":
				delete(v, name)
			default:
				timeless(e)
			}
		}
	}
}

// sortIndexes gives indexes an order, and tags.
func sortIndexes(v map[string]any) {
	for _, name := range []string{"Table", "TableDescription"} {
		if d, ok := v[name].(map[string]any); ok {
			for _, kind := range []string{"GlobalSecondaryIndexes", "LocalSecondaryIndexes", "AttributeDefinitions"} {
				if list, ok := d[kind].([]any); ok {
					sortTexts(list)
				}
			}
		}
	}
	if list, ok := v["Tags"].([]any); ok {
		sortTexts(list)
	}
}

func sortTexts(list []any) {
	sort.Slice(list, func(i, j int) bool { return fmt.Sprint(list[i]) < fmt.Sprint(list[j]) })
}

// knownTableDifference tells why two answers about a table may differ.
func knownTableDifference(target string, ours, theirs dynamoAnswer) string {
	switch {
	case target == "DeleteTable" && ours.kind == "" && theirs.kind == "":
		return "DynamoDB tells less than dynalite of a table that goes"
	case strings.Contains(ours.message, "Table already exists: ") && ours.kind == theirs.kind:
		return "dynalite does not say that there is a table already"
	case strings.Contains(ours.message, "is not authorized to perform") && ours.kind == theirs.kind:
		return "each has users of its own"
	case strings.Contains(ours.message, "Duplicate AttributeName"):
		return "dynalite takes an attribute that is defined twice"
	case strings.Contains(ours.message, "Some AttributeDefinitions are not used"):
		return "dynalite takes attributes of which there are no keys"
	case strings.Contains(theirs.message, "The second KeySchemaElement is not a RANGE key type"):
		return "dynalite does not know keys of several attributes"
	}
	return ""
}

func TestDynamoMakesTablesAsDynaliteDoes(t *testing.T) {
	theirs, ours := startDynalite(t), startDynamoDoor(t)
	seed, count := uint64(1), 150
	if os.Getenv("BEVY_LONG") == "1" {
		count, seed = 5000, uint64(time.Now().UnixNano())
	}
	t.Log("seed", seed)
	g := dynamoGen{rand.New(rand.NewPCG(seed, 3))}
	same, failed, made, known := 0, 0, 0, map[string]int{}
	for range count {
		target, r := g.tableRequest()
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		body := string(b)
		want, err := askDynamo(t, theirs, target, body)
		if err != nil {
			known["dynalite died of it"]++
			theirs, ours = startDynalite(t), startDynamoDoor(t)
			continue
		}
		got, err := askDynamo(t, ours, target, body)
		if err != nil {
			t.Fatalf("%s %s: %v", target, body, err)
		}
		for _, a := range []dynamoAnswer{got, want} {
			timeless(a.body)
			sortIndexes(a.body)
		}
		diff := got.difference(want)
		if name, ok := r["TableName"].(string); ok && (target == "CreateTable" || target == "DeleteTable") {
			if got.kind == "" && want.kind == "" {
				made++
			}
			// Both have it, or none, before it goes on.
			for _, url := range []string{theirs, ours} {
				settle(t, url, name)
				if got.kind != want.kind {
					dropTable(t, url, name)
					settle(t, url, name)
				}
			}
		}
		if diff == "" {
			same++
			continue
		}
		if why := knownTableDifference(target, got, want); why != "" {
			known[why]++
			continue
		}
		if failed++; failed <= 15 {
			t.Errorf("%s: %s %s\n got %d %v\nwant %d %v", diff, target, body, got.status, got.body, want.status, want.body)
		}
	}
	t.Logf("%d the same, %d not, %d tables made or removed, known: %v", same, failed, made, known)
	if made == 0 {
		t.Error("no table was made")
	}
}

func dropTable(t *testing.T, url, name string) {
	t.Helper()
	if _, err := askDynamo(t, url, "DeleteTable", fmt.Sprintf(`{"TableName":%q}`, name)); err != nil {
		t.Log(err)
	}
}

// settle waits until a table is there, or is not.
func settle(t *testing.T, url, name string) {
	t.Helper()
	for range 200 {
		a, err := askDynamo(t, url, "DescribeTable", fmt.Sprintf(`{"TableName":%q}`, name))
		if err != nil || a.status != http.StatusOK {
			return
		}
		table, _ := a.body["Table"].(map[string]any)
		indexes, _ := table["GlobalSecondaryIndexes"].([]any)
		busy := table["TableStatus"] != "ACTIVE"
		for _, i := range indexes {
			busy = busy || i.(map[string]any)["IndexStatus"] != "ACTIVE"
		}
		if !busy {
			return
		}
	}
	t.Fatalf("the table %q does not settle", name)
}
