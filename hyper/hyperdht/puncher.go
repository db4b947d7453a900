package hyperdht

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// maxReopens is how many other sockets are tried if the NAT makes no sense.
const maxReopens = 3

// sampleRounds is how often other nodes are asked if some don't answer.
const sampleRounds = 3

// holepunchByte is the packet that opens NATs and tells that it came through.
var holepunchByte = []byte{0}

// A puncher finds a way through the NATs of two sides: it makes out its own,
// keeps what the other says of theirs, and runs the punch that comes of both
// (lib/holepuncher.js).
type puncher struct {
	d         *DHT
	ctx       context.Context // ends when the puncher does
	cancel    context.CancelFunc
	initiator bool
	onConnect func(*udx.Socket, netip.AddrPort) // called once, by an initiator
	onAbort   func()                            // called once if it ends without

	mu       sync.Mutex
	sockets  []*poolSocket // the first is the one that the other side knows
	nat      *nat
	analyzed chan struct{} // closed when the nat knows what it will
	reopened chan struct{} // closed when other sockets were tried; nil before
	stable   bool          // and this came of it

	remote         Firewall
	remoteAddrs    []remoteAddr
	remotePunching bool

	run       punch
	punching  bool
	started   bool
	connected bool
	ended     bool
	random    bool // counts as one of the punches with random ports
	timer     clock.Timer
}

// newPuncher begins to make out the NAT of a new socket.
func newPuncher(ctx context.Context, d *DHT, initiator bool, remote Firewall) (*puncher, error) {
	p := &puncher{d: d, initiator: initiator, remote: remote}
	s, err := d.pool.acquire(p.onByte)
	if err != nil {
		return nil, err
	}
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.mu.Lock()
	p.beginLocked(s)
	p.mu.Unlock()
	return p, nil
}

// beginLocked takes a socket as the one to punch with.
func (p *puncher) beginLocked(s *poolSocket) {
	p.sockets = []*poolSocket{s}
	p.nat = newNAT(!p.d.node.Firewalled())
	p.analyzed = make(chan struct{})
	if p.nat.open {
		close(p.analyzed)
		return
	}
	p.sampleLocked(p.nat, p.analyzed, s, sampleRounds)
}

// sampleLocked asks nodes what address they see.
func (p *puncher) sampleLocked(n *nat, analyzed chan struct{}, s *poolSocket, rounds int) {
	nodes := p.d.node.Nodes(natSamples + 5 + len(n.seen))
	if len(nodes) >= 8 {
		nodes = nodes[5:] // the newest are the ones that others ask just now
	}
	left, asked := 1, 0
	done := func() { // with the lock held
		left--
		if left > 0 || p.analyzedLocked(n, analyzed) {
			return
		}
		if rounds > 1 && asked > 0 {
			p.sampleLocked(n, analyzed, s, rounds-1)
			return
		}
		closeOnce(analyzed)
	}
	for _, peer := range nodes {
		if asked+n.sampled >= natSamples {
			break
		}
		if n.seen[peer.Addr] || n.asked[peer.Addr] {
			continue
		}
		n.asked[peer.Addr] = true
		asked++
		left++
		p.d.startPing(p.ctx, peer.Addr, dhtrpc.CallOptions{Socket: s.Socket, NoRetry: true}, func(r dhtrpc.Reply, err error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if err == nil {
				n.add(r.To, r.From.Addr)
			}
			done()
		})
	}
	done()
}

func (p *puncher) analyzedLocked(n *nat, analyzed chan struct{}) bool {
	if n.known() || p.ended || n != p.nat {
		closeOnce(analyzed)
		return true
	}
	return false
}

// closeOnce closes a channel that may be closed. The caller has a lock.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// sample tells that a node sees the socket of the puncher at an address.
func (p *puncher) sample(s *udx.Socket, addr, from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended && s == p.sockets[0].Socket {
		p.nat.add(addr, from)
		p.analyzedLocked(p.nat, p.analyzed)
	}
}

// socket returns the one to speak with the other side's relays by, or nil when
// the puncher has ended.
func (p *puncher) socket() *udx.Socket {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sockets) == 0 {
		return nil
	}
	return p.sockets[0].Socket
}

// local returns what is known of the own NAT.
func (p *puncher) local() (Firewall, []netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nat.firewall, slices.Clone(p.nat.addrs)
}

// other returns what is known of the other side.
func (p *puncher) other() (f Firewall, addrs []netip.AddrPort, punching bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.remoteAddrs {
		addrs = append(addrs, a.addr)
	}
	return p.remote, addrs, p.remotePunching
}

// freeze keeps the analysis as it is.
func (p *puncher) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nat.freeze()
}

// update takes what the other side says. Verified is the address that it has
// proven, if it has.
func (p *puncher) update(m *punchMsg, verified netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.remoteAddrs
	p.remoteAddrs = nil
	for _, a := range m.addrs {
		if a.Port() == 0 && m.firewall < FirewallRandom || len(p.remoteAddrs) == 16 {
			continue
		}
		ok := a.Addr() == verified || slices.ContainsFunc(was, func(w remoteAddr) bool { return w.verified && w.addr.Addr() == a.Addr() })
		p.remoteAddrs = append(p.remoteAddrs, remoteAddr{a, ok})
	}
	p.remote, p.remotePunching = m.firewall, m.punching
}

// send sends the byte by the first socket.
func (p *puncher) send(to netip.AddrPort, low bool) {
	if s := p.socket(); s != nil {
		sendByte(s, to, low)
	}
}

func sendByte(s *udx.Socket, to netip.AddrPort, low bool) {
	if !to.IsValid() || to.Port() == 0 {
		return
	}
	if low {
		s.SendTTL(to, holepunchByte, lowTTL) // what can't be sent is tried again
		return
	}
	s.Send(to, holepunchByte)
}

// analyze waits until the own NAT is made out, and reports whether it makes
// sense to go on. If it doesn't, other sockets may be tried: a NAT can give
// them another kind of address, as those of mobile networks do.
func (p *puncher) analyze(reopen bool) bool {
	p.mu.Lock()
	analyzed := p.analyzed
	p.mu.Unlock()
	select {
	case <-analyzed:
	case <-p.ctx.Done():
		return false
	}
	p.mu.Lock()
	if !p.unstableLocked() {
		p.mu.Unlock()
		return true
	}
	if !reopen || p.ended {
		p.mu.Unlock()
		return false
	}
	first := p.reopened == nil
	if first {
		p.reopened = make(chan struct{})
	}
	reopened := p.reopened
	p.mu.Unlock()
	if first {
		p.reopen()
		close(reopened)
	}
	select {
	case <-reopened:
	case <-p.ctx.Done():
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stable
}

func (p *puncher) unstableLocked() bool {
	return p.remote >= FirewallRandom && p.nat.firewall >= FirewallRandom || p.nat.firewall == FirewallUnknown
}

// reopen takes other sockets until one has a NAT that makes sense.
func (p *puncher) reopen() {
	for range maxReopens {
		p.mu.Lock()
		enough := !p.unstableLocked() || p.ended || p.connected || p.punching
		p.mu.Unlock()
		if enough {
			break
		}
		s, err := p.d.pool.acquire(p.onByte)
		if err != nil {
			break
		}
		p.mu.Lock()
		if p.ended {
			p.mu.Unlock()
			s.release()
			break
		}
		old := p.sockets[0]
		closeOnce(p.analyzed)
		p.beginLocked(s)
		analyzed := p.analyzed
		p.mu.Unlock()
		old.release()
		select {
		case <-analyzed:
		case <-p.ctx.Done():
		}
	}
	p.mu.Lock()
	p.stable = p.nat.firewall.consistent()
	p.mu.Unlock()
}

// onByte gets the packets that came through.
func (p *puncher) onByte(s *poolSocket, from netip.AddrPort) {
	if !p.initiator {
		// The initiator takes the path that it hears on first. There can't be more
		// bytes out than in.
		sendByte(s.Socket, from, false)
		return
	}
	p.mu.Lock()
	if p.connected || p.ended {
		p.mu.Unlock()
		return
	}
	p.connected, p.punching = true, false
	others := slices.DeleteFunc(p.sockets, func(o *poolSocket) bool { return o == s })
	p.sockets = []*poolSocket{s}
	p.stopLocked()
	p.mu.Unlock()
	for _, o := range others {
		o.release()
	}
	p.onConnect(s.Socket, from)
}

// punch begins to punch and reports whether there is a way to. It returns when
// that has begun, and not when it has worked. Calling it again does nothing.
func (p *puncher) punch() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started {
		return p.run.strategy != strategyNone
	}
	if p.ended || p.connected {
		return false
	}
	p.started = true
	p.run = newPunch(p.nat.firewall, p.remote, p.remoteAddrs, p.initiator)
	switch p.run.strategy {
	case strategyNone:
		return false
	case strategyConsistent:
		p.d.count(func(s *Stats) { s.PunchesConsistent++ })
	default:
		p.d.count(func(s *Stats) { s.PunchesRandom++ })
		p.random = true
		p.d.beginRandomPunch()
	}
	p.punching = true
	p.stepLocked()
	return true
}

// begun reports whether punch was called.
func (p *puncher) begun() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started
}

// stepLocked sends what is due and comes back later.
func (p *puncher) stepLocked() {
	probes, wait, done := p.run.step(p.d.random)
	for _, b := range probes {
		for b.socket >= len(p.sockets) {
			s, err := p.d.pool.acquire(p.onByte)
			if err != nil {
				break
			}
			p.sockets = append(p.sockets, s)
		}
		sendByte(p.sockets[min(b.socket, len(p.sockets)-1)].Socket, b.to, b.low)
	}
	p.timer = p.d.clock.AfterFunc(wait, func() {
		p.mu.Lock()
		if !p.punching || p.ended {
			p.mu.Unlock()
			return
		}
		if !done {
			p.stepLocked()
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		p.end()
	})
}

// stopLocked stops sending.
func (p *puncher) stopLocked() {
	if p.timer != nil {
		p.timer.Stop()
	}
	if p.random {
		p.random = false
		p.d.endRandomPunch()
	}
}

// end ends the puncher, and tells onAbort if it has not connected.
func (p *puncher) end() {
	if abort := p.quit(); abort && p.onAbort != nil {
		p.onAbort()
	}
}

// quit ends the puncher without a word. It reports whether it was under way.
func (p *puncher) quit() bool {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return false
	}
	p.ended, p.punching = true, false
	sockets := p.sockets
	p.sockets = nil
	p.stopLocked()
	closeOnce(p.analyzed)
	connected := p.connected
	p.mu.Unlock()
	p.cancel()
	for _, s := range sockets {
		s.release()
	}
	return !connected
}

// state tells how far it is, for messages.
func (p *puncher) state() (connected, punching, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connected, p.punching, p.ended
}
