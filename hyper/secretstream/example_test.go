package secretstream_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"

	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
)

// A server that lets in one client, and answers its message.
func Example() {
	alice, _ := noise.GenerateKeyPair(rand.Reader)
	bob, _ := noise.GenerateKeyPair(rand.Reader)
	a, b := net.Pipe() // or any connection

	done := make(chan error)
	go func() {
		s, err := secretstream.Server(context.Background(), b, secretstream.Options{
			KeyPair: bob,
			Check:   secretstream.Only(alice.Public),
		})
		if err != nil {
			done <- err
			return
		}
		defer s.Close()
		msg, err := s.ReadMessage(nil)
		if err == nil {
			err = s.WriteMessage(append(msg, " yourself"...))
		}
		done <- err
	}()

	s, err := secretstream.Client(context.Background(), a, secretstream.Options{KeyPair: alice})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	if err := s.WriteMessage([]byte("hello")); err != nil {
		fmt.Println(err)
		return
	}
	answer, err := s.ReadMessage(nil)
	fmt.Println(string(answer), err, s.RemoteKey() == bob.Public, <-done)
	// Output: hello yourself <nil> true <nil>
}
