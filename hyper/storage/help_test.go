package storage

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// memFile returns a file system with one file in a folder.
func memFile(t testing.TB, name string, data []byte) vfs.FS {
	t.Helper()
	fsys := vfs.NewMem()
	if err := fsys.MkdirAll(fsys.PathDir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return fsys
}
