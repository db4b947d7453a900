package mirrordrive

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
)

// BenchmarkSmallFiles mirrors 2,000 files of 4 KiB to a folder, each of them
// synced, to a drive in memory, and when there is nothing to do.
func BenchmarkSmallFiles(b *testing.B) {
	const files = 2000
	d := newDrive(b)
	batch, err := d.Batch(b.Context())
	must(b, err)
	for i := range files {
		must(b, batch.Put(b.Context(), fmt.Sprintf("/%d/%d", i%20, i), bytes.Repeat([]byte{byte(i)}, 4<<10), hyperdrive.PutOptions{}))
	}
	must(b, batch.Flush(b.Context()))
	from := openFolder(b, b.TempDir())
	run(b, Drive(d), Folder(from), Options{})
	mirror := func(name string, src Side, dst func() Side) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				run(b, src, dst(), Options{})
			}
			b.ReportMetric(float64(b.N)*files/b.Elapsed().Seconds(), "files/s")
		})
	}
	mirror("to-folder", Drive(d), func() Side { return Folder(openFolder(b, b.TempDir())) })
	mirror("to-drive", Folder(from), func() Side { return Drive(newDrive(b)) })
	same := newDrive(b)
	run(b, Folder(from), Drive(same), Options{})
	mirror("same", Folder(from), func() Side { return Drive(same) })
}
