package dhtrelay

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A tube is one end of a stream that goes over a line. What was written comes
// in chunks, with their borders, if the other side writes so.
type tube struct {
	line *line
	self uint32 // the number by which this side sends
	peer uint32 // the number by which the other side does

	mu      sync.Mutex
	moved   sync.Cond
	chunks  [][]byte
	size    int
	first   []byte // what Read has left of a chunk
	ended   error  // what comes after the chunks: io.EOF or worse
	shut    bool   // this side has said that it is at the end
	failure error  // why neither direction goes on
	closed  bool   // this side has closed
	dropped int    // what has come since then
	linger  clock.Timer

	ctx    context.Context // ends when nothing more is written
	cancel context.CancelFunc
	broken chan struct{} // closed with failure
}

var _ transport.Conn = (*tube)(nil)

// attach makes an end of a stream.
func (l *line) attach(self, peer uint32) (*tube, error) {
	t := &tube{line: l, self: self, peer: peer, broken: make(chan struct{})}
	t.moved.L = &t.mu
	t.ctx, t.cancel = context.WithCancel(l.ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, ErrClosed
	}
	if l.tubes[peer] != nil {
		return nil, fmt.Errorf("%w: stream %d is there already", ErrProtocol, peer)
	}
	l.tubes[peer] = t
	return t, nil
}

func (l *line) tube(peer uint32) *tube {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tubes[peer]
}

func (l *line) detach(t *tube) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tubes[t.peer] == t {
		delete(l.tubes, t.peer)
	}
}

func (l *line) onData(payload []byte) error {
	var t *tube
	return readData(payload, func(alias uint32, chunk []byte) bool {
		if t == nil {
			t = l.tube(alias)
		}
		return t != nil && t.put(chunk)
	})
}

func (l *line) onEnd(payload []byte) error {
	var m numberMsg
	if err := read(payload, &m); err != nil {
		return err
	}
	if t := l.tube(m.number); t != nil {
		t.finish()
	}
	return nil
}

// put takes a chunk that has come. It waits while nobody reads, and keeps the
// line waiting with it. It reports whether more is wanted.
func (t *tube) put(chunk []byte) bool {
	kept, enough := t.keep(chunk)
	if enough != nil {
		t.abort(enough)
	}
	return kept
}

// keep also returns why it is enough: the other side goes on for too long after
// this one has closed, or there is no memory left.
func (t *tube) keep(chunk []byte) (kept bool, enough error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.size >= streamBuffer && t.ended == nil && !t.closed {
		stall := t.line.clock.AfterFunc(stallTime, func() { t.abort(ErrStalled) })
		for t.size >= streamBuffer && t.ended == nil && !t.closed {
			t.moved.Wait()
		}
		stall.Stop()
	}
	if t.ended != nil || t.closed {
		if t.dropped += len(chunk) + chunkOverhead; t.closed && t.dropped > streamBuffer {
			return false, ErrClosed
		}
		return false, nil
	}
	if !t.line.memory.take(len(chunk) + chunkOverhead) {
		return false, fmt.Errorf("%w bytes that nobody reads", ErrTooMany)
	}
	t.chunks = append(t.chunks, append([]byte(nil), chunk...))
	t.size += len(chunk) + chunkOverhead
	t.moved.Broadcast()
	return true, nil
}

// chunkOverhead is what each chunk counts in addition to its bytes.
const chunkOverhead = 64

// finish is the end in order of what the other side writes.
func (t *tube) finish() {
	t.mu.Lock()
	if t.ended == nil {
		t.ended = io.EOF
		t.moved.Broadcast()
	}
	done := t.doneLocked()
	t.mu.Unlock()
	if done {
		t.line.detach(t)
		t.cancel()
	}
}

// doneLocked reports whether both sides have ended, and nobody waits for more.
func (t *tube) doneLocked() bool {
	done := t.shut && t.ended != nil
	if done && t.linger != nil {
		t.linger.Stop()
	}
	return done
}

// fail ends both directions because of the other side, or of the line.
func (t *tube) fail(reason error) {
	t.line.detach(t)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failure != nil {
		return
	}
	t.failure, t.shut = reason, true
	if t.ended == nil {
		t.ended = reason
	}
	t.doneLocked()
	t.cancel()
	close(t.broken)
	t.moved.Broadcast()
}

// abort ends both directions, and lets the other side know why.
func (t *tube) abort(reason error) {
	if t.line.tube(t.peer) == t {
		text := ""
		if reason != nil {
			text = reason.Error()
		} else {
			reason = ErrClosed
		}
		t.line.send(numDestroy, &destroyMsg{paired: true, alias: t.self, reason: text}) // a mux that is full is about to end
	}
	t.fail(reason)
}

// next returns the next chunk, or what comes after the last.
func (t *tube) next() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.waitLocked(); err != nil {
		return nil, err
	}
	if first := t.first; first != nil {
		t.first = nil
		return first, nil
	}
	return t.takeLocked(), nil
}

// waitLocked waits until there is something to read.
func (t *tube) waitLocked() error {
	for t.first == nil && len(t.chunks) == 0 && t.ended == nil && !t.closed {
		t.moved.Wait()
	}
	switch {
	case t.closed:
		return ErrClosed
	case t.first == nil && len(t.chunks) == 0:
		return t.ended
	}
	return nil
}

func (t *tube) takeLocked() []byte {
	chunk := t.chunks[0]
	t.chunks[0] = nil
	t.chunks = t.chunks[1:]
	t.size -= len(chunk) + chunkOverhead
	t.line.memory.give(len(chunk) + chunkOverhead)
	t.moved.Broadcast()
	return chunk
}

// Read implements transport.Conn.
func (t *tube) Read(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(p) == 0 && !t.closed {
		return 0, nil
	}
	for {
		if err := t.waitLocked(); err != nil {
			return 0, err
		}
		if t.first == nil {
			t.first = t.takeLocked()
		}
		n := copy(p, t.first)
		if t.first = t.first[n:]; len(t.first) == 0 {
			t.first = nil
		}
		if n > 0 {
			return n, nil
		}
	}
}

// Write implements transport.Conn.
func (t *tube) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		some := p[:min(len(p), chunkSize)]
		if err := t.writeChunk(some); err != nil {
			return n, err
		}
		p, n = p[len(some):], n+len(some)
	}
	return n, nil
}

// writeChunk sends a chunk as it is. It waits while the line is busy.
func (t *tube) writeChunk(p []byte) error {
	if err := t.writable(); err != nil {
		return err
	}
	waited := t.line.mux.Wait(t.ctx)
	if err := t.writable(); err != nil {
		return err
	}
	if waited == nil {
		waited = t.line.channel.Send(numData, dataHead(t.self, len(p)), p)
	}
	if waited != nil {
		return fmt.Errorf("%w: %w", ErrClosed, waited)
	}
	return nil
}

func (t *tube) writable() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return ErrClosed
	case t.failure != nil:
		return t.failure
	case t.shut:
		return fmt.Errorf("write after the end: %w", ErrClosed)
	}
	return nil
}

// CloseWrite implements transport.Conn.
func (t *tube) CloseWrite() error {
	t.mu.Lock()
	closed, failure := t.closed, t.failure
	t.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if failure != nil {
		return failure
	}
	t.end()
	return nil
}

// end says that there is no more, once.
func (t *tube) end() {
	t.mu.Lock()
	said := t.shut
	t.shut = true
	done := t.doneLocked()
	t.mu.Unlock()
	if !said {
		t.line.send(numEnd, &numberMsg{t.self}) // a mux that is full is about to end
	}
	if done {
		t.line.detach(t)
		t.cancel()
	}
}

// Close implements transport.Conn. The other side gets what was written, and
// some time to end, too.
func (t *tube) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	t.line.memory.give(t.size)
	t.chunks, t.first, t.size = nil, nil, 0
	t.cancel()
	if t.ended == nil {
		t.linger = t.line.clock.AfterFunc(lingerTime, func() { t.abort(nil) })
	}
	t.moved.Broadcast()
	t.mu.Unlock()
	t.end()
	return nil
}

// Remote implements transport.Conn.
func (t *tube) Remote() string { return "relay" }
