package disk_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/disk"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// newFolder makes a folder of the cloud in memory, with logs of its own.
func newFolder() (*folder.Folder, error) {
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	if err != nil {
		return nil, err
	}
	var logs [2]*hypercore.Log
	for i := range logs {
		kp := hypercore.NewKeyPair([32]byte{byte(i + 1)})
		if logs[i], err = hypercore.Open(store, hypercore.Options{KeyPair: &kp}); err != nil {
			return nil, err
		}
	}
	bee, err := hyperbee.Open(logs[0], hyperbee.Options{})
	if err != nil {
		return nil, err
	}
	entries, contents := tree.New(tree.Options{}), content.New(content.Options{})
	if err := entries.Own(bee); err != nil {
		return nil, err
	}
	if err := contents.Own(logs[1]); err != nil {
		return nil, err
	}
	return folder.New(entries, contents, folder.Options{}), nil
}

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "photos")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "sea.jpg"), []byte("waves"), 0o644); err != nil {
		log.Fatal(err)
	}
	photos, err := newFolder()
	if err != nil {
		log.Fatal(err)
	}

	keeper, err := disk.Open(disk.Options{Dir: dir, Folder: photos, Index: storage.NewMemory(), ID: "photos"})
	if err != nil {
		log.Fatal(err)
	}
	defer keeper.Close()
	if err := keeper.Sync(ctx); err != nil {
		log.Fatal(err)
	}
	b, err := photos.ReadFile(ctx, "/sea.jpg", 1<<20)
	fmt.Printf("%s: %s %v\n", keeper.Status().State, b, err)

	// Output:
	// up to date: waves <nil>
}
