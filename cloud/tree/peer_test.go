package tree

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A device has a tree on a store that replicates.
type device struct {
	t     testing.TB
	store *corestore.Store
	own   hypercore.Key
	bees  map[hypercore.Key]*hyperbee.Tree
	tree  *Tree
}

var folderKey = [32]byte{5}

func newDevice(t testing.TB) *device {
	t.Helper()
	store, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	d := &device{t: t, store: store, bees: map[hypercore.Key]*hyperbee.Tree{}, tree: New(Options{})}
	own := d.bee(corestore.LogOptions{Name: "tree"})
	d.own = own.Log().Key()
	t.Cleanup(func() { must(t, d.tree.Close()) })
	must(t, d.tree.Own(own))
	return d
}

func (d *device) bee(o corestore.LogOptions) *hyperbee.Tree {
	d.t.Helper()
	o.Durability = hypercore.Soon
	o.Session.EncryptionKey = &folderKey
	log, err := d.store.Get(o)
	must(d.t, err)
	d.t.Cleanup(func() { must(d.t, log.Close()) })
	bee, err := hyperbee.Open(log, hyperbee.Options{Durability: hypercore.Soon})
	must(d.t, err)
	d.bees[log.Key()] = bee
	return bee
}

// add gives a device the bee of another one.
func (d *device) add(other *device) *hyperbee.Tree {
	d.t.Helper()
	bee := d.bee(corestore.LogOptions{Key: &other.own})
	must(d.t, d.tree.Add(bee, 0))
	return bee
}

func (d *device) put(from, to int, value string) {
	d.t.Helper()
	b, err := d.tree.Batch(context.Background())
	must(d.t, err)
	for i := from; i < to; i++ {
		must(d.t, b.Put(context.Background(), benchKey(nil, i), []byte(value)))
	}
	must(d.t, b.Flush(context.Background()))
}

// download keeps the bees here until stop is called or the test ends.
func (d *device) download() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.tree.Download(ctx); !errors.Is(err, context.Canceled) {
			d.t.Errorf("download ended with %v", err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	d.t.Cleanup(stop)
	return stop
}

// connect replicates until stop is called or the test ends.
func connect(t testing.TB, a, b *device) (stop func()) {
	t.Helper()
	x, y := transport.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		o := secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{1}), KeepAlive: -1}
		if stream, err := secretstream.Server(ctx, x, o); err == nil {
			_ = a.store.Replicate(ctx, stream, corestore.ReplicateOptions{}) // it ends with the test
		}
	})
	running.Go(func() {
		o := secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{2}), KeepAlive: -1}
		if stream, err := secretstream.Client(ctx, y, o); err == nil {
			_ = b.store.Replicate(ctx, stream, corestore.ReplicateOptions{})
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// state is all that a device has.
func (d *device) state() (out []string) {
	d.t.Helper()
	for e, err := range d.tree.RangeAll(context.Background(), hyperbee.RangeOptions{}) {
		must(d.t, err)
		s := ""
		for _, e := range append([]Entry{e}, e.Others...) {
			s += fmt.Sprintf("%s=%s (%d of %s); ", e.Key, e.Value, e.Seq, e.Writer)
		}
		out = append(out, s)
	}
	return out
}

// follows waits until a device has what another one has.
func (d *device) follows(other *device) {
	d.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // of the bubble's time
		if got, want := fmt.Sprint(d.state()), fmt.Sprint(other.state()); got == want {
			return
		} else if time.Now().After(end) {
			d.t.Fatalf("a device has %.300s\nwant %.300s", got, want)
		}
	}
}

func TestTreesFollowOneAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newDevice(t), newDevice(t)
		a.add(b)
		a.put(0, 300, "first")
		b.put(290, 310, "other")
		a.download()
		b.download()
		b.add(a) // after its download has begun
		told := make(chan struct{}, 1)
		stop := b.tree.Notify(func() {
			select {
			case told <- struct{}{}:
			default:
			}
		})
		cut := connect(t, a, b)
		<-told
		a.follows(b)
		b.follows(a)
		if n := len(b.state()); n != 310 {
			t.Errorf("%d entries", n)
		}
		a.put(300, 305, "mine")
		a.put(305, 400, "second")
		b.follows(a)
		stop()
		cut()
		a.put(0, 50, "apart")
		b.put(40, 90, "apart, too")
		c := newDevice(t)
		c.add(a)
		c.add(b)
		c.download()
		synctest.Wait()
		if len(c.state()) > 0 {
			t.Error("a device has what it can't")
		}
		connect(t, a, b)
		connect(t, c, b) // which has a's bee
		a.follows(b)
		c.follows(a)
		a.follows(c)
	})
}

// A device that knows how much there is, and found nobody to bring it, looks again.
func TestDownloadLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		a, b := newDevice(t), newDevice(t)
		a.put(0, 100, "x")
		bee := b.add(a)
		proof, err := a.bees[a.own].Log().Prove(ctx, merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: 101}}, true)
		must(t, err)
		_, err = bee.Log().Apply(ctx, hypercore.Soon, proof)
		must(t, err)
		if b.tree.Missing() != 101 {
			t.Errorf("%d blocks are missing", b.tree.Missing())
		}
		b.download()
		synctest.Wait()
		connect(t, a, b)
		b.follows(a)
		if b.tree.Missing() != 0 {
			t.Errorf("%d blocks are missing", b.tree.Missing())
		}
	})
}

// Of a writer that is cut, no more is brought.
func TestDownloadHeedsTheCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		a, b := newDevice(t), newDevice(t)
		a.put(0, 10, "x")
		v, err := a.tree.Version(ctx)
		must(t, err)
		a.put(10, 20, "x")
		bee := b.add(a)
		must(t, b.tree.Add(bee, v[a.own]))
		b.download()
		connect(t, a, b)
		time.Sleep(time.Minute)
		if n, held := len(b.state()), bee.Log().Contiguous(); n != 10 || held != 11 {
			t.Errorf("%d entries, %d blocks", n, held)
		}
		must(t, b.tree.Add(bee, 0))
		b.follows(a)
	})
}
