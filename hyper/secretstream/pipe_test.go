package secretstream

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/noise"
)

// wire is one direction of a pipe in memory, which holds any number of bytes.
type wire struct {
	mu     sync.Mutex
	moved  sync.Cond
	buf    []byte
	all    []byte // everything that was written
	writes int
	closed bool
	chunk  int                   // the most that a read returns; 0 for all there is
	change func(at int, b *byte) // may change each byte
}

func newWire(chunk int) *wire {
	w := &wire{chunk: chunk}
	w.moved.L = &w.mu
	return w
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, io.ErrClosedPipe
	}
	w.writes++
	n := len(p)
	if w.change != nil {
		p = bytes.Clone(p)
		for i := range p {
			w.change(len(w.all)+i, &p[i])
		}
	}
	w.all = append(w.all, p...)
	w.buf = append(w.buf, p...)
	w.moved.Broadcast()
	return n, nil
}

func (w *wire) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.buf) == 0 && !w.closed {
		w.moved.Wait()
	}
	if len(w.buf) == 0 {
		return 0, io.EOF
	}
	if w.chunk > 0 {
		p = p[:min(len(p), w.chunk)]
	}
	n := copy(p, w.buf)
	w.buf = w.buf[n:]
	return n, nil
}

func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.moved.Broadcast()
}

// drop closes the wire and forgets what is on it.
func (w *wire) drop() {
	w.mu.Lock()
	w.buf = nil
	w.mu.Unlock()
	w.close()
}

// written is everything that was written, and in how many writes.
func (w *wire) written() ([]byte, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.all), w.writes
}

// end is one end of a pipe.
type end struct {
	in, out *wire
}

func (e end) Read(p []byte) (int, error)  { return e.in.Read(p) }
func (e end) Write(p []byte) (int, error) { return e.out.Write(p) }
func (e end) CloseWrite() error           { e.out.close(); return nil }

func (e end) Close() error {
	e.out.close()
	e.in.drop()
	return nil
}

// pipe returns two ends whose reads return at most chunk bytes, if that is not
// zero.
func pipe(chunk int) (a, b end) {
	x, y := newWire(chunk), newWire(chunk)
	return end{x, y}, end{y, x}
}

func seeded(b byte) noise.KeyPair { return noise.NewKeyPair([32]byte(bytes.Repeat([]byte{b}, 32))) }

// quiet are options of the peer with seed b that never send by themselves.
func quiet(b byte) Options { return Options{KeyPair: seeded(b), KeepAlive: -1} }

// shake returns both sides of a stream over a and b, with what went wrong. A
// side that failed is nil.
func shake(t testing.TB, a, b io.ReadWriteCloser, client, server Options) (c, s *Stream, cErr, sErr error) {
	t.Helper()
	return shakeFor(t, 20*time.Second, a, b, client, server)
}

// shakeFor is shake with a deadline.
func shakeFor(t testing.TB, d time.Duration, a, b io.ReadWriteCloser, client, server Options) (c, s *Stream, cErr, sErr error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s, sErr = Server(ctx, b, server) })
	c, cErr = Client(ctx, a, client)
	wg.Wait()
	for _, stream := range []*Stream{c, s} {
		if stream != nil {
			t.Cleanup(func() { stream.Close() })
		}
	}
	return c, s, cErr, sErr
}

// connect returns both sides of a stream over a and b.
func connect(t testing.TB, a, b io.ReadWriteCloser, client, server Options) (c, s *Stream) {
	t.Helper()
	c, s, cErr, sErr := shake(t, a, b, client, server)
	if cErr != nil || sErr != nil {
		t.Fatalf("client: %v; server: %v", cErr, sErr)
	}
	return c, s
}
