package hyperdrive

import (
	"fmt"
	"testing"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func diskDrive(b *testing.B) *Drive {
	store, err := corestore.OpenDisk(storage.Disk{Dir: b.TempDir()}, corestore.Options{})
	must(b, err)
	b.Cleanup(func() { must(b, store.Close()) })
	return openDrive(b, store, Options{Durability: hypercore.Soon})
}

func BenchmarkPut(b *testing.B) {
	d, data := diskDrive(b), make([]byte, 4096)
	for i := 0; b.Loop(); i++ {
		must(b, d.Put(b.Context(), fmt.Sprintf("/dir/%04d", i%2000), data, PutOptions{}))
	}
}

func BenchmarkGet(b *testing.B) {
	d, data := diskDrive(b), make([]byte, 4096)
	for i := range 2000 {
		must(b, d.Put(b.Context(), fmt.Sprintf("/dir/%04d", i), data, PutOptions{}))
	}
	for i := 0; b.Loop(); i++ {
		_, err := d.ReadFile(b.Context(), fmt.Sprintf("/dir/%04d", i*7%2000))
		must(b, err)
	}
}

func BenchmarkList(b *testing.B) {
	d := diskDrive(b)
	for i := range 2000 {
		must(b, d.Put(b.Context(), fmt.Sprintf("/dir/%04d", i), []byte("x"), PutOptions{}))
	}
	for b.Loop() {
		n := 0
		for _, err := range d.List(b.Context(), "/", ListOptions{}) {
			must(b, err)
			n++
		}
		if n != 2000 {
			b.Fatal(n)
		}
	}
	b.ReportMetric(2000*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkPutBig(b *testing.B) {
	d, data := diskDrive(b), make([]byte, 64<<20)
	b.SetBytes(64 << 20)
	for b.Loop() {
		must(b, d.Put(b.Context(), "/big", data, PutOptions{}))
	}
}

func BenchmarkGetBig(b *testing.B) {
	d, data := diskDrive(b), make([]byte, 64<<20)
	must(b, d.Put(b.Context(), "/big", data, PutOptions{}))
	b.SetBytes(64 << 20)
	for b.Loop() {
		_, err := d.ReadFile(b.Context(), "/big")
		must(b, err)
	}
}
