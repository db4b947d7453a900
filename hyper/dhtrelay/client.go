package dhtrelay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
)

const (
	// maxHandshakes is how many handshakes with strangers a client holds. The
	// oldest makes room for the newest: nobody says which are given up.
	maxHandshakes = 256
	// backlog is how many connections wait to be accepted.
	backlog = 64
	// maxServed is how many streams a relay may open to a client.
	maxServed = 4096
)

// ClientOptions say what a client is. The zero value is right for one that
// needs no name.
type ClientOptions struct {
	// KeyPair is what this peer is known by: one made from Random if it is zero.
	KeyPair noise.KeyPair
	// Stream is for the encrypted streams; its KeyPair and Check are not used.
	Stream secretstream.Options
	// Transport is for Dial.
	Transport transport.DialOptions
	// Clock is the machine's clock, and Random crypto/rand, if they are nil.
	Clock  clock.Clock
	Random io.Reader
}

// A Client is a peer that reaches the DHT through a relay. Its methods may be
// called by any goroutine.
type Client struct {
	line
	keys    noise.KeyPair
	o       ClientOptions
	serving sync.WaitGroup
	err     error // why it has ended; set before done is closed
	done    chan struct{}

	// Guarded by line.mu.
	dials      map[uint32]*dial     // by our number
	opening    map[uint32]*Listener // by our number
	listeners  map[uint32]*Listener // by the relay's number
	queries    map[uint32]*query    // by our number
	signees    map[uint32]signee    // by our number of a server or a query
	handshakes map[uint32]*handshake
	newest     []uint32 // handshakes by age
}

// A dial is a stream that the relay was asked for.
type dial struct {
	keys   noise.KeyPair
	remote noise.Key
	done   chan dialed

	// Guarded by line.mu.
	id    uint32 // our number
	tries int
}

type dialed struct {
	stream *secretstream.Stream
	err    error
}

// A query is one that runs.
type query struct {
	found func(hyperdht.Found)
	done  chan struct{}
}

// A signee is a key that the relay may announce.
type signee struct {
	keys   noise.KeyPair
	target [32]byte
}

// Dial connects to a relay at ws://HOST:PORT/PATH or wss://HOST:PORT/PATH.
func Dial(ctx context.Context, url string, o ClientOptions) (*Client, error) {
	conn, err := transport.Dial(ctx, url, o.Transport)
	if err != nil {
		return nil, fmt.Errorf("dial relay: %w", err)
	}
	m, ok := conn.(transport.MessageConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("dial relay %s: messages need a WebSocket: %w", url, errors.ErrUnsupported), conn.Close())
	}
	return NewClient(messages(m, protomux.MaxFrame), o)
}

// NewClient begins to speak with a relay over a stream, which the client owns
// from then on, such as one of hyper/secretstream over TCP.
func NewClient(stream protomux.Stream, o ClientOptions) (*Client, error) {
	if o.Random == nil {
		o.Random = rand.Reader
	}
	c := &Client{
		keys: o.KeyPair, o: o, done: make(chan struct{}),
		dials: map[uint32]*dial{}, opening: map[uint32]*Listener{}, listeners: map[uint32]*Listener{}, queries: map[uint32]*query{},
		signees: map[uint32]signee{}, handshakes: map[uint32]*handshake{},
	}
	var err error
	if !c.keys.CanProve() {
		c.keys, err = noise.GenerateKeyPair(o.Random)
	}
	if err == nil {
		err = c.open(protomux.Options{MaxChannels: 16, MaxQueued: 32 << 20}, o.Clock, map[int]func([]byte) error{
			numConnection:     c.onConnection,
			numIncoming:       c.onIncoming,
			numDestroy:        c.onDestroy,
			numListening:      c.onListening,
			numClosed:         c.onClosed,
			numOpen:           c.onOpen,
			numResult:         c.onResult,
			numFinished:       c.onFinished,
			numSignAnnounce:   func(b []byte) error { return c.onSign(b, false) },
			numSignUnannounce: func(b []byte) error { return c.onSign(b, true) },
			numNoiseSend:      c.onNoiseSend,
			numNoiseReceive:   c.onNoiseReceive,
		})
	}
	if err == nil {
		err = c.send(numHandshake, &handshakeMsg{key: c.keys.Public})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin with relay: %w", err), stream.Close())
	}
	c.serving.Go(func() {
		c.err = c.serve(context.Background(), stream)
		c.over()
		close(c.done)
	})
	return c, nil
}

// KeyPair returns what this peer is known by.
func (c *Client) KeyPair() noise.KeyPair { return c.keys }

// Done is closed when the client has ended, on whichever side.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the client has ended: nil if it hasn't, or was closed.
func (c *Client) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Close ends the connection to the relay, with all streams and servers.
func (c *Client) Close() error {
	c.end(nil)
	c.serving.Wait()
	return nil
}

// over fails what waits, after the line has ended.
func (c *Client) over() {
	why := context.Cause(c.ctx)
	c.mu.Lock()
	dials, queries := c.dials, c.queries
	c.dials, c.queries = map[uint32]*dial{}, map[uint32]*query{}
	var listeners []*Listener
	for _, from := range []map[uint32]*Listener{c.opening, c.listeners} {
		for _, l := range from {
			listeners = append(listeners, l)
		}
		clear(from)
	}
	c.mu.Unlock()
	for _, d := range dials {
		d.done <- dialed{nil, why}
	}
	for _, q := range queries {
		close(q.done)
	}
	for _, l := range listeners {
		l.end(why)
	}
}

// ConnectOptions say how to connect. The zero value is right.
type ConnectOptions struct {
	// KeyPair is what this side is known by: that of the client if it is zero.
	KeyPair noise.KeyPair
}

// Connect connects to a peer of the DHT. What is said is encrypted between the
// two.
func (c *Client) Connect(ctx context.Context, remote noise.Key, o ConnectOptions) (*secretstream.Stream, error) {
	s, err := c.connect(ctx, remote, o)
	if err != nil {
		return nil, fmt.Errorf("connect to %s through relay: %w", remote, err)
	}
	return s, nil
}

func (c *Client) connect(ctx context.Context, remote noise.Key, o ConnectOptions) (*secretstream.Stream, error) {
	d := &dial{keys: c.keysOr(o.KeyPair), remote: remote, done: make(chan dialed, 1)}
	id := c.next()
	if err := c.register(func() { d.id, c.dials[id] = id, d }); err != nil {
		return nil, err
	}
	if err := c.send(numConnect, &connectMsg{alias: id, key: d.keys.Public, remote: remote}); err != nil {
		c.takeDial(id)
		return nil, err
	}
	select {
	case got := <-d.done:
		return got.stream, got.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	id = d.id // it may have begun again
	waiting := c.dials[id] == d
	delete(c.dials, id)
	c.mu.Unlock()
	if !waiting { // it was done at the same time
		if got := <-d.done; got.stream != nil {
			got.stream.Close()
		}
		return nil, context.Cause(ctx)
	}
	c.send(numDestroy, &destroyMsg{paired: true, alias: id}) // a mux that is full is about to end
	return nil, context.Cause(ctx)
}

func (c *Client) keysOr(k noise.KeyPair) noise.KeyPair {
	if k.CanProve() {
		return k
	}
	return c.keys
}

// register adds something that the end of the line will find.
func (c *Client) register(add func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return context.Cause(c.ctx)
	}
	add()
	return nil
}

// A relay of the npm package that gets an answer of a peer through two nodes
// asks for both, and then waits for ever for the reply that it has lost. Such
// dials begin again, after retryTime.
const retryTime, maxTries = 2 * time.Second, 5

func (c *Client) retry(id uint32) {
	c.mu.Lock()
	d := c.dials[id]
	if d == nil || d.tries == maxTries {
		c.mu.Unlock()
		return
	}
	delete(c.dials, id)
	c.number++
	d.id = c.number
	d.tries++
	c.dials[d.id] = d
	m := &connectMsg{alias: d.id, key: d.keys.Public, remote: d.remote}
	c.mu.Unlock()
	c.send(numDestroy, &destroyMsg{paired: true, alias: id}) // a mux that is full is about to end
	c.send(numConnect, m)
}

func (c *Client) takeDial(id uint32) *dial {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.dials[id]
	delete(c.dials, id)
	return d
}

func (c *Client) onOpen(b []byte) error {
	var m openMsg
	if err := read(b, &m); err != nil {
		return err
	}
	d := c.takeDial(m.remote)
	if d == nil {
		return nil // given up, as the relay is about to know
	}
	s, err := c.begin(&handshake{initiator: true, stream: m.remote}, m.custodial, m.handshakeID, d.remote, m.remote, m.alias, nil)
	if err != nil {
		c.send(numDestroy, &destroyMsg{paired: true, alias: m.remote, reason: "handshake failed"})
	}
	d.done <- dialed{s, err}
	return nil
}

// begin begins the encrypted stream of a handshake that the relay says is done.
// want tells which it has to be. The relay takes what comes over the stream
// once it has got connected, if that isn't nil.
func (c *Client) begin(want *handshake, custodial bool, id uint32, remote noise.Key, self, peer uint32, connected message) (*secretstream.Stream, error) {
	h := c.takeHandshake(id)
	if custodial || h == nil || h.initiator != want.initiator || h.stream != want.stream || h.listener != want.listener {
		return nil, fmt.Errorf("%w: a stream without a handshake", ErrProtocol)
	}
	session, err := h.noise.Split()
	if err != nil {
		return nil, err
	}
	if session.Remote != remote {
		return nil, fmt.Errorf("%w: a stream to %s, and the handshake was with %s", ErrProtocol, remote, session.Remote)
	}
	t, err := c.attach(self, peer)
	if err != nil {
		return nil, err
	}
	if connected != nil {
		if err := c.send(numConnected, connected); err != nil {
			t.fail(err)
			return nil, err
		}
	}
	o := c.o.Stream
	if o.Clock == nil {
		o.Clock = c.clock
	}
	if o.Random == nil {
		o.Random = c.o.Random
	}
	return secretstream.New(t, session, o)
}

func (c *Client) onDestroy(b []byte) error {
	var m destroyMsg
	if err := read(b, &m); err != nil {
		return err
	}
	if m.paired {
		if t := c.tube(m.alias); t != nil {
			t.fail(destroyed(m.reason))
		}
		return nil
	}
	if d := c.takeDial(m.alias); d != nil {
		d.done <- dialed{nil, fmt.Errorf("%w: %s", ErrRelay, m.reason)}
	}
	return nil
}

// Lookup asks who has announced itself for a topic. found gets what nodes of
// the DHT answer, as it comes, one call at a time, and must not use the client.
// It returns when all have answered.
func (c *Client) Lookup(ctx context.Context, topic [32]byte, found func(hyperdht.Found)) error {
	id := c.next()
	if err := c.query(ctx, id, found, numLookup, &lookupMsg{id: id, topic: topic}, nil); err != nil {
		return fmt.Errorf("look up through relay: %w", err)
	}
	return nil
}

// Announce announces a key for a topic: that of the client if keys is zero.
// found gets what nodes know of others, like that of Lookup, and may be nil.
func (c *Client) Announce(ctx context.Context, topic [32]byte, keys noise.KeyPair, found func(hyperdht.Found)) error {
	return c.announce(ctx, numAnnounce, topic, keys, found)
}

// Unannounce takes back what Announce did.
func (c *Client) Unannounce(ctx context.Context, topic [32]byte, keys noise.KeyPair, found func(hyperdht.Found)) error {
	return c.announce(ctx, numUnannounce, topic, keys, found)
}

func (c *Client) announce(ctx context.Context, number int, topic [32]byte, keys noise.KeyPair, found func(hyperdht.Found)) error {
	keys = c.keysOr(keys)
	id := c.next()
	m := &announceMsg{id: id, topic: topic, key: keys.Public}
	if err := c.query(ctx, id, found, number, m, &signee{keys, topic}); err != nil {
		return fmt.Errorf("announce through relay: %w", err)
	}
	return nil
}

func (c *Client) query(ctx context.Context, id uint32, found func(hyperdht.Found), number int, m message, s *signee) error {
	q := &query{found: found, done: make(chan struct{})}
	err := c.register(func() {
		c.queries[id] = q
		if s != nil {
			c.signees[id] = *s
		}
	})
	if err != nil {
		return err
	}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.queries, id)
		delete(c.signees, id)
	}()
	if err := c.send(number, m); err != nil {
		return err
	}
	select {
	case <-q.done:
		return context.Cause(c.ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Client) onResult(b []byte) error {
	var m resultMsg
	if err := read(b, &m); err != nil {
		return err
	}
	var f foundMsg
	if err := read(m.data, &f); err != nil {
		return err
	}
	c.mu.Lock()
	q := c.queries[m.id]
	c.mu.Unlock()
	if q != nil && q.found != nil {
		q.found(hyperdht.Found{From: f.from, To: f.to, Token: &f.token, Peers: f.peers})
	}
	return nil
}

func (c *Client) onFinished(b []byte) error {
	var m numberMsg
	if err := read(b, &m); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if q := c.queries[m.number]; q != nil {
		delete(c.queries, m.number)
		close(q.done)
	}
	return nil
}
