package hyperdht

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/udx"
)

const (
	// passiveTimeout is how long a client that can be reached waits for the
	// server to reach it.
	passiveTimeout = 10 * time.Second
	// parallelTries is how many nodes are asked at a time to pass on a handshake.
	parallelTries = 2
	// localHeadStart is how long a path over the local network is preferred.
	localHeadStart = 100 * time.Millisecond
	// unknownPause is how long a server has for finding out about its NAT.
	unknownPause = time.Second
	// tryLaterLeast and tryLaterMost are how long to wait when the other side is
	// busy with another punch of hundreds of packets.
	tryLaterLeast, tryLaterMost = 10 * time.Second, 20 * time.Second
)

// An attempt is a client's way to a connection (lib/connect.js).
type attempt struct {
	d      *DHT
	o      ConnectOptions
	remote noise.Key
	target [32]byte
	link   *link
	ctx    context.Context // that of the link

	request func() ([]byte, error) // returns the first message of the handshake
	settled chan struct{}          // closed when there is a connection, or none will be
	finding context.Context        // ends when a server has answered
	found   context.CancelFunc

	mu       sync.Mutex
	done     bool
	conn     *Conn
	err      error
	firewall Firewall      // what it says of this side
	through  *relayThrough // the relay that both sides know of, or nil
	theirs   bool          // which the other side chose
	reading  bool          // an answer is being read
	answer   *answerOf     // nil until a server answered
	tried    []netip.AddrPort
	puncher  *puncher
	relaying int // legs under way
	relayed  bool
	round    uint64
	passive  clock.Timer
	relayIn  clock.Timer
	reason   error // what failed first, while something else is under way
}

// An answerOf is a server's answer to a handshake, and how it came.
type answerOf struct {
	noise                 []byte
	payload               noisePayload
	sealer                *sealer
	relayed               bool
	relay, server, client netip.AddrPort
}

// Connect finds the peer and connects to it. It returns when there is a path,
// maybe through a relay; a better one may be found later, see [Conn.OnPath].
// The end of ctx before that ends the attempt; later it changes nothing.
func (d *DHT) Connect(ctx context.Context, remote noise.Key, o ConnectOptions) (*Conn, error) {
	c, err := d.connect(ctx, remote, o)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", remote, err)
	}
	return c, nil
}

func (d *DHT) connect(ctx context.Context, remote noise.Key, o ConnectOptions) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if o.KeyPair.Public == (noise.Key{}) {
		o.KeyPair = d.keys
	}
	if o.RelayThrough == nil {
		o.RelayThrough = d.relays()
	}
	h := o.Handshake
	if h == nil {
		own, err := newHandshake(o.KeyPair, remote, d.random)
		if err != nil {
			return nil, err
		}
		h = own
	}
	l, err := d.newLink(d.ctx, o.KeyPair.Public, h, true)
	if err != nil {
		return nil, err
	}
	a := &attempt{d: d, o: o, remote: remote, target: Target(remote), link: l, ctx: l.ctx, settled: make(chan struct{})}
	a.finding, a.found = context.WithCancel(l.ctx)
	a.request = sync.OnceValues(a.hello)
	if !l.begin(a.connected, nil, func() { a.settle(nil, ErrClosed) }) || !d.spawn(a.run) {
		a.settle(nil, ErrClosed)
	}
	select {
	case <-a.settled:
	case <-ctx.Done():
		a.settle(nil, context.Cause(ctx))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.conn, a.err
}

// connected is called by the link when it has a path.
func (a *attempt) connected(c *Conn) {
	if !a.settle(c, nil) {
		a.link.fail()
	}
}

// settle ends the attempt. Only the first call counts.
func (a *attempt) settle(c *Conn, err error) bool {
	a.mu.Lock()
	if a.done {
		a.mu.Unlock()
		return false
	}
	a.done, a.conn, a.err = true, c, err
	for _, t := range []clock.Timer{a.passive, a.relayIn} {
		if t != nil && (c == nil || t == a.passive) {
			t.Stop()
		}
	}
	a.mu.Unlock()
	close(a.settled)
	if c == nil {
		a.link.fail()
	}
	return true
}

// fail notes that something has failed, and ends the attempt if nothing else
// is under way that could help.
func (a *attempt) fail(err error) {
	a.mu.Lock()
	if a.done {
		relayed := a.conn != nil
		a.mu.Unlock()
		if relayed {
			a.link.setWhy(whyNot(err))
		}
		return
	}
	if a.reason == nil || errors.Is(a.reason, ErrAborted) {
		a.reason = err
	}
	reason := a.reason
	if a.punchingLocked() {
		a.mu.Unlock()
		return
	}
	a.mu.Unlock()
	a.link.setWhy(whyNot(reason))
	if a.startRelay() {
		return
	}
	a.mu.Lock()
	waits := a.relaying > 0
	a.mu.Unlock()
	if !waits {
		a.settle(nil, reason)
	}
}

// punchingLocked reports whether there is a puncher at work.
func (a *attempt) punchingLocked() bool {
	if a.puncher == nil {
		return false
	}
	_, _, ended := a.puncher.state()
	return !ended
}

// whyNot says in words for people why there is no direct path.
func whyNot(err error) string {
	switch {
	case errors.Is(err, ErrBothRandom):
		return "both sides are behind NATs that choose ports at random"
	case errors.Is(err, ErrAborted), errors.Is(err, dhtrpc.ErrTimeout):
		return "hole punching did not get through"
	}
	return err.Error()
}

// over reports whether there is nothing more to do.
func (a *attempt) over() bool {
	a.mu.Lock()
	done := a.done && a.conn == nil
	a.mu.Unlock()
	return done || a.link.isDirect()
}

func (a *attempt) answered() *answerOf {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answer
}

func (a *attempt) run() {
	if a.o.Reusable {
		if r, ok := a.d.pool.route(a.remote); ok {
			a.retryRoute(r)
		}
	}
	if a.answered() == nil && !a.over() {
		if err := a.find(); err != nil {
			a.fail(err)
			return
		}
	}
	if !a.over() {
		a.punch()
	}
}

// retryRoute tries the socket and address of an earlier connection.
func (a *attempt) retryRoute(r route) {
	if s := a.d.pool.lookup(r.socket); s != nil {
		s.hold()
		defer s.drop()
	} else if r.socket != a.d.node.Socket() {
		return
	}
	if a.shake(r.addr, r.socket) != nil {
		a.d.pool.dropRoute(a.remote, r.socket)
	}
}

// find looks for nodes that know the peer, and shakes hands through them.
func (a *attempt) find() error {
	known := a.o.RelayAddresses
	if len(known) == 0 {
		known = a.d.relayAddrs(a.remote)
	}
	if f, ok := a.d.records.forward(a.d.clock.Now(), a.target); ok {
		known = []netip.AddrPort{f.relay} // this node relays for the peer
	}
	var tries sync.WaitGroup
	defer tries.Wait()
	slots := make(chan struct{}, parallelTries+1)
	rounds := 1
	if len(known) > 0 {
		rounds = 2
		slots <- struct{}{}
		first := known // the next round forgets them
		tries.Go(func() {
			defer func() { <-slots }()
			for _, addr := range first {
				if a.over() || a.answered() != nil {
					return
				}
				a.try(addr)
			}
		})
	} else {
		slots <- struct{}{} // one slot less
	}
	attempts := 0
	for range rounds {
		n, err := a.search(known, slots, &tries)
		attempts += n
		if err != nil {
			return err
		}
		if attempts > 0 {
			tries.Wait()
		}
		if a.over() || a.answered() != nil {
			return nil
		}
		known = nil
	}
	tries.Wait()
	switch {
	case a.over() || a.answered() != nil:
		return nil
	case attempts > 0:
		return fmt.Errorf("%w: it was found, and did not answer", ErrUnreachable)
	}
	return ErrNotFound
}

// search asks for nodes that know the peer and tries each. It returns how many
// it has tried.
func (a *attempt) search(known []netip.AddrPort, slots chan struct{}, tries *sync.WaitGroup) (attempts int, err error) {
	q := a.d.node.Query(a.finding, a.target, dhtrpc.QueryOptions{
		Call: dhtrpc.Call{Command: cmdFindPeer}, Nodes: known, Retries: 3,
	})
	for r, err := range q.All() {
		if err != nil {
			if a.over() || a.answered() != nil {
				return attempts, nil
			}
			return attempts, fmt.Errorf("find it: %w", err)
		}
		if r.Code != 0 || r.Value == nil {
			continue
		}
		if _, err := readPeer(r.Value); err != nil || slices.Contains(known, r.From.Addr) {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-a.finding.Done():
			return attempts, nil
		}
		if a.over() || a.answered() != nil {
			<-slots
			return attempts, nil
		}
		attempts++
		tries.Go(func() {
			defer func() { <-slots }()
			a.try(r.From.Addr)
		})
	}
	return attempts, nil
}

// try shakes hands through a node.
func (a *attempt) try(addr netip.AddrPort) {
	a.mu.Lock()
	a.tried = append(a.tried, addr)
	a.mu.Unlock()
	if err := a.shake(addr, nil); err != nil && isFinal(err) {
		a.settle(nil, err)
	}
}

// isFinal tells errors that another node would not change.
func isFinal(err error) bool { return errors.Is(err, ErrRefused) || errors.Is(err, ErrIncompatible) }

// hello makes the first message of the handshake, which may take a while if
// somebody else has the keys.
func (a *attempt) hello() ([]byte, error) {
	p := noisePayload{stream: 1, udx: &udxInfo{reusable: a.o.Reusable, id: a.link.raw.ID()}}
	if addr, ok := a.d.node.RemoteAddr(); ok {
		p.firewall, p.addrs4 = FirewallOpen, []netip.AddrPort{addr}
	}
	if !a.o.NoLocal {
		p.addrs4 = append(p.addrs4, a.d.localAddrs()...)
	}
	p.addrs6 = a.d.addrs6()
	if key, ok := a.d.chooseRelay(a.o.RelayThrough, a.remote); ok {
		p.through = &relayThrough{key: key, token: a.d.token()}
	}
	a.mu.Lock()
	a.through, a.firewall = p.through, p.firewall
	a.mu.Unlock()
	return sendPayload(a.finding, a.link.handshake, &p)
}

// shake shakes hands through a node, or with the server itself at its
// address.
func (a *attempt) shake(addr netip.AddrPort, socket *udx.Socket) error {
	request, err := a.request()
	if err != nil {
		return err
	}
	target := dhtrpc.ID(a.target)
	reply, err := a.d.node.Do(a.finding, addr, dhtrpc.Call{
		Command: cmdPeerHandshake, Target: &target, Value: handshakeMsg{mode: fromClient, noise: request}.append(nil),
	}, dhtrpc.CallOptions{Socket: socket})
	if err != nil {
		return err
	}
	m, err := readHandshake(reply.Value)
	if err != nil || m.mode != modeReply || m.noise == nil {
		return fmt.Errorf("handshake through %v: %w", addr, errReply)
	}
	a.mu.Lock()
	if a.done || a.answer != nil || a.reading {
		a.mu.Unlock()
		return nil
	}
	a.reading = true
	a.mu.Unlock()
	p, err := receivePayload(a.finding, a.link.handshake, m.noise)
	switch {
	case err != nil:
		// A node on the way may have made it up. Others may do better.
		a.mu.Lock()
		a.reading = false
		a.mu.Unlock()
		return fmt.Errorf("handshake through %v: %w", addr, err)
	case p.version != 1 || p.code == codeVersionMismatch:
		return ErrIncompatible
	case p.code != codeNone:
		return fmt.Errorf("%w: error %d", ErrRefused, p.code)
	case p.udx == nil:
		return fmt.Errorf("%w: it has no stream", ErrRefused)
	}
	s, err := newSealer(a.link.handshake.HolepunchSecret(), a.d.random)
	if err != nil {
		return err
	}
	ans := &answerOf{noise: m.noise, payload: p, sealer: s, relayed: m.peer.IsValid(), relay: addr, server: addr, client: reply.To}
	if ans.relayed {
		ans.server = m.peer
	}
	a.mu.Lock()
	a.answer = ans
	if p.through != nil {
		a.through, a.theirs = p.through, true
	}
	tried := a.tried
	a.mu.Unlock()
	defer a.found()
	if len(p.relayAddrs) > 0 {
		tried = p.relayAddrs
	}
	a.d.rememberRelays(a.remote, tried)
	a.link.ready(a.remote, p.udx.id, a.firewall, p.firewall, a.o.Reusable && p.udx.reusable)
	a.scheduleRelay(&p)
	if !ans.relayed {
		if socket == nil {
			socket = a.d.node.Socket()
		}
		a.link.useDirect(socket, addr)
	}
	return nil
}

var errReply = errors.New("bad answer of a node")

// punch looks for a path once a server has answered.
func (a *attempt) punch() {
	ans := a.answered()
	if ans == nil {
		return
	}
	p := &ans.payload
	punchable := p.hasPunch && len(p.relays) > 0
	relayed := ans.server != ans.relay
	a.d.try6(a.link, p.addrs6)
	if p.firewall == FirewallOpen || relayed && !punchable {
		if addr := firstPublic(p.addrs4, ans.server); addr.IsValid() {
			a.d.count(func(s *Stats) { s.PunchesOpen++ })
			a.link.useDirect(a.d.node.Socket(), addr)
			return
		}
	}
	if a.firewall == FirewallOpen {
		a.mu.Lock()
		if !a.done {
			a.passive = a.d.clock.AfterFunc(passiveTimeout, func() { a.fail(fmt.Errorf("%w: the server did not come", ErrAborted)) })
		}
		a.mu.Unlock()
		return
	}
	near := relayed && ans.client.Addr() == ans.server.Addr()
	if !punchable {
		if !near || !a.tryLocal(ans, false) {
			a.fail(fmt.Errorf("%w: the server can't be punched to", ErrUnreachable))
		}
		return
	}
	if err := a.holepunch(ans, near); err != nil {
		a.mu.Lock()
		puncher := a.puncher
		a.mu.Unlock()
		if puncher != nil {
			puncher.quit()
		}
		a.fail(err)
	}
}

// tryLocal asks for the server on the local network, and takes the path if it is
// there. The first message of the handshake, which a server answers the same each
// time, tells it from others that have its address on other networks, this
// machine among them. The result is whether there is an address to try.
func (a *attempt) tryLocal(ans *answerOf, punchable bool) bool {
	ours := a.d.localAddrs()
	mine := a.d.listensAt(a.target) // for somebody else, as relays do
	addrs := slices.DeleteFunc(slices.Clone(ans.payload.addrs4), func(p netip.AddrPort) bool {
		return isReserved(p.Addr()) || p.Port() == 0 || !mine && slices.Contains(ours, p)
	})
	request, err := a.request()
	if a.o.NoLocal || len(addrs) == 0 || err != nil {
		return false
	}
	addr := matchAddr(ours, addrs)
	if !addr.IsValid() {
		addr = addrs[0]
	}
	target := dhtrpc.ID(a.target)
	call := dhtrpc.Call{Command: cmdPeerHandshake, Target: &target, Value: handshakeMsg{mode: fromClient, noise: request}.append(nil)}
	a.d.start(a.ctx, addr, call, dhtrpc.CallOptions{}, func(r dhtrpc.Reply, err error) {
		m, bad := readHandshake(r.Value)
		switch {
		case err == nil && bad == nil && bytes.Equal(m.noise, ans.noise):
			a.link.useDirect(a.d.node.ServerSocket(), addr)
		case !punchable:
			a.fail(fmt.Errorf("%w: it is on the same network and does not answer", ErrUnreachable))
		}
	})
	return true
}

// holepunch punches, in rounds of messages through relays.
func (a *attempt) holepunch(ans *answerOf, near bool) error {
	p, err := newPuncher(a.ctx, a.d, true, ans.payload.firewall)
	if err != nil {
		return err
	}
	p.onConnect = func(s *udx.Socket, from netip.AddrPort) { a.link.useDirect(s, from) }
	p.onAbort = func() { a.fail(fmt.Errorf("%w: nothing came through", ErrAborted)) }
	a.mu.Lock()
	a.puncher = p
	a.mu.Unlock()
	if !a.link.setPuncher(p) {
		p.quit()
		return nil
	}
	a.d.spawn(func() {
		p.analyze(false)
		a.lookAtNATs(p)
	})
	relay := ans.payload.relays[0]
	for _, r := range ans.payload.relays {
		if r.relay == ans.relay {
			relay = r
			break
		}
	}
	fast := ans.server
	if a.o.NoFastOpen {
		fast = none
	}
	if near {
		// A server may give up for good, and close its socket, when punching makes
		// no sense. First see who is there without it.
		p.send(fast, true)
		a.tryLocal(ans, true)
		a.link.waitDirect(localHeadStart)
		if a.over() {
			return nil
		}
	}
	token, peer, err := a.probe(ans, p, fast, relay, true)
	if err != nil || a.over() {
		return err
	}
	server := ans.server
	if relay.relay == ans.relay && peer != server {
		// It has taken another socket, which knows the relay that we use, too.
		server = peer
		p.send(server, true)
	}
	if a.o.Holepunch != nil {
		local, localAddrs := p.local()
		remote, remoteAddrs, _ := p.other()
		if !a.o.Holepunch(remote, local, remoteAddrs, localAddrs) {
			return a.abort(ans, p, relay, fmt.Errorf("%w: not wanted", ErrAborted))
		}
	}
	return a.rounds(ans, p, server, token, relay)
}

// tell sends what is known to the server through a relay and takes what it
// answers.
func (a *attempt) tell(ans *answerOf, p *puncher, peer, relay netip.AddrPort, m punchMsg) (reply punchMsg, r dhtrpc.Reply, from netip.AddrPort, err error) {
	if m.code == codeNone {
		m.firewall, m.addrs = p.local()
	}
	a.mu.Lock()
	m.round = a.round
	a.round++
	a.mu.Unlock()
	sealed, err := ans.sealer.seal(&m)
	if err != nil {
		return reply, r, none, err
	}
	target := dhtrpc.ID(a.target)
	r, err = a.d.node.Do(p.ctx, relay, dhtrpc.Call{
		Command: cmdPeerHolepunch, Target: &target,
		Value: holepunchMsg{fromClient, ans.payload.punchID, sealed, peer}.append(nil),
	}, dhtrpc.CallOptions{Socket: p.socket()})
	if err != nil {
		return reply, r, none, err
	}
	h, err := readHolepunch(r.Value)
	if err != nil || h.mode != modeReply {
		return reply, r, none, fmt.Errorf("hole punching through %v: %w", relay, errReply)
	}
	if from = h.peer; !from.IsValid() {
		from = relay
	}
	if reply, err = ans.sealer.open(h.payload); err != nil {
		return reply, r, none, err
	}
	// A server that puts the client off proves its address all the same.
	later := reply.code == codeTryLater && a.through != nil && m.punching
	if reply.code != codeNone && !later {
		return reply, r, from, fmt.Errorf("%w: by the other side, error %d", ErrAborted, reply.code)
	}
	var verified netip.Addr
	if reply.remoteToken != nil && m.token != nil && *reply.remoteToken == *m.token {
		verified = peer.Addr()
	}
	p.update(&reply, verified)
	a.lookAtNATs(p)
	return reply, r, from, nil
}

// lookAtNATs asks the relay at once if punching can't help, or takes long
// because ports have to be guessed.
func (a *attempt) lookAtNATs(p *puncher) {
	local, _ := p.local()
	remote, _, _ := p.other()
	if local >= FirewallRandom && remote >= FirewallRandom {
		a.link.setWhy(whyNot(ErrBothRandom))
	}
	if local >= FirewallRandom || remote >= FirewallRandom {
		a.startRelay()
	}
}

// probe exchanges what the two sides know about their NATs, until both do.
func (a *attempt) probe(ans *answerOf, p *puncher, fast netip.AddrPort, relay relayInfo, again bool) (token *[32]byte, peer netip.AddrPort, err error) {
	// Open the own NAT for what we think is the server.
	p.send(fast, true)
	reply, r, peer, err := a.tell(ans, p, relay.peer, relay.relay, punchMsg{remote: fast})
	if err != nil || a.over() {
		return nil, none, err
	}
	p.sample(p.socket(), r.To, r.From.Addr)
	remote, _, _ := p.other()
	if remote == FirewallUnknown {
		// It may wait whether the first packet comes through.
		if err := a.d.sleep(p.ctx, unknownPause); err != nil {
			return nil, none, nil
		}
	}
	stable := p.analyze(false)
	a.lookAtNATs(p)
	if !stable {
		stable = p.analyze(true)
		if a.over() {
			return nil, none, nil
		}
		if stable {
			return a.probe(ans, p, fast, relay, false)
		}
	}
	local, _ := p.local()
	if again && (remote == FirewallUnknown || reply.token == nil) {
		return a.probe(ans, p, fast, relay, false)
	}
	switch {
	case a.over():
		return nil, none, nil
	case remote == FirewallUnknown || local == FirewallUnknown:
		return nil, none, a.abort(ans, p, relay, fmt.Errorf("%w: no telling what the NATs are", ErrAborted))
	case remote >= FirewallRandom && local >= FirewallRandom:
		return nil, none, a.abort(ans, p, relay, ErrBothRandom)
	}
	return reply.token, peer, nil
}

// rounds agrees with the server to punch, and does it.
func (a *attempt) rounds(ans *answerOf, p *puncher, server netip.AddrPort, token *[32]byte, relay relayInfo) error {
	p.freeze() // the other side is told now
	local, _ := p.local()
	remote, _, _ := p.other()
	random := local >= FirewallRandom || remote >= FirewallRandom
	later := false
	for {
		if random {
			for !a.d.takeRandomPunch() {
				if a.through == nil {
					return fmt.Errorf("%w: another one with random ports is under way", ErrAborted)
				}
				if !later {
					later = true
					if _, _, _, err := a.tell(ans, p, server, ans.relay, punchMsg{token: ans.sealer.token(server), remoteToken: token}); err != nil {
						return err
					}
				}
				if a.sleepLater(p) != nil || a.over() {
					return nil
				}
			}
		}
		m := punchMsg{punching: true, remoteToken: token}
		peer, via := server, ans.relay
		if later {
			peer, via = relay.peer, relay.relay // the address is verified already
		} else {
			m.token = ans.sealer.token(server)
		}
		reply, _, _, err := a.tell(ans, p, peer, via, m)
		if random {
			a.d.giveRandomPunch()
		}
		if err != nil || a.over() {
			return err
		}
		if reply.code != codeTryLater {
			break
		}
		later = true
		if a.sleepLater(p) != nil || a.over() {
			return nil
		}
	}
	if _, _, punching := p.other(); !punching {
		return fmt.Errorf("%w: the other side does not punch", ErrAborted)
	}
	if !p.punch() && !a.over() {
		return fmt.Errorf("%w: the other side can't be punched to", ErrUnreachable)
	}
	return nil
}

// sleepLater waits until the other side may have time.
func (a *attempt) sleepLater(p *puncher) error {
	return a.d.sleep(p.ctx, tryLaterLeast+time.Duration(a.d.random.below(int(tryLaterMost-tryLaterLeast))))
}

// abort tells the server to give up, and returns why.
func (a *attempt) abort(ans *answerOf, p *puncher, relay relayInfo, why error) error {
	a.mu.Lock()
	a.reason = why
	a.mu.Unlock()
	a.startRelay()
	a.tell(ans, p, relay.peer, relay.relay, punchMsg{code: codeAborted}) // the reason stays the same
	return why
}
