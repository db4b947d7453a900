package dynamodb

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

var tokenRange = hyperbee.RangeOptions{Gte: []byte{keyToken}, Lt: []byte{keyToken + 1}}

// operations are all that requests may ask for.
var operations map[string]operation

// missing are DynamoDB's other operations, and why they are not here.
var missing = map[string]string{}

func init() {
	for why, names := range map[string]string{
		"each table is on all machines of the cloud": "CreateGlobalTable DescribeGlobalTable DescribeGlobalTableSettings UpdateGlobalTable UpdateGlobalTableSettings",
		"nothing limits what a table takes":          "DescribeTableReplicaAutoScaling UpdateTableReplicaAutoScaling",
		"there is no Kinesis; use bevy feed":         "EnableKinesisStreamingDestination DisableKinesisStreamingDestination UpdateKinesisStreamingDestination",
		"keys are not counted":                       "UpdateContributorInsights",
		"there are no indexes of vectors":            "SearchVectors",
		"use BatchWriteItem or ImportTable":          "StartBulkPutItems DescribeBulkOperation ListBulkOperations CancelBulkOperation",
	} {
		for name := range strings.FieldsSeq(names) {
			missing[name] = name + " is not implemented: " + why
		}
	}
}

func init() {
	operations = map[string]operation{
		"PutItem":            {tableSpace, putShape, checkPut, (*Door).putItem},
		"GetItem":            {tableSpace, getShape, checkGet, (*Door).getItem},
		"DeleteItem":         {tableSpace, deleteShape, checkDelete, (*Door).deleteItem},
		"UpdateItem":         {tableSpace, updateShape, checkUpdate, (*Door).updateItem},
		"Query":              {tableSpace, queryShape, checkQuery, (*Door).query},
		"Scan":               {tableSpace, scanShape, checkScan, (*Door).scan},
		"BatchGetItem":       {tableSpace, batchGetShape, checkBatchGet, (*Door).batchGetItem},
		"BatchWriteItem":     {tableSpace, batchWriteShape, checkBatchWrite, (*Door).batchWriteItem},
		"TransactWriteItems": {tableSpace, transactWriteShape, checkTransactWrite, (*Door).transactWriteItems},
		"TransactGetItems":   {tableSpace, transactGetShape, checkTransactGet, (*Door).transactGetItems},

		"CreateTable":   {tableSpace, createTableShape, checkCreateTable, (*Door).createTable},
		"UpdateTable":   {tableSpace, updateTableShape, checkUpdateTable, (*Door).updateTable},
		"DescribeTable": {tableSpace, oneTableShape, nil, (*Door).describeTable},
		"DeleteTable":   {tableSpace, oneTableShape, nil, (*Door).deleteTable},
		"ListTables":    {tableSpace, listTablesShape, nil, (*Door).listTables},

		"ExecuteStatement":      {tableSpace, statementShape, nil, (*Door).executeStatement},
		"BatchExecuteStatement": {tableSpace, batchStatementShape, nil, (*Door).batchExecuteStatement},
		"ExecuteTransaction":    {tableSpace, transactStatementShape, nil, (*Door).executeTransaction},

		"CreateBackup":              {tableSpace, createBackupShape, nil, (*Door).createBackup},
		"DescribeBackup":            {tableSpace, oneBackupShape, nil, (*Door).describeBackup},
		"DeleteBackup":              {tableSpace, oneBackupShape, nil, (*Door).deleteBackup},
		"ListBackups":               {tableSpace, listBackupsShape, nil, (*Door).listBackups},
		"RestoreTableFromBackup":    {tableSpace, restoreBackupShape, nil, (*Door).restoreBackup},
		"RestoreTableToPointInTime": {tableSpace, restoreTimeShape, nil, (*Door).restoreTime},
		"DescribeContinuousBackups": {tableSpace, oneTableShape, nil, (*Door).describeContinuous},
		"UpdateContinuousBackups":   {tableSpace, continuousShape, nil, (*Door).updateContinuous},

		"ExportTableToPointInTime": {tableSpace, exportShape, nil, (*Door).exportTable},
		"DescribeExport":           {tableSpace, oneExportShape, nil, (*Door).describeExport},
		"ListExports":              {tableSpace, listExportsShape, nil, (*Door).listExports},
		"ImportTable":              {tableSpace, importShape, checkImport, (*Door).importTable},
		"DescribeImport":           {tableSpace, oneImportShape, nil, (*Door).describeImport},
		"ListImports":              {tableSpace, listImportsShape, nil, (*Door).listImports},

		"GetResourcePolicy":                   {tableSpace, resourceShape, nil, (*Door).getResourcePolicy},
		"PutResourcePolicy":                   {tableSpace, policyShape, nil, (*Door).putResourcePolicy},
		"DeleteResourcePolicy":                {tableSpace, resourceShape, nil, (*Door).deleteResourcePolicy},
		"DescribeKinesisStreamingDestination": {tableSpace, oneTableShape, nil, (*Door).describeKinesis},
		"DescribeContributorInsights":         {tableSpace, oneTableShape, nil, (*Door).describeInsights},
		"ListContributorInsights":             {tableSpace, pageShape, nil, (*Door).listInsights},
		"ListGlobalTables":                    {tableSpace, pageShape, nil, (*Door).listGlobalTables},

		"TagResource":        {tableSpace, tagShape, nil, (*Door).tagResource},
		"UntagResource":      {tableSpace, untagShape, nil, (*Door).untagResource},
		"ListTagsOfResource": {tableSpace, listTagsShape, nil, (*Door).listTags},

		"DescribeTimeToLive": {tableSpace, oneTableShape, nil, (*Door).describeTTL},
		"UpdateTimeToLive":   {tableSpace, ttlShape, nil, (*Door).updateTTL},
		"DescribeLimits":     {tableSpace, nil, nil, (*Door).describeLimits},
		"DescribeEndpoints":  {tableSpace, nil, nil, (*Door).describeEndpoints},

		"ListStreams":      {streamSpace, listStreamsShape, nil, (*Door).listStreams},
		"DescribeStream":   {streamSpace, describeStreamShape, nil, (*Door).describeStream},
		"GetShardIterator": {streamSpace, shardIteratorShape, nil, (*Door).getShardIterator},
		"GetRecords":       {streamSpace, getRecordsShape, nil, (*Door).getRecords},
	}
}

func tagsOf(n *item.Node) map[string]string {
	if n == nil {
		return nil
	}
	out := map[string]string{}
	for _, t := range n.List {
		if key := t.Get("Key"); key != nil {
			value := ""
			if v := t.Get("Value"); v != nil {
				value = v.Str
			}
			out[key.Str] = value
		}
	}
	return out
}

var (
	anyArn   = regexp.MustCompile(`^.+:.+:.+:.+:.+:.+/.+$`)
	tableArn = regexp.MustCompile(`^arn:aws:dynamodb:.+:\d+:table/[^/]{2}[^/]+$`)
)

// tagged returns the table that a request about tags names, to be released. list
// is the member that says which tags, if any does.
func (d *Door) tagged(ctx context.Context, r *request, operation, list, none string) (*table, error) {
	arn := r.str("ResourceArn")
	switch {
	case !r.has("ResourceArn"):
		return nil, invalid("Invalid TableArn")
	case !anyArn.MatchString(arn):
		if arn == "" {
			arn = "*"
		}
		return nil, &Error{Type: "AccessDeniedException", Message: "User: arn:aws:iam::" + d.o.Account +
			":root is not authorized to perform: dynamodb:" + operation + " on resource: " + arn}
	case list != "" && !r.has(list):
		return nil, invalid("1 validation error detected: Value null at '" + lowerFirst(list) + "' failed to satisfy constraint: Member must not be null")
	case !tableArn.MatchString(arn):
		return nil, invalid("Invalid TableArn: Invalid ResourceArn provided as input " + arn)
	case list != "" && len(r.Get(list).List) == 0:
		return nil, invalid(none)
	}
	t, err := d.use(ctx, arn[strings.LastIndexByte(arn, '/')+1:])
	if errors.Is(err, ErrNotFound) {
		if operation == "UntagResource" {
			return nil, errNoTable
		}
		return nil, notFound("Requested resource not found: ResourcArn: " + arn + " not found")
	}
	return t, err
}

// tagLetters are those of keys and values of tags.
var tagLetters = regexp.MustCompile(`^[\pL\pZ\pN\pM_.:/=+@-]*$`)

// checkTags looks at the keys and values of tags.
func checkTags(list *item.Node) error {
	if list == nil {
		return nil
	}
	seen := map[string]bool{}
	for i, t := range list.List {
		key, value := t.Get("Key"), t.Get("Value")
		at := "Value at 'tags." + itoa(i+1) + ".member."
		switch {
		case key == nil:
			return invalid("1 validation error detected: " + at + "key' failed to satisfy constraint: Member must not be null")
		case value == nil:
			return invalid("1 validation error detected: " + at + "value' failed to satisfy constraint: Member must not be null")
		case key.Str == "":
			return invalid("1 validation error detected: " + at + "key' failed to satisfy constraint: Member must have length greater than or equal to 1")
		case utf8.RuneCountInString(key.Str) > 128:
			return invalid("1 validation error detected: " + at + "key' failed to satisfy constraint: Member must have length less than or equal to 128")
		case utf8.RuneCountInString(value.Str) > 256:
			return invalid("1 validation error detected: " + at + "value' failed to satisfy constraint: Member must have length less than or equal to 256")
		case !tagLetters.MatchString(key.Str) || !tagLetters.MatchString(value.Str):
			return invalid(badValues + "Tags may have letters, digits, spaces and _ . : / = + - @ only")
		case seen[key.Str]:
			return invalid(badValues + "Duplicate tag key: " + key.Str)
		}
		seen[key.Str] = true
	}
	return tooManyTags(len(seen))
}

func tooManyTags(n int) error {
	if n > 50 {
		return invalid(badValues + "Too many tags: a resource has 50 at most")
	}
	return nil
}

// retag changes the tags of a table.
func (t *table) retag(ctx context.Context, f func(map[string]string)) ([]byte, error) {
	return nil, t.write(ctx, func(x *tx) error {
		tags := map[string]string{}
		for k, v := range x.s.Tags {
			tags[k] = v
		}
		f(tags)
		if err := tooManyTags(len(tags)); err != nil {
			return err
		}
		x.setSchema(x.s.with(func(s *schema) { s.Tags = tags }))
		return nil
	})
}

func (d *Door) tagResource(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.tagged(ctx, r, "TagResource", "Tags", "Atleast one Tag needs to be provided as Input.")
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	if err := checkTags(r.Get("Tags")); err != nil {
		return nil, err
	}
	return t.retag(ctx, func(tags map[string]string) {
		for k, v := range tagsOf(r.Get("Tags")) {
			tags[k] = v
		}
	})
}

func (d *Door) untagResource(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.tagged(ctx, r, "UntagResource", "TagKeys", "Atleast one Tag Key needs to be provided as Input.")
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	return t.retag(ctx, func(tags map[string]string) {
		for _, k := range r.strings("TagKeys") {
			delete(tags, k)
		}
	})
}

func (d *Door) listTags(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.tagged(ctx, r, "ListTagsOfResource", "", "")
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	list := []struct{ Key, Value string }{}
	tags := t.now.Load().Tags
	for _, key := range sortedKeys(tags) {
		list = append(list, struct{ Key, Value string }{key, tags[key]})
	}
	var o object
	err = o.any("Tags", list)
	return o.end(), err
}

var ttlShape = []field{must(fieldStruct("TimeToLiveSpecification", "TimeToLiveSpecification",
	must(flag("Enabled")), must(atMost(least(str("AttributeName"), 1), 255)))), table2}

func (d *Door) describeTTL(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.useNamed(ctx, r.str("TableName"))
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	var in, o object
	s := t.now.Load()
	name, status := s.TTL, "DISABLED"
	switch {
	case s.TTL != "" && s.Turning != nil:
		status = "ENABLING"
	case s.TTL != "":
		status = "ENABLED"
	case s.Turning != nil:
		name, status = s.Turning.Attribute, "DISABLING"
	}
	if name != "" {
		in.str("AttributeName", name)
	}
	in.str("TimeToLiveStatus", status)
	o.raw("TimeToLiveDescription", in.end())
	return o.end(), nil
}

func (d *Door) updateTTL(ctx context.Context, r *request) ([]byte, error) {
	name := r.str("TableName")
	t, err := d.useNamed(ctx, name)
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	spec := r.Get("TimeToLiveSpecification")
	attribute, on := spec.Get("AttributeName").Str, spec.Get("Enabled").Bool
	// The catalog is told before, so that what expires is looked for after a crash.
	if on {
		if err := d.listExpiry(ctx, name, t.id); err != nil {
			return nil, err
		}
	}
	if err := t.write(ctx, func(x *tx) error {
		switch {
		case on && x.s.TTL != "":
			return invalid("TimeToLive is already enabled")
		case !on && x.s.TTL == "":
			return invalid("TimeToLive is already disabled")
		case !on && x.s.TTL != attribute:
			return invalid("TimeToLive is active on a different AttributeName: current AttributeName is " + x.s.TTL)
		case x.s.Turning != nil:
			return invalid("Time to live has been modified multiple times within a fixed interval")
		}
		x.setSchema(x.s.with(func(s *schema) {
			s.Turning = &turning{attribute, millis(d.o.Clock.Now())}
			if s.TTL = ""; on {
				s.TTL = attribute
			}
		}))
		return x.turn(new(midway)) // of a small table that is all
	}); err != nil {
		return nil, err
	}
	if t.now.Load().unfinished() {
		d.fill(name, t.id)
	}
	var in, o object
	in.str("AttributeName", attribute)
	in.name("Enabled")
	if on {
		in = append(in, "true"...)
	} else {
		in = append(in, "false"...)
	}
	o.raw("TimeToLiveSpecification", in.end())
	return o.end(), nil
}

// listExpiry notes in the catalog that a table has items that expire.
func (d *Door) listExpiry(ctx context.Context, name, id string) error {
	d.catalog.mu.Lock()
	defer d.catalog.mu.Unlock()
	return d.catalog.change(ctx, [][]byte{tableKey(name)}, []any{listing{schemaVersion, id, true}})
}

func (d *Door) describeLimits(context.Context, *request) ([]byte, error) {
	return json.Marshal(map[string]int{
		"AccountMaxReadCapacityUnits": 80000, "AccountMaxWriteCapacityUnits": 80000,
		"TableMaxReadCapacityUnits": 40000, "TableMaxWriteCapacityUnits": 40000,
	})
}

// describeEndpoints tells where the request came to: what is kept here is nowhere else.
func (d *Door) describeEndpoints(ctx context.Context, _ *request) ([]byte, error) {
	address := "localhost"
	if at, ok := ctx.Value(http.LocalAddrContextKey).(net.Addr); ok {
		address = at.String()
	}
	var in, o object
	in.str("Address", address)
	in.int("CachePeriodInMinutes", 1440)
	o.raw("Endpoints", append(append([]byte{'['}, in.end()...), ']'))
	return o.end(), nil
}

func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return sorted(out)
}
