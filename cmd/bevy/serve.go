package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/spf13/cobra"
)

func (h *hyper) serveCommand() *cobra.Command {
	var s server
	cmd := &cobra.Command{
		Use:   "serve [flags]",
		Short: "Replicate this store with whoever connects, until stopped",
		Long: `Takes connections and replicates the logs of the store over them, until it is
stopped. A peer gets, and gives, only logs whose keys it knows; it never learns
of others. Connections are encrypted, and this store has the same key on all.

It prints where it listens. Without an address it listens at port 4233 of all
networks, or at the next one that is free.`,
		Example: `bevy hyper serve
bevy hyper serve --tcp 127.0.0.1:0 --ws :8080`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.anyPort = !s.wanted()
			return h.serve(cmd.Context(), &s)
		},
	}
	s.flags(cmd)
	s.swarmFlag(h, cmd)
	return cmd
}

const (
	// firstPort is where a store is served, and the ports after it.
	firstPort, morePorts = 4233, 20
	// maxConnections bounds the memory that strangers can make us use.
	maxConnections = 1024
)

// A server replicates a store with whoever connects.
type server struct {
	tcp, ws []string // --tcp, --ws
	found   bool     // --swarm
	anyPort bool

	*hyper
	store     *corestore.Store
	keys      noise.KeyPair
	listeners []*transport.Listener
	swarm     *swarm        // with --swarm
	door      *byDoor       // with --door, too
	slots     chan struct{} // one for each connection
	cancel    context.CancelFunc
	routines  sync.WaitGroup
}

func (s *server) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&s.tcp, "tcp", nil, "take TCP connections at this `address`: <host>:<port>, or :<port>")
	cmd.Flags().StringArrayVar(&s.ws, "ws", nil, "take WebSockets at this `address`: <host>:<port>, or :<port>")
}

// swarmFlag adds --swarm.
func (s *server) swarmFlag(h *hyper, cmd *cobra.Command) {
	h.swarm.swarmFlag(cmd, &s.found, "have peers find the logs of the store")
}

// wanted reports whether there is any way to connect.
func (s *server) wanted() bool { return len(s.tcp)+len(s.ws) > 0 || s.found }

func (h *hyper) serve(ctx context.Context, s *server) error {
	return h.withStore(making, func(store *corestore.Store) error {
		if err := s.start(ctx, h, store); err != nil {
			return err
		}
		<-ctx.Done()
		s.stop()
		h.say("stopped")
		return nil
	})
}

// A served is what --json prints of each event.
type served struct {
	Event   string `json:"event"`           // "listening", "connected" or "disconnected"
	Address string `json:"address"`         // where it listens, or where the peer is
	Key     string `json:"key"`             // what this store, or the peer, is known by
	Cause   string `json:"cause,omitempty"` // why the connection ended, if not in order
}

// start listens and serves in the background, until stop.
func (s *server) start(ctx context.Context, h *hyper, store *corestore.Store) error {
	s.hyper, s.store, s.keys, s.slots = h, store, storeKeys(store), make(chan struct{}, maxConnections)
	ctx, s.cancel = context.WithCancel(ctx)
	if err := s.listen(ctx); err != nil {
		s.stop()
		return err
	}
	for _, l := range s.listeners {
		e := served{Event: "listening", Address: l.Addr(), Key: hypercore.Key(s.keys.Public).String()}
		if err := s.tell(e, "listening "+l.Addr()); err != nil {
			s.stop()
			return err
		}
		s.routines.Go(func() { s.accept(ctx, l) })
	}
	if s.found {
		if err := s.findable(ctx); err != nil {
			s.stop()
			return err
		}
	}
	return nil
}

// tell prints an event: on stdout with --json, where data is expected, and for
// "listening".
func (s *server) tell(e served, text string) error {
	switch {
	case s.json:
		return written(s.printJSON(e))
	case e.Event == "listening":
		return written(s.printLine(text))
	}
	s.say("%s", text)
	return nil
}

func (s *server) listen(ctx context.Context) error {
	var addrs []string
	for _, a := range s.tcp {
		addrs = append(addrs, "tcp://"+strings.TrimPrefix(a, "tcp://"))
	}
	for _, a := range s.ws {
		addrs = append(addrs, "ws://"+strings.TrimPrefix(a, "ws://"))
	}
	if s.anyPort {
		for port := firstPort; ; port++ {
			l, err := transport.Listen(ctx, fmt.Sprintf("tcp://:%d", port), transport.ListenOptions{Clock: s.clock})
			if errors.Is(err, syscall.EADDRINUSE) && port < firstPort+morePorts {
				continue
			}
			if err != nil {
				return fail(err, "cannot listen at port %d", port)
			}
			s.listeners = append(s.listeners, l)
			return nil
		}
	}
	for _, addr := range addrs {
		l, err := transport.Listen(ctx, addr, transport.ListenOptions{Clock: s.clock})
		if err != nil {
			return cannotListen(err, addr)
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

// cannotListen says why an address can't be listened at.
func cannotListen(err error, addr string) error {
	f := fail(err, "cannot listen at %s", addr).(*failure)
	f.cause = causeOf(innermost(err))
	f.try = "another address, or port 0 for any that is free"
	if f.code == codeFailed {
		f.code = codeUsage
	}
	return f
}

// innermost is the last error of a chain.
func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// stop ends listening, and all connections.
func (s *server) stop() {
	s.cancel()
	for _, l := range s.listeners {
		_ = l.Close() // what it listens with is gone either way
	}
	if s.swarm != nil {
		s.swarm.close()
	}
	if s.door != nil {
		_ = s.door.Close()
	}
	s.routines.Wait()
}

// accept takes connections, as many as may be at a time.
func (s *server) accept(ctx context.Context, l *transport.Listener) {
	for {
		conn, err := l.Accept(ctx)
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			s.say("stopped listening at %s: %s", l.Addr(), causeOf(err))
			return
		}
		select {
		case s.slots <- struct{}{}:
		default:
			s.say("refused %s: %d peers are connected", conn.Remote(), maxConnections)
			conn.Close()
			continue
		}
		s.routines.Go(func() {
			defer func() { <-s.slots }()
			s.peer(ctx, conn)
		})
	}
}

// peer replicates with one peer.
func (s *server) peer(ctx context.Context, conn transport.Conn) {
	hello, cancel := withTimeout(ctx, s.clock, dialTimeout, errors.New("no handshake"))
	stream, err := secretstream.Server(hello, conn, secretstream.Options{KeyPair: s.keys, Clock: s.clock})
	cancel()
	if err != nil {
		return // a stranger who can't shake hands is not worth a line
	}
	s.replicate(ctx, stream, conn.Remote())
}

// replicate serves one connection until it ends.
func (s *server) replicate(ctx context.Context, stream *secretstream.Stream, from string) {
	key := hypercore.Key(stream.RemoteKey())
	e := served{Event: "connected", Address: from, Key: key.String()}
	if err := s.tell(e, fmt.Sprintf("peer %s connected from %s", short(key), e.Address)); err != nil {
		stream.Close()
		return
	}
	err := s.store.Replicate(ctx, stream, corestore.ReplicateOptions{Name: e.Address})
	e.Event = "disconnected"
	text := fmt.Sprintf("peer %s left", short(key))
	if err != nil && ctx.Err() == nil {
		e.Cause = causeOf(err)
		if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, secretstream.ErrClosed) {
			text += ": " + e.Cause
		}
	}
	_ = s.tell(e, text) // it is told as long as somebody listens
}
