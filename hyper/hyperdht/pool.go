package hyperdht

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// lingerTime is how long a socket that may be used again waits for that.
const lingerTime = 3 * time.Second

// maxRoutes bounds the routes that are kept.
const maxRoutes = 4096

// A pool has the sockets that NATs are punched for, each for one peer. They
// close by themselves when they are released and carry no stream
// (lib/socket-pool.js).
type pool struct {
	d *DHT

	mu      sync.Mutex
	closed  bool
	sockets map[*udx.Socket]*poolSocket
	routes  map[noise.Key]route
	added   int
	removed int
}

// A route is the socket and address by which a peer was reached last.
type route struct {
	socket *udx.Socket
	addr   netip.AddrPort
}

// A poolSocket is one socket. Its fields are guarded by the mutex of the pool.
type poolSocket struct {
	*udx.Socket
	pool     *pool
	onByte   func(*poolSocket, netip.AddrPort) // gets the packets of one byte
	refs     int
	released bool
	reusable bool
	wasBusy  bool
	linger   clock.Timer
	closed   bool
}

func newPool(d *DHT) *pool {
	return &pool{d: d, sockets: map[*udx.Socket]*poolSocket{}, routes: map[noise.Key]route{}}
}

// acquire opens a socket for a peer.
func (p *pool) acquire(onByte func(*poolSocket, netip.AddrPort)) (*poolSocket, error) {
	s := &poolSocket{pool: p, onByte: onByte, refs: 1}
	// The first packet may come before the socket is in the table.
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("open socket for punching: %w", ErrClosed)
	}
	var err error
	s.Socket, err = p.d.udx.Listen(netip.AddrPortFrom(p.d.bind, 0), udx.SocketOptions{
		Receive: func(_ *udx.Socket, from netip.AddrPort, data []byte) { s.receive(from, data) },
		Idle:    func(*udx.Socket) { s.idle() },
	})
	if err != nil {
		return nil, fmt.Errorf("open socket for punching: %w", err)
	}
	p.sockets[s.Socket] = s
	p.added++
	return s, nil
}

// lookup returns the socket of the pool that s is, or nil.
func (p *pool) lookup(s *udx.Socket) *poolSocket {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sockets[s]
}

// route returns how a peer was reached last.
func (p *pool) route(key noise.Key) (route, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.routes[key]
	return r, ok
}

// addRoute remembers how a peer is reached, for as long as the socket is open.
func (p *pool) addRoute(key noise.Key, r route) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.routes[key]; !ok && len(p.routes) < maxRoutes {
		p.routes[key] = r
	}
	if s := p.sockets[r.socket]; s != nil {
		s.reusable = true
	}
}

// dropRoute forgets the route of a peer if it is over that socket, which did
// not do.
func (p *pool) dropRoute(key noise.Key, socket *udx.Socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.routes[key].socket == socket {
		delete(p.routes, key)
	}
	if s := p.sockets[socket]; s != nil {
		s.reusable = false
	}
}

// close closes all sockets.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, s := range p.sockets {
		s.closeLocked()
	}
}

// reopen lets a pool be used again that was closed.
func (p *pool) reopen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = false
}

func (p *pool) stats() (added, removed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.added, p.removed
}

func (s *poolSocket) receive(from netip.AddrPort, data []byte) {
	if len(data) > 1 {
		s.pool.d.node.Receive(s.Socket, from, data)
		return
	}
	s.pool.mu.Lock()
	onByte := s.onByte
	s.pool.mu.Unlock()
	if onByte != nil && len(data) == 1 {
		onByte(s, from)
	}
}

// idle is called when the last stream has left the socket.
func (s *poolSocket) idle() {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.wasBusy = true
	s.closeMaybeLocked()
}

// hold keeps the socket open until drop.
func (s *poolSocket) hold() {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.refs++
	s.stopLinger()
}

// drop undoes hold.
func (s *poolSocket) drop() {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.refs--
	s.closeMaybeLocked()
}

// release ends the use of the socket for punching. A stream may go on.
func (s *poolSocket) release() {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if s.released {
		return
	}
	s.released, s.onByte = true, nil
	s.refs--
	s.closeMaybeLocked()
}

func (s *poolSocket) closeMaybeLocked() {
	if s.closed || s.refs > 0 || s.linger != nil || s.Streams() > 0 {
		return
	}
	if s.reusable && s.wasBusy {
		s.wasBusy = false
		s.linger = s.pool.d.clock.AfterFunc(lingerTime, func() {
			s.pool.mu.Lock()
			defer s.pool.mu.Unlock()
			s.linger = nil
			s.closeMaybeLocked()
		})
		return
	}
	s.closeLocked()
}

func (s *poolSocket) stopLinger() {
	if s.linger != nil {
		s.linger.Stop()
		s.linger = nil
	}
}

func (s *poolSocket) closeLocked() {
	if s.closed {
		return
	}
	s.closed = true
	s.stopLinger()
	delete(s.pool.sockets, s.Socket)
	s.pool.removed++
	for k, r := range s.pool.routes {
		if r.socket == s.Socket {
			delete(s.pool.routes, k)
		}
	}
	s.Close()
}
