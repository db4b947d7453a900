package interop_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

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
		return &goSubject{machine: packet.System, network: n}
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// goSubject is a subject of ours, on a machine of the laboratory or one in
// memory.
type goSubject struct {
	machine packet.Network
	network natlab.Network

	mu     sync.Mutex
	server *hyperdht.DHT // guarded by mu
	client *goClient     // guarded by mu
}

// A goClient is a node with a connection.
type goClient struct {
	dht     *hyperdht.DHT
	key     noise.Key
	options hyperdht.ConnectOptions
	conn    *hyperdht.Conn
}

// node makes a new node that has joined the network.
func (s *goSubject) node(ctx context.Context) (*hyperdht.DHT, error) {
	d, err := hyperdht.Open(hyperdht.Options{Network: s.machine, Bootstrap: s.network.Bootstrap})
	if err != nil {
		return nil, err
	}
	if err := d.Bootstrapped(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (s *goSubject) Listen(ctx context.Context) (string, error) {
	if err := s.setServer(nil); err != nil {
		return "", err
	}
	d, err := s.node(ctx)
	if err != nil {
		return "", err
	}
	if err := s.setServer(d); err != nil {
		return "", err
	}
	server, err := d.Listen(ctx, d.KeyPair(), hyperdht.ServerOptions{Serve: func(c *hyperdht.Conn) {
		defer c.Close()
		for {
			message, err := c.ReadMessage(nil)
			if err != nil || c.WriteMessage(message) != nil {
				return
			}
		}
	}})
	if err != nil {
		return "", err
	}
	key := server.Key()
	return hex.EncodeToString(key[:]), nil
}

// setServer closes the last server's node.
func (s *goSubject) setServer(d *hyperdht.DHT) error {
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
	if old != nil {
		return old.dht.Close()
	}
	return nil
}

func (s *goSubject) Connect(ctx context.Context, key string, through bool, within time.Duration) (natlab.Result, error) {
	if err := s.setClient(nil); err != nil {
		return natlab.Result{}, err
	}
	c := &goClient{}
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
	if c.dht, err = s.node(ctx); err != nil {
		return natlab.Result{}, err
	}
	if err := s.setClient(c); err != nil {
		return natlab.Result{}, err
	}
	started := time.Now()
	err = c.dial(ctx, within)
	return c.result(started, err), nil
}

func (c *goClient) result(started time.Time, err error) natlab.Result {
	r := natlab.Result{Path: natlab.None, Ms: float64(time.Since(started).Microseconds()) / 1000}
	if err != nil {
		r.Error = err.Error()
		return r
	}
	r.Path = natlab.Path(c.conn.Path().Kind.String())
	return r
}

// dial makes a connection and waits for the first echo over it.
func (c *goClient) dial(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var err error
	if c.conn, err = c.dht.Connect(ctx, c.key, c.options); err != nil {
		return err
	}
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
