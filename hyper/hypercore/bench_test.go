package hypercore

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/cloudbevy/bevy/hyper/storage"
)

func diskLog(b *testing.B) (*Log, *storage.Store) {
	b.Helper()
	e, err := storage.Disk{Dir: b.TempDir()}.Open()
	if err != nil {
		b.Fatal(err)
	}
	s, err := storage.Open(e, storage.Options{})
	if err != nil {
		b.Fatal(err)
	}
	kp := keyPairN(1)
	l, err := Open(s, Options{KeyPair: &kp})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return l, s
}

// BenchmarkAppend appends to one log on disk, not fsynced.
func BenchmarkAppend(b *testing.B) {
	for _, v := range []struct{ size, batch int }{{100, 1}, {100, 64}, {64 << 10, 64}} {
		b.Run(fmt.Sprintf("%dx%d", v.batch, v.size), func(b *testing.B) {
			l, _ := diskLog(b)
			blocks := make([][]byte, v.batch)
			for i := range blocks {
				blocks[i] = make([]byte, v.size)
				rand.Read(blocks[i])
			}
			b.SetBytes(int64(v.size * v.batch))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.AppendWith(context.Background(), AppendOptions{Durability: Soon}, blocks...); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*v.batch)/b.Elapsed().Seconds(), "blocks/s")
		})
	}
}

func BenchmarkGet(b *testing.B) {
	l, _ := diskLog(b)
	blocks := make([][]byte, 1000)
	for i := range blocks {
		blocks[i] = make([]byte, 100)
	}
	ctx := context.Background()
	if _, err := l.Append(ctx, blocks...); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		if _, err := l.Get(ctx, i%1000); err != nil {
			b.Fatal(err)
		}
		i += 7
	}
}
