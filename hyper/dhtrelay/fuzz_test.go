package dhtrelay

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/protomux"
)

// small is a DHT that does everything at once, with nobody on it but a deaf
// peer.
type small struct{ deaf }

func (small) Listen(_ context.Context, owner Owner, serve func(Conn)) (Listening, error) {
	return Listening{Addr: netip.MustParseAddrPort("1.2.3.4:5"), Close: func() error { return nil }}, nil
}

func (small) Lookup(_ context.Context, _ [32]byte, found func(hyperdht.Found)) error {
	found(hyperdht.Found{Peers: []hyperdht.Peer{{Key: keys(200).Public}}})
	return nil
}

func (s small) Announce(ctx context.Context, topic [32]byte, owner Owner, found func(hyperdht.Found)) error {
	_, err := owner.Sign(ctx, hyperdht.Signing{Target: topic, Peer: owner.Key})
	return err
}

func (s small) Unannounce(ctx context.Context, topic [32]byte, owner Owner, found func(hyperdht.Found)) error {
	return s.Announce(ctx, topic, owner, found)
}

// script sends messages: each is a number, a length and a payload.
func script(c *protomux.Channel, b []byte) {
	for len(b) >= 2 {
		number, size := int(b[0])%numMessages, min(int(b[1]), len(b)-2)
		c.Send(number, b[2:2+size])
		b = b[2+size:]
	}
}

// scripts are what is sensible to say, for a fuzzer to begin with.
func scripts(f *testing.F, messages map[int][]message) {
	var all []byte
	for number := range numMessages {
		for _, m := range messages[number] {
			b := write(m)
			if len(b) < 256 {
				one := append([]byte{byte(number), byte(len(b))}, b...)
				f.Add(one)
				all = append(all, one...)
			}
		}
	}
	f.Add(all)
}

// raw opens the channel over a stream, and serves it in the background.
func raw(t *testing.T, stream protomux.Stream) (*protomux.Mux, *protomux.Channel) {
	mux := protomux.New(protomux.Options{})
	c, err := mux.Open(protomux.ChannelOptions{Protocol: protocol})
	if err != nil {
		t.Fatal(err)
	}
	go mux.Serve(context.Background(), stream)
	return mux, c
}

// Whatever a client says, the relay ends in order when it does.
func FuzzRelay(f *testing.F) {
	scripts(f, samples())
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			relay := NewServer(small{}, ServerOptions{})
			x, y := plainStreams()
			go relay.Serve(context.Background(), y)
			mux, c := raw(t, x)
			hello(c)
			script(c, b)
			time.Sleep(time.Second)
			mux.Destroy(nil)
			relay.Close()
			if used := relay.memory.used.Load(); used != 0 || relay.Clients() != 0 {
				t.Errorf("%d bytes and %d clients are left", used, relay.Clients())
			}
		})
	})
}

// Whatever a relay says, the client ends in order when it does.
func FuzzClient(f *testing.F) {
	scripts(f, samples())
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			x, y := plainStreams()
			c, err := NewClient(x, ClientOptions{KeyPair: keys(150)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			go c.Connect(ctx, keys(200).Public, ConnectOptions{})
			go c.Listen(ctx, ListenOptions{})
			go c.Lookup(ctx, [32]byte{}, nil)
			synctest.Wait()
			mux, channel := raw(t, y)
			script(channel, b)
			time.Sleep(2 * time.Second)
			c.Close()
			mux.Destroy(nil)
			if used := c.memory.used.Load(); used != 0 {
				t.Errorf("%d bytes are left", used)
			}
		})
	})
}
