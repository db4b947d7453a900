package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// A device is one of two that have the same trees, each with bees of its own.
type device struct {
	logs      *corestore.Store
	own, peer string
	clock     clock.Clock
	apart     bool // it hears nothing of the other from when a tree is opened
}

func (d *device) Open(ctx context.Context, name string, create bool) (Tree, error) {
	t := tree.New(tree.Options{Clock: d.clock})
	var open []func() error
	var key tree.Writer
	for _, who := range []string{d.own, d.peer} {
		log, err := d.logs.Namespace(who).Get(corestore.LogOptions{Name: name})
		if err != nil {
			return nil, err
		}
		bee, err := hyperbee.Open(log, hyperbee.Options{Cache: hyperbee.NewCache(1 << 20)})
		if err != nil {
			return nil, err
		}
		if who == d.own {
			key = log.Key()
			err = t.Own(bee)
		} else if upTo := bee.Version(); !d.apart {
			err = t.Add(bee, 0)
		} else if upTo > 0 {
			err = t.Add(bee, upTo)
		}
		if err != nil {
			return nil, err
		}
		open = append(open, bee.Close, log.Close)
	}
	all := OnCloud(t, key, func() error {
		err := t.Close()
		for _, f := range open {
			err = errors.Join(err, f())
		}
		return err
	})
	if _, err := all.Get(ctx, []byte{keyTable}); !create && name != Catalog && errors.Is(err, ErrNotFound) {
		return nil, errors.Join(fmt.Errorf("open %s: %w", name, ErrNotFound), all.Close())
	}
	return all, nil
}

func (d *device) Delete(context.Context, string) error { return nil }

func TestTwoDevicesHaveTheSameTables(t *testing.T) {
	logs, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	c := clock.NewFake(epoch)
	a := rigOn(t, &device{logs: logs, own: "a", peer: "b", clock: c}, c)
	a.ok("CreateTable", newPeople)
	a.ok("CreateTable", simpleTable("left"))
	c.Advance(time.Second)
	put := func(r *rig, n int, color string) {
		r.ok("PutItem", fmt.Sprintf(`{"TableName":"people","Item":{"a":{"S":"x"},"b":{"N":"%d"},"c":{"S":%q}}}`, n, color))
		c.Advance(time.Second)
	}
	put(a, 1, "red")
	b := rigOn(t, &device{logs: logs, own: "b", peer: "a", clock: c}, c)
	put(b, 2, "red")
	put(b, 1, "blue")
	put(a, 3, "red")
	a.ok("UpdateContinuousBackups", `{"TableName":"people","PointInTimeRecoverySpecification":{"PointInTimeRecoveryEnabled":true}}`)
	for who, r := range map[string]*rig{"a": a, "b": b} {
		got := r.ok("Query", `{"TableName":"people","IndexName":"byC","Select":"COUNT","KeyConditionExpression":"c = :c","ExpressionAttributeValues":{":c":{"S":"red"}}}`)
		if got["Count"].(float64) != 2 {
			t.Errorf("%s: %v", who, got)
		}
		table := r.ok("DescribeTable", `{"TableName":"people"}`)["Table"].(map[string]any)
		if table["ItemCount"].(float64) != 3 {
			t.Errorf("%s counts %v items", who, table["ItemCount"])
		}
	}
	for who, r := range map[string]*rig{"a": a, "b": b} {
		r.ok("TransactWriteItems", `{"TransactItems":[{"Update":{`+account("left/"+who)+`,"UpdateExpression":"add n :n","ExpressionAttributeValues":{":n":{"N":"1"}}}},
			{"Put":{"TableName":"people","Item":{"a":{"S":"t"},"b":{"N":"1"}}}}]}`)
	}
	// What one makes of a table, the other knows at once.
	b.ok("UpdateTimeToLive", `{"TableName":"people","TimeToLiveSpecification":{"AttributeName":"t","Enabled":true}}`)
	if got := a.ok("DescribeTimeToLive", `{"TableName":"people"}`); got["TimeToLiveDescription"].(map[string]any)["TimeToLiveStatus"] != "ENABLED" {
		t.Errorf("a knows of the time to live: %v", got)
	}
	b.ok("DeleteTable", `{"TableName":"left"}`)
	if _, text := a.do("Scan", `{"TableName":"left"}`); !strings.Contains(text, "ResourceNotFoundException") {
		t.Errorf("a knows of the end of a table: %s", text)
	}
	b.ok("CreateTable", simpleTable("left"))
	if n := a.count(`{"TableName":"left"}`); n != 0 {
		t.Errorf("a finds %v items in a new table", n)
	}
	a.ok("RestoreTableToPointInTime", fmt.Sprintf(`{"SourceTableName":"people","TargetTableName":"then","RestoreDateTime":%d}`, epoch.Unix()+1))
	if n := a.count(`{"TableName":"then"}`); n != 1 {
		t.Errorf("then there were %v items, want 1", n)
	}
}

// Conditions are judged by what a device knows: two that write at the same time may both
// be told yes. Then the later write stays, whole, the same on both, and its index entry
// with it; nothing else of either is lost.
func TestTheLaterOfTwoDevicesWritesStays(t *testing.T) {
	logs, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	c := clock.NewFake(epoch)
	both := func(t *testing.T, apart bool) []*rig {
		return []*rig{rigOn(t, &device{logs, "a", "b", c, apart}, c), rigOn(t, &device{logs, "b", "a", c, apart}, c)}
	}
	t.Run("begin", func(t *testing.T) { both(t, false)[0].ok("CreateTable", newPeople) })
	t.Run("apart", func(t *testing.T) {
		devices := both(t, true)
		for _, r := range devices {
			r.count(`{"TableName":"people"}`) // it is open
		}
		for i, r := range devices {
			c.Advance(time.Second)
			r.ok("PutItem", fmt.Sprintf(`{"TableName":"people","Item":{"a":{"S":"x"},"b":{"N":"1"},"c":{"S":"of %d"}},"ConditionExpression":"attribute_not_exists(a)"}`, i))
			r.ok("PutItem", fmt.Sprintf(`{"TableName":"people","Item":{"a":{"S":"only %d"},"b":{"N":"1"}}}`, i))
			r.ok("TransactWriteItems", fmt.Sprintf(`{"TransactItems":[{"Update":{"TableName":"people","Key":{"a":{"S":"n"},"b":{"N":"1"}},"UpdateExpression":"add n :n","ExpressionAttributeValues":{":n":{"N":"1"}}}},
				{"Put":{"TableName":"people","Item":{"a":{"S":"too %d"},"b":{"N":"1"}}}}]}`, i))
			if n := r.count(`{"TableName":"people"}`); n != 4 {
				t.Errorf("apart, %d has %v items, want 4", i, n)
			}
		}
	})
	for i, r := range both(t, false) {
		if n := r.count(`{"TableName":"people"}`); n != 6 {
			t.Errorf("%d has %v items, want 6", i, n)
		}
		for whose, want := range []float64{0, 1} {
			got := r.ok("Query", fmt.Sprintf(`{"TableName":"people","IndexName":"byC","KeyConditionExpression":"c = :c","ExpressionAttributeValues":{":c":{"S":"of %d"}}}`, whose))
			if got["Count"].(float64) != want {
				t.Errorf("%d finds %v items of %d, want %v", i, got["Count"], whose, want)
			}
		}
		if _, body := r.do("GetItem", `{"TableName":"people","Key":{"a":{"S":"n"},"b":{"N":"1"}}}`); !strings.Contains(body, `"n":{"N":"1"}`) {
			t.Errorf("%d counts %s", i, body)
		}
	}
}
