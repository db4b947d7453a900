package objects

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// benchBucket opens a bucket on a disk.
func benchBucket(b *testing.B) *Bucket {
	engine, err := storage.Disk{Dir: b.TempDir()}.Open()
	must(b, err)
	logs, err := corestore.Open(engine, corestore.Options{})
	must(b, err)
	spaces, err := NewLocal(logs, clock.System)
	must(b, err)
	store := New(Options{Spaces: spaces})
	bucket, err := store.Make(b.Context(), "", "bench", false)
	must(b, err)
	b.Cleanup(func() {
		must(b, bucket.Close())
		must(b, store.Close())
		must(b, spaces.Close())
		must(b, logs.Close())
	})
	return bucket
}

func fillBucket(b *testing.B, bucket *Bucket, n int) {
	data := random(4<<10, 1)
	var list []*job
	for i := range n {
		j := &job{data: data}
		key := fmt.Sprintf("dir%03d/object-%06d", i%100, i)
		j.run = func(x *tx) error {
			_, err := x.put(key, j.ref, attributes{md5: data[:16]}, Conditions{})
			return err
		}
		if list = append(list, j); len(list) == 1000 || i == n-1 {
			must(b, bucket.commit(b.Context(), list))
			list = nil
		}
	}
}

// Clients that put 4 KiB objects at the same time.
func BenchmarkPutSmall(b *testing.B) {
	bucket := benchBucket(b)
	data := random(4<<10, 1)
	var n atomic.Int64
	b.SetParallelism(8) // of two processors
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			_, err := bucket.Put(b.Context(), fmt.Sprintf("dir%03d/object-%06d", i%100, i), bytes.NewReader(data), PutOptions{Meta: Meta{ContentType: "application/octet-stream"}})
			must(b, err)
		}
	})
}

func BenchmarkGetSmall(b *testing.B) {
	bucket := benchBucket(b)
	const count = 10_000
	fillBucket(b, bucket, count)
	var n atomic.Int64
	b.ResetTimer()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(7) % count
			o, err := bucket.Head(b.Context(), fmt.Sprintf("dir%03d/object-%06d", i%100, i), "")
			must(b, err)
			_, err = bucket.Read(b.Context(), o, 1<<20)
			must(b, err)
		}
	})
}

const bigBytes = 64 << 20

func BenchmarkPutBig(b *testing.B) {
	bucket := benchBucket(b)
	data := random(bigBytes, 1)
	b.SetBytes(bigBytes)
	for i := range b.N {
		data[i%len(data)]++
		_, err := bucket.Put(b.Context(), fmt.Sprint("big", i), bytes.NewReader(data), PutOptions{})
		must(b, err)
	}
}

func BenchmarkGetBig(b *testing.B) {
	bucket := benchBucket(b)
	_, err := bucket.Put(b.Context(), "big", bytes.NewReader(random(bigBytes, 1)), PutOptions{})
	must(b, err)
	b.SetBytes(bigBytes)
	b.ResetTimer()
	for range b.N {
		o, err := bucket.Head(b.Context(), "big", "")
		must(b, err)
		r, err := bucket.Open(b.Context(), o)
		must(b, err)
		_, err = io.Copy(io.Discard, r)
		must(b, err)
	}
}

// A list of 100,000 keys, 1,000 at a time.
func BenchmarkList(b *testing.B) {
	bucket := benchBucket(b)
	fillBucket(b, bucket, 100_000)
	b.ResetTimer()
	for range b.N {
		n := 0
		for o := (ListOptions{}); ; {
			p, err := bucket.List(b.Context(), o)
			must(b, err)
			n += len(p.Objects)
			if o.After = p.Next; !p.More {
				break
			}
		}
		if n != 100_000 {
			b.Fatalf("%d keys", n)
		}
	}
}
