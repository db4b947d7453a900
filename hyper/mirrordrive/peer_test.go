package mirrordrive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// delay carries bytes from one end to another, each so much later.
func delay(from io.Reader, to io.WriteCloser, by time.Duration) {
	type part struct {
		data []byte
		due  time.Time
	}
	parts := make(chan part, 1<<16)
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		defer to.Close()
		for p := range parts {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				for range parts { // until the reader has ended, too
				}
				return
			}
		}
	})
	defer close(parts)
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			parts <- part{bytes.Clone(buf[:n]), time.Now().Add(by)}
		}
		if err != nil {
			return
		}
	}
}

// connect replicates two stores over a line that is slow to answer, until the
// function that it returns is called.
func connect(t *testing.T, a, b *corestore.Store, oneWay time.Duration) (stop func()) {
	t.Helper()
	x, near := transport.Pipe()
	far, y := transport.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { delay(near, far, oneWay) })
	running.Go(func() { delay(far, near, oneWay) })
	found := b.FindingPeers()
	running.Go(func() {
		o := secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{1}), KeepAlive: -1}
		if stream, err := secretstream.Server(ctx, x, o); err == nil {
			_ = a.Replicate(ctx, stream, corestore.ReplicateOptions{}) // it ends with the test
		}
	})
	running.Go(func() {
		o := secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{2}), KeepAlive: -1}
		if stream, err := secretstream.Client(ctx, y, o); err == nil {
			_ = b.Replicate(ctx, stream, corestore.ReplicateOptions{Attached: func(*protomux.Mux) { found() }})
		}
	})
	return func() {
		found()
		cancel()
		running.Wait()
	}
}

// A drive far away is mirrored in a few round trips, not in one for each file.
func TestFilesOfPeersAreFetchedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const files, roundTrip = 300, 100 * time.Millisecond
		ctx := t.Context()
		source, err := corestore.Open(storage.NewMemory(), corestore.Options{})
		must(t, err)
		defer func() { must(t, source.Close()) }()
		writer, err := hyperdrive.Open(source, hyperdrive.Options{Durability: hypercore.Soon})
		must(t, err)
		defer func() { must(t, writer.Close()) }()
		target := newDrive(t)
		b, err := writer.Batch(ctx)
		must(t, err)
		for i := range files {
			must(t, b.Put(ctx, fmt.Sprintf("/dir%d/%03d", i%5, i), fmt.Append(nil, i), hyperdrive.PutOptions{}))
		}
		must(t, b.Flush(ctx))

		store, err := corestore.Open(storage.NewMemory(), corestore.Options{})
		must(t, err)
		defer func() { must(t, store.Close()) }()
		key := writer.Key()
		reader, err := hyperdrive.Open(store, hyperdrive.Options{Key: &key, Durability: hypercore.Soon})
		must(t, err)
		defer func() { must(t, reader.Close()) }()
		defer connect(t, source, store, roundTrip/2)()
		must(t, reader.Update(ctx))

		start := time.Now()
		_, total := run(t, Drive(reader), Drive(target), Options{})
		if took := time.Since(start); took > files*roundTrip/6 {
			t.Errorf("%d files took %v, which is %d round trips", files, took, took/roundTrip)
		}
		if total.Add != files {
			t.Errorf("got %+v, want %d files", total, files)
		}
		wantSame(t, Drive(writer), Drive(target))
	})
}
