package dhtrelay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A line is a connection between a client and a relay, as either of them has
// it: the channel, its heartbeat and the streams.
type line struct {
	mux     *protomux.Mux
	channel *protomux.Channel
	clock   clock.Clock
	ctx     context.Context // ends with the line
	cancel  context.CancelCauseFunc
	memory  budget

	mu      sync.Mutex
	ended   bool
	number  uint32           // the last that was given
	tubes   map[uint32]*tube // by the other side's number
	heard   time.Time
	writing time.Time // since when a write waits; zero if none does
	beating clock.Timer
}

// open begins a line whose messages go to these handlers.
func (l *line) open(o protomux.Options, c clock.Clock, handlers map[int]func(payload []byte) error) error {
	if c == nil {
		c = clock.System
	}
	l.mux, l.clock, l.tubes, l.heard = protomux.New(o), c, map[uint32]*tube{}, c.Now()
	l.memory.max = lineBuffer
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	handlers[numPing] = func([]byte) error { return l.send(numPong, &pingMsg{}) }
	handlers[numPong] = func([]byte) error { return nil }
	handlers[numData] = l.onData
	handlers[numEnd] = l.onEnd
	messages := make([]func(*protomux.Channel, []byte) error, numMessages)
	for number, handle := range handlers {
		messages[number] = func(_ *protomux.Channel, payload []byte) error { return handle(payload) }
	}
	var err error
	l.channel, err = l.mux.Open(protomux.ChannelOptions{
		Protocol: protocol,
		Messages: messages,
		OnFrame:  func(*protomux.Channel) { l.hear() },
		OnClose:  func(_ *protomux.Channel, reason error) { l.mux.Destroy(reason) },
	})
	return err
}

// serve runs the line over a stream until it ends, and returns why.
func (l *line) serve(ctx context.Context, stream protomux.Stream) error {
	l.mu.Lock()
	if !l.ended {
		l.beating = l.clock.AfterFunc(heartbeat, l.beat)
	}
	l.mu.Unlock()
	defer context.AfterFunc(ctx, func() { l.end(context.Cause(ctx)) })()
	err := l.mux.Serve(ctx, &watched{stream, l})
	if errors.Is(err, protomux.ErrClosed) { // this side has destroyed it, without a reason
		err = nil
	}
	l.end(err)
	return err
}

// end ends the line on this side.
func (l *line) end(reason error) {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return
	}
	l.ended = true
	tubes := l.tubes
	l.tubes = map[uint32]*tube{}
	if l.beating != nil {
		l.beating.Stop()
	}
	l.mu.Unlock()
	why := fmt.Errorf("relay connection: %w", ErrClosed)
	if reason != nil {
		why = fmt.Errorf("relay connection: %w: %w", ErrClosed, reason)
	}
	l.cancel(why)
	for _, t := range tubes {
		t.fail(why)
	}
	l.mux.Destroy(reason)
}

func (l *line) hear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = l.clock.Now()
}

// writes notes since when a write waits.
func (l *line) writes(begun bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writing = (time.Time{}); begun {
		l.writing = l.clock.Now()
	}
}

// A watched stream lets its line know when the other side doesn't read.
type watched struct {
	protomux.Stream
	l *line
}

func (w *watched) Queue(message []byte) error {
	w.l.writes(true)
	defer w.l.writes(false)
	return w.Stream.Queue(message)
}

func (w *watched) Flush() error {
	w.l.writes(true)
	defer w.l.writes(false)
	return w.Stream.Flush()
}

// beat sends a ping, or ends a line whose other side says nothing, or doesn't
// read.
func (l *line) beat() {
	now := l.clock.Now()
	l.mu.Lock()
	dead := now.Sub(l.heard) >= silence || !l.writing.IsZero() && now.Sub(l.writing) >= busyTime
	if !l.ended && !dead {
		l.beating = l.clock.AfterFunc(heartbeat, l.beat)
	}
	l.mu.Unlock()
	if dead {
		l.mux.Destroy(ErrTimeout)
		return
	}
	l.send(numPing, &pingMsg{}) // a mux that is full is about to end
}

func (l *line) send(number int, m message) error { return l.channel.Send(number, write(m)) }

// next gives a number to something.
func (l *line) next() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.number++; l.number == 0 {
		l.number++
	}
	return l.number
}

// A budget is how many bytes may be kept.
type budget struct {
	max   int64
	above *budget // has to have them, too
	used  atomic.Int64
}

func (b *budget) take(n int) bool {
	if b == nil {
		return true
	}
	if b.used.Add(int64(n)) > b.max || !b.above.take(n) {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

func (b *budget) give(n int) {
	for ; b != nil; b = b.above {
		b.used.Add(-int64(n))
	}
}

// Messages makes a stream for a mux of a connection: each message is a frame,
// and has at most max bytes.
func messages(conn transport.MessageConn, max int) protomux.Stream {
	return &messageStream{conn: conn, max: max}
}

type messageStream struct {
	conn transport.MessageConn
	max  int
	in   []byte
}

// keepBuffer is how large a buffer may be that is used again.
const keepBuffer = 256 << 10

func (s *messageStream) Next() ([]byte, error) {
	if cap(s.in) > keepBuffer {
		s.in = nil
	}
	var err error
	s.in, err = s.conn.ReadMessage(s.in[:0], s.max)
	return s.in, err
}

func (s *messageStream) Queue(message []byte) error { return s.conn.WriteMessage(message) }
func (s *messageStream) Flush() error               { return nil }
func (s *messageStream) Close() error               { return s.conn.Close() }
