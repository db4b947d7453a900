package interop_test

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// A someDHT is a DHT of Node or of ours, for tests that want both the same.
type someDHT interface {
	// listen serves as the key of a seed, with an echo.
	listen(seed byte, o dhtOptions) noise.Key
	unlisten(key noise.Key)
	// connect sends that many messages to a server and waits for them to come back.
	connect(key noise.Key, messages int, o dhtOptions) error
	connectMany(key noise.Key, count int)
	announce(topic [32]byte, seed byte)
	unannounce(topic [32]byte, seed byte)
	lookup(topic [32]byte) []string
	put(value string) [32]byte
	get(hash [32]byte) string
	putMutable(seed byte, seq uint64, value string) error
	getMutable(key noise.Key, seq uint64) (uint64, string)
	suspend()
	resume()
}

type dhtOptions struct {
	refuse   []noise.Key
	reusable bool
	seed     byte // of the client; zero is its own
	patience time.Duration
}

// ctx bounds the time of a connection.
func (o dhtOptions) ctx(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), cmp.Or(o.patience, 20*time.Second))
}

func keysOf(seed byte) noise.KeyPair {
	return noise.NewKeyPair([32]byte(slices.Repeat([]byte{seed}, 32)))
}

// A testnet is nodes of a DHT on loopback, of one kind or of both.
type testnet struct {
	t    *testing.T
	node node
	boot string
}

func newTestnet(t *testing.T, kinds string) *testnet {
	t.Helper()
	nodepeer.Require(t)
	p, err := nodepeer.Start(t.Context(), "hyperdht.js")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	net := &testnet{t: t, node: node{t, p}}
	for _, kind := range kinds {
		net.add(kind == 'N', true)
	}
	return net
}

// dhtsOfNode counts DHTs of Node, for their names.
var dhtsOfNode atomic.Int32

// add opens a DHT, which is a node for others or a client.
func (n *testnet) add(ofNode, takesPart bool) someDHT {
	n.t.Helper()
	if ofNode {
		s := nodeDHT{n.node, fmt.Sprint("dht", dhtsOfNode.Add(1))}
		a := args{"handle": s.handle, "node": takesPart, "first": n.boot == "", "bootstrap": n.seeds()}
		socket := call[struct{ Port int }](n.node, "open", a)
		call[any](n.node, "ready", args{"handle": s.handle})
		if n.boot == "" {
			n.boot = fmt.Sprint("127.0.0.1:", socket.Port)
		}
		return s
	}
	o := hyperdht.Options{Bind: loopback, Port: -1, Bootstrap: n.seeds(), Open: takesPart, Node: takesPart}
	if n.boot == "" {
		o.Public = freeAddr(n.t)
		o.Port, o.FixedPort = int(o.Public.Port()), true
		n.boot = o.Public.String()
	}
	d, err := hyperdht.Open(o)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			n.t.Error(err)
		}
	})
	if err := d.Bootstrapped(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	return ourDHT{n.t, d, map[noise.Key]*hyperdht.Server{}}
}

func (n *testnet) seeds() []string {
	if n.boot == "" {
		return []string{}
	}
	return []string{n.boot}
}

// freeAddr is an address that was free just now.
func freeAddr(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := packet.System.Listen(anyPort, func([]packet.Packet) {})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr()
}

// An ourDHT is a DHT of ours.
type ourDHT struct {
	t       *testing.T
	d       *hyperdht.DHT
	servers map[noise.Key]*hyperdht.Server
}

func (s ourDHT) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	s.t.Cleanup(cancel)
	return ctx
}

func (s ourDHT) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s ourDHT) listen(seed byte, o dhtOptions) noise.Key {
	s.t.Helper()
	server, err := s.d.Listen(s.ctx(), keysOf(seed), hyperdht.ServerOptions{
		Serve: func(c *hyperdht.Conn) {
			defer c.Close()
			for {
				m, err := c.ReadMessage(nil)
				if err != nil || c.WriteMessage(m) != nil {
					return
				}
			}
		},
		Refuse:   func(c hyperdht.Client) bool { return slices.Contains(o.refuse, c.Key) },
		Reusable: o.reusable,
	})
	s.must(err)
	s.servers[server.Key()] = server
	return server.Key()
}

func (s ourDHT) unlisten(key noise.Key) { s.must(s.servers[key].Close()) }

func (s ourDHT) connect(key noise.Key, messages int, o dhtOptions) error {
	options := hyperdht.ConnectOptions{Reusable: o.reusable}
	if o.seed != 0 {
		options.KeyPair = keysOf(o.seed)
	}
	ctx, cancel := o.ctx(s.t)
	defer cancel()
	c, err := s.d.Connect(ctx, key, options)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range messages {
		if err := c.Queue(fmt.Append(nil, "message ", i)); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return err
	}
	for i := range messages {
		if m, err := c.ReadMessage(nil); err != nil || string(m) != fmt.Sprint("message ", i) {
			return fmt.Errorf("message %d came back as %q: %w", i, m, err)
		}
	}
	return nil
}

func (s ourDHT) connectMany(key noise.Key, count int) {
	s.t.Helper()
	errs := make(chan error, count)
	for range count {
		go func() { errs <- s.connect(key, 3, dhtOptions{}) }()
	}
	for range count {
		if err := <-errs; err != nil {
			s.t.Error(err)
		}
	}
}

func (s ourDHT) announce(topic [32]byte, seed byte) {
	s.t.Helper()
	_, err := s.d.Announce(s.ctx(), topic, keysOf(seed), hyperdht.AnnounceOptions{})
	s.must(err)
}

func (s ourDHT) unannounce(topic [32]byte, seed byte) {
	s.t.Helper()
	s.must(s.d.Unannounce(s.ctx(), topic, keysOf(seed), hyperdht.AnnounceOptions{}))
}

func (s ourDHT) lookup(topic [32]byte) []string {
	s.t.Helper()
	keys := map[string]bool{}
	_, err := s.d.Lookup(s.ctx(), topic, hyperdht.LookupOptions{Found: func(f hyperdht.Found) {
		for _, p := range f.Peers {
			keys[hex.EncodeToString(p.Key[:])] = true
		}
	}})
	s.must(err)
	return sortedKeys(keys)
}

func (s ourDHT) put(value string) [32]byte {
	s.t.Helper()
	h, err := s.d.ImmutablePut(s.ctx(), []byte(value))
	s.must(err)
	return h
}

func (s ourDHT) get(hash [32]byte) string {
	s.t.Helper()
	v, err := s.d.ImmutableGet(s.ctx(), hash)
	s.must(err)
	return string(v)
}

func (s ourDHT) putMutable(seed byte, seq uint64, value string) error {
	return s.d.MutablePut(s.ctx(), keysOf(seed), seq, []byte(value))
}

func (s ourDHT) getMutable(key noise.Key, seq uint64) (uint64, string) {
	s.t.Helper()
	m, err := s.d.MutableGet(s.ctx(), key, hyperdht.MutableOptions{Seq: seq})
	s.must(err)
	return m.Seq, string(m.Value)
}

func (s ourDHT) suspend() { s.must(s.d.Suspend(s.ctx())) }
func (s ourDHT) resume()  { s.must(s.d.Resume(s.ctx())) }

// A nodeDHT is a DHT of Node.
type nodeDHT struct {
	node
	handle string
}

func (s nodeDHT) with(more args) args {
	a := args{"handle": s.handle}
	for k, v := range more {
		a[k] = v
	}
	return a
}

func hexKey(k [32]byte) string { return hex.EncodeToString(k[:]) }

func fromHex(t *testing.T, s string) string {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (s nodeDHT) listen(b byte, o dhtOptions) noise.Key {
	s.t.Helper()
	refuse := []string{}
	for _, k := range o.refuse {
		refuse = append(refuse, hexKey(k))
	}
	key := keysOf(b).Public
	r := call[struct{ Key string }](s.node, "listen", s.with(args{
		"name": hexKey(key), "seed": seed(b), "refuse": refuse, "options": args{"reusableSocket": o.reusable},
	}))
	if r.Key != hexKey(key) {
		s.t.Fatalf("Node listens as %s, want %s", r.Key, hexKey(key))
	}
	return key
}

func (s nodeDHT) unlisten(key noise.Key) {
	call[any](s.node, "unlisten", s.with(args{"name": hexKey(key)}))
}

func (s nodeDHT) connect(key noise.Key, messages int, o dhtOptions) error {
	a := s.with(args{"key": hexKey(key), "messages": messages, "options": args{"reusableSocket": o.reusable}})
	if o.seed != 0 {
		a["seed"] = seed(o.seed)
	}
	ctx, cancel := o.ctx(s.t)
	defer cancel()
	return s.p.Call(ctx, "connect", a, nil)
}

func (s nodeDHT) connectMany(key noise.Key, count int) {
	s.t.Helper()
	call[any](s.node, "connectMany", s.with(args{"key": hexKey(key), "count": count}))
}

func (s nodeDHT) announce(topic [32]byte, b byte) {
	s.t.Helper()
	call[any](s.node, "announce", s.with(args{"topic": hexKey(topic), "seed": seed(b)}))
}

func (s nodeDHT) unannounce(topic [32]byte, b byte) {
	s.t.Helper()
	call[any](s.node, "unannounce", s.with(args{"topic": hexKey(topic), "seed": seed(b)}))
}

func (s nodeDHT) lookup(topic [32]byte) []string {
	s.t.Helper()
	return call[struct{ Keys []string }](s.node, "lookup", s.with(args{"topic": hexKey(topic)})).Keys
}

func (s nodeDHT) put(value string) [32]byte {
	s.t.Helper()
	r := call[struct{ Hash string }](s.node, "immutablePut", s.with(args{"value": hex.EncodeToString([]byte(value))}))
	return [32]byte([]byte(fromHex(s.t, r.Hash)))
}

func (s nodeDHT) get(hash [32]byte) string {
	s.t.Helper()
	return fromHex(s.t, call[struct{ Value string }](s.node, "immutableGet", s.with(args{"hash": hexKey(hash)})).Value)
}

func (s nodeDHT) putMutable(b byte, seq uint64, value string) error {
	return s.p.Call(s.t.Context(), "mutablePut", s.with(args{"seed": seed(b), "seq": seq, "value": hex.EncodeToString([]byte(value))}), nil)
}

func (s nodeDHT) getMutable(key noise.Key, seq uint64) (uint64, string) {
	s.t.Helper()
	r := call[struct {
		Seq   uint64
		Value string
	}](s.node, "mutableGet", s.with(args{"key": hexKey(key), "seq": seq}))
	return r.Seq, fromHex(s.t, r.Value)
}

func (s nodeDHT) suspend() { call[any](s.node, "suspend", s.with(nil)) }
func (s nodeDHT) resume()  { call[any](s.node, "resume", s.with(nil)) }

func sortedKeys(m map[string]bool) []string {
	var l []string
	for k := range m {
		l = append(l, k)
	}
	slices.Sort(l)
	return l
}

// The networks of onTestnets: nodes of Node (N) and of ours (O), the first of
// which is how others join.
var (
	allTestnets = []string{"NNN", "OOO", "NONO", "ONON"}
	oneTestnet  = []string{"ONON"}
)

// onTestnets runs f on networks for each pair of sides.
func onTestnets(t *testing.T, kinds []string, f func(t *testing.T, a, b someDHT)) {
	if os.Getenv("BEVY_LONG") != "" {
		kinds = allTestnets
	}
	sides := map[bool]string{true: "Node", false: "ours"}
	for _, kind := range kinds {
		t.Run(strings.NewReplacer("N", "Node ", "O", "ours ").Replace(kind), func(t *testing.T) {
			t.Parallel()
			n := newTestnet(t, kind)
			for _, first := range []bool{true, false} {
				for _, second := range []bool{true, false} {
					t.Run(sides[first]+" and "+sides[second], func(t *testing.T) {
						n := *n
						n.t, n.node.t = t, t
						f(t, n.add(first, false), n.add(second, false))
					})
				}
			}
		})
	}
}

func TestNodeAndWeConnectByKey(t *testing.T) {
	onTestnets(t, allTestnets, func(t *testing.T, server, client someDHT) {
		key := server.listen(1, dhtOptions{refuse: []noise.Key{keysOf(9).Public}})
		if err := client.connect(key, 50, dhtOptions{seed: 8}); err != nil {
			t.Fatal(err)
		}
		// Another connection uses what is known of the first.
		if err := client.connect(key, 5, dhtOptions{}); err != nil {
			t.Fatal(err)
		}
		server.unlisten(key)
	})
}

func TestNodeAndWeRefuseByKey(t *testing.T) {
	onTestnets(t, oneTestnet, func(t *testing.T, server, client someDHT) {
		key := server.listen(2, dhtOptions{refuse: []noise.Key{keysOf(9).Public}})
		if err := client.connect(key, 1, dhtOptions{seed: 8}); err != nil {
			t.Error(err)
		}
		if _, ofNode := client.(nodeDHT); ofNode && os.Getenv("BEVY_LONG") == "" {
			t.Skip("it takes seconds until Node gives up")
		}
		if err := client.connect(key, 1, dhtOptions{seed: 9, patience: 500 * time.Millisecond}); err == nil {
			t.Error("a client that is refused has connected")
		}
	})
}

func TestNodeAndWeConnectAHundredTimesAtOnce(t *testing.T) {
	onTestnets(t, oneTestnet, func(t *testing.T, server, client someDHT) {
		key := server.listen(3, dhtOptions{})
		_, a := server.(nodeDHT)
		_, b := client.(nodeDHT)
		if a && b && os.Getenv("BEVY_LONG") == "" {
			t.Skip("nothing of it is ours")
		}
		client.connectMany(key, 100)
		server.unlisten(key)
	})
}

// connectSoon connects to a server that is just coming back.
func connectSoon(t *testing.T, side someDHT, key noise.Key, when string) {
	t.Helper()
	var err error
	for range 50 {
		if err = side.connect(key, 1, dhtOptions{}); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond) // Node announces in the background
	}
	t.Fatalf("%s: %v", when, err)
}

func TestNodeAndWeFindServersThatMove(t *testing.T) {
	onTestnets(t, allTestnets, func(t *testing.T, server, client someDHT) {
		key := server.listen(4, dhtOptions{})
		if err := client.connect(key, 1, dhtOptions{}); err != nil {
			t.Fatal(err)
		}
		server.suspend() // as a laptop that is closed
		server.resume()
		connectSoon(t, client, key, "after the server was suspended")
		server.unlisten(key)
		client.listen(4, dhtOptions{}) // the other side has the key now
		connectSoon(t, server, key, "after the server moved")
		client.suspend()
		client.resume()
		connectSoon(t, server, key, "after the other side was suspended")
		client.unlisten(key)
	})
}

func TestNodeAndWeReuseConnections(t *testing.T) {
	onTestnets(t, allTestnets, func(t *testing.T, server, client someDHT) {
		key := server.listen(5, dhtOptions{reusable: true})
		for range 3 {
			if err := client.connect(key, 2, dhtOptions{reusable: true}); err != nil {
				t.Fatal(err)
			}
		}
		server.unlisten(key)
	})
}

func TestNodeAndWeAnnounceAndLookUp(t *testing.T) {
	onTestnets(t, allTestnets, func(t *testing.T, a, b someDHT) {
		topic := hyperdht.Target(keysOf(77).Public)
		var want []string
		for i := range byte(50) {
			side := a
			if i%2 == 1 {
				side = b
			}
			side.announce(topic, 100+i)
			want = append(want, hexKey(keysOf(100+i).Public))
		}
		slices.Sort(want)
		for _, side := range []someDHT{a, b} {
			// A node tells of twenty at a time, chosen at random.
			got := map[string]bool{}
			for range 20 {
				for _, k := range side.lookup(topic) {
					got[k] = true
				}
			}
			if keys := sortedKeys(got); !slices.Equal(keys, want) {
				t.Errorf("found %d peers, want %d", len(keys), len(want))
			}
		}
		for i := range byte(50) {
			side := b // who takes it back need not be who announced it
			if i%2 == 1 {
				side = a
			}
			side.unannounce(topic, 100+i)
		}
		if left := append(a.lookup(topic), b.lookup(topic)...); len(left) > 0 {
			t.Errorf("%d peers are left", len(left))
		}
	})
}

func TestNodeAndWeKeepRecords(t *testing.T) {
	onTestnets(t, allTestnets, func(t *testing.T, a, b someDHT) {
		for _, by := range []someDHT{a, b} {
			hash := by.put("a value that stays the same")
			if got := a.get(hash) + b.get(hash); got != strings.Repeat("a value that stays the same", 2) {
				t.Errorf("got %q", got)
			}
		}
		key := keysOf(6).Public
		first := uint64(time.Now().UnixNano()) // other sides have put values before
		for i, by := range []someDHT{a, b} {
			seq, value := first/1000+uint64(i), fmt.Sprint("value ", i)
			if err := by.putMutable(6, seq, value); err != nil {
				t.Fatal(err)
			}
			for _, side := range []someDHT{a, b} {
				if s, v := side.getMutable(key, 0); s != seq || v != value {
					t.Errorf("got %q of seq %d, want %q of %d", v, s, value, seq)
				}
			}
		}
	})
}

// A DHT of one node is too small to tell what NATs are, and servers that find
// that out give up punching. There is a way all the same.
func TestWeReachNodeInTheSmallestDHT(t *testing.T) {
	for _, kind := range []string{"O", "N"} {
		n := newTestnet(t, kind)
		call[any](n.node, "open", args{"handle": "server", "bootstrap": n.seeds(), "options": args{"host": "0.0.0.0"}})
		key := nodeDHT{n.node, "server"}.listen(7, dhtOptions{})
		client := n.add(false, false)
		for range 5 {
			if err := client.connect(key, 2, dhtOptions{patience: 5 * time.Second}); err != nil {
				t.Error(err)
			}
		}
	}
}
