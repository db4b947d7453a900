package hyperdrive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// connect replicates two stores until the test ends.
func connect(t testing.TB, a, b *corestore.Store) {
	t.Helper()
	x, y := transport.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
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
	t.Cleanup(func() {
		found()
		cancel()
		running.Wait()
	})
}

// held is how many blocks of a log are here.
func held(log *hypercore.Log) (n uint64) {
	for i := range log.Length() {
		if log.Has(i) {
			n++
		}
	}
	return n
}

func TestDrivesOfOthersAreReadSparsely(t *testing.T) {
	for name, o := range map[string]Options{
		"plain":     {},
		"encrypted": {EncryptionKey: &[32]byte{5}},
		"compat":    {Compat: true},
		"dedup":     {Dedup: true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			stores := []*corestore.Store{openStore(t, storage.NewMemory(), 'a'), openStore(t, storage.NewMemory(), 'b')}
			o.Durability = hypercore.Soon
			writer := openDrive(t, stores[0], o)
			b, err := writer.Batch(ctx)
			must(t, err)
			for i := range 400 {
				must(t, b.Put(ctx, fmt.Sprintf("/dir%d/file%03d", i%7, i), bytes.Repeat([]byte{byte(i)}, 1000+i), PutOptions{}))
			}
			must(t, b.Flush(ctx))
			big := make([]byte, 3<<20)
			_, err = rand.NewChaCha8([32]byte{1}).Read(big)
			must(t, err)
			f, err := writer.Create(ctx, "/big", PutOptions{})
			must(t, err)
			_, err = f.ReadFrom(bytes.NewReader(big))
			must(t, err)
			must(t, f.Close())

			connect(t, stores[0], stores[1])
			key := writer.Key()
			reader := openDrive(t, stores[1], Options{Key: &key, EncryptionKey: o.EncryptionKey})
			must(t, reader.Update(ctx))
			got, err := reader.ReadFile(ctx, "/dir3/file101")
			if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{101}, 1101)) {
				t.Fatalf("got %d bytes and error %v", len(got), err)
			}
			blobs, err := reader.Blobs(ctx)
			must(t, err)
			// Nodes on the way are kept with the keys and children beside them.
			if db, content := held(reader.Tree().Log()), held(blobs.Log()); db > 200 || content != 1 {
				t.Errorf("%d blocks of entries and %d of contents were fetched for one file", db, content)
			}
			e, err := reader.Entry(ctx, "/big")
			must(t, err)
			r, err := reader.OpenFile(ctx, e)
			must(t, err)
			part := make([]byte, 100)
			if _, err := r.ReadAt(part, 2<<20); err != nil || !bytes.Equal(part, big[2<<20:2<<20+100]) {
				t.Errorf("in the middle of a file: got %x and error %v", part, err)
			}
			must(t, r.Close())
			if name != "dedup" && held(blobs.Log()) != 2 {
				t.Errorf("%d blocks of contents were fetched, want 2", held(blobs.Log()))
			}
			if has, err := reader.Has(ctx, "/dir3"); err != nil || has {
				t.Errorf("has all of a folder: got %v and error %v", has, err)
			}
			var last Progress
			must(t, reader.Download(ctx, "/dir3", func(p Progress) { last = p }))
			if has, err := reader.Has(ctx, "/dir3"); err != nil || !has || last.Files != 57 || last.Blocks != 56 {
				t.Errorf("after a download: has %v, error %v, progress %+v", has, err, last)
			}
			if has, _ := reader.Has(ctx, "/big"); has {
				t.Error("another file came, too")
			}
			must(t, reader.Download(ctx, "/", nil))
			if got, err := reader.ReadFile(ctx, "/big"); err != nil || !bytes.Equal(got, big) {
				t.Errorf("the big file: got %d bytes and error %v", len(got), err)
			}
			if blobs.Log().Contiguous() != blobs.Log().Length() {
				t.Error("not all contents are here")
			}
			version := reader.Version()
			freed, err := reader.Clear(ctx, "/big")
			if err != nil || freed.Bytes < 1000 {
				t.Errorf("cleared %+v, error %v", freed, err)
			}

			// Changes come by themselves.
			write(t, writer, "/dir3/new", "new")
			must(t, writer.Delete(ctx, "/dir3/file101"))
			var seen []string
			for diff, err := range reader.Watch(ctx, version, "/dir3") {
				must(t, err)
				what := "+" + diff.Path()
				if diff.Left == nil {
					what = "-" + diff.Path()
				}
				if seen = append(seen, what); len(seen) == 2 {
					break
				}
			}
			slices.Sort(seen)
			if got := strings.Join(seen, " "); got != "+/dir3/new -/dir3/file101" {
				t.Errorf("watched %s", got)
			}
			must(t, reader.DownloadDiff(ctx, version, "", nil))
			if has, err := reader.Has(ctx, "/dir3/new"); err != nil || !has {
				t.Errorf("has what is new: got %v and error %v", has, err)
			}
			old, err := reader.Checkout(version)
			must(t, err)
			defer old.Close()
			if _, err := old.Entry(ctx, "/dir3/file101"); err != nil {
				t.Errorf("the old version: %v", err)
			}
			if _, err := reader.Entry(ctx, "/dir3/file101"); !errors.Is(err, ErrNotFound) {
				t.Errorf("the new version: got %v", err)
			}
			if err := reader.Put(ctx, "/mine", nil, PutOptions{}); !errors.Is(err, hypercore.ErrNotWritable) {
				t.Errorf("put into somebody else's drive: got %v", err)
			}
		})
	}
}
