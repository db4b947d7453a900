package dhtrelay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// Limits bound what a relay does for its clients. Zero stands for the default.
type Limits struct {
	// Clients is how many there may be: 1024.
	Clients int
	// Streams, Servers and Queries are how many of one client there may be: 64, 16
	// and 16.
	Streams, Servers, Queries int
	// Memory is how many bytes of all streams together are kept because peers are
	// slow: 256 MiB. One client has 32 MiB of that.
	Memory int
	// MaxMessage is the most bytes of a message from a client: 16 MiB, as clients
	// of the npm package send what they write at once.
	MaxMessage int
	// ConnectTime is how long a peer may take to be connected: 30 seconds. A
	// client has 10 seconds to answer what it is asked.
	ConnectTime time.Duration
}

// answerTime is how long a client may take to answer.
const answerTime = 10 * time.Second

func (l Limits) orDefaults() Limits {
	for _, f := range []struct {
		value *int
		usual int
	}{{&l.Clients, 1024}, {&l.Streams, 64}, {&l.Servers, 16}, {&l.Queries, 16}, {&l.Memory, 256 << 20}, {&l.MaxMessage, protomux.MaxFrame}} {
		if *f.value <= 0 {
			*f.value = f.usual
		}
	}
	if l.ConnectTime <= 0 {
		l.ConnectTime = 30 * time.Second
	}
	return l
}

// ServerOptions say what a relay is.
type ServerOptions struct {
	// Allow tells whether a client with that key is served: everyone is if it is
	// nil. A client doesn't prove that the key is its own before it uses it.
	Allow func(noise.Key) bool
	// Limits bound what the relay does.
	Limits Limits
	// Clock is the machine's clock if it is nil.
	Clock clock.Clock
}

// A Server is a relay. Its methods may be called by any goroutine.
type Server struct {
	dht    DHT
	allow  func(noise.Key) bool
	limits Limits
	clock  clock.Clock
	ctx    context.Context // ends with the server
	stop   context.CancelFunc
	busy   sync.WaitGroup
	memory budget

	mu       sync.Mutex
	closed   bool
	sessions map[*session]bool
}

// NewServer returns a relay that uses a DHT, which must stay open until the
// relay is closed.
func NewServer(dht DHT, o ServerOptions) *Server {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	s := &Server{dht: dht, allow: o.Allow, limits: o.Limits.orDefaults(), clock: o.Clock, sessions: map[*session]bool{}}
	s.memory.max = int64(s.limits.Memory)
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// ServeConn serves a client over a connection until it ends, and closes it.
// It is for transport.Endpoint. Connections that have no messages are closed.
func (s *Server) ServeConn(conn transport.Conn) {
	m, ok := conn.(transport.MessageConn)
	if !ok {
		conn.Close()
		return
	}
	s.Serve(context.Background(), messages(m, s.limits.MaxMessage)) // there is nobody to tell
}

// ServeListener serves the clients that a listener takes until either is
// closed, or ctx ends.
func (s *Server) ServeListener(ctx context.Context, l *transport.Listener) error {
	for {
		conn, err := l.Accept(ctx)
		if err != nil {
			return fmt.Errorf("serve relay clients: %w", err)
		}
		go s.ServeConn(conn)
	}
}

// Serve serves a client over a stream, such as one of hyper/secretstream,
// until it ends. It returns nil if that was in order. Streams and servers of
// the client end with it.
func (s *Server) Serve(ctx context.Context, stream protomux.Stream) error {
	ses, err := s.enter()
	if err != nil {
		return errors.Join(fmt.Errorf("serve relay client: %w", err), stream.Close())
	}
	defer s.leave(ses)
	if err := ses.serve(ctx, stream); err != nil {
		return fmt.Errorf("serve relay client: %w", err)
	}
	return nil
}

func (s *Server) enter() (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if len(s.sessions) >= s.limits.Clients {
		return nil, fmt.Errorf("%w clients", ErrTooMany)
	}
	ses := newSession(s)
	s.sessions[ses] = true
	s.busy.Add(1)
	return ses, nil
}

func (s *Server) leave(ses *session) {
	s.mu.Lock()
	delete(s.sessions, ses)
	s.mu.Unlock()
	s.busy.Done()
}

// Close ends all sessions, and waits for that.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.busy.Wait()
	return nil
}

// Clients returns how many there are.
func (s *Server) Clients() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}
