package folder

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cloudbevy/bevy/hyper/storage"
)

// diskDevice is a device on the disk.
func diskDevice(b *testing.B) *device {
	b.Helper()
	e, err := storage.Disk{Dir: b.TempDir()}.Open()
	must(b, err)
	d := openDevice(b, e, 1, 1, 0)
	b.Cleanup(d.close)
	return d
}

// smallFiles puts n files of 4 KiB in folders of 100, in one batch.
func smallFiles(b *testing.B, d *device, dir string, n int) {
	b.Helper()
	ctx := context.Background()
	rng := rand.NewChaCha8([32]byte{1})
	data := make([]byte, 4<<10)
	batch, err := d.Batch(ctx)
	must(b, err)
	defer batch.Close()
	for i := range n {
		_, _ = rng.Read(data)
		must(b, batch.Put(ctx, fmt.Sprintf("%s/%04d/%02d", dir, i/100, i%100), bytes.NewReader(data), PutOptions{Mode: 0o644, ModTime: start}))
	}
	_, err = batch.Flush(ctx)
	must(b, err)
}

func BenchmarkPut10000SmallFiles(b *testing.B) {
	d := diskDevice(b)
	b.SetBytes(10_000 * 4 << 10)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		smallFiles(b, d, fmt.Sprint("/", i), 10_000)
		i++
	}
}

func BenchmarkGet(b *testing.B) {
	d := diskDevice(b)
	smallFiles(b, d, "/d", 10_000)
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(1, 2))
	b.SetBytes(4 << 10)
	b.ReportAllocs()
	for b.Loop() {
		i := rng.IntN(10_000)
		_, err := d.ReadFile(ctx, fmt.Sprintf("/d/%04d/%02d", i/100, i%100), 1<<20)
		must(b, err)
	}
}

func BenchmarkListAll10000(b *testing.B) {
	d := diskDevice(b)
	smallFiles(b, d, "/d", 10_000)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range d.List(context.Background(), "/", ListOptions{Recursive: true}) {
			must(b, err)
			n++
		}
		if n != 10_000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkListFolders lists 100 folders without what is in them.
func BenchmarkListFolders(b *testing.B) {
	d := diskDevice(b)
	smallFiles(b, d, "/d", 10_000)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range d.List(context.Background(), "/d", ListOptions{}) {
			must(b, err)
			n++
		}
		if n != 100 {
			b.Fatal(n)
		}
	}
}
