package home

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
)

type page struct {
	Count            int
	LastEvaluatedKey map[string]any `json:",omitempty"`
}

// scan reads a page of a table as it was.
func (m *machine) scan(table string, at time.Time, limit int, from map[string]any) (p page, err error) {
	in := map[string]any{"TableName": table, "Limit": limit}
	if from != nil {
		in["ExclusiveStartKey"] = from
	}
	return p, m.DynamoDBAt(m.t.Context(), "", at, "Scan", in, &p)
}

// Who reads much does so on another machine, of one version, while the one that writes
// goes on or is off; and begins no log of its own by that.
func TestAReplicaIsReadAtOneVersionWhileItsWriterGoesOn(t *testing.T) {
	net := network(t)
	a, b := newMachine(t, net, "laptop"), newMachine(t, net, "attic")
	db := dynamodb.NewFromConfig(sdk(a.environment("")))
	makeTable(t, db, "things")
	const items = 40
	for i := range items {
		putID(t, db, "things", fmt.Sprint("first ", i))
	}
	a.pair(b)
	var at time.Time
	b.wait("the items", func() bool {
		at = time.Now()
		p, err := b.scan("things", at, 1000, nil)
		return err == nil && p.Count == items
	})
	// Each page comes after more was written, and has come here.
	read, pages := 0, 0
	for from := map[string]any(nil); ; pages++ {
		p, err := b.scan("things", at, 9, from)
		if err != nil {
			t.Fatal(err)
		}
		if read += p.Count; p.LastEvaluatedKey == nil {
			break
		}
		from = p.LastEvaluatedKey
		putID(t, db, "things", fmt.Sprint("later ", pages))
		b.wait("another item", func() bool {
			p, err := b.scan("things", time.Now(), 1000, nil)
			return err == nil && p.Count == items+pages+1
		})
	}
	if read != items || pages < 4 {
		t.Errorf("%d items were read in %d pages, and %d were there", read, pages, items)
	}
	if n := len(b.home.now().pastDoors()); n > maxPasts {
		t.Errorf("%d doors are open", n)
	}

	a.down()
	if p, err := b.scan("things", at, 1000, nil); err != nil || p.Count != items {
		t.Errorf("while the writer is off: %+v, %v", p, err)
	}
	err := b.DynamoDBAt(t.Context(), "", at, "PutItem", map[string]any{"TableName": "things", "Item": map[string]any{"id": map[string]string{"S": "x"}}}, nil)
	var told *client.Error
	if !errors.As(err, &told) || told.Code != client.CodeUsage || told.Cause != "Tables as they were can be read and not changed" {
		t.Errorf("a write to what was: %v", err)
	}
	s := b.home.now()
	for _, info := range s.cloud.Spaces(cloud.Table) {
		space, err := s.cloud.Space(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		if written(space) {
			t.Errorf("%s was only read, and this machine writes there", info.Name)
		}
	}
}

// pastDoors are those that are open.
func (s *session) pastDoors() []*past {
	d := s.home.doorsOf(s)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pasts
}
