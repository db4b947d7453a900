package bridge

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// A watch ends a context when data is waited for too long, and the connection
// when the client is.
type watch struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	clock   clock.Clock
	data    time.Duration // patience with those who have it
	client  time.Duration // patience with the client
	writing atomic.Bool   // the client is waited for
	last    atomic.Int64  // when something came
	late    time.Time     // the client's deadline; one goroutine's

	mu      sync.Mutex // guards the fields below
	timer   clock.Timer
	stopped bool
}

func newWatch(ctx context.Context, o Options) *watch {
	w := &watch{clock: o.Clock, data: o.Patience, client: o.WriteTimeout}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.last.Store(w.clock.Now().UnixNano())
	w.timer = w.clock.AfterFunc(w.data, w.expire)
	return w
}

// expire looks how long nothing came.
func (w *watch) expire() {
	left := w.data - time.Duration(w.clock.Now().UnixNano()-w.last.Load())
	if w.writing.Load() {
		left = w.data
	}
	if left <= 0 {
		w.cancel(ErrUnreachable)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.timer = w.clock.AfterFunc(left, w.expire)
	}
}

// forEver has the watch wait for data as long as the client does.
func (w *watch) forEver() {
	w.mu.Lock()
	w.stopped = true
	w.timer.Stop()
	w.mu.Unlock()
}

func (w *watch) stop() {
	w.mu.Lock()
	w.stopped = true
	w.timer.Stop()
	w.mu.Unlock()
	w.cancel(nil)
}

// maxPiece is how much a client gets with one deadline.
const maxPiece = 1 << 20

// write writes to the client, which must take each piece in time.
func (w *watch) write(to http.ResponseWriter, p []byte) (total int, err error) {
	w.writing.Store(true)
	defer func() {
		w.last.Store(w.clock.Now().UnixNano())
		w.writing.Store(false)
	}()
	for len(p) > 0 {
		// Not for each piece: it costs a little.
		if now := w.clock.Now(); w.late.Sub(now) < w.client*3/4 {
			w.late = now.Add(w.client)
			// Not every writer has deadlines, such as those of tests.
			_ = http.NewResponseController(to).SetWriteDeadline(w.late)
		}
		n, err := to.Write(p[:min(len(p), maxPiece)])
		total += n
		if err != nil {
			return total, err
		}
		p = p[n:]
	}
	return total, nil
}

// end has nobody else's answer on the connection end in time, too, and not
// because of this one.
func (w *watch) end(to http.ResponseWriter) {
	if w.late.IsZero() {
		return
	}
	c := http.NewResponseController(to)
	_ = c.Flush() // what is left of this answer still has the deadline
	_ = c.SetWriteDeadline(time.Time{})
}
