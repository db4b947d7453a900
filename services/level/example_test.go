package level_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/services/level"
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
	tree, err := hyperbee.Open(log, hyperbee.Options{})
	check(err)

	db := level.Open(tree)
	defer db.Close()
	check(db.Batch(ctx, []level.Change{
		{Key: []byte("ann"), Value: []byte("41")},
		{Key: []byte("bob"), Value: []byte("7")},
		{Key: []byte("cid"), Value: []byte("19")},
	}))
	it, err := db.Iterator(ctx, level.Range{Lt: []byte("c"), Reverse: true})
	check(err)
	defer it.Close()
	check(db.Del(ctx, []byte("ann"))) // which the iterator does not see
	for entry, err := range it.Entries(ctx) {
		check(err)
		fmt.Printf("%s is %s\n", entry.Key, entry.Value)
	}
	check(it.Seek([]byte("a")))
	for entry := range it.Entries(ctx) {
		fmt.Printf("nobody is before ann: %s\n", entry.Key)
	}
	// Output:
	// bob is 7
	// ann is 41
}

// Let programs in JavaScript use a tree.
func ExampleNew() {
	var tree *hyperbee.Tree // that is open
	door := level.New(tree, level.Options{
		Token:   rand.Text(),
		Origins: []string{"https://app.example"},
	})
	defer door.Close()
	http.Handle("/", door)
}
