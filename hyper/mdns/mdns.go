// Package mdns finds peers on the local network, and reaches them there, with
// no server, no internet and no default route: DNS-SD over multicast DNS (RFC
// 6762 and 6763) under names that change and tell nothing to those who don't
// know the topic, and then a handshake that only they can begin. The format is
// in docs/formats/mdns.md.
//
// It is not a resolver of names, and it takes no notice of other services.
//
//	node, err := mdns.Open(mdns.Options{
//		KeyPair: keys,
//		Found:   func(p mdns.Peer) { … },  // node.Connect(ctx, p, nil)
//		Serve:   func(c *mdns.Conn) { … }, // who has connected to us
//	})
//	err = node.Announce(topic)
//	node.Browse(topic)
package mdns

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// The kinds of error. They come wrapped: test with [errors.Is].
var (
	// ErrRefused means that the other side, or the check of this one, refused.
	ErrRefused = errors.New("peer refused")
	// ErrClosed means that the node was closed.
	ErrClosed = packet.ErrClosed
	// ErrTooMany means that there are more than [MaxTopics] topics.
	ErrTooMany = errors.New("too many topics")
)

// DefaultPort is where nodes listen for connections if they can, so that they
// are found again by those who remember their addresses.
const DefaultPort = 49738

const (
	// watchEvery is how often the interfaces are looked at, while there is
	// anything to announce or look for.
	watchEvery    = 15 * time.Second
	maxRemembered = 64
	// askedTime is for how long the answer of a remembered peer is waited for.
	askedTime = 5 * time.Second
)

// Options say who a node is and what to tell it. KeyPair is needed.
type Options struct {
	// KeyPair is what this side is known by to those who know a topic.
	KeyPair noise.KeyPair
	// Found is told of peers of the topics that are looked for, also when they
	// have other addresses by now, and Lost of those that have gone or changed
	// their names. They are called one at a time, and must not block.
	Found, Lost func(Peer)
	// Refuse is the gate: it says who may not connect. It must not block.
	Refuse func(remote noise.Key) bool
	// Serve gets the connections of others, one call at a time. It must not
	// block. The connections are its to close. If it is nil there are none.
	Serve func(*Conn)
	// Remembered are where peers were before, which are asked without multicast.
	Remembered []netip.AddrPort
	// Port is where to listen for connections: [DefaultPort], or any if that is
	// taken, if it is zero.
	Port uint16
	// Network, Clock and Random are the machine's if they are nil.
	Network packet.Network
	Clock   clock.Clock
	Random  io.Reader
}

// A Peer is somebody on the local network who has a topic. Who it is shows the
// handshake.
type Peer struct {
	Topic Topic
	// Addrs are where it may be reached.
	Addrs []netip.AddrPort

	salt salt
}

// ID tells peers apart for as long as they keep their names, which is not for
// long.
func (p Peer) ID() string { return p.salt.label() }

// A Conn is a connection to a peer on the local network.
type Conn struct {
	*secretstream.Stream
	raw *udx.Stream
}

// Raw is the stream of bytes under it.
func (c *Conn) Raw() *udx.Stream { return c.raw }

// A Node takes part in multicast DNS. Its methods may be called by any
// goroutine.
type Node struct {
	o     Options
	udx   *udx.UDX
	socks []*udx.Socket // one a family
	port  uint16

	mu         sync.Mutex
	todo       []func() // to be done without the lock
	events     []func() // to be called one at a time
	calling    bool
	closing    bool
	closed     bool
	core       *core
	conns      map[int]packet.Conn // by link
	names      map[linkKey]int     // of links
	nextLink   int
	wake       clock.Timer
	wakeAt     time.Time
	watch      clock.Timer
	calls      map[handshakeID]*dial
	reception  reception[*udx.Stream]
	asked      map[netip.AddrPort]time.Time
	remembered []netip.AddrPort // latest last
}

// A linkKey is what a link is on.
type linkKey struct {
	name string
	v6   bool
}

// A dial is a call under way.
type dial struct {
	call   *call
	stream *udx.Stream
	check  func(noise.Key) error
	done   func(*Conn, error)
	wait   time.Duration
	timer  clock.Timer
	until  time.Time
	stop   func() bool
}

// Open begins a node. It sends nothing before it has something to announce or
// to look for.
func Open(o Options) (*Node, error) {
	if !o.KeyPair.CanProve() {
		return nil, errors.New("open mdns: no key pair")
	}
	if o.Network == nil {
		o.Network = packet.System
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	n := &Node{
		o: o, core: newCore(o.Random),
		udx:   udx.New(udx.Options{Network: o.Network, Clock: o.Clock, Random: o.Random}),
		conns: map[int]packet.Conn{}, names: map[linkKey]int{}, calls: map[handshakeID]*dial{}, asked: map[netip.AddrPort]time.Time{},
	}
	n.reception.keys, n.reception.random = o.KeyPair, o.Random
	if err := n.listen(); err != nil {
		return nil, fmt.Errorf("open mdns: %w", err)
	}
	for _, a := range o.Remembered {
		n.rememberLocked(a) // nobody else has the node yet
	}
	return n, nil
}

// listen opens a socket for each family that the machine has, on one port, as
// peers are told of one: half of a port would be a node that others of the other
// half, such as a second one on this machine, never meet.
func (n *Node) listen() error {
	ports := []uint16{n.o.Port}
	if n.o.Port == 0 {
		ports = []uint16{DefaultPort, 0, 0, 0}
	}
	var errs []error
	for _, port := range ports {
		whole := true
		for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			if n.port != 0 {
				port = n.port
			}
			s, err := n.bind(any, port)
			if err != nil {
				errs = append(errs, err)
				whole = whole && !n.has(any)
				continue
			}
			n.socks = append(n.socks, s)
			n.port = s.LocalAddr().Port()
		}
		if n.port != 0 && (whole || n.o.Port != 0) {
			return nil
		}
		for _, s := range n.socks {
			s.Close()
		}
		n.socks, n.port = nil, 0
	}
	return errors.Join(errs...)
}

func (n *Node) bind(any netip.Addr, port uint16) (*udx.Socket, error) {
	return n.udx.Listen(netip.AddrPortFrom(any, port), udx.SocketOptions{Receive: n.direct})
}

// has tells whether the machine has a family of addresses at all.
func (n *Node) has(any netip.Addr) bool {
	s, err := n.bind(any, 0)
	if err == nil {
		s.Close()
	}
	return err == nil
}

// Port is where the node listens for connections.
func (n *Node) Port() uint16 { return n.port }

// do calls f with the lock, and then what there is to be done without it.
func (n *Node) do(f func(now time.Time)) {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return
	}
	now := n.o.Clock.Now()
	f(now)
	n.settleLocked(now)
	todo := n.todo
	n.todo = nil
	first := !n.calling && len(n.events) > 0
	n.calling = n.calling || first
	n.mu.Unlock()
	for _, f := range todo {
		f()
	}
	if first {
		n.call()
	}
}

// call calls those who are to be told, one at a time and in order.
func (n *Node) call() {
	for {
		n.mu.Lock()
		if len(n.events) == 0 {
			n.calling = false
			n.mu.Unlock()
			return
		}
		f := n.events[0]
		n.events = n.events[1:]
		n.mu.Unlock()
		f()
	}
}

func (n *Node) later(f func()) { n.todo = append(n.todo, f) }

// settleLocked takes what the core has to say, and sets the timer.
func (n *Node) settleLocked(now time.Time) {
	packets, findings := n.core.take()
	for _, p := range packets {
		if p.link == direct {
			n.sendLocked(p.to, p.data)
		} else if c := n.conns[p.link]; c != nil {
			n.later(func() { c.Write([]packet.Packet{{Addr: p.to, Data: p.data}}) })
		}
	}
	for _, f := range findings {
		tell := n.o.Found
		if f.lost {
			tell = n.o.Lost
		}
		if tell != nil {
			n.events = append(n.events, func() { tell(f.peer) })
		}
	}
	at := n.core.due()
	if len(n.reception.list) > 0 {
		if end := n.reception.list[0].began.Add(pendingTime); at.IsZero() || end.Before(at) {
			at = end
		}
	}
	if at.Equal(n.wakeAt) {
		return
	}
	if n.wake != nil {
		n.wake.Stop()
	}
	n.wake, n.wakeAt = nil, at
	if !at.IsZero() {
		n.wake = n.o.Clock.AfterFunc(max(0, at.Sub(now)), func() {
			n.do(func(now time.Time) {
				if !n.wakeAt.After(now) {
					n.wakeAt = time.Time{}
				}
				n.core.tick(now)
				for _, s := range n.reception.expire(now) {
					n.later(s.Destroy)
				}
			})
		})
	}
}

// sendLocked sends from the socket of the node.
func (n *Node) sendLocked(to netip.AddrPort, data []byte) {
	if s := n.socketFor(to.Addr()); s != nil {
		n.later(func() { s.Send(to, data) })
	}
}

func (n *Node) socketFor(a netip.Addr) *udx.Socket {
	for _, s := range n.socks {
		if s.LocalAddr().Addr().Is4() == a.Is4() {
			return s
		}
	}
	return nil
}

// Announce says of which topics this node is, instead of those before.
func (n *Node) Announce(topics ...Topic) error {
	if len(topics) > MaxTopics {
		return fmt.Errorf("announce %d topics: %w", len(topics), ErrTooMany)
	}
	n.do(func(now time.Time) {
		n.core.announce(now, topics, n.port)
		n.watchLocked(now)
	})
	return nil
}

// Browse says which topics to look for, instead of those before. Peers that are
// known are told again for topics that are new.
func (n *Node) Browse(topics ...Topic) {
	n.do(func(now time.Time) {
		n.core.browse(now, topics)
		n.watchLocked(now)
		if len(topics) > 0 {
			n.askLocked(now, n.remembered)
		}
	})
}

func (n *Node) askLocked(now time.Time, at []netip.AddrPort) {
	for a, until := range n.asked {
		if now.After(until) {
			delete(n.asked, a)
		}
	}
	q := query(nil)[0]
	for _, a := range at {
		if len(n.asked) < 2*maxRemembered && n.core.isNear(a.Addr()) {
			n.asked[a] = now.Add(askedTime)
			n.sendLocked(a, q)
		}
	}
}

// Remembered returns where peers were that there was a connection to, to be
// given to the next node of this machine, as Options.Remembered.
func (n *Node) Remembered() (list []netip.AddrPort) {
	n.do(func(time.Time) { list = slices.Clone(n.remembered) })
	return list
}

func (n *Node) rememberLocked(a netip.AddrPort) {
	n.remembered = append(slices.DeleteFunc(n.remembered, func(o netip.AddrPort) bool { return o == a }), a)
	if len(n.remembered) > maxRemembered {
		n.remembered = n.remembered[1:]
	}
}

// watchLocked looks at the interfaces, now and then.
func (n *Node) watchLocked(now time.Time) {
	busy := len(n.core.announced) > 0 || len(n.core.browsed) > 0
	if n.watch != nil {
		if !busy {
			n.watch.Stop()
			n.watch = nil
			n.linkLocked(now, nil)
		}
		return
	}
	if !busy {
		return
	}
	interfaces, err := n.o.Network.Interfaces()
	if err == nil {
		n.linkLocked(now, interfaces)
	}
	n.watch = n.o.Clock.AfterFunc(watchEvery, func() {
		n.do(func(now time.Time) {
			n.watch = nil
			n.watchLocked(now)
		})
	})
}

var groups = []netip.AddrPort{netip.MustParseAddrPort("224.0.0.251:5353"), netip.MustParseAddrPort("[ff02::fb]:5353")}

// linkLocked joins the groups on the interfaces.
func (n *Node) linkLocked(now time.Time, interfaces []packet.Interface) {
	var links []link
	alone := !slices.ContainsFunc(interfaces, func(i packet.Interface) bool { return !i.Loopback && len(i.Addrs) > 0 })
	kept := map[linkKey]bool{}
	for _, i := range interfaces {
		if i.Loopback != alone || len(i.Addrs) == 0 {
			continue // the machine's own network is for when there is no other
		}
		for _, group := range groups {
			v6 := group.Addr().Is6()
			key := linkKey{i.Name, v6}
			if !slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 }) {
				continue
			}
			id, ok := n.names[key]
			if !ok {
				id = n.nextLink
				c, err := n.o.Network.ListenMulticast(group, i.Name, func(batch []packet.Packet) { n.receive(id, batch) })
				if err != nil {
					continue // others may go
				}
				n.nextLink++
				n.names[key], n.conns[id] = id, c
			}
			kept[key] = true
			links = append(links, link{id: id, zone: i.Name, prefixes: i.Addrs, group: group, machine: i.Loopback})
		}
	}
	n.core.setLinks(now, links)
	for key, id := range n.names {
		if kept[key] {
			continue
		}
		c := n.conns[id]
		delete(n.names, key)
		delete(n.conns, id)
		n.later(func() { c.Close() })
	}
}

// receive takes what came by a link.
func (n *Node) receive(link int, batch []packet.Packet) {
	n.do(func(now time.Time) {
		for i := range batch {
			for data := range batch[i].Datagrams() {
				n.core.receive(now, link, batch[i].Addr, data)
			}
		}
	})
}

// direct takes what came to the node's own socket and belongs to no stream.
func (n *Node) direct(s *udx.Socket, from netip.AddrPort, data []byte) {
	n.do(func(now time.Time) {
		if !isNotice(data) {
			until, asked := n.asked[from]
			n.core.receiveDirect(now, from, data, asked && now.Before(until))
			return
		}
		// Who knows a topic and its salt may be anywhere; the salt is told on the
		// local network only.
		if m, ok := parseNotice(data); ok && n.core.direct.in.take(now, receiveRate) {
			n.noticeLocked(now, s, from, &m)
		}
	})
}

func (n *Node) noticeLocked(now time.Time, s *udx.Socket, from netip.AddrPort, m *notice) {
	switch m.step {
	case 1:
		if n.o.Serve == nil {
			return
		}
		reply := n.reception.greet(now, from, m, n.core.announced, n.core.salts(now), func() (*udx.Stream, uint32, error) {
			stream, err := n.udx.NewStream(udx.StreamOptions{})
			if err != nil {
				return nil, 0, err
			}
			return stream, stream.ID(), nil
		})
		if reply != nil {
			n.sendLocked(from, reply)
		}
	case 2:
		n.answeredLocked(s, from, m)
	case 3:
		p, session, again := n.reception.conclude(from, m)
		if again != nil {
			n.sendLocked(from, again)
		}
		if p != nil {
			n.events = append(n.events, func() { n.serve(s, p, session) })
		}
	case 4:
		d := n.calls[m.id]
		if d == nil {
			return
		}
		if ok, err := d.call.verdict(m); ok {
			n.endLocked(d, err)
		}
	}
}

// serve decides on a client.
func (n *Node) serve(s *udx.Socket, p *pending[*udx.Stream], session noise.Session) {
	verdict := byte(accepted)
	if session.Remote == n.o.KeyPair.Public || n.o.Refuse != nil && n.o.Refuse(session.Remote) {
		verdict = refused
	}
	if verdict == accepted && p.stream.Connect(s, p.remote, p.from) != nil {
		verdict = refused
	}
	n.do(func(time.Time) {
		n.sendLocked(p.from, n.reception.decide(p, verdict))
		if verdict == accepted {
			n.rememberLocked(p.from)
		}
	})
	if verdict != accepted {
		p.stream.Destroy()
		return
	}
	if c, err := n.conn(p.stream, session); err == nil {
		n.o.Serve(c)
	}
}

// conn makes a connection of a stream.
func (n *Node) conn(stream *udx.Stream, session noise.Session) (*Conn, error) {
	s, err := secretstream.New(stream, session, secretstream.Options{Clock: n.o.Clock, Random: n.o.Random})
	if err != nil {
		return nil, err
	}
	return &Conn{s, stream}, nil
}

// Connect shakes hands with a peer that was found, wherever of its addresses it
// answers first. The key of the other side is given to check, if that is not
// nil, before it is told who we are; an error of check ends the handshake.
func (n *Node) Connect(ctx context.Context, p Peer, check func(noise.Key) error) (*Conn, error) {
	type result struct {
		conn *Conn
		err  error
	}
	done := make(chan result, 1)
	n.Start(ctx, p, check, func(c *Conn, err error) { done <- result{c, err} })
	r := <-done
	return r.conn, r.err
}

// Start is [Node.Connect] for those who can't wait: it returns at once, and
// done is called once, later. Neither done nor check may block.
func (n *Node) Start(ctx context.Context, p Peer, check func(noise.Key) error, done func(*Conn, error)) {
	fail := func(err error) { done(nil, fmt.Errorf("connect on the local network: %w", err)) }
	stream, err := n.udx.NewStream(udx.StreamOptions{})
	if err != nil {
		fail(err)
		return
	}
	d := &dial{stream: stream, check: check, wait: firstResend}
	d.done = func(c *Conn, err error) {
		if err != nil {
			stream.Destroy()
			fail(err)
			return
		}
		done(c, nil)
	}
	if d.call, err = newCall(n.o.KeyPair, p, stream.ID(), n.o.Random); err != nil {
		d.done(nil, err)
		return
	}
	begun := false
	n.do(func(now time.Time) {
		begun = true
		d.until = now.Add(dialTime)
		n.calls[d.call.id] = d
		n.resendLocked(now, d)
		d.stop = context.AfterFunc(ctx, func() {
			n.do(func(time.Time) { n.endLocked(d, context.Cause(ctx)) })
		})
	})
	if !begun {
		d.done(nil, ErrClosed)
	}
}

// resendLocked sends what is to be answered, now and again.
func (n *Node) resendLocked(now time.Time, d *dial) {
	for _, a := range d.call.addrs {
		n.sendLocked(a, d.call.packet)
	}
	d.timer = n.o.Clock.AfterFunc(min(d.wait, d.until.Sub(now)), func() {
		n.do(func(now time.Time) {
			if n.calls[d.call.id] != d {
				return
			}
			if !now.Before(d.until) {
				n.endLocked(d, errNoAnswer)
				return
			}
			n.resendLocked(now, d)
		})
	})
	d.wait *= 2
}

// answeredLocked takes the second message.
func (n *Node) answeredLocked(s *udx.Socket, from netip.AddrPort, m *notice) {
	d := n.calls[m.id]
	if d == nil {
		return
	}
	key, ok, err := d.call.answer(from, m)
	if !ok {
		return
	}
	if err != nil {
		n.endLocked(d, err)
		return
	}
	n.events = append(n.events, func() {
		var err error
		if d.check != nil {
			err = d.check(key)
		}
		if err == nil {
			n.do(func(time.Time) { err = d.call.proceed() })
		}
		if err == nil {
			err = d.stream.Connect(s, d.call.remote, from)
		}
		n.do(func(now time.Time) {
			if n.calls[d.call.id] != d {
				return
			}
			if err != nil {
				n.endLocked(d, err)
				return
			}
			d.timer.Stop()
			d.wait = firstResend
			n.resendLocked(now, d)
			n.rememberLocked(from)
		})
	})
}

// endLocked ends a call.
func (n *Node) endLocked(d *dial, err error) {
	if n.calls[d.call.id] != d {
		return
	}
	delete(n.calls, d.call.id)
	d.timer.Stop()
	if d.stop != nil {
		d.stop()
	}
	n.events = append(n.events, func() {
		var c *Conn
		if err == nil {
			c, err = n.conn(d.stream, d.call.session)
		}
		d.done(c, err)
	})
}

// Close says goodbye, and ends all connections.
func (n *Node) Close() error {
	first := false
	n.do(func(now time.Time) {
		first, n.closing = !n.closing, true
		if !first {
			return
		}
		n.core.goodbye(now)
		for _, d := range n.calls {
			n.endLocked(d, ErrClosed)
		}
	})
	if !first {
		return nil
	}
	n.mu.Lock()
	n.closed = true
	conns := n.conns
	n.conns = nil
	for _, t := range []clock.Timer{n.wake, n.watch} {
		if t != nil {
			t.Stop()
		}
	}
	n.mu.Unlock()
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.Close())
	}
	for _, s := range n.socks {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
