package dynamodb

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// nowhere takes answers.
type nowhere struct {
	http.Header
	status int
}

func (n *nowhere) WriteHeader(status int)      { n.status = status }
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n *nowhere) reset()                      { clear(n.Header) }

type answerTo struct{ *nowhere }

func (a answerTo) Header() http.Header { return a.nowhere.Header }

func benchmarkDoor(b *testing.B, target string, body func(i int) string) {
	r := newRig(b)
	r.ok("CreateTable", strings.NewReplacer("people", "bench", `,{"AttributeName":"c","AttributeType":"S"}`, "", `"GlobalSecondaryIndexes":[{"IndexName":"byC","KeySchema":[{"AttributeName":"c","KeyType":"HASH"},{"AttributeName":"b","KeyType":"RANGE"}],"Projection":{"ProjectionType":"ALL"}}],`, "").Replace(newPeople))
	for i := range 1000 {
		r.ok("PutItem", putBody(i))
	}
	req := httptest.NewRequest(http.MethodPost, "/", nil)
	req.Header.Set("X-Amz-Target", tableSpace+"."+target)
	req.Header.Set("Content-Type", jsonType)
	req.Header.Set("X-Amz-Date", "20261123T120000Z")
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=f, Signature=g")
	w := &nowhere{Header: http.Header{}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		text := []byte(body(i % 1000))
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		w.reset()
		r.door.ServeHTTP(answerTo{w}, req)
		if w.status != http.StatusOK {
			b.Fatal(w.status)
		}
	}
}

func putBody(i int) string {
	return fmt.Sprintf(`{"TableName":"bench","Item":{"a":{"S":"key-%06d"},"b":{"N":"%d"},"text":{"S":%q}}}`, i/25, i%25, strings.Repeat("0123456789abcdef", 62))
}

func BenchmarkPut(b *testing.B) { benchmarkDoor(b, "PutItem", putBody) }

func BenchmarkGet(b *testing.B) {
	benchmarkDoor(b, "GetItem", func(i int) string {
		return fmt.Sprintf(`{"TableName":"bench","Key":{"a":{"S":"key-%06d"},"b":{"N":"%d"}}}`, i/25, i%25)
	})
}

func BenchmarkQuery(b *testing.B) {
	benchmarkDoor(b, "Query", func(i int) string {
		return fmt.Sprintf(`{"TableName":"bench","KeyConditionExpression":"a = :a","ExpressionAttributeValues":{":a":{"S":"key-%06d"}}}`, i/25)
	})
}
