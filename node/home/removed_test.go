package home

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/cloudbevy/bevy/client"
)

// removedIDs are the ids of what was removed, by kind and name.
func (m *machine) removedIDs() map[string]string {
	m.t.Helper()
	var list client.RemovedThings
	m.do("GET", "/removed", nil, &list)
	out := map[string]string{}
	for _, r := range list.Removed {
		out[r.Kind+" "+r.Name] = r.ID
	}
	return out
}

// What a program removes at one machine comes back at another one, and then is there on
// both: to programs, too.
func TestWhatWasRemovedComesBackOnAllMachines(t *testing.T) {
	net := network(t)
	a, b := newMachine(t, net, "laptop"), newMachine(t, net, "attic")
	a.pair(b)
	e := a.environment("")
	here, db := buckets(e), dynamodb.NewFromConfig(sdk(e))
	bucket, table := "photos", "things"
	if _, err := here.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	putObject(t, here, bucket, "a.txt", "hello")
	makeTable(t, db, table)
	putID(t, db, table, "one")
	b.until("the key", func() bool { return b.environment("").AccessKey == e.AccessKey })
	away, there := buckets(b.environment("")), dynamodb.NewFromConfig(sdk(b.environment("")))
	b.wait("the object", func() bool { return object(t, away, bucket, "a.txt") == "hello" })
	b.wait("the item", func() bool { return ids(t, there, table) == 1 })

	key := "a.txt"
	if _, err := here.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key}); err != nil {
		t.Fatal(err)
	}
	if _, err := here.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: &table}); err != nil {
		t.Fatal(err)
	}
	if n := ids(t, db, table); n != -1 {
		t.Fatalf("a table that was deleted has %d items", n)
	}
	b.wait("the end of both", func() bool {
		list := b.removedIDs()
		return list["folder photos"] != "" && list["table things"] != "" && ids(t, there, table) == -1
	})
	for _, what := range []string{"folder photos", "table things"} {
		b.do("POST", "/removed/"+b.removedIDs()[what], client.BringBack{}, nil)
	}
	if n := ids(t, there, table); n != 1 {
		t.Errorf("the table is back with %d items, want 1", n)
	}
	a.wait("the table", func() bool { return ids(t, db, table) == 1 })
	putID(t, db, table, "two")
	b.wait("another item", func() bool { return ids(t, there, table) == 2 })
	a.wait("the bucket", func() bool {
		var list client.Entries
		return a.Do(t.Context(), "GET", "/folders/photos/history?path=/a.txt", nil, &list) == nil && len(list.Entries) == 2
	})
	putObject(t, here, bucket, "b.txt", "again")
	b.wait("another object", func() bool { return object(t, away, bucket, "b.txt") == "again" })
	if list := a.removedIDs(); len(list) > 0 {
		t.Errorf("there is still removed: %v", list)
	}
}
