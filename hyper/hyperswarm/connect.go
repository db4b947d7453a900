package hyperswarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// An entry is a connection, or one on the way. There is one for each peer.
type entry struct {
	peer   *peer
	client bool // we make it
	remote bool // over the DHT, as far as is known
	queued bool // flushes wait for it
	open   bool
	closed bool
	cancel context.CancelFunc
	link   link // once it is open
	conn   *Conn
	began  time.Time // being open

	// What the last look at the connection has seen.
	received uint64
	since    time.Time // that nothing is acked; zero if all is
	again    bool      // another connection is being made
}

// crossing is for how long a connection may cross another that was made at the
// same moment by the other side. The reference knows no such time: there, both
// sides may hold both connections for used, and then each ends the one that the
// other keeps.
const crossing = time.Second

// used reports whether bytes came over a connection, for long enough that a new
// one is no coincidence. We have sent some by then.
func (e *entry) used(now time.Time) bool {
	if e.link == nil || now.Sub(e.began) < crossing {
		return false
	}
	n, _ := e.link.received()
	return n > 0
}

// found takes a peer that a lookup has found. Peers that are known with normal
// priority stay where they are; others get another chance.
func (s *Swarm) found(key noise.Key, relays []netip.AddrPort, id Topic) {
	p := s.upsert(key, relays)
	if p == nil {
		return
	}
	p.addTopic(id)
	if s.all[key] != nil {
		return
	}
	if p.priority < Normal || !p.client {
		p.reset()
	}
	if p.update() {
		s.enqueue(p)
	} else {
		s.forget(p)
	}
}

// upsert returns the peer with the key. It returns nil for ourselves, and when
// there are too many.
func (s *Swarm) upsert(key noise.Key, relays []netip.AddrPort) *peer {
	if key == s.o.KeyPair.Public {
		return nil
	}
	p := s.peers[key]
	if p == nil {
		if len(s.peers) >= maxKnown {
			return nil
		}
		p = newPeer(key)
		s.peers[key] = p
	}
	p.relays = relays // new is always better
	return p
}

// forget drops a peer if there is no reason to remember it.
func (s *Swarm) forget(p *peer) {
	if p.idle() && s.all[p.key] == nil && s.peers[p.key] == p {
		delete(s.peers, p.key)
	}
}

func (p *peer) addTopic(id Topic) {
	if !slices.Contains(p.topics, id) {
		p.topics = append(p.topics, id)
	}
}

func (s *Swarm) enqueue(p *peer) {
	if p.queued || s.suspended || s.closed {
		return
	}
	p.queued, p.tick = true, s.tick
	s.waiting.add(p)
	s.connectMore()
}

// requeue takes peers that have waited for another try.
func (s *Swarm) requeue(list []*peer) {
	if s.suspended || s.closed {
		return
	}
	for _, p := range list {
		p.waiting = false
		if !s.shouldRetry(p) || s.all[p.key] != nil || !p.update() {
			s.forget(p)
			continue
		}
		p.queued, p.tick = true, s.tick
		s.waiting.add(p)
	}
	s.connectMore()
}

func (s *Swarm) running() bool { return !s.closed && !s.suspended }

// roomForPeers leaves some room for those that were asked for by key.
func (s *Swarm) roomForPeers() bool {
	factor := 4
	switch e := len(s.explicit); {
	case e == 0:
		factor = 1
	case e < 2:
		factor = 2
	case e < 4:
		factor = 3
	}
	return factor*len(s.all) < s.o.MaxPeers
}

func (s *Swarm) shouldConnect() bool {
	return s.running() && s.connecting < s.o.MaxParallel && s.roomForPeers() && s.clients < s.o.MaxClients
}

// connectMore makes connections as long as it may.
func (s *Swarm) connectMore() {
	if s.draining || !s.running() {
		return
	}
	s.draining = true
	now := s.o.Clock.Now()
	for _, p := range slices.Clone(s.explicit) {
		if !s.running() || s.connecting >= s.o.MaxParallel {
			break
		}
		if p.attempts < 5 && now.Sub(p.disconnected) >= time.Duration(p.attempts)*time.Second {
			s.connect(p, false)
		}
	}
	for s.waiting.len() > 0 && s.shouldConnect() {
		p := s.waiting.shift()
		p.queued = false
		s.connect(p, true)
		s.forget(p)
	}
	s.draining = false
	s.tryCandidates()
	if s.connecting == 0 {
		s.flushAll()
	}
}

// refuses is the gate.
func (s *Swarm) refuses(key noise.Key) (refused bool) {
	s.do(func() { refused = s.refusesLocked(key) })
	return refused
}

func (s *Swarm) refusesLocked(key noise.Key) bool {
	p := s.peers[key]
	if key == s.o.KeyPair.Public || p != nil && p.banned {
		return true
	}
	if s.o.Refuse == nil || !s.o.Refuse(key) {
		return false
	}
	// Those of whom nobody spoke are not remembered without end.
	if p == nil && s.banned < maxBanned {
		s.banned++
		p = s.upsert(key, nil)
	}
	if p != nil {
		s.ban(p, ErrRefused)
	}
	return true
}

// connect makes a connection to a peer, over the local network if it is there.
func (s *Swarm) connect(p *peer, queued bool) {
	if p.banned || s.all[p.key] != nil || s.refusesLocked(p.key) {
		if queued {
			s.flushed(p)
		}
		return
	}
	e, ctx := s.begin(p, queued)
	e.remote = true
	s.dial(ctx, p, func(l link, err error) { s.opened(e, l, err) })
	s.updated()
}

// dial connects to a peer: over the local network if it is there, and else, or
// if it does not answer there, over the DHT.
func (s *Swarm) dial(ctx context.Context, p *peer, done func(link, error)) {
	to := target{key: p.key, relays: p.relays, force: p.forceRelay, through: s.o.RelayThrough}
	lan := p.lan
	s.later(func() {
		over := func() {
			if s.network == nil {
				done(nil, ErrUnreachable)
				return
			}
			s.network.connect(ctx, to, done)
		}
		if s.local == nil || lan == nil {
			over()
			return
		}
		s.local.connect(ctx, *lan, keyOnly(p.key), func(l link, err error) {
			if err != nil && ctx.Err() == nil {
				s.do(func() {
					if p.lan == lan {
						p.lan = nil // it is told again if it is still there
					}
				})
				over()
				return
			}
			done(l, err)
		})
	})
}

// keyOnly lets in one key.
func keyOnly(key noise.Key) func(noise.Key) error {
	return func(remote noise.Key) error {
		if remote != key {
			return fmt.Errorf("%w: another key", ErrRefused)
		}
		return nil
	}
}

// begin counts a connection that we make.
func (s *Swarm) begin(p *peer, queued bool) (*entry, context.Context) {
	ctx, cancel := context.WithCancel(context.Background())
	e := &entry{peer: p, client: true, queued: queued, cancel: cancel}
	s.all[p.key] = e
	s.stats.ClientAttempts++
	s.connecting++
	s.clients++
	return e, ctx
}

// opened ends an attempt to connect.
func (s *Swarm) opened(e *entry, l link, err error) {
	s.do(func() {
		switch {
		case e.closed:
			if l != nil {
				s.later(func() { l.Close() })
			}
		case err != nil:
			p := e.peer
			relay := len(s.o.RelayThrough) > 0 && shouldRelay(err) && !p.forceRelay
			s.end(e, err)
			if relay {
				p.forceRelay, p.attempts = true, 0
				s.requeue([]*peer{p})
			}
		default:
			s.take(e, l)
			if e.queued {
				s.flushed(e.peer)
			}
			s.connected()
			s.updated()
		}
	})
}

// take makes an attempt an open connection.
func (s *Swarm) take(e *entry, l link) {
	e.link, e.open = l, true
	s.open++
	s.stats.ClientOpened++
	e.peer.opened(s.o.Clock.Now())
	e.peer.client = true
	s.deliver(e)
}

// shouldRelay reports whether an error says that punching is of no use.
func shouldRelay(err error) bool {
	return errors.Is(err, hyperdht.ErrUnreachable) || errors.Is(err, hyperdht.ErrAborted) || errors.Is(err, hyperdht.ErrBothRandom)
}

// connected goes on after an attempt.
func (s *Swarm) connected() {
	s.connecting--
	if s.connecting < s.o.MaxParallel {
		s.connectMore()
	}
	if s.connecting == 0 {
		s.flushAll()
	}
}

// deliver hands an open connection to its user.
func (s *Swarm) deliver(e *entry) {
	e.began = s.o.Clock.Now()
	if s.watch == nil {
		s.watch = s.o.Clock.AfterFunc(watchEvery, s.look)
	}
	e.conn = &Conn{Stream: e.link.stream(), link: e.link, key: e.peer.key, swarm: s, done: make(chan struct{})}
	if s.o.Serve != nil {
		s.serving.Add(1)
	}
	s.later(func() {
		if s.o.Serve != nil {
			go func() {
				defer s.serving.Done()
				s.o.Serve(e.conn)
				e.conn.Close()
			}()
		}
		e.link.onClose(func(err error) { s.do(func() { s.end(e, err) }) })
	})
}

const (
	// watchEvery is how often connections are looked at.
	watchEvery = time.Second
	// stalled is after how long without an ack a connection is made again, by
	// the side that made it, and stalledServer by the other, which may know
	// better: not every peer looks.
	stalled       = 2 * time.Second
	stalledServer = 6 * time.Second
)

// look finds connections on which nothing is acked any more, as when a NAT on
// the way has forgotten them, long before they time out. Another one is made
// beside such a one; the old goes on if it was only slow.
func (s *Swarm) look() {
	s.do(func() {
		s.watch = nil
		if s.open == 0 || !s.running() {
			return
		}
		s.watch = s.o.Clock.AfterFunc(watchEvery, s.look)
		now := s.o.Clock.Now()
		for _, e := range s.all {
			if !e.open {
				continue
			}
			n, pending := e.link.received()
			if !pending || n != e.received || e.since.IsZero() {
				e.received, e.since = n, time.Time{}
				if pending {
					e.since = now
				}
				continue
			}
			patience := stalled
			if !e.client {
				patience = stalledServer
			}
			if now.Sub(e.since) >= patience && !e.again && s.shouldRetry(e.peer) {
				s.renew(e)
			}
		}
	})
}

// renew makes another connection to the peer of one that has stalled.
func (s *Swarm) renew(old *entry) {
	old.again = true
	p := old.peer
	ctx, cancel := context.WithCancel(context.Background())
	s.stats.Renewals++
	s.dial(ctx, p, func(l link, err error) {
		s.do(func() {
			old.again = false
			now := s.all[p.key]
			switch {
			case err != nil:
				cancel()
			case !s.running() || p.banned || now != nil && now != old:
				cancel()
				s.later(func() { l.Close() })
			default:
				// The other side holds this for the better one, so we do, too.
				s.end(old, ErrDuplicate)
				e := &entry{peer: p, client: true, cancel: cancel}
				s.all[p.key] = e
				s.peers[p.key] = p
				s.stats.ClientAttempts++
				s.clients++
				s.take(e, l)
				s.updated()
			}
		})
	})
}

// end is for a connection that is over or is to be, and for an attempt that
// failed.
func (s *Swarm) end(e *entry, err error) {
	if e.closed {
		return
	}
	e.closed = true
	if e.cancel != nil {
		e.cancel()
	}
	p := e.peer
	if s.all[p.key] == e {
		delete(s.all, p.key)
	}
	if e.open {
		s.open--
		close(e.conn.done)
		s.later(func() { e.link.Close() })
	}
	if e.client {
		s.clients--
		s.stats.ClientClosed++
		if !e.open {
			s.connecting--
		}
		p.closed(s.o.Clock.Now())
		p.waiting = s.shouldRetry(p) && s.retries.add(p)
		if !e.open && e.queued {
			s.flushed(p)
		}
	} else {
		s.servers--
		s.stats.ServerClosed++
	}
	s.forget(p)
	s.connectMore()
	s.updated()
}

// shouldRetry reports whether anybody still wants a peer.
func (s *Swarm) shouldRetry(p *peer) bool {
	if !s.running() {
		return false
	}
	return p.explicit || slices.ContainsFunc(p.topics, func(id Topic) bool { return s.topics[id] != nil })
}

func (s *Swarm) updated() {
	s.stats.Updates++
	if s.o.Update != nil {
		s.later(s.o.Update)
	}
}

// serve takes a connection that somebody made to us.
func (s *Swarm) serve(l link) {
	s.do(func() {
		key := l.RemoteKey()
		p := s.upsert(key, nil)
		if !s.running() || p == nil || p.banned {
			s.later(func() { l.Close() })
			s.forgetKey(key)
			return
		}
		if old := s.all[key]; old != nil {
			// Of two connections to one peer, both sides have to keep the same. The
			// other side has lost the old one if it made that, too, as it holds one
			// at a time, or if bytes have come and gone over it. Otherwise it is that
			// of the greater key. The reference does not ask who made the old one:
			// it ends the new one of a peer that comes again at once.
			mine := s.o.KeyPair.Public
			lost := !old.client || old.conn != nil && old.conn.over || old.used(s.o.Clock.Now())
			keep := lost || bytes.Compare(mine[:], key[:]) < 0
			if !keep {
				if old.link != nil {
					s.later(old.link.keepAlive)
				}
				s.later(func() { l.Close() })
				return
			}
			s.end(old, ErrDuplicate)
		}
		if s.servers >= s.o.MaxServers {
			s.later(func() { l.Close() })
			s.forgetKey(key)
			return
		}
		s.stats.ServerOpened++
		s.servers++
		s.open++
		e := &entry{peer: p, open: true, link: l}
		s.all[key] = e
		s.peers[key] = p // ending the old one may have dropped it
		p.client = false
		s.deliver(e)
		s.updated()
	})
}

func (s *Swarm) forgetKey(key noise.Key) {
	if p := s.peers[key]; p != nil {
		s.forget(p)
	}
}

// A candidate is somebody on the local network.
type candidate struct {
	at     neighbour
	topics []Topic
	key    noise.Key // once it has said who it is
	known  bool
	trying bool
	tries  int
	timer  clock.Timer
}

const (
	maxCandidates = 512
	maxTrying     = 16 // handshakes at a time with those who are not known yet
)

// backoffs are for handshakes that nobody answered.
var localBackoffs = []time.Duration{time.Second, 5 * time.Second, 15 * time.Second}

func (c *candidate) stop() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}

// foundLocal takes what the local network tells.
func (s *Swarm) foundLocal(n neighbour, lost bool) {
	s.do(func() {
		c := s.candidates[n.id]
		if lost {
			if c == nil {
				return
			}
			c.topics = slices.DeleteFunc(c.topics, func(t Topic) bool { return t == n.peer.Topic })
			if len(c.topics) > 0 {
				return
			}
			c.stop()
			delete(s.candidates, n.id)
			if known := s.peers[c.key]; c.known && known != nil && known.lan != nil && known.lan.id == n.id {
				known.lan = nil
			}
			return
		}
		if c == nil {
			if len(s.candidates) >= maxCandidates {
				return
			}
			c = &candidate{}
			s.candidates[n.id] = c
		}
		c.at, c.tries = n, 0
		c.stop()
		if !slices.Contains(c.topics, n.peer.Topic) {
			c.topics = append(c.topics, n.peer.Topic)
		}
		if c.known {
			s.identified(c)
			return
		}
		s.tryCandidates()
	})
}

// identified takes a candidate whose key is known.
func (s *Swarm) identified(c *candidate) {
	p := s.here(c)
	if p == nil || s.all[p.key] != nil {
		return
	}
	if p.priority < Normal || !p.client {
		p.reset()
	}
	if s.shouldRetry(p) && p.update() {
		s.enqueue(p)
	}
	s.forget(p)
}

// here returns the peer that a candidate is, and remembers where that is.
func (s *Swarm) here(c *candidate) *peer {
	p := s.peers[c.key]
	if p == nil {
		if p = s.upsert(c.key, nil); p == nil {
			return nil
		}
	}
	at := c.at
	p.lan = &at
	for _, id := range c.topics {
		if s.topics[id] != nil {
			p.addTopic(id)
		}
	}
	return p
}

// tryCandidates asks those on the local network who they are.
func (s *Swarm) tryCandidates() {
	if s.local == nil || !s.running() {
		return
	}
	trying := 0
	for _, c := range s.candidates {
		if c.trying {
			trying++
		}
	}
	for _, c := range s.candidates {
		if c.known || c.trying || c.timer != nil || c.tries > len(localBackoffs) {
			continue
		}
		if trying >= maxTrying || !s.roomForPeers() || s.clients >= s.o.MaxClients {
			return
		}
		trying++
		s.try(c)
	}
}

func (s *Swarm) try(c *candidate) {
	c.trying = true
	s.stats.LocalAttempts++
	var e *entry
	ctx, cancel := context.WithCancel(context.Background())
	at := c.at
	check := func(key noise.Key) (err error) {
		s.do(func() { e, err = s.admit(c, key, cancel) })
		return err
	}
	s.later(func() {
		s.local.connect(ctx, at, check, func(l link, err error) {
			s.do(func() {
				c.trying = false
				if !c.known && err != nil && c.tries < len(localBackoffs) {
					c.timer = s.o.Clock.AfterFunc(localBackoffs[c.tries], func() {
						s.do(func() {
							c.timer = nil
							s.tryCandidates()
						})
					})
				}
				c.tries++
			})
			if e != nil {
				s.opened(e, l, err)
				return
			}
			cancel()
			if l != nil {
				l.Close()
			}
			s.do(s.tryCandidates)
		})
	})
}

// admit decides whether to go on with a handshake, now that it is known with
// whom it is.
func (s *Swarm) admit(c *candidate, key noise.Key, cancel context.CancelFunc) (*entry, error) {
	c.key, c.known = key, true
	if !s.running() {
		return nil, ErrClosed
	}
	if s.refusesLocked(key) {
		return nil, ErrRefused
	}
	p := s.here(c)
	if p == nil {
		return nil, ErrFull
	}
	old := s.all[key]
	switch {
	case old != nil && (old.open || !old.remote):
		return nil, ErrDuplicate
	case old == nil && !(s.roomForPeers() && s.clients < s.o.MaxClients):
		s.identified(c)
		return nil, ErrFull
	}
	if old != nil {
		// The attempt over the DHT becomes one over the local network.
		s.detach(old)
	}
	if p.queued {
		p.queued = false
		s.waiting.remove(p)
	}
	e := &entry{peer: p, client: true, cancel: cancel}
	if old != nil {
		e.queued = old.queued
	}
	s.all[key] = e
	s.stats.ClientAttempts++
	s.connecting++
	s.clients++
	s.updated()
	return e, nil
}

// detach drops an attempt that another takes the place of.
func (s *Swarm) detach(e *entry) {
	e.closed = true
	e.cancel()
	s.connecting--
	s.clients--
	s.stats.ClientClosed++
}

// tellLocal says on the local network what is wanted by now.
func (s *Swarm) tellLocal() {
	if s.local == nil {
		return
	}
	var w wanted
	if s.running() {
		if s.listening != nil {
			w.announced = append(w.announced, keyTopic(s.o.KeyPair.Public))
		}
		for id, t := range s.topics {
			if t.servers > 0 && t.active() {
				w.announced = append(w.announced, id)
			}
			if t.clients > 0 && t.active() {
				w.browsed = append(w.browsed, id)
			}
		}
		for _, p := range s.explicit {
			w.browsed = append(w.browsed, keyTopic(p.key))
		}
	}
	order := func(a, b Topic) int { return bytes.Compare(a[:], b[:]) }
	slices.SortFunc(w.announced, order)
	slices.SortFunc(w.browsed, order)
	if slices.Equal(w.announced, s.localWanted.announced) && slices.Equal(w.browsed, s.localWanted.browsed) {
		return
	}
	s.localWanted = w
	s.later(func() {
		// Whoever comes last tells what is wanted last.
		s.telling.Lock()
		defer s.telling.Unlock()
		var w wanted
		s.mu.Lock()
		w = s.localWanted
		s.mu.Unlock()
		s.local.announce(w.announced)
		s.local.browse(w.browsed)
	})
}
