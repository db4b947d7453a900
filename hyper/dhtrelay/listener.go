package dhtrelay

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
)

// ListenOptions say who listens. The zero value is right.
type ListenOptions struct {
	// KeyPair is what to listen with: that of the client if it is zero.
	KeyPair noise.KeyPair
	// Check is asked whether to let somebody in, and refuses it with an error. Nil
	// lets everyone in. It must not use the client.
	Check func(remote noise.Key) error
}

// A Listener takes connections to a key. Its methods may be called by any
// goroutine.
type Listener struct {
	client *Client
	keys   noise.KeyPair
	check  func(noise.Key) error
	self   uint32        // our number
	ready  chan struct{} // closed once it is announced, or ended
	ended  chan struct{}

	mu    sync.Mutex
	conns chan *secretstream.Stream // sent to under mu, and not once err is set
	err   error                     // why it has ended; set before ended is closed
	relay uint32                    // the relay's number; set before ready is closed
	addr  netip.AddrPort            // likewise
}

// Listen has the relay announce a key, and take connections to it. It returns
// when that is done.
func (c *Client) Listen(ctx context.Context, o ListenOptions) (*Listener, error) {
	l := &Listener{
		client: c, keys: c.keysOr(o.KeyPair), check: o.Check, self: c.next(),
		ready: make(chan struct{}), ended: make(chan struct{}), conns: make(chan *secretstream.Stream, backlog),
	}
	if err := c.listen(ctx, l); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen as %s through relay: %w", l.keys.Public, err)
	}
	return l, nil
}

func (c *Client) listen(ctx context.Context, l *Listener) error {
	err := c.register(func() {
		c.opening[l.self] = l
		c.signees[l.self] = signee{l.keys, hyperdht.Target(l.keys.Public)}
	})
	if err != nil {
		return err
	}
	if err := c.send(numListen, &listenMsg{alias: l.self, key: l.keys.Public}); err != nil {
		return err
	}
	select {
	case <-l.ready:
	case <-l.ended:
		return l.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !l.addr.IsValid() || l.addr.Addr().IsUnspecified() && l.addr.Port() == 0 {
		return fmt.Errorf("%w: it can't", ErrRelay)
	}
	return nil
}

// Key returns the key that the listener has.
func (l *Listener) Key() noise.Key { return l.keys.Public }

// Addr returns the public address of the relay's node, as far as it knows.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// Accept waits for the next connection.
func (l *Listener) Accept(ctx context.Context) (*secretstream.Stream, error) {
	select {
	case s := <-l.conns:
		return s, nil
	case <-l.ended:
		return nil, fmt.Errorf("accept as %s: %w", l.keys.Public, l.err)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Close takes the announcement back. Connections that were accepted go on.
func (l *Listener) Close() error {
	c := l.client
	c.mu.Lock()
	opening := c.opening[l.self] == l
	known := opening || c.listeners[l.relay] == l
	if opening { // nobody will say that it is closed
		delete(c.opening, l.self)
		delete(c.signees, l.self)
	}
	c.mu.Unlock()
	if known {
		c.send(numClose, &numberMsg{l.self}) // a mux that is full is about to end
	}
	l.end(fmt.Errorf("listener: %w", ErrClosed))
	return nil
}

// offer keeps a connection for who accepts, if there is room.
func (l *Listener) offer(s *secretstream.Stream) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return false
	}
	select {
	case l.conns <- s:
		return true
	default:
		return false
	}
}

// end ends the listener on this side. The relay may still need signatures to
// take the announcement back, until it says that it has.
func (l *Listener) end(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = why
	close(l.ended)
	for len(l.conns) > 0 {
		if s, ok := l.take(); ok {
			s.Close()
		}
	}
}

// take takes a connection that was not accepted, if nobody else does.
func (l *Listener) take() (*secretstream.Stream, bool) {
	select {
	case s := <-l.conns:
		return s, true
	default:
		return nil, false
	}
}

func (c *Client) onListening(b []byte) error {
	var m listeningMsg
	if err := read(b, &m); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.opening[m.remote]
	if l == nil {
		return nil
	}
	if c.listeners[m.alias] != nil {
		return fmt.Errorf("%w: server %d is there already", ErrProtocol, m.alias)
	}
	delete(c.opening, m.remote)
	c.listeners[m.alias] = l
	l.relay, l.addr = m.alias, m.addr
	close(l.ready)
	return nil
}

func (c *Client) onClosed(b []byte) error {
	var m numberMsg
	if err := read(b, &m); err != nil {
		return err
	}
	c.mu.Lock()
	l := c.listeners[m.number]
	delete(c.listeners, m.number)
	if l != nil {
		delete(c.signees, l.self)
	}
	c.mu.Unlock()
	if l != nil {
		l.end(fmt.Errorf("listener: %w by the relay", ErrClosed))
	}
	return nil
}

// onIncoming refuses whom a relay would let in with a key that it was not
// given.
func (c *Client) onIncoming(b []byte) error {
	var m incomingMsg
	if err := read(b, &m); err != nil {
		return err
	}
	return c.send(numDeny, &numberMsg{m.id})
}

func (c *Client) onConnection(b []byte) error {
	var m connectionMsg
	if err := read(b, &m); err != nil {
		return err
	}
	c.mu.Lock()
	l := c.listeners[m.server]
	full := len(c.tubes) >= maxServed
	c.mu.Unlock()
	if l == nil || full {
		return nil // the relay gives up after a while
	}
	self := c.next()
	s, err := c.begin(&handshake{listener: l}, m.custodial, m.handshakeID, m.remote, self, m.alias, &connectedMsg{alias: self, remote: m.alias})
	if err != nil {
		return nil // likewise: a handshake of which there were too many, or none
	}
	if !l.offer(s) {
		s.Close()
	}
	return nil
}
