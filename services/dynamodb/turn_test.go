package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// noted is how many items of a table are noted to expire.
func (r *rig) noted(table string) (n int) {
	r.t.Helper()
	t, err := r.door.use(r.t.Context(), table)
	if err != nil {
		r.t.Fatal(err)
	}
	defer r.door.release(t)
	for _, err := range t.tree.Range(r.t.Context(), hyperbee.RangeOptions{Gte: []byte{keyExpiry}, Lt: []byte{keyExpiry + 1}}) {
		if err != nil {
			r.t.Fatal(err)
		}
		n++
	}
	return n
}

func (r *rig) ttl(table string) (status string) {
	r.t.Helper()
	return r.ok("DescribeTimeToLive", `{"TableName":"`+table+`"}`)["TimeToLiveDescription"].(map[string]any)["TimeToLiveStatus"].(string)
}

// putMany puts items, of which each second one expires after an hour.
func (r *rig) putMany(table string, n int) {
	r.t.Helper()
	for i := 0; i < n; {
		var list []string
		for ; i < n && len(list) < 25; i++ {
			kind := "S"
			if i%2 == 0 {
				kind = "N"
			}
			list = append(list, fmt.Sprintf(`{"PutRequest":{"Item":{"a":{"S":"%d"},"end":{%q:"%d"}}}}`, i, kind, epoch.Add(time.Hour).Unix()))
		}
		r.ok("BatchWriteItem", `{"RequestItems":{"`+table+`":[`+strings.Join(list, ",")+`]}}`)
	}
}

func turnTTL(table string, on bool) string {
	return fmt.Sprintf(`{"TableName":%q,"TimeToLiveSpecification":{"Enabled":%v,"AttributeName":"end"}}`, table, on)
}

// Turning expiry on or off takes several appends. Whatever happens between two of them,
// it is begun and then comes to its end, or was not begun.
func TestExpiryIsTurnedOnAndOffInStepsThatOutliveCrashes(t *testing.T) {
	type crash struct {
		disk  *storagetest.Faulty
		on    bool // what was asked for
		acked bool
		point uint64
	}
	const items = 4*fillAtOnce + 10
	disk := storagetest.NewFaulty()
	r, done := openOn(t, disk)
	r.ok("CreateTable", simpleTable("left"))
	r.putMany("left", items)
	var mu sync.Mutex
	var crashes []crash
	now := crash{}
	disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		at := now
		at.disk, at.point = disk.PowerCut(p.Number), p.Number
		crashes = append(crashes, at)
	})
	steps := map[string]int{}
	for _, on := range []bool{true, false} {
		mu.Lock()
		now.on, now.acked = on, false
		mu.Unlock()
		r.ok("UpdateTimeToLive", turnTTL("left", on))
		mu.Lock()
		now.acked = true
		mu.Unlock()
		want := map[bool]string{true: "ENABLED", false: "DISABLED"}[on]
		if got := r.ttl("left"); got == want {
			t.Errorf("it is %s at once", got)
		}
		r.until(want, func() bool {
			got := r.ttl("left")
			steps[got]++
			return got == want
		})
		if got, want := r.noted("left"), map[bool]int{true: items / 2, false: 0}[on]; got != want {
			t.Errorf("turned %v: %d items are noted, want %d", on, got, want)
		}
	}
	disk.Hook(nil)
	done()
	if len(crashes) < 12 || steps["ENABLING"] == 0 && steps["DISABLING"] == 0 {
		t.Fatalf("there were %d crashes only, and was seen %v", len(crashes), steps)
	}
	midway := 0
	for i, c := range crashes {
		if i%3 != 0 && len(crashes) > 60 {
			continue
		}
		r, done := openOn(t, c.disk)
		began := r.ttl("left")
		if strings.HasSuffix(began, "ING") {
			midway++
		}
		ended := ""
		r.until("the end of "+began, func() bool { ended = r.ttl("left"); return ended == "ENABLED" || ended == "DISABLED" })
		if on := ended == "ENABLED"; on != c.on && (c.acked || strings.HasSuffix(began, "ING")) {
			t.Errorf("after a crash at write point %d of turning it %v it is %s", c.point, c.on, ended)
		} else if got, want := r.noted("left"), map[bool]int{true: items / 2, false: 0}[on]; got != want {
			t.Errorf("after a crash at write point %d it is %s and %d items are noted, want %d", c.point, ended, got, want)
		}
		done()
	}
	if midway == 0 {
		t.Error("no crash was in the middle")
	}
}

func TestExpiryIsNotTurnedWhileItIsBeingTurned(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", simpleTable("left"))
	turn := func(ttl string) {
		t.Helper()
		table, err := r.door.use(t.Context(), "left")
		if err != nil {
			t.Fatal(err)
		}
		defer r.door.release(table)
		if err := table.write(t.Context(), func(x *tx) error {
			x.setSchema(x.s.with(func(s *schema) { s.TTL, s.Turning = ttl, &turning{Attribute: "end"} }))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		ttl, status string
		on          bool
	}{{"end", "ENABLING", false}, {"", "DISABLING", true}} {
		turn(c.ttl)
		if got := r.ttl("left"); got != c.status {
			t.Errorf("it is %s, want %s", got, c.status)
		}
		if _, text := r.do("UpdateTimeToLive", turnTTL("left", c.on)); !strings.Contains(text, "Time to live has been modified multiple times within a fixed interval") {
			t.Errorf("turning it %v while it is %s: %s", c.on, c.status, text)
		}
	}
}

// What is read for one append is bounded, however large the table is.
func TestAPortionIsBounded(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", simpleTable("large"))
	for i := range 60 {
		r.ok("PutItem", fmt.Sprintf(`{"TableName":"large","Item":{"a":{"S":"%d"},"b":{"S":%q}}}`, i, strings.Repeat("x", 300<<10)))
	}
	table, err := r.door.use(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	defer r.door.release(table)
	o := hyperbee.RangeOptions{Gte: []byte{keyItem}, Lt: []byte{keyItem + 1}}
	items, portions := 0, 0
	for last := false; !last; portions++ {
		bytes := 0
		if last, err = portion(context.Background(), table.tree, &o, func(e Entry) error {
			items++
			bytes += len(e.Value)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if bytes > fillBytes+400<<10 {
			t.Errorf("%d bytes at once", bytes)
		}
	}
	if items != 60 || portions < 4 {
		t.Errorf("%d items in %d portions", items, portions)
	}
}

// slow are trees whose tables are not filled before they may be.
type slow struct {
	Trees
	open chan struct{}
}

func (s *slow) Open(ctx context.Context, name string, create bool) (Tree, error) {
	tree, err := s.Trees.Open(ctx, name, create)
	if err != nil || !create || name == Catalog {
		return tree, err
	}
	select {
	case <-s.open:
		return tree, nil
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), tree.Close())
	}
}

// Clients wait for a minute: a large table is restored behind the answer, also if who
// asked has gone, and meanwhile nothing else waits.
func TestALargeTableIsRestoredBehindTheAnswer(t *testing.T) {
	c := clock.NewFake(epoch)
	trees, err := NewMemory(c)
	if err != nil {
		t.Fatal(err)
	}
	defer trees.Close()
	s := &slow{trees, make(chan struct{}, 9)}
	s.open <- struct{}{}
	s.open <- struct{}{}
	r := rigOn(t, s, c)
	r.ok("CreateTable", simpleTable("left"))
	r.ok("CreateTable", simpleTable("right"))
	r.putMany("left", 30)
	arn := r.ok("CreateBackup", `{"TableName":"left","BackupName":"before"}`)["BackupDetails"].(map[string]any)["BackupArn"].(string)
	r.ok("DeleteTable", `{"TableName":"left"}`)
	restore := `{"TargetTableName":"again","BackupArn":"` + arn + `"}`
	status := func() string {
		return r.ok("DescribeTable", `{"TableName":"again"}`)["Table"].(map[string]any)["TableStatus"].(string)
	}
	answered := make(chan map[string]any)
	go func() { answered <- r.ok("RestoreTableFromBackup", restore) }()
	r.until("it has begun", func() bool {
		r.door.mu.Lock()
		defer r.door.mu.Unlock()
		return r.door.making["again"] != nil
	})
	r.until("the answer", func() bool {
		c.Advance(restoreWait)
		select {
		case <-answered:
			return true
		default:
			return false
		}
	})
	if got := status(); got != "CREATING" {
		t.Errorf("it is %s", got)
	}
	if _, text := r.do("RestoreTableFromBackup", restore); !strings.Contains(text, "Table already exists: again") {
		t.Errorf("once more: %s", text)
	}
	if _, text := r.do("Scan", `{"TableName":"again"}`); !strings.Contains(text, "ResourceNotFoundException") {
		t.Errorf("it is read before it is there: %s", text)
	}
	r.ok("PutItem", `{"TableName":"right","Item":{"a":{"S":"x"}}}`)
	s.open <- struct{}{}
	r.until("the table", func() bool { return status() == "ACTIVE" })
	if n := r.count(`{"TableName":"again"}`); n != 30 {
		t.Errorf("it has %v items, want 30", n)
	}

	// A door that is closed meanwhile leaves nothing.
	go r.do("RestoreTableFromBackup", strings.Replace(restore, "again", "third", 1))
	r.until("it has begun", func() bool {
		r.door.mu.Lock()
		defer r.door.mu.Unlock()
		return r.door.making["third"] != nil
	})
	if err := r.door.Close(); err != nil {
		t.Error(err)
	}
	later := rigOn(t, trees, c)
	if names := fmt.Sprint(later.ok("ListTables", `{}`)["TableNames"]); names != "[again right]" {
		t.Errorf("there are %s", names)
	}
}
