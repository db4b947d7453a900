package dynamodb_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/services/dynamodb"
)

func Example() {
	trees, err := dynamodb.NewMemory(clock.System)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer trees.Close()
	door, err := dynamodb.New(context.Background(), dynamodb.Options{Trees: trees})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer door.Close()
	ask := func(operation, body string) string {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		r.Header.Set("X-Amz-Target", "DynamoDB_20120810."+operation)
		r.Header.Set("X-Amz-Date", "20261123T120000Z")
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=key, SignedHeaders=host, Signature=0")
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		b, _ := io.ReadAll(w.Body)
		return string(b)
	}
	ask("CreateTable", `{"TableName":"people","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"name","KeyType":"HASH"}],
		"AttributeDefinitions":[{"AttributeName":"name","AttributeType":"S"}]}`)
	ask("PutItem", `{"TableName":"people","Item":{"name":{"S":"ann"},"age":{"N":"41"}}}`)
	fmt.Println(ask("GetItem", `{"TableName":"people","Key":{"name":{"S":"ann"}}}`))
	// Output: {"Item":{"age":{"N":"41"},"name":{"S":"ann"}}}
}
