package pair

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/words"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
)

// JoinOptions say who joins. Code, Device and Name are needed.
type JoinOptions struct {
	// Code is what was typed.
	Code words.Code
	// Device is the key pair that the device will be known by from then on. It was
	// kept before, so that a device that is interrupted asks again as the same.
	Device noise.KeyPair
	// Name is what the device would like to be called, as in
	// [identity.Certificate].
	Name string
	// Keep puts what came on the disk. The other side hears that all is well when
	// it returns without an error. Nil does nothing.
	Keep func(Admission) error
	// Clock is the machine's clock if it is nil, Random crypto/rand.
	Clock  clock.Clock
	Random io.Reader
}

// A Joiner has words that were typed, and tries them on streams. Its methods may
// be called by any goroutine, and several streams be tried at a time.
type Joiner struct {
	o JoinOptions

	mu    sync.Mutex
	tries int // that are left
}

// NewJoiner returns a joiner with all of its tries.
func NewJoiner(o JoinOptions) (*Joiner, error) {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	switch {
	case o.Code.IsZero():
		return nil, errors.New("join: no words")
	case !o.Device.CanProve():
		return nil, errors.New("join: the key pair has no secret half")
	case !identity.GoodName(o.Name):
		return nil, fmt.Errorf("join: the name %.64q can't be used: 1 to %d bytes that can be printed", o.Name, identity.MaxName)
	}
	return &Joiner{o: o, tries: Tries}, nil
}

// Join tries the words on a stream, which it closes, and returns what the device
// was given, once that was kept. It fails with one of the errors of this package.
// [ErrBusy] and [ErrNoInvitation], and errors of the stream, say nothing about the
// words. It may take as long as a person on the other side takes to answer.
//
// Each call that gets as far as to show that it knows the words takes one of
// [Tries], as the other side may be a stranger who guesses; then it fails with
// [ErrTries].
func (j *Joiner) Join(ctx context.Context, stream *secretstream.Stream) (Admission, error) {
	admission, err := j.join(ctx, stream)
	if err != nil {
		return Admission{}, fmt.Errorf("join through %s: %w", stream.RemoteKey(), err)
	}
	return admission, nil
}

func (j *Joiner) join(ctx context.Context, stream *secretstream.Stream) (Admission, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mux := protomux.New(protomux.Options{MaxChannels: 4, MaxQueued: 1 << 20})
	t := &try{joiner: j, result: make(chan error, 1)}
	if err := t.open(mux, link{stream.HandshakeHash(), stream.LocalKey(), stream.RemoteKey()}); err != nil {
		return Admission{}, errors.Join(err, stream.Close())
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		err := mux.Serve(ctx, stream)
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		t.over(fmt.Errorf("stream: %w", err))
	})
	slow := j.o.Clock.AfterFunc(patience, t.tooSlow)
	err := <-t.result
	slow.Stop()
	if err == nil && j.o.Keep != nil {
		err = j.o.Keep(t.side.admission)
	}
	if err == nil {
		t.send(t.side.done()) // if it does not arrive, the other side takes longer to forget the words
		j.addTry(1)
	}
	// What was sent is still written, though not to somebody who doesn't read.
	slow = j.o.Clock.AfterFunc(patience, cancel)
	mux.Close()
	serving.Wait()
	slow.Stop()
	return t.side.admission, err
}

// addTry counts a try, or takes it back. It reports whether there was one left.
func (j *Joiner) addTry(n int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.tries+n < 0 {
		return false
	}
	j.tries += n
	return true
}

// A try is one call of Join. The functions of its channel are called one after
// the other.
type try struct {
	joiner  *Joiner
	side    *joining
	channel *protomux.Channel
	result  chan error // the first that happens

	mu     sync.Mutex
	proved bool
}

func (t *try) open(mux *protomux.Mux, l link) error {
	o := t.joiner.o
	side, out, err := newJoining(o.Code, l, o.Device, o.Name, o.Random)
	if err != nil {
		return err
	}
	t.side = side
	handlers := make([]func(*protomux.Channel, []byte) error, messages)
	for number := range handlers {
		handlers[number] = func(_ *protomux.Channel, payload []byte) error {
			t.receive(number, payload)
			return nil
		}
	}
	t.channel, err = mux.Open(protomux.ChannelOptions{
		Protocol: Protocol,
		Messages: handlers,
		OnClose: func(_ *protomux.Channel, reason error) {
			switch {
			case errors.Is(reason, protomux.ErrRejected):
				reason = ErrNoInvitation
			case reason == nil:
				reason = io.ErrUnexpectedEOF
			}
			t.over(reason)
		},
	})
	if err != nil {
		return err
	}
	t.send(out)
	return nil
}

func (t *try) receive(number int, payload []byte) {
	out, what, err := t.side.step(number, payload)
	if what == proving {
		// From here on the other side may have learnt whether it guessed the words.
		if !t.joiner.addTry(-1) {
			out, err = nil, ErrTries
		}
		t.mu.Lock()
		t.proved = true
		t.mu.Unlock()
	}
	t.send(out)
	if err != nil || what == admitted {
		t.over(err)
	}
}

// over tells Join what came of it, if nothing did before: that it was admitted
// with nil.
func (t *try) over(err error) {
	select {
	case t.result <- err:
	default:
	}
}

// tooSlow ends a try with a side that does not even begin. Afterwards a person
// may be asked, which takes time.
func (t *try) tooSlow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.proved {
		t.over(ErrBusy)
	}
}

// send queues messages. If the channel can't take them, OnClose will tell.
func (t *try) send(out []message) {
	for _, m := range out {
		_ = t.channel.Send(m.number, m.payload)
	}
}
