package blindrelay

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// socket opens a socket on a machine of its own.
func socket(t *testing.T, sim *packet.Sim, last byte) (*udx.UDX, *udx.Socket) {
	t.Helper()
	host := sim.Host(netip.AddrFrom4([4]byte{24, 0, last, 1}))
	u := udx.New(udx.Options{Network: host, Clock: clock.System})
	s, err := u.Listen(netip.AddrPortFrom(host.Addr(), 4000), udx.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return u, s
}

// throughRelay pairs and connects two streams.
func throughRelay(t *testing.T, s *Server, relay *udx.Socket, token Token, clients [2]*Client, us [2]*udx.UDX, sockets [2]*udx.Socket) (ends [2]*udx.Stream) {
	t.Helper()
	var both sync.WaitGroup
	for i := range ends {
		end, err := us[i].NewStream(udx.StreamOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = end
		both.Go(func() {
			id, err := clients[i].Pair(t.Context(), i == 1, token, end.ID())
			if err == nil {
				err = end.Connect(sockets[i], id, relay.LocalAddr())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	return ends
}

// meet lets each end send something. Before that the relay doesn't know where
// it is.
func meet(t *testing.T, ends [2]*udx.Stream) {
	t.Helper()
	for _, end := range ends {
		if _, err := end.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
	}
	for _, end := range ends {
		if _, err := io.ReadFull(end, make([]byte, 5)); err != nil {
			t.Error(err)
		}
	}
}

func TestStreamsGoThroughTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := packet.NewSim(clock.System, 1)
		ru, relay := socket(t, sim, 1)
		s := NewServer(Options{UDX: ru})
		var us [2]*udx.UDX
		var sockets [2]*udx.Socket
		var clients [2]*Client
		for i := range us {
			us[i], sockets[i] = socket(t, sim, byte(2+i))
			clients[i], _ = client(t, s, byte(1+i))
		}
		ends := throughRelay(t, s, relay, Token{1}, clients, us, sockets)
		data := bytes.Repeat([]byte("all of this goes through a relay"), 40_000)
		var both sync.WaitGroup
		for i, end := range ends {
			both.Go(func() {
				if _, err := end.Write(data); err != nil {
					t.Error(err)
				}
				if err := end.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			both.Go(func() {
				got, err := io.ReadAll(ends[1-i])
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d of %d bytes arrive, %v", len(got), len(data), err)
				}
			})
		}
		both.Wait()
		if st := s.Stats(); st.Links != 1 || st.Bytes < uint64(2*len(data)) || st.Packets == 0 {
			t.Errorf("the relay has counted %+v", st)
		}
		for _, st := range s.Sessions() {
			if st.Bytes < uint64(len(data)) || st.Links != 1 {
				t.Errorf("of one client %+v", st)
			}
		}
		for i := range ends {
			ends[i].Close()
			clients[i].Close()
		}
		synctest.Wait()
		if n := relay.Streams(); n != 0 {
			t.Errorf("the relay has %d streams left", n)
		}

		// A stream that its owner drops ends the other, and is forgotten.
		for i := range clients {
			clients[i], _ = client(t, s, byte(1+i))
		}
		ends = throughRelay(t, s, relay, Token{2}, clients, us, sockets)
		meet(t, ends)
		ends[0].Destroy()
		if _, err := ends[1].Read(make([]byte, 1)); !errors.Is(err, udx.ErrReset) {
			t.Errorf("the other end: %v", err)
		}
		synctest.Wait()
		if st := s.Stats(); st.Links != 0 || relay.Streams() != 0 {
			t.Errorf("the relay has %+v", st)
		}
		for i := range ends {
			ends[i].Close()
			clients[i].Close()
		}
		s.Close()
	})
}

// A client gets no more through than its rate, and the streams adapt to that.
func TestRateOfASessionIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 200_000
		sim := packet.NewSim(clock.System, 1)
		ru, relay := socket(t, sim, 1)
		s := NewServer(Options{UDX: ru, Limits: Limits{SessionRate: rate}})
		var us [2]*udx.UDX
		var sockets [2]*udx.Socket
		var clients [2]*Client
		for i := range us {
			us[i], sockets[i] = socket(t, sim, byte(2+i))
			clients[i], _ = client(t, s, byte(1+i))
		}
		ends := throughRelay(t, s, relay, Token{1}, clients, us, sockets)
		meet(t, ends)
		begun := time.Now()
		go func() {
			ends[0].Write(make([]byte, 10*rate))
			ends[0].CloseWrite()
		}()
		n, err := io.Copy(io.Discard, ends[1])
		took := time.Since(begun)
		if err != nil || n != 10*rate || took < 8*time.Second || took > 60*time.Second {
			t.Errorf("%d bytes in %v, %v", n, took, err)
		}
		if st := s.Stats(); st.Dropped == 0 {
			t.Errorf("the relay has counted %+v", st)
		}
		for i := range ends {
			ends[i].Close()
			clients[i].Close()
		}
		s.Close()
	})
}

// A conn is a connection that goes over a stream of the relay.
type conn struct {
	*secretstream.Stream
	raw *udx.Stream
}

func (c conn) Raw() *udx.Stream { return c.raw }

// What one peer says first arrives although the other has said nothing: the
// relay knows from their connections where they are.
func TestFirstPacketsArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := packet.NewSim(clock.System, 1)
		ru, relay := socket(t, sim, 1)
		s := NewServer(Options{UDX: ru})
		var us [2]*udx.UDX
		var sockets [2]*udx.Socket
		var clients [2]*Client
		for i := range us {
			us[i], sockets[i] = socket(t, sim, byte(2+i))
			raw, err := ru.NewStream(udx.StreamOptions{})
			if err == nil {
				err = raw.Connect(relay, 1, sockets[i].LocalAddr())
			}
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Destroy()
			x, y := transport.Pipe()
			go func() {
				stream, err := secretstream.Server(t.Context(), y, secretstream.Options{KeyPair: keys(99)})
				if err == nil {
					s.Serve(t.Context(), conn{stream, raw})
				}
			}()
			stream, err := secretstream.Client(t.Context(), x, secretstream.Options{KeyPair: keys(byte(1 + i))})
			if err != nil {
				t.Fatal(err)
			}
			if clients[i], err = NewClient(stream); err != nil {
				t.Fatal(err)
			}
		}
		ends := throughRelay(t, s, relay, Token{1}, clients, us, sockets)
		begun := time.Now()
		if _, err := ends[0].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		ends[1].SetReadDeadline(begun.Add(10 * time.Second))
		if _, err := io.ReadFull(ends[1], make([]byte, 5)); err != nil || time.Since(begun) > 100*time.Millisecond {
			t.Errorf("it takes %v, %v", time.Since(begun), err)
		}
		for i := range ends {
			ends[i].Close()
			clients[i].Close()
		}
		s.Close()
	})
}

// When the NAT of a peer forgets, its packets come from another port, and the
// relay sends there from then on.
func TestRelayFollowsAPeerToAnotherPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := packet.NewSim(clock.System, 1)
		ru, relay := socket(t, sim, 1)
		s := NewServer(Options{UDX: ru})
		nat := sim.NAT(packet.NAT{Kind: packet.Symmetric}, netip.AddrFrom4([4]byte{24, 0, 9, 1}))
		var us [2]*udx.UDX
		var sockets [2]*udx.Socket
		var clients [2]*Client
		us[0], sockets[0] = socket(t, sim, 2)
		home := nat.Host()
		us[1] = udx.New(udx.Options{Network: home, Clock: clock.System})
		var err error
		if sockets[1], err = us[1].Listen(netip.AddrPortFrom(home.Addr(), 0), udx.SocketOptions{}); err != nil {
			t.Fatal(err)
		}
		for i := range clients {
			clients[i], _ = client(t, s, byte(1+i))
		}
		ends := throughRelay(t, s, relay, Token{1}, clients, us, sockets)
		meet(t, ends)
		for range 3 {
			nat.Flush()
			meet(t, ends)
		}
		for i := range ends {
			ends[i].Close()
			clients[i].Close()
		}
		sockets[1].Close()
		s.Close()
	})
}
