package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// smallFiles makes files of 4 KiB, each with a content of its own, 100 in a folder.
func smallFiles(t testing.TB, dir string, n int) {
	t.Helper()
	b := bytes.Repeat([]byte("bevy"), 1024)
	for i := range n {
		if i%100 == 0 {
			must(t, os.MkdirAll(filepath.Join(dir, fmt.Sprint("d", i/100)), 0o755))
		}
		binary.LittleEndian.PutUint64(b, uint64(i))
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("d", i/100), fmt.Sprint("f", i)), b, 0o644))
	}
}

// onDisk is a device whose logs and index are on the disk, as a node has them.
func onDisk(t testing.TB, n, all byte) (*device, *realFolder) {
	t.Helper()
	open := func() storage.Engine {
		e, err := storage.Disk{Dir: t.TempDir()}.Open()
		must(t, err)
		return e
	}
	var f *realFolder
	index := open()
	d := newDevice(t, fmt.Sprint(n), func(c *config) {
		f = openReal(t, open(), clock.System, n, all)
		c.source, c.engine, c.clock = cloudFolder{f.Folder}, index, clock.System
	})
	t.Cleanup(func() { must(t, d.k.Close()); must(t, index.Close()) })
	return d, f
}

// BenchmarkSmallFiles puts 10,000 files of 4 KiB into the cloud, looks at them
// again when nothing has changed, and writes them to another disk.
func BenchmarkSmallFiles(b *testing.B) {
	const n = 10_000
	rate := func(b *testing.B) { b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "files/s") }
	var a *device
	var from *realFolder
	b.Run("put", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			a, from = onDisk(b, 1, 2)
			smallFiles(b, a.dir, n)
			b.StartTimer()
			must(b, a.k.Sync(b.Context()))
		}
		rate(b)
	})
	b.Run("again", func(b *testing.B) {
		a, _ := onDisk(b, 1, 1)
		smallFiles(b, a.dir, n)
		a.sync()
		for b.Loop() {
			must(b, a.k.Sync(b.Context()))
		}
		rate(b)
	})
	b.Run("write", func(b *testing.B) {
		a, from = onDisk(b, 1, 2)
		smallFiles(b, a.dir, n)
		a.sync()
		for b.Loop() {
			b.StopTimer()
			to, f := onDisk(b, 2, 2)
			f.hear(from)
			b.StartTimer()
			must(b, to.k.Sync(b.Context()))
			b.StopTimer()
			if got := to.k.Status().Files; got != n {
				b.Fatalf("%d files: %+v", got, to.k.Status())
			}
			b.StartTimer()
		}
		rate(b)
	})
}
