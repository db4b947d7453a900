package dynamodb

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// until waits for what is done behind the scenes.
func (r *rig) until(what string, done func() bool) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if done() {
			return
		}
	}
	r.t.Fatalf("never: %s", what)
}

func (r *rig) count(body string) float64 {
	r.t.Helper()
	return r.ok("Scan", body)["Count"].(float64)
}

func TestItemsExpireWhenTheirTimeHasCome(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", strings.TrimSuffix(simpleTable("people"), "}")+`,"StreamSpecification":{"StreamEnabled":true,"StreamViewType":"OLD_IMAGE"}}`)
	put := func(name string, at time.Time) {
		r.ok("PutItem", fmt.Sprintf(`{"TableName":"people","Item":{"a":{"S":%q},"end":{"N":"%d"}}}`, name, at.Unix()))
	}
	put("before", epoch.Add(time.Minute))
	r.ok("UpdateTimeToLive", `{"TableName":"people","TimeToLiveSpecification":{"Enabled":true,"AttributeName":"end"}}`)
	put("soon", epoch.Add(2*time.Minute))
	put("later", epoch.Add(time.Hour))
	put("moved", epoch.Add(2*time.Minute))
	put("moved", epoch.Add(2*time.Hour))
	r.ok("PutItem", `{"TableName":"people","Item":{"a":{"S":"old"},"end":{"N":"5"}}}`)
	r.ok("PutItem", `{"TableName":"people","Item":{"a":{"S":"text"},"end":{"S":"5"}}}`)
	r.clock.Advance(3 * time.Minute)
	if n := r.count(`{"TableName":"people"}`); n != 4 {
		t.Errorf("after 3 minutes there are %v items, want 4", n)
	}
	r.clock.Advance(3 * time.Hour)
	if n := r.count(`{"TableName":"people"}`); n != 2 {
		t.Errorf("after 3 hours there are %v items, want 2", n)
	}
	if records := r.records("people"); !strings.Contains(fmt.Sprint(records[len(records)-1]), "dynamodb.amazonaws.com") {
		t.Errorf("the stream says of an expiry: %v", records[len(records)-1])
	}
}

// records reads the whole stream of a table.
func (r *rig) records(table string) []any {
	r.t.Helper()
	arn := r.ok("DescribeTable", `{"TableName":"`+table+`"}`)["Table"].(map[string]any)["LatestStreamArn"].(string)
	stream := r.ok("DescribeStream", `{"StreamArn":"`+arn+`"}`)["StreamDescription"].(map[string]any)
	shard := stream["Shards"].([]any)[0].(map[string]any)["ShardId"].(string)
	it := r.ok("GetShardIterator", `{"StreamArn":"`+arn+`","ShardId":"`+shard+`","ShardIteratorType":"TRIM_HORIZON"}`)["ShardIterator"].(string)
	var all []any
	for {
		got := r.ok("GetRecords", `{"ShardIterator":"`+it+`","Limit":3}`)
		records := got["Records"].([]any)
		if len(records) == 0 {
			return all
		}
		all = append(all, records...)
		it = got["NextShardIterator"].(string)
	}
}

func TestStreamTellsEachChangeOnce(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", strings.TrimSuffix(simpleTable("people"), "}")+`,"StreamSpecification":{"StreamEnabled":true,"StreamViewType":"NEW_AND_OLD_IMAGES"}}`)
	r.ok("PutItem", `{"TableName":"people","Item":{"a":{"S":"x"},"n":{"N":"1"}}}`)
	r.ok("PutItem", `{"TableName":"people","Item":{"a":{"S":"x"},"n":{"N":"1"}}}`) // changes nothing
	r.ok("PutItem", `{"TableName":"people","Item":{"a":{"S":"x"},"n":{"N":"2"}}}`)
	r.ok("DeleteItem", `{"TableName":"people","Key":{"a":{"S":"x"}}}`)
	r.ok("DeleteItem", `{"TableName":"people","Key":{"a":{"S":"x"}}}`)
	var events []string
	for _, record := range r.records("people") {
		m := record.(map[string]any)
		db := m["dynamodb"].(map[string]any)
		events = append(events, fmt.Sprint(m["eventName"], balance(db["OldImage"]), balance(db["NewImage"])))
	}
	if got := strings.Join(events, " "); got != "INSERT01 MODIFY12 REMOVE20" {
		t.Errorf("got %s", got)
	}
}

func TestNewIndexIsFilledAndOldOneEmptied(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", simpleTable("people"))
	for i := range 40 {
		var list []string
		for j := range 25 {
			list = append(list, fmt.Sprintf(`{"PutRequest":{"Item":{"a":{"S":"%d-%d"},"n":{"N":"%d"}}}}`, i, j, j))
		}
		r.ok("BatchWriteItem", `{"RequestItems":{"people":[`+strings.Join(list, ",")+`]}}`)
	}
	r.ok("UpdateTable", `{"TableName":"people","AttributeDefinitions":[{"AttributeName":"n","AttributeType":"N"}],"GlobalSecondaryIndexUpdates":[
		{"Create":{"IndexName":"byN","KeySchema":[{"AttributeName":"n","KeyType":"HASH"}],"Projection":{"ProjectionType":"KEYS_ONLY"}}}]}`)
	r.ok("PutItem", `{"TableName":"people","Item":{"a":{"S":"meanwhile"},"n":{"N":"7"}}}`)
	r.until("the index is filled", func() bool {
		_, body := r.do("DescribeTable", `{"TableName":"people"}`)
		return strings.Contains(body, `"IndexStatus":"ACTIVE"`)
	})
	got := r.ok("Query", `{"TableName":"people","IndexName":"byN","Select":"COUNT","KeyConditionExpression":"n = :n","ExpressionAttributeValues":{":n":{"N":"7"}}}`)
	if got["Count"].(float64) != 41 {
		t.Errorf("the index has %v items, want 41", got["Count"])
	}
	r.ok("UpdateTable", `{"TableName":"people","GlobalSecondaryIndexUpdates":[{"Delete":{"IndexName":"byN"}}]}`)
	r.until("the index is emptied", func() bool {
		table, err := r.door.use(t.Context(), "people")
		if err != nil {
			t.Fatal(err)
		}
		defer r.door.release(table)
		return len(table.now.Load().Dropped) == 0
	})
	if _, body := r.do("Scan", `{"TableName":"people","IndexName":"byN"}`); !strings.Contains(body, "does not have the specified index") {
		t.Errorf("got %s", body)
	}
}

func TestTablesAreRestoredToAnyTime(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", newPeople)
	put := func(n int) {
		r.ok("PutItem", fmt.Sprintf(`{"TableName":"people","Item":{"a":{"S":"x"},"b":{"N":"%d"},"c":{"S":"red"}}}`, n))
		r.clock.Advance(10 * time.Second)
	}
	put(1)
	put(2)
	arn := r.ok("CreateBackup", `{"TableName":"people","BackupName":"two"}`)["BackupDetails"].(map[string]any)["BackupArn"].(string)
	r.clock.Advance(time.Second)
	put(3)
	r.ok("DeleteItem", `{"TableName":"people","Key":{"a":{"S":"x"},"b":{"N":"1"}}}`)
	if _, body := r.do("RestoreTableToPointInTime", `{"SourceTableName":"people","TargetTableName":"then","UseLatestRestorableTime":true}`); !strings.Contains(body, "PointInTimeRecoveryUnavailable") {
		t.Errorf("got %s", body)
	}
	r.ok("UpdateContinuousBackups", `{"TableName":"people","PointInTimeRecoverySpecification":{"PointInTimeRecoveryEnabled":true}}`)
	for at, want := range map[int]float64{5: 1, 15: 2, 25: 3} {
		name := fmt.Sprint("then", at)
		r.ok("RestoreTableToPointInTime", fmt.Sprintf(`{"SourceTableName":"people","TargetTableName":%q,"RestoreDateTime":%d}`, name, epoch.Unix()+int64(at)))
		if n := r.count(`{"TableName":"` + name + `","IndexName":"byC"}`); n != want {
			t.Errorf("after %d seconds there were %v items, want %v", at, n, want)
		}
	}
	// Without its indexes, or with those that are named.
	r.ok("RestoreTableToPointInTime", `{"SourceTableName":"people","TargetTableName":"plain","UseLatestRestorableTime":true,"GlobalSecondaryIndexOverride":[],"BillingModeOverride":"PROVISIONED","ProvisionedThroughputOverride":{"ReadCapacityUnits":7,"WriteCapacityUnits":8}}`)
	if _, body := r.do("DescribeTable", `{"TableName":"plain"}`); strings.Contains(body, "byC") || !strings.Contains(body, `"ReadCapacityUnits":7`) || strings.Contains(body, `"AttributeName":"c"`) {
		t.Errorf("got %s", body)
	}
	one := func(kind string) string {
		return `{"BackupArn":"` + arn + `","TargetTableName":"one","GlobalSecondaryIndexOverride":[{"IndexName":"byC","KeySchema":[{"AttributeName":"c","KeyType":"HASH"},{"AttributeName":"b","KeyType":"RANGE"}],"Projection":{"ProjectionType":"` + kind + `"}}]}`
	}
	if _, body := r.do("RestoreTableFromBackup", one("KEYS_ONLY")); !strings.Contains(body, "none of the table's") {
		t.Errorf("got %s", body)
	}
	r.ok("RestoreTableFromBackup", one("ALL"))
	if n := r.count(`{"TableName":"one","IndexName":"byC"}`); n != 2 {
		t.Errorf("the index that was named has %v items, want 2", n)
	}
	r.ok("DeleteTable", `{"TableName":"people"}`)
	r.ok("RestoreTableFromBackup", `{"BackupArn":"`+arn+`","TargetTableName":"again"}`)
	if n := r.count(`{"TableName":"again"}`); n != 2 {
		t.Errorf("the backup has %v items, want 2", n)
	}
	r.ok("DeleteBackup", `{"BackupArn":"`+arn+`"}`)
	if _, body := r.do("RestoreTableFromBackup", `{"BackupArn":"`+arn+`","TargetTableName":"third"}`); !strings.Contains(body, "BackupNotFoundException") {
		t.Errorf("got %s", body)
	}
}

func TestStatementsDoWhatTheySay(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", newPeople)
	do := func(statement, want string) {
		t.Helper()
		_, got := r.do("ExecuteStatement", `{"Statement":"`+strings.ReplaceAll(statement, `"`, `\"`)+`"}`)
		if !strings.Contains(got, want) {
			t.Errorf("%s\n got %s\nwant %s", statement, got, want)
		}
	}
	do(`INSERT INTO "people" VALUE {'a': 'x', 'b': 1, 'c': 'red', 'l': [1, {'k': <<'p', 'q'>>}], 'ok': true}`, `{"Items":[]}`)
	do(`INSERT INTO people VALUE {'a': 'x', 'b': 1}`, `DuplicateItemException`)
	do(`INSERT INTO people VALUE {'a': 'x', 'b': 2, 'c': 'red', 'n': 5}`, `{"Items":[]}`)
	do(`SELECT l[1].k FROM people WHERE a = 'x' AND b = 1`, `{"Items":[{"l":{"L":[{"M":{"k":{"SS":["p","q"]}}}]}}]}`)
	do(`SELECT b FROM people WHERE a = 'x' AND b BETWEEN 1 AND 5 AND n >= 5 ORDER BY b DESC`, `{"Items":[{"b":{"N":"2"}}]}`)
	do(`SELECT b FROM people."byC" WHERE c = 'red' ORDER BY b DESC`, `{"Items":[{"b":{"N":"2"}},{"b":{"N":"1"}}]}`)
	do(`SELECT b FROM people WHERE n IS MISSING OR (c IN ['blue', 'green'] AND NOT contains(c, 'u'))`, `{"Items":[{"b":{"N":"1"}}]}`)
	do(`UPDATE people SET n = n + 1, m = 'it''s' REMOVE ok WHERE a = 'x' AND b = 2 AND n = 5 RETURNING ALL NEW *`, `"m":{"S":"it's"},"n":{"N":"6"}`)
	do(`UPDATE people SET n = 1 WHERE a = 'x' AND b = 99`, `ConditionalCheckFailedException`)
	do(`UPDATE people SET n = 1 WHERE a = 'x'`, `mandatory equality on all key attributes`)
	do(`DELETE FROM people WHERE a = 'x' AND b = 2 RETURNING ALL OLD *`, `"n":{"N":"6"}`)
	do(`SELEC * FROM people`, `ValidationException`)
	do(`SELECT * FROM people WHERE a = 'x`, `ValidationException`)
	r.want("ExecuteTransaction", `{"TransactStatements":[{"Statement":"INSERT INTO people VALUE {'a':'y','b':1}"},{"Statement":"EXISTS(SELECT * FROM people WHERE a='x' AND b=1 AND c='red')"}]}`,
		`{"Responses":[{},{}]}`)
	r.want("BatchExecuteStatement", `{"Statements":[{"Statement":"SELECT b FROM people WHERE a='y' AND b=?","Parameters":[{"N":"1"}]},{"Statement":"SELECT b FROM none WHERE a='y'"},
		{"Statement":"UPDATE people SET n=1 WHERE a='q' AND b=1"},{"Statement":"SELECT"}]}`,
		`{"Responses":[{"TableName":"people","Item":{"b":{"N":"1"}}},{"TableName":"none","Error":{"Code":"ResourceNotFound","Message":"Requested resource not found"}},`+
			`{"TableName":"people","Error":{"Code":"ConditionalCheckFailed","Message":"The conditional request failed"}},`+
			`{"Error":{"Code":"ValidationError","Message":"Statement wasn't well formed, can't be processed: unexpected \"<EOF>\""}}]}`)
}

func TestIdleTablesAreClosed(t *testing.T) {
	r := newRig(t)
	for i := range idleTables + 20 {
		r.ok("CreateTable", simpleTable(fmt.Sprint("table", i)))
		r.ok("PutItem", fmt.Sprintf(`{"TableName":"table%d","Item":{"a":{"S":"x"}}}`, i))
	}
	if n := len(r.door.tables); n > idleTables {
		t.Errorf("%d tables are open", n)
	}
	r.clock.Advance(3 * idleTime)
	if n := len(r.door.tables); n != 0 {
		t.Errorf("%d tables are open after a while", n)
	}
	for i := range idleTables + 20 {
		if n := r.count(fmt.Sprintf(`{"TableName":"table%d"}`, i)); n != 1 {
			t.Errorf("table %d has %v items", i, n)
		}
	}
}

func TestNullsAndNonsenseAreRefused(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", newPeople)
	for target := range operations {
		for _, body := range []string{``, `null`, `[]`, `5`, `{}`, `{"TableName":null}`, `{"TableName":"people"}`, `{"TableName":"people","Key":null,"Item":null}`,
			`{"TableName":"people","Key":{"a":null},"Item":{"a":null}}`, `{"TransactItems":[null]}`, `{"TransactItems":[{"Put":null}]}`, `{"TransactItems":[{}]}`,
			`{"RequestItems":{"people":null}}`, `{"RequestItems":{"people":[null]}}`, `{"RequestItems":{"people":{"Keys":[null]}}}`, `{"RequestItems":{"people":[{"PutRequest":{}}]}}`,
			`{"TableName":"other","KeySchema":[null],"AttributeDefinitions":[null],"BillingMode":"PAY_PER_REQUEST"}`, `{"TableName":"people","GlobalSecondaryIndexUpdates":[null,{}]}`,
			`{"TableName":"people","Expected":{"a":null},"AttributeUpdates":{"a":null},"Key":{"a":{"S":"x"},"b":{"N":"1"}},"Item":{"a":{"S":"x"},"b":{"N":"1"}}}`,
			`{"TableName":"people","KeyConditions":{"a":null,"b":{}}}`, `{"TableName":"people","ScanFilter":{"a":null}}`, `{"Statement":"SELECT","Statements":[null]}`,
			`{"TableName":"people","KeyConditions":{"a":{"ComparisonOperator":"EQ","AttributeValueList":[null]}}}`, `{"TransactStatements":[null],"Tags":[null],"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/people"}`,
			`{"TableName":"people","Item":{"a":{"L":[null]},"b":{"M":{"x":null}}}}`, `{"ShardIterator":"e30="}`, `{"TableName":"people","ExpressionAttributeNames":{"#a":null},"ProjectionExpression":"#a","Key":{"a":{"S":"x"}}}`,
			strings.Repeat("[", 500), `{"TableName":"people","Item":` + strings.Repeat(`{"M":{"a":`, 60) + `{}` + strings.Repeat("}}", 60) + `}`} {
			if status, out := r.do(target, body); status >= 500 {
				t.Errorf("%s %s: %d %s", target, body, status, out)
			}
			r.do("CreateTable", newPeople)
		}
	}
}

func TestPastStreamsAreStillRead(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", strings.TrimSuffix(simpleTable("people"), "}")+`,"StreamSpecification":{"StreamEnabled":true,"StreamViewType":"NEW_IMAGE"}}`)
	put := func(n int) {
		r.ok("PutItem", fmt.Sprintf(`{"TableName":"people","Item":{"a":{"S":"x"},"n":{"N":"%d"}}}`, n))
	}
	turn := func(spec string) {
		r.clock.Advance(time.Second)
		r.ok("UpdateTable", `{"TableName":"people","StreamSpecification":`+spec+`}`)
	}
	latest := func() string {
		return r.ok("DescribeTable", `{"TableName":"people"}`)["Table"].(map[string]any)["LatestStreamArn"].(string)
	}
	put(1)
	put(2)
	first := latest()
	turn(`{"StreamEnabled":false}`)
	put(3) // nobody is told of it
	turn(`{"StreamEnabled":true,"StreamViewType":"KEYS_ONLY"}`)
	put(4)
	second := latest()
	read := func(arn string) (out []string) {
		shards := r.ok("DescribeStream", `{"StreamArn":"`+arn+`"}`)["StreamDescription"].(map[string]any)["Shards"].([]any)
		for _, s := range shards {
			id := s.(map[string]any)["ShardId"].(string)
			it := r.ok("GetShardIterator", fmt.Sprintf(`{"StreamArn":%q,"ShardId":%q,"ShardIteratorType":"TRIM_HORIZON"}`, arn, id))["ShardIterator"]
			for range 2 {
				got := r.ok("GetRecords", fmt.Sprintf(`{"ShardIterator":%q,"Limit":5}`, it))
				for _, rec := range got["Records"].([]any) {
					m := rec.(map[string]any)
					out = append(out, fmt.Sprint(m["eventName"], balance(m["dynamodb"].(map[string]any)["NewImage"])))
				}
				if it = got["NextShardIterator"]; it == nil {
					break
				}
			}
		}
		return out
	}
	if got := read(first); strings.Join(got, " ") != "INSERT1 MODIFY2" {
		t.Errorf("the first stream has %v", got)
	}
	if got := read(second); strings.Join(got, " ") != "MODIFY0" {
		t.Errorf("the second stream has %v", got)
	}
	r.ok("CreateTable", strings.TrimSuffix(simpleTable("zoo"), "}")+`,"StreamSpecification":{"StreamEnabled":true,"StreamViewType":"NEW_IMAGE"}}`)
	from, names := "", []string{}
	for range 5 {
		list := r.ok("ListStreams", `{"Limit":1`+from+`}`)
		for _, s := range list["Streams"].([]any) {
			names = append(names, s.(map[string]any)["StreamArn"].(string))
		}
		last, more := list["LastEvaluatedStreamArn"].(string)
		if !more {
			break
		}
		from = `,"ExclusiveStartStreamArn":"` + last + `"`
	}
	if len(names) != 3 || names[0] != first || names[1] != second {
		t.Errorf("listed: %v", names)
	}
	// It goes with its records.
	r.clock.Advance(25 * time.Hour)
	turn(`{"StreamEnabled":false}`)
	turn(`{"StreamEnabled":true,"StreamViewType":"KEYS_ONLY"}`)
	if _, body := r.do("DescribeStream", `{"StreamArn":"`+first+`"}`); !strings.Contains(body, "ResourceNotFoundException") {
		t.Errorf("the first stream after a day: %s", body)
	}
}
