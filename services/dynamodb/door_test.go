package dynamodb

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// epoch is when the clocks of tests begin.
var epoch = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// A bench is a door with all it stands on.
type rig struct {
	t     testing.TB
	door  *Door
	clock *clock.Fake
}

func newRig(t testing.TB) *rig {
	t.Helper()
	c := clock.NewFake(epoch)
	trees, err := NewMemory(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trees.Close() })
	return rigOn(t, trees, c)
}

func rigOn(t testing.TB, trees Trees, c *clock.Fake) *rig {
	t.Helper()
	door, err := New(context.Background(), Options{Trees: trees, Clock: c, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := door.Close(); err != nil {
			t.Error(err)
		}
	})
	return &rig{t, door, c}
}

// do sends a request and returns the status and the answer.
func (r *rig) do(target, body string) (int, string) {
	r.t.Helper()
	space := tableSpace
	if op, ok := operations[target]; ok {
		space = op.space
	}
	req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader([]byte(body)))
	req.Header.Set("X-Amz-Target", space+"."+target)
	req.Header.Set("Content-Type", "application/x-amz-json-1.0")
	req.Header.Set("X-Amz-Date", "20261123T120000Z")
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a/20261123/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=b")
	w := httptest.NewRecorder()
	r.door.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

// ok sends a request that must work, and returns the answer.
func (r *rig) ok(target, body string) map[string]any {
	r.t.Helper()
	status, text := r.do(target, body)
	if status != http.StatusOK {
		r.t.Fatalf("%s %s: %d %s", target, body, status, text)
	}
	out := map[string]any{}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			r.t.Fatalf("%s answered %q: %v", target, text, err)
		}
	}
	return out
}

// want sends a request and compares the answer.
func (r *rig) want(target, body, want string) {
	r.t.Helper()
	if _, got := r.do(target, body); got != want {
		r.t.Errorf("%s %s\n got %s\nwant %s", target, body, got, want)
	}
}

const newPeople = `{"TableName":"people","KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"AttributeName":"b","KeyType":"RANGE"}],
"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"},{"AttributeName":"b","AttributeType":"N"},{"AttributeName":"c","AttributeType":"S"}],
"GlobalSecondaryIndexes":[{"IndexName":"byC","KeySchema":[{"AttributeName":"c","KeyType":"HASH"},{"AttributeName":"b","KeyType":"RANGE"}],"Projection":{"ProjectionType":"ALL"}}],
"BillingMode":"PAY_PER_REQUEST"}`

func TestItemsComeBackAsTheyWerePut(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", newPeople)
	r.want("PutItem", `{"TableName":"people","Item":{"a":{"S":"x"},"b":{"N":"1.50"},"c":{"S":"red"},"l":{"L":[{"M":{"k":{"NS":["1","2.0"]}}},{"NULL":true}]}}}`, `{}`)
	r.want("GetItem", `{"TableName":"people","Key":{"a":{"S":"x"},"b":{"N":"15e-1"}}}`,
		`{"Item":{"a":{"S":"x"},"b":{"N":"1.5"},"c":{"S":"red"},"l":{"L":[{"M":{"k":{"NS":["1","2"]}}},{"NULL":true}]}}}`)
	r.want("Query", `{"TableName":"people","IndexName":"byC","KeyConditionExpression":"c = :c and b between :l and :h","ExpressionAttributeValues":{":c":{"S":"red"},":l":{"N":"1"},":h":{"N":"2"}},"ProjectionExpression":"l[0].k"}`,
		`{"Items":[{"l":{"L":[{"M":{"k":{"NS":["1","2"]}}}]}}],"Count":1,"ScannedCount":1}`)
	r.want("UpdateItem", `{"TableName":"people","Key":{"a":{"S":"x"},"b":{"N":"1.5"}},"UpdateExpression":"set c = :c add n :n remove l[1]","ExpressionAttributeValues":{":c":{"S":"blue"},":n":{"N":"3"}},"ReturnValues":"UPDATED_NEW"}`,
		`{"Attributes":{"c":{"S":"blue"},"n":{"N":"3"}}}`)
	r.want("Query", `{"TableName":"people","IndexName":"byC","KeyConditionExpression":"c = :c","ExpressionAttributeValues":{":c":{"S":"red"}}}`,
		`{"Items":[],"Count":0,"ScannedCount":0}`)
	r.want("PutItem", `{"TableName":"people","Item":{"a":{"S":"x"},"b":{"N":"1.5"}},"ConditionExpression":"attribute_not_exists(a)"}`,
		`{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"The conditional request failed"}`)
	r.want("TransactWriteItems", `{"ClientRequestToken":"t","TransactItems":[{"Put":{"TableName":"people","Item":{"a":{"S":"y"},"b":{"N":"1"}}}},{"ConditionCheck":{"TableName":"people","Key":{"a":{"S":"x"},"b":{"N":"1.5"}},"ConditionExpression":"n = :n","ExpressionAttributeValues":{":n":{"N":"3"}}}}]}`, `{}`)
	r.want("Scan", `{"TableName":"people","Select":"COUNT"}`, `{"Count":2,"ScannedCount":2}`)
}
