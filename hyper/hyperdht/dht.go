package hyperdht

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/udx"
)

const (
	// randomPunchLimit is how many punches with random ports there are at a time.
	randomPunchLimit = 1
	// relayCacheSize is for how many peers it is remembered through which nodes
	// they were found.
	relayCacheSize = 512
)

// A DHT is one node of the network: it finds peers, connects to them and is
// found by them. Its methods may be called by any goroutine.
//
// Locks are taken in this order, within the package: closing of the DHT; wiring
// of a link; those of an announcer, of local, of an attempt, an inbound or a
// puncher; that of a link; that of the pool, of the DHT or of the records. What
// is given by users is called with none of them held but wiring.
type DHT struct {
	o          Options
	keys       noise.KeyPair
	bind       netip.Addr
	clock      clock.Clock
	random     *random
	udx        *udx.UDX
	node       *dhtrpc.Node
	started    atomic.Bool                    // node is there
	mapped     atomic.Pointer[netip.AddrPort] // where the server socket is reached through the router
	pool       *pool
	records    *records
	local      local
	keepAlive  time.Duration
	relayDelay time.Duration
	ctx        context.Context // ends with the DHT
	cancel     context.CancelFunc
	tasks      sync.WaitGroup
	closing    sync.Mutex // held by Close, Suspend and Resume

	mu            sync.Mutex
	closed        bool
	suspended     bool
	links         map[*link]bool
	servers       map[[32]byte]*Server
	stats         Stats
	meter         meter
	found         *cache[[]netip.AddrPort] // through which nodes peers were found, by their keys
	randomPunches int
	lastRandom    time.Time
	sweeping      clock.Timer
}

// Stats count what a DHT has done.
type Stats struct {
	// PunchesConsistent, PunchesRandom and PunchesOpen count attempts by what was
	// tried. TryLater counts those that a server put off because it had another
	// with random ports under way.
	PunchesConsistent, PunchesRandom, PunchesOpen, TryLater int
	// RelayAttempts, RelaySuccesses and RelayAborts count relays asked.
	RelayAttempts, RelaySuccesses, RelayAborts int
	// SocketsAdded and SocketsRemoved count sockets for punching.
	SocketsAdded, SocketsRemoved int
	// Records, Values and Forwards are how many this node keeps for others:
	// announcements, mutable and immutable values, and peers that it relays for.
	Records, Values, Forwards int
}

// Open begins a DHT. It binds its sockets and goes on joining in the
// background; see [DHT.Bootstrapped].
func Open(o Options) (*DHT, error) {
	d := &DHT{
		o: o, keys: o.KeyPair, bind: o.Bind, clock: o.Clock, random: &random{r: rand.Reader},
		keepAlive: o.ConnectionKeepAlive, relayDelay: o.RelayDelay,
		links: map[*link]bool{}, servers: map[[32]byte]*Server{},
		found: newCache(bounds{count: relayCacheSize, bytes: 1 << 20}, func(l []netip.AddrPort) int { return 32 * len(l) }),
	}
	if d.clock == nil {
		d.clock = clock.System
	}
	if o.Random != nil {
		d.random.r = o.Random
	}
	if !d.bind.IsValid() {
		d.bind = netip.IPv4Unspecified()
	}
	d.keepAlive = cmp.Or(d.keepAlive, DefaultConnectionKeepAlive)
	d.relayDelay = cmp.Or(d.relayDelay, DefaultRelayDelay)
	if d.o.RandomPunchInterval == 0 {
		d.o.RandomPunchInterval = DefaultRandomPunchInterval
	}
	if o.DeferRandomPunch {
		d.lastRandom = d.clock.Now()
	}
	if d.keys.Public == (noise.Key{}) {
		var err error
		if d.keys, err = noise.GenerateKeyPair(d.random); err != nil {
			return nil, fmt.Errorf("open dht: %w", err)
		}
	}
	d.records = newRecords(cmp.Or(o.MaxRecords, DefaultMaxRecords), cmp.Or(o.MaxBytes, DefaultMaxBytes), o.MaxAge, d.random)
	d.udx = udx.New(udx.Options{Network: o.Network, Clock: d.clock, Random: d.random})
	d.pool = newPool(d)
	d.ctx, d.cancel = context.WithCancel(context.Background())
	if err := d.openNode(); err != nil {
		d.cancel()
		return nil, fmt.Errorf("open dht: %w", err)
	}
	d.local.open(d)
	d.sweepLater()
	if o.MapPort != nil {
		d.tasks.Go(d.mapPort)
	}
	return d, nil
}

func (d *DHT) openNode() (err error) {
	o := d.o
	n := dhtrpc.Options{
		UDX: d.udx, Clock: d.clock, Random: d.random, Bind: d.bind, Port: DefaultPort, FixedPort: o.FixedPort,
		Bootstrap: o.Bootstrap, Nodes: o.Nodes, Resolve: o.Resolve, Open: o.Open, Public: o.Public,
		Filter: isWelcome, Handle: d.handle, Notify: d.notify,
	}
	switch {
	case o.Port > 0:
		n.Port = uint16(o.Port)
	case o.Port < 0:
		n.Port = 0
	}
	if o.Bootstrap == nil {
		n.Bootstrap = PublicBootstrap
	}
	switch {
	case o.Client:
		n.Ephemeral = dhtrpc.Always
	case o.Node:
		n.Ephemeral = dhtrpc.Never
	}
	if d.node, err = dhtrpc.Open(n); err != nil {
		return err
	}
	d.started.Store(true)
	return nil
}

// isWelcome leaves out nodes of a test network that got mixed in with the
// public one by accident (index.js, filterNode).
func isWelcome(a netip.AddrPort) bool {
	switch a.Addr().String() {
	case "134.209.28.98", "167.99.142.185":
		return a.Port() != 49738
	case "35.233.47.252":
		return a.Port() != 9400
	case "150.136.142.116":
		return false
	}
	return true
}

// Bootstrapped waits until the DHT has joined the network, or found nobody.
func (d *DHT) Bootstrapped(ctx context.Context) error { return d.node.Bootstrapped(ctx) }

// KeyPair returns what connections use that don't bring their own.
func (d *DHT) KeyPair() noise.KeyPair { return d.keys }

// Node returns the node of the network that the DHT is.
func (d *DHT) Node() *dhtrpc.Node { return d.node }

// listensAt reports whether a server of this DHT is found there.
func (d *DHT) listensAt(target [32]byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.servers[target] != nil
}

// UDX returns what the streams of the DHT are made by.
func (d *DHT) UDX() *udx.UDX { return d.udx }

// Close ends all servers and connections and leaves the network. Connections
// that were closed before have a second for what was written to them.
func (d *DHT) Close() error {
	d.closing.Lock()
	defer d.closing.Unlock()
	d.mu.Lock()
	closed, servers := d.closed, d.serversLocked()
	d.mu.Unlock()
	if closed {
		return nil
	}
	each(servers, func(s *Server) { s.Close() })
	d.mu.Lock()
	d.closed = true
	if d.sweeping != nil {
		d.sweeping.Stop()
	}
	d.mu.Unlock()
	d.lastWords()
	d.cancel()
	d.endLinks()
	err := d.node.Close()
	d.tasks.Wait()
	d.endLinks()
	d.pool.close()
	d.local.close()
	return err
}

// Suspend takes the DHT off the network, for a machine that goes to sleep:
// servers are taken back, connections end, sockets close. The end of ctx cuts
// short what is told to others.
func (d *DHT) Suspend(ctx context.Context) error {
	d.closing.Lock()
	defer d.closing.Unlock()
	d.mu.Lock()
	if d.closed || d.suspended {
		d.mu.Unlock()
		return nil
	}
	d.suspended = true // no connection begins any more
	servers := d.serversLocked()
	d.mu.Unlock()
	each(servers, func(s *Server) { s.suspend(ctx) })
	d.endLinks()
	d.pool.close()
	d.local.close()
	if err := d.node.Suspend(); err != nil {
		return fmt.Errorf("suspend dht: %w", err)
	}
	return nil
}

// Resume puts a DHT back that was suspended, with its servers. It returns when
// these are announced again, or at the end of ctx.
func (d *DHT) Resume(ctx context.Context) error {
	d.closing.Lock()
	defer d.closing.Unlock()
	d.mu.Lock()
	if d.closed || !d.suspended {
		d.mu.Unlock()
		return nil
	}
	if d.o.DeferRandomPunch {
		d.lastRandom = d.clock.Now()
	}
	servers := d.serversLocked()
	d.mu.Unlock()
	if err := d.node.Resume(); err != nil {
		return fmt.Errorf("resume dht: %w", err)
	}
	d.pool.reopen()
	d.local.open(d)
	d.mu.Lock()
	d.suspended = false
	d.mu.Unlock()
	each(servers, func(s *Server) { s.resume(ctx) })
	return nil
}

// each calls f for all at once, and waits.
func each[T any](l []T, f func(T)) {
	var all sync.WaitGroup
	for _, v := range l {
		all.Go(func() { f(v) })
	}
	all.Wait()
}

// Stats returns what the DHT has done.
func (d *DHT) Stats() Stats {
	d.mu.Lock()
	s := d.stats
	d.mu.Unlock()
	s.SocketsAdded, s.SocketsRemoved = d.pool.stats()
	s.Records, s.Values, s.Forwards = d.records.counts()
	return s
}

func (d *DHT) count(f func(*Stats)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.stats)
}

// spawn runs f in a goroutine that Close waits for. It reports whether it does.
func (d *DHT) spawn(f func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.tasks.Go(f)
	return true
}

func (d *DHT) addLink(l *link) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return ErrClosed
	case d.suspended:
		return ErrSuspended
	}
	d.links[l] = true
	return nil
}

func (d *DHT) removeLink(l *link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.links, l)
}

// lastWordsTime is how long Close waits for connections that were closed before.
const lastWordsTime = time.Second

// lastWords lets what was written to connections that were closed arrive.
func (d *DHT) lastWords() {
	var leaving []*udx.Stream
	d.mu.Lock()
	for l := range d.links {
		if l.raw.Closed() {
			leaving = append(leaving, l.raw)
		}
	}
	d.mu.Unlock()
	if len(leaving) == 0 {
		return
	}
	late := make(chan struct{})
	timer := d.clock.AfterFunc(lastWordsTime, func() { close(late) })
	defer timer.Stop()
	for _, s := range leaving {
		select {
		case <-s.Done():
		case <-late:
			return
		}
	}
}

// endLinks ends all connections, and what is on its way to become one.
func (d *DHT) endLinks() {
	d.mu.Lock()
	all := make([]*link, 0, len(d.links))
	for l := range d.links {
		all = append(all, l)
	}
	d.mu.Unlock()
	for _, l := range all {
		l.fail()
	}
}

func (d *DHT) addServer(s *Server) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return ErrClosed
	case d.suspended:
		return ErrSuspended
	case d.servers[s.target] != nil:
		return ErrKeyInUse
	}
	d.servers[s.target] = s
	return nil
}

func (d *DHT) removeServer(s *Server) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.servers[s.target] != s {
		return false
	}
	delete(d.servers, s.target)
	return true
}

func (d *DHT) server(target [32]byte) *Server {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.servers[target]
}

func (d *DHT) serversLocked() (all []*Server) {
	for _, s := range d.servers {
		all = append(all, s)
	}
	return all
}

// notify gets what happens to the node. It doesn't block.
func (d *DHT) notify(e dhtrpc.Event) {
	if d.started.Load() {
		d.tellServers(e)
	}
	if d.o.Notify != nil {
		d.o.Notify(e)
	}
}

// tellServers has servers do what is to be done when something has happened.
func (d *DHT) tellServers(e dhtrpc.Event) {
	d.mu.Lock()
	servers := d.serversLocked()
	d.mu.Unlock()
	switch e {
	case dhtrpc.InterfacesChanged:
		d.local.changed(d)
		for _, s := range servers {
			s.ann.refresh()
		}
	case dhtrpc.HealthChanged:
		if d.node.Online() {
			for _, s := range servers {
				s.ann.online()
			}
		}
	}
}

// handle gets the requests of others. It doesn't block.
func (d *DHT) handle(r *dhtrpc.Request) bool {
	if !d.started.Load() {
		return true // too early
	}
	switch r.Command {
	case cmdPeerHandshake:
		d.onHandshake(r)
		return true
	case cmdPeerHolepunch:
		d.onHolepunch(r)
		return true
	}
	id, ok := d.node.ID()
	if !ok || r.Command > cmdPlugin {
		return false
	}
	if r.Command == cmdPlugin {
		d.onPlugin(r)
		return true
	}
	a := d.answer(r, id)
	o := dhtrpc.ReplyOptions{NoToken: a.plain, NoCloser: a.plain}
	switch {
	case !a.ok:
	case a.code != 0:
		o.NoToken = true
		r.Error(uint64(a.code), o)
	default:
		r.Reply(a.value, o)
	}
	return true
}

// answer asks the records.
func (d *DHT) answer(r *dhtrpc.Request, id dhtrpc.ID) answer {
	if r.Target == nil {
		return answer{}
	}
	now, target := d.clock.Now(), [32]byte(*r.Target)
	var own []byte
	if s := d.server(target); s != nil {
		own = s.record()
	}
	switch r.Command {
	case cmdFindPeer:
		return d.records.findPeer(now, target, own)
	case cmdLookup:
		return d.records.lookup(now, target, own)
	case cmdMutableGet:
		return d.records.mutableGet(now, target, r.Value)
	case cmdImmutableGet:
		return d.records.immutableGet(now, target)
	}
	if r.Token == nil {
		return answer{} // others write with a proven address only
	}
	switch r.Command {
	case cmdAnnounce:
		return d.records.announce(now, target, *r.Token, id, r.From.Addr, r.Value)
	case cmdUnannounce:
		return d.records.unannounce(target, *r.Token, id, r.Value)
	case cmdMutablePut:
		return d.records.mutablePut(now, target, r.From.Addr, r.Value)
	}
	return d.records.immutablePut(now, target, r.From.Addr, r.Value)
}

// onHandshake passes a handshake on, or gives it to its server.
func (d *DHT) onHandshake(r *dhtrpc.Request) {
	m, err := readHandshake(r.Value)
	if err != nil {
		return
	}
	relay := none
	if r.Target != nil {
		if s := d.server(*r.Target); s != nil {
			if m.noise != nil && (m.mode == fromClient || m.mode == fromRelay || m.mode == fromSecondRelay) {
				s.onHandshake(m, r)
			}
			return
		}
		relay = d.relayFor(*r.Target)
	}
	if d.mayRelay(r) {
		send(r, handshakeHop(m, r.From.Addr, relay), nil)
	}
}

// onHolepunch passes a message of hole punching on, or gives it to its server.
func (d *DHT) onHolepunch(r *dhtrpc.Request) {
	m, err := readHolepunch(r.Value)
	if err != nil {
		return
	}
	relay := none
	if r.Target != nil {
		if s := d.server(*r.Target); s != nil && m.mode == fromRelay {
			s.onHolepunch(m, r)
			return
		}
		relay = d.relayFor(*r.Target)
	}
	if d.mayRelay(r) {
		send(r, holepunchHop(m, r.From.Addr, relay), nil)
	}
}

// relayFor returns where the peer of a target is that has announced itself here.
func (d *DHT) relayFor(target [32]byte) netip.AddrPort {
	f, _ := d.records.forward(d.clock.Now(), target)
	return f.relay
}

func (d *DHT) mayRelay(r *dhtrpc.Request) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meter.take(d.clock.Now(), r.From.Addr.Addr())
}

// sweepLater drops what is too old now and then, for as long as there is
// something.
func (d *DHT) sweepLater() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.sweeping = d.clock.AfterFunc(cmp.Or(d.o.MaxAge, DefaultMaxAge)*2/3, func() {
		d.records.sweep(d.clock.Now())
		d.sweepLater()
	})
}

// rememberRelays keeps through which nodes a peer was found.
func (d *DHT) rememberRelays(key noise.Key, l []netip.AddrPort) {
	if len(l) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.found.set(d.clock.Now(), key, append([]netip.AddrPort(nil), l[:min(len(l), 8)]...), netip.Addr{})
}

func (d *DHT) relayAddrs(key noise.Key) []netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, _ := d.found.get(d.clock.Now(), key)
	return l
}

// relays returns the blind relays to use where nothing else is said.
func (d *DHT) relays() []noise.Key {
	if d.o.RelayThrough == nil {
		return nil
	}
	return d.o.RelayThrough()
}

// chooseRelay chooses one of the relays that is none of the peers.
func (d *DHT) chooseRelay(l []noise.Key, peers ...noise.Key) (noise.Key, bool) {
	l = slices.DeleteFunc(slices.Clone(l), func(k noise.Key) bool { return slices.Contains(peers, k) })
	if len(l) == 0 {
		return noise.Key{}, false
	}
	return l[d.random.below(len(l))], true
}

// token returns 32 random bytes.
func (d *DHT) token() (t [32]byte) {
	io.ReadFull(d.random, t[:]) // a source that fails has failed before
	return t
}

// mayPunchRandom reports whether a punch with random ports may begin.
func (d *DHT) mayPunchRandom() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mayPunchRandomLocked()
}

func (d *DHT) mayPunchRandomLocked() bool {
	return d.randomPunches < randomPunchLimit && (d.lastRandom.IsZero() || d.clock.Now().Sub(d.lastRandom) >= d.o.RandomPunchInterval)
}

// takeRandomPunch takes the place of a punch with random ports, if it is free.
func (d *DHT) takeRandomPunch() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	ok := d.mayPunchRandomLocked()
	if ok {
		d.randomPunches++
	}
	return ok
}

// giveRandomPunch gives a place back that was not used.
func (d *DHT) giveRandomPunch() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.randomPunches--
}

// beginRandomPunch takes the place in any case.
func (d *DHT) beginRandomPunch() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.randomPunches++
}

// endRandomPunch gives the place back, which is free after some time.
func (d *DHT) endRandomPunch() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.randomPunches--
	d.lastRandom = d.clock.Now()
}

// sleep waits, or returns why ctx has ended.
func (d *DHT) sleep(ctx context.Context, t time.Duration) error {
	done := make(chan struct{})
	timer := d.clock.AfterFunc(t, func() { close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		timer.Stop()
		return context.Cause(ctx)
	}
}

// startPing pings a node. Done is called unless ctx ends before.
func (d *DHT) startPing(ctx context.Context, addr netip.AddrPort, o dhtrpc.CallOptions, done func(dhtrpc.Reply, error)) {
	d.start(ctx, addr, dhtrpc.Call{Internal: true, Command: dhtrpc.CommandPing}, o, done)
}

// start asks a node. Done is called, in a goroutine, unless ctx ends before.
func (d *DHT) start(ctx context.Context, addr netip.AddrPort, call dhtrpc.Call, o dhtrpc.CallOptions, done func(dhtrpc.Reply, error)) {
	var mu sync.Mutex
	var stop func() bool
	mu.Lock()
	defer mu.Unlock()
	cancel := d.node.Start(addr, call, o, func(r dhtrpc.Reply, err error) {
		d.spawn(func() {
			mu.Lock()
			stop()
			mu.Unlock()
			done(r, err)
		})
	})
	stop = context.AfterFunc(ctx, cancel)
}
