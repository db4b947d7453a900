package pair

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/cloud/words"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
)

const (
	// maxAttempts is how many attempts there may be at a time that have not shown
	// that they know the words. One more ends the oldest.
	maxAttempts = 4
	// patience is how long the other side may take for its next message, as far as
	// no person has to be asked.
	patience = 30 * time.Second
	// pause is for how long nobody may begin after wrong words. It doubles.
	pause = time.Second
)

// InviteOptions say what an invitation is. Admit is needed.
type InviteOptions struct {
	// Admit is asked about the device that knew the words. It returns the
	// certificate for it, with the chain that leads to it, and what else the
	// device needs; whatever has to last is on the disk by then. It may ask a
	// person. It says no with an error, which ends the code. It is called at most
	// once for an invitation, in a goroutine of its own; ctx ends when the
	// invitation does.
	Admit func(ctx context.Context, r Request) (Admission, error)
	// Code is made from Random if it is zero.
	Code words.Code
	// Lifetime is how long the code lives: the constant of that name if it is zero.
	Lifetime time.Duration
	// Clock is the machine's clock if it is nil, Random crypto/rand.
	Clock  clock.Clock
	Random io.Reader
}

// An Invitation is a code that is shown on this side, until it has let one device
// in, is too old, or was tried with wrong words too often. Its methods may be
// called by any goroutine.
type Invitation struct {
	o       InviteOptions
	expires time.Time
	ctx     context.Context // of Admit
	cancel  context.CancelFunc
	over    chan struct{}
	asking  sync.WaitGroup
	expiry  clock.Timer

	mu       sync.Mutex
	tries    int        // that are left
	resume   time.Time  // when the next attempt may begin
	attempts []*attempt // by age
	chosen   *Request   // the device that knew the words
	answer   *Admission // for it, once Admit has said yes
	err      error      // why it is over, if it is not a success
	ended    bool
}

// An attempt is one connection's.
type attempt struct {
	side    *inviting
	channel *protomux.Channel
	timer   clock.Timer
	proven  bool
}

// NewInvitation begins to wait for a device. It ends by itself, or by Close.
func NewInvitation(o InviteOptions) (*Invitation, error) {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Lifetime == 0 {
		o.Lifetime = Lifetime
	}
	if o.Code.IsZero() {
		code, err := words.NewCode(o.Random)
		if err != nil {
			return nil, fmt.Errorf("invite: %w", err)
		}
		o.Code = code
	}
	v := &Invitation{o: o, expires: o.Clock.Now().Add(o.Lifetime), over: make(chan struct{}), tries: Tries}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.mu.Lock()
	v.expiry = o.Clock.AfterFunc(o.Lifetime, func() { v.end(ErrExpired) })
	v.mu.Unlock()
	return v, nil
}

// Code returns the words to show.
func (v *Invitation) Code() words.Code { return v.o.Code }

// Expires returns when the code is too old.
func (v *Invitation) Expires() time.Time { return v.expires }

// TriesLeft returns how many times wrong words may still be tried.
func (v *Invitation) TriesLeft() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tries
}

// Wait waits until the invitation is over, and returns the device that was let in
// and has said that it kept everything. It fails with [ErrExpired], [ErrTries],
// [ErrClosed], or [ErrDeclined] and what Admit said. If the device was lost after
// Admit said yes, the code lives on for it alone, and may end as expired; so what
// Admit did counts, and not what Wait returns.
func (v *Invitation) Wait(ctx context.Context) (Request, error) {
	select {
	case <-v.over:
	case <-ctx.Done():
		return Request{}, fmt.Errorf("wait for a device: %w", context.Cause(ctx))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return Request{}, fmt.Errorf("wait for a device: %w", v.err)
	}
	return *v.chosen, nil
}

// Close ends the invitation, if it isn't over, and waits for Admit to return.
func (v *Invitation) Close() error {
	v.end(ErrClosed)
	v.asking.Wait()
	return nil
}

// Serve lets the other side of a stream try its words, until either side ends the
// stream. It closes the stream.
func (v *Invitation) Serve(ctx context.Context, stream *secretstream.Stream) error {
	mux := protomux.New(protomux.Options{MaxChannels: 4, MaxQueued: 4 * MaxPayload})
	v.Attach(mux, stream)
	if err := mux.Serve(ctx, stream); err != nil {
		return fmt.Errorf("invite %s: %w", stream.RemoteKey(), err)
	}
	return nil
}

// Attach is Serve for a stream that carries other channels, too, and is served by
// somebody else. It is called before that begins.
func (v *Invitation) Attach(mux *protomux.Mux, stream *secretstream.Stream) {
	l := link{stream.HandshakeHash(), stream.RemoteKey(), stream.LocalKey()}
	begun := false
	mux.Pair(Protocol, nil, func(q *protomux.Request) {
		if len(q.ID) == 0 && !begun { // one attempt a connection, so that each costs a handshake
			begun = true
			v.begin(mux, l)
		}
	})
}

// begin opens a channel for an attempt. If the other side may not try now, it says
// so on it.
func (v *Invitation) begin(mux *protomux.Mux, l link) {
	v.mu.Lock()
	defer v.mu.Unlock()
	a := &attempt{}
	handlers := make([]func(*protomux.Channel, []byte) error, messages)
	for number := range handlers {
		handlers[number] = func(_ *protomux.Channel, payload []byte) error {
			v.receive(a, number, payload)
			return nil
		}
	}
	channel, err := mux.Open(protomux.ChannelOptions{
		Protocol: Protocol,
		Messages: handlers,
		OnClose:  func(*protomux.Channel, error) { v.drop(a) },
	})
	if err != nil {
		return // the mux has ended
	}
	a.channel = channel
	if err = v.mayBeginLocked(); err == nil {
		a.side, err = newInviting(v.o.Code, l, v.o.Random)
	}
	if err != nil {
		v.refuseLocked(a, err)
		return
	}
	v.attempts = append(v.attempts, a)
	a.timer = v.o.Clock.AfterFunc(patience, func() { v.tooSlow(a) })
	if waiting := v.waitingLocked(); len(waiting) > maxAttempts {
		v.refuseLocked(waiting[0], ErrBusy)
	}
}

func (v *Invitation) mayBeginLocked() error {
	switch {
	case v.ended && v.err == nil:
		return ErrUsed
	case v.ended:
		return v.err
	case v.o.Clock.Now().Before(v.resume):
		return ErrBusy
	}
	return nil
}

// waitingLocked returns the attempts that have shown nothing yet.
func (v *Invitation) waitingLocked() (out []*attempt) {
	for _, a := range v.attempts {
		if !a.proven {
			out = append(out, a)
		}
	}
	return out
}

// receive takes a message of an attempt.
func (v *Invitation) receive(a *attempt, number int, payload []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.has(a) {
		return
	}
	out, what, err := a.side.step(number, payload)
	a.send(out)
	switch {
	case errors.Is(err, ErrWords):
		v.wrongLocked(a)
	case err != nil:
		v.refuseLocked(a, err)
	case what == proven:
		v.provenLocked(a)
	case what == confirmed:
		v.endLocked(nil)
	}
}

// wrongLocked counts a try with wrong words.
func (v *Invitation) wrongLocked(a *attempt) {
	v.tries--
	v.resume = v.o.Clock.Now().Add(pause << (Tries - 1 - v.tries))
	v.refuseLocked(a, ErrWords)
	if v.tries == 0 {
		v.endLocked(ErrTries)
	}
}

// provenLocked deals with a device that knows the words.
func (v *Invitation) provenLocked(a *attempt) {
	a.timer.Stop()
	if v.chosen == nil {
		v.chosen = &a.side.request
		v.asking.Go(v.ask)
	}
	if v.chosen.Device != a.side.request.Device {
		v.refuseLocked(a, ErrUsed)
		return
	}
	for _, b := range slices.Clone(v.attempts) {
		if b.proven { // it has come back over another connection
			v.refuseLocked(b, ErrBusy)
		}
	}
	a.proven = true
	if v.answer != nil {
		a.send(a.side.admit(*v.answer))
	}
}

// ask asks about the device, and answers its attempt, if it is still there.
func (v *Invitation) ask() {
	answer, err := v.o.Admit(v.ctx, *v.chosen)
	if err == nil {
		if e := answer.check(v.chosen.Device); e != nil {
			err = fmt.Errorf("admission: %w", e)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended {
		return
	}
	if err != nil {
		v.endLocked(fmt.Errorf("%w: %w", ErrDeclined, err))
		return
	}
	v.answer = &answer
	for _, a := range v.attempts {
		if a.proven {
			a.send(a.side.admit(answer))
		}
	}
}

// send queues messages. If the channel can't take them, OnClose will tell.
func (a *attempt) send(out []message) {
	for _, m := range out {
		_ = a.channel.Send(m.number, m.payload)
	}
}

// refuseLocked tells the other side why, and ends an attempt.
func (v *Invitation) refuseLocked(a *attempt, err error) {
	a.send([]message{refusal(err)})
	v.dropLocked(a)
}

func (v *Invitation) tooSlow(a *attempt) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.has(a) && !a.proven {
		v.refuseLocked(a, ErrBusy)
	}
}

func (v *Invitation) has(a *attempt) bool { return slices.Contains(v.attempts, a) }

func (v *Invitation) drop(a *attempt) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dropLocked(a)
}

func (v *Invitation) dropLocked(a *attempt) {
	v.attempts = slices.DeleteFunc(v.attempts, func(b *attempt) bool { return a == b })
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.channel != nil {
		a.channel.Close()
	}
}

func (v *Invitation) end(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.endLocked(err)
}

// endLocked ends the code, with a device let in if err is nil.
func (v *Invitation) endLocked(err error) {
	if v.ended {
		return
	}
	v.ended, v.err = true, err
	why := err
	if why == nil {
		why = ErrUsed
	}
	for _, a := range slices.Clone(v.attempts) {
		if err == nil && a.proven {
			v.dropLocked(a)
			continue
		}
		v.refuseLocked(a, why)
	}
	v.expiry.Stop()
	v.cancel()
	close(v.over)
}
