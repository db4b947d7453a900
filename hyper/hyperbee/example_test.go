package hyperbee_test

import (
	"context"
	"crypto/rand"
	"fmt"

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
	for _, name := range []string{"pear", "apple", "plum"} {
		check(tree.Put(ctx, []byte(name), fmt.Append(nil, len(name))))
	}
	before := tree.Version()
	check(tree.Delete(ctx, []byte("pear")))

	for entry, err := range tree.Range(ctx, hyperbee.RangeOptions{Gte: []byte("b")}) {
		check(err)
		fmt.Printf("%s has %s letters\n", entry.Key, entry.Value)
	}
	for d, err := range tree.Diff(ctx, before, hyperbee.RangeOptions{}) {
		check(err)
		fmt.Printf("%s is gone: %v\n", d.Right.Key, d.Left == nil)
	}
	// Output:
	// plum has 4 letters
	// pear is gone: true
}

// Take a name only if nobody has it.
func ExampleTree_PutIf() {
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

	free := func(have *hyperbee.Entry) bool { return have == nil }
	for _, owner := range []string{"ann", "bob"} {
		taken, err := tree.PutIf(ctx, []byte("name"), []byte(owner), free)
		check(err)
		fmt.Println(owner, taken)
	}
	// Output:
	// ann true
	// bob false
}

// Values of a program's own type, under text.
func ExampleNewTyped() {
	ctx := context.Background()
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	check(err)
	defer store.Close()
	kp, err := hypercore.GenerateKeyPair(rand.Reader)
	check(err)
	log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
	check(err)
	defer log.Close()
	type fruit struct {
		Colour string
		Weight int
	}
	tree, err := hyperbee.Open(log, hyperbee.Options{})
	check(err)

	fruits := hyperbee.NewTyped(tree, hyperbee.UTF8, hyperbee.JSON[fruit]())
	check(fruits.Put(ctx, "apple", fruit{"red", 200}))
	check(fruits.Put(ctx, "pear", fruit{"green", 180}))
	for e, err := range fruits.Range(ctx, hyperbee.TypedRange[string]{Gte: new("b")}) {
		check(err)
		fmt.Println(e.Key, e.Value.Weight)
	}
	// Output: pear 180
}
