package natlab_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/blindrelay"
	"github.com/cloudbevy/bevy/hyper/dhtrelay"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/internal/natlab"
)

// subjectEnv makes the test binary a subject of the laboratory of networks.
const subjectEnv = "BEVY_NATLAB_SUBJECT"

func TestMain(m *testing.M) {
	if os.Getenv(subjectEnv) == "" {
		os.Exit(m.Run())
	}
	err := natlab.Serve(context.Background(), os.Stdin, os.Stdout, func(n natlab.Network) natlab.Subject {
		return &goSubject{machine: packet.System, network: n, door: func(ctx context.Context) (*dhtrelay.Client, error) {
			return dhtrelay.Dial(ctx, n.Door, dhtrelay.ClientOptions{})
		}}
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// openNode opens a node that has joined the network, for as long as the test
// goes.
func openNode(t *testing.T, machine packet.Network, o hyperdht.Options) *hyperdht.DHT {
	t.Helper()
	o.Network = machine
	d, err := hyperdht.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Bootstrapped(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// startDHT makes a network of nodes of ours, and returns how to join it.
func startDHT(t *testing.T, addrs []netip.Addr, machine func(netip.Addr) packet.Network) (bootstrap []string) {
	t.Helper()
	bootstrap = []string{}
	for i, addr := range addrs {
		o := hyperdht.Options{Bind: addr, Open: true, Node: true, Bootstrap: bootstrap}
		if i == 0 {
			o.Public, o.FixedPort = netip.AddrPortFrom(addr, hyperdht.DefaultPort), true
		}
		openNode(t, machine(addr), o)
		if i == 0 {
			bootstrap = []string{o.Public.String()}
		}
	}
	return bootstrap
}

// startRelay makes a node a blind relay, and returns its key.
func startRelay(t *testing.T, d *hyperdht.DHT) string {
	t.Helper()
	relay := blindrelay.NewServer(blindrelay.Options{UDX: d.UDX()})
	t.Cleanup(func() { relay.Close() })
	return serveOn(t, d, func(c *hyperdht.Conn) { _ = relay.Serve(context.Background(), c) })
}

// serveOn has a node listen with its key, which is returned.
func serveOn(t *testing.T, d *hyperdht.DHT, serve func(*hyperdht.Conn)) string {
	t.Helper()
	server, err := d.Listen(t.Context(), d.KeyPair(), hyperdht.ServerOptions{Serve: serve})
	if err != nil {
		t.Fatal(err)
	}
	return hexKey(server.Key())
}

func hexKey(k noise.Key) string { return hex.EncodeToString(k[:]) }

// startDoor makes a node the door for those without UDP.
func startDoor(t *testing.T, d *hyperdht.DHT) *dhtrelay.Server {
	door := dhtrelay.NewServer(dhtrelay.Over(d), dhtrelay.ServerOptions{})
	t.Cleanup(func() { door.Close() })
	return door
}

// goSubject is a subject of ours, on a machine of the laboratory or one in
// memory.
type goSubject struct {
	machine packet.Network
	network natlab.Network
	door    func(context.Context) (*dhtrelay.Client, error) // to the network, without UDP; nil if there is none

	mu     sync.Mutex
	server io.Closer // guarded by mu
	client *goClient // guarded by mu
}

// A goClient is a node with a connection, or the client of a door with one.
type goClient struct {
	s       *goSubject
	dht     *hyperdht.DHT
	door    *dhtrelay.Client
	key     noise.Key
	options hyperdht.ConnectOptions
	conn    messages
}

// messages are an encrypted connection, whichever way it goes.
type messages interface {
	ReadMessage([]byte) ([]byte, error)
	WriteMessage([]byte) error
	Close() error
}

// joinTime is how long a subject waits for the first answer of the network,
// before it takes it that there is no UDP.
const joinTime = 600 * time.Millisecond

// node makes a new node that has joined the network; or if it can't, a client of
// the door.
func (s *goSubject) node(ctx context.Context) (*hyperdht.DHT, *dhtrelay.Client, error) {
	d, err := hyperdht.Open(hyperdht.Options{Network: s.machine, Bootstrap: s.network.Bootstrap})
	if err != nil {
		return nil, nil, err
	}
	joining, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	_ = d.Bootstrapped(joining)
	if s.door == nil || len(d.Node().Nodes(1)) > 0 { // there is UDP
		if err := d.Bootstrapped(ctx); err != nil {
			return nil, nil, errors.Join(err, d.Close())
		}
		return d, nil, nil
	}
	if err := d.Close(); err != nil {
		return nil, nil, err
	}
	door, err := s.door(ctx)
	return nil, door, err
}

func echoAll(c messages) {
	defer c.Close()
	for {
		message, err := c.ReadMessage(nil)
		if err != nil || c.WriteMessage(message) != nil {
			return
		}
	}
}

func (s *goSubject) Listen(ctx context.Context) (string, error) {
	if err := s.setServer(nil); err != nil {
		return "", err
	}
	d, door, err := s.node(ctx)
	if err != nil {
		return "", err
	}
	if door != nil {
		if err := s.setServer(door); err != nil {
			return "", err
		}
		l, err := door.Listen(ctx, dhtrelay.ListenOptions{})
		if err != nil {
			return "", err
		}
		go func() {
			for {
				c, err := l.Accept(context.Background())
				if err != nil {
					return
				}
				go echoAll(c)
			}
		}()
		return hexKey(l.Key()), nil
	}
	if err := s.setServer(d); err != nil {
		return "", err
	}
	server, err := d.Listen(ctx, d.KeyPair(), hyperdht.ServerOptions{Serve: func(c *hyperdht.Conn) { echoAll(c) }})
	if err != nil {
		return "", err
	}
	return hexKey(server.Key()), nil
}

// setServer closes the last server's node.
func (s *goSubject) setServer(d io.Closer) error {
	s.mu.Lock()
	old := s.server
	s.server = d
	s.mu.Unlock()
	if old != nil {
		return old.Close()
	}
	return nil
}

// setClient closes the last client's node, and its connection with it.
func (s *goSubject) setClient(c *goClient) error {
	s.mu.Lock()
	old := s.client
	s.client = c
	s.mu.Unlock()
	switch {
	case old == nil:
		return nil
	case old.door != nil:
		return old.door.Close()
	}
	return old.dht.Close()
}

func (s *goSubject) Connect(ctx context.Context, key string, through bool, within time.Duration) (natlab.Result, error) {
	if err := s.setClient(nil); err != nil {
		return natlab.Result{}, err
	}
	c := &goClient{s: s}
	var err error
	if c.key, err = noise.ParseKey(key); err != nil {
		return natlab.Result{}, err
	}
	if through {
		relay, err := noise.ParseKey(s.network.Relay.Key)
		if err != nil {
			return natlab.Result{}, err
		}
		c.options.RelayThrough = []noise.Key{relay}
	}
	started := time.Now()
	if c.dht, c.door, err = s.node(ctx); err != nil {
		return natlab.Result{}, err
	}
	if err := s.setClient(c); err != nil {
		return natlab.Result{}, err
	}
	if c.dht != nil {
		started = time.Now() // else finding out that there is no UDP counts
	}
	err = c.dial(ctx, within)
	return c.result(started, err), nil
}

func (c *goClient) result(started time.Time, err error) natlab.Result {
	r := natlab.Result{Path: natlab.None, Ms: float64(time.Since(started).Microseconds()) / 1000}
	if err != nil {
		r.Error = err.Error()
		return r
	}
	r.Path = natlab.Relayed
	if conn, ok := c.conn.(*hyperdht.Conn); ok {
		r.Path = natlab.Path(conn.Path().Kind.String())
	}
	return r
}

// dial makes a connection and waits for the first echo over it.
func (c *goClient) dial(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if c.door != nil {
		conn, err := c.door.Connect(ctx, c.key, dhtrelay.ConnectOptions{})
		if err != nil {
			return err
		}
		c.conn = conn
		return c.echo(ctx)
	}
	conn, err := c.dht.Connect(ctx, c.key, c.options)
	if err != nil {
		return err
	}
	c.conn = conn
	return c.echo(ctx)
}

// echo waits until a message comes back.
func (c *goClient) echo(ctx context.Context) error {
	conn := c.conn
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.WriteMessage([]byte{1}); err != nil {
		return err
	}
	back, err := conn.ReadMessage(nil)
	if err != nil {
		return err
	}
	if !bytes.Equal(back, []byte{1}) {
		return fmt.Errorf("%x came back", back)
	}
	return nil
}

func (s *goSubject) Again(ctx context.Context, within time.Duration) (natlab.Result, error) {
	s.mu.Lock()
	c := s.client
	s.mu.Unlock()
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := c.echo(ctx)
	for err != nil && ctx.Err() == nil {
		err = c.dial(ctx, within)
	}
	return c.result(started, err), nil
}

func (s *goSubject) Drop(context.Context) error {
	return errors.Join(s.setClient(nil), s.setServer(nil))
}
