package noise_test

import (
	"crypto/rand"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/noise"
)

// Two sides that don't know each other end with the same session.
func ExampleHandshake() {
	alice, _ := noise.GenerateKeyPair(rand.Reader)
	bob, _ := noise.GenerateKeyPair(rand.Reader)
	a, _ := noise.New(noise.Config{Pattern: noise.XX, Initiator: true, Static: alice})
	b, _ := noise.New(noise.Config{Pattern: noise.XX, Static: bob})

	from, to := a, b
	for !a.Done() || !b.Done() {
		msg, err := from.WriteMessage(nil, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		if _, err := to.ReadMessage(msg); err != nil {
			fmt.Println(err)
			return
		}
		from, to = to, from
	}

	ours, _ := a.Split()
	theirs, _ := b.Split()
	fmt.Println(ours.Remote == bob.Public, theirs.Remote == alice.Public)
	fmt.Println(ours.Tx == theirs.Rx, ours.Rx == theirs.Tx, ours.Hash == theirs.Hash)
	// Output:
	// true true
	// true true true
}
