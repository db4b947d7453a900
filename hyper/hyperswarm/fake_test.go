package hyperswarm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
)

// A world is a DHT and a local network in memory, without packets. Everything
// takes a while on its clock.
type world struct {
	t     testing.TB
	clock *clock.Fake

	mu        sync.Mutex
	delay     time.Duration
	lanDelay  time.Duration
	listening map[noise.Key]*fakeNet
	announced map[Topic]map[noise.Key]bool
	lan       []*fakeLAN
	fail      func(from, to noise.Key) error // of connections over the DHT
	attempts  []string
	links     int
}

func newWorld(t testing.TB) *world {
	return &world{
		t: t, clock: clock.NewFake(time.Unix(1_800_000_000, 0)), delay: 10 * time.Millisecond, lanDelay: time.Millisecond,
		listening: map[noise.Key]*fakeNet{}, announced: map[Topic]map[noise.Key]bool{},
	}
}

func (w *world) after(d time.Duration, f func()) { w.clock.AfterFunc(d, f) }

func (w *world) note(format string, args ...any) {
	w.attempts = append(w.attempts, fmt.Sprintf(format, args...))
}

// A user is a swarm in a world.
type user struct {
	*Swarm
	net *fakeNet
	lan *fakeLAN

	mu    sync.Mutex
	conns []*Conn
}

// ranked are key pairs by their keys, so that tests can say who is the greater.
var ranked = func() (list []noise.KeyPair) {
	for n := range byte(40) {
		list = append(list, noise.NewKeyPair([32]byte{n + 1}))
	}
	slices.SortFunc(list, func(a, b noise.KeyPair) int { return slices.Compare(a.Public[:], b.Public[:]) })
	return list
}()

type how uint8

const (
	overDHT how = 1 << iota
	overLAN
)

func (w *world) user(n int, how how, o Options) *user {
	u := &user{}
	o.KeyPair = ranked[n]
	o.Clock = w.clock
	var seed [32]byte
	seed[0] = byte(n)
	o.Random = rand.NewChaCha8(seed)
	if o.Serve == nil {
		o.Serve = func(c *Conn) {
			u.mu.Lock()
			u.conns = append(u.conns, c)
			u.mu.Unlock()
			<-c.Done()
		}
	}
	u.Swarm = prepare(o)
	if how&overDHT != 0 {
		u.net = &fakeNet{world: w, keys: o.KeyPair}
		u.Swarm.network = u.net
	}
	if how&overLAN != 0 {
		u.lan = &fakeLAN{world: w, swarm: u.Swarm, addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 1)}
		u.Swarm.local = u.lan
		w.lan = append(w.lan, u.lan)
	}
	w.t.Cleanup(func() { w.wait(u.Close) })
	return u
}

func (u *user) key() noise.Key { return u.o.KeyPair.Public }

// with reports whether there is an open connection to each of the others.
func (u *user) with(others ...*user) error {
	for _, o := range others {
		if !slices.ContainsFunc(u.Conns(), func(c *Conn) bool { return c.RemoteKey() == o.key() }) {
			return fmt.Errorf("no connection from %.6s to %.6s", u.key(), o.key())
		}
	}
	return nil
}

type fakeNet struct {
	world     *world
	keys      noise.KeyPair
	refuse    func(noise.Key) bool
	serve     func(link)
	suspended bool
	searches  []search
}

func (n *fakeNet) connect(ctx context.Context, to target, done func(link, error)) {
	w := n.world
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("%d->%d", rank(n.keys.Public), rank(to.key))
	w.after(w.delay, func() {
		w.mu.Lock()
		other := w.listening[to.key]
		var err error
		if w.fail != nil {
			err = w.fail(n.keys.Public, to.key)
		}
		switch {
		case err != nil:
		case ctx.Err() != nil:
			err = ctx.Err()
		case other == nil || other.suspended || n.suspended:
			err = hyperdht.ErrNotFound
		}
		w.mu.Unlock()
		if err == nil && other.refuse(n.keys.Public) {
			err = hyperdht.ErrRefused
		}
		if err != nil {
			done(nil, err)
			return
		}
		kind := hyperdht.PathDirect
		if to.force {
			kind = hyperdht.PathRelayed
		}
		a, b := w.pair(n.keys.Public, to.key, hyperdht.Path{Kind: kind})
		other.serve(b)
		done(a, nil)
	})
}

func (n *fakeNet) listen(ctx context.Context, refuse func(noise.Key) bool, serve func(link), done func(server, error)) {
	w := n.world
	w.after(w.delay, func() {
		w.mu.Lock()
		n.refuse, n.serve = refuse, serve
		w.listening[n.keys.Public] = n
		w.mu.Unlock()
		done(fakeServer{n}, nil)
	})
}

func (n *fakeNet) search(ctx context.Context, s search, found func([]hyperdht.Peer), done func([]netip.AddrPort, error)) {
	w := n.world
	w.mu.Lock()
	n.searches = append(n.searches, s)
	w.mu.Unlock()
	w.after(w.delay, func() {
		if ctx.Err() != nil {
			done(nil, ctx.Err())
			return
		}
		w.mu.Lock()
		var peers []hyperdht.Peer
		for key := range w.announced[s.topic] {
			peers = append(peers, hyperdht.Peer{Key: key})
		}
		slices.SortFunc(peers, func(a, b hyperdht.Peer) int { return slices.Compare(a.Key[:], b.Key[:]) })
		if w.announced[s.topic] == nil {
			w.announced[s.topic] = map[noise.Key]bool{}
		}
		if s.announce {
			w.announced[s.topic][n.keys.Public] = true
		}
		if s.withdraw {
			delete(w.announced[s.topic], n.keys.Public)
		}
		w.mu.Unlock()
		found(peers)
		done([]netip.AddrPort{netip.MustParseAddrPort("10.9.9.9:9")}, nil)
	})
}

func (n *fakeNet) suspend(context.Context) error { return n.set(true) }
func (n *fakeNet) resume(context.Context) error  { return n.set(false) }

func (n *fakeNet) set(suspended bool) error {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	n.suspended = suspended
	return nil
}

type fakeServer struct{ net *fakeNet }

func (s fakeServer) RelayAddresses() []netip.AddrPort { return nil }
func (s fakeServer) Refresh()                         {}
func (s fakeServer) Close() error {
	s.net.world.mu.Lock()
	defer s.net.world.mu.Unlock()
	delete(s.net.world.listening, s.net.keys.Public)
	return nil
}

func rank(key noise.Key) int {
	return slices.IndexFunc(ranked, func(k noise.KeyPair) bool { return k.Public == key })
}

// fakeLAN is the local network. Who browses hears of those who announce after
// a while.
type fakeLAN struct {
	world     *world
	swarm     *Swarm
	addr      netip.AddrPort
	announced []Topic
	browsed   []Topic
	silent    bool
}

func (l *fakeLAN) neighbour(t Topic) neighbour {
	return neighbour{l.addr.String(), mdns.Peer{Topic: t, Addrs: []netip.AddrPort{l.addr}}}
}

func (l *fakeLAN) announce(topics []Topic) {
	l.world.mu.Lock()
	defer l.world.mu.Unlock()
	for _, o := range l.world.lan {
		for _, t := range l.announced {
			if o != l && !slices.Contains(topics, t) && slices.Contains(o.browsed, t) {
				l.world.after(l.world.lanDelay, func() { o.swarm.foundLocal(l.neighbour(t), true) })
			}
		}
		for _, t := range topics {
			if o != l && !slices.Contains(l.announced, t) && slices.Contains(o.browsed, t) {
				l.world.after(l.world.lanDelay, func() { o.swarm.foundLocal(l.neighbour(t), false) })
			}
		}
	}
	l.announced = topics
}

func (l *fakeLAN) browse(topics []Topic) {
	l.world.mu.Lock()
	defer l.world.mu.Unlock()
	for _, o := range l.world.lan {
		for _, t := range topics {
			if o != l && !slices.Contains(l.browsed, t) && slices.Contains(o.announced, t) {
				l.world.after(l.world.lanDelay, func() { l.swarm.foundLocal(o.neighbour(t), false) })
			}
		}
	}
	l.browsed = topics
}

func (l *fakeLAN) connect(ctx context.Context, n neighbour, check func(noise.Key) error, done func(link, error)) {
	w := l.world
	w.mu.Lock()
	at := slices.IndexFunc(w.lan, func(o *fakeLAN) bool { return o.addr == n.peer.Addrs[0] })
	other := w.lan[at]
	me := l.swarm.o.KeyPair.Public
	w.note("lan %d->%d", rank(me), rank(other.swarm.o.KeyPair.Public))
	w.mu.Unlock()
	w.after(w.lanDelay, func() {
		key := other.swarm.o.KeyPair.Public
		if other.silent {
			done(nil, errors.New("no answer"))
			return
		}
		if err := check(key); err != nil {
			done(nil, err)
			return
		}
		w.after(w.lanDelay, func() {
			if ctx.Err() != nil || other.swarm.refuses(me) {
				done(nil, hyperdht.ErrRefused)
				return
			}
			a, b := w.pair(me, key, hyperdht.Path{Kind: hyperdht.PathLAN, Addr: n.peer.Addrs[0]})
			other.swarm.serve(b)
			done(a, nil)
		})
	})
}

func (l *fakeLAN) remembered() []netip.AddrPort { return nil }
func (l *fakeLAN) close() error                 { return nil }

// pair makes a connection.
func (w *world) pair(from, to noise.Key, p Path) (a, b *fakeLink) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a = &fakeLink{world: w, remote: to, initiator: true, path: p}
	b = &fakeLink{world: w, remote: from, path: p, other: a}
	a.other = b
	a.gone = new(bool)
	b.gone = a.gone
	w.links++
	return a, b
}

type fakeLink struct {
	world     *world
	remote    noise.Key
	initiator bool
	path      Path
	other     *fakeLink
	gone      *bool // for both

	mu      sync.Mutex
	closed  bool
	lingers bool // closing takes for ever
	moved   bool
	stuck   bool
	alive   int
	then    []func(error)
}

func (l *fakeLink) RemoteKey() noise.Key         { return l.remote }
func (l *fakeLink) Initiator() bool              { return l.initiator }
func (l *fakeLink) Path() Path                   { return l.path }
func (l *fakeLink) OnPath(func(Path))            {}
func (l *fakeLink) stream() *secretstream.Stream { return nil }

func (l *fakeLink) Close() error {
	if !l.lingers && l.lose() {
		l.world.mu.Lock()
		if !*l.gone {
			*l.gone = true
			l.world.links--
		}
		l.world.mu.Unlock()
		l.world.after(l.world.lanDelay, func() { l.other.lose() })
	}
	return nil
}

// lose ends one side.
func (l *fakeLink) lose() bool {
	l.mu.Lock()
	was := l.closed
	l.closed = true
	then := l.then
	l.then = nil
	l.mu.Unlock()
	for _, f := range then {
		f(nil)
	}
	return !was
}

func (l *fakeLink) onClose(f func(error)) {
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.then = append(l.then, f)
	}
	l.mu.Unlock()
	if closed {
		f(nil)
	}
}

func (l *fakeLink) received() (n uint64, pending bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.moved {
		n = 1
	}
	return n, l.stuck
}

func (l *fakeLink) keepAlive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alive++
}
