package pair_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/pair"
	"github.com/cloudbevy/bevy/cloud/words"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A laptop joins the cloud of an owner. The connection would be one that both have
// found by pair.Topic(code).
func Example() {
	ctx := context.Background()
	owner := identity.NewOwner(identity.Seed{1})
	invitation, err := pair.NewInvitation(pair.InviteOptions{
		Admit: func(_ context.Context, r pair.Request) (pair.Admission, error) {
			cert, err := identity.Certificate{Cloud: owner.Cloud(), Device: r.Device, Name: r.Name, Issued: time.Now()}.Sign(owner.KeyPair())
			return pair.Admission{Chain: []identity.Certificate{cert}, Payload: []byte("where the logs are")}, err
		},
	})
	if err != nil {
		fmt.Println(err)
	}
	defer invitation.Close()
	typed, err := words.ParseCode(invitation.Code().Words()) // shown by one, typed into the other
	if err != nil {
		fmt.Println(err)
	}

	near, far := transport.Pipe()
	go func() {
		if stream, err := secretstream.Server(ctx, far, once()); err == nil {
			invitation.Serve(ctx, stream)
		}
	}()
	stream, err := secretstream.Client(ctx, near, once())
	if err != nil {
		fmt.Println(err)
	}
	laptop, err := noise.GenerateKeyPair(rand.Reader)
	if err != nil {
		fmt.Println(err)
	}
	joiner, err := pair.NewJoiner(pair.JoinOptions{Code: typed, Device: laptop, Name: "laptop"})
	if err != nil {
		fmt.Println(err)
	}
	admission, err := joiner.Join(ctx, stream)
	fmt.Println(admission.Cloud() == owner.Cloud(), string(admission.Payload), err)
	request, err := invitation.Wait(ctx)
	fmt.Println(request.Name, err)
	// Output:
	// true where the logs are <nil>
	// laptop <nil>
}

// once returns options with keys that are used for one connection.
func once() secretstream.Options {
	keys, err := noise.GenerateKeyPair(rand.Reader)
	if err != nil {
		fmt.Println(err)
	}
	return secretstream.Options{KeyPair: keys}
}
