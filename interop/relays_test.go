package interop_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/blindrelay"
	"github.com/cloudbevy/bevy/hyper/dhtrelay"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// ourRelay is a dht-relay of ours on a testnet, for WebSockets or for encrypted TCP, and returns its address.
func ourRelay(t *testing.T, net *testnet, scheme string) string {
	t.Helper()
	d := net.add(false, false).(ourDHT).d
	relay := dhtrelay.NewServer(dhtrelay.Over(d), dhtrelay.ServerOptions{})
	l, err := transport.Listen(t.Context(), scheme+"://127.0.0.1:0", transport.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if scheme == "ws" {
			relay.ServeListener(context.Background(), l)
			return
		}
		for {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				s, err := secretstream.Server(t.Context(), conn, secretstream.Options{KeyPair: keysOf(99)})
				if err == nil {
					relay.Serve(context.Background(), s)
				}
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
		relay.Close()
	})
	return l.Addr()
}

// nodeRelay is a dht-relay of Node.
func nodeRelay(t *testing.T, net *testnet, n node, repaired bool) string {
	t.Helper()
	port := call[struct{ Port int }](n, "relay", args{"name": "relay", "bootstrap": net.seeds(), "repaired": repaired}).Port
	return fmt.Sprintf("ws://127.0.0.1:%d/", port)
}

// A relayedPeer is a client of a dht-relay, of Node or of ours.
type relayedPeer interface {
	listen(deny ...noise.Key) noise.Key
	unlisten()
	connect(key noise.Key, messages int) error
	announce(topic [32]byte)
	unannounce(topic [32]byte)
	lookup(topic [32]byte) []string
}

type ourRelayed struct {
	t *testing.T
	c *dhtrelay.Client
	l *dhtrelay.Listener
}

func newOurRelayed(t *testing.T, url string, seed byte) relayedPeer {
	t.Helper()
	c, err := dhtrelay.Dial(t.Context(), url, dhtrelay.ClientOptions{KeyPair: keysOf(seed)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &ourRelayed{t: t, c: c}
}

func (p *ourRelayed) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *ourRelayed) ctx() context.Context {
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	p.t.Cleanup(cancel)
	return ctx
}

func (p *ourRelayed) listen(deny ...noise.Key) noise.Key {
	p.t.Helper()
	l, err := p.c.Listen(p.ctx(), dhtrelay.ListenOptions{Check: func(k noise.Key) error {
		if slices.Contains(deny, k) {
			return errors.New("denied")
		}
		return nil
	}})
	p.must(err)
	p.l = l
	go func() {
		for {
			s, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				defer s.Close()
				for {
					m, err := s.Next()
					if err != nil {
						s.CloseWrite()
						return
					}
					s.WriteMessage(m)
				}
			}()
		}
	}()
	return l.Key()
}

func (p *ourRelayed) unlisten() { p.must(p.l.Close()) }

func (p *ourRelayed) connect(key noise.Key, messages int) error {
	s, err := p.c.Connect(p.ctx(), key, dhtrelay.ConnectOptions{})
	if err != nil {
		return err
	}
	defer s.Close()
	if s.RemoteKey() != key {
		return fmt.Errorf("connected to %s", s.RemoteKey())
	}
	return echoesMessages(s, messages)
}

func echoesMessages(s *secretstream.Stream, messages int) error {
	for i := range messages {
		if err := s.Queue(fmt.Append(nil, "message ", i)); err != nil {
			return err
		}
	}
	if err := s.Flush(); err != nil {
		return err
	}
	for i := range messages {
		if got, err := s.Next(); err != nil || string(got) != fmt.Sprint("message ", i) {
			return fmt.Errorf("message %d comes back as %q, %w", i, got, err)
		}
	}
	return nil
}

func (p *ourRelayed) announce(topic [32]byte) {
	p.must(p.c.Announce(p.ctx(), topic, noise.KeyPair{}, nil))
}

func (p *ourRelayed) unannounce(topic [32]byte) {
	p.must(p.c.Unannounce(p.ctx(), topic, noise.KeyPair{}, nil))
}

func (p *ourRelayed) lookup(topic [32]byte) (found []string) {
	p.must(p.c.Lookup(p.ctx(), topic, func(f hyperdht.Found) {
		for _, peer := range f.Peers {
			found = append(found, hex.EncodeToString(peer.Key[:]))
		}
	}))
	slices.Sort(found)
	return slices.Compact(found)
}

type nodeRelayed struct {
	n    node
	name string
	key  noise.Key
}

func newNodeRelayed(n node, url string, seed byte, custodial bool) relayedPeer {
	p := &nodeRelayed{n, fmt.Sprint("client ", seed), keysOf(seed).Public}
	call[any](n, "client", args{"name": p.name, "url": url, "seed": hex.EncodeToString(bytes.Repeat([]byte{seed}, 32)), "custodial": custodial})
	return p
}

func (p *nodeRelayed) listen(deny ...noise.Key) noise.Key {
	refuse := []string{}
	for _, k := range deny {
		refuse = append(refuse, hex.EncodeToString(k[:]))
	}
	call[any](p.n, "listen", args{"name": p.name, "deny": refuse})
	return p.key
}

func (p *nodeRelayed) unlisten() { call[any](p.n, "unlisten", args{"name": p.name}) }

func (p *nodeRelayed) connect(key noise.Key, messages int) error {
	var got struct{ Key, Hash string }
	err := p.n.p.Call(p.n.t.Context(), "connect", args{"name": p.name, "key": hex.EncodeToString(key[:]), "messages": messages}, &got)
	if err == nil && (got.Key != hex.EncodeToString(key[:]) || len(got.Hash) != 128 || strings.Trim(got.Hash, "0") == "") {
		err = fmt.Errorf("connected to %s with the handshake %s", got.Key, got.Hash)
	}
	return err
}

func (p *nodeRelayed) announce(topic [32]byte) {
	call[any](p.n, "announce", args{"name": p.name, "topic": hex.EncodeToString(topic[:])})
}

func (p *nodeRelayed) unannounce(topic [32]byte) {
	call[any](p.n, "unannounce", args{"name": p.name, "topic": hex.EncodeToString(topic[:])})
}

func (p *nodeRelayed) lookup(topic [32]byte) []string {
	return call[struct{ Keys []string }](p.n, "lookup", args{"name": p.name, "topic": hex.EncodeToString(topic[:])}).Keys
}

// The relay of Node can't ask clients that keep their keys, its own as well as ours, for a signature: it announces nothing
// for them, and says that it listens. Connecting works for us; a client of Node that connects ends its relay when the answer
// of a peer comes through two nodes, so it isn't asked to.
func TestRelayOfNodeConnectsUsAndAnnouncesNobody(t *testing.T) {
	net := newTestnet(t, "GNG")
	n := startScript(t, "relays.js")
	url := nodeRelay(t, net, n, false)
	ours := newOurRelayed(t, url, 41)
	if err := ours.connect(net.add(true, false).listen(51, dhtOptions{}), 10); err != nil {
		t.Error(err)
	}
	for _, client := range []relayedPeer{ours, newNodeRelayed(n, url, 42, false)} {
		if err := net.add(false, false).connect(client.listen(), 1, dhtOptions{}); !errors.Is(err, hyperdht.ErrNotFound) {
			t.Errorf("%T that listens: %v; if the package was mended, its relay needs no repair in these tests", client, err)
		}
	}
}

// Clients of either kind reach peers of the DHT through relays of either kind, are reached by them, and announce.
func TestDHTRelayWorksBetweenUsAndNode(t *testing.T) {
	for _, c := range []struct {
		name      string
		node      bool // the relay is of Node
		client    bool // so is the client
		custodial bool
	}{
		{"our client, relay of Node", true, false, false},
		{"client of Node, our relay", false, true, false},
		{"custodial client of Node, our relay over TCP", false, true, true},
		{"our client, our relay", false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			net := newTestnet(t, "GNG")
			n := startScript(t, "relays.js")
			var url string
			switch {
			case c.node:
				url = nodeRelay(t, net, n, true)
			case c.custodial:
				url = ourRelay(t, net, "tcp")
			default:
				url = ourRelay(t, net, "ws")
			}
			newClient := func(seed byte) relayedPeer {
				if c.client {
					return newNodeRelayed(n, url, seed, c.custodial)
				}
				return newOurRelayed(t, url, seed)
			}
			client := newClient(41)
			for seed, ofNode := range map[byte]bool{51: true, 52: false} {
				peer := net.add(ofNode, false)
				if err := client.connect(peer.listen(seed, dhtOptions{}), 100); err != nil {
					t.Errorf("to a peer, of Node: %v: %v", ofNode, err)
				}
			}
			key := client.listen(keysOf(66).Public)
			for _, ofNode := range []bool{true, false} {
				peer := net.add(ofNode, false)
				if err := peer.connect(key, 100, dhtOptions{seed: 61}); err != nil {
					t.Errorf("from a peer, of Node: %v: %v", ofNode, err)
				}
			}
			if err := newClient(42).connect(key, 20); err != nil {
				t.Errorf("from another client: %v", err)
			}
			if err := net.add(false, false).connect(key, 1, dhtOptions{seed: 66}); err == nil {
				t.Error("who is denied gets in")
			}
			topic := [32]byte{1, 2, 3}
			id := hex.EncodeToString(key[:])
			outside := net.add(false, false)
			client.announce(topic)
			if got := outside.lookup(topic); !slices.Contains(got, id) {
				t.Errorf("after announce a DHT finds %v", got)
			}
			if got := client.lookup(topic); !slices.Contains(got, id) {
				t.Errorf("after announce a client finds %v", got)
			}
			client.unannounce(topic)
			if got := outside.lookup(topic); len(got) > 0 {
				t.Errorf("after unannounce a DHT finds %v", got)
			}
			client.unlisten()
		})
	}
}

// ourBlindRelay is a blind relay of ours that listens on a testnet.
func ourBlindRelay(t *testing.T, net *testnet, seed byte) (noise.Key, *blindrelay.Server) {
	t.Helper()
	d := net.add(false, true).(ourDHT).d
	relay := blindrelay.NewServer(blindrelay.Options{UDX: d.UDX()})
	server, err := d.Listen(t.Context(), keysOf(seed), hyperdht.ServerOptions{Serve: func(c *hyperdht.Conn) { relay.Serve(context.Background(), c) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		relay.Close()
		server.Close()
	})
	return server.Key(), relay
}

// A pairedPeer has a stream that goes through a blind relay.
type pairedPeer interface {
	// say sends a text, and returns what came meanwhile.
	say(text string) (string, error)
	close()
}

type ourPaired struct {
	client *blindrelay.Client
	stream *udx.Stream
}

func ourPair(t *testing.T, net *testnet, relay noise.Key, initiator bool, token blindrelay.Token) (*ourPaired, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d := net.add(false, false).(ourDHT).d
	conn, err := d.Connect(ctx, relay, hyperdht.ConnectOptions{})
	if err != nil {
		return nil, err
	}
	client, err := blindrelay.NewClient(conn)
	if err != nil {
		return nil, err
	}
	stream, err := d.UDX().NewStream(udx.StreamOptions{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		stream.Destroy()
		client.Close()
	})
	id, err := client.Pair(ctx, initiator, token, stream.ID())
	if err != nil {
		return nil, err
	}
	return &ourPaired{client, stream}, stream.Connect(conn.Raw().Socket(), id, conn.Raw().RemoteAddrPort())
}

func (p *ourPaired) say(text string) (string, error) {
	if _, err := io.WriteString(p.stream, text); err != nil {
		return "", err
	}
	buf := make([]byte, 1000)
	n, err := p.stream.Read(buf)
	return string(buf[:n]), err
}

func (p *ourPaired) close() { p.client.Close() }

type nodePaired struct {
	n    node
	name string
}

func (p *nodePaired) say(text string) (string, error) {
	var got struct{ Text string }
	err := p.n.p.Call(p.n.t.Context(), "say", args{"name": p.name, "text": text}, &got)
	return got.Text, err
}

func (p *nodePaired) close() { call[any](p.n, "close", args{"name": p.name}) }

// Two peers of either kind are joined by a relay of either kind.
func TestBlindRelayWorksBetweenUsAndNode(t *testing.T) {
	for _, c := range []struct {
		name  string
		kinds string // of the relay, the initiator and the other side
	}{{"relay of Node, us", "NGG"}, {"relay of Node, both", "NGN"}, {"our relay, Node", "GNN"}, {"our relay, both", "GNG"}, {"our relay, both, the other way round", "GGN"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			net := newTestnet(t, "GN")
			n := startScript(t, "relays.js")
			var key noise.Key
			var ours *blindrelay.Server
			if c.kinds[0] == 'N' {
				k := call[struct{ Key string }](n, "blind", args{"name": "relay", "bootstrap": net.seeds(), "seed": seed(91)}).Key
				raw, err := hex.DecodeString(k)
				if err != nil {
					t.Fatal(err)
				}
				key = noise.Key(raw)
			} else {
				key, ours = ourBlindRelay(t, net, 90)
			}
			token := blindrelay.Token{1, 2, 3}
			var peers [2]pairedPeer
			paired := make(chan error, 2)
			for i, kind := range c.kinds[1:] {
				go func() {
					if kind == 'G' {
						p, err := ourPair(t, net, key, i == 0, token)
						peers[i] = p
						paired <- err
						return
					}
					name := fmt.Sprint("peer", i)
					peers[i] = &nodePaired{n, name}
					paired <- n.p.Call(t.Context(), "pair", args{
						"name": name, "bootstrap": net.seeds(), "relay": hex.EncodeToString(key[:]), "initiator": i == 0, "token": hex.EncodeToString(token[:]),
					}, nil)
				}()
			}
			if err := errors.Join(<-paired, <-paired); err != nil {
				t.Fatal(err)
			}
			for round := range 3 {
				heard := make(chan error, 2)
				for i, p := range peers {
					go func() {
						got, err := p.say(fmt.Sprint("round ", round, " of ", i))
						if want := fmt.Sprint("round ", round, " of ", 1-i); err == nil && got != want {
							err = fmt.Errorf("heard %q, want %q", got, want)
						}
						heard <- err
					}()
				}
				if err := errors.Join(<-heard, <-heard); err != nil {
					t.Fatal(err)
				}
			}
			if ours != nil {
				if st := ours.Stats(); st.Links != 1 || st.Matched != 1 || st.Sessions != 2 {
					t.Errorf("the relay has %+v", st)
				}
			}
			peers[0].close()
			if ours != nil {
				for deadline := time.Now().Add(10 * time.Second); ours.Stats().Links > 0; time.Sleep(10 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("the streams outlive a peer")
					}
				}
			}
			peers[1].close()
		})
	}
}
