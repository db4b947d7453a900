package dhtrelay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
)

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
	ses.mu.Lock()
	left := slices.Collect(maps.Keys(ses.offered)) // what comes later ends at once, as it can't be offered
	ses.mu.Unlock()
	for _, alias := range left {
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
