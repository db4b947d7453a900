// Package hyperswarm finds peers that have a topic in common, and keeps
// connections to them: through the DHT wherever they are, and on the local
// network without it.
//
// It is a port of the npm package hyperswarm 4.17 and meets its peers. What is
// new is the local network (hyper/mdns), which needs no internet. It knows
// nothing of what is said over a connection.
//
//	swarm, err := hyperswarm.New(hyperswarm.Options{
//		DHT:   dht,
//		LAN:   &mdns.Options{},
//		Serve: func(c *hyperswarm.Conn) { … },
//	})
//	d, err := swarm.Join(topic, hyperswarm.JoinOptions{})
//	err = d.Flushed(ctx)
//	err = swarm.Close()
package hyperswarm

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/blake2b"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
)

// The kinds of error. They come wrapped: test with [errors.Is].
var (
	// ErrClosed means that the swarm, or the interest in a topic, is over.
	ErrClosed = errors.New("swarm closed")
	// ErrDuplicate means that there is another connection to the same peer.
	ErrDuplicate = errors.New("duplicate connection")
	// ErrRefused means that the gate refused a peer, or that it is banned.
	ErrRefused = errors.New("peer refused")
	// ErrFull means that there are as many connections as there may be.
	ErrFull = errors.New("enough connections")
	// ErrUnreachable means that there is neither a DHT nor a way over the local
	// network.
	ErrUnreachable = errors.New("no way to the peer")
)

// A Topic is what peers have in common: 32 bytes that are not to be guessed,
// such as the discovery key of a log.
type Topic = [32]byte

// A Path says how a connection goes, and why not better.
type Path = hyperdht.Path

// Defaults of the reference.
const (
	// DefaultMaxPeers is for Options.MaxPeers.
	DefaultMaxPeers = 64
	// DefaultMaxParallel is for Options.MaxParallel.
	DefaultMaxParallel = 3
)

// Bounds on what strangers make us remember.
const (
	maxKnown  = 8192 // peers
	maxBanned = 4096 // of those, by the gate
)

// Options say who a swarm is and what it may do. Serve is needed, and DHT or
// LAN.
type Options struct {
	// DHT is where peers are found and connected to. It is not closed with the
	// swarm, but suspended with it.
	DHT *hyperdht.DHT
	// LAN is how to use the local network; nil is not at all. KeyPair, Clock,
	// Random and the callbacks are set by the swarm. There, only mdns.MaxTopics
	// of the topics are announced, if there are more; all are looked for.
	LAN *mdns.Options
	// KeyPair is what this side is known by: that of the DHT if it is zero.
	KeyPair noise.KeyPair
	// Serve gets each connection, in a goroutine of its own. The connection is
	// closed when it returns, and Close waits for that.
	Serve func(*Conn)
	// Refuse is the gate: peers for which it returns true are not connected to,
	// and banned. It must not call the swarm.
	Refuse func(remote noise.Key) bool

	// MaxPeers is how many connections there may be before no more are made.
	MaxPeers int
	// MaxParallel is how many are made at the same time.
	MaxParallel int
	// MaxClients and MaxServers are how many there may be that we made and that
	// others made; zero is any number.
	MaxClients, MaxServers int

	// RelayThrough are blind relays. They are asked when this side's NAT gives
	// every peer another port, and when punching failed.
	RelayThrough []noise.Key

	// Backoffs are how long to wait before peers are tried again: those that
	// were connected a moment ago or failed once, and so on, and those that were
	// asked for and always fail. Zero is as in the reference.
	Backoffs [4]time.Duration
	// Update is told when connections or peers have changed, if it isn't nil. It
	// must not block.
	Update func()
	// Banned is told of peers that are banned, if it isn't nil. It must not
	// block.
	Banned func(remote noise.Key, why error)
	// Clock is the machine's clock if it is nil.
	Clock clock.Clock
	// Random is crypto/rand if it is nil.
	Random io.Reader
}

// Stats count what a swarm has done.
type Stats struct {
	// Updates is how often something changed.
	Updates int
	// ClientAttempts are connections that we tried to make, ClientOpened those
	// that came about, and ClientClosed both those that ended and those that
	// did not come about. ServerOpened and ServerClosed are those of others.
	ClientAttempts, ClientOpened, ClientClosed, ServerOpened, ServerClosed int
	// BannedPeers is how often a peer was banned.
	BannedPeers int
	// Renewals are connections that were tried to be made again because nothing
	// was acked over the old one.
	Renewals int
	// LocalAttempts are handshakes begun with who was found on the local
	// network.
	LocalAttempts int
}

// A Swarm keeps connections to the peers of its topics. Its methods may be
// called by any goroutine.
type Swarm struct {
	o       Options
	network network // nil if there is no DHT
	local   local   // nil if the local network isn't used
	serving sync.WaitGroup
	telling sync.Mutex // taken before mu

	mu    sync.Mutex
	queue []func() // to be done without the lock; see do

	closed, suspended bool
	listening         *refresh
	server            server
	topics            map[Topic]*topic
	peers             map[noise.Key]*peer
	explicit          []*peer
	banned            int
	all               map[noise.Key]*entry // open, and on the way
	open              int
	connecting        int
	clients, servers  int
	candidates        map[string]*candidate
	localWanted       wanted
	waiting           queue
	retries           *retries
	draining          bool
	watch             clock.Timer // nil if there is no connection
	flushes           []*flush
	tick              int
	stats             Stats
}

// wanted is what the local network was told.
type wanted struct{ announced, browsed []Topic }

// New begins a swarm.
func New(o Options) (*Swarm, error) {
	s := prepare(o)
	if o.DHT != nil {
		if s.o.KeyPair == (noise.KeyPair{}) {
			s.o.KeyPair = o.DHT.KeyPair()
		}
		s.network = &dhtNetwork{dht: o.DHT, keys: s.o.KeyPair, relay: s.o.RelayThrough}
	}
	if !s.o.KeyPair.CanProve() {
		return nil, errors.New("begin swarm: no key pair")
	}
	if o.LAN != nil {
		lan, err := openLocal(s, *o.LAN)
		if err != nil {
			return nil, fmt.Errorf("begin swarm: %w", err)
		}
		s.local = lan
	}
	if s.network == nil && s.local == nil {
		return nil, errors.New("begin swarm: neither a DHT nor the local network")
	}
	return s, nil
}

// prepare is New without the networks.
func prepare(o Options) *Swarm {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.MaxPeers == 0 {
		o.MaxPeers = DefaultMaxPeers
	}
	if o.MaxParallel == 0 {
		o.MaxParallel = DefaultMaxParallel
	}
	if o.MaxClients == 0 {
		o.MaxClients = math.MaxInt
	}
	if o.MaxServers == 0 {
		o.MaxServers = math.MaxInt
	}
	if o.Backoffs == ([4]time.Duration{}) {
		o.Backoffs = defaultBackoffs(o.Random)
	}
	s := &Swarm{
		o:          o,
		topics:     map[Topic]*topic{},
		peers:      map[noise.Key]*peer{},
		all:        map[noise.Key]*entry{},
		candidates: map[string]*candidate{},
		waiting:    queue{random: o.Random},
	}
	s.retries = s.newRetries()
	return s
}

func (s *Swarm) newRetries() *retries {
	const jitter = 500 * time.Millisecond
	return newRetries(s.o.Clock, s.o.Random, s.o.Backoffs, jitter, func(b *bulk) {
		s.do(func() { s.requeue(b.due()) })
	})
}

// do calls f with the lock, and then, without it, what f and others have left
// to be done later.
func (s *Swarm) do(f func()) {
	s.mu.Lock()
	f()
	todo := s.queue
	s.queue = nil
	s.mu.Unlock()
	for _, f := range todo {
		f()
	}
}

// later has f called when the lock is free.
func (s *Swarm) later(f func()) { s.queue = append(s.queue, f) }

// KeyPair returns what this side is known by.
func (s *Swarm) KeyPair() noise.KeyPair { return s.o.KeyPair }

// Join takes an interest in a topic.
func (s *Swarm) Join(id Topic, o JoinOptions) (*Discovery, error) {
	if o.ServerOnly && o.ClientOnly {
		return nil, errors.New("join topic: neither as client nor as server")
	}
	var d *Discovery
	s.do(func() {
		if s.closed {
			return
		}
		t := s.topics[id]
		if t == nil || t.closed {
			next := &topic{swarm: s, id: id, suspended: s.suspended}
			if t != nil {
				next.before = t.ending
			}
			t = next
			s.topics[id] = t
		}
		d = &Discovery{swarm: s, topic: t}
		t.sessions = append(t.sessions, d)
		t.limit = o.Limit
		d.set(!o.ServerOnly, !o.ClientOnly)
		t.refresh()
	})
	if d == nil {
		return nil, fmt.Errorf("join topic: %w", ErrClosed)
	}
	return d, nil
}

// Leave ends all interest in a topic. It waits for the announcement to be taken
// back, until ctx ends. Connections go on.
func (s *Swarm) Leave(ctx context.Context, id Topic) error {
	var r *refresh
	s.do(func() {
		if t := s.topics[id]; t != nil {
			r = t.close()
		}
	})
	return r.wait(ctx)
}

// left forgets a topic.
func (s *Swarm) left(t *topic) {
	if t.closed && s.topics[t.id] == t {
		delete(s.topics, t.id)
	}
}

// Topics returns those that somebody is interested in.
func (s *Swarm) Topics() (list []Topic) {
	s.do(func() {
		for id, t := range s.topics {
			if !t.closed {
				list = append(list, id)
			}
		}
	})
	slices.SortFunc(list, func(a, b Topic) int { return bytes.Compare(a[:], b[:]) })
	return list
}

// Listen lets peers connect that know the key, without a topic. It waits until
// the key is announced, or ctx ends.
func (s *Swarm) Listen(ctx context.Context) error {
	var r *refresh
	s.do(func() { r = s.listen() })
	return r.wait(ctx)
}

// listen begins to listen, once.
func (s *Swarm) listen() *refresh {
	if s.listening != nil && !(s.listening.over && s.listening.err != nil) {
		return s.listening
	}
	r := newRefresh()
	s.listening = r
	if s.closed {
		r.finish(ErrClosed)
		return r
	}
	s.tellLocal()
	if s.network == nil {
		r.finish(nil)
		return r
	}
	s.later(func() {
		s.network.listen(context.Background(), s.refuses, s.serve, func(l server, err error) {
			s.do(func() {
				if err == nil && s.closed {
					s.later(func() { l.Close() })
				} else if err == nil {
					s.server = l
				}
				r.finish(err)
			})
		})
	})
	return r
}

// JoinPeer keeps a connection to a peer.
func (s *Swarm) JoinPeer(key noise.Key) {
	s.do(func() {
		p := s.upsert(key, nil)
		if p == nil || s.closed {
			return
		}
		if !p.explicit {
			p.explicit = true
			s.explicit = append(s.explicit, p)
			s.tellLocal()
		}
		if s.all[key] == nil && p.update() {
			s.enqueue(p)
		}
	})
}

// LeavePeer lets go of a peer. A connection that there is goes on.
func (s *Swarm) LeavePeer(key noise.Key) {
	s.do(func() {
		p := s.peers[key]
		if p == nil || !p.explicit {
			return
		}
		p.explicit = false
		s.explicit = slices.DeleteFunc(s.explicit, func(o *peer) bool { return o == p })
		s.tellLocal()
		s.forget(p)
	})
}

// Ban keeps a peer away, or lets it come back. A connection that there is
// ends.
func (s *Swarm) Ban(key noise.Key, banned bool) {
	s.do(func() {
		p := s.upsert(key, nil)
		if p == nil {
			return
		}
		if !banned {
			p.banned = false
			s.forget(p)
			return
		}
		s.ban(p, ErrRefused)
		if e := s.all[key]; e != nil {
			s.end(e, ErrRefused)
		}
	})
}

func (s *Swarm) ban(p *peer, why error) {
	p.banned = true
	s.stats.BannedPeers++
	if f := s.o.Banned; f != nil {
		s.later(func() { f(p.key, why) })
	}
}

// Refresh looks for peers of all topics and finds out which connections are
// dead, as is right when the network has changed: when hyperdht.Options.Notify
// says so.
func (s *Swarm) Refresh() {
	s.do(func() {
		if s.suspended || s.closed {
			return
		}
		s.keepAlive()
		for _, t := range s.topics {
			t.refresh()
		}
		if l := s.server; l != nil {
			s.later(l.Refresh)
		}
	})
}

func (s *Swarm) keepAlive() {
	for _, e := range s.all {
		if e.link != nil {
			s.later(e.link.keepAlive)
		}
	}
}

// A flush waits for connections that were to be made when it began.
type flush struct {
	missing, tick int
	done          chan bool
}

// Flush waits until all topics are announced and looked up and all peers that
// were found meanwhile have been tried. It fails with [ErrClosed] if the swarm
// is closed before.
func (s *Swarm) Flush(ctx context.Context) error {
	var all []*Discovery
	s.do(func() {
		for _, t := range s.topics {
			all = append(all, &Discovery{swarm: s, topic: t})
		}
	})
	for _, d := range all {
		if err := d.Flushed(ctx); ctx.Err() != nil {
			return err
		}
	}
	f := &flush{done: make(chan bool, 1)}
	s.do(func() {
		pending := len(s.all) - s.open
		switch {
		case s.closed:
			f.done <- false
		case s.flushAll() || s.waiting.len() == 0 && pending == 0:
			f.done <- true
		default:
			f.missing, f.tick = s.waiting.len()+pending, s.tick
			s.tick++
			s.flushes = append(s.flushes, f)
		}
	})
	select {
	case ok := <-f.done:
		if !ok {
			return ErrClosed
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// flushed counts a peer that was tried.
func (s *Swarm) flushed(p *peer) {
	s.flushes = slices.DeleteFunc(s.flushes, func(f *flush) bool {
		if p.tick > f.tick {
			return false
		}
		f.missing--
		if f.missing <= 0 {
			f.done <- true
		}
		return f.missing <= 0
	})
}

// flushAll ends all flushes if there is nothing more to try.
func (s *Swarm) flushAll() bool {
	if s.connecting > 0 || s.roomForPeers() && s.clients < s.o.MaxClients {
		return false
	}
	for _, f := range s.flushes {
		f.done <- true
	}
	s.flushes = nil
	return true
}

// Suspend ends all connections and takes the swarm off the network, for a
// machine that goes to sleep. Topics stay. It suspends the DHT, too.
func (s *Swarm) Suspend(ctx context.Context) error {
	var ends []*refresh
	begun := false
	s.do(func() {
		if s.suspended || s.closed {
			return
		}
		begun = true
		for _, t := range s.topics {
			ends = append(ends, t.suspend())
		}
		s.suspended = true
		s.tellLocal()
		for _, e := range slices.Collect(maps.Values(s.all)) {
			s.end(e, ErrClosed)
		}
		s.retries.stop()
		s.retries = s.newRetries()
		for p := s.waiting.shift(); p != nil; p = s.waiting.shift() {
			p.queued = false
			s.forget(p)
		}
	})
	if !begun {
		return nil
	}
	for _, r := range ends {
		if err := r.wait(ctx); ctx.Err() != nil {
			return err
		}
	}
	if s.network == nil {
		return nil
	}
	return s.network.suspend(ctx)
}

// Resume puts a swarm back that was suspended.
func (s *Swarm) Resume(ctx context.Context) error {
	if s.network != nil {
		if err := s.network.resume(ctx); err != nil {
			return err
		}
	}
	s.do(func() {
		if !s.suspended || s.closed {
			return
		}
		s.suspended = false
		for _, t := range s.topics {
			t.resume()
		}
		s.tellLocal()
		s.connectMore()
	})
	return nil
}

// Close leaves all topics and ends all connections. It waits for what was
// announced to be taken back, at most for a few seconds, and for Serve to
// return.
func (s *Swarm) Close() error {
	var ends []*refresh
	var l server
	begun := false
	s.do(func() {
		if s.closed {
			return
		}
		begun, s.closed = true, true
		s.retries.stop()
		for _, t := range s.topics {
			ends = append(ends, t.close())
		}
		for _, e := range slices.Collect(maps.Values(s.all)) {
			s.end(e, ErrClosed)
		}
		for _, c := range s.candidates {
			c.stop()
		}
		if s.watch != nil {
			s.watch.Stop()
		}
		for _, f := range s.flushes {
			f.done <- false
		}
		s.flushes = nil
		l, s.server = s.server, nil
	})
	if !begun {
		return nil
	}
	const patience = 5 * time.Second
	ctx, cancel := context.WithCancelCause(context.Background())
	timer := s.o.Clock.AfterFunc(patience, func() { cancel(fmt.Errorf("no answer within %v", patience)) })
	defer timer.Stop()
	var errs []error
	for _, r := range ends {
		if err := r.wait(ctx); err != nil {
			errs = append(errs, fmt.Errorf("leave topic: %w", err))
		}
	}
	if l != nil {
		errs = append(errs, l.Close())
	}
	if s.local != nil {
		errs = append(errs, s.local.close())
	}
	s.serving.Wait()
	return errors.Join(errs...)
}

// Remembered returns where peers were on the local network, to be given to the
// next swarm of this machine, as mdns.Options.Remembered.
func (s *Swarm) Remembered() []netip.AddrPort {
	if s.local == nil {
		return nil
	}
	return s.local.remembered()
}

// Stats returns what the swarm has done.
func (s *Swarm) Stats() (stats Stats) {
	s.do(func() { stats = s.stats })
	return stats
}

// A Peer is what a swarm knows of one.
type Peer struct {
	Key    noise.Key
	Topics []Topic
	// Explicit says that [Swarm.JoinPeer] asked for it.
	Explicit bool
	Banned   bool
	// Connected says that there is a connection, and Client that we made the
	// last one.
	Connected, Client bool
	// Local says that it is on the local network.
	Local    bool
	Attempts int
	Priority Priority
}

// Peers returns what the swarm knows.
func (s *Swarm) Peers() (list []Peer) {
	s.do(func() {
		for key, p := range s.peers {
			e := s.all[key]
			list = append(list, Peer{key, slices.Clone(p.topics), p.explicit, p.banned, e != nil && e.open, p.client, p.lan != nil, p.attempts, p.priority})
		}
	})
	slices.SortFunc(list, func(a, b Peer) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return list
}

// Conns returns the open connections.
func (s *Swarm) Conns() (list []*Conn) {
	s.do(func() {
		for _, e := range s.all {
			if e.open {
				list = append(list, e.conn)
			}
		}
	})
	slices.SortFunc(list, func(a, b *Conn) int { return bytes.Compare(a.key[:], b.key[:]) })
	return list
}

// A Conn is a connection to a peer: a stream of messages.
type Conn struct {
	*secretstream.Stream
	link  link
	key   noise.Key
	swarm *Swarm
	done  chan struct{}
	over  bool // for its user; what was sent may still be on the way. Guarded by swarm.mu
}

// RemoteKey returns the key of the peer.
func (c *Conn) RemoteKey() noise.Key { return c.key }

// Initiator reports whether this side connected.
func (c *Conn) Initiator() bool { return c.link.Initiator() }

// Path says how the connection goes, and why not better.
func (c *Conn) Path() Path { return c.link.Path() }

// OnPath calls f when the path has changed. f must not block.
func (c *Conn) OnPath(f func(Path)) { c.link.OnPath(f) }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Close ends the connection. The swarm may connect to the peer again; see
// [Swarm.Ban] and [Swarm.LeavePeer].
func (c *Conn) Close() error {
	c.swarm.do(func() { c.over = true })
	return c.link.Close()
}

// Topics returns those that the peer was found with. Peers that connected to
// us are only known by the topics that we found them with, too.
func (c *Conn) Topics() (list []Topic) {
	c.swarm.do(func() {
		if p := c.swarm.peers[c.key]; p != nil {
			list = slices.Clone(p.topics)
		}
	})
	return list
}

// keyTopic is what a peer that listens announces on the local network, so that
// those who know its key find it.
func keyTopic(key noise.Key) Topic {
	return blake2b.Sum256(append([]byte("hyperlan 1 key\x00"), key[:]...))
}
