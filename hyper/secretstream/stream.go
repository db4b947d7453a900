package secretstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
)

const (
	lengthSize = 3
	headerBody = 32 + HeaderSize

	// maxHandshake is the most a stranger may send in one frame of a handshake.
	// The npm packages send 96 bytes at most.
	maxHandshake = 1024

	// A buffer is small while the stream is idle, grows with what moves, and is
	// given back from large on once it is empty.
	smallBuffer = 4 << 10
	busyBuffer  = 128 << 10
	largeBuffer = 512 << 10

	// maxQueued is how much Queue keeps before it writes.
	maxQueued = 64 << 10
)

// A Stream carries messages to and from one peer. It owns the connection under
// it. One goroutine may read while others write; writes wait for one another.
//
// A Stream has no goroutine of its own. The one that reads is the caller's.
// Timers of the Clock send what keeps it alive, and a short goroutine at the
// start sends the header, which [Stream.Close] waits for.
//
// The first error of a read or write, other than the orderly end of what is to
// be read, ends the stream: it is closed, and every later call fails with that
// error.
type Stream struct {
	conn       io.ReadWriteCloser
	session    noise.Session
	clock      clock.Clock
	keepAlive  time.Duration
	timeout    time.Duration
	maxMessage int

	cause      atomic.Pointer[error] // why the stream has ended
	background sync.WaitGroup
	beats      alarm
	watch      alarm

	sent, received atomic.Uint64 // bytes of the connection

	// waitMu guards since when a read of the connection waits; zero if none does.
	waitMu  sync.Mutex
	waiting time.Time

	// For the goroutine that reads.
	pull  *Pull  // nil before the header
	in    []byte // what was read is in in[r:w], with headroom before r and tailroom after w
	r, w  int
	full  bool  // the last read left no room
	ended error // what the last read of the connection returned

	// mu guards what follows.
	mu        sync.Mutex
	push      *Push
	out       []byte // headroom, and what is to be written
	lastWrite time.Time
	halfShut  bool // CloseWrite was called
}

// Client shakes hands over conn as the initiator. It returns once it knows who
// the server is; what the server thinks of the client is only known when a
// message of it is read.
//
// The stream owns conn, which is closed if Client fails. The end of ctx before
// Client returns ends the handshake; later it changes nothing.
func Client(ctx context.Context, conn io.ReadWriteCloser, o Options) (*Stream, error) {
	return start(ctx, conn, o, true)
}

// Server shakes hands over conn as the responder, and returns once it knows
// who the client is. It is otherwise like [Client]. As a client may keep a
// server waiting, ctx should have a deadline.
func Server(ctx context.Context, conn io.ReadWriteCloser, o Options) (*Stream, error) {
	return start(ctx, conn, o, false)
}

// New begins a stream with the keys of a handshake that was held elsewhere, as
// hyperdht does. Nothing of it goes over conn, and Options.KeyPair and
// Options.Check are not used. A session may be used for one stream only. The
// stream owns conn, which is closed if New fails.
func New(conn io.ReadWriteCloser, session noise.Session, o Options) (*Stream, error) {
	s := newStream(conn, o)
	if err := s.establish(session, o); err != nil {
		return nil, errors.Join(fmt.Errorf("begin stream: %w", err), conn.Close())
	}
	s.begin()
	return s, nil
}

func start(ctx context.Context, conn io.ReadWriteCloser, o Options, initiator bool) (*Stream, error) {
	s := newStream(conn, o)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err := s.handshake(o, initiator)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close() // the error that matters is the first
		return nil, fmt.Errorf("handshake: %w", err)
	}
	s.begin()
	return s, nil
}

func newStream(conn io.ReadWriteCloser, o Options) *Stream {
	s := &Stream{
		conn:       conn,
		clock:      o.Clock,
		keepAlive:  o.KeepAlive,
		timeout:    o.Timeout,
		maxMessage: o.MaxMessage,
		out:        make([]byte, headroom, smallBuffer),
		in:         make([]byte, smallBuffer),
		r:          headroom,
		w:          headroom,
	}
	if s.clock == nil {
		s.clock = clock.System
	}
	if s.keepAlive == 0 {
		s.keepAlive = DefaultKeepAlive
	}
	if s.maxMessage <= 0 || s.maxMessage > MaxMessage {
		s.maxMessage = MaxMessage
	}
	return s
}

// handshake agrees on keys. What it wrote last may still be in s.out.
func (s *Stream) handshake(o Options, initiator bool) error {
	h, err := noise.New(noise.Config{Pattern: noise.XX, Initiator: initiator, Static: o.KeyPair, Random: o.Random})
	if err != nil {
		return err
	}
	checked := false
	for !h.Done() {
		if h.MyTurn() {
			msg, err := h.WriteMessage(nil, nil)
			if err != nil {
				return err
			}
			s.out = append(appendLength(s.out, len(msg)), msg...)
			continue
		}
		if err := s.flushLocked(); err != nil { // nobody else has the stream yet
			return err
		}
		at, n, err := s.frame(maxHandshake)
		if err != nil {
			return fmt.Errorf("read handshake message: %w", notEOF(err))
		}
		if _, err := h.ReadMessage(s.in[at : at+n]); err != nil {
			return err
		}
		if remote, known := h.RemoteStatic(); known && !checked && o.Check != nil {
			checked = true
			if err := o.Check(remote); err != nil {
				return fmt.Errorf("%w: %w", ErrRefused, err)
			}
		}
	}
	session, err := h.Split()
	if err != nil {
		return err
	}
	return s.establish(session, o)
}

// establish takes the keys of a session and queues the header.
func (s *Stream) establish(session noise.Session, o Options) error {
	random := o.Random
	if random == nil {
		random = rand.Reader
	}
	push, header, err := NewPush(session.Tx, random)
	if err != nil {
		return err
	}
	s.session, s.push = session, push
	id := streamID(&session.Hash, session.Initiator)
	s.out = append(appendLength(s.out, headerBody), id[:]...)
	s.out = append(s.out, header[:]...)
	return nil
}

// begin writes the header, or lets the first message take it along. To wait
// for that here would keep two sides of a pipe without a buffer waiting for
// each other.
func (s *Stream) begin() {
	s.lastWrite = s.clock.Now()
	s.background.Go(func() { s.Flush() }) // an error is the stream's
	if s.keepAlive > 0 {
		s.beats.set(s.clock, s.keepAlive, s.beat)
	}
	if s.timeout > 0 {
		s.watch.set(s.clock, s.timeout, s.look)
	}
}

// Traffic returns how many bytes went over the connection so far, as they are
// there: encrypted and framed.
func (s *Stream) Traffic() (sent, received uint64) { return s.sent.Load(), s.received.Load() }

// LocalKey returns the key this side is known by.
func (s *Stream) LocalKey() noise.Key { return s.session.Local }

// RemoteKey returns the key of the other side.
func (s *Stream) RemoteKey() noise.Key { return s.session.Remote }

// HandshakeHash returns what is unique to this connection and the same on both
// sides. What is bound to it can't be used on another.
func (s *Stream) HandshakeHash() [noise.HashSize]byte { return s.session.Hash }

// Initiator reports whether this side is the client.
func (s *Stream) Initiator() bool { return s.session.Initiator }

// WriteMessage sends p, after what is queued. It does not keep p. It blocks
// until the connection has taken all of it; Close makes it return.
func (s *Stream) WriteMessage(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.queueLocked(p); err != nil {
		return err
	}
	return s.flushLocked()
}

// Queue seals p for the next Flush or WriteMessage, so that many messages
// share one write of the connection. It does not keep p. When more than 64 KiB
// are queued it writes them, and blocks for that.
func (s *Stream) Queue(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.queueLocked(p); err != nil {
		return err
	}
	if len(s.out) < maxQueued {
		return nil
	}
	return s.flushLocked()
}

// Flush sends what is queued. It blocks until the connection has taken it.
func (s *Stream) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushLocked()
}

// CloseWrite sends what is queued and tells the other side that there will be
// no more. Reading goes on. It fails with [errors.ErrUnsupported] if the
// connection has no CloseWrite method, or that says so; then nothing changes.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.flushLocked(); err != nil {
		return err
	}
	half, ok := s.conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("close for writing: %w", errors.ErrUnsupported)
	}
	if err := half.CloseWrite(); errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("close for writing: %w", err)
	} else if err != nil {
		return s.end(fmt.Errorf("close for writing: %w", err))
	}
	s.halfShut = true
	s.beats.stop()
	return nil
}

// Close ends the stream and closes the connection. What is queued is dropped.
// Reads and writes under way return with [ErrClosed].
func (s *Stream) Close() error {
	var err error
	if s.cause.CompareAndSwap(nil, &errClosed) {
		err = s.conn.Close()
	}
	s.beats.stop()
	s.watch.stop()
	s.background.Wait()
	return err
}

var errClosed = ErrClosed

// end closes the connection and remembers why, unless it has ended already. It
// returns why it has.
func (s *Stream) end(cause error) error {
	if s.cause.CompareAndSwap(nil, &cause) {
		s.conn.Close() // the error that matters is the cause
		s.beats.stop()
		s.watch.stop()
	}
	return *s.cause.Load()
}

// queueLocked seals a message behind what is to be written.
func (s *Stream) queueLocked(p []byte) error {
	if cause := s.cause.Load(); cause != nil {
		return *cause
	}
	if s.halfShut {
		return fmt.Errorf("write message: %w", ErrClosed)
	}
	if len(p) > MaxMessage {
		return fmt.Errorf("write message of %d bytes: %w", len(p), ErrTooLarge)
	}
	n := len(p) + Overhead
	s.out = slices.Grow(s.out, lengthSize+n+tailroom)
	s.out = appendLength(s.out, n)
	at := len(s.out)
	s.out = s.out[:at+n]
	copy(s.out[at+1:], p)
	s.push.seal(s.out, at, TagMessage)
	return nil
}

func (s *Stream) flushLocked() error {
	if cause := s.cause.Load(); cause != nil {
		return *cause
	}
	if len(s.out) == headroom {
		return nil
	}
	n, err := s.conn.Write(s.out[headroom:])
	s.sent.Add(uint64(n))
	if err != nil {
		return s.end(fmt.Errorf("write to connection: %w", err))
	}
	s.out = s.out[:headroom]
	if cap(s.out) > largeBuffer {
		s.out = make([]byte, headroom, smallBuffer)
	}
	if s.keepAlive > 0 {
		s.lastWrite = s.clock.Now()
	}
	return nil
}

// beat sends an empty message if nothing was sent for long enough.
func (s *Stream) beat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := s.keepAlive - s.clock.Now().Sub(s.lastWrite)
	if wait <= 0 {
		if len(s.out) == headroom && cap(s.out) > smallBuffer {
			s.out = make([]byte, headroom, smallBuffer)
		}
		if s.queueLocked(nil) != nil || s.flushLocked() != nil {
			return // there is nothing to keep alive
		}
		wait = s.keepAlive
	}
	s.beats.set(s.clock, wait, s.beat)
}

// look ends the stream if a read has waited for too long.
func (s *Stream) look() {
	wait := s.timeout
	s.waitMu.Lock()
	if !s.waiting.IsZero() {
		wait -= s.clock.Now().Sub(s.waiting)
	}
	s.waitMu.Unlock()
	if wait <= 0 {
		s.end(ErrTimeout)
		return
	}
	s.watch.set(s.clock, wait, s.look)
}

// ReadMessage appends the next message to buf and returns it. It blocks until
// there is one; Close makes it return. At the end, which the other side may
// declare after any message, it returns [io.EOF], and writing goes on.
func (s *Stream) ReadMessage(buf []byte) ([]byte, error) {
	p, err := s.Next()
	return append(buf, p...), err
}

// Next returns the next message like ReadMessage, without a copy: it may be
// used and changed until the next call of Next or ReadMessage.
func (s *Stream) Next() ([]byte, error) {
	p, err := s.next()
	switch {
	case err == nil:
		return p, nil
	case s.cause.Load() != nil:
		return nil, *s.cause.Load()
	case err == io.EOF:
		return nil, err
	}
	return nil, s.end(err)
}

func (s *Stream) next() ([]byte, error) {
	if s.pull == nil {
		if err := s.readHeader(); err != nil {
			return nil, fmt.Errorf("read header: %w", notEOF(err))
		}
	}
	for {
		at, n, err := s.frame(s.maxMessage + Overhead)
		if err != nil {
			return nil, err
		}
		if n < Overhead {
			return nil, fmt.Errorf("read message: %w of %d bytes", ErrInvalid, n)
		}
		n -= Overhead
		if _, err := s.pull.open(s.in, at, n); err != nil {
			return nil, fmt.Errorf("read message: %w", err)
		}
		if n > 0 || s.keepAlive < 0 {
			return s.in[at+1 : at+1+n : at+1+n], nil
		}
		if len(s.in) > smallBuffer && s.w-s.r < smallBuffer/2 {
			s.resize(smallBuffer) // the other side has nothing to say
		}
	}
}

func (s *Stream) readHeader() error {
	at, n, err := s.frame(s.maxMessage + Overhead)
	if err != nil {
		return err
	}
	if n != headerBody {
		return fmt.Errorf("%w of %d bytes", ErrInvalid, n)
	}
	body := s.in[at : at+n]
	if [32]byte(body) != streamID(&s.session.Hash, !s.session.Initiator) {
		return fmt.Errorf("%w: not of this stream", ErrInvalid)
	}
	s.pull = NewPull(s.session.Rx, [HeaderSize]byte(body[32:]))
	return nil
}

// frame reads a frame of at most max bytes, which is then s.in[at:at+n].
func (s *Stream) frame(max int) (at, n int, err error) {
	if err := s.fill(lengthSize); err != nil {
		return 0, 0, err
	}
	n = int(s.in[s.r]) | int(s.in[s.r+1])<<8 | int(s.in[s.r+2])<<16
	if n > max {
		return 0, 0, fmt.Errorf("read frame of %d bytes: %w", n, ErrTooLarge)
	}
	if err := s.fill(lengthSize + n); err != nil {
		return 0, 0, fmt.Errorf("read frame of %d bytes: %w", n, notEOF(err))
	}
	at = s.r + lengthSize
	s.r = at + n
	return at, n, nil
}

// fill reads until n bytes are there. It returns io.EOF only if none is.
func (s *Stream) fill(n int) error {
	idle := 0
	for s.w-s.r < n {
		if s.ended != nil {
			if s.ended == io.EOF && s.w > s.r {
				return io.ErrUnexpectedEOF
			}
			return s.ended
		}
		s.makeRoom(n)
		space := s.in[s.w : len(s.in)-tailroom]
		got, err := s.read(space)
		s.w += got
		s.full = got == len(space)
		if err != nil && err != io.EOF {
			err = fmt.Errorf("read from connection: %w", err)
		}
		if idle++; got > 0 {
			idle = 0
		}
		if idle == 100 && err == nil {
			err = io.ErrNoProgress
		}
		s.ended = err
	}
	return nil
}

func (s *Stream) read(p []byte) (n int, err error) {
	defer func() { s.received.Add(uint64(n)) }()
	if s.timeout <= 0 {
		return s.conn.Read(p)
	}
	s.waits(s.clock.Now())
	defer s.waits(time.Time{})
	return s.conn.Read(p)
}

func (s *Stream) waits(since time.Time) {
	s.waitMu.Lock()
	defer s.waitMu.Unlock()
	s.waiting = since
}

// makeRoom sees to it that there is space to read into, on the way to n bytes.
// What a peer only announces takes little memory: over 128 KiB, the buffer is
// at most twice as large as what has arrived.
func (s *Stream) makeRoom(n int) {
	have := s.w - s.r
	size := len(s.in) - headroom - tailroom
	switch {
	case have == 0 && size > largeBuffer:
		s.resize(smallBuffer)
	case have == 0 && s.full && size < busyBuffer:
		s.resize(2*size + headroom + tailroom)
	case have == size:
		s.resize(min(n, max(2*size, busyBuffer)) + headroom + tailroom)
	case s.r > headroom && (have == 0 || s.r+n > len(s.in)-tailroom):
		copy(s.in[headroom:], s.in[s.r:s.w])
		s.r, s.w = headroom, headroom+have
	}
}

// resize takes another buffer, which has room for what is in the old one.
func (s *Stream) resize(size int) {
	in := make([]byte, size)
	s.w = headroom + copy(in[headroom:len(in)-tailroom], s.in[s.r:s.w])
	s.r = headroom
	s.in = in
}

// notEOF is for places where the end is not in order.
func notEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func appendLength(b []byte, n int) []byte {
	return append(b, byte(n), byte(n>>8), byte(n>>16))
}

// An alarm is a call to come that can be put off, and called off for good.
type alarm struct {
	mu    sync.Mutex
	timer clock.Timer
	off   bool
}

func (a *alarm) set(c clock.Clock, d time.Duration, f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.off {
		a.timer = c.AfterFunc(d, f)
	}
}

func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.off = true
	if a.timer != nil {
		a.timer.Stop()
	}
}
