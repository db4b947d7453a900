package folder_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func Example() {
	ctx := context.Background()
	store, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	check(err)
	treeLog, err := store.Get(corestore.LogOptions{Name: "tree"})
	check(err)
	contentLog, err := store.Get(corestore.LogOptions{Name: "content"})
	check(err)
	bee, err := hyperbee.Open(treeLog, hyperbee.Options{})
	check(err)
	entries := tree.New(tree.Options{})
	check(entries.Own(bee))
	contents := content.New(content.Options{})
	check(contents.Own(contentLog))

	f := folder.New(entries, contents, folder.Options{})
	check(f.Put(ctx, "/notes/today.txt", strings.NewReader("buy milk"), folder.PutOptions{}))
	before, err := f.Version(ctx)
	check(err)
	check(f.Put(ctx, "/notes/today.txt", strings.NewReader("milk is bought"), folder.PutOptions{}))
	check(f.Move(ctx, "/notes", "/old"))

	for e, err := range f.List(ctx, "/", folder.ListOptions{Recursive: true}) {
		check(err)
		data, err := f.ReadFile(ctx, e.Path, 1<<20)
		check(err)
		fmt.Printf("%s: %s\n", e.Path, data)
	}
	past, err := f.Checkout(ctx, before)
	check(err)
	_, err = f.Restore(ctx, past, "/notes")
	check(err)
	data, err := f.ReadFile(ctx, "/notes/today.txt", 1<<20)
	check(err)
	fmt.Printf("restored: %s\n", data)

	check(past.Close())
	check(entries.Close())
	check(treeLog.Close())
	check(contentLog.Close())
	check(store.Close())
	// Output:
	// /old/today.txt: milk is bought
	// restored: buy milk
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
