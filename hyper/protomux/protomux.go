// Package protomux carries many channels over one stream of messages. Each
// channel speaks one protocol about one thing, such as replication of one log.
//
// It is a port of the npm package protomux 3.12 and speaks with it; the golden
// files in testdata come from it. It encrypts nothing and knows no protocol:
// the stream is one of hyper/secretstream, the protocols are above.
//
// A [Mux] does no I/O: frames go in by [Mux.Receive] and come out by
// [Mux.Take], so two of them can be joined in a test. [Mux.Serve] runs one
// over a [Stream]:
//
//	m := protomux.New(protomux.Options{})
//	c, err := m.Open(protomux.ChannelOptions{
//		Protocol: "chat",
//		Messages: []func(*protomux.Channel, []byte) error{onText},
//	})
//	err = c.Send(0, []byte("hello")) // message 0 of the protocol
//	err = m.Serve(ctx, stream)
//
// # Opening
//
// A channel is open when both sides have opened one of the same protocol and
// id. Each may send before that. A side learns of what the other opened from
// the function that it gave to [Mux.Pair], and opens its own there, or the
// channel is rejected. Messages that come before are kept, in bounds.
//
// # On the wire
//
// A frame is the sender's number of the channel, the number of the message in
// the protocol, and the payload. Channel 0 is for control: 0 is a batch of
// messages in one frame, 1 opens, 2 rejects, 3 closes. Numbers of channels are
// used again, the one that was freed last first. Messages with numbers that a
// protocol does not have are ignored, and so is what follows the part of a
// payload that a side knows: that is how protocols grow.
package protomux

import (
	"errors"
	"iter"
	"sync"
)

// MaxFrame is the most bytes of a frame, which is what one message of a
// secret-stream holds.
const MaxFrame = 1<<24 - 1 - 17

// MaxPayload is the most bytes of a message's payload.
const MaxPayload = MaxFrame - maxOverhead

const (
	// maxOverhead is more than what a batch adds to the payload of its only
	// message: a byte for each zero, and three numbers.
	maxOverhead = 2 + 9 + 9 + 9

	// maxBatch is from where on a batch takes no more messages (protomux,
	// MAX_BATCH).
	maxBatch = 8 << 20

	// pauseBuffered is how much of messages for channels that are not open yet
	// is kept before the stream is paused, and perMessage is what each counts in
	// addition to its bytes (protomux, MAX_BUFFERED and byteSize).
	pauseBuffered = 32 << 10
	perMessage    = 512

	// maxBuffered is where that ends the stream. A peer can get that far within
	// one frame only, before it notices the pause.
	maxBuffered = 16 << 20

	// maxName is the most bytes of the name of a protocol, and of an id.
	maxName = 1 << 10

	// highWater is how much is queued before Drained is false.
	highWater = 256 << 10

	// keepBuffer is how large a buffer may be that outlives a pause, and
	// shareBuffer how large one that others get then.
	keepBuffer  = 64 << 10
	shareBuffer = 1 << 20
)

// The numbers of control messages.
const (
	controlBatch = iota
	controlOpen
	controlReject
	controlClose
)

// Defaults of [Options].
const (
	DefaultMaxChannels = 4096
	DefaultMaxQueued   = 64 << 20
)

// The kinds of error of this package. They come wrapped: test with
// [errors.Is].
var (
	// ErrClosed means that the channel, or the mux with all of its channels, was
	// closed. As the reason that OnClose gets, it means by the other side.
	ErrClosed = errors.New("channel closed")
	// ErrRejected means that the other side does not want such a channel, or not
	// one more.
	ErrRejected = errors.New("channel rejected")
	// ErrExists means that there is a channel of that protocol and id already.
	ErrExists = errors.New("channel exists")
	// ErrTooMany means that there are as many channels as there may be.
	ErrTooMany = errors.New("too many channels")
	// ErrTooLarge means that a payload, a name or what is kept for channels that
	// are not open is over its limit.
	ErrTooLarge = errors.New("over the limit")
	// ErrFull means that as much is queued as may be. What was to be sent was
	// not.
	ErrFull = errors.New("queue full")
	// ErrProtocol means that the other side broke the rules of protomux.
	ErrProtocol = errors.New("protomux violation")
)

// Options bound what a mux takes. Its zero value is right.
type Options struct {
	// MaxChannels is how many channels each side may have open at a time:
	// [DefaultMaxChannels] if it is zero. More are rejected; numbers of channels
	// that reach four times that end the stream.
	MaxChannels int
	// MaxQueued is how many bytes may wait to be written: [DefaultMaxQueued] if
	// it is zero. Then Send fails with [ErrFull].
	MaxQueued int
}

// ChannelOptions say what a channel is. All but Protocol may be left out.
//
// The functions are called one after the other, never two at a time over all
// channels of the mux, and may call anything of this package but Receive,
// Dispatch and Serve. An error they return ends the mux, as a broken protocol
// leaves nothing else to do. What they block keeps the whole stream waiting.
type ChannelOptions struct {
	// Protocol names what is spoken. Aliases are names by which the other side
	// may call the same, such as older ones.
	Protocol string
	Aliases  []string
	// ID tells what it is spoken about. Nil and empty are the same. It is kept
	// and must not be changed.
	ID []byte
	// Handshake is what the other side's OnOpen gets. It is not kept.
	Handshake []byte
	// Shared lets there be more than one channel of the protocol and id.
	Shared bool
	// Messages get the payloads of the protocol's messages, by their numbers.
	// Nil ones are ignored. The payload is valid during the call.
	Messages []func(c *Channel, payload []byte) error
	// OnOpen is called once the other side has opened the channel too, before
	// any message. The handshake is valid during the call.
	OnOpen func(c *Channel, handshake []byte) error
	// OnFrame is called after messages of the channel that came together, when the
	// last of them was dealt with: the time for what is better done once for all.
	OnFrame func(c *Channel)
	// OnClose is called once, when the channel is closed: with nil if this side
	// did, ErrClosed if the other did, ErrRejected, or what ended the mux.
	OnClose func(c *Channel, reason error)
	// OnDrain is called when Drained was false and is true again.
	OnDrain func(c *Channel)
}

// A Request is a channel that the other side has opened, and this side hasn't.
// It is answered by [Mux.Open] with the same protocol and id.
type Request struct {
	// Protocol and ID are what the other side calls it.
	Protocol string
	ID       []byte
	// Handshake is what came with it. It must not be changed.
	Handshake []byte

	mux   *Mux
	inlet *inlet
	held  bool // guarded by mux.mu
}

// Hold lets the request wait for its answer, which is Open or Reject, after
// the function that got it returns. If much comes for it meanwhile, the whole
// stream waits.
func (r *Request) Hold() {
	r.mux.mu.Lock()
	defer r.mux.mu.Unlock()
	r.held = true
}

// Reject says no. It does nothing if the request was answered.
func (r *Request) Reject() {
	r.mux.mu.Lock()
	defer r.mux.mu.Unlock()
	r.mux.rejectLocked(r.inlet)
}

// Frames are messages for the stream, in order.
type Frames struct {
	buf  []byte
	ends []int
}

// Len returns how many there are.
func (f *Frames) Len() int { return len(f.ends) }

// All iterates over the frames, which are valid until f is used again.
func (f *Frames) All() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		start := 0
		for _, end := range f.ends {
			if !yield(f.buf[start:end:end]) {
				return
			}
			start = end
		}
	}
}

// reset forgets the frames.
func (f *Frames) reset() { f.buf, f.ends = f.buf[:0], f.ends[:0] }

// shrink gives back the memory, if it is much and holds nothing.
func (f *Frames) shrink() {
	if len(f.buf) == 0 && cap(f.buf) > keepBuffer {
		if cap(f.buf) <= shareBuffer {
			shared := f.buf
			buffers.Put(&shared)
		}
		*f = Frames{}
	}
}

// buffers are of muxes that pause. What nobody takes is gone with the next
// garbage collections.
var buffers sync.Pool // of *[]byte

// grow makes room for so many bytes more. It doubles, which append does not for
// what is large.
func (f *Frames) grow(size int) {
	if cap(f.buf)-len(f.buf) >= size {
		return
	}
	old := f.buf
	if size += len(old); size > keepBuffer {
		if b, ok := buffers.Get().(*[]byte); ok && cap(*b) >= size {
			f.buf = append((*b)[:0], old...)
			return
		}
	}
	f.buf = append(make([]byte, 0, max(size, 2*cap(old))), old...)
}

// end is the end of a frame that was appended to f.buf.
func (f *Frames) end() { f.ends = append(f.ends, len(f.buf)) }
