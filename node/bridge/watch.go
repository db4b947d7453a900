package bridge

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// A watch is the context of a request. It ends when data is waited for too long,
// and ends the connection when the client is. It costs nothing until somebody
// waits.
type watch struct {
	request context.Context
	clock   clock.Clock
	data    time.Duration // patience with those who have it
	client  time.Duration // patience with the client
	writing atomic.Bool   // the client is waited for
	last    atomic.Int64  // when something came
	late    time.Time     // the client's deadline; one goroutine's

	mu      sync.Mutex      // guards the fields below
	waits   context.Context // nil until somebody waits
	cancel  context.CancelCauseFunc
	timer   clock.Timer
	stopped bool
}

var _ context.Context = (*watch)(nil)

func newWatch(ctx context.Context, o Options) *watch {
	return &watch{request: ctx, clock: o.Clock, data: o.Patience, client: o.WriteTimeout}
}

// begun returns the context of those who wait, which is the request's if nobody
// does.
func (w *watch) begun() context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waits == nil {
		return w.request
	}
	return w.waits
}

// Done implements context.Context.
func (w *watch) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waits == nil {
		w.waits, w.cancel = context.WithCancelCause(w.request)
		if w.stopped {
			w.cancel(nil)
		} else {
			w.last.Store(w.clock.Now().UnixNano())
			w.timer = w.clock.AfterFunc(w.data, w.expire)
		}
	}
	return w.waits.Done()
}

// Err implements context.Context.
func (w *watch) Err() error { return w.begun().Err() }

// Value implements context.Context.
func (w *watch) Value(key any) any { return w.begun().Value(key) }

// Deadline implements context.Context.
func (w *watch) Deadline() (time.Time, bool) { return w.request.Deadline() }

// expire looks how long nothing came.
func (w *watch) expire() {
	left := w.data - time.Duration(w.clock.Now().UnixNano()-w.last.Load())
	if w.writing.Load() {
		left = w.data
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.stopped || w.timer == nil:
	case left <= 0:
		w.cancel(ErrUnreachable)
	default:
		w.timer = w.clock.AfterFunc(left, w.expire)
	}
}

// forEver has the watch wait for data as long as the client does.
func (w *watch) forEver() {
	w.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.timer = nil
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.waits != nil {
		if w.timer != nil {
			w.timer.Stop()
		}
		w.cancel(nil)
	}
}

// maxPiece is how much a client gets with one deadline.
const maxPiece = 1 << 20

// write writes to the client, which must take each piece in time.
func (w *watch) write(to http.ResponseWriter, p []byte) (total int, err error) {
	w.writing.Store(true)
	now := w.clock.Now()
	for len(p) > 0 {
		// Not for each piece: it costs a little.
		if w.late.Sub(now) < w.client*3/4 {
			w.late = now.Add(w.client)
			// Not every writer has deadlines, such as those of tests.
			_ = http.NewResponseController(to).SetWriteDeadline(w.late)
		}
		n, err := to.Write(p[:min(len(p), maxPiece)])
		if total += n; err != nil {
			return total, err
		}
		p, now = p[n:], w.clock.Now()
	}
	w.last.Store(now.UnixNano())
	w.writing.Store(false)
	return total, nil
}

// end has nobody else's answer on the connection end because of this one's
// deadline.
func (w *watch) end(to http.ResponseWriter) {
	if w.late.IsZero() {
		return
	}
	c := http.NewResponseController(to)
	_ = c.Flush() // what is left of this answer still has it
	_ = c.SetWriteDeadline(time.Time{})
}
