package node

import (
	"os"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

func TestANodeStartsOnAFullDiskByItsReserve(t *testing.T) {
	var free uint64 = 1 << 30
	c := clock.NewFake(time.Unix(1e9, 0))
	notices := &Notices{clock: c, publish: func(string, any) {}, all: map[noticeID]client.Notice{}}
	open := func() *reserve {
		r := newReserve(Paths{Data: t.TempDir()}, c)
		r.size, r.free = 64<<10, func(string) (uint64, error) { return free, nil }
		return r
	}
	has := func(r *reserve) bool {
		info, err := os.Stat(r.path)
		return err == nil && info.Size() == r.size
	}

	r := open()
	r.giveUp()
	r.begin(notices)
	if has(r) {
		t.Error("the reserve is made while the node starts")
	}
	c.Advance(reserveEvery)
	if !has(r) || len(notices.List()) != 0 {
		t.Fatalf("with room there is a reserve: %v, and notices: %v", has(r), notices.List())
	}
	r.giveUp()
	if !has(r) {
		t.Error("the reserve is gone though there is room")
	}
	r.close()

	free = 0
	r.giveUp()
	if has(r) {
		t.Fatal("the reserve is still there on a full disk")
	}

	r = open()
	r.begin(notices)
	if list := notices.List(); len(list) != 1 || list[0].Code != "disk-full" || list[0].Severity != client.Problem {
		t.Fatalf("the notices of a full disk: %v", list)
	}
	c.Advance(reserveEvery)
	if _, err := os.Stat(r.path); err == nil {
		t.Error("the reserve takes the last room")
	}
	free = 1 << 30
	c.Advance(reserveEvery)
	if !has(r) || len(notices.List()) != 0 {
		t.Errorf("with room again there is a reserve: %v, and notices: %v", has(r), notices.List())
	}
	r.close()

	free = 0
	r = open()
	r.begin(notices)
	r.close()
	free = 1 << 30
	c.Advance(2 * reserveEvery)
	if has(r) {
		t.Error("a node that has ended makes its reserve")
	}
}
