package home

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/cloudbevy/bevy/client"
)

// checked checks everything, and returns what was found by the kind and name of what
// it was found in.
func (m *machine) checked() map[string]client.Scrubbed {
	m.t.Helper()
	var all client.Checks
	m.do("GET", "/checks", nil, &all)
	out := map[string]client.Scrubbed{}
	for _, c := range all.Checks {
		read := int64(0)
		found, err := m.Check(m.t.Context(), client.CheckRequest{Space: c.Space}, func(n int64) { read += n })
		if err != nil {
			m.t.Fatalf("check %s %s: %v", c.Kind, c.Name, err)
		}
		if found.Problems == 0 && (read <= 0 || read > 2*int64(c.Bytes)) {
			m.t.Errorf("%s %s: %d bytes were read, and %d were to read", c.Kind, c.Name, read, c.Bytes)
		}
		out[fmt.Sprintf("%s %s", c.Kind, c.Name)] = found
	}
	return out
}

func TestABitThatFlipsInATableIsFoundAndNamed(t *testing.T) {
	m := newMachine(t, "", "laptop")
	m.do("POST", "/apps", client.AddApp{Name: "shop"}, nil)
	e := m.environment("shop")
	db := dynamodb.NewFromConfig(sdk(e))
	makeTable(t, db, "orders")
	makeTable(t, db, "others")
	putID(t, db, "others", "one")
	const items = 8
	random := rand.NewChaCha8([32]byte{1})
	for i := range items { // large ones, so that they are in files of their own
		large := make([]byte, 40<<10)
		random.Read(large)
		if _, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: map[string]types.AttributeValue{
			"id": &types.AttributeValueMemberS{Value: fmt.Sprint(i)}, "b": &types.AttributeValueMemberB{Value: large},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	files := buckets(e)
	if _, err := files.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("photos")}); err != nil {
		t.Fatal(err)
	}
	putObject(t, files, "photos", "a.txt", "hello")
	for what, want := range map[string]client.Scrubbed{
		"table shop:orders": {Logs: 1, Items: items}, "table shop:others": {Logs: 1, Items: 1}, "tables shop": {Logs: 1},
		"bucket shop:photos": {Logs: 2, Files: 1}, "cloud laptop": {Logs: 1},
	} {
		got, ok := m.checked()[what]
		if !ok || got.Problems > 0 || got.Logs != want.Logs || got.Items != want.Items || got.Files != want.Files {
			t.Errorf("%s, undamaged: %+v, want %+v", what, got, want)
		}
	}
	m.down()

	segments, err := filepath.Glob(filepath.Join(m.data, "cloud", "logs", "blobs", "*.seg"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments: %q, %v", segments, err)
	}
	whole, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`^log [a-z0-9]{52} of laptop, block (\d+): `)
	blocks := map[string]bool{}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 4 {
		bit := 4096 + rng.IntN(len(whole)-4096)
		broken := append([]byte{}, whole...)
		broken[bit] ^= 1 << rng.IntN(8)
		if err := os.WriteFile(segments[0], broken, 0o600); err != nil {
			t.Fatal(err)
		}
		m.up()
		for what, got := range m.checked() {
			if want := what == "table shop:orders"; want != (got.Problems > 0) {
				t.Errorf("byte %d is damaged, and of %s there is said %+v", bit, what, got)
			} else if want {
				found := named.FindStringSubmatch(strings.Join(got.Details, "\n"))
				if len(got.Details) != 1 || found == nil {
					t.Errorf("byte %d is damaged: %q", bit, got.Details)
				} else {
					blocks[found[1]] = true
				}
			}
		}
		m.down()
	}
	if len(blocks) < 2 {
		t.Errorf("other bytes, the same blocks: %v", blocks)
	}
	if err := os.WriteFile(segments[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	m.up()
	if got := m.checked()["table shop:orders"]; got.Problems > 0 || got.Items != items {
		t.Errorf("undamaged again: %+v", got)
	}
}

func TestACheckEndsWithWhoAsked(t *testing.T) {
	m := newMachine(t, "", "laptop")
	if _, err := m.Check(t.Context(), client.CheckRequest{Space: "nix"}, func(int64) {}); err == nil || !strings.Contains(err.Error(), `nothing "nix"`) {
		t.Errorf("what there is not: %v", err)
	}
	var all client.Checks
	m.do("GET", "/checks", nil, &all)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Check(ctx, client.CheckRequest{Space: all.Checks[0].Space}, func(int64) {}); err == nil {
		t.Error("nobody asked, and it was answered")
	}
}
