package dhtrpc

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// Options say what a node is. All but UDX may be left out.
//
// The functions are called one after another, never two at a time for a node.
// They may call anything of this package that doesn't wait for others; what
// they keep waiting is the node.
type Options struct {
	// UDX opens the sockets.
	UDX *udx.UDX
	// Clock and Random are the machine's if they are nil.
	Clock  clock.Clock
	Random io.Reader

	// Bind is the address of the sockets, all of IPv4 if it is not valid. Port is
	// the server's; if it is taken one of the next four, and then any, unless
	// FixedPort is set. Zero is any.
	Bind      netip.Addr
	Port      uint16
	FixedPort bool

	// Bootstrap are nodes by which the network is entered: "192.0.2.1:49737",
	// "node.example:49737", or "192.0.2.1@node.example:49737", where the name is
	// looked up if the address does not answer. Nodes are some that were known
	// before, the best first.
	Bootstrap []string
	Nodes     []netip.AddrPort
	// Resolve finds the addresses of a name; as this machine does if it is nil.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)

	// Ephemeral says whether the node takes part in the tables of others.
	Ephemeral Ephemeral
	// Open says that others reach the node uninvited. Without it the node finds
	// out by itself.
	Open bool
	// Public is the address that others know the node by, if there is nobody who
	// could tell it. It makes a bootstrap node; see [Bootstrapper]. Port zero
	// stands for the one that the node is bound to.
	Public netip.AddrPort

	// Concurrency is how many nodes a query asks at a time: 10 if it is zero.
	// MaxWindow bounds the requests that are sent within 0.75 s and not answered,
	// to 80 if it is zero. More wait.
	Concurrency, MaxWindow int
	// NoQuickProbe and NoDownHints turn off what they say: to ask the first node
	// that answers whether this one is reachable, and to tell nodes of others that
	// are down.
	NoQuickProbe, NoDownHints bool

	// Filter refuses nodes by their address. It must not call the node.
	Filter func(netip.AddrPort) bool
	// Handle gets requests of other nodes that are not internal, and reports
	// whether it knows their command. It may answer later, or never.
	Handle func(*Request) bool
	// Notify tells what happens to the node.
	Notify func(Event)
	// Added gets nodes that came into the table.
	Added func(netip.AddrPort)
}

// Bootstrapper returns the options of a node by which others enter a network of
// their own: its address is known, and others reach it. With port 0 it takes any
// that is free.
func Bootstrapper(public netip.AddrPort) Options {
	return Options{Port: public.Port(), FixedPort: true, Ephemeral: Never, Open: true, Public: public}
}

// A Node is one of the network. Its methods may be called by any goroutine.
type Node struct {
	options     Options
	udx         *udx.UDX
	clock       clock.Clock
	ready       chan struct{}
	stopLookups context.CancelFunc
	once        sync.Once
	lookups     sync.WaitGroup
	boundServer uint16 // the ports of before, while suspended
	boundClient uint16

	mu             sync.Mutex
	m              *machine
	client, server *udx.Socket // nil while suspended
	interfaces     []netip.Addr
	timer          clock.Timer
	timerAt        time.Time
	calls          []func()
	calling        bool
}

// Open starts a node. It goes on by itself until Close.
func Open(o Options) (*Node, error) {
	o.Random = cmp.Or[io.Reader](o.Random, rand.Reader)
	if o.Resolve == nil {
		o.Resolve = packet.Lookup
	}
	n := &Node{options: o, udx: o.UDX, clock: cmp.Or(o.Clock, clock.System), ready: make(chan struct{})}
	lookups, stop := context.WithCancel(context.Background())
	n.stopLookups = stop
	c := config{
		nodes: o.Nodes, public: o.Public, ephemeral: o.Ephemeral, open: o.Open, noProbe: o.NoQuickProbe, noHints: o.NoDownHints,
		concurrency: o.Concurrency, window: o.MaxWindow, filter: o.Filter, added: o.Added,
		notify: n.notify, ticked: n.checkInterfaces,
		enter:  func(f func()) { n.do(func(*machine) { f() }) },
		lookup: func(name string, done func([]netip.Addr)) { n.lookup(lookups, name, done) },
	}
	if o.Handle != nil {
		c.handle = n.handle
	}
	for _, s := range o.Bootstrap {
		seed, err := parseSeed(s)
		if err != nil {
			return nil, err
		}
		c.seeds = append(c.seeds, seed)
	}
	var err error
	if n.m, err = newMachine(c, o.Random, n.clock.Now()); err != nil {
		return nil, fmt.Errorf("open dht node: %w", err)
	}
	n.interfaces, _ = n.udx.LocalAddrs()
	if err := n.bind(); err != nil {
		return nil, fmt.Errorf("open dht node: %w", err)
	}
	return n, nil
}

// bind opens the sockets and lets the machine go on.
func (n *Node) bind() error {
	bind := n.options.Bind
	if !bind.IsValid() {
		bind = netip.IPv4Unspecified()
	}
	o := udx.SocketOptions{Receive: n.Receive}
	server, err := n.listen(bind, o)
	if err != nil {
		return err
	}
	client, err := n.udx.Listen(netip.AddrPortFrom(bind, n.boundClient), o)
	if err != nil && n.boundClient != 0 {
		client, err = n.udx.Listen(netip.AddrPortFrom(bind, 0), o)
	}
	if err != nil {
		return errors.Join(err, server.Close())
	}
	n.do(func(m *machine) {
		n.client, n.server = client, server
		n.boundClient, n.boundServer = client.LocalAddr().Port(), server.LocalAddr().Port()
		if m.public.IsValid() && m.public.Port() == 0 {
			m.public = netip.AddrPortFrom(m.public.Addr(), n.boundServer)
			m.nat.Add(m.public)
		}
		m.bind(m.now, client, server, n.boundServer)
	})
	return nil
}

// listen opens the server socket at one of the ports that are wanted.
func (n *Node) listen(bind netip.Addr, o udx.SocketOptions) (s *udx.Socket, err error) {
	var ports []uint16
	if n.boundServer != 0 {
		ports = append(ports, n.boundServer)
	}
	if n.options.Port != 0 {
		for i := range uint16(5) {
			if i == 0 || !n.options.FixedPort && n.options.Port+i != 0 {
				ports = append(ports, n.options.Port+i)
			}
		}
	}
	if !n.options.FixedPort || n.options.Port == 0 {
		ports = append(ports, 0)
	}
	for _, port := range ports {
		if s, err = n.udx.Listen(netip.AddrPortFrom(bind, port), o); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// do calls f with the machine at the present time, and does what follows.
func (n *Node) do(f func(m *machine)) {
	n.mu.Lock()
	n.m.now = n.clock.Now()
	f(n.m)
	n.settleLocked()
	out := n.m.out
	n.m.out = nil
	n.mu.Unlock()
	for _, p := range out {
		p.socket.SendTTL(p.to, p.data, p.ttl) // what can't be sent is lost, as on the way
	}
	n.makeCalls()
}

// settleLocked takes over the machine's timer and calls.
func (n *Node) settleLocked() {
	n.calls = append(n.calls, n.m.calls...)
	n.m.calls = nil
	at := n.m.deadline()
	// A timer that is too early is left while there are requests, as each has one:
	// the next is set when it is due. An idle node is not woken for nothing.
	idle := len(n.m.requests) == 0 && !at.Equal(n.timerAt)
	if n.timer != nil && (at.IsZero() || at.Before(n.timerAt) || idle) {
		n.timer.Stop()
		n.timer = nil
	}
	if n.timer == nil && !at.IsZero() {
		n.timerAt = at
		n.timer = n.clock.AfterFunc(at.Sub(n.m.now), n.due)
	}
}

func (n *Node) due() {
	n.do(func(m *machine) {
		n.timer = nil
		m.advance(m.now)
	})
}

// makeCalls makes the calls that are due, unless somebody is about it.
func (n *Node) makeCalls() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.calling {
		return
	}
	n.calling = true
	for len(n.calls) > 0 {
		f := n.calls[0]
		n.calls[0] = nil
		n.calls = n.calls[1:]
		n.mu.Unlock()
		f()
		n.mu.Lock()
	}
	n.calls = nil
	n.calling = false
}

func (n *Node) notify(e Event) {
	if e == Ready {
		n.once.Do(func() { close(n.ready) })
	}
	if n.options.Notify != nil {
		n.options.Notify(e)
	}
}

func (n *Node) lookup(ctx context.Context, name string, done func([]netip.Addr)) {
	n.lookups.Go(func() {
		addrs, err := n.options.Resolve(ctx, name)
		if err != nil {
			addrs = nil // the other bootstrap nodes are left
		}
		n.do(func(*machine) { done(addrs) })
	})
}

// checkInterfaces tells when the addresses of the machine changed.
func (n *Node) checkInterfaces() {
	addrs, err := n.udx.LocalAddrs()
	if err != nil || slices.Equal(addrs, n.interfaces) {
		return
	}
	n.interfaces = addrs
	n.notify(InterfacesChanged)
}

// Close ends the node and all that is under way, which fails with [ErrClosed].
func (n *Node) Close() error {
	n.stopLookups()
	var sockets []*udx.Socket
	n.do(func(m *machine) {
		sockets = n.takeSocketsLocked()
		m.close(m.now)
	})
	n.lookups.Wait()
	return closeAll(sockets)
}

// Suspend closes the sockets and ends what is under way, which fails with
// [ErrSuspended], as does what is begun until Resume.
func (n *Node) Suspend() error {
	var sockets []*udx.Socket
	n.do(func(m *machine) {
		if m.available() == nil {
			sockets = n.takeSocketsLocked()
			m.suspend(m.now)
		}
	})
	return closeAll(sockets)
}

// Resume opens the sockets again, at the same ports if they are free.
func (n *Node) Resume() error {
	n.mu.Lock()
	err := n.m.available()
	n.mu.Unlock()
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	if err := n.bind(); err != nil {
		return fmt.Errorf("resume dht node: %w", err)
	}
	return nil
}

func (n *Node) takeSocketsLocked() (s []*udx.Socket) {
	if n.client != nil {
		s = []*udx.Socket{n.client, n.server}
	}
	n.client, n.server = nil, nil
	return s
}

func closeAll(sockets []*udx.Socket) (err error) {
	for _, s := range sockets {
		err = errors.Join(err, s.Close())
	}
	return err
}

// Receive takes a packet that came by a socket that is not the node's own, such
// as one that was opened to get through a NAT. Packets of others are ignored.
// The data is not kept.
func (n *Node) Receive(s *udx.Socket, from netip.AddrPort, data []byte) {
	n.do(func(m *machine) { m.receive(m.now, s, from, data) })
}

// What the node knows.

func read[T any](n *Node, f func(m *machine) T) T {
	n.mu.Lock()
	defer n.mu.Unlock()
	return f(n.m)
}

// Bootstrapped waits until the node has found its place, as far as it can.
func (n *Node) Bootstrapped(ctx context.Context) error {
	select {
	case <-n.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("enter the dht: %w", context.Cause(ctx))
	}
}

// ID is the node's id, if it has one, which is if it takes part in the tables of
// others.
func (n *Node) ID() (id ID, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.m.table.id, !n.m.outside
}

// PublicAddr is the address that others see: zero port if they see different
// ones, and not valid if it isn't known.
func (n *Node) PublicAddr() netip.AddrPort {
	return read(n, func(m *machine) netip.AddrPort { return netip.AddrPortFrom(m.nat.Host(), m.nat.Port()) })
}

// RemoteAddr is the address at which others reach the server socket uninvited,
// if they do.
func (n *Node) RemoteAddr() (addr netip.AddrPort, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	addr = netip.AddrPortFrom(n.m.nat.Host(), n.m.nat.Port())
	return addr, n.server != nil && !n.m.firewalled && addr.Addr().IsValid() && addr.Port() == n.m.serverPort
}

// Firewalled reports whether others may not reach the node uninvited.
func (n *Node) Firewalled() bool { return read(n, func(m *machine) bool { return m.firewalled }) }

// Randomized reports whether others see different ports of the node.
func (n *Node) Randomized() bool {
	return read(n, func(m *machine) bool { return m.nat.Host().IsValid() && m.nat.Port() == 0 })
}

// Ephemeral reports whether the node is not in the tables of others.
func (n *Node) Ephemeral() bool { return read(n, func(m *machine) bool { return m.outside }) }

// Online reports whether anybody answers, as far as the node has asked.
func (n *Node) Online() bool { return read(n, func(m *machine) bool { return !m.health.offline }) }

// Degraded reports whether most requests are lost.
func (n *Node) Degraded() bool { return read(n, func(m *machine) bool { return m.health.degraded }) }

// Suspended reports whether the node is suspended.
func (n *Node) Suspended() bool { return read(n, func(m *machine) bool { return m.suspended }) }

// Socket is the one by which requests go out: the client's or the server's. It
// is nil while the node is suspended, as those are.
func (n *Node) Socket() *udx.Socket {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m.firewalled {
		return n.client
	}
	return n.server
}

// ClientSocket is the socket of a node that isn't sure to be reachable.
func (n *Node) ClientSocket() *udx.Socket {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.client
}

// ServerSocket is the socket that others may reach.
func (n *Node) ServerSocket() *udx.Socket {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server
}

// Nodes returns up to limit nodes of the table, those that were heard last
// first; all if limit is zero.
func (n *Node) Nodes(limit int) []Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Peer
	for p := n.m.nodes.latest; p != nil && (limit <= 0 || len(out) < limit); p = p.prev {
		out = append(out, Peer{p.addr, p.id, true})
	}
	return out
}

// Closest returns the nodes of the table that are closest to an id, the closest
// first.
func (n *Node) Closest(id ID) []Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Peer
	for _, p := range n.m.table.closest(id, K) {
		out = append(out, Peer{p.addr, p.id, true})
	}
	return out
}

// AddNode puts a node into the table that was known before, if there is room.
func (n *Node) AddNode(addr netip.AddrPort) {
	n.do(func(m *machine) {
		if reachable(addr) {
			m.insert(newNode(addr))
		}
	})
}

// Refresh looks around for nodes now.
func (n *Node) Refresh() {
	n.do(func(m *machine) {
		if m.available() == nil {
			m.refresh()
		}
	})
}

// Stats returns what the node did so far.
func (n *Node) Stats() Stats {
	return read(n, func(m *machine) Stats {
		s := m.stats
		s.ActiveQueries, s.ActiveRequests = len(m.queries), len(m.requests)
		return s
	})
}

// Requests of others.

// A Request is what another node asks. It may be answered once, or passed on.
type Request struct {
	From Peer
	// To is the address of ours that the other knows.
	To      netip.AddrPort
	Socket  *udx.Socket // by which it came
	Command uint64
	Target  *ID    // nil is none
	Value   []byte // nil is none; the caller's
	// Token, if it is not nil, proves that it came from where it says.
	Token *Token

	n  *Node
	in *incoming
}

// handle shows a request to the user.
func (n *Node) handle(in *incoming) {
	s, _ := in.socket.(*udx.Socket)
	r := &Request{From: in.from, To: in.to, Socket: s, Command: in.command, Target: in.target, Value: in.value, Token: in.token, n: n, in: in}
	if !n.options.Handle(r) {
		r.Error(CodeUnknownCommand, ReplyOptions{NoToken: true})
	}
}

// ReplyOptions say what goes with an answer.
type ReplyOptions struct {
	// To is another address than where the request came from; Socket is another
	// than by which it came.
	To     netip.AddrPort
	Socket *udx.Socket
	// NoToken and NoCloser leave out a token, and nodes that are closer to the
	// request's target.
	NoToken, NoCloser bool
}

// Reply answers with a value; nil is none. The value is not kept.
func (r *Request) Reply(value []byte, o ReplyOptions) { r.reply(0, value, o) }

// Error answers with an error of the command.
func (r *Request) Error(code uint64, o ReplyOptions) { r.reply(code, nil, o) }

func (r *Request) reply(code uint64, value []byte, o ReplyOptions) {
	a := answer{code: code, value: value, token: !o.NoToken, closer: !o.NoCloser, addr: o.To}
	if o.Socket != nil {
		a.socket = o.Socket
	}
	r.n.do(func(m *machine) { m.reply(r.in, a) })
}

// Relay passes the request on to another node, with another value. That may pass
// it on again or answer it, to whom it first came from. A nil socket is the one
// by which it came.
func (r *Request) Relay(value []byte, to netip.AddrPort, s *udx.Socket) {
	via := r.in.socket
	if s != nil {
		via = s
	}
	r.n.do(func(m *machine) { m.relay(r.in, value, to, via) })
}

// Requests of ours.

// CallOptions say how a call is made.
type CallOptions struct {
	// Socket is another than Node.Socket.
	Socket *udx.Socket
	// TTL is how many routers the packets may pass; zero is the usual.
	TTL int
	// NoRetry sends it once, not up to four times.
	NoRetry bool
	// Timeout is how long to wait each time; zero is what is known of the node.
	Timeout time.Duration
}

// Start asks a node, and calls done with the answer or an error unless it is
// cancelled before. Nothing of the call is kept.
func (n *Node) Start(to netip.AddrPort, c Call, o CallOptions, done func(Reply, error)) (cancel func()) {
	var r *request
	c.Value = slices.Clone(c.Value)
	n.do(func(m *machine) {
		var err error
		finish := func(reply Reply, err error) {
			if err != nil {
				err = fmt.Errorf("ask dht node %v: %w", to, err)
			}
			m.call(func() { done(reply, err) })
		}
		if r, err = m.request(Peer{Addr: to}, c, finish); err != nil {
			finish(Reply{}, err)
			return
		}
		if o.Socket != nil {
			r.socket = o.Socket
		}
		if o.NoRetry {
			r.retries = 0
		}
		r.ttl, r.timeout = o.TTL, o.Timeout
		r.send()
	})
	return func() {
		if r != nil {
			n.do(func(*machine) { r.cancel() })
		}
	}
}

// Do asks a node and waits for the answer.
func (n *Node) Do(ctx context.Context, to netip.AddrPort, c Call, o CallOptions) (Reply, error) {
	type result struct {
		reply Reply
		err   error
	}
	done := make(chan result, 1)
	cancel := n.Start(to, c, o, func(r Reply, err error) { done <- result{r, err} })
	select {
	case r := <-done:
		return r.reply, r.err
	case <-ctx.Done():
		cancel()
		return Reply{}, fmt.Errorf("ask dht node %v: %w", to, context.Cause(ctx))
	}
}

// Ping waits for any answer of a node.
func (n *Node) Ping(ctx context.Context, to netip.AddrPort, o CallOptions) (Reply, error) {
	return n.Do(ctx, to, internal(CommandPing, nil), o)
}

// DelayedPing waits for an answer that the node sends after a delay, at most
// [MaxPingDelay].
func (n *Node) DelayedPing(ctx context.Context, to netip.AddrPort, delay time.Duration, o CallOptions) (Reply, error) {
	if delay < 0 || delay > MaxPingDelay {
		return Reply{}, fmt.Errorf("delay of a ping is %v: not from 0 to %v", delay, MaxPingDelay)
	}
	o.Timeout = cmp.Or(o.Timeout, delay+time.Second)
	return n.Do(ctx, to, internal(CommandDelayedPing, binary.LittleEndian.AppendUint32(nil, uint32(delay.Milliseconds()))), o)
}

// PingNAT asks a node to answer to another port of this machine.
func (n *Node) PingNAT(ctx context.Context, to netip.AddrPort, port uint16, o CallOptions) (Reply, error) {
	return n.Do(ctx, to, internal(CommandPingNAT, binary.LittleEndian.AppendUint16(nil, port)), o)
}

// Queries.

// QueryOptions say what a query does.
type QueryOptions struct {
	// Call is what each node is asked; its target is the query's.
	Call
	// Nodes are some that may be close, such as those that an earlier query of the
	// target ended with; the table is asked only if they are too few. With
	// OnlyNodes no others are asked at all.
	Nodes     []netip.AddrPort
	OnlyNodes bool
	// Concurrency is how many are asked at a time; zero is the node's.
	Concurrency int
	// Retries is how often each is asked again: 5 if it is zero, and never if it is
	// negative.
	Retries int
	// Commit makes the call that leaves something at one of the nodes that the
	// query ended with. The query ends when all of them answered, well if one
	// took it. A node that finds the token too old gives another, and Commit is
	// called for it again.
	Commit func(Reply) (Call, error)
	// Reply gets what nodes answer, instead of Query.Next; Done is called at the
	// end. Both are called as the functions of [Options] are.
	Reply func(Reply)
	Done  func(error)
}

// CommitSame is the Commit of a query that leaves what it asks with.
func CommitSame(o QueryOptions) func(Reply) (Call, error) {
	return func(r Reply) (Call, error) {
		if r.Token == nil {
			return Call{}, fmt.Errorf("node %v gave no token", r.From.Addr)
		}
		c := o.Call
		c.Token = r.Token
		return c, nil
	}
}

// A Query asks the nodes of the network that are closer and closer to an id.
type Query struct {
	n       *Node
	q       *query
	options QueryOptions
	changed chan struct{} // has one when there is something new

	// Guarded by n.mu.
	replies []Reply
	over    bool
	dropped bool // nobody wants replies
	err     error
}

// Query starts a query. It ends when the closest nodes have answered, or with
// the context.
func (n *Node) Query(ctx context.Context, target ID, o QueryOptions) *Query {
	q := &Query{n: n, options: o, changed: make(chan struct{}, 1)}
	spec := querySpec{
		target: target, call: o.Call, nodes: o.Nodes, onlyNodes: o.OnlyNodes, concurrency: o.Concurrency, retries: o.Retries, reply: q.reply,
	}
	spec.call.Value = slices.Clone(o.Value)
	if o.Commit != nil {
		spec.commit = func(r Reply) (Call, error) {
			c, err := o.Commit(r)
			c.Target = &target
			return c, err
		}
	}
	stop := func() bool { return false }
	spec.done = func(err error) {
		stop()
		q.over, q.err = true, err
		q.wake()
		if o.Done != nil {
			n.m.call(func() { o.Done(err) })
		}
	}
	n.do(func(m *machine) {
		if m.available() == nil {
			m.refreshTicks = refreshTicks
		}
		q.q = m.query(spec)
		if !q.over {
			stop = context.AfterFunc(ctx, func() { q.stop(context.Cause(ctx)) })
		}
	})
	return q
}

// FindNode starts a query for the nodes that are closest to an id.
func (n *Node) FindNode(ctx context.Context, target ID, o QueryOptions) *Query {
	o.Call = internal(CommandFindNode, nil)
	return n.Query(ctx, target, o)
}

// reply is called with the lock of the node.
func (q *Query) reply(r Reply) {
	switch {
	case q.options.Reply != nil:
		q.n.m.call(func() { q.options.Reply(r) })
	case !q.dropped:
		q.replies = append(q.replies, r)
		q.wake()
	}
}

func (q *Query) wake() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// Next waits for the next answer. It fails with io.EOF after the last, or with
// the reason why the query failed. It may be called by one goroutine at a time.
func (q *Query) Next() (Reply, error) {
	for {
		q.n.mu.Lock()
		if len(q.replies) > 0 {
			r := q.replies[0]
			q.replies = q.replies[1:]
			q.n.mu.Unlock()
			return r, nil
		}
		over, err := q.over, q.err
		q.n.mu.Unlock()
		if over {
			return Reply{}, cmp.Or(err, io.EOF)
		}
		<-q.changed
	}
}

// All are the answers, and the error with which the query failed, if it did. To
// leave the loop ends the query.
func (q *Query) All() iter.Seq2[Reply, error] {
	return func(yield func(Reply, error) bool) {
		defer q.Stop()
		for {
			r, err := q.Next()
			if err == io.EOF || !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// Wait waits for the end and drops the answers.
func (q *Query) Wait() error {
	q.n.mu.Lock()
	q.dropped = true
	q.n.mu.Unlock()
	for {
		_, err := q.Next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// Closest returns the answers of the closest nodes so far, the closest first.
func (q *Query) Closest() []Reply {
	q.n.mu.Lock()
	defer q.n.mu.Unlock()
	return slices.Clone(q.q.closest)
}

// Cost tells what the query took so far: over how many nodes the closest was
// found, and how many were asked.
func (q *Query) Cost() (hops, asked int) {
	q.n.mu.Lock()
	defer q.n.mu.Unlock()
	return q.q.hops, q.q.visits
}

// Stop ends the query with [context.Canceled], unless it is over.
func (q *Query) Stop() { q.stop(context.Canceled) }

func (q *Query) stop(err error) {
	q.n.do(func(*machine) { q.q.finish(fmt.Errorf("query the dht: %w", err)) })
}
