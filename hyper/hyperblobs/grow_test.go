package hyperblobs

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
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
	if err := c.bring(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// bring makes the head of near that of far.
func (c *connecting) bring(ctx context.Context) error {
	p, err := c.near.Prove(ctx, merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: c.near.Length()}}, true)
	if err != nil {
		return err
	}
	_, err = c.far.Apply(ctx, hypercore.Soon, p)
	return err
}

// connectedLogs are a log and one of the same key elsewhere.
func connectedLogs(t *testing.T) (near, far *hypercore.Log) {
	open := func(o corestore.LogOptions) *hypercore.Log {
		store, err := corestore.Open(storage.NewMemory(), corestore.Options{})
		must(t, err)
		t.Cleanup(func() { must(t, store.Close()) })
		log, err := store.Get(o)
		must(t, err)
		t.Cleanup(func() { must(t, log.Close()) })
		return log
	}
	near = open(corestore.LogOptions{Name: "blobs"})
	key := near.Key()
	return near, open(corestore.LogOptions{Key: &key})
}

func TestBlobIsReadWhileConnectionsAreMade(t *testing.T) {
	near, far := connectedLogs(t)
	far.SetSource(&connecting{near: near, far: far})
	id, err := New(near, Options{}).Put(t.Context(), []byte("hello"))
	must(t, err)
	b := New(far, Options{})
	if n, err := b.Missing(t.Context(), id); n != 1 || err != nil {
		t.Errorf("%d blocks are missing (%v), want 1", n, err)
	}
	if _, err := b.NewReader(t.Context(), id); err != nil {
		t.Error(err)
	}
	// What is yet to come is waited for as long as connections are made.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	id.BlockOffset, id.ByteOffset = 1, 5
	if _, err := b.NewReader(ctx, id); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was canceled", err)
	}
}

// A late source has peers that tell of nothing yet.
type late struct{ hypercore.Source }

func (late) FetchHead(context.Context) error { return nil }

// An entry may come before the news of the blocks it speaks of.
func TestBlobIsWaitedForWhileItsLogIsNotKnown(t *testing.T) {
	near, far := connectedLogs(t)
	far.SetSource(late{})
	ctx := t.Context()
	id, err := New(near, Options{}).Put(ctx, []byte("hello"))
	must(t, err)
	fake := clock.NewFake(time.UnixMilli(0))
	b := New(far, Options{Clock: fake})
	if has, err := b.Has(ctx, id); has || err != nil {
		t.Errorf("has what is not known: %v, error %v", has, err)
	}
	read := make(chan error)
	begin := func() {
		go func() {
			_, err := b.NewReader(ctx, id)
			read <- err
		}()
		for fake.Waiting() == 0 {
			runtime.Gosched()
		}
	}
	begin()
	fake.Advance(patience)
	if err := <-read; !errors.Is(err, ErrInvalid) || !errors.Is(err, hypercore.ErrNotFound) {
		t.Errorf("nobody tells of it: got %v", err)
	}
	begin()
	must(t, (&connecting{near: near, far: far}).bring(ctx))
	if err := <-read; err != nil {
		t.Errorf("it is told of: got %v", err)
	}
	far.SetSource(nil)
	if _, err := b.NewReader(ctx, ID{BlockOffset: 7, BlockLength: 1, ByteLength: 1}); !errors.Is(err, ErrInvalid) {
		t.Errorf("nobody is there: got %v", err)
	}
}
