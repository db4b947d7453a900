package corestore_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// Two stores in one process: one has a log, the other knows its key and reads it.
func ExampleStore_Replicate() {
	ctx, cancel := context.WithCancel(context.Background())
	alice, bob := open(), open()
	notes, err := alice.Get(corestore.LogOptions{Name: "notes"})
	check(err)
	_, err = notes.Append(ctx, []byte("buy milk"), []byte("call Lenka"))
	check(err)

	// Any connection will do: this one is in memory.
	a, b := transport.Pipe()
	ended := make(chan error, 2)
	go func() {
		stream, err := secretstream.Server(ctx, a, secretstream.Options{KeyPair: identity()})
		check(err)
		ended <- alice.Replicate(ctx, stream, corestore.ReplicateOptions{})
	}()
	found := bob.FindingPeers() // until then, readers wait for the connection
	go func() {
		stream, err := secretstream.Client(ctx, b, secretstream.Options{KeyPair: identity()})
		check(err)
		ended <- bob.Replicate(ctx, stream, corestore.ReplicateOptions{
			Attached: func(*protomux.Mux) { found() },
		})
	}()

	key := notes.Key()
	copied, err := bob.Get(corestore.LogOptions{Key: &key})
	check(err)
	check(copied.Update(ctx)) // the newest head that peers have
	for block, err := range copied.Blocks(ctx, hypercore.BlockRange{}) {
		check(err)
		fmt.Printf("%d %s\n", block.Index, block.Data)
	}

	cancel()
	<-ended
	<-ended
	check(notes.Close())
	check(copied.Close())
	check(alice.Close())
	check(bob.Close())
	// Output:
	// 0 buy milk
	// 1 call Lenka
}

func open() *corestore.Store {
	s, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	check(err)
	return s
}

func identity() noise.KeyPair {
	kp, err := noise.GenerateKeyPair(rand.Reader)
	check(err)
	return kp
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
