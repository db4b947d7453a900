package hyperblobs

import (
	"context"
	"errors"
	"testing"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// A connecting source brings the head, and then goes on making connections.
type connecting struct {
	hypercore.Source
	near, far *hypercore.Log
}

func (c *connecting) FetchHead(ctx context.Context) error {
	p, err := c.near.Prove(ctx, merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: c.near.Length()}}, true)
	if err != nil {
		return err
	}
	if _, err := c.far.Apply(ctx, hypercore.Soon, p); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestBlobIsReadWhileConnectionsAreMade(t *testing.T) {
	open := func(o corestore.LogOptions) *hypercore.Log {
		store, err := corestore.Open(storage.NewMemory(), corestore.Options{})
		must(t, err)
		t.Cleanup(func() { must(t, store.Close()) })
		log, err := store.Get(o)
		must(t, err)
		t.Cleanup(func() { must(t, log.Close()) })
		return log
	}
	near := open(corestore.LogOptions{Name: "blobs"})
	key := near.Key()
	far := open(corestore.LogOptions{Key: &key})
	far.SetSource(&connecting{near: near, far: far})
	id, err := New(near, Options{}).Put(t.Context(), []byte("hello"))
	must(t, err)
	b := New(far, Options{})
	if n, err := b.Missing(t.Context(), id); n != 1 || err != nil {
		t.Errorf("%d blocks are missing (%v), want 1", n, err)
	}
	// What is yet to come is waited for as long as connections are made.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	id.BlockOffset, id.ByteOffset = 1, 5
	if _, err := b.Missing(ctx, id); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was canceled", err)
	}
}
