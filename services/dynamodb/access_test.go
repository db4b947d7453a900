package dynamodb

import (
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

func TestRightsToSomeTablesLetNobodyAtOthers(t *testing.T) {
	r := newRig(t)
	var asked []string
	r.door.o.Allow = func(principal, table string, write bool) bool {
		if principal != "bob" {
			t.Errorf("%q asks", principal)
		}
		asked = append(asked, table)
		return table == "own" || table == "read" && !write
	}
	iterator := func(table string) string {
		return base64.StdEncoding.EncodeToString([]byte(`{"Arn":"` + r.door.arn(table) + `/stream/x"}`))
	}
	own, other := `{"TableName":"own"}`, `{"TableName":"other"}`
	for _, c := range []struct {
		operation, body string
		want            bool
	}{
		{"PutItem", own, true}, {"PutItem", other, false}, {"PutItem", `{"TableName":"read"}`, false}, {"GetItem", `{"TableName":"read"}`, true},
		{"PutItem", `{"TableName":"own","TableName":"other"}`, false}, {"PutItem", `{}`, false}, {"PutItem", `[]`, false}, {"PutItem", `{"TableName":7}`, false},
		{"DeleteTable", other, false}, {"DescribeTable", other, false}, {"ListTables", `{}`, false}, {"ListStreams", `{}`, false}, {"ListStreams", own, true},
		{"ListBackups", own, false}, {"DescribeLimits", `{}`, true}, {"NewOperation", own, false},
		{"BatchGetItem", `{"RequestItems":{"own":{},"read":{}}}`, true}, {"BatchGetItem", `{"RequestItems":{"own":{},"other":{}}}`, false},
		{"BatchWriteItem", `{"RequestItems":{"read":[]}}`, false}, {"BatchWriteItem", `{"RequestItems":{}}`, false},
		{"TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"own"}}]}`, true},
		{"TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"own"}},{"ConditionCheck":{"TableName":"other"}}]}`, false},
		{"TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"own"},"Delete":{"TableName":"other"}}]}`, false},
		{"ExecuteStatement", `{"Statement":"select * from \"own\""}`, true}, {"ExecuteStatement", `{"Statement":"select * from other"}`, false},
		{"ExecuteStatement", `{"Statement":"delete from read where a = ?","Parameters":[{"S":"x"}]}`, false},
		{"ExecuteStatement", `{"Statement":"select * from read where a = ?","Parameters":[{"S":"x"}]}`, true},
		{"ExecuteStatement", `{"Statement":"select"}`, false}, {"ExecuteStatement", `{}`, false},
		{"BatchExecuteStatement", `{"Statements":[{"Statement":"select * from own"},{"Statement":"select * from other"}]}`, false},
		{"ExecuteTransaction", `{"TransactStatements":[{"Statement":"insert into read value {'a':'x'}"}]}`, false},
		{"RestoreTableToPointInTime", `{"SourceTableName":"read","TargetTableName":"own"}`, true},
		{"RestoreTableToPointInTime", `{"SourceTableName":"own","TargetTableName":"read"}`, false},
		{"RestoreTableToPointInTime", `{"SourceTableArn":"` + r.door.arn("other") + `","TargetTableName":"own"}`, false},
		{"GetItem", `{"TableName":"` + r.door.arn("read") + `","Key":{"a":{"S":"x"}}}`, true},
		{"PutItem", `{"TableName":"` + r.door.arn("read") + `","Item":{"a":{"S":"x"}}}`, false},
		{"RestoreTableFromBackup", `{"BackupArn":"` + r.door.arn("own") + `/backup/1","TargetTableName":"own"}`, false},
		{"TagResource", `{"ResourceArn":"` + r.door.arn("own") + `"}`, true}, {"TagResource", `{"ResourceArn":"` + r.door.arn("own") + `/other"}`, false},
		{"GetRecords", `{"ShardIterator":"` + iterator("own") + `"}`, true}, {"GetRecords", `{"ShardIterator":"` + iterator("other") + `"}`, false},
		{"GetRecords", `{"ShardIterator":"own"}`, false},
		{"DescribeStream", `{"StreamArn":"` + r.door.arn("own") + `/stream/x"}`, true}, {"GetShardIterator", `{"StreamArn":"` + r.door.arn("other") + `/stream/x"}`, false},
	} {
		root, ok := item.Parse([]byte(c.body))
		if !ok {
			t.Fatalf("%s is no JSON", c.body)
		}
		r.door.nameTables(root)
		asked = nil
		err := r.door.allowed("bob", c.operation, root)
		if (err == nil) != c.want {
			t.Errorf("%s %s: %v; it was asked for %q", c.operation, c.body, err, asked)
		}
		if e := new(Error); err != nil && (!errors.As(err, &e) || e.Type != "AccessDeniedException") {
			t.Errorf("%s: %v", c.operation, err)
		}
	}
	// All operations that there are have been thought of.
	r.door.o.Allow = func(_, table string, write bool) bool { return table == Everything && !write }
	var free []string
	for name := range operations {
		if r.door.allowed("bob", name, &item.Node{Kind: item.Object}) == nil {
			free = append(free, name)
		}
	}
	slices.Sort(free)
	if got := strings.Join(free, " "); got != "BatchGetItem DescribeBackup DescribeContinuousBackups DescribeContributorInsights DescribeEndpoints DescribeExport DescribeImport DescribeKinesisStreamingDestination DescribeLimits DescribeStream DescribeTable "+
		"DescribeTimeToLive ExportTableToPointInTime GetItem GetRecords GetResourcePolicy GetShardIterator ListBackups ListContributorInsights ListExports ListGlobalTables ListImports ListStreams ListTables ListTagsOfResource Query Scan TransactGetItems" {
		t.Errorf("who may read all may do: %s", got)
	}
}

func TestADoorAsksWhetherItIsAllowed(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", simpleTable("own"))
	r.door.o.Authorize = func(*http.Request, []byte) (string, error) { return "bob", nil }
	r.door.o.Allow = func(who, table string, write bool) bool { return who == "bob" && table == "own" && !write }
	r.ok("Scan", `{"TableName":"own"}`)
	if status, text := r.do("DeleteTable", `{"TableName":"own"}`); status != http.StatusBadRequest || !strings.Contains(text, "AccessDeniedException") {
		t.Errorf("it was deleted: %d %s", status, text)
	}
	// The owner asks without all that.
	if out, err := r.door.Call(t.Context(), "ListTables", []byte(`{}`)); err != nil || string(out) != `{"TableNames":["own"]}` {
		t.Errorf("tables: %s %v", out, err)
	}
	for operation, body := range map[string]string{"ListTable": "{}", "ListTables": "{", "DescribeTable": `{"TableName":"none"}`} {
		if _, err := r.door.Call(t.Context(), operation, []byte(body)); !errors.As(err, new(*Error)) {
			t.Errorf("%s %s: %v", operation, body, err)
		}
	}
}
