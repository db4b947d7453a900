package dynamodb

import (
	"bytes"
	"fmt"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/storage"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
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

// BenchmarkPutTogether has 16 clients put at a time, on disk.
func BenchmarkPutTogether(b *testing.B) {
	logs, err := corestore.OpenDisk(storage.Disk{Dir: b.TempDir()}, corestore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer logs.Close()
	door, err := New(b.Context(), Options{Trees: NewStore(logs, clock.System)})
	if err != nil {
		b.Fatal(err)
	}
	defer door.Close()
	ask := func(target, body string) {
		req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		req.Header = http.Header{"X-Amz-Target": {tableSpace + "." + target}, "Content-Type": {jsonType}, "X-Amz-Date": {"20261123T120000Z"},
			"Authorization": {"AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=f, Signature=g"}}
		w := &nowhere{Header: http.Header{}}
		door.ServeHTTP(answerTo{w}, req)
		if w.status != http.StatusOK {
			b.Error(target, w.status)
		}
	}
	ask("CreateTable", `{"TableName":"bench","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"AttributeName":"b","KeyType":"RANGE"}],`+
		`"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"},{"AttributeName":"b","AttributeType":"N"}]}`)
	var next atomic.Int64
	b.SetParallelism(8)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			ask("PutItem", putBody(int(uint64(next.Add(1))*2654435761%30000)))
		}
	})
}
