package hyperdrive

import (
	"bytes"
	"testing"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openStore opens a store with a primary key of bytes c.
func openStore(t testing.TB, engine storage.Engine, c byte) *corestore.Store {
	t.Helper()
	primary := [32]byte(bytes.Repeat([]byte{c}, 32))
	s, err := corestore.Open(engine, corestore.Options{PrimaryKey: &primary})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func openDrive(t testing.TB, s *corestore.Store, o Options) *Drive {
	t.Helper()
	d, err := Open(s, o)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

// newDrive is an empty drive in memory.
func newDrive(t testing.TB, o Options) *Drive {
	t.Helper()
	if o.Durability == 0 {
		o.Durability = hypercore.Soon
	}
	return openDrive(t, openStore(t, storage.NewMemory(), 'c'), o)
}

func paths(t testing.TB, d *Drive, folder string, o ListOptions) (out []string) {
	t.Helper()
	for e, err := range d.List(t.Context(), folder, o) {
		must(t, err)
		out = append(out, e.Path)
	}
	return out
}

func write(t testing.TB, d *Drive, path, data string) {
	t.Helper()
	must(t, d.Put(t.Context(), path, []byte(data), PutOptions{}))
}
