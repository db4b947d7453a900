package home

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/cloudbevy/bevy/hyper/clock"
	store "github.com/cloudbevy/bevy/services/s3/objects"
)

// What expires does so though no program asks for anything since the node's start.
func TestWhatIsDueIsDoneUnasked(t *testing.T) {
	clk := clock.NewFake(time.Now())
	m := &machine{t: t, name: "laptop", dir: t.TempDir(), data: t.TempDir(), clock: clk}
	m.up()
	t.Cleanup(func() { m.down() })
	e := m.environment("")
	db, objects := dynamodb.NewFromConfig(sdk(e)), buckets(e)
	makeTable(t, db, "things")
	if _, err := db.UpdateTimeToLive(t.Context(), &dynamodb.UpdateTimeToLiveInput{TableName: aws.String("things"),
		TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String("until"), Enabled: aws.Bool(true)}}); err != nil {
		t.Fatal(err)
	}
	until := strconv.FormatInt(clk.Now().Add(time.Hour).Unix(), 10)
	if _, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("things"), Item: map[string]types.AttributeValue{
		"id": &types.AttributeValueMemberS{Value: "one"}, "until": &types.AttributeValueMemberN{Value: until}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("shelf")}); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.PutBucketLifecycleConfiguration(t.Context(), &s3.PutBucketLifecycleConfigurationInput{Bucket: aws.String("shelf"),
		LifecycleConfiguration: &s3types.BucketLifecycleConfiguration{Rules: []s3types.LifecycleRule{{
			ID: aws.String("old"), Status: "Enabled", Filter: &s3types.LifecycleRuleFilter{Prefix: aws.String("")}, Expiration: &s3types.LifecycleExpiration{Days: aws.Int32(1)}}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("shelf"), Key: aws.String("a"), Body: bytes.NewReader([]byte("a"))}); err != nil {
		t.Fatal(err)
	}
	m.down()

	clk.Advance(3 * 24 * time.Hour)
	m.up()
	doors := func() *doors {
		m.home.mu.Lock()
		defer m.home.mu.Unlock()
		return m.home.services
	}
	if doors() != nil {
		t.Fatal("the doors are open already")
	}
	left := func() (items, things int) {
		d := doors()
		if d == nil {
			return -1, -1
		}
		d.mu.Lock()
		tables, shelves := d.dynamo[""], d.s3
		d.mu.Unlock()
		if tables == nil || shelves == nil {
			return -1, -1
		}
		out, err := tables.Call(t.Context(), "Scan", []byte(`{"TableName":"things"}`))
		if err != nil {
			t.Fatal(err)
		}
		b, err := shelves.Store().Open(t.Context(), "", "shelf")
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		page, err := b.List(t.Context(), store.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(out, []byte(`"one"`)), len(page.Objects)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // of the machine
	defer cancel()
	began := clk.Now()
	for {
		if items, things := left(); items == 0 && things == 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(left())
		}
		if clk.Now().Sub(began) < 5*time.Minute {
			clk.Advance(time.Second)
		}
		runtime.Gosched()
	}
	// That it was done is written down.
	var at time.Time
	for at.IsZero() && ctx.Err() == nil {
		var err error
		if at, err = m.home.tidied(); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	if at.Before(began) {
		t.Errorf("tidied at %v", at)
	}
	if err := os.WriteFile(m.home.dir+"/"+tidiedFile, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if at, err := m.home.tidied(); err != nil || !at.IsZero() {
		t.Errorf("of a file that makes no sense: %v, %v", at, err)
	}
}

// A machine without tables and buckets has no doors open.
func TestDoorsAreNotOpenedForNothing(t *testing.T) {
	clk := clock.NewFake(time.Now())
	m := &machine{t: t, name: "laptop", dir: t.TempDir(), data: t.TempDir(), clock: clk}
	m.up()
	t.Cleanup(func() { m.down() })
	m.write("f/a.txt", "hello")
	m.add("f", "")
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.home.now().tend()
	}()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
			clk.Advance(time.Second)
			runtime.Gosched()
		}
	}
	m.home.mu.Lock()
	defer m.home.mu.Unlock()
	if m.home.services != nil {
		t.Error("doors were opened")
	}
}
