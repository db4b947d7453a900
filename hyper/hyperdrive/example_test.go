package hyperdrive_test

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// check stands for what a program does with an error.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

func Example() {
	ctx := context.Background()
	store, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	check(err)
	drive, err := hyperdrive.Open(store, hyperdrive.Options{Name: "site"})
	check(err)
	check(drive.Put(ctx, "/index.html", []byte("<h1>hello</h1>"), hyperdrive.PutOptions{}))
	check(drive.Put(ctx, "/css/main.css", []byte("h1 { color: teal }"), hyperdrive.PutOptions{}))
	before := drive.Version()
	check(drive.Delete(ctx, "/css/main.css"))

	// As any other file system, at any version.
	old, err := drive.Checkout(before)
	check(err)
	check(fs.WalkDir(old.FS(ctx), ".", func(path string, d fs.DirEntry, err error) error {
		if !d.IsDir() {
			fmt.Println(path)
		}
		return err
	}))
	for diff, err := range drive.Diff(ctx, before, "/") {
		check(err)
		fmt.Println(diff.Path(), "is gone:", diff.Left == nil)
	}
	check(old.Close())
	check(drive.Close())
	check(store.Close())
	// Output:
	// css/main.css
	// index.html
	// /css/main.css is gone: true
}
