package hyperblobs_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hypercore"
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
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	check(err)
	defer store.Close()
	kp, err := hypercore.GenerateKeyPair(rand.Reader)
	check(err)
	log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
	check(err)
	defer log.Close()

	blobs := hyperblobs.New(log, hyperblobs.Options{})
	id, err := blobs.Put(ctx, []byte("a small file\n"))
	check(err)
	data, err := blobs.Get(ctx, id)
	check(err)
	fmt.Print(string(data))

	w := blobs.NewWriter(ctx, hyperblobs.WriteOptions{})
	defer w.Abort() // does nothing once it is closed
	_, err = io.Copy(w, strings.NewReader(strings.Repeat("a larger file\n", 1e5)))
	check(err)
	check(w.Close())

	r, err := blobs.NewRangeReader(ctx, w.ID(), 14e5-14, 14)
	check(err)
	defer r.Close()
	_, err = io.Copy(os.Stdout, r)
	check(err)
	fmt.Println(w.ID().BlockLength, "blocks")
	// Output:
	// a small file
	// a larger file
	// 22 blocks
}
