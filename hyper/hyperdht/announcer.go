package hyperdht

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/noise"
)

const (
	// relayPing is how often the relays of a server are pinged, which keeps the
	// NAT open for what they pass on. The reference does that every 3 seconds, which
	// is most of what an idle server sends.
	relayPing = 5 * time.Second
	// announceTicks is after how many of these the server announces itself again.
	announceTicks = 60
	// minRelays is how many relays have to answer; with fewer, new ones are
	// looked for.
	minRelays = 3
	// backTime is how long there is for taking an announcement back.
	backTime = 5 * time.Second
)

// An announcer keeps the nodes closest to a server's target knowing of it, and
// those among them that relay for it (lib/announcer.js). Between announcements
// it has a timer and no goroutine.
type announcer struct {
	d      *DHT
	key    noise.Key
	target [32]byte
	sign   Signer
	ctx    context.Context // that of the server

	mu        sync.Mutex
	relays    []relayInfo
	addrs     []netip.AddrPort
	at        [3]map[netip.AddrPort]bool // the nodes of the last announcements, oldest first
	closest   []netip.AddrPort           // where to begin the next
	ticks     int
	timer     clock.Timer
	stopFind  func()        // ends the search of the update under way
	updating  chan struct{} // closed at the end of the update under way; nil is none
	again     bool          // announce again after it
	stopped   bool
	suspended bool
}

func newAnnouncer(d *DHT, ctx context.Context, keys noise.KeyPair, target [32]byte, sign Signer) *announcer {
	a := &announcer{d: d, key: keys.Public, target: target, sign: sign, ctx: ctx}
	if a.sign == nil {
		a.sign = signWith(keys)
	}
	for i := range a.at {
		a.at[i] = map[netip.AddrPort]bool{}
	}
	return a
}

// signWith signs with a key pair that is here.
func signWith(keys noise.KeyPair) Signer {
	return func(_ context.Context, s Signing) ([64]byte, error) {
		if !keys.CanProve() {
			return [64]byte{}, fmt.Errorf("sign announcement: there is no secret key of %s", keys.Public)
		}
		return [64]byte(keys.Sign(s.Bytes())), nil
	}
}

// Bytes are what the signature is over.
func (s Signing) Bytes() []byte {
	ns := nsAnnounce
	if s.Unannounce {
		ns = nsUnannounce
	}
	return announceSignable(ns, s.Target, s.Token, s.NodeID, peerRecord{s.Peer, s.RelayAddresses}, nil)
}

// start announces and waits for that.
func (a *announcer) start(ctx context.Context) error {
	done := a.update()
	select {
	case <-done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if a.ctx.Err() != nil {
		return ErrClosed
	}
	return nil
}

// current returns the relays, and the addresses where the server is found.
func (a *announcer) current() ([]relayInfo, []netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.relays), slices.Clone(a.addrs)
}

// isRelay reports whether the server was announced at a node lately.
func (a *announcer) isRelay(addr netip.AddrPort) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at[0][addr] || a.at[1][addr] || a.at[2][addr]
}

// refresh announces again, now.
func (a *announcer) refresh() {
	a.mu.Lock()
	idle := !a.stopped && !a.suspended
	a.mu.Unlock()
	if idle {
		a.update()
	}
}

// stop ends the announcer and takes the announcement back.
func (a *announcer) stop(ctx context.Context) {
	a.halt(ctx, func() { a.stopped = true })
}

// suspend takes the announcement back until resume.
func (a *announcer) suspend(ctx context.Context) {
	a.halt(ctx, func() { a.suspended = true })
}

func (a *announcer) halt(ctx context.Context, set func()) {
	a.mu.Lock()
	was := a.stopped || a.suspended
	set()
	if a.timer != nil {
		a.timer.Stop()
	}
	updating := a.updating
	if a.stopFind != nil {
		a.stopFind() // nothing was announced by that yet
	}
	a.mu.Unlock()
	if updating != nil {
		<-updating
	}
	if was {
		return
	}
	a.mu.Lock()
	at := slices.Collect(maps.Keys(a.at[2]))
	a.mu.Unlock()
	ctx, stop := a.d.within(ctx, backTime)
	defer stop()
	a.unannounce(ctx, at)
}

// resume announces again and waits for that.
func (a *announcer) resume(ctx context.Context) error {
	a.mu.Lock()
	a.suspended = false
	stopped := a.stopped
	a.mu.Unlock()
	if stopped {
		return nil
	}
	return a.start(ctx)
}

// update announces in the background, again if that is under way. The channel
// is closed when it is done.
func (a *announcer) update() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.updating != nil {
		a.again = true
		return a.updating
	}
	done := make(chan struct{})
	a.updating = done
	if a.timer != nil {
		a.timer.Stop()
	}
	ok := a.d.spawn(func() {
		for {
			a.announce(a.ctx)
			a.mu.Lock()
			if again := a.again; !again || a.haltedLocked() {
				break
			}
			a.again = false
			a.mu.Unlock()
		}
		a.updating, a.ticks, a.again = nil, 0, false
		a.armLocked()
		a.mu.Unlock()
		close(done)
	})
	if !ok {
		a.updating = nil
		close(done)
	}
	return done
}

func (a *announcer) haltedLocked() bool { return a.stopped || a.suspended || a.ctx.Err() != nil }

func (a *announcer) halted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.haltedLocked()
}

// armLocked sets the timer for the next look at the relays. Offline there is
// none: the DHT calls online.
func (a *announcer) armLocked() {
	if !a.haltedLocked() && a.d.node.Online() {
		a.timer = a.d.clock.AfterFunc(relayPing, a.tick)
	}
}

// online is called when the network is back.
func (a *announcer) online() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.updating == nil {
		if a.timer != nil {
			a.timer.Stop()
		}
		a.armLocked()
	}
}

// tick pings the relays and announces again if it is time, if too few answer, or
// if they see another address than before.
func (a *announcer) tick() {
	a.mu.Lock()
	if a.haltedLocked() || a.updating != nil {
		a.mu.Unlock()
		return
	}
	a.ticks++
	old := a.ticks >= announceTicks
	relays := slices.Collect(maps.Keys(a.at[2]))
	seen := map[netip.AddrPort]netip.AddrPort{} // what they saw as our address
	for _, r := range a.relays {
		seen[r.relay] = r.peer
	}
	a.mu.Unlock()
	if old || len(relays) == 0 {
		a.update()
		return
	}
	var mu sync.Mutex
	left, alive, moved := len(relays), 0, false
	for _, addr := range relays {
		a.d.node.Start(addr, dhtrpc.Call{Internal: true, Command: dhtrpc.CommandPing}, dhtrpc.CallOptions{}, func(r dhtrpc.Reply, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				alive++
				// What it relays would go to where nobody is.
				moved = moved || r.To != seen[addr]
			}
			if left--; left > 0 || a.halted() {
				return
			}
			if moved || alive < min(len(relays), minRelays) {
				a.update()
				return
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.updating == nil {
				a.armLocked()
			}
		})
	}
}

// announce finds the closest nodes and announces to the best of them, and takes
// it back from those that are not any more.
func (a *announcer) announce(ctx context.Context) {
	a.mu.Lock()
	a.at[0], a.at[1], a.at[2] = a.at[1], a.at[2], map[netip.AddrPort]bool{}
	closest := a.closest
	a.mu.Unlock()
	find, stop := context.WithCancel(ctx)
	defer stop()
	a.mu.Lock()
	a.stopFind = stop
	a.mu.Unlock()
	if a.halted() {
		return
	}
	q := a.d.node.Query(find, a.target, dhtrpc.QueryOptions{Call: dhtrpc.Call{Command: cmdFindPeer}, Nodes: closest})
	q.Wait() // what has answered counts
	if a.halted() {
		return
	}
	replies := q.Closest()
	var relays []relayInfo
	var addrs []netip.AddrPort
	if own, ok := a.d.node.RemoteAddr(); ok {
		addrs = append(addrs, own)
	}
	var mu sync.Mutex
	var commits sync.WaitGroup
	for _, r := range replies[:min(len(replies), minRelays)] {
		commits.Go(func() {
			if err := a.d.leave(ctx, a.target, r, peerRecord{key: a.key}, 0, false, a.sign); err != nil {
				return // the others are enough
			}
			mu.Lock()
			defer mu.Unlock()
			relays = append(relays, relayInfo{r.From.Addr, r.To})
			if len(addrs) < maxRecordRelays {
				addrs = append(addrs, r.From.Addr)
			}
			a.mu.Lock()
			a.at[2][r.From.Addr] = true
			a.mu.Unlock()
		})
	}
	commits.Wait()
	a.mu.Lock()
	a.relays, a.addrs = relays, addrs
	if len(replies) > 0 {
		a.closest = nil
	}
	for _, r := range replies {
		a.closest = append(a.closest, r.From.Addr)
	}
	var removed []netip.AddrPort
	for addr := range a.at[1] {
		if !a.at[2][addr] {
			removed = append(removed, addr)
		}
	}
	a.mu.Unlock()
	if !a.halted() {
		a.unannounce(ctx, removed)
	}
}

// unannounce takes the announcement back from nodes.
func (a *announcer) unannounce(ctx context.Context, nodes []netip.AddrPort) {
	var all sync.WaitGroup
	target := dhtrpc.ID(a.target)
	for _, addr := range nodes {
		all.Go(func() {
			r, err := a.d.node.Do(ctx, addr, dhtrpc.Call{Command: cmdFindPeer, Target: &target}, dhtrpc.CallOptions{})
			if err == nil && r.Value != nil {
				a.d.leave(ctx, a.target, r, peerRecord{key: a.key}, 0, true, a.sign) // it forgets by itself, too
			}
		})
	}
	all.Wait()
}

// leave announces a peer to the node of a reply, or takes that back.
func (d *DHT) leave(ctx context.Context, target [32]byte, r dhtrpc.Reply, peer peerRecord, bump uint64, back bool, sign Signer) error {
	if r.Token == nil || !r.From.HasID {
		return fmt.Errorf("announce to %v: it gave no token", r.From.Addr)
	}
	signature, err := sign(ctx, Signing{back, target, *r.Token, r.From.ID, peer.key, peer.relays})
	if err != nil {
		return fmt.Errorf("announce to %v: %w", r.From.Addr, err)
	}
	command := uint64(cmdAnnounce)
	if back {
		command = cmdUnannounce
	}
	id := dhtrpc.ID(target)
	reply, err := d.node.Do(ctx, r.From.Addr, dhtrpc.Call{
		Command: command, Target: &id, Token: r.Token,
		Value: announceMsg{peer: &peer, signature: &signature, bump: bump}.append(nil),
	}, dhtrpc.CallOptions{})
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	if reply.Code != 0 {
		return fmt.Errorf("announce to %v: it answered with error %d", r.From.Addr, reply.Code)
	}
	return nil
}
