package tree_test

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// check stands for what a program does with an error.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

// Two devices write one list. Here both have their logs in one store; elsewhere
// each has a store of its own, and the logs are replicated.
func Example() {
	ctx := context.Background()
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	check(err)
	defer store.Close()
	newBee := func() *hyperbee.Tree {
		kp, err := hypercore.GenerateKeyPair(rand.Reader)
		check(err)
		log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
		check(err)
		bee, err := hyperbee.Open(log, hyperbee.Options{})
		check(err)
		return bee
	}
	laptop, phone := newBee(), newBee()
	onLaptop, onPhone := tree.New(tree.Options{}), tree.New(tree.Options{})
	check(onLaptop.Own(laptop))
	check(onPhone.Own(phone))
	put := func(t *tree.Tree, key, value string) {
		b, err := t.Batch(ctx)
		check(err)
		defer b.Close()
		check(b.Put(ctx, []byte(key), []byte(value)))
		check(b.Flush(ctx))
	}

	put(onLaptop, "milk", "2 bottles")
	put(onPhone, "milk", "1 bottle")
	// Only now they hear of each other.
	check(onLaptop.Add(phone, 0))
	check(onPhone.Add(laptop, 0))
	e, err := onLaptop.Get(ctx, []byte("milk"))
	check(err)
	fmt.Printf("%s, or %s\n", e.Value, e.Others[0].Value)

	put(onLaptop, "milk", "3 bottles, then")
	e, err = onPhone.Get(ctx, []byte("milk"))
	check(err)
	fmt.Printf("%s: %d others\n", e.Value, len(e.Others))
	check(onLaptop.Close())
	check(onPhone.Close())
	// Output:
	// 1 bottle, or 2 bottles
	// 3 bottles, then: 0 others
}
