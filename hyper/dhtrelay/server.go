package dhtrelay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
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
	// slow: 256 MiB. One client has 16 MiB of that, and one stream 256 KiB.
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

// A session is a client that is connected.
type session struct {
	line
	server *Server
	busy   sync.WaitGroup

	// Guarded by line.mu. Numbers are the client's, but for those of asked and
	// offered, which are ours.
	greeted    bool
	streams    int // connecting, offered or there
	listeners  map[uint32]*listener
	connecting map[uint32]context.CancelFunc
	offered    map[uint32]*offer
	queries    int
	asked      map[uint32]chan<- any
}

// A listener is a server of a client.
type listener struct {
	client, self uint32
	announced    bool // the client knows of it
	stop         context.CancelFunc
}

// An offer is a connection that the client has not taken yet.
type offer struct {
	conn *conn
	drop clock.Timer
}

func newSession(s *Server) *session {
	return &session{
		server:     s,
		listeners:  map[uint32]*listener{},
		connecting: map[uint32]context.CancelFunc{},
		offered:    map[uint32]*offer{},
		asked:      map[uint32]chan<- any{},
	}
}

// serve speaks with the client until either ends it.
func (ses *session) serve(ctx context.Context, stream protomux.Stream) error {
	err := ses.open(protomux.Options{MaxChannels: 16, MaxQueued: 32 << 20}, ses.server.clock, map[int]func([]byte) error{
		numHandshake:  ses.onHandshake,
		numConnect:    ses.onConnect,
		numConnected:  ses.onConnected,
		numDestroy:    ses.onDestroy,
		numListen:     ses.onListen,
		numClose:      ses.onClose,
		numLookup:     ses.onLookup,
		numAnnounce:   func(b []byte) error { return ses.onAnnounce(b, ses.server.dht.Announce) },
		numUnannounce: func(b []byte) error { return ses.onAnnounce(b, ses.server.dht.Unannounce) },
		numDeny:       func(b []byte) error { return ses.onVerdict(b, false) },
		numAccept:     func(b []byte) error { return ses.onVerdict(b, true) },
		numSignature:  ses.onSignature,
		numNoiseReply: ses.onNoiseReply,
	})
	if err != nil {
		return errors.Join(err, stream.Close())
	}
	ses.memory.above = &ses.server.memory
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ses.server.ctx, cancel)()
	err = ses.line.serve(ctx, stream)
	ses.busy.Wait()
	for _, alias := range slices.Collect(maps.Keys(ses.offered)) { // nobody adds to them any more
		if o := ses.takeOffer(alias); o != nil {
			o.conn.close()
		}
	}
	if ses.server.ctx.Err() != nil && ctx.Err() != nil {
		return nil
	}
	return err
}

// within returns a context that ends with the session, or after some time.
func (ses *session) within(d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ses.ctx)
	timer := ses.clock.AfterFunc(d, func() { cancel(fmt.Errorf("no answer within %v", d)) })
	return ctx, func() { timer.Stop(); cancel(context.Canceled) }
}

func (ses *session) onHandshake(b []byte) error {
	var m handshakeMsg
	if err := read(b, &m); err != nil {
		return err
	}
	if allow := ses.server.allow; allow != nil && !allow(m.key) {
		return fmt.Errorf("client %s is not served here", m.key)
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.greeted = true
	return nil
}

// request reads a message that only a client who has said who it is may send.
func (ses *session) request(b []byte, m message) error {
	if err := read(b, m); err != nil {
		return err
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if !ses.greeted {
		return fmt.Errorf("%w: %T before the handshake", ErrProtocol, m)
	}
	return nil
}

// A client is on whose behalf a relay is asked to do something: the public key,
// and both halves if it is custodial.
type client struct {
	custodial bool
	keys      noise.KeyPair
}

func clientOf(custodial bool, public noise.Key, secret *[64]byte) (client, error) {
	c := client{custodial, noise.KeyPair{Public: public}}
	if custodial {
		c.keys = noise.NewKeyPair([32]byte(secret[:32]))
		if c.keys.Public != public {
			return client{}, fmt.Errorf("%w: the secret key is not that of the public key", ErrProtocol)
		}
	}
	return c, nil
}

// owner returns the client as the DHT has it. Number is the client's of the
// server or the query that it signs for.
func (ses *session) owner(c client, number uint32) Owner {
	o := Owner{Key: c.keys.Public, Sign: ses.signer(number)}
	if c.custodial {
		o.Sign = func(_ context.Context, s hyperdht.Signing) ([64]byte, error) {
			return [64]byte(c.keys.Sign(s.Bytes())), nil
		}
	}
	return o
}

// reserve makes room for one stream more.
func (ses *session) reserve() bool {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.ended || ses.streams >= ses.server.limits.Streams {
		return false
	}
	ses.streams++
	return true
}

func (ses *session) release() {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.streams--
}

func (ses *session) onConnect(b []byte) error {
	var m connectMsg
	if err := ses.request(b, &m); err != nil {
		return err
	}
	who, err := clientOf(m.custodial, m.key, &m.secret)
	if err != nil {
		return err
	}
	if !ses.reserve() {
		return ses.send(numDestroy, &destroyMsg{alias: m.alias, reason: ErrTooMany.Error() + " streams"})
	}
	ctx, cancel := ses.within(ses.server.limits.ConnectTime)
	ses.mu.Lock()
	taken := ses.connecting[m.alias] != nil || ses.tubes[m.alias] != nil
	if !taken {
		ses.connecting[m.alias] = cancel
	}
	ses.mu.Unlock()
	if taken {
		cancel()
		ses.release()
		return fmt.Errorf("%w: stream %d is there already", ErrProtocol, m.alias)
	}
	ses.busy.Go(func() {
		defer ses.release()
		defer cancel()
		ses.connect(ctx, m.alias, m.remote, who)
	})
	return nil
}

// connect connects to a peer, and carries what is said until either ends it.
// Alias is the client's number of the stream.
func (ses *session) connect(ctx context.Context, alias uint32, remote noise.Key, who client) {
	conn, err := ses.reach(ctx, alias, remote, who)
	ses.mu.Lock()
	_, wanted := ses.connecting[alias]
	delete(ses.connecting, alias)
	ses.mu.Unlock()
	if err != nil {
		if wanted {
			ses.send(numDestroy, &destroyMsg{alias: alias, reason: reasonOf(ctx, err)})
		}
		return
	}
	if !wanted || ctx.Err() != nil {
		conn.close()
		return
	}
	t, err := ses.attach(ses.next(), alias)
	if err != nil {
		conn.close()
		return
	}
	open := &openMsg{custodial: who.custodial, alias: t.self, remote: alias, hash: conn.hash(), handshakeID: conn.id}
	if err := ses.send(numOpen, open); err != nil {
		t.fail(err)
		conn.close()
		return
	}
	conn.carry(t)
}

// reach connects to a peer with a handshake that the client holds, or one with
// the key that it has handed over.
func (ses *session) reach(ctx context.Context, alias uint32, remote noise.Key, who client) (*conn, error) {
	owner := ses.owner(who, alias)
	owner.Handshake = func() hyperdht.Handshake {
		return &proxy{ses: ses, id: ses.next(), initiator: true, stream: alias, remote: remote}
	}
	if who.custodial {
		h, err := newHandshake(noise.Config{Initiator: true, Static: who.keys, Remote: remote})
		if err != nil {
			return nil, err
		}
		owner.Handshake = func() hyperdht.Handshake { return &custodian{noise: h} }
	}
	c, err := ses.server.dht.Connect(ctx, remote, owner)
	if err != nil {
		return nil, err
	}
	return ses.begin(c)
}

// reasonOf is what a client is told of an error.
func reasonOf(ctx context.Context, err error) string {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return err.Error()
}

func (ses *session) onListen(b []byte) error {
	var m listenMsg
	if err := ses.request(b, &m); err != nil {
		return err
	}
	who, err := clientOf(m.custodial, m.key, &m.secret)
	if err != nil {
		return err
	}
	l := &listener{client: m.alias, self: ses.next()}
	ctx, cancel := context.WithCancel(ses.ctx)
	l.stop = cancel
	ses.mu.Lock()
	taken, full := ses.listeners[m.alias] != nil, len(ses.listeners) >= ses.server.limits.Servers
	if !taken && !full {
		ses.listeners[m.alias] = l
	}
	ses.mu.Unlock()
	if taken {
		cancel()
		return fmt.Errorf("%w: server %d is there already", ErrProtocol, m.alias)
	}
	if full {
		cancel()
		return ses.refuse(l)
	}
	ses.busy.Go(func() {
		defer cancel()
		ses.listen(ctx, l, who)
	})
	return nil
}

// refuse tells a client that its server can't be. There is no message for
// that, so the server is there and ends at once.
func (ses *session) refuse(l *listener) error {
	if err := ses.send(numListening, &listeningMsg{alias: l.self, remote: l.client, addr: netip.AddrPortFrom(netip.IPv4Unspecified(), 0)}); err != nil {
		return err
	}
	return ses.send(numClosed, &numberMsg{l.self})
}

// listen serves those who connect to a client, until ctx ends.
func (ses *session) listen(ctx context.Context, l *listener, who client) {
	owner := ses.owner(who, l.client)
	owner.Handshake = func() hyperdht.Handshake { return &proxy{ses: ses, id: ses.next(), server: l} }
	if who.custodial {
		admits := func(ctx context.Context, remote noise.Key, payload []byte) bool {
			return ses.admits(ctx, l, remote, payload)
		}
		owner.Handshake = func() hyperdht.Handshake {
			h, err := newHandshake(noise.Config{Static: who.keys})
			if err != nil {
				panic("dhtrelay: " + err.Error()) // the key has both halves
			}
			return &custodian{h, admits}
		}
	}
	defer func() {
		ses.mu.Lock()
		defer ses.mu.Unlock()
		delete(ses.listeners, l.client)
	}()
	on, err := ses.server.dht.Listen(ctx, owner, func(c Conn) { ses.offer(l, c) })
	if err != nil {
		if ctx.Err() == nil {
			ses.refuse(l)
		} else {
			ses.send(numClosed, &numberMsg{l.self})
		}
		return
	}
	if !on.Addr.IsValid() {
		on.Addr = netip.AddrPortFrom(netip.IPv4Unspecified(), 1) // port 0 would say that it isn't there
	}
	ses.mu.Lock()
	l.announced = true
	err = ses.send(numListening, &listeningMsg{alias: l.self, remote: l.client, addr: on.Addr})
	ses.mu.Unlock()
	if err == nil {
		<-ctx.Done()
	}
	on.Close() // nodes forget it anyway
	ses.send(numClosed, &numberMsg{l.self})
}

// admits asks a custodial client whether to let somebody in.
func (ses *session) admits(ctx context.Context, l *listener, remote noise.Key, payload []byte) bool {
	answer, err := ses.ask(ctx, numIncoming, func(id uint32) message {
		return &incomingMsg{id: id, server: l.self, remote: remote, payload: payload}
	})
	verdict, _ := answer.(bool)
	return err == nil && verdict
}

// offer tells a client of a connection to a server of its, and carries what is
// said if the client takes it.
func (ses *session) offer(l *listener, raw Conn) {
	c, err := ses.begin(raw)
	if err != nil {
		return
	}
	if !ses.reserve() {
		c.close()
		return
	}
	alias := ses.next()
	o := &offer{conn: c}
	o.drop = ses.clock.AfterFunc(answerTime, func() {
		if ses.takeOffer(alias) != nil {
			c.close()
		}
	})
	ses.mu.Lock()
	ses.offered[alias] = o
	ses.mu.Unlock()
	m := &connectionMsg{custodial: c.stream != nil, alias: alias, server: l.self, remote: raw.Handshake.Remote(), hash: c.hash(), handshakeID: c.id}
	if ses.send(numConnection, m) != nil && ses.takeOffer(alias) != nil {
		c.close()
	}
}

// takeOffer removes an offer. Its room is given back.
func (ses *session) takeOffer(alias uint32) *offer {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	o := ses.offered[alias]
	if o == nil {
		return nil
	}
	delete(ses.offered, alias)
	o.drop.Stop()
	ses.streams--
	return o
}

func (ses *session) onConnected(b []byte) error {
	var m connectedMsg
	if err := ses.request(b, &m); err != nil {
		return err
	}
	o := ses.takeOffer(m.remote)
	if o == nil {
		return nil // it came too late
	}
	t, err := ses.attach(m.remote, m.alias)
	if err != nil {
		o.conn.close()
		return err
	}
	if !ses.reserve() {
		t.abort(ErrTooMany)
		o.conn.close()
		return nil
	}
	ses.busy.Go(func() {
		defer ses.release()
		o.conn.carry(t)
	})
	return nil
}

func (ses *session) onDestroy(b []byte) error {
	var m destroyMsg
	if err := read(b, &m); err != nil {
		return err
	}
	if !m.paired {
		return nil // by whom we are not told
	}
	if t := ses.tube(m.alias); t != nil {
		t.fail(destroyed(m.reason))
		return nil
	}
	ses.mu.Lock()
	cancel := ses.connecting[m.alias]
	delete(ses.connecting, m.alias)
	ses.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	return nil
}

func destroyed(reason string) error {
	if reason == "" {
		return ErrDestroyed
	}
	return fmt.Errorf("%w: %s", ErrDestroyed, reason)
}

func (ses *session) onClose(b []byte) error {
	var m numberMsg
	if err := ses.request(b, &m); err != nil {
		return err
	}
	ses.mu.Lock()
	l := ses.listeners[m.number]
	ses.mu.Unlock()
	if l != nil {
		l.stop()
	}
	return nil
}

func (ses *session) onLookup(b []byte) error {
	var m lookupMsg
	if err := ses.request(b, &m); err != nil {
		return err
	}
	return ses.query(m.id, func(ctx context.Context, found func(hyperdht.Found)) error {
		return ses.server.dht.Lookup(ctx, m.topic, found)
	})
}

func (ses *session) onAnnounce(b []byte, do func(context.Context, [32]byte, Owner, func(hyperdht.Found)) error) error {
	var m announceMsg
	if err := ses.request(b, &m); err != nil {
		return err
	}
	who, err := clientOf(m.custodial, m.key, &m.secret)
	if err != nil {
		return err
	}
	owner := ses.owner(who, m.id)
	return ses.query(m.id, func(ctx context.Context, found func(hyperdht.Found)) error { return do(ctx, m.topic, owner, found) })
}

// query does a query, and tells the client what comes of it. The protocol has
// no word for one that fails.
func (ses *session) query(id uint32, do func(context.Context, func(hyperdht.Found)) error) error {
	ses.mu.Lock()
	full := ses.queries >= ses.server.limits.Queries
	if !full {
		ses.queries++
	}
	ses.mu.Unlock()
	if full {
		return ses.send(numFinished, &numberMsg{id})
	}
	ses.busy.Go(func() {
		ctx, cancel := ses.within(2 * ses.server.limits.ConnectTime)
		defer cancel()
		do(ctx, func(f hyperdht.Found) {
			m := foundMsg{from: f.From, to: f.To, peers: f.Peers[:min(len(f.Peers), maxPeers)]}
			if f.Token != nil {
				m.token = *f.Token
			}
			ses.send(numResult, &resultMsg{id: id, data: write(&m)}) // a mux that is full is about to end
		})
		ses.mu.Lock()
		ses.queries--
		ses.mu.Unlock()
		ses.send(numFinished, &numberMsg{id})
	})
	return nil
}

// ask asks the client something, and waits for the answer to that number.
func (ses *session) ask(ctx context.Context, number int, question func(id uint32) message) (any, error) {
	return ses.askAs(ctx, ses.next(), number, question)
}

func (ses *session) askAs(ctx context.Context, id uint32, number int, question func(id uint32) message) (any, error) {
	answer := make(chan any, 1)
	ses.mu.Lock()
	if ses.ended || ses.asked[id] != nil || len(ses.asked) >= ses.server.limits.Streams {
		ses.mu.Unlock()
		return nil, fmt.Errorf("ask the client: %w questions", ErrTooMany)
	}
	ses.asked[id] = answer
	ses.mu.Unlock()
	defer func() {
		ses.mu.Lock()
		defer ses.mu.Unlock()
		delete(ses.asked, id)
	}()
	if err := ses.send(number, question(id)); err != nil {
		return nil, fmt.Errorf("ask the client: %w", err)
	}
	late, cancel := ses.within(answerTime)
	defer cancel()
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("ask the client: %w", context.Cause(ctx))
	case <-late.Done():
		return nil, fmt.Errorf("ask the client: %w", context.Cause(late))
	}
}

// answered hands an answer to who waits for it, if somebody does.
func (ses *session) answered(id uint32, answer any) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if c := ses.asked[id]; c != nil {
		select {
		case c <- answer:
		default: // a second answer
		}
	}
}

func (ses *session) onVerdict(b []byte, verdict bool) error {
	var m numberMsg
	if err := read(b, &m); err != nil {
		return err
	}
	ses.answered(m.number, verdict)
	return nil
}

func (ses *session) onSignature(b []byte) error {
	var m signatureMsg
	if err := read(b, &m); err != nil {
		return err
	}
	if len(m.signature) == 64 {
		ses.answered(m.id, [64]byte(m.signature))
	}
	return nil
}

func (ses *session) onNoiseReply(b []byte) error {
	var m noiseReplyMsg
	if err := read(b, &m); err != nil {
		return err
	}
	m.payload = append([]byte(nil), m.payload...)
	ses.answered(m.id, m)
	return nil
}

// signer lets the client sign for a server or an announcement of that number.
func (ses *session) signer(signee uint32) hyperdht.Signer {
	return func(ctx context.Context, s hyperdht.Signing) ([64]byte, error) {
		number := numSignAnnounce
		if s.Unannounce {
			number = numSignUnannounce
		}
		answer, err := ses.ask(ctx, number, func(id uint32) message {
			return &signMsg{id: id, signee: signee, token: s.Token, peer: s.NodeID[:], addrs: s.RelayAddresses}
		})
		signature, ok := answer.([64]byte)
		if err == nil && !ok {
			err = fmt.Errorf("%w: no signature", ErrProtocol)
		}
		return signature, err
	}
}

// A proxy is a handshake that the client holds.
type proxy struct {
	ses       *session
	id        uint32
	initiator bool
	stream    uint32    // the client's, of an initiator
	server    *listener // of a responder

	mu     sync.Mutex // held for one question at a time; guards what follows
	remote noise.Key
	secret [32]byte
}

var _ hyperdht.Handshake = (*proxy)(nil)

// Send implements hyperdht.Handshake.
func (p *proxy) Send(ctx context.Context, payload []byte) ([]byte, error) {
	return p.ask(ctx, numNoiseSend, func(id uint32) message {
		return &noiseSendMsg{initiator: p.initiator, id: id, stream: p.stream, payload: payload}
	})
}

// Receive implements hyperdht.Handshake.
func (p *proxy) Receive(ctx context.Context, msg []byte) ([]byte, error) {
	m := &noiseReceiveMsg{initiator: p.initiator, payload: msg}
	if p.server != nil {
		p.ses.mu.Lock()
		announced := p.server.announced
		p.ses.mu.Unlock()
		if !announced {
			return nil, errors.New("the client doesn't know yet that it listens")
		}
		m.server = p.server.self
	}
	return p.ask(ctx, numNoiseReceive, func(id uint32) message {
		m.id = id
		return m
	})
}

func (p *proxy) ask(ctx context.Context, number int, question func(uint32) message) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer, err := p.ses.askAs(ctx, p.id, number, question)
	if err != nil {
		return nil, err
	}
	m, ok := answer.(noiseReplyMsg)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: another answer than asked for", ErrProtocol)
	case len(m.payload) == 0:
		return nil, ErrDenied
	case m.complete:
		p.secret = m.secret
	case !p.initiator && !m.initiator:
		p.remote = m.remote
	}
	return m.payload, nil
}

// Remote implements hyperdht.Handshake.
func (p *proxy) Remote() noise.Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.remote
}

// HolepunchSecret implements hyperdht.Handshake.
func (p *proxy) HolepunchSecret() [32]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.secret
}

// A conn is a connection to a peer on its way to a client: what the client
// encrypts, or the stream of messages that the relay encrypts for it.
type conn struct {
	raw    transport.Conn
	id     uint32               // of the handshake that the client holds
	stream *secretstream.Stream // of the one that it doesn't
}

// begin makes one of a connection that the DHT has made.
func (ses *session) begin(c Conn) (*conn, error) {
	switch h := c.Handshake.(type) {
	case *proxy:
		return &conn{raw: c.Raw, id: h.id}, nil
	case *custodian:
		session, err := h.noise.Split()
		if err != nil {
			c.Raw.Close()
			return nil, err
		}
		stream, err := secretstream.New(c.Raw, session, secretstream.Options{Clock: ses.clock})
		return &conn{raw: c.Raw, stream: stream}, err
	}
	c.Raw.Close()
	return nil, errors.New("a connection with another handshake than was given")
}

func (c *conn) hash() (hash [64]byte) {
	if c.stream != nil {
		hash = c.stream.HandshakeHash()
	}
	return hash
}

func (c *conn) close() {
	if c.stream != nil {
		c.stream.Close()
	}
	c.raw.Close()
}

// carry carries what is said, in both directions, until both have ended or
// either breaks.
func (c *conn) carry(t *tube) {
	var from, watch sync.WaitGroup
	finished := make(chan struct{})
	watch.Go(func() {
		select {
		case <-t.broken: // whatever waits for the peer
			c.close()
		case <-finished:
		}
	})
	from.Go(func() {
		err := c.fromPeer(t)
		if err == nil {
			t.end()
		} else {
			t.abort(err)
		}
	})
	err := c.toPeer(t)
	if err == nil {
		err = c.closeWrite()
	}
	if err != nil {
		t.abort(err)
	}
	from.Wait()
	close(finished)
	watch.Wait()
	c.close()
	t.fail(ErrClosed)
	t.Close() // gives back what nobody took
}

func (c *conn) fromPeer(t *tube) error {
	var buf []byte
	if c.stream == nil {
		buf = make([]byte, chunkSize)
	}
	for {
		p, err := c.read(buf)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = t.writeChunk(p)
		}
		if err != nil {
			return err
		}
	}
}

// read reads the next message, or some bytes if borders don't matter.
func (c *conn) read(buf []byte) ([]byte, error) {
	if c.stream != nil {
		return c.stream.Next()
	}
	n, err := c.raw.Read(buf)
	if n > 0 {
		err = nil // it comes again
	}
	return buf[:n], err
}

func (c *conn) toPeer(t *tube) error {
	for {
		chunk, err := t.next()
		if err == io.EOF {
			return nil
		}
		if err == nil && c.stream != nil {
			err = c.stream.WriteMessage(chunk)
		} else if err == nil {
			_, err = c.raw.Write(chunk)
		}
		if err != nil {
			return err
		}
	}
}

func (c *conn) closeWrite() error {
	if c.stream != nil {
		return c.stream.CloseWrite()
	}
	return c.raw.CloseWrite()
}
