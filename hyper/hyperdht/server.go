package hyperdht

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/udx"
)

const (
	// handshakeClearWait is how long a server remembers a handshake that is over,
	// for messages that come twice.
	handshakeClearWait = 10 * time.Second
	// handshakeTimeout is how long a client has to begin with punching.
	handshakeTimeout = 10 * time.Second
	// nearWait is how long a client has to come over the local network before it
	// is told that punching makes no sense, which is when it may give up.
	nearWait = 500 * time.Millisecond
	// maxPunchMessages bounds the messages of one client that are worked on.
	maxPunchMessages = 4
)

// A Server is a key that others may connect to.
type Server struct {
	d      *DHT
	o      ServerOptions
	keys   noise.KeyPair
	target [32]byte
	ann    *announcer
	ctx    context.Context // ends when it is closed
	cancel context.CancelFunc

	mu         sync.Mutex
	suspended  bool
	handshakes map[[32]byte]*inbound // by the hash of their first message
	byID       map[uint64]*inbound
	sources    map[netip.Addr]int
	nextID     uint64
}

// An inbound is a client's way to a connection, seen from the server
// (lib/server.js).
type inbound struct {
	s      *Server
	id     uint64
	key    [32]byte
	source netip.Addr
	known  chan struct{} // closed when there is a reply, or will be none

	// These are written before known is closed, and not again. Drop may come
	// before that, so link is written with mu held.
	reply     []byte
	fromPunch bool // the reply goes out by the socket of the puncher
	near      bool // the client may be on the same network
	sealer    *sealer
	link      *link
	through   *relayThrough // the blind relay that both sides know of, or nil

	mu       sync.Mutex
	dropped  bool // there is to be no connection
	puncher  *puncher
	round    uint64
	relaying bool
	gaveUp   bool // there will be no punching any more
	working  int
	waiting  clock.Timer // for the client to punch
	clearing bool
}

// Listen announces a key and serves those who connect to it. It returns when
// the key is announced.
func (d *DHT) Listen(ctx context.Context, keys noise.KeyPair, o ServerOptions) (*Server, error) {
	if o.MaxHandshakes <= 0 {
		o.MaxHandshakes = DefaultMaxHandshakes
	}
	if o.PerSource <= 0 {
		o.PerSource = max(o.MaxHandshakes/4, 1)
	}
	s := &Server{
		d: d, o: o, keys: keys, target: Target(keys.Public),
		handshakes: map[[32]byte]*inbound{}, byID: map[uint64]*inbound{}, sources: map[netip.Addr]int{},
	}
	s.ctx, s.cancel = context.WithCancel(d.ctx)
	s.ann = newAnnouncer(d, s.ctx, keys, s.target, o.Sign)
	if err := d.addServer(s); err != nil {
		s.cancel()
		return nil, fmt.Errorf("listen as %s: %w", keys.Public, err)
	}
	if !o.NoLocal {
		d.spawn(func() { d.validLocalAddrs(s.ctx) }) // so that the first client needs not wait
	}
	if err := s.ann.start(ctx); err != nil {
		s.cancel() // what is under way need not come to its end
		s.Close()
		return nil, fmt.Errorf("listen as %s: %w", keys.Public, err)
	}
	return s, nil
}

// Key returns the public key of the server.
func (s *Server) Key() noise.Key { return s.keys.Public }

// RelayAddresses returns the nodes through which the server is found.
func (s *Server) RelayAddresses() []netip.AddrPort {
	_, addrs := s.ann.current()
	return addrs
}

// Refresh announces the server again soon, as when the network has changed.
func (s *Server) Refresh() { s.ann.refresh() }

// Close takes the announcement back. Connections go on.
func (s *Server) Close() error {
	if !s.d.removeServer(s) {
		return nil
	}
	s.clear()
	s.ann.stop(context.Background())
	s.cancel()
	return nil
}

// suspend takes the announcement back until resume.
func (s *Server) suspend(ctx context.Context) {
	s.mu.Lock()
	s.suspended = true
	s.mu.Unlock()
	s.clear()
	s.ann.suspend(ctx)
}

func (s *Server) resume(ctx context.Context) {
	s.mu.Lock()
	s.suspended = false
	s.mu.Unlock()
	s.ann.resume(ctx) // it goes on by itself
}

// record is what this node tells about its own server.
func (s *Server) record() []byte { return peerRecord{key: s.keys.Public}.append(nil) }

// clear drops all handshakes that have no connection yet.
func (s *Server) clear() {
	s.mu.Lock()
	all := s.byID
	s.handshakes, s.byID, s.sources = map[[32]byte]*inbound{}, map[uint64]*inbound{}, map[netip.Addr]int{}
	s.mu.Unlock()
	for _, in := range all {
		in.drop()
	}
}

// onHandshake gets the first message of a client, through a relay or not. It
// does not block.
func (s *Server) onHandshake(m handshakeMsg, r *dhtrpc.Request) {
	key := hash(m.noise)
	client := m.peer
	if !client.IsValid() {
		client = r.From.Addr
	}
	s.mu.Lock()
	in := s.handshakes[key]
	if in == nil {
		if s.suspended || s.ctx.Err() != nil || len(s.byID) >= s.o.MaxHandshakes || s.sources[client.Addr()] >= s.o.PerSource {
			s.mu.Unlock()
			return
		}
		in = &inbound{s: s, id: s.nextID, key: key, source: client.Addr(), known: make(chan struct{})}
		s.nextID++
		s.handshakes[key], s.byID[in.id] = in, in
		s.sources[in.source]++
		noise := append([]byte(nil), m.noise...)
		s.d.spawn(func() {
			in.run(noise, client, r, !m.peer.IsValid())
			closeOnce(in.known)
		})
	}
	s.mu.Unlock()
	s.d.spawn(func() {
		select {
		case <-in.known:
		case <-s.ctx.Done():
			return
		}
		if in.reply == nil {
			return
		}
		// A client that asks itself looks for the address that it has asked.
		var socket *udx.Socket
		if p := in.currentPuncher(); in.fromPunch && p != nil && m.mode != fromClient {
			socket = p.socket()
		}
		send(r, handshakeReply(m, r.From.Addr, in.reply), socket)
	})
}

// send does what a hop says, by a socket or the one the request came by.
func send(r *dhtrpc.Request, h hop, socket *udx.Socket) {
	switch {
	case !h.to.IsValid():
	case h.reply:
		o := dhtrpc.ReplyOptions{Socket: socket, NoToken: true, NoCloser: !h.closer}
		if h.to != r.From.Addr {
			o.To = h.to
		}
		r.Reply(h.value, o)
	default:
		r.Relay(h.value, h.to, socket)
	}
}

// run holds the handshake and begins to look for a path.
func (in *inbound) run(message []byte, client netip.AddrPort, r *dhtrpc.Request, direct bool) {
	s, d := in.s, in.s.d
	h, err := s.handshake()
	if err != nil {
		in.clearLater()
		return
	}
	p, err := receivePayload(s.ctx, h, message)
	if err != nil {
		in.clearLater()
		return
	}
	if s.o.Refuse != nil && s.o.Refuse(Client{Key: h.Remote(), Addr: client, Firewall: p.firewall, Addrs: p.addrs4}) {
		in.clearLater()
		return
	}
	answer := noisePayload{stream: 1}
	switch {
	case p.version != 1:
		answer.code = codeVersionMismatch
	case p.udx == nil:
		answer.code = codeAborted
	}
	own, reachable := d.serverAddr()
	if reachable {
		answer.firewall, answer.addrs4 = FirewallOpen, []netip.AddrPort{own}
	}
	if !s.o.NoLocal {
		answer.addrs4 = append(answer.addrs4, d.validLocalAddrs(s.ctx)...)
	}
	answer.addrs6 = d.addrs6()
	relays, relayAddrs := s.ann.current()
	if !reachable {
		answer.hasPunch, answer.punchID, answer.relays = true, in.id, relays
	}
	answer.relayAddrs = relayAddrs
	if answer.code == codeNone {
		l, err := d.newLink(d.ctx, s.keys.Public, h, false)
		if err != nil {
			in.clearLater()
			return
		}
		if !in.take(l) || !l.begin(in.serve, in.clearLater, in.clearLater) {
			in.clearLater()
			return
		}
		answer.udx = &udxInfo{reusable: s.o.Reusable, id: in.link.raw.ID()}
		in.through = p.through
		if key, ok := d.chooseRelay(s.relays(), s.keys.Public, h.Remote()); ok {
			answer.through = &relayThrough{key: key, token: d.token()}
			in.through = answer.through
		}
	} else {
		answer.udx = &udxInfo{} // as the reference does
	}
	reply, err := sendPayload(s.ctx, h, &answer)
	if err != nil {
		in.drop()
		in.clearLater()
		return
	}
	if answer.code != codeNone {
		in.reply = reply
		in.clearLater()
		return
	}
	in.reply = reply
	in.link.ready(h.Remote(), p.udx.id, answer.firewall, p.firewall, s.o.Reusable && p.udx.reusable)
	if p.firewall == FirewallOpen || direct {
		socket := d.node.Socket()
		if direct {
			socket = r.Socket
		}
		d.count(func(s *Stats) { s.PunchesOpen++ })
		in.link.useDirect(socket, client)
		return
	}
	d.try6(in.link, p.addrs6)
	in.look(h, &p, answer.through != nil, client, r, reachable)
}

// look begins to look for a path.
func (in *inbound) look(h Handshake, p *noisePayload, ours bool, client netip.AddrPort, r *dhtrpc.Request, reachable bool) {
	s, d := in.s, in.s.d
	if through := in.through; through != nil {
		in.relaying = true
		d.spawn(func() {
			err := in.link.reach(through.key, ours, through.token)
			in.mu.Lock()
			in.relaying = false
			last := err != nil && in.gaveUp
			in.mu.Unlock()
			if last {
				in.link.fail()
			}
		})
	}
	near := false
	if client.Addr() == r.To.Addr() && !s.o.NoLocal {
		var theirs []netip.AddrPort
		for _, a := range p.addrs4 {
			if isPrivate(a.Addr()) {
				theirs = append(theirs, a)
			}
		}
		near = matchAddr(d.validLocalAddrs(s.ctx), theirs).IsValid()
	}
	if (reachable || s.o.NoPunch) && !near {
		in.wait()
		return
	}
	sealer, err := newSealer(h.HolepunchSecret(), d.random)
	if err != nil {
		return
	}
	puncher, err := newPuncher(in.link.ctx, d, false, p.firewall)
	if err != nil {
		return
	}
	puncher.onAbort = in.giveUp
	if near {
		// The client may come over the local network all the same.
		puncher.onAbort = nil
	}
	in.mu.Lock()
	in.sealer, in.puncher = sealer, puncher
	in.mu.Unlock()
	// The address that a reply comes from is taken for the server's. On the same
	// network it is to be that of the server socket.
	in.fromPunch, in.near = !near, near
	in.link.setPuncher(puncher)
	in.wait()
}

// wait gives the client some time to punch.
func (in *inbound) wait() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.waiting = in.s.d.clock.AfterFunc(handshakeTimeout, in.giveUp)
}

// stopWaiting is called when the client punches.
func (in *inbound) stopWaiting() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.waiting != nil {
		in.waiting.Stop()
	}
}

// giveUp ends the search for a path, and the link unless a relay helps.
func (in *inbound) giveUp() {
	in.stopWaiting()
	in.mu.Lock()
	in.gaveUp = true
	relaying, puncher := in.relaying, in.puncher
	in.mu.Unlock()
	if puncher != nil {
		puncher.quit()
	}
	in.link.setWhy("hole punching did not get through")
	if in.link.connected() != nil {
		in.clearLater()
	} else if !relaying {
		in.link.fail()
	}
}

func (in *inbound) currentPuncher() *puncher {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.puncher
}

// take has the link, or ends it and reports false if it comes too late.
func (in *inbound) take(l *link) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.dropped {
		l.fail()
		return false
	}
	in.link = l
	return true
}

// drop ends what has no connection yet.
func (in *inbound) drop() {
	in.stopWaiting()
	in.mu.Lock()
	in.dropped = true
	l := in.link
	in.mu.Unlock()
	if l != nil && l.connected() == nil {
		l.fail()
	}
}

// clearLater forgets the handshake when nothing of it is on the way any more.
func (in *inbound) clearLater() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.clearing {
		return
	}
	in.clearing = true
	if in.waiting != nil {
		in.waiting.Stop()
	}
	in.s.d.clock.AfterFunc(handshakeClearWait, func() {
		s := in.s
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.byID[in.id] != in {
			return
		}
		delete(s.byID, in.id)
		delete(s.handshakes, in.key)
		if s.sources[in.source]--; s.sources[in.source] == 0 {
			delete(s.sources, in.source)
		}
	})
}

func (s *Server) handshake() (Handshake, error) {
	if s.o.Handshake != nil {
		return s.o.Handshake(), nil
	}
	return newHandshake(s.keys, noise.Key{}, s.d.random)
}

// relays are those that clients may be sent to.
func (s *Server) relays() []noise.Key {
	if s.o.RelayThrough != nil {
		return s.o.RelayThrough
	}
	return s.d.relays()
}

// serve gives a connection to the user.
func (in *inbound) serve(c *Conn) {
	in.stopWaiting()
	if !in.s.d.spawn(func() { in.s.o.Serve(c) }) {
		in.link.fail()
	}
}

// onHolepunch gets what a client tells through a relay. It does not block.
func (s *Server) onHolepunch(m holepunchMsg, r *dhtrpc.Request) {
	s.mu.Lock()
	in := s.byID[m.id]
	gone := s.suspended || s.ctx.Err() != nil
	s.mu.Unlock()
	if in == nil || gone || !m.peer.IsValid() {
		return
	}
	in.mu.Lock()
	busy := in.working >= maxPunchMessages
	if !busy {
		in.working++
	}
	in.mu.Unlock()
	if busy {
		return
	}
	payload := append([]byte(nil), m.payload...)
	s.d.spawn(func() {
		socket, sealed := in.onPunch(m, payload, r)
		in.mu.Lock()
		in.working--
		in.mu.Unlock()
		if sealed != nil {
			send(r, holepunchReply(m, r.From.Addr, sealed), socket)
		}
	})
}

// onPunch answers what a client tells about its NAT, and punches if it does.
func (in *inbound) onPunch(m holepunchMsg, payload []byte, r *dhtrpc.Request) (*udx.Socket, []byte) {
	s, d := in.s, in.s.d
	select {
	case <-in.known:
	case <-s.ctx.Done():
		return nil, nil
	}
	if in.sealer == nil {
		return nil, nil
	}
	remote, err := in.sealer.open(payload)
	if err != nil {
		return nil, nil
	}
	p := in.currentPuncher()
	socket := p.socket()
	if socket == nil {
		return in.abort(codeAborted)
	}
	in.mu.Lock()
	newer := remote.round >= in.round
	if newer {
		in.round = remote.round
	}
	in.mu.Unlock()
	if remote.code != codeNone {
		return in.abort(codeAborted)
	}
	serverRelay := s.ann.isRelay(r.From.Addr)
	token := in.sealer.token(m.peer)
	var verified netip.Addr
	if serverRelay && remote.remoteToken != nil && *remote.remoteToken == *token {
		verified = m.peer.Addr()
	}
	p.sample(r.Socket, r.To, r.From.Addr)
	if newer {
		p.update(&remote, verified)
	}
	stable := p.analyze(false)
	_, _, punching := p.other()
	if !punching && !stable {
		if !p.analyze(true) {
			if in.near && in.link.waitDirect(nearWait) {
				return nil, nil
			}
			return in.abort(codeAborted)
		}
	}
	local, addrs := p.local()
	// The client has opened its NAT for an address of ours: be quick.
	if local.consistent() && remote.remote.IsValid() && contains(addrs, remote.remote) {
		p.send(m.peer, false)
	}
	code := uint64(codeNone)
	if punching {
		remoteFirewall, remoteAddrs, _ := p.other()
		if s.o.Holepunch != nil && !s.o.Holepunch(remoteFirewall, local, remoteAddrs, addrs) {
			return in.abort(codeAborted)
		}
		in.stopWaiting()
		switch random := remoteFirewall >= FirewallRandom || local >= FirewallRandom; {
		case random && !d.mayPunchRandom() && !p.begun():
			d.count(func(s *Stats) { s.TryLater++ })
			if in.through == nil {
				return in.abort(codeTryLater)
			}
			code = codeTryLater
		case !p.punch():
			return in.abort(codeAborted)
		}
	}
	connected, punchingNow, ended := p.state()
	if ended {
		return nil, nil
	}
	if code == codeNone && local != FirewallUnknown {
		p.freeze() // the other side is told now
	}
	in.mu.Lock()
	round := in.round
	in.mu.Unlock()
	answer := punchMsg{code: code, firewall: local, round: round, connected: connected, punching: punchingNow, addrs: addrs, remoteToken: remote.token}
	if serverRelay {
		answer.token = token
	}
	sealed, err := in.sealer.seal(&answer)
	if err != nil {
		return nil, nil
	}
	return p.socket(), sealed
}

// abort gives up, and returns the message that says so.
func (in *inbound) abort(code uint64) (*udx.Socket, []byte) {
	in.mu.Lock()
	round := in.round
	in.mu.Unlock()
	sealed, err := in.sealer.seal(&punchMsg{code: code, round: round})
	in.currentPuncher().end()
	if err != nil {
		return nil, nil
	}
	return in.s.d.node.Socket(), sealed
}

func contains(l []netip.AddrPort, a netip.AddrPort) bool {
	for _, b := range l {
		if a == b {
			return true
		}
	}
	return false
}
