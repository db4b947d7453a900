package dhtrelay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A world is an internet in memory with a small DHT.
type world struct {
	t     *testing.T
	sim   *packet.Sim
	nodes []*hyperdht.DHT
	boot  []string
	hosts byte
}

// inWorld runs f in a world. When it returns everything must end.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, sim: packet.NewSim(clock.System, 1)}
		for i := range 4 {
			host := w.host()
			o := hyperdht.Options{Network: host, Open: true, Node: true, Bootstrap: w.boot}
			if i == 0 {
				o.Bootstrap, o.Public, o.FixedPort = []string{}, netip.AddrPortFrom(host.Addr(), hyperdht.DefaultPort), true
				w.boot = []string{o.Public.String()}
			}
			w.nodes = append(w.nodes, w.open(o))
		}
		f(t, w)
		for i := len(w.nodes) - 1; i >= 0; i-- {
			if err := w.nodes[i].Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func (w *world) host() *packet.SimHost {
	w.hosts++
	return w.sim.Host(netip.AddrFrom4([4]byte{24, 1, w.hosts, 7}))
}

func (w *world) open(o hyperdht.Options) *hyperdht.DHT {
	w.t.Helper()
	o.KeyPair = keys(w.hosts)
	d, err := hyperdht.Open(o)
	if err == nil {
		err = d.Bootstrapped(w.t.Context())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// peer opens a DHT on a machine of its own, which is closed with the world.
func (w *world) peer() *hyperdht.DHT {
	d := w.open(hyperdht.Options{Network: w.host(), Bootstrap: w.boot, Open: true})
	w.nodes = append(w.nodes, d)
	return d
}

// echo has a peer listen with a key, and send back what comes.
func (w *world) echo(b byte) noise.Key {
	w.t.Helper()
	_, err := w.peer().Listen(w.t.Context(), keys(b), hyperdht.ServerOptions{Serve: func(c *hyperdht.Conn) { echo(c.Stream) }})
	if err != nil {
		w.t.Fatal(err)
	}
	return keys(b).Public
}

func echo(s *secretstream.Stream) {
	defer s.Close()
	for {
		m, err := s.Next()
		if err == nil {
			err = s.WriteMessage(m)
		}
		if err != nil {
			s.CloseWrite()
			return
		}
	}
}

// echoes tells whether messages come back.
func echoes(t *testing.T, s *secretstream.Stream) {
	t.Helper()
	for _, size := range []int{1, 1000, 200_000} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if err := s.WriteMessage(want); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Next(); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes come back as %d, %v", size, len(got), err)
		}
	}
}

// relay is a relay on a node of the world.
func (w *world) relay(o ServerOptions) *Server {
	return NewServer(Over(w.nodes[1]), o)
}

// attachTo connects something to a relay. Served gets what Serve returns.
func attachTo(t *testing.T, s *Server) (stream *secretstream.Stream, served chan error) {
	t.Helper()
	a, b := streams(t)
	served = make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), b) }()
	return a, served
}

// through is a client of a relay.
func through(t *testing.T, s *Server, b byte) *Client {
	t.Helper()
	stream, _ := attachTo(t, s)
	c, err := NewClient(stream, ClientOptions{KeyPair: keys(b)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClientReachesAPeerThroughTheRelay(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		relay := w.relay(ServerOptions{})
		key := w.echo(200)
		c := through(t, relay, 150)
		s, err := c.Connect(t.Context(), key, ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if s.RemoteKey() != key || s.LocalKey() != keys(150).Public || !s.Initiator() {
			t.Errorf("a stream of %s to %s", s.LocalKey(), s.RemoteKey())
		}
		echoes(t, s)
		if err := s.CloseWrite(); err != nil {
			t.Error(err)
		}
		if _, err := s.Next(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
		s.Close()

		other, err := c.Connect(t.Context(), key, ConnectOptions{KeyPair: keys(151)})
		if err != nil {
			t.Fatal(err)
		}
		if other.LocalKey() != keys(151).Public {
			t.Errorf("a stream of %s", other.LocalKey())
		}
		echoes(t, other)
		if _, err := c.Connect(t.Context(), keys(77).Public, ConnectOptions{}); !errors.Is(err, ErrRelay) {
			t.Errorf("to nobody: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Connect(ctx, key, ConnectOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
		relay.Close()
		if _, err := other.Next(); err == nil {
			t.Error("a stream outlives the relay")
		}
		<-c.Done()
		if _, err := c.Connect(t.Context(), key, ConnectOptions{}); !errors.Is(err, ErrClosed) {
			t.Errorf("with the relay gone: %v", err)
		}
		c.Close()
	})
}

func TestClientIsReachedThroughTheRelay(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		relay := w.relay(ServerOptions{})
		c := through(t, relay, 150)
		denied := keys(66).Public
		l, err := c.Listen(t.Context(), ListenOptions{Check: func(k noise.Key) error {
			if k == denied {
				return errors.New("not you")
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		if l.Key() != keys(150).Public || !l.Addr().IsValid() {
			t.Errorf("it listens as %s at %v", l.Key(), l.Addr())
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			for {
				s, err := l.Accept(t.Context())
				if err != nil {
					return
				}
				serving.Go(func() { echo(s) })
			}
		})
		d := w.peer()
		for range 3 {
			conn, err := d.Connect(t.Context(), l.Key(), hyperdht.ConnectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			echoes(t, conn.Stream)
			conn.Close()
		}
		if conn, err := d.Connect(t.Context(), l.Key(), hyperdht.ConnectOptions{KeyPair: keys(66)}); err == nil {
			conn.Close()
			t.Error("who is refused gets in")
		}

		// Another client, of another relay, reaches it, too.
		second := NewServer(Over(w.nodes[2]), ServerOptions{})
		c2 := through(t, second, 160)
		s, err := c2.Connect(t.Context(), l.Key(), ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		echoes(t, s)

		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := l.Accept(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
		echoes(t, s) // goes on
		time.Sleep(time.Minute)
		if conn, err := d.Connect(t.Context(), l.Key(), hyperdht.ConnectOptions{}); err == nil {
			conn.Close()
			t.Error("a listener that was closed is still reached")
		}
		s.Close()
		c.Close()
		c2.Close()
		serving.Wait()
		relay.Close()
		second.Close()
	})
}

func TestClientAnnouncesAndLooksUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		relay := w.relay(ServerOptions{})
		c := through(t, relay, 150)
		topic := [32]byte{7}
		find := func() (n int) {
			t.Helper()
			err := c.Lookup(t.Context(), topic, func(f hyperdht.Found) {
				for _, p := range f.Peers {
					if p.Key == keys(150).Public {
						n++
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n := find(); n != 0 {
			t.Errorf("%d nodes know it before", n)
		}
		if err := c.Announce(t.Context(), topic, noise.KeyPair{}, nil); err != nil {
			t.Fatal(err)
		}
		if n := find(); n == 0 {
			t.Error("nobody knows it")
		}
		if err := c.Unannounce(t.Context(), topic, noise.KeyPair{}, nil); err != nil {
			t.Fatal(err)
		}
		if n := find(); n != 0 {
			t.Errorf("%d nodes know it afterwards", n)
		}
		c.Close()
		relay.Close()
	})
}

func TestRelayKeepsToItsLimits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		relay := w.relay(ServerOptions{
			Limits: Limits{Clients: 2, Streams: 2, Servers: 1, Queries: 1},
			Allow:  func(k noise.Key) bool { return k != keys(66).Public },
		})
		key := w.echo(200)
		c := through(t, relay, 150)
		var open []*secretstream.Stream
		for range 2 {
			s, err := c.Connect(t.Context(), key, ConnectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, s)
		}
		synctest.Wait() // a stream that begins must not wait for one that writes: time stands still while it does
		if _, err := c.Connect(t.Context(), key, ConnectOptions{}); !errors.Is(err, ErrRelay) {
			t.Errorf("a stream too many: %v", err)
		}
		open[0].Close()
		time.Sleep(lingerTime + time.Second)
		if s, err := c.Connect(t.Context(), key, ConnectOptions{}); err != nil {
			t.Errorf("a stream in place of another: %v", err)
		} else {
			echoes(t, s)
		}
		if _, err := c.Listen(t.Context(), ListenOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Listen(t.Context(), ListenOptions{KeyPair: keys(151)}); !errors.Is(err, ErrRelay) {
			t.Errorf("a server too many: %v", err)
		}
		stranger, served := attachTo(t, relay)
		s, err := NewClient(stranger, ClientOptions{KeyPair: keys(66)})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-served; err == nil {
			t.Error("a client that isn't allowed is served")
		}
		s.Close()
		through(t, relay, 152)
		synctest.Wait()
		stranger, served = attachTo(t, relay)
		if err := <-served; !errors.Is(err, ErrTooMany) {
			t.Errorf("a client too many: %v", err)
		}
		stranger.Close()
		if n := relay.Clients(); n != 2 {
			t.Errorf("%d clients", n)
		}
		relay.Close()
		c.Close()
	})
}

// deaf is a DHT whose only peer never reads.
type deaf struct{ DHT }

func (deaf) Connect(ctx context.Context, remote noise.Key, owner Owner) (Conn, error) {
	ours := owner.Handshake()
	theirs, err := newHandshake(noise.Config{Static: keys(200)})
	if err != nil {
		return Conn{}, err
	}
	first, err := ours.Send(ctx, []byte("hello"))
	if err != nil {
		return Conn{}, err
	}
	if _, err := theirs.ReadMessage(first); err != nil {
		return Conn{}, err
	}
	second, err := theirs.WriteMessage(nil, []byte("hello"))
	if err != nil {
		return Conn{}, err
	}
	if _, err := ours.Receive(ctx, second); err != nil {
		return Conn{}, err
	}
	raw, _ := transport.Pipe()
	return Conn{raw, ours}, nil
}

// What is kept for peers that don't read is bounded for the relay, and given
// back.
func TestMemoryOfSlowPeersIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := NewServer(deaf{}, ServerOptions{Limits: Limits{Memory: 1 << 19}})
		stream, _ := attachTo(t, relay)
		c, err := NewClient(stream, ClientOptions{Stream: secretstream.Options{KeepAlive: -1}})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		var mu sync.Mutex
		full, stalled := 0, 0
		var open []*secretstream.Stream
		for range 20 {
			s, err := c.Connect(t.Context(), keys(200).Public, ConnectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, s)
		}
		synctest.Wait() // a stream that begins must not wait for one that writes: time stands still while it does
		for _, s := range open {
			all.Go(func() {
				var err error
				for err == nil {
					err = s.WriteMessage(make([]byte, 20_000))
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case strings.Contains(err.Error(), ErrStalled.Error()):
					stalled++
				case strings.Contains(err.Error(), ErrTooMany.Error()):
					full++
				default:
					t.Errorf("a stream ends with %v", err)
				}
				s.Close()
			})
		}
		var most int64
		watching, stop := context.WithCancel(t.Context())
		all.Go(func() {
			for watching.Err() == nil {
				most = max(most, relay.memory.used.Load())
				time.Sleep(time.Second)
			}
		})
		time.Sleep(time.Hour)
		stop()
		all.Wait()
		if most > 1<<19 || most < streamBuffer || full == 0 || stalled == 0 {
			t.Errorf("%d bytes were kept; of 20 streams %d ended because it was full and %d because they were not read", most, full, stalled)
		}
		c.Close()
		relay.Close()
		if used := relay.memory.used.Load(); used != 0 {
			t.Errorf("%d bytes are never given back", used)
		}
	})
}

// rawClient says to a relay what it likes.
func rawClient(t *testing.T, relay *Server, say func(c *protomux.Channel)) (served chan error, mux *protomux.Mux) {
	t.Helper()
	stream, served := attachTo(t, relay)
	mux = protomux.New(protomux.Options{})
	c, err := mux.Open(protomux.ChannelOptions{Protocol: protocol})
	if err != nil {
		t.Fatal(err)
	}
	say(c)
	go mux.Serve(context.Background(), stream)
	return served, mux
}

func hello(c *protomux.Channel) { c.Send(numHandshake, write(&handshakeMsg{key: keys(150).Public})) }

func TestHostileClientEndsItsOwnConnectionOnly(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		relay := w.relay(ServerOptions{})
		good := through(t, relay, 151)
		wrong := [64]byte{1}
		for name, say := range map[string]func(*protomux.Channel){
			"nothing said first": func(c *protomux.Channel) { c.Send(numLookup, write(&lookupMsg{})) },
			"connect before":     func(c *protomux.Channel) { c.Send(numConnect, write(&connectMsg{})) },
			"listen before":      func(c *protomux.Channel) { c.Send(numListen, write(&listenMsg{})) },
			"another's key": func(c *protomux.Channel) {
				hello(c)
				c.Send(numListen, write(&listenMsg{custodial: true, key: keys(1).Public, secret: wrong}))
			},
			"a number twice": func(c *protomux.Channel) {
				hello(c)
				c.Send(numListen, write(&listenMsg{alias: 1, key: keys(150).Public}))
				c.Send(numListen, write(&listenMsg{alias: 1, key: keys(150).Public}))
			},
			"a stream twice": func(c *protomux.Channel) {
				hello(c)
				c.Send(numConnect, write(&connectMsg{alias: 1, remote: keys(9).Public}))
				c.Send(numConnect, write(&connectMsg{alias: 1, remote: keys(9).Public}))
			},
		} {
			served, _ := rawClient(t, relay, say)
			if err := <-served; err == nil {
				t.Errorf("%s: the relay ends in order", name)
			}
		}
		for number := range numMessages {
			if number == numPing || number == numPong || number >= numConnection && number < numConnected {
				continue
			}
			served, mux := rawClient(t, relay, func(c *protomux.Channel) { hello(c); c.Send(number, []byte{1}) })
			select {
			case err := <-served:
				if !errors.Is(err, ErrProtocol) {
					t.Errorf("half of message %d: %v", number, err)
				}
			case <-time.After(time.Second): // it isn't one for relays
				if isFor(number) {
					t.Errorf("half of message %d is taken", number)
				}
				mux.Destroy(nil)
				<-served
			}
		}
		if err := good.Lookup(t.Context(), [32]byte{1}, nil); err != nil {
			t.Errorf("another client: %v", err)
		}
		good.Close()
		relay.Close()
	})
}

// isFor reports whether a message goes to a relay.
func isFor(number int) bool {
	switch number {
	case numHandshake, numConnect, numConnected, numDeny, numAccept, numDestroy, numListen, numClose, numEnd, numData, numLookup, numAnnounce, numUnannounce, numSignature, numNoiseReply:
		return true
	}
	return false
}

// A client that leaves everything unanswered takes room for a while only.
func TestSilentClientIsNotWaitedFor(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		relay := w.relay(ServerOptions{})
		served, mux := rawClient(t, relay, func(c *protomux.Channel) {
			hello(c)
			c.Send(numConnect, write(&connectMsg{alias: 3, key: keys(150).Public, remote: keys(9).Public}))
			c.Send(numListen, write(&listenMsg{alias: 1, key: keys(150).Public}))
			c.Send(numAnnounce, write(&announceMsg{id: 2, key: keys(150).Public}))
			c.Send(numDestroy, write(&destroyMsg{paired: true, alias: 3}))
			c.Send(numDestroy, write(&destroyMsg{alias: 3}))
			c.Send(numData, dataHead(99, 1), []byte{1})
			c.Send(numEnd, write(&numberMsg{99}))
			c.Send(numClose, write(&numberMsg{99}))
			c.Send(numConnected, write(&connectedMsg{1, 2}))
			c.Send(numNoiseReply, write(&noiseReplyMsg{id: 77}))
			c.Send(numSignature, write(&signatureMsg{77, make([]byte, 64)}))
			c.Send(numAccept, write(&numberMsg{77}))
		})
		begun := time.Now()
		if err := <-served; !errors.Is(err, ErrTimeout) {
			t.Errorf("it ends with %v", err)
		}
		if d := time.Since(begun); d > silence+heartbeat {
			t.Errorf("it ends after %v", d)
		}
		mux.Destroy(nil)
		if n := relay.Clients(); n != 0 {
			t.Errorf("%d clients are left", n)
		}
		relay.Close()
	})
}

func TestHandshakeThatAClientLeavesUnansweredIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := NewServer(deaf{}, ServerOptions{})
		c, _ := newCustodial(t, relay, 150)
		begun := time.Now()
		for i := range uint32(20) {
			c.c.Send(numConnect, write(&connectMsg{alias: i, key: keys(150).Public, remote: keys(200).Public}))
		}
		for range 20 {
			c.hears(t, numNoiseSend, &noiseSendMsg{})
		}
		for range 20 {
			var m destroyMsg
			if c.hears(t, numDestroy, &m); m.paired || !strings.Contains(m.reason, "no answer") {
				t.Errorf("%+v", m)
			}
		}
		if d := time.Since(begun); d != answerTime {
			t.Errorf("it takes %v", d)
		}
		c.mux.Close()
		relay.Close()
	})
}

// rawRelay answers a client as answer likes.
func rawRelay(t *testing.T, answer map[int]func(c *protomux.Channel, payload []byte)) *Client {
	t.Helper()
	a, b := streams(t)
	mux := protomux.New(protomux.Options{})
	handlers := make([]func(*protomux.Channel, []byte) error, numMessages)
	for number, f := range answer {
		handlers[number] = func(c *protomux.Channel, payload []byte) error { f(c, payload); return nil }
	}
	if _, err := mux.Open(protomux.ChannelOptions{Protocol: protocol, Messages: handlers}); err != nil {
		t.Fatal(err)
	}
	go mux.Serve(context.Background(), b)
	c, err := NewClient(a, ClientOptions{KeyPair: keys(150)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestHostileRelayGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		other := keys(7)
		for name, on := range map[string]func(c *protomux.Channel, m *connectMsg){
			"a stream without a handshake": func(c *protomux.Channel, m *connectMsg) {
				c.Send(numOpen, write(&openMsg{alias: 5, remote: m.alias, handshakeID: 9}))
			},
			"a stream that is custodial": func(c *protomux.Channel, m *connectMsg) {
				c.Send(numOpen, write(&openMsg{custodial: true, alias: 5, remote: m.alias}))
			},
			"a handshake that isn't done": func(c *protomux.Channel, m *connectMsg) {
				c.Send(numNoiseSend, write(&noiseSendMsg{initiator: true, id: 9, stream: m.alias}))
				c.Send(numOpen, write(&openMsg{alias: 5, remote: m.alias, handshakeID: 9}))
			},
			"an answer that is none": func(c *protomux.Channel, m *connectMsg) {
				c.Send(numNoiseSend, write(&noiseSendMsg{initiator: true, id: 9, stream: m.alias}))
				c.Send(numNoiseReceive, write(&noiseReceiveMsg{initiator: true, id: 9, payload: make([]byte, 80)}))
				c.Send(numOpen, write(&openMsg{alias: 5, remote: m.alias, handshakeID: 9}))
			},
			"two of one number": func(c *protomux.Channel, m *connectMsg) {
				c.Send(numNoiseSend, write(&noiseSendMsg{initiator: true, id: 9, stream: m.alias}))
				c.Send(numNoiseSend, write(&noiseSendMsg{initiator: true, id: 9, stream: m.alias}))
			},
			"no": func(c *protomux.Channel, m *connectMsg) {
				c.Send(numDestroy, write(&destroyMsg{alias: m.alias, reason: "no"}))
			},
			"half a message": func(c *protomux.Channel, m *connectMsg) { c.Send(numOpen, []byte{0, 1}) },
		} {
			c := rawRelay(t, map[int]func(*protomux.Channel, []byte){numConnect: func(ch *protomux.Channel, b []byte) {
				var m connectMsg
				if err := read(b, &m); err != nil {
					t.Error(err)
				}
				on(ch, &m)
			}})
			if s, err := c.Connect(ctx, other.Public, ConnectOptions{}); err == nil {
				s.Close()
				t.Errorf("%s: connected to %s", name, s.RemoteKey())
			} else if errors.Is(err, context.DeadlineExceeded) && name != "two of one number" {
				t.Errorf("%s: %v", name, err)
			}
			c.Close()
		}

		// It can't have a client sign for something else, or let somebody in.
		var mu sync.Mutex
		var said []string
		hears := func(what string) func(*protomux.Channel, []byte) {
			return func(*protomux.Channel, []byte) { mu.Lock(); said = append(said, what); mu.Unlock() }
		}
		c := rawRelay(t, map[int]func(*protomux.Channel, []byte){
			numSignature: hears("signature"), numAccept: hears("accept"), numDeny: hears("deny"), numNoiseReply: hears("noise"), numConnected: hears("connected"),
			numListen: func(ch *protomux.Channel, b []byte) {
				var m listenMsg
				read(b, &m)
				ch.Send(numSignAnnounce, write(&signMsg{signee: 99, peer: make([]byte, 32)}))
				ch.Send(numSignAnnounce, write(&signMsg{signee: m.alias, peer: []byte{1}}))
				ch.Send(numListening, write(&listeningMsg{alias: 5, remote: m.alias, addr: netip.MustParseAddrPort("1.2.3.4:5")}))
				ch.Send(numListening, write(&listeningMsg{alias: 6, remote: m.alias}))
				ch.Send(numIncoming, write(&incomingMsg{id: 1, server: 5}))
				ch.Send(numConnection, write(&connectionMsg{alias: 9, server: 5, remote: other.Public, handshakeID: 3}))
				ch.Send(numConnection, write(&connectionMsg{alias: 9, server: 77}))
				ch.Send(numNoiseReceive, write(&noiseReceiveMsg{id: 3, server: 77}))
				ch.Send(numData, dataHead(4, 1), []byte{1})
				ch.Send(numEnd, write(&numberMsg{4}))
				ch.Send(numClosed, write(&numberMsg{4}))
				ch.Send(numResult, write(&resultMsg{4, write(&foundMsg{})}))
				ch.Send(numFinished, write(&numberMsg{4}))
				ch.Send(numDestroy, write(&destroyMsg{paired: true, alias: 4}))
			},
		})
		if _, err := c.Listen(ctx, ListenOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		mu.Lock()
		if fmt.Sprint(said) != "[deny]" {
			t.Errorf("the client answers %v", said)
		}
		mu.Unlock()
		if c.Err() != nil {
			t.Errorf("the client ends with %v", c.Err())
		}
		c.Close()
	})
}

// A relay of the npm package dies of a second reply to what it asks twice.
func TestClientRepliesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		replies := 0
		c := rawRelay(t, map[int]func(*protomux.Channel, []byte){
			numNoiseReply: func(*protomux.Channel, []byte) { mu.Lock(); replies++; mu.Unlock() },
			numListen: func(ch *protomux.Channel, b []byte) {
				var m listenMsg
				read(b, &m)
				ch.Send(numListening, write(&listeningMsg{alias: 5, remote: m.alias, addr: netip.MustParseAddrPort("1.2.3.4:5")}))
				h, err := newHandshake(noise.Config{Initiator: true, Static: keys(7), Remote: m.key})
				if err != nil {
					t.Error(err)
					return
				}
				first, _ := h.WriteMessage(nil, []byte("payload"))
				for range 3 {
					ch.Send(numNoiseReceive, write(&noiseReceiveMsg{id: 1, server: 5, payload: first}))
				}
			},
		})
		if _, err := c.Listen(t.Context(), ListenOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		mu.Lock()
		if replies != 1 {
			t.Errorf("%d replies", replies)
		}
		mu.Unlock()
		c.Close()
	})
}

// A relay of the npm package that has asked twice waits for ever.
func TestClientDialsAgainWhatARelayHasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := make(chan uint32, 10)
		given := make(chan uint32, 10)
		theirs := map[uint32]*noise.Handshake{}
		c := rawRelay(t, map[int]func(*protomux.Channel, []byte){
			numConnect: func(ch *protomux.Channel, b []byte) {
				var m connectMsg
				read(b, &m)
				dials <- m.alias
				ch.Send(numNoiseSend, write(&noiseSendMsg{initiator: true, id: m.alias, stream: m.alias, payload: []byte("hello")}))
			},
			numNoiseReply: func(ch *protomux.Channel, b []byte) {
				var m noiseReplyMsg
				read(b, &m)
				if m.complete {
					if len(dials) == 2 { // the second time all is well
						ch.Send(numOpen, write(&openMsg{alias: 77, remote: m.id, handshakeID: m.id}))
					}
					return
				}
				h, err := newHandshake(noise.Config{Static: keys(200)})
				if err != nil {
					t.Error(err)
				}
				theirs[m.id] = h
				h.ReadMessage(m.payload)
				answer, _ := h.WriteMessage(nil, []byte("hello"))
				for range 3 - len(dials) {
					ch.Send(numNoiseReceive, write(&noiseReceiveMsg{initiator: true, id: m.id, payload: answer}))
				}
			},
			numDestroy: func(ch *protomux.Channel, b []byte) {
				var m destroyMsg
				read(b, &m)
				given <- m.alias
			},
		})
		s, err := c.Connect(t.Context(), keys(200).Public, ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if first, gone := <-dials, <-given; first != gone || len(dials) != 1 || s.RemoteKey() != keys(200).Public {
			t.Errorf("dial %d of %d, and %d is given up", first, len(dials)+1, gone)
		}
		c.Close()
	})
}

// However many handshakes a relay begins and leaves, a client holds so many.
func TestClientBoundsHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := rawRelay(t, map[int]func(*protomux.Channel, []byte){numListen: func(ch *protomux.Channel, b []byte) {
			var m listenMsg
			read(b, &m)
			ch.Send(numListening, write(&listeningMsg{alias: 5, remote: m.alias, addr: netip.MustParseAddrPort("1.2.3.4:5")}))
			h, err := newHandshake(noise.Config{Initiator: true, Static: keys(7), Remote: m.key})
			if err != nil {
				t.Error(err)
				return
			}
			first, _ := h.WriteMessage(nil, []byte("payload"))
			for i := range uint32(maxHandshakes + 50) {
				ch.Send(numNoiseReceive, write(&noiseReceiveMsg{id: i, server: 5, payload: first}))
			}
		}})
		if _, err := c.Listen(t.Context(), ListenOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.mu.Lock()
		if len(c.handshakes) != maxHandshakes || len(c.newest) != maxHandshakes || c.handshakes[maxHandshakes+49] == nil {
			t.Errorf("%d handshakes, %d by age", len(c.handshakes), len(c.newest))
		}
		c.mu.Unlock()
		c.Close()
	})
}

// custodial speaks as clients of the npm package do that hand over their key.
type custodial struct {
	c    *protomux.Channel
	mux  *protomux.Mux
	said chan said
}

type said struct {
	number  int
	payload []byte
}

func newCustodial(t *testing.T, relay *Server, b byte) (c *custodial, secret [64]byte) {
	t.Helper()
	copy(secret[:32], bytes.Repeat([]byte{b}, 32))
	public := keys(b).Public
	copy(secret[32:], public[:])
	stream, _ := attachTo(t, relay)
	c = &custodial{mux: protomux.New(protomux.Options{}), said: make(chan said, 1000)}
	handlers := make([]func(*protomux.Channel, []byte) error, numMessages)
	for number := range handlers {
		if number != numPing {
			handlers[number] = func(_ *protomux.Channel, payload []byte) error {
				c.said <- said{number, bytes.Clone(payload)}
				return nil
			}
		}
	}
	var err error
	if c.c, err = c.mux.Open(protomux.ChannelOptions{Protocol: protocol, Messages: handlers}); err != nil {
		t.Fatal(err)
	}
	c.c.Send(numHandshake, write(&handshakeMsg{true, public, secret}))
	go c.mux.Serve(context.Background(), stream)
	return c, secret
}

// hears waits for a message.
func (c *custodial) hears(t *testing.T, number int, m message) {
	t.Helper()
	got := <-c.said
	if got.number != number {
		t.Fatalf("the relay says %d %x, want %d", got.number, got.payload, number)
	}
	if err := read(got.payload, m); err != nil {
		t.Fatal(err)
	}
}

// hearsData waits for one chunk.
func (c *custodial) hearsData(t *testing.T, alias uint32) string {
	t.Helper()
	got := <-c.said
	var all []byte
	err := readData(got.payload, func(a uint32, chunk []byte) bool {
		if a != alias {
			t.Errorf("data of stream %d, want %d", a, alias)
		}
		all = append(all, chunk...)
		return true
	})
	if got.number != numData || err != nil {
		t.Fatalf("the relay says %d %x, %v", got.number, got.payload, err)
	}
	return string(all)
}

func TestRelayKeepsTheKeysOfWhoHandsThemOver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		relay := w.relay(ServerOptions{})
		key := w.echo(200)
		c, secret := newCustodial(t, relay, 150)
		public := keys(150).Public

		c.c.Send(numConnect, write(&connectMsg{custodial: true, alias: 7, key: public, secret: secret, remote: key}))
		var open openMsg
		c.hears(t, numOpen, &open)
		if !open.custodial || open.remote != 7 || open.hash == [64]byte{} {
			t.Errorf("%+v", open)
		}
		c.c.Send(numData, dataHead(7, 5), []byte("hello"))
		if got := c.hearsData(t, open.alias); got != "hello" {
			t.Errorf("the peer says %q", got)
		}
		c.c.Send(numEnd, write(&numberMsg{7}))
		var end numberMsg
		if c.hears(t, numEnd, &end); end.number != open.alias {
			t.Errorf("stream %d ends, want %d", end.number, open.alias)
		}

		c.c.Send(numListen, write(&listenMsg{custodial: true, alias: 8, key: public, secret: secret}))
		var listening listeningMsg
		c.hears(t, numListening, &listening)
		connected := make(chan error, 2)
		d := w.peer()
		connect := func(b byte) {
			conn, err := d.Connect(t.Context(), public, hyperdht.ConnectOptions{KeyPair: keys(b)})
			if err == nil {
				conn.WriteMessage([]byte("hello"))
				var got []byte
				if got, err = conn.Next(); err == nil && string(got) != "hi" {
					err = fmt.Errorf("heard %q", got)
				}
				conn.Close()
			}
			connected <- err
		}
		for b, verdict := range map[byte]int{70: numAccept, 71: numDeny} {
			go connect(b)
			var in incomingMsg
			c.hears(t, numIncoming, &in)
			if in.remote != keys(b).Public || in.server != listening.alias || len(in.payload) == 0 {
				t.Errorf("%+v", in)
			}
			c.c.Send(verdict, write(&numberMsg{in.id}))
			if verdict == numDeny {
				if err := <-connected; err == nil {
					t.Error("who is denied gets in")
				}
				for len(c.said) > 0 { // it has asked more than once
					<-c.said
				}
				continue
			}
			var conn connectionMsg
			c.hears(t, numConnection, &conn)
			if !conn.custodial || conn.remote != keys(b).Public || conn.server != listening.alias || conn.hash == [64]byte{} {
				t.Errorf("%+v", conn)
			}
			c.c.Send(numConnected, write(&connectedMsg{alias: 9, remote: conn.alias}))
			c.c.Send(numData, dataHead(9, 2), []byte("hi"))
			if got := c.hearsData(t, conn.alias); got != "hello" {
				t.Errorf("the peer says %q", got)
			}
			if err := <-connected; err != nil {
				t.Error(err)
			}
			var gone destroyMsg
			switch got := <-c.said; got.number {
			case numEnd:
			case numDestroy:
				if read(got.payload, &gone); !gone.paired || gone.alias != conn.alias {
					t.Errorf("%+v", gone)
				}
			default:
				t.Errorf("the relay says %d", got.number)
			}
		}

		topic := [32]byte{1}
		c.c.Send(numAnnounce, write(&announceMsg{true, 20, topic, public, secret}))
		for got := range c.said {
			if got.number == numFinished {
				break
			}
		}
		found := 0
		if _, err := d.Lookup(t.Context(), topic, hyperdht.LookupOptions{Found: func(f hyperdht.Found) { found += len(f.Peers) }}); err != nil || found == 0 {
			t.Errorf("%d announcements, %v", found, err)
		}
		c.mux.Close()
		relay.Close()
	})
}
