package dynamodb

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// Everything stands for all tables, where somebody is asked for rights.
const Everything = "*"

// Call does an operation such as "PutItem" for who has all rights. in and what it
// returns are JSON as clients send and get it. An error that clients would be
// told is an *[Error].
func (d *Door) Call(ctx context.Context, operation string, in []byte) ([]byte, error) {
	if !d.enter() {
		return nil, &Error{Type: "ServiceUnavailable", Message: "the door is closed"}
	}
	defer d.busy.Done()
	op, ok := operations[operation]
	if !ok {
		return nil, &Error{Type: "UnknownOperationException", Message: "there is no operation " + operation}
	}
	root, ok := item.Parse(in)
	if !ok {
		return nil, errSerialization
	}
	d.nameTables(root)
	return d.perform(ctx, op, root)
}

// nameTables makes names of ARNs, where a request names tables by these.
func (d *Door) nameTables(root *item.Node) {
	name := func(n *item.Node) {
		if n = n.Get("TableName"); n != nil && strings.HasPrefix(n.Str, "arn:") {
			if table, ours := strings.CutPrefix(n.Str, d.arn("")); ours {
				n.Str = table
			}
		}
	}
	name(root)
	for _, part := range listOf(root, "TransactItems") {
		for _, kind := range part.Keys {
			name(part.Get(kind))
		}
	}
}

// Refuse answers a request that no door is opened for. An error that is no *[Error]
// is told as one of ours.
func Refuse(w http.ResponseWriter, err error) {
	e := new(Error)
	if !errors.As(err, &e) {
		e = &Error{Type: "InternalServerError", Message: "Internal server error", Status: http.StatusInternalServerError}
	}
	w.Header().Set("x-amzn-RequestId", requestID())
	e.send(w, jsonType)
}

// readers are the operations that change nothing.
var readers = map[string]bool{
	"GetItem": true, "Query": true, "Scan": true, "BatchGetItem": true, "TransactGetItems": true, "DescribeTable": true, "ListTables": true,
	"DescribeBackup": true, "ListBackups": true, "DescribeContinuousBackups": true, "ListTagsOfResource": true, "DescribeTimeToLive": true,
	"DescribeLimits": true, "ExportTableToPointInTime": true, "DescribeExport": true, "ListExports": true, "DescribeImport": true, "ListImports": true,
	"GetResourcePolicy": true, "DescribeKinesisStreamingDestination": true, "DescribeContributorInsights": true, "ListContributorInsights": true, "ListGlobalTables": true, "DescribeEndpoints": true, "ListStreams": true, "DescribeStream": true, "GetShardIterator": true, "GetRecords": true,
}

// allowed refuses what a principal has no right to. Each operation has to be known
// here to be let through by a right to some tables: others need one to all.
func (d *Door) allowed(principal, operation string, root *item.Node) error {
	if d.o.Allow == nil || operation == "DescribeLimits" || operation == "DescribeEndpoints" {
		return nil
	}
	write := !readers[operation]
	if err := d.allowedBucket(principal, operation, root); err != nil {
		return err
	}
	if d.o.Allow(principal, Everything, write) {
		return nil
	}
	names := map[string]bool{} // and whether they are written to
	switch operation {
	case "BatchGetItem", "BatchWriteItem":
		if n := root.Get("RequestItems"); n != nil {
			for _, name := range n.Keys {
				names[name] = write
			}
		}
	case "TransactGetItems", "TransactWriteItems":
		for _, part := range listOf(root, "TransactItems") {
			for _, kind := range part.Keys {
				names[textOf(part.Get(kind), "TableName")] = write
			}
		}
	case "ExecuteStatement":
		statementNames(root, names)
	case "BatchExecuteStatement":
		for _, s := range listOf(root, "Statements") {
			statementNames(s, names)
		}
	case "ExecuteTransaction":
		for _, s := range listOf(root, "TransactStatements") {
			statementNames(s, names)
		}
	case "RestoreTableToPointInTime":
		if _, is := strings.CutPrefix(textOf(root, "SourceTableArn"), bucketArn); is {
			return nil // it is about buckets, which were asked about
		}
		from := textOf(root, "SourceTableName")
		if from == "" {
			from = strings.TrimPrefix(textOf(root, "SourceTableArn"), d.arn(""))
		}
		names[from] = false
		names[textOf(root, "TargetTableName")] = true
	case "ExportTableToPointInTime":
		names[strings.TrimPrefix(textOf(root, "TableArn"), d.arn(""))] = false
	case "ImportTable":
		names[textOf(root.Get("TableCreationParameters"), "TableName")] = true
	case "DescribeExport":
		name, _, _ := strings.Cut(strings.TrimPrefix(textOf(root, "ExportArn"), d.arn("")), "/")
		names[name] = false
	case "DescribeImport":
		name, _, _ := strings.Cut(strings.TrimPrefix(textOf(root, "ImportArn"), d.arn("")), "/")
		names[name] = false
	case "GetResourcePolicy", "PutResourcePolicy", "DeleteResourcePolicy":
		name, _, _ := strings.Cut(strings.TrimPrefix(textOf(root, "ResourceArn"), d.arn("")), "/")
		names[name] = write
	case "TagResource", "UntagResource", "ListTagsOfResource":
		arn := textOf(root, "ResourceArn")
		names[arn[strings.LastIndexByte(arn, '/')+1:]] = write
	case "DescribeStream", "GetShardIterator":
		names[d.streamTable(textOf(root, "StreamArn"))] = false
	case "GetRecords":
		var it iterator
		if b, err := base64.StdEncoding.DecodeString(textOf(root, "ShardIterator")); err == nil && json.Unmarshal(b, &it) == nil {
			names[d.streamTable(it.Arn)] = false
		}
	case "PutItem", "GetItem", "DeleteItem", "UpdateItem", "Query", "Scan", "CreateTable", "UpdateTable", "DescribeTable", "DeleteTable", "CreateBackup",
		"DescribeContinuousBackups", "UpdateContinuousBackups", "DescribeTimeToLive", "UpdateTimeToLive", "ListStreams",
		"DescribeKinesisStreamingDestination", "DescribeContributorInsights":
		names[textOf(root, "TableName")] = write
	}
	if len(names) == 0 {
		names[Everything] = write
	}
	for name, write := range names {
		if name == "" || !d.o.Allow(principal, name, write) {
			return &Error{Type: "AccessDeniedException", Message: "User: arn:aws:iam::" + d.o.Account + ":user/" + principal +
				" is not authorized to perform: dynamodb:" + operation + " on resource: " + d.arn(name)}
		}
	}
	return nil
}

// allowedBucket refuses the use of buckets that a principal has no right to.
func (d *Door) allowedBucket(principal, operation string, root *item.Node) error {
	if d.o.Buckets == nil {
		return nil
	}
	buckets := map[string]bool{} // and whether they are written to
	switch operation {
	case "ExportTableToPointInTime":
		buckets[textOf(root, "S3Bucket")] = true
	case "ImportTable":
		buckets[textOf(root.Get("S3BucketSource"), "S3Bucket")] = false
	case "RestoreTableToPointInTime":
		if from, is := strings.CutPrefix(textOf(root, "SourceTableArn"), bucketArn); is {
			buckets[from] = false
			buckets[textOf(root, "TargetTableName")] = true
		}
	}
	for bucket, write := range buckets {
		if !d.o.Buckets.Allow(principal, bucket, write) {
			return &Error{Type: "AccessDeniedException", Message: "User: arn:aws:iam::" + d.o.Account + ":user/" + principal +
				" is not authorized to use the bucket: " + bucket}
		}
	}
	return nil
}

// streamTable is the name of the table of a stream.
func (d *Door) streamTable(arn string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(arn, d.arn("")), "/stream/")
	return name
}

func textOf(n *item.Node, name string) string {
	if n = n.Get(name); n == nil || n.Kind != item.String {
		return ""
	}
	return n.Str
}

func listOf(n *item.Node, name string) []*item.Node {
	if n = n.Get(name); n == nil {
		return nil
	}
	return n.List
}

// statementNames adds the table that a statement is about. Of one that can't be
// read it adds none that there is.
func statementNames(n *item.Node, names map[string]bool) {
	params := make([]item.Value, len(listOf(n, "Parameters")))
	for i := range params {
		params[i] = item.Value{Type: item.NULL} // they are no names
	}
	s, err := readStatement(textOf(n, "Statement"), params)
	if err != nil {
		names[""] = true
		return
	}
	names[s.table] = names[s.table] || s.verb != "SELECT" && s.verb != "EXISTS"
}
