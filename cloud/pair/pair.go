// Package pair lets a device into a cloud by six words: a device of the cloud
// shows them, the new one gets them typed. Whoever carries the connection learns
// nothing from it, and who does not know the words has five tries.
//
// The first two words tell where to meet: [Topic] makes of them what both announce
// and look for. Over a stream that two found each other by, both show that they
// know all six, by a key exchange that tells nothing to who doesn't and is bound
// to that very stream. Then the new device says who it is, and is given a
// certificate, and whatever else it needs.
//
// One side:
//
//	invitation, err := pair.NewInvitation(pair.InviteOptions{Admit: admit})
//	fmt.Println(invitation.Code().Words())
//	go invitation.Serve(ctx, stream) // for each stream that comes by the topic
//	request, err := invitation.Wait(ctx)
//
// The other:
//
//	joiner, err := pair.NewJoiner(pair.JoinOptions{Code: code, Device: keys, Name: "attic"})
//	admission, err := joiner.Join(ctx, stream) // for each stream, until one is right
//
// The package finds no peers. The bytes are those of docs/formats/pairing.md.
package pair

import (
	"errors"
	"fmt"
	"time"

	"github.com/cloudbevy/bevy/cloud/words"
	"golang.org/x/crypto/argon2"
)

// Protocol is the name of the channel.
const Protocol = "bevy/pair"

// What a code is good for.
const (
	// Lifetime is how long a code lives if [InviteOptions] don't say otherwise.
	Lifetime = 10 * time.Minute
	// Tries is how many times wrong words may be tried, over all connections, on
	// each side.
	Tries = 5
)

// The kinds of error of this package. They come wrapped: test with
// [errors.Is].
var (
	// ErrWords means that the two sides don't have the same words, or somebody is
	// in between.
	ErrWords = errors.New("the words are not those that are shown on the other side")
	// ErrTries means that wrong words were tried too often: the code is dead.
	ErrTries = errors.New("too many tries with wrong words, new words are needed")
	// ErrExpired means that the code was not used in time.
	ErrExpired = errors.New("the words are too old, new ones are needed")
	// ErrUsed means that another device has used the code.
	ErrUsed = errors.New("the words were used by another device")
	// ErrBusy means that the other side has no time now: try again in some
	// seconds.
	ErrBusy = errors.New("the other side is busy, try again")
	// ErrDeclined means that the other side said no to this device.
	ErrDeclined = errors.New("declined on the other side")
	// ErrNoInvitation means that nobody shows words on the other side.
	ErrNoInvitation = errors.New("no invitation on the other side")
	// ErrProtocol means that the other side broke the rules, or is another
	// version.
	ErrProtocol = errors.New("pairing protocol violation")
	// ErrClosed means that it was closed on this side.
	ErrClosed = errors.New("pairing was closed")
)

// reasons are what an inviter tells of why it refuses. Anybody who sits in between
// could say the same, so they are only for people to read.
var reasons = []error{1: ErrWords, 2: ErrTries, 3: ErrExpired, 4: ErrUsed, 5: ErrBusy, 6: ErrDeclined, 7: ErrProtocol}

// refusal returns the message for an error.
func refusal(err error) message {
	for i, reason := range reasons {
		if reason != nil && errors.Is(err, reason) {
			return message{messageRefused, []byte{byte(i)}}
		}
	}
	return message{messageRefused, []byte{7}}
}

func readReason(b []byte) error {
	if len(b) != 1 || b[0] == 0 || int(b[0]) >= len(reasons) {
		return fmt.Errorf("%w: refused for an unknown reason", ErrProtocol)
	}
	return reasons[b[0]]
}

// Topic returns where the two sides of a code meet, as a topic to announce and to
// look for. It is made of the first two words, slowly, which takes about 0.2 s and
// 64 MiB: whoever sees it could find these two by trying all four million, and
// has not come nearer to the other four.
func Topic(code words.Code) [32]byte {
	return [32]byte(argon2.IDKey([]byte(code.Meeting()), []byte("bevy/pair/1/topic"), 3, 64<<10, 1, 32))
}
