package hyperblobs

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

const benchBytes = 64 << 20

// diskBlobs returns blobs of a log on the disk.
func diskBlobs(b *testing.B, o Options) *Blobs {
	e, err := storage.Disk{Dir: b.TempDir()}.Open()
	must(b, err)
	store, err := storage.Open(e, storage.Options{})
	must(b, err)
	b.Cleanup(func() { store.Close() })
	kp := hypercore.NewKeyPair([32]byte{1})
	log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
	must(b, err)
	b.Cleanup(func() { log.Close() })
	return New(log, o)
}

func BenchmarkPut(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"1KiB", 1 << 10}, {"64MiB", benchBytes}} {
		b.Run(c.name, func(b *testing.B) {
			blobs := diskBlobs(b, Options{Durability: hypercore.Soon})
			data := randomBytes(rand.New(rand.NewPCG(1, 2)), c.size)
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			for b.Loop() {
				_, err := blobs.Put(context.Background(), data)
				must(b, err)
			}
		})
	}
}

// Those who put at the same time share the syncs.
func BenchmarkPutDurablyTogether(b *testing.B) {
	blobs := diskBlobs(b, Options{})
	data := randomBytes(rand.New(rand.NewPCG(1, 2)), 1<<10)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := blobs.Put(context.Background(), data); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	for _, c := range []struct {
		name string
		o    WriteOptions
	}{{"plain", WriteOptions{}}, {"dedup", WriteOptions{Dedup: true}}} {
		b.Run(c.name, func(b *testing.B) {
			blobs := diskBlobs(b, Options{})
			data := randomBytes(rand.New(rand.NewPCG(1, 2)), benchBytes)
			b.SetBytes(benchBytes)
			b.ReportAllocs()
			for b.Loop() {
				w := blobs.NewWriter(context.Background(), c.o)
				_, err := w.ReadFrom(bytes.NewReader(data))
				must(b, err)
				must(b, w.Close())
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	blobs := diskBlobs(b, Options{})
	data := randomBytes(rand.New(rand.NewPCG(1, 2)), benchBytes)
	id, err := blobs.Put(context.Background(), data)
	must(b, err)
	b.Run("whole", func(b *testing.B) {
		b.SetBytes(benchBytes)
		b.ReportAllocs()
		for b.Loop() {
			_, err := blobs.Get(context.Background(), id)
			must(b, err)
		}
	})
	b.Run("stream", func(b *testing.B) {
		b.SetBytes(benchBytes)
		b.ReportAllocs()
		for b.Loop() {
			r, err := blobs.NewReader(context.Background(), id)
			must(b, err)
			_, err = r.WriteTo(io.Discard)
			must(b, err)
		}
	})
	b.Run("at", func(b *testing.B) {
		r, err := blobs.NewReader(context.Background(), id)
		must(b, err)
		rng := rand.New(rand.NewPCG(1, 2))
		p := make([]byte, 4096)
		b.SetBytes(4096)
		b.ReportAllocs()
		for b.Loop() {
			_, err := r.ReadAt(p, rng.Int64N(benchBytes-4096))
			must(b, err)
		}
	})
}
