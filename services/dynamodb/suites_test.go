package dynamodb

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What suites of others ask, and DynamoDB was seen to answer.
func TestAnswersThatOthersAskFor(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", simpleTable("own"))
	r.ok("CreateTable", newPeople)
	long := strings.Repeat("x", 2049)
	for _, c := range []struct{ operation, body, want string }{
		// Tables by their ARNs.
		{"PutItem", `{"TableName":"arn:aws:dynamodb:us-east-1:000000000000:table/own","Item":{"a":{"S":"arn"}}}`, `{}`},
		{"TransactGetItems", `{"TransactItems":[{"Get":{"TableName":"arn:aws:dynamodb:us-east-1:000000000000:table/own","Key":{"a":{"S":"arn"}}}}]}`, `{"Responses":[{"Item":{"a":{"S":"arn"}}}]}`},
		{"DescribeTable", `{"TableName":"arn:aws:dynamodb:us-east-1:000000000000:table/own"}`, `"TableName":"own"`},
		{"DescribeTable", `{"TableName":"arn:aws:dynamodb:eu-west-1:000000000000:table/own"}`, "ValidationException"},
		{"DeleteItem", `{"TableName":"arn:aws:dynamodb:us-east-1:000000000000:table/own","Key":{"a":{"S":"arn"}}}`, `{}`},
		// Updates.
		{"UpdateItem", `{"TableName":"own","Key":{"a":{"S":"none"}},"UpdateExpression":"remove b","ReturnValues":"ALL_NEW"}`, `{}`},
		{"GetItem", `{"TableName":"own","Key":{"a":{"S":"none"}}}`, `{}`},
		{"UpdateItem", `{"TableName":"own","Key":{"a":{"S":"none"}},"AttributeUpdates":{"b":{"Action":"DELETE"}}}`, `{}`},
		{"GetItem", `{"TableName":"own","Key":{"a":{"S":"none"}}}`, `{}`},
		{"UpdateItem", `{"TableName":"own","Key":{"a":{"S":"none"}},"UpdateExpression":"remove b.c"}`, `{}`},
		{"UpdateItem", `{"TableName":"own","Key":{"a":{"S":"k"}},"UpdateExpression":"set b = :b","ExpressionAttributeValues":{":b":{"L":[{"N":"0"}]}},"ReturnValues":"UPDATED_OLD"}`, `{}`},
		{"UpdateItem", `{"TableName":"own","Key":{"a":{"S":"k"}},"UpdateExpression":"remove b.c"}`, "document path provided in the update expression is invalid"},
		{"UpdateItem", `{"TableName":"own","Key":{"a":{"S":"k"}},"UpdateExpression":"set b[84] = :4, b[17] = :1, b[50] = :3, b[37] = :2","ExpressionAttributeValues":{":1":{"N":"1"},":2":{"N":"2"},":3":{"N":"3"},":4":{"N":"4"}},"ReturnValues":"ALL_NEW"}`,
			`{"L":[{"N":"0"},{"N":"1"},{"N":"2"},{"N":"3"},{"N":"4"}]}`},
		{"UpdateItem", `{"TableName":"own","Key":{"a":{"S":"k"}},"UpdateExpression":"set n = :a - :b","ExpressionAttributeValues":{":a":{"N":"+1e50"},":b":{"N":"1"}}}`, "Number overflow"},
		{"UpdateItem", `{"TableName":"own","Key":{"a":{"S":"k"}},"UpdateExpression":"set b = list_append(list_append(b, b), b)"}`, "not allowed to be used this way"},
		{"UpdateItem", `{"TableName":"own","Key":{"a":{"S":"k"}},"AttributeUpdates":{"b":{"Action":"JUMP","Value":{"S":"x"}}}}`, "Member must satisfy enum value set: [ADD, PUT, DELETE]"},
		// Conditions.
		{"PutItem", `{"TableName":"own","Item":{"a":{"S":"k"}},"ConditionExpression":"b < :b","ExpressionAttributeValues":{":b":{"L":[]}}}`, "Incorrect operand type for operator or function; operator or function: <, operand type: L"},
		{"PutItem", `{"TableName":"own","Item":{"a":{"S":"k"}},"ConditionExpression":"not not attribute_exists(a)"}`, `{}`},
		{"PutItem", `{"TableName":"own","Item":{"a":{"S":"k"}},"ConditionExpression":"if_not_exists(a, b) = b"}`, "not allowed in a condition expression"},
		{"PutItem", `{"TableName":"own","Item":{"a":{"S":"k"}},"ConditionalOperator":"OR"}`, "ConditionalOperator cannot be used without"},
		{"PutItem", `{"TableName":"own","Item":{"a":{"S":"k"}},"Expected":{"b":{"ComparisonOperator":"LE","AttributeValueList":[{"L":[]}]}}}`, "ComparisonOperator LE is not valid for L"},
		{"PutItem", `{"TableName":"own","Item":{"a":{"S":"k"}},"Expected":{"b":{"ComparisonOperator":"NOT_CONTAINS","AttributeValueList":[{"S":"x"}]}}}`, "ConditionalCheckFailed"},
		{"PutItem", `{"TableName":"own","Item":{"a":{"S":"k"},"":{"S":"x"}}}`, "Empty attribute name"},
		// What is asked for.
		{"Scan", `{"TableName":"own","Select":"SPECIFIC_ATTRIBUTES"}`, "Must specify the AttributesToGet or ProjectionExpression"},
		{"Scan", `{"TableName":"own","Select":"COUNT","ProjectionExpression":"b"}`, "Cannot specify the ProjectionExpression when choosing to get only the Count"},
		{"Scan", `{"TableName":"own","Select":"ALL_PROJECTED_ATTRIBUTES"}`, "ALL_PROJECTED_ATTRIBUTES can be used only"},
		{"Scan", `{"TableName":"own","Segment":0}`, "TotalSegments parameter is required"},
		{"Scan", `{"TableName":"own","ScanFilter":{"b":{"ComparisonOperator":"EQ","AttributeValueList":[{"L":[]}]}}}`, `"Count":0`},
		// Keys of indexes.
		{"PutItem", `{"TableName":"people","Item":{"a":{"S":"k"},"b":{"N":"1"},"c":{"S":"` + long + `"}}}`, "exceeded the size limit of 2048 bytes"},
		{"PutItem", `{"TableName":"people","Item":{"a":{"S":"k"},"b":{"N":"1"},"c":{"S":"red"}},"ReturnConsumedCapacity":"INDEXES"}`,
			`{"ConsumedCapacity":{"CapacityUnits":2,"TableName":"people","Table":{"CapacityUnits":1},"GlobalSecondaryIndexes":{"byC":{"CapacityUnits":1}}}}`},
		// Transactions.
		{"TransactGetItems", `{"TransactItems":[{"Get":{"TableName":"own","Key":{"a":{"S":"k"}}}},{"Get":{"TableName":"own","Key":{"a":{"S":"k"}}}}]}`, "cannot include multiple operations on one item"},
		{"TransactGetItems", `{"TransactItems":[{"Get":{"TableName":"own","Key":{}}}]}`, `[ValidationError]`},
		{"TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"own","Item":{"a":{"N":"1"}}}},{"Put":{"TableName":"own","Item":{"a":{"N":"2"}}}}]}`, `[ValidationError, None]`},
		{"TagResource", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/own","Tags":[{"Key":"a!","Value":"b"}]}`, "Tags may have letters"},
		{"TagResource", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/own","Tags":[{"Key":"a"}]}`, "Member must not be null"},
		{"ExecuteStatement", `{"Statement":"SELECT m.x FROM own WHERE a = 'none'"}`, `{"Items":[]}`},
		{"PutItem", `{"TableName":"own","Item":{"a":{"S":"deep"},"m":{"M":{"x":{"N":"1"},"y":{"N":"2"}}}}}`, `{}`},
		{"ExecuteStatement", `{"Statement":"SELECT m.x FROM own WHERE a = 'deep'"}`, `{"Items":[{"x":{"N":"1"}}]}`},
		{"CreateTable", strings.Replace(simpleTable("twice"), `"AttributeDefinitions":[`, `"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"N"},`, 1), "Duplicate AttributeName in AttributeDefinitions: a"},
		{"GetResourcePolicy", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/own"}`, "PolicyNotFoundException"},
		{"GetResourcePolicy", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/none"}`, "ResourceNotFoundException"},
		{"PutResourcePolicy", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/own","Policy":"{}"}`, "not supported here"},
		{"DescribeKinesisStreamingDestination", `{"TableName":"own"}`, `{"TableName":"own","KinesisDataStreamDestinations":[]}`},
		{"DescribeContinuousBackups", `{"TableName":"none"}`, "TableNotFoundException"},
	} {
		if _, text := r.do(c.operation, c.body); !strings.Contains(text, c.want) || c.want == `{}` && text != c.want {
			t.Errorf("%s %.300s:\n got %s\nwant %s", c.operation, c.body, text, c.want)
		}
	}
}

// An index whose key has two attributes in each part.
func TestKeysOfSeveralAttributes(t *testing.T) {
	r := newRig(t)
	element := func(name, kind string) string { return fmt.Sprintf(`{"AttributeName":%q,"KeyType":%q}`, name, kind) }
	define := func(names string) (out string) {
		for _, name := range strings.Fields(names) {
			out += fmt.Sprintf(`,{"AttributeName":%q,"AttributeType":"S"}`, name)
		}
		return out[1:]
	}
	index := func(keys ...string) string {
		return `{"IndexName":"many","Projection":{"ProjectionType":"ALL"},"KeySchema":[` + strings.Join(keys, ",") + `]}`
	}
	table := func(index string) string {
		return `{"TableName":"games","BillingMode":"PAY_PER_REQUEST","KeySchema":[` + element("p", "HASH") + `],"AttributeDefinitions":[` + define("p h1 h2 r1 r2") +
			`],"GlobalSecondaryIndexes":[` + index + `]}`
	}
	h1, h2, r1, r2 := element("h1", "HASH"), element("h2", "HASH"), element("r1", "RANGE"), element("r2", "RANGE")
	for bad, want := range map[string]string{
		index(h1, r1, h2, r2):                               "must precede all RANGE",
		index(h1, h2, r1, element("h1", "RANGE")):           "same name",
		index(h1, h2, h1, h2, h1, h2):                       "same name",
		index(element("r1", "RANGE"), h1, element("x", "")): "not defined in AttributeDefinitions",
	} {
		if _, text := r.do("CreateTable", table(bad)); !strings.Contains(text, want) {
			t.Errorf("%s: %s, want %s", bad, text, want)
		}
	}
	r.ok("CreateTable", table(index(h1, h2, r1, r2)))
	put := func(p, h1, h2, r1, r2 string) {
		text := ""
		for i, v := range []string{p, h1, h2, r1, r2} {
			if v != "" {
				text += fmt.Sprintf(`,%q:{"S":%q}`, []string{"p", "h1", "h2", "r1", "r2"}[i], v)
			}
		}
		r.ok("PutItem", `{"TableName":"games","Item":{`+text[1:]+`}}`)
	}
	put("1", "a", "b", "x", "1")
	put("2", "a", "b", "x", "2")
	put("3", "a", "b", "y", "1")
	put("4", "a", "c", "x", "1")
	put("5", "a", "b", "x", "") // is not in the index
	ask := func(condition, more string) string {
		used := ""
		for _, v := range []string{"a", "b", "c", "x", "y", "1", "2"} {
			if strings.Contains(condition, ":"+v) {
				used += fmt.Sprintf(`,":%s":{"S":%q}`, v, v)
			}
		}
		_, text := r.do("Query", `{"TableName":"games","IndexName":"many","ProjectionExpression":"p","KeyConditionExpression":"`+condition+`","ExpressionAttributeValues":{`+used[1:]+`}`+more+`}`)
		return text
	}
	items := func(ps ...string) string {
		out := ""
		for _, p := range ps {
			out += `,{"p":{"S":"` + p + `"}}`
		}
		return `"Items":[` + out[1:] + `]`
	}
	for condition, want := range map[string]string{
		"h1 = :a and h2 = :b":                         items("1", "2", "3"),
		"h2 = :c and h1 = :a":                         items("4"),
		"h1 = :a and h2 = :b and r1 = :x":             items("1", "2"),
		"h1 = :a and h2 = :b and r1 > :x":             items("3"),
		"h1 = :a and h2 = :b and r2 > :1 and r1 = :x": items("2"),
		"h1 = :a and h2 = :b and r1 = :x and r2 = :1": items("1"),
		"h1 = :a and h2 = :b and begins_with(r1, :y)": items("3"),
		"h1 = :a":                                                "each HASH key attribute needs an equality condition",
		"h1 = :a and h2 > :b":                                    "each HASH key attribute needs an equality condition",
		"h1 = :a and h2 = :b and r2 = :1":                        "RANGE key attributes need an equality condition from left to right",
		"h1 = :a and h2 = :b and r1 > :x and r2 = :1":            "RANGE key attributes need an equality condition from left to right",
		"h1 = :a and h2 = :b and r1 = :x and r2 = :1 and p = :1": "missed key schema element: p",
	} {
		if got := ask(condition, ""); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", condition, got, want)
		}
	}
	page := ask("h1 = :a and h2 = :b", `,"Limit":1`)
	_, start, _ := strings.Cut(page, `"LastEvaluatedKey":`)
	if got := ask("h1 = :a and h2 = :b", `,"ExclusiveStartKey":`+strings.TrimSuffix(start, "}")); !strings.Contains(got, items("2", "3")) {
		t.Errorf("after %s: %s", page, got)
	}
}

func TestPackedRequestsAreRead(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", simpleTable("own"))
	ask := func(encoding string, body []byte) *httptest.ResponseRecorder {
		req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		req.Header.Set("Content-Type", jsonType)
		req.Header.Set("Content-Encoding", encoding)
		req.Header.Set("X-Amz-Target", tableSpace+".PutItem")
		req.Header.Set("X-Amz-Date", "20261123T120000Z")
		req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=f, Signature=g")
		w := httptest.NewRecorder()
		r.door.ServeHTTP(w, req)
		return w
	}
	pack := func(text []byte) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(text)
		w.Close()
		return b.Bytes()
	}
	put := []byte(`{"TableName":"own","Item":{"a":{"S":"packed"}}}`)
	if w := ask("gzip", pack(put)); w.Code != http.StatusOK || r.count(`{"TableName":"own"}`) != 1 {
		t.Errorf("packed: %d %s", w.Code, w.Body)
	}
	for encoding, body := range map[string][]byte{"gzip": put, "deflate": put, "nonsense": put, "GZIP": pack(bytes.Repeat([]byte(" "), maxRequest+1))} {
		if w := ask(encoding, body); w.Code != http.StatusInternalServerError {
			t.Errorf("%s: %d %s", encoding, w.Code, w.Body)
		}
	}
}

// Operations of DynamoDB that are not here say why; others are as unknown as there.
func TestOperationsThatAreNotHereSaySo(t *testing.T) {
	r := newRig(t)
	for name, why := range map[string]string{"CreateGlobalTable": "each table is on all machines", "EnableKinesisStreamingDestination": "bevy feed", "Nonsense": ""} {
		status, body := r.do(name, `{}`)
		if status != http.StatusBadRequest || !strings.Contains(body, "UnknownOperationException") || !strings.Contains(body, why) || (why == "") == strings.Contains(body, "message") {
			t.Errorf("%s: %d %s", name, status, body)
		}
		if _, there := operations[name]; there {
			t.Errorf("%s is here", name)
		}
	}
	for name := range missing {
		if _, there := operations[name]; there {
			t.Errorf("%s is here", name)
		}
	}
}

// DescribeEndpoints may not send a client away, to Amazon.
func TestEndpointsAreHere(t *testing.T) {
	r := newRig(t)
	if _, body := r.do("DescribeEndpoints", `{}`); strings.Contains(body, "amazonaws") {
		t.Error(body)
	}
	s := httptest.NewServer(r.door)
	defer s.Close()
	q, err := http.NewRequest("POST", s.URL, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("X-Amz-Target", "DynamoDB_20120810.DescribeEndpoints")
	q.Header.Set("Content-Type", jsonType)
	q.Header.Set("X-Amz-Date", "x")
	q.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c")
	a, err := s.Client().Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(a.Body); err != nil || !strings.Contains(b.String(), `"Address":"`+s.Listener.Addr().String()) {
		t.Error(err, b.String())
	}
}
