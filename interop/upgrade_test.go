package interop_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// elsewhere is the address of peers of Node that is not that of the DHT's nodes and relays, so that a gate can tell what
// would be the direct path.
var elsewhere = netip.AddrFrom4([4]byte{127, 0, 0, 2})

// A gate is the machine's network behind a firewall: a socket gets packets from where it has sent some. While it is shut,
// nothing gets elsewhere or comes from there.
type gate struct {
	packet.Network
	open atomic.Bool
}

func (g *gate) Listen(addr netip.AddrPort, receive packet.Handler) (packet.Conn, error) {
	s := &gated{gate: g}
	c, err := g.Network.Listen(addr, func(batch []packet.Packet) {
		receive(g.pass(batch, func(from netip.AddrPort) bool {
			_, asked := s.asked.Load(from)
			return asked
		}))
	})
	s.Conn = c
	return s, err
}

func (g *gate) pass(batch []packet.Packet, may func(netip.AddrPort) bool) (through []packet.Packet) {
	for _, p := range batch {
		if (g.open.Load() || p.Addr.Addr() != elsewhere) && may(p.Addr) {
			through = append(through, p)
		}
	}
	return through
}

// gated is a socket behind a gate.
type gated struct {
	packet.Conn
	gate  *gate
	asked sync.Map // the addresses it has sent to
}

func (s *gated) Write(batch []packet.Packet) error {
	return s.Conn.Write(s.gate.pass(batch, func(to netip.AddrPort) bool {
		s.asked.Store(to, true)
		return true
	}))
}

// talkPause is the time between two messages. Some of them need many packets, so that there are always packets on the way.
const talkPause = 3 * time.Millisecond

// The seeds of what both sides say end with that.
const weSay, nodeSays = " ours", " Node's"

var talkSizes = []int{10, 20_000, 1, 1200, 7000}

// endOfTalk is the last message.
var endOfTalk = []byte("END")

// A talk is our side of a connection on which both sides say something all the time, blocks that the other side knows.
type talk struct {
	conn        *hyperdht.Conn
	says, hears generated
	sent        int64 // until it has ended
	received    atomic.Int64
	stop        chan struct{}
	ended       chan error // of both directions
}

func newTalk(c *hyperdht.Conn, name string) *talk {
	k := &talk{
		conn: c, says: generated{Seed: name + weSay, Sizes: talkSizes}, hears: generated{Seed: name + nodeSays, Sizes: talkSizes},
		stop: make(chan struct{}), ended: make(chan error, 2),
	}
	go func() { k.ended <- k.say() }()
	go func() { k.ended <- k.hear() }()
	return k
}

func (k *talk) say() error {
	tick := time.NewTicker(talkPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := k.conn.WriteMessage(k.says.block(int(k.sent))); err != nil {
				return fmt.Errorf("say message %d: %w", k.sent, err)
			}
			k.sent++
		case <-k.stop:
			return k.conn.WriteMessage(endOfTalk)
		}
	}
}

func (k *talk) hear() error {
	for i := 0; ; i++ {
		m, err := k.conn.ReadMessage(nil)
		switch {
		case err != nil:
			return fmt.Errorf("hear message %d: %w", i, err)
		case bytes.Equal(m, endOfTalk):
			return nil
		case !bytes.Equal(m, k.hears.block(i)):
			return fmt.Errorf("message %d is wrong", i)
		}
		k.received.Add(1)
	}
}

// A nodeTalk is the state of Node's side.
type nodeTalk struct {
	Sent, Received int64
	Ended          bool
	Host           string
	Port           uint16
	Error          *string
}

// A detour is a case of TestRelayedConnectionsOfNodeAndUsGoDirect.
type detour struct {
	*testing.T
	net   *testnet
	n     node
	name  string
	relay relayUnderTest // through which both sides begin
	gate  *gate
	ours  []noise.Key // what we offer, and nil if the relay is the choice of Node's side
}

// A relayUnderTest is a blind relay of Node or of ours, for one connection.
type relayUnderTest struct {
	key noise.Key
	use func() relayUse
}

// relayUse is what a relay has to do.
type relayUse struct{ Sessions, Links int }

func relayOf(net *testnet, n node, ofNode bool, s byte) relayUnderTest {
	net.t.Helper()
	if !ofNode {
		key, relay := ourBlindRelay(net.t, net, s)
		return relayUnderTest{key, func() relayUse {
			st := relay.Stats()
			return relayUse{st.Sessions, st.Links}
		}}
	}
	name := fmt.Sprint("relay ", s)
	call[any](n, "relay", args{"name": name, "bootstrap": net.seeds(), "seed": seed(s)})
	return relayUnderTest{keysOf(s).Public, func() relayUse { return call[relayUse](n, "use", args{"name": name}) }}
}

// params are the arguments for Node's side.
func (u *detour) params(more args) args {
	a := args{
		"name": u.name, "bootstrap": u.net.seeds(), "host": elsewhere.String(),
		"talk": args{"says": u.name + nodeSays, "hears": u.name + weSay, "sizes": talkSizes, "pause": talkPause.Milliseconds()},
	}
	if u.ours == nil {
		a["relay"] = hexKey(u.relay.key)
	}
	maps.Copy(a, more)
	return a
}

func (u *detour) state() nodeTalk {
	u.Helper()
	s := call[nodeTalk](u.n, "state", args{"name": u.name})
	if s.Error != nil {
		u.Fatalf("Node: %s: %+v", *s.Error, s)
	}
	return s
}

// until waits for something, while both sides talk.
func (u *detour) until(k *talk, what string, ok func() bool) {
	u.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-k.ended:
			u.Fatalf("%s: the talk has ended: %v; our path was %v, Node has %+v, the relay %+v", what, err, k.conn.Path(), u.state(), u.relay.use())
		default:
		}
		if time.Now().After(end) {
			u.Fatalf("%s: not after 15 s; our path is %v, Node has %+v, the relay %+v", what, k.conn.Path(), u.state(), u.relay.use())
		}
	}
}

// more waits until both sides have heard some more messages.
func (u *detour) more(k *talk, what string) {
	u.Helper()
	ours, theirs := k.received.Load()+50, u.state().Received+50
	u.until(k, what, func() bool { return k.received.Load() >= ours && u.state().Received >= theirs })
}

// connect connects the two sides.
func (u *detour) connect(weServe bool) *hyperdht.Conn {
	u.Helper()
	d, err := hyperdht.Open(hyperdht.Options{Network: u.gate, Bind: loopback, Port: -1, Bootstrap: u.net.seeds()})
	if err != nil {
		u.Fatal(err)
	}
	u.Cleanup(func() {
		if err := d.Close(); err != nil {
			u.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(u.Context(), 15*time.Second)
	u.Cleanup(cancel)
	if err := d.Bootstrapped(ctx); err != nil {
		u.Fatal(err)
	}
	keys := keysOf(u.name[0])
	if !weServe {
		call[any](u.n, "listen", u.params(args{"seed": seed(u.name[0])}))
		c, err := d.Connect(ctx, keys.Public, hyperdht.ConnectOptions{RelayNow: true, RelayThrough: u.ours})
		if err != nil {
			u.Fatal(err)
		}
		return c
	}
	got := make(chan *hyperdht.Conn, 1)
	if _, err := d.Listen(ctx, keys, hyperdht.ServerOptions{Serve: func(c *hyperdht.Conn) { got <- c }, RelayThrough: u.ours}); err != nil {
		u.Fatal(err)
	}
	call[any](u.n, "connect", u.params(args{"key": hexKey(keys.Public)}))
	select {
	case c := <-got:
		return c
	case <-ctx.Done():
		u.Fatalf("Node does not come: %+v", u.state())
		return nil
	}
}

func (u *detour) run(weServe bool) {
	c := u.connect(weServe)
	defer c.Close()
	k := newTalk(c, u.name)
	relayed := c.Path()
	if relayed.Kind != hyperdht.PathRelayed || relayed.Relay != u.relay.key {
		u.Fatalf("we begin with %v", relayed)
	}
	u.more(k, "through the relay")
	if s := u.state(); s.Host != loopback.String() || s.Port != relayed.Addr.Port() {
		u.Errorf("Node begins with %+v, want the relay at %v", s, relayed.Addr)
	}
	if got, want := u.relay.use(), (relayUse{2, 1}); got != want {
		u.Errorf("the relay has %+v, want %+v", got, want)
	}

	u.gate.open.Store(true)
	u.until(k, "we go direct", func() bool { return c.Path().Kind != hyperdht.PathRelayed })
	if p := c.Path(); p.Addr.Addr() != elsewhere || c.Raw().RemoteAddrPort() != p.Addr {
		u.Errorf("we go to %v, and say %v", c.Raw().RemoteAddrPort(), p)
	}
	u.until(k, "Node goes direct", func() bool { return u.state().Port == c.Raw().Socket().LocalAddr().Port() })
	u.until(k, "the relay is left", func() bool { return u.relay.use() == relayUse{} })
	u.more(k, "without the relay")

	close(k.stop)
	call[any](u.n, "finish", args{"name": u.name})
	for range 2 {
		if err := <-k.ended; err != nil {
			u.Fatal(err)
		}
	}
	u.until(k, "Node hears the end", func() bool { return u.state().Ended })
	if s := u.state(); s.Received != k.sent || s.Sent != k.received.Load() {
		u.Errorf("Node has %+v; we said %d and heard %d", s, k.sent, k.received.Load())
	}
}

// Connections begin at a relay while the direct path is shut, and take it as soon as it opens. Both sides talk all the
// time; all of that arrives, in order, and the relay is left.
func TestRelayedConnectionsOfNodeAndUsGoDirect(t *testing.T) {
	probe, err := packet.System.Listen(netip.AddrPortFrom(elsewhere, 0), func([]packet.Packet) {})
	if err != nil {
		t.Skip("this machine has one loopback address only: ", err)
	}
	probe.Close()
	net := newTestnet(t, "ONON")
	n := startScript(t, "upgrade.js")
	cases := byte('a')
	for _, ofNode := range []bool{true, false} { // the relay
		for _, weServe := range []bool{true, false} {
			for _, weChoose := range []bool{true, false} {
				if weChoose != (ofNode == weServe) && os.Getenv("BEVY_LONG") == "" {
					continue // half of them are told apart by who chooses the relay only
				}
				name := fmt.Sprintf("%c: relay of Node %v, we serve %v, the relay is our choice %v", cases, ofNode, weServe, weChoose)
				u := &detour{net: net, n: n, name: name, gate: &gate{Network: packet.System}, relay: relayOf(net, n, ofNode, cases-64)}
				if weChoose {
					u.ours = []noise.Key{u.relay.key}
				}
				cases++
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					u.T, u.n.t = t, t
					u.run(weServe)
				})
			}
		}
	}
}
