package hyperdht

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/cloudbevy/bevy/hyper/noise"
)

// ErrDuplicate means that a connection was closed because there is another one
// to the same peer.
var ErrDuplicate = errors.New("there is another connection to the peer")

// A Pool keeps one connection to each peer, for all who want one. Those of
// servers are put into it by Accept. A connection leaves the pool when it ends,
// which is when somebody closes it. Its methods may be called by any goroutine.
type Pool struct {
	d *DHT

	mu    sync.Mutex
	conns map[noise.Key]*pooled
	dials map[noise.Key]*dialing
}

type pooled struct {
	conn *Conn
	ours bool // this side connected
}

// A dialing is a call of Connect that others wait for.
type dialing struct {
	done chan struct{}
	conn *Conn
	err  error
}

// NewPool returns a pool without connections.
func (d *DHT) NewPool() *Pool {
	return &Pool{d: d, conns: map[noise.Key]*pooled{}, dials: map[noise.Key]*dialing{}}
}

// Get returns the connection to a peer, or nil.
func (p *Pool) Get(key noise.Key) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.getLocked(key)
}

func (p *Pool) getLocked(key noise.Key) *Conn {
	if c := p.conns[key]; c != nil && c.conn.link.ctx.Err() == nil {
		return c.conn
	}
	return nil
}

// Connect returns the connection to a peer, and connects if there is none.
// Calls for a peer at the same time share one attempt, with the options of the
// first, which ends with the context of that call.
func (p *Pool) Connect(ctx context.Context, key noise.Key, o ConnectOptions) (*Conn, error) {
	for {
		p.mu.Lock()
		if c := p.getLocked(key); c != nil {
			p.mu.Unlock()
			return c, nil
		}
		other := p.dials[key]
		if other == nil {
			return p.dialLocked(ctx, key, o)
		}
		p.mu.Unlock()
		select {
		case <-other.done:
			if other.err == nil {
				return other.conn, nil
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// dialLocked connects, with the lock held, which it gives up.
func (p *Pool) dialLocked(ctx context.Context, key noise.Key, o ConnectOptions) (*Conn, error) {
	d := &dialing{done: make(chan struct{})}
	p.dials[key] = d
	p.mu.Unlock()
	defer close(d.done)
	c, err := p.d.Connect(ctx, key, o)
	if err == nil && !p.add(c, true) {
		c.Close()
		c = p.Get(key)
		if c == nil {
			err = ErrDuplicate // that one has ended, too
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.dials, key)
	d.conn, d.err = c, err
	return c, err
}

// Accept takes a connection that came to a server, and reports whether it is
// the one to keep. It closes it if it isn't.
func (p *Pool) Accept(c *Conn) bool {
	if p.add(c, false) {
		return true
	}
	c.Close()
	return false
}

// add puts a connection into the pool, unless the one that is there is to be
// kept. Both sides keep the same of two: the newer, or if each has connected to
// the other, that of the side with the greater key.
func (p *Pool) add(c *Conn, ours bool) bool {
	remote, local := c.RemoteKey(), c.LocalKey()
	p.mu.Lock()
	old := p.conns[remote]
	if old != nil && old.conn.link.ctx.Err() == nil && old.ours != ours && ours != (bytes.Compare(local[:], remote[:]) > 0) {
		p.mu.Unlock()
		return false
	}
	entry := &pooled{c, ours}
	p.conns[remote] = entry
	p.mu.Unlock()
	if old != nil {
		old.conn.Close()
	}
	context.AfterFunc(c.link.ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.conns[remote] == entry {
			delete(p.conns, remote)
		}
	})
	return true
}
