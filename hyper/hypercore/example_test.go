package hypercore_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// check stands for what a program does with an error.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

// newLog returns a log of a new key in a new store, both in memory.
func newLog() *hypercore.Log {
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	check(err)
	kp, err := hypercore.GenerateKeyPair(rand.Reader)
	check(err)
	log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
	check(err)
	return log
}

func Example() {
	ctx := context.Background()
	store, err := storage.Open(storage.NewMemory(), storage.Options{}) // or storage.Disk{Dir: …}.Open()
	check(err)
	kp, err := hypercore.GenerateKeyPair(rand.Reader)
	check(err)
	log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
	check(err)

	length, err := log.Append(ctx, []byte("hello"), []byte("world"))
	check(err)
	block, err := log.Get(ctx, 1)
	check(err)
	fmt.Println(length, string(block))

	check(log.Close())
	check(store.Close())
	// Output: 2 world
}

func ExampleLog_Snapshot() {
	ctx, log := context.Background(), newLog()
	defer log.Close()
	_, err := log.Append(ctx, []byte("draft of a letter"))
	check(err)

	snapshot, err := log.Snapshot()
	check(err)
	defer snapshot.Close()
	check(log.Truncate(ctx, 0, hypercore.TruncateOptions{}))

	block, err := snapshot.Get(ctx, 0)
	fmt.Println(log.Length(), snapshot.Length(), string(block), err)
	// Output: 0 1 draft of a letter <nil>
}

func ExampleLog_Draft() {
	ctx, log := context.Background(), newLog()
	defer log.Close()
	draft, err := log.Draft(ctx, "tonight")
	check(err)
	_, err = draft.Append(ctx, []byte("one"), []byte("two"))
	check(err)
	fmt.Println("log", log.Length(), "draft", draft.Length())

	_, err = log.CommitDraft(ctx, draft, hypercore.AppendOptions{})
	check(err)
	check(draft.Discard(ctx))
	fmt.Println("log", log.Length())
	// Output:
	// log 0 draft 2
	// log 2
}

// One log proves a block to another of the same key, over any transport.
func ExampleLog_Apply() {
	ctx, writer := context.Background(), newLog()
	defer writer.Close()
	_, err := writer.Append(ctx, []byte("a"), []byte("b"), []byte("c"))
	check(err)

	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	check(err)
	key := writer.Key()
	reader, err := hypercore.Open(store, hypercore.Options{Key: &key})
	check(err)
	defer reader.Close()

	proof, err := writer.Prove(ctx, merkle.Request{
		Block:   &merkle.NodeRequest{Index: 1},
		Upgrade: &merkle.UpgradeRequest{Length: 3},
	}, true)
	check(err)
	errs, err := reader.Apply(ctx, hypercore.Durable, proof)
	check(err)
	block, err := reader.Get(ctx, 1)
	fmt.Println(errs[0], reader.Length(), string(block), err)

	// A lie is not taken.
	proof.Block.Value = []byte("B")
	errs, err = reader.Apply(ctx, hypercore.Durable, proof)
	check(err)
	fmt.Println(errs[0] != nil)
	// Output:
	// <nil> 3 b <nil>
	// true
}

func ExampleLog_NewReader() {
	ctx, log := context.Background(), newLog()
	defer log.Close()
	w := log.NewWriter(ctx, 8, hypercore.AppendOptions{})
	_, err := io.WriteString(w, "A log is also a file: what is written comes back as bytes.")
	check(err)
	check(w.Close())

	r := log.NewReader(ctx)
	_, err = r.Seek(22, io.SeekStart)
	check(err)
	_, err = io.Copy(os.Stdout, r)
	check(err)
	fmt.Println(" In", log.Length(), "blocks.")
	// Output: what is written comes back as bytes. In 8 blocks.
}
