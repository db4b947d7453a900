package folder

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A connected device has its logs in a corestore that replicates.
type connected struct {
	*Folder
	store *corestore.Store
	add   func() // the other's content log
}

// newConnected opens device n of 2. With late, it does not know of the other's
// content log yet.
func newConnected(t *testing.T, n byte, late bool) *connected {
	t.Helper()
	store, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	log := func(m byte, what string) *hypercore.Log {
		kp := keyPair(m, what)
		o := corestore.LogOptions{Manifest: hypercore.SingleSigner(kp.Public), Session: hypercore.SessionOptions{EncryptionKey: &secret}}
		if m == n {
			o = corestore.LogOptions{KeyPair: &kp, Session: o.Session}
		}
		l, err := store.Get(o)
		must(t, err)
		t.Cleanup(func() { must(t, l.Close()) })
		return l
	}
	d := &connected{store: store}
	entries, contents := tree.New(tree.Options{}), content.New(content.Options{})
	for m := byte(1); m <= 2; m++ {
		bee, err := hyperbee.Open(log(m, "tree"), hyperbee.Options{Cache: hyperbee.NewCache(1 << 20)})
		must(t, err)
		if m == n {
			must(t, entries.Own(bee))
			must(t, contents.Own(log(m, "content")))
			continue
		}
		must(t, entries.Add(bee, 0))
		other := log(m, "content")
		d.add = func() { must(t, contents.Add(other, 0)) }
		if !late {
			d.add()
		}
	}
	t.Cleanup(func() { must(t, entries.Close()) })
	d.Folder = New(entries, contents, Options{Device: nameOf})
	return d
}

// Two devices that are connected have each other's files by themselves, one all of
// their contents, the other what it reads.
func TestConnectedDevicesExchangeFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newConnected(t, 1, false), newConnected(t, 2, true)
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		t.Cleanup(func() { // before the stores are closed
			cancel()
			running.Wait()
		})
		// What nobody has keeps nothing else from being fetched.
		lost := strings.Repeat("lost", 1000)
		must(t, a.Put(ctx, "/lost", strings.NewReader(lost), PutOptions{}))
		_, err := a.Evict(ctx, "/lost")
		must(t, err)
		x, y := transport.Pipe()
		running.Go(func() {
			o := secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{1}), KeepAlive: -1}
			if stream, err := secretstream.Server(ctx, x, o); err == nil {
				_ = a.store.Replicate(ctx, stream, corestore.ReplicateOptions{}) // it ends with the test
			}
		})
		running.Go(func() {
			o := secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{2}), KeepAlive: -1}
			if stream, err := secretstream.Client(ctx, y, o); err == nil {
				_ = b.store.Replicate(ctx, stream, corestore.ReplicateOptions{}) // it ends with the test
			}
		})
		for _, d := range []*connected{a, b} {
			running.Go(func() { _ = d.tree.Download(ctx) })
		}
		running.Go(func() { _ = b.Fetch(ctx) })

		// The log of a content may become known after what names it.
		must(t, a.Put(ctx, "/first", strings.NewReader("first"), PutOptions{}))
		synctest.Wait()
		if n, err := b.Missing(ctx, "/first"); n != 5 || err != nil {
			t.Errorf("%d bytes are missing (%v), want all", n, err)
		}
		b.add()
		synctest.Wait()
		time.Sleep(3 * fetchPatience) // of the bubble
		if n, err := b.Missing(ctx, "/first"); n != 0 || err != nil {
			t.Errorf("%d bytes are missing (%v), want none", n, err)
		}
		big := strings.Repeat("all work and no play ", 50_000)
		must(t, a.Put(ctx, "/big", strings.NewReader(big), PutOptions{}))
		must(t, a.Put(ctx, "/small", strings.NewReader("small"), PutOptions{}))
		synctest.Wait()
		if n, err := b.Missing(ctx, "/"); n != int64(len(lost)) || err != nil {
			t.Errorf("%d bytes are missing (%v), want those that nobody has", n, err)
		}
		want(t, "b's /big", read2(t, b, "/big") == big, true)
		must(t, b.Put(ctx, "/big", strings.NewReader("x"+big), PutOptions{}))
		synctest.Wait()
		if n, err := a.Missing(ctx, "/big"); n == 0 || err != nil {
			t.Errorf("%d bytes are missing at a, which does not fetch (%v)", n, err)
		}
		want(t, "a's /big", read2(t, a, "/big") == "x"+big, true)

		// What is being written comes before anything names it.
		held := func() (n int) {
			log := b.content.Logs()[1]
			for i := range log.Length() {
				if log.Has(i) {
					n++
				}
			}
			return n
		}
		before := held()
		w, err := a.Create(ctx, "/long", PutOptions{})
		must(t, err)
		data := make([]byte, 6<<20)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
		_, err = w.Write(data)
		must(t, err)
		synctest.Wait()
		if n := held() - before; n < 30 {
			t.Errorf("%d blocks came while the file was being written", n)
		}
		must(t, w.Close())
		synctest.Wait()
		if n, err := b.Missing(ctx, "/long"); n != 0 || err != nil {
			t.Errorf("%d bytes are missing (%v)", n, err)
		}
	})
}

func read2(t *testing.T, d *connected, path string) string {
	t.Helper()
	data, err := d.ReadFile(t.Context(), path, 1<<30)
	must(t, err)
	return string(data)
}
