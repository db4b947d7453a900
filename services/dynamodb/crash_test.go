package dynamodb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// openOn opens a door to the tables on a disk.
func openOn(t *testing.T, disk *storagetest.Faulty) (r *rig, done func()) {
	t.Helper()
	engine, err := disk.Disk().Open()
	if err != nil {
		t.Fatal(err)
	}
	logs, err := corestore.Open(engine, corestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := clock.NewFake(epoch)
	door, err := New(context.Background(), Options{Trees: NewStore(logs, c), Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t, door, c}, func() {
		if err := door.Close(); err != nil {
			t.Error(err)
		}
		if err := logs.Close(); err != nil {
			t.Error(err)
		}
	}
}

// total is what all accounts of a table have, and how many items the index has.
func (r *rig) total(table string) (sum, indexed int) {
	r.t.Helper()
	for _, i := range r.ok("Scan", `{"TableName":"`+table+`"}`)["Items"].([]any) {
		n, err := strconv.Atoi(balance(i))
		if err != nil {
			r.t.Fatal(err)
		}
		sum += n
	}
	count := r.ok("Scan", `{"TableName":"`+table+`","IndexName":"byN","Select":"COUNT"}`)["Count"].(float64)
	return sum, int(count)
}

// Money is moved between tables; whatever happens, it is neither lost nor made, and
// what was said to be done is done.
func TestTransactionsOutliveCrashesWholeOrNotAtAll(t *testing.T) {
	type crash struct {
		disk  *storagetest.Faulty
		acked int
		point uint64
	}
	disk := storagetest.NewFaulty()
	r, done := openOn(t, disk)
	indexed := `,"GlobalSecondaryIndexes":[{"IndexName":"byN","KeySchema":[{"AttributeName":"n","KeyType":"HASH"}],"Projection":{"ProjectionType":"ALL"}}]}`
	for _, name := range []string{"left", "right"} {
		body := strings.TrimSuffix(strings.Replace(simpleTable(name), `"AttributeType":"S"}`, `"AttributeType":"S"},{"AttributeName":"n","AttributeType":"N"}`, 1), "}") + indexed
		r.ok("CreateTable", body)
		for i := range 4 {
			r.ok("PutItem", fmt.Sprintf(`{"TableName":%q,"Item":{"a":{"S":"%d"},"n":{"N":"100"}}}`, name, i))
		}
	}
	var mu sync.Mutex
	var crashes []crash
	acked := 0
	every := uint64(13)
	if os.Getenv("BEVY_LONG") == "1" {
		every = 2
	}
	disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		if p.Number%every == 0 && len(crashes) < 300 {
			crashes = append(crashes, crash{disk.PowerCut(p.Number), acked, p.Number})
		}
	})
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		from, to := "left", "right"
		if rng.IntN(2) == 0 {
			from, to = to, from
		}
		r.ok("TransactWriteItems", fmt.Sprintf(`{"ClientRequestToken":"t%d","TransactItems":[
			{"Update":{%s,"UpdateExpression":"add n :n","ExpressionAttributeValues":{":n":{"N":"-1"}}}},
			{"Update":{%s,"UpdateExpression":"add n :n, moves :one","ExpressionAttributeValues":{":n":{"N":"1"},":one":{"N":"1"}}}}]}`,
			i, account(fmt.Sprint(from, "/", rng.IntN(4))), account(fmt.Sprint(to, "/", rng.IntN(4)))))
		mu.Lock()
		acked++
		mu.Unlock()
	}
	disk.Hook(nil)
	done()
	if len(crashes) < 12 {
		t.Fatalf("there were %d crashes only", len(crashes))
	}
	for _, c := range crashes {
		r, done := openOn(t, c.disk)
		left, nl := r.total("left")
		right, nr := r.total("right")
		if left+right != 800 || nl != 4 || nr != 4 {
			t.Errorf("after a crash at write point %d there are %d and %d, %d and %d in the indexes", c.point, left, right, nl, nr)
		}
		moves := 0
		for _, table := range []string{"left", "right"} {
			for _, i := range r.ok("Scan", `{"TableName":"`+table+`"}`)["Items"].([]any) {
				if m, ok := i.(map[string]any)["moves"].(map[string]any); ok {
					n, _ := strconv.Atoi(m["N"].(string))
					moves += n
				}
			}
		}
		if moves < c.acked || moves > c.acked+1 {
			t.Errorf("after a crash at write point %d %d transfers are there, and %d were acknowledged", c.point, moves, c.acked)
		}
		done()
	}
}

// What clients were told is written is there after any crash, with its entry in the
// index; of a batch all of a table is there or nothing.
func TestAcknowledgedItemsOutliveCrashes(t *testing.T) {
	const clients = 4
	type crash struct {
		disk  *storagetest.Faulty
		acked [clients]int
		point uint64
	}
	disk := storagetest.NewFaulty()
	r, done := openOn(t, disk)
	r.ok("CreateTable", `{"TableName":"left","KeySchema":[{"AttributeName":"a","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"},{"AttributeName":"n","AttributeType":"N"}],
		"BillingMode":"PAY_PER_REQUEST","GlobalSecondaryIndexes":[{"IndexName":"byN","KeySchema":[{"AttributeName":"n","KeyType":"HASH"}],"Projection":{"ProjectionType":"KEYS_ONLY"}}]}`)
	var mu sync.Mutex
	var crashes []crash
	var acked [clients]int
	disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		if p.Number%3 == 0 && len(crashes) < 40 {
			crashes = append(crashes, crash{disk.PowerCut(p.Number), acked, p.Number})
		}
	})
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for i := range 15 {
				one := func(half string) string {
					return fmt.Sprintf(`{"PutRequest":{"Item":{"a":{"S":"%d-%d-%s"},"n":{"N":"%d"}}}}`, c, i, half, i)
				}
				r.ok("BatchWriteItem", `{"RequestItems":{"left":[`+one("x")+`,`+one("y")+`]}}`)
				mu.Lock()
				acked[c]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	disk.Hook(nil)
	done()
	if len(crashes) < 8 {
		t.Fatalf("there were %d crashes only", len(crashes))
	}
	for _, c := range crashes {
		r, done := openOn(t, c.disk)
		have := map[string]bool{}
		items := r.ok("Scan", `{"TableName":"left"}`)["Items"].([]any)
		for _, i := range items {
			have[i.(map[string]any)["a"].(map[string]any)["S"].(string)] = true
		}
		for client, n := range c.acked {
			for i := range 15 {
				x, y := have[fmt.Sprintf("%d-%d-x", client, i)], have[fmt.Sprintf("%d-%d-y", client, i)]
				if x != y || i < n && !x {
					t.Errorf("after a crash at write point %d of batch %d of client %d there is %v and %v, and %d were acknowledged", c.point, i, client, x, y, n)
				}
			}
		}
		if n := r.ok("Scan", `{"TableName":"left","IndexName":"byN","Select":"COUNT"}`)["Count"].(float64); int(n) != len(items) {
			t.Errorf("after a crash at write point %d the index has %v of %d items", c.point, n, len(items))
		}
		if n := r.ok("DescribeTable", `{"TableName":"left"}`)["Table"].(map[string]any)["ItemCount"].(float64); int(n) != len(items) {
			t.Errorf("after a crash at write point %d %v of %d items are counted", c.point, n, len(items))
		}
		done()
	}
}
