package hyperdht

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/udx"
)

const (
	// confirmPause and confirmTries are how often a side tells the other that it
	// is on the direct path now, until it hears the same.
	confirmPause = time.Second
	confirmTries = 10
	// relayPause and relayTries are how often it is looked whether anything came
	// through a relay.
	relayPause = 10 * time.Millisecond
	relayTries = 20
	// idlePause and watchPause are how often a path is looked after that has
	// nothing on its way, and one that has. After watchTries times without any
	// packet of the other side it is dead.
	idlePause  = 3 * time.Second
	watchPause = 1500 * time.Millisecond
	watchTries = 4
	// followPause is how long the other side stays at an address at least, before
	// it is followed to another one.
	followPause = time.Second
)

// A link is a stream on its way to a peer, of either side: it takes the first
// path that opens, and goes from a relay to a direct path when one does.
type link struct {
	d         *DHT
	ctx       context.Context // ends with the stream
	cancel    context.CancelFunc
	taken     context.Context // ends when there is a path without a relay
	take      context.CancelFunc
	raw       *udx.Stream
	initiator bool
	localKey  noise.Key
	handshake Handshake
	// wiring is held while the stream gets a path, so that it gets one at a time.
	wiring sync.Mutex
	wired  bool // it has one

	mu       sync.Mutex
	onConn   func(*Conn) // gets the connection when there is a path
	onDirect func()      // is called when it goes there without a relay
	onEnd    func()
	open     bool // the handshake is done, and what follows is known
	remoteID uint32
	local    Firewall
	remote   Firewall
	key      noise.Key // of the other side
	reusable bool

	conn      *Conn
	direct    bool // has, or is getting, a path without a relay
	ended     bool
	early     *route // a path that opened before the handshake was done
	puncher   *puncher
	leg       *leg
	confirmed bool // both sides have left the relay
	confirm   clock.Timer
	path      Path
	why       string
	following clock.Timer
	watch     clock.Timer
	followed  time.Time
	onPath    []func(Path)
}

// knock is a message that says nothing, to be sent through a relay.
var knock = []byte{0}

// A leg is a connection to a relay, which carries the link.
type leg struct {
	conn  *Conn
	close func() error
}

// newLink makes the stream of a link, that waits for packets.
func (d *DHT) newLink(ctx context.Context, local noise.Key, h Handshake, initiator bool) (*link, error) {
	l := &link{d: d, localKey: local, handshake: h, initiator: initiator, why: "a direct path was not found yet"}
	l.ctx, l.cancel = context.WithCancel(ctx)
	l.taken, l.take = context.WithCancel(l.ctx)
	raw, err := d.udx.NewStream(udx.StreamOptions{Firewall: l.firewall, Message: l.message, Remote: l.follow})
	if err != nil {
		l.cancel()
		return nil, fmt.Errorf("make stream: %w", err)
	}
	l.raw = raw
	if err := d.addLink(l); err != nil {
		l.cancel()
		raw.Destroy()
		return nil, err
	}
	raw.OnClose(func(error) { l.end() })
	return l, nil
}

// begin says whom to call, and reports whether the link has not ended yet.
func (l *link) begin(onConn func(*Conn), onDirect, onEnd func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onConn, l.onDirect, l.onEnd = onConn, onDirect, onEnd
	return !l.ended
}

// firewall is asked about packets that come another way than the stream's.
func (l *link) firewall(s *udx.Socket, from netip.AddrPort) bool {
	if from.Port() == 0 {
		return false
	}
	l.mu.Lock()
	relayed := l.leg != nil && l.leg.is(s, from)
	l.mu.Unlock()
	if !relayed {
		l.useDirect(s, from)
	}
	return true
}

// is reports whether packets from there come through the relay.
func (g *leg) is(s *udx.Socket, from netip.AddrPort) bool {
	raw := g.conn.Raw()
	return raw.Socket() == s && raw.RemoteAddrPort() == from
}

// message gets messages of the other side outside of the stream. An empty one
// says that it is on the direct path. The reference sends it once.
func (l *link) message(data []byte) {
	if len(data) > 0 {
		return
	}
	l.mu.Lock()
	if l.conn == nil || !l.direct || l.leg == nil {
		l.mu.Unlock()
		return
	}
	g := l.leg
	l.leg, l.confirmed = nil, true
	l.mu.Unlock()
	l.raw.SendMessage(nil) // the other side may wait for it
	l.d.spawn(func() { g.close() })
}

// follow is told that the other side's packets come from another address, as
// when it has changed networks or its NAT has forgotten it. It goes there, not
// too often: the address may be a lie, by somebody on the path, and until it
// answers it gets no more than a few packets.
func (l *link) follow(from netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || !l.direct || l.conn == nil || l.leg != nil {
		return
	}
	if l.following != nil {
		l.following.Stop()
	}
	now := l.d.clock.Now()
	l.following = l.d.clock.AfterFunc(max(0, followPause-now.Sub(l.followed)), func() {
		l.wiring.Lock()
		defer l.wiring.Unlock()
		l.mu.Lock()
		l.followed = l.d.clock.Now()
		p, ended := l.path, l.ended
		l.mu.Unlock()
		if !ended && l.raw.ChangeRemote(l.raw.Socket(), l.remoteID, from, nil) == nil {
			p.Addr = from
			l.setPath(p)
		}
	})
}

// ready tells the link what it needs to take a path.
func (l *link) ready(key noise.Key, remoteID uint32, local, remote Firewall, reusable bool) {
	l.mu.Lock()
	l.open, l.key, l.remoteID, l.local, l.remote, l.reusable = true, key, remoteID, local, remote, reusable
	early := l.early
	l.mu.Unlock()
	if early != nil {
		l.useDirect(early.socket, early.addr)
	}
}

// useDirect takes a path without a relay, if there is none yet.
func (l *link) useDirect(s *udx.Socket, addr netip.AddrPort) {
	l.mu.Lock()
	if !l.open && l.early == nil {
		l.early = &route{s, addr}
	}
	if !l.open || l.direct || l.ended || s == nil {
		l.mu.Unlock()
		return
	}
	l.direct = true
	l.take()
	kind := l.kindLocked(addr)
	puncher, onDirect := l.puncher, l.onDirect
	l.mu.Unlock()

	path := Path{Kind: kind, Addr: addr}
	if kind == PathPunched {
		path.Why = "both sides are behind NATs"
	}
	l.wiring.Lock()
	defer l.wiring.Unlock()
	if !l.wired {
		if err := l.raw.Connect(s, l.remoteID, addr); err != nil {
			l.fail()
			return
		}
		l.wired = true
	} else {
		if err := l.raw.ChangeRemote(s, l.remoteID, addr, l.moved); err != nil {
			l.mu.Lock()
			l.direct = false // the relay goes on
			l.mu.Unlock()
			return
		}
	}
	if l.connected() == nil {
		l.establish(path)
	} else {
		l.setPath(path)
	}
	if onDirect != nil {
		onDirect()
	}
	if l.reusable {
		l.d.pool.addRoute(l.key, route{s, addr})
	}
	if puncher != nil {
		puncher.quit()
	}
}

// kindLocked tells what kind of path an address is.
func (l *link) kindLocked(addr netip.AddrPort) PathKind {
	switch {
	case isNear(addr.Addr()):
		return PathLAN
	case l.local == FirewallOpen || l.remote == FirewallOpen || addr.Addr().Is6():
		return PathDirect
	}
	return PathPunched
}

// join tells the link of a connection to a relay, before packets come over it.
func (l *link) join(g *leg) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.direct || l.ended {
		return false
	}
	l.leg = g
	return true
}

// useRelay takes the path over a relay that was joined, where the stream to the
// other side has that id. It reports whether there was none yet.
func (l *link) useRelay(g *leg, id uint32) bool {
	raw := g.conn.Raw()
	l.wiring.Lock()
	l.mu.Lock()
	ok := !l.direct && !l.ended && !l.wired && l.leg == g
	l.mu.Unlock()
	if ok {
		ok = l.raw.Connect(raw.Socket(), id, raw.RemoteAddrPort()) == nil
		l.wired = l.wired || ok
	}
	l.wiring.Unlock()
	if !ok {
		return false
	}
	// A relay learns from our first packet where we are, and drops what the other
	// side has sent before. If that were the beginning of the stream, it would
	// take a second to be sent again. So it waits until something came through.
	for range relayTries {
		if l.raw.Stats().PacketsReceived > 0 || l.isDirect() {
			break
		}
		l.raw.SendMessage(knock)
		l.d.sleep(l.taken, relayPause)
	}
	l.wiring.Lock()
	defer l.wiring.Unlock()
	l.mu.Lock()
	ok, why := l.conn == nil && !l.ended, l.why
	l.mu.Unlock()
	if ok {
		l.establish(Path{Kind: PathRelayed, Relay: g.conn.RemoteKey(), Addr: raw.RemoteAddrPort(), Why: why})
	}
	return true
}

// leave drops a relay that came to nothing.
func (l *link) leave(g *leg) {
	l.mu.Lock()
	if l.leg == g {
		l.leg = nil
	}
	l.mu.Unlock()
	g.close()
}

// moved is called when all that was sent through the relay has arrived.
func (l *link) moved() { l.confirmIn(0, confirmTries) }

// confirmIn tells the other side that this one is on the direct path, and again
// until it says the same. Then the relay is not needed any more.
func (l *link) confirmIn(wait time.Duration, tries int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.confirmed || tries == 0 {
		return
	}
	l.confirm = l.d.clock.AfterFunc(wait, func() {
		l.mu.Lock()
		done := l.ended || l.confirmed
		l.mu.Unlock()
		if !done {
			l.raw.SendMessage(nil) // a lost one is sent again
			l.confirmIn(confirmPause, tries-1)
		}
	})
}

// establish makes the connection of a stream that has a path.
func (l *link) establish(path Path) {
	c := &Conn{link: l}
	if own, ok := l.handshake.(*ownHandshake); ok {
		session, err := own.h.Split()
		if err == nil {
			c.Stream, err = secretstream.New(l.raw, session, secretstream.Options{
				Clock: l.d.clock, KeepAlive: l.d.keepAlive, Random: l.d.random,
			})
		}
		if err != nil {
			l.fail()
			return
		}
	}
	l.mu.Lock()
	l.conn, l.path = c, path
	onConn := l.onConn
	l.mu.Unlock()
	l.watchIn(idlePause, 0, 0)
	onConn(c)
}

// watchIn looks after the path: it is dead when the other side acks nothing for
// some time. UDX alone would try for a minute and a half.
func (l *link) watchIn(wait time.Duration, received uint64, silent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.watch = l.d.clock.AfterFunc(wait, func() {
		s := l.raw.Stats()
		switch {
		case s.InFlight == 0:
			l.watchIn(idlePause, s.PacketsReceived, 0)
		case s.PacketsReceived != received:
			l.watchIn(watchPause, s.PacketsReceived, 0)
		case silent+1 < watchTries:
			l.watchIn(watchPause, received, silent+1)
		default:
			l.fail()
		}
	})
}

func (l *link) connected() *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// isDirect reports whether there is nothing more to try.
func (l *link) isDirect() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.direct || l.ended
}

// waitDirect waits for a path without a relay, and reports whether there is one.
func (l *link) waitDirect(t time.Duration) bool {
	l.d.sleep(l.taken, t)
	return l.isDirect()
}

// setPath notes another path and tells who asked.
func (l *link) setPath(p Path) {
	l.mu.Lock()
	if l.path == p {
		l.mu.Unlock()
		return
	}
	l.path = p
	calls := l.onPath
	l.mu.Unlock()
	for _, f := range calls {
		f(p)
	}
}

// setWhy notes why there is no better path than a relay.
func (l *link) setWhy(why string) {
	l.mu.Lock()
	l.why = why
	p := l.path
	relayed := l.conn != nil && !l.direct
	l.mu.Unlock()
	if relayed {
		p.Why = why
		l.setPath(p)
	}
}

// setPuncher gives the link what looks for a path. It reports whether that is
// still wanted.
func (l *link) setPuncher(p *puncher) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.puncher = p
	return !l.direct && !l.ended
}

// fail ends the stream.
func (l *link) fail() { l.raw.Destroy() }

// end is called when the stream has ended.
func (l *link) end() {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return
	}
	l.ended = true
	puncher, g, onEnd := l.puncher, l.leg, l.onEnd
	l.leg = nil
	for _, t := range []clock.Timer{l.confirm, l.following, l.watch} {
		if t != nil {
			t.Stop()
		}
	}
	l.mu.Unlock()
	l.cancel()
	if puncher != nil {
		puncher.quit()
	}
	if g != nil {
		l.d.spawn(func() { g.close() })
	}
	if onEnd != nil {
		onEnd()
	}
	l.d.removeLink(l)
}
